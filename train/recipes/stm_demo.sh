#!/usr/bin/env bash
# Trains the demonstration weights of STM (vos_deploy/weights/stm.safetensors): about 80 minutes on
# two CPU cores. DATA holds static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in each),
# davis2016/train in the DAVIS layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/stm_demo}

python -m vos_deploy.train --method stm --output "$OUTPUT" \
    --backbone resnet18 --key-dim 64 --value-dim 128 --decoder-width 64 \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" \
    --freeze Encoder_Q.conv1,Encoder_Q.bn1,Encoder_Q.res2 \
    --stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg} \
    --davis "$DATA/davis2016/train" --video-share 0.5 --crop 240 --objects 2 --skip 0 10 \
    --iterations 4500 --batch 2 --accumulate 2 --learning-rate 2e-4 --warm-up 100 \
    --schedule cosine --loss both --bootstrap 0.4 --bootstrap-from 300 --clip-gradient 5 \
    --average 0.998 --workers 1 --threads 2 --save-every 250

# The weights that ship, and the model that make demo runs.
cp "$OUTPUT/model.safetensors" vos_deploy/weights/stm.safetensors
python -m vos_deploy.export --method stm --checkpoint vos_deploy/weights/stm.safetensors \
    --short-side 240 --half-storage --output vos_deploy/weights/stm \
    --licence "MIT, trained on research data: see vos_deploy/weights/README.md"
