#!/usr/bin/env bash
# First call on the GPU machine, in the root of the checkout: keeps the first half of ONNX Runtime,
# and says what is there.
#
#   bash .gpu1/first.sh [FOLDER]
kit=${1:-${TMPDIR:-/tmp}/vos_deploy_gpu}; mkdir -p "$kit" && cp .gpu1/ort.0 "$kit/" || exit 1
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
# Its libraries are in the disk's cache from now on.
python3 -c "import torch; torch.zeros(1, device='cuda'); print(torch.__version__, torch.backends.cudnn.version())"
df -h "$kit" | tail -1
