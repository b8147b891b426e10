#!/usr/bin/env bash
# Trains a small RDE-VOS: about twenty minutes on a CPU core. DATA holds
# static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in each), davis2016/train in the DAVIS
# layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/rde_small}

# The trunks stay ImageNet's and the keys match by looks (--align-keys): thirty videos are too few
# to learn either, and enough for the mask stem, the values and the decoder.
common=(
    --backbone resnet18 --key-dim 64 --value-dim 128 --decoder-width 64
    --freeze key_encoder,key_proj,value_encoder.bn1,value_encoder.layer
    --stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg}
    --davis "$DATA/davis2016/train" --video-share 0.5 --crop 240 --objects 2 --skip 3 15
    --still-augmentation mixed --video-augmentation mixed --batch 2 --accumulate 2 --amp none
    --schedule cosine --bootstrap 0.4 --bootstrap-from 200 --bootstrap-until 300 --clip-gradient 5
    --workers 1 --threads 1 --save-every 100 --pictures-every 100
)

# As in stage 0, without compression.
python -m vos_deploy.train --method rde --stage 0 --output "$OUTPUT/0" "${common[@]}" \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --align-keys \
    --iterations 500 --learning-rate 5e-4 --warm-up 50 --average 0.99

# Then with it, on clips of five frames: it starts as the mean of its two frames.
python -m vos_deploy.train --method rde --stage 3 --output "$OUTPUT/3" "${common[@]}" \
    --initial "$OUTPUT/0/model.safetensors" --compression-start mean \
    --iterations 100 --learning-rate 2e-4 --warm-up 10 --average 0.95

python -m vos_deploy.export --method rde --checkpoint "$OUTPUT/3/model.safetensors" \
    --short-side 240 --output "$OUTPUT/model"
