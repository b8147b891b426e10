#!/usr/bin/env bash
# Trains the bundled weights of STM (vos_deploy/weights/stm.safetensors): about an hour and a quarter
# on a CPU core. DATA holds static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in
# each), davis2016/train in the DAVIS layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/stm_demo}

# The trunks stay ImageNet's and the keys match by looks (--align-keys): thirty videos are too few
# to learn either, and enough for the mask stems, the values and the decoder.
python -m vos_deploy.train --method stm --stage mixed --output "$OUTPUT" \
    --backbone resnet18 --key-dim 64 --value-dim 128 --decoder-width 64 \
    --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --align-keys \
    --freeze Encoder_Q,KV_Q_r4.Key,KV_M_r4.Key,Encoder_M.conv1.,Encoder_M.bn1,Encoder_M.res \
    --stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg} \
    --davis "$DATA/davis2016/train" --video-share 0.5 --crop 240 --objects 2 --skip 3 15 \
    --iterations 3000 --batch 2 --accumulate 2 --learning-rate 5e-4 --warm-up 50 \
    --schedule cosine --loss both --bootstrap 0.4 --bootstrap-from 300 --clip-gradient 5 \
    --average 0.99 --half --workers 1 --threads 1 --save-every 100

# The weights that ship: both trunks are ImageNet's, and lie in the file once.
cp "$OUTPUT/model.safetensors" vos_deploy/weights/stm.safetensors
python -m vos_deploy.models.sharing vos_deploy/weights/stm.safetensors
