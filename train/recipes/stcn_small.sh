#!/usr/bin/env bash
# Trains a small STCN on one core of a CPU; AMP=bf16 on one that computes in bfloat16. DATA holds
# static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in each), davis2016/train in the DAVIS
# layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/stcn_small}

# Keys that match by looks (--align-keys) and the trunks of ImageNet learn slowly: thirty videos are
# too few to learn either from nothing. Mask stem, values and decoder learn from nothing.
python -m vos_deploy.train --method stcn --stage mixed --output "$OUTPUT" \
    --backbone resnet18 --key-dim 64 --value-dim 128 --decoder-width 64 \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --align-keys \
    --slow key_encoder=0.04 key_proj=0.1 value_encoder.bn1=0.1 value_encoder.layer=0.1 \
    --stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg} \
    --davis "$DATA/davis2016/train" --video-share 0.5 --crop 240 --objects 2 --skip 10 \
    --still-augmentation hard --video-augmentation hard \
    --iterations "${ITERATIONS:-600}" --batch 4 --accumulate 2 --learning-rate 5e-4 --warm-up 50 \
    --schedule cosine --bootstrap 0.4 --bootstrap-from 150 --clip-gradient 5 \
    --average 0.99 --half --amp "${AMP:-none}" --workers 1 --threads 1 --save-every 100

python -m vos_deploy.export --method stcn --checkpoint "$OUTPUT/model.safetensors" \
    --short-side 240 --output "$OUTPUT/model"
