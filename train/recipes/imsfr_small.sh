#!/usr/bin/env bash
# Trains a small IMSFR: about twenty minutes on a CPU core. DATA holds
# static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in each), davis2016/train in the DAVIS
# layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/imsfr_small}

# The trunks stay ImageNet's and the keys match by looks (--align-keys): thirty videos are too few
# to learn either, and enough for the mask stem, the values, the gates and the decoder.
python -m vos_deploy.train --method imsfr --stage 3 --output "$OUTPUT" \
    --backbone resnet18 --dim 128 --decoder-width 64 \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --align-keys \
    --freeze key_encoder,key_comp,value_encoder.bn1,value_encoder.layer \
    --stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg} \
    --davis "$DATA/davis2016/train" --video-share 0.5 --crop 240 --objects 2 --skip 3 15 \
    --still-augmentation mixed --video-augmentation mixed --amp none \
    --iterations 500 --batch 2 --accumulate 2 --learning-rate 5e-4 --warm-up 50 \
    --schedule cosine --bootstrap 0.4 --bootstrap-from 200 --bootstrap-until 300 \
    --clip-gradient 5 --average 0.99 --workers 1 --threads 1 --save-every 100 \
    --pictures-every 100

python -m vos_deploy.export --method imsfr --checkpoint "$OUTPUT/model.safetensors" \
    --short-side 240 --output "$OUTPUT/model"
