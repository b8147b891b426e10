#!/usr/bin/env bash
# Trains a small Cutie, on one core of a CPU; AMP=bf16 on one that computes in bfloat16.
# DATA holds static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in each), davis2016/train in
# the DAVIS layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/cutie_small}

# Keys that match by looks (--align-keys) and the trunks of ImageNet learn slowly: thirty videos are
# too few to learn either from nothing, and frozen ones score a little less. The mask stem,
# the values, the transformer and the decoder learn from nothing.
python -m vos_deploy.train --method cutie --stage mixed --output "$OUTPUT" \
    --backbone resnet18 --width 128 \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --align-keys \
    --slow pixel_encoder=0.04 key_proj.pix_feat_proj=0.1 key_proj.key_proj=0.1 mask_encoder.bn1=0.1 \
        mask_encoder.layer=0.1 \
    --stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg} \
    --davis "$DATA/davis2016/train" --video-share 0.5 --crop 240 --objects 2 --skip 10 \
    --still-augmentation hard --video-augmentation hard \
    --iterations "${ITERATIONS:-600}" --batch 4 --accumulate 2 --learning-rate 3e-4 --warm-up 50 \
    --schedule cosine --average 0.99 --half --amp "${AMP:-none}" --workers 1 --threads 1 --save-every 100

python -m vos_deploy.export --method cutie --checkpoint "$OUTPUT/model.safetensors" \
    --short-side 240 --output "$OUTPUT/model"
