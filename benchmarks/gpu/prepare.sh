#!/usr/bin/env bash
# Run in the root of the checkout, once, before a GPU machine without a network is used: makes
# .gpu1/ and .gpu2/, which go there one after the other with the checkout. Several minutes, 260 MB
# downloaded.
#
#   bash benchmarks/gpu/prepare.sh [--pycuda FILE] [--limit MIB] [--arch 90] [--python 3.12] [--work FOLDER]
#
# --pycuda: archive of site-packages with PyCUDA for that Python; without it only the CPU is measured.
# --limit: the most that goes over at a time, the checkout included. $PYTHON: with the package's
# [export] extra installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); pycuda=; limit=64; arch=90; version=3.12; work=build/gpu-kit
ort=1.31.1; size=480x854; python=$(realpath -s "$(command -v "${PYTHON:-python3}")")
while [ $# -gt 0 ]; do case $1 in
  --pycuda) pycuda=$2;; --limit) limit=$2;; --arch) arch=$2;; --python) version=$2;; --work) work=$2;;
  *) echo "unknown argument $1" >&2; exit 2;; esac; shift 2; done
mkdir -p "$work"; work=$(cd "$work" && pwd); exclude=$(git rev-parse --git-path info/exclude); mkdir -p "$(dirname "$exclude")"
for d in .gpu1 .gpu2; do grep -qx "/$d/" "$exclude" 2>/dev/null || echo "/$d/" >> "$exclude"; done

# ONNX Runtime for one GPU architecture; tools and the TensorRT provider are not needed there.
if [ ! -e "$work/ort.tar.xz" ]; then
  "$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 -d "$work" "onnxruntime-gpu==$ort"
  rm -rf "$work/ort"; mkdir "$work/ort"
  (cd "$work/ort" && "$python" -m zipfile -e ../onnxruntime_gpu-$ort-*.whl . && cd onnxruntime/capi \
    && "$python" "$here/keep_arch.py" libonnxruntime_providers_cuda.so thin.so "$arch" \
    && mv thin.so libonnxruntime_providers_cuda.so && rm -f libonnxruntime_providers_tensorrt.so libonnxruntime.so*)
  rm -rf "$work"/ort/onnxruntime/{tools,transformers,quantization,datasets,backend}
  tar -C "$work/ort" -c . | xz -9 -T2 > "$work/ort.part" && mv "$work/ort.part" "$work/ort.tar.xz"
fi

# Models: the graphs of every method without weights, and the weights that ship in both precisions.
if [ ! -e "$work/models/done" ]; then
  read -r bundled methods <<< "$("$python" -c 'from vos_deploy.methods import BUNDLED_WEIGHTS, METHODS; print(BUNDLED_WEIGHTS, *METHODS)')"
  (cd "$work" && rm -rf models && mkdir models \
    && "$python" -m vos_deploy.benchmarks.gpu.models models $methods --size $size \
    && "$python" -m vos_deploy.export --method "$bundled" --size $size --half-storage --output models/bundled \
    && "$python" -m vos_deploy.export --method "$bundled" --size $size --precision fp16 --output models/bundled-fp16 \
    && "$python" -m vos_deploy.benchmarks gpu --record reference.npz --model models/bundled --size $size && touch models/done)
fi

# The package as a wheel lays it out, without the weights, which travel in the checkout.
rm -rf .gpu1 .gpu2 "$work/site" "$work/wheel"; mkdir .gpu1 .gpu2 "$work/site"
[ -z "$pycuda" ] || tar -C "$work/site" -xJf "$pycuda"
"$python" -m pip wheel -q --no-deps -w "$work/wheel" .
(cd "$work/site" && "$python" -m zipfile -e "$work"/wheel/vos_deploy*.whl . && rm -rf vos_deploy/weights/*/ vos_deploy/weights/*.safetensors)
tar -C "$work/site" -cJf .gpu2/site.tar.xz .
tar -C "$work" -cJf .gpu2/models.tar.xz --exclude=done models
cp "$work/reference.npz" "$here/run.sh" .gpu2/; cp "$here/first.sh" .gpu1/

# ONNX Runtime is split so that both halves come to the same size.
whole=$(stat -c %s "$work/ort.tar.xz"); other=$(du -sb .gpu2 | cut -f1); half=$(( (whole + other) / 2 ))
head -c $half "$work/ort.tar.xz" > .gpu1/ort.0; tail -c +$(( half + 1 )) "$work/ort.tar.xz" > .gpu2/ort.1
tree=$(git ls-files -z --cached --others --exclude-standard | xargs -0 du -cb | tail -1 | cut -f1); too_large=0
for d in .gpu1 .gpu2; do
  mib=$(( ($(du -sb $d | cut -f1) + tree + 1048575) / 1048576 )); echo "$d and the checkout: $mib MiB of $limit"
  [ $mib -le "$limit" ] || too_large=1
done
exit $too_large
