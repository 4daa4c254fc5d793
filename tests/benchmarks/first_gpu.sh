#!/bin/sh
# What a GPU has to show on the first day, in one run; all results go to one folder.
#
#   sh tests/benchmarks/first_gpu.sh OUT
#
# Needs torch for CUDA, a C++ compiler, and for the last part PWFN_DATA with cifar10/ and resnet_cifar10/. Where there is
# no GPU, the parts run on the pretended device of tests/cuda or on the CPU, at small sizes, so that this script is known
# to work; OUT/summary.md then says so. Each part has a file in OUT, and the summary a line for it: passed or failed, and
# the seconds it took. ONLY="fused clustering" runs these parts alone. Exit code 1 if a part failed.
set -u
cd "$(dirname "$0")/../.." || exit 1
OUT=${1:?usage: first_gpu.sh OUT}
PYTHON=${PYTHON:-python}
mkdir -p "$OUT" || exit 1
export PYTHONPATH="$PWD:$PWD/tests:$PWD/tests/benchmarks:$PWD/tests/cuda:$PWD/tests/methods/pwfn/clustering${PYTHONPATH:+:$PYTHONPATH}"
FAILED=0

GPUS=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)') || exit 1
if [ "$GPUS" -eq 0 ]; then
    WHERE="no GPU: pretended device and CPU, small sizes"
    PRETENDED_CUDA_GUARD=$("$PYTHON" -c 'import sys, pathlib; sys.path.insert(0, "tests/cuda"); import guard
print(guard.compiled_guard(pathlib.Path(sys.argv[1])))' "$OUT") || exit 1
    export PRETENDED_CUDA_GUARD
else
    WHERE="$GPUS GPUs"
fi
{ echo "# First GPU: $WHERE"; echo; date; echo; echo "| part | result | s |"; echo "|---|---|---|"; } > "$OUT/summary.md"

part() { # NAME COMMAND...: run one part
    name=$1; shift
    case " ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
    begin=$(date +%s)
    if "$@" > "$OUT/$name.txt" 2>&1; then result=passed; else result=FAILED; FAILED=1; fi
    echo "| $name | $result | $(($(date +%s) - begin)) |" >> "$OUT/summary.md"
    tail -n 1 "$OUT/summary.md"
}

skip() { # NAME REASON
    case " ${ONLY:-$1} " in *" $1 "*) ;; *) return ;; esac
    echo "| $1 | skipped: $2 | |" >> "$OUT/summary.md"
}

machine() {
    if command -v nvidia-smi; then nvidia-smi -q; nvidia-smi topo -m; fi
    "$PYTHON" -c 'import importlib.util as found, os, platform, torch
print(platform.platform(), os.cpu_count(), "CPUs; torch", torch.__version__, "CUDA", torch.version.cuda)
print("cuDNN", torch.backends.cudnn.version(), "Triton", found.find_spec("triton") is not None)
for index in range(torch.cuda.device_count()): print(torch.cuda.get_device_properties(index))'
}

packing() { # 1, 2 and 4 trials at once on one GPU (or on the CPU): seconds until all have ended
    gpus=$1; shift
    for together in 1 2 4; do
        begin=$(date +%s)
        pids=
        for each in $(seq "$together"); do
            share=$("$PYTHON" -c "print($gpus / $together)")
            "$PYTHON" launchers/train.py --space pwfn_digits.yaml --results "$OUT/packing-$together-$each" \
                --set resources.gpus_per_worker="$share" "$@" > "$OUT/packing-$together-$each.txt" 2>&1 &
            pids="$pids $!"
        done
        for pid in $pids; do wait "$pid" || return 1; done
        echo "$together at once: $(($(date +%s) - begin)) s"
    done
}

part machine machine
part fused "$PYTHON" tests/benchmarks/first_gpu_parts.py fused
part clustering "$PYTHON" tests/benchmarks/first_gpu_parts.py clustering
part trials "$PYTHON" tests/benchmarks/first_gpu_parts.py trials
part graphs "$PYTHON" tests/benchmarks/first_gpu_parts.py graphs
part counts "$PYTHON" tests/benchmarks/step_counts.py cifar_resnet20
unset PRETENDED_CUDA_GUARD
if [ "$GPUS" -eq 0 ]; then
    part step "$PYTHON" tests/benchmarks/step.py --device cpu --models test_resnet --turns 1 --batch-size 4 --limit 1000
    part replicas "$PYTHON" -m pytest -q tests/test_replicas.py
    part packing packing 0 model.name=digits_mlp baseline.epochs=1 training.rest_epochs=1 data.train_images=200
    skip wfn "the same on a CPU and on the pretended device"
    skip schedule "hours on a CPU: launchers/train.py --space cifar10.yaml"
else
    part step "$PYTHON" tests/benchmarks/step.py --device cuda # also peak memory
    part wfn "$PYTHON" -m pytest -q tests/methods/wfn/test_wfn_assignment.py
    if [ "$GPUS" -ge 2 ]; then
        part replicas env PWFN_TEST_BACKEND=nccl "$PYTHON" -m pytest -q tests/test_replicas.py
    else
        skip replicas "one GPU"
    fi
    part packing packing 1
    if [ -n "${PWFN_DATA:-}" ]; then
        part schedule "$PYTHON" launchers/train.py --space cifar10.yaml --results "$OUT/schedule" \
            --set resources.gpus_per_worker=1
    else
        skip schedule "PWFN_DATA is not set"
    fi
fi
cat "$OUT/summary.md"
exit $FAILED
