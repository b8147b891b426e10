#!/usr/bin/env bash
# Trains a small Cutie in about twenty minutes on a CPU core. DATA holds
# static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in each), davis2016/train in the DAVIS
# layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/cutie_small}

# The trunks stay ImageNet's and the keys match by looks (--align-keys): thirty videos are too few
# to learn either, and enough for the mask stem, the values, the transformer and the decoder.
python -m vos_deploy.train --method cutie --stage mixed --output "$OUTPUT" \
    --backbone resnet18 --width 128 \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --align-keys \
    --freeze pixel_encoder,key_proj.pix_feat_proj,key_proj.key_proj,mask_encoder.bn1,mask_encoder.layer \
    --slow --stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg} \
    --davis "$DATA/davis2016/train" --video-share 0.5 --crop 240 --objects 2 --skip 3 15 \
    --iterations "${ITERATIONS:-250}" --batch 2 --accumulate 2 --learning-rate 3e-4 --warm-up 50 \
    --schedule cosine --average 0.99 --half --workers 1 --threads 1 --save-every 100

python -m vos_deploy.export --method cutie --checkpoint "$OUTPUT/model.safetensors" \
    --short-side 240 --output "$OUTPUT/model"
