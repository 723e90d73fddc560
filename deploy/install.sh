#!/bin/sh
# install.sh LOCK [TORCH_INDEX]: what the lock pins, into the environment whose pip comes first; with an index of PyTorch's
# CPU wheels without anything of CUDA.
set -eu
lock=$1 index=${2:-}
if [ -z "$index" ]; then
  exec pip install --require-hashes -r "$lock"
fi
# An entry of the lock is a line that names a package, and those after it that end in its hashes.
awk '/^[A-Za-z0-9]/ { keep = !/^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==/ } keep' "$lock" > cpu.lock
pip install --no-deps --require-hashes -r cpu.lock
pip install --no-deps --index-url "$index" $(sed -nE 's/^((torch|torchvision)==[^ ;\\]+).*/\1/p' "$lock")
