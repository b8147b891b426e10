#!/usr/bin/env bash
# Second call on the GPU machine, in the root of the checkout, and every later one there: unpacks
# what is not unpacked yet and measures. Rows and report are in $OUT, or in FOLDER/out.
#
#   bash .gpu2/run.sh MINUTES [--only WORDS ...] [--resume]        KIT=FOLDER, as given to first.sh
set -euo pipefail
minutes=$1; shift; kit=${KIT:-${TMPDIR:-/tmp}/vos_deploy_gpu}; site=$kit/site; out=${OUT:-$kit/out}; started=$(date +%s)
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CUDA_MODULE_LOADING=LAZY
mkdir -p "$site" "$out"
if [ ! -e "$site/done" ]; then
  cat "$kit/ort.0" .gpu2/ort.1 | tar -C "$site" -xJ
  tar -C "$site" -xJf .gpu2/site.tar.xz; tar -C "$kit" -xJf .gpu2/models.tar.xz
  cp -r vos_deploy/weights/. "$site/vos_deploy/weights/"; cp .gpu2/reference.npz "$kit/"
  # Where ONNX Runtime looks for CUDA's libraries: beside its own package.
  ln -sfn "$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])')" "$site/nvidia"
  touch "$site/done"
fi
nvidia=$(readlink "$site/nvidia")
export PYTHONPATH=$site LD_LIBRARY_PATH=$nvidia/cu13/lib:$nvidia/cudnn/lib:${LD_LIBRARY_PATH:-}
cd "$kit"   # not the checkout: its vos_deploy/ would hide the installed package
left=$(awk "BEGIN { print $minutes - ($(date +%s) - $started) / 60 }")
python3 -m vos_deploy.benchmarks gpu --minutes "$left" --models models --reference reference.npz --output "$out" "$@"
