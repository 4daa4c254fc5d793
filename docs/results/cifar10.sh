#!/usr/bin/env bash
# Makes all that docs/results.md shows: `docs/results/cifar10.sh [RESULTS]` from the repository's root, in its .venv.
#
# Needs PWFN_DATA (README). Hours on two CPU cores; the same command again goes on where it stands. The search runs on
# this machine; on a cluster or a GPU give search.py's --address, or --set resources.gpus_per_worker=0.25, in SEARCH_OPTIONS.
set -euo pipefail

results=${1:-results}
python=${PYTHON:-.venv/bin/python}
resnet32=(--set model.name=cifar_resnet32 'model.checkpoint=${PWFN_DATA}/resnet_cifar10/resnet32.safetensors')

search() {
    # shellcheck disable=SC2086  # several words
    "$python" launchers/search.py --results "$results" --confirm 2 ${SEARCH_OPTIONS:-} "$@"
}

search --space kmeans_cifar10.yaml
search --space gpfq_cifar10.yaml
search --space gpfq_cifar10.yaml --study msq_cifar10 --set method.name=msq
search --space wfn_cifar10.yaml
search --space pwfn_cifar10.yaml
search --space extended_cifar10.yaml
search --space kmeans_cifar10.yaml --study kmeans_resnet32 "${resnet32[@]}"
search --space extended_cifar10.yaml --study extended_resnet32 "${resnet32[@]}"

studies=({extended,pwfn,wfn,gpfq,msq,kmeans}_cifar10 {extended,kmeans}_resnet32)
"$python" launchers/publish.py --results "$results" --study "${studies[@]}" --out docs/results/cifar10
"$python" launchers/report.py --results docs/results/cifar10 --study "${studies[@]}" --out "$results/report-cifar10"
