#!/bin/sh
# All figures of GPUs, on a machine that may be bare but for Python and a CUDA build of torch.
#
#   benchmarks/gpu.sh pack WHEELS [X.Y]   where the registry can be reached: the wheels that such a machine lacks, 47 MB,
#                                         for its version of Python (3.12)
#   benchmarks/gpu.sh OUT [WHEELS]        there: installs them beside what is there, and writes OUT/gpu.json, OUT/gpu.log
set -eu
cd "$(dirname "$0")/.."

# What a night without tags needs, and an image with torch, transformers and sentence-transformers lacks.
PACKAGES="apache-beam==2.70.0 pydantic pydantic-core annotated-types tantivy elasticsearch==9.* elastic-transport orjson
ir-measures phonenumbers python-stdnum dill fastavro fasteners httplib2 jsonpickle objsize proto-plus pymongo dnspython
beartype cryptography cffi pycparser typing-inspection zstandard pytz sentence-transformers==6.2.*"

if [ "$1" = pack ]; then
    to=$2 version=${3:-3.12}
    for package in $PACKAGES; do
        python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
            --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
            --dest "$to" "$package" || echo "no wheel of $package"
    done
    du -sm "$to"
    exit
fi

out=$1 wheels=${2:-}
mkdir -p "$out"
export PYTHONPATH="$PWD" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
if [ -n "$wheels" ]; then
    site=$(mktemp -d)
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
    PYTHONPATH="$PWD:$site"
fi
# DEVICE=cpu rehearses. A pipe would hide how it ended.
python3 -m benchmarks.gpu --device "${DEVICE:-cuda}" --json "$out/gpu.json" >"$out/gpu.log" 2>&1 || failed=$?
cat "$out/gpu.log"
exit "${failed:-0}"
