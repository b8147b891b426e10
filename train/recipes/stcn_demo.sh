#!/usr/bin/env bash
# Trains the bundled demo model (vos_deploy/weights/stcn): five minutes on an H200 with 16 cores, two
# other trainings beside it. One core of a CPU, with AMP=none PIECES=16, takes about 15 hours by the
# pace of its first steps. DATA holds static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in
# each), davis2016/train in the DAVIS layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/stcn_demo}
RECIPES=$(dirname "${BASH_SOURCE[0]}")

# The keys start as principal components of the trunk's features, of one length. They and the trunks
# learn slowly; mask stem, values and decoder learn from nothing. What was decided about this recipe
# was decided on five sequences that HELD_OUT=1 leaves out: slow trunks beside frozen ones. What
# ships has seen all thirty.
python -m vos_deploy.train --method stcn --stage mixed --output "$OUTPUT" \
    --backbone resnet18 --key-dim 64 --value-dim 128 --decoder-width 64 --unit-keys \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --align-keys \
    --slow key_encoder=0.04 key_proj=0.1 value_encoder.bn1=0.1 value_encoder.layer=0.1 \
    --stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg} \
    --davis "$DATA/davis2016/train" ${HELD_OUT:+--exclude "$RECIPES/held_out.txt"} \
    --video-share 0.5 --still-augmentation hard --video-augmentation hard \
    --crop 240 --frames 4 --objects 2 --skip 10 \
    --iterations "${ITERATIONS:-1702}" --batch 16 --accumulate "${PIECES:-1}" \
    --learning-rate 6e-4 --warm-up 150 --schedule cosine --bootstrap 0.4 --bootstrap-from 300 \
    --clip-gradient 5 --average 0.995 --half --amp "${AMP:-bf16}" \
    --workers "${WORKERS:-5}" --threads 2

# The model that ships.
python -m vos_deploy.export --method stcn --checkpoint "$OUTPUT/model.safetensors" \
    --short-side 320 --memory-every 3 --half-storage --output vos_deploy/weights/stcn \
    --licence "MIT, trained on research data: see vos_deploy/weights/README.md"
