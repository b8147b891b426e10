#!/usr/bin/env bash
# Trains a small RMNet and its TinyFlowNet on one core of a CPU; AMP=bf16 on one that computes in
# bfloat16. DATA holds static/{ECSSD,CCP,WeizmannHorse,HumanSeg} (image/ and mask/ in each),
# davis2016/train in the DAVIS layout, and the ImageNet weights of a ResNet-18.
set -euo pipefail
: "${DATA:?set DATA to the folder of the data sets}"
OUTPUT=${OUTPUT:-runs/rmnet_small}
ITERATIONS=${ITERATIONS:-600}
FLOW_ITERATIONS=${FLOW_ITERATIONS:-400}

# What every step sees: still images set in motion and videos, with flow estimated by DIS.
clips=(--stills "$DATA"/static/{ECSSD,CCP,WeizmannHorse,HumanSeg} --davis "$DATA/davis2016/train"
    --video-share 0.5 --still-augmentation hard --video-augmentation hard --flow dis --crop 240
    --order time --skip 3 15 --epochs 0 --rate-plateaus 0
    --backbone resnet18 --key-dim 64 --value-dim 128 --decoder-width 64 --flow-width 16
    --workers 1 --threads 1 --save-every 100)

# Keys that match by looks (--align-keys) and the trunks of ImageNet learn slowly: thirty videos are
# too few to learn either from nothing.
python -m vos_deploy.train --method rmnet --stage finetune --output "$OUTPUT/segmentation" \
    "${clips[@]}" --imagenet "$DATA/weights/resnet18_imagenet_bnfolded.safetensors" --align-keys \
    --slow rmnet.encoder_query=0.04 rmnet.kv_query.key_conv=0.1 rmnet.kv_memory.key_conv=0.1 \
    rmnet.encoder_memory.conv1.=0.1 rmnet.encoder_memory.bn1=0.1 rmnet.encoder_memory.res=0.1 \
    --objects 2 --iterations "$ITERATIONS" --batch 4 --accumulate 2 --learning-rate 5e-4 \
    --warm-up 50 --clip-gradient 5 --average 0.99 --amp "${AMP:-none}"

# The other network, on the same clips.
python -m vos_deploy.train --method rmnet --stage flow --output "$OUTPUT/flow" "${clips[@]}" \
    --initial "$OUTPUT/segmentation/model.safetensors" \
    --objects 1 --iterations "$FLOW_ITERATIONS" --batch 4 --learning-rate 1e-3 --warm-up 50 \
    --clip-gradient 50 --average 0.99

python -m vos_deploy.export --method rmnet --checkpoint "$OUTPUT/flow/model.safetensors" \
    --short-side 240 --output "$OUTPUT/model"
