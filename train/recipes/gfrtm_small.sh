#!/usr/bin/env bash
# Trains a Reuse-VOS (G-FRTM) with ResNet-18 on little data: about forty minutes on a CPU core.
# DATA holds davis2016/train in the DAVIS layout and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/gfrtm_small}
ITERATIONS=${ITERATIONS:-600}

# The ImageNet file here ends at stride 16: the stage at stride 32 is learned. Five views of the
# first frame instead of fifteen save time, and the target models of frames that come again are taken
# from the cache.
python -m vos_deploy.train --method gfrtm --output "$OUTPUT" \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --learn-deepest \
    --davis "$DATA/davis2016/train" --crop 192x336 --frames 3 --shortest 0 \
    --target-augment 5 --target-cache "$OUTPUT/targets" \
    --epochs 0 --iterations "$ITERATIONS" --batch 4 --accumulate 4 --learning-rate 5e-4 \
    --warm-up 30 --schedule cosine --clip-gradient 5 --average 0.99 \
    --workers 1 --threads 1 --save-every 50

python -m vos_deploy.export --method gfrtm --checkpoint "$OUTPUT/model.safetensors" \
    --short-side 240 --output "$OUTPUT/model"
