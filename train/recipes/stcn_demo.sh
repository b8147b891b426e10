#!/usr/bin/env bash
# Trains the bundled demo model (vos_deploy/weights/stcn): about an hour and a half on a CPU core.
# DATA holds static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in each), davis2016/train in
# the DAVIS layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/stcn_demo}
RECIPES=$(dirname "${BASH_SOURCE[0]}")

# The trunks stay ImageNet's: thirty videos are too few to learn them. The keys start as principal
# components of the trunk's features, of one length, and learn slowly; mask stem, values and decoder
# learn from nothing. Five sequences of the training set are held out: what was decided about this
# recipe was decided on them.
python -m vos_deploy.train --method stcn --stage mixed --output "$OUTPUT" \
    --backbone resnet18 --key-dim 64 --value-dim 128 --decoder-width 64 --unit-keys \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --align-keys \
    --freeze key_encoder,value_encoder.bn1,value_encoder.layer --slow key_proj=0.1 \
    --stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg} \
    --davis "$DATA/davis2016/train" --exclude "$RECIPES/held_out.txt" --video-share 0.5 \
    --still-augmentation hard --video-augmentation hard --crop 240 --objects 2 --skip 3 15 \
    --iterations "${ITERATIONS:-2600}" --batch 2 --accumulate 2 --learning-rate 5e-4 --warm-up 50 \
    --schedule cosine --bootstrap 0.4 --bootstrap-from 200 --clip-gradient 5 \
    --average 0.99 --half --workers 1 --threads 1 --save-every 100

# The model that ships.
python -m vos_deploy.export --method stcn --checkpoint "$OUTPUT/model.safetensors" \
    --short-side 240 --memory-every 3 --half-storage --output vos_deploy/weights/stcn \
    --licence "MIT, trained on research data: see vos_deploy/weights/README.md"
