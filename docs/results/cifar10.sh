#!/usr/bin/env bash
# Makes all that docs/results.md shows: `docs/results/cifar10.sh [RESULTS]` from the repository's root, in its .venv.
#
# Needs PWFN_DATA (README). A few hours on two CPU cores; the same command again goes on where the results stand. On a
# GPU: SEARCH_OPTIONS="--set resources.gpus_per_worker=0.25" (then PWFN and WFN can train longer, too: training.*).
set -euo pipefail

results=${1:-results}
python=${PYTHON:-.venv/bin/python}
pages=docs/results/cifar10
# shellcheck disable=SC2016  # pwfn itself puts PWFN_DATA in
resnet32=(--set model.name=cifar_resnet32 'model.checkpoint=${PWFN_DATA}/resnet_cifar10/resnet32.safetensors')

search() {
    # shellcheck disable=SC2086  # several words
    "$python" launchers/search.py --results "$results" "$@" ${SEARCH_OPTIONS:-}
}

search --space kmeans_cifar10.yaml --trials 16 --confirm 2
search --space gpfq_cifar10.yaml --trials 5 --confirm 2
search --space gpfq_cifar10.yaml --study msq_cifar10 --trials 5 --confirm 2 --set method.name=msq
search --space wfn_cifar10.yaml --trials 3 --confirm 2
search --space pwfn_cifar10.yaml --trials 4 --confirm 2
search --space extended_cifar10.yaml --trials 8 --confirm 2
search --space extended_cifar10.yaml --study loaded_cifar10 --trials 3 --set model.equalize=none
# Of the 16 values that k-means's front has in the end, two more seeds: they had not been on it before its replicates.
search --space kmeans_cifar10.yaml --study fisher16_cifar10 --trials 1 --confirm 2 --set model.equalize=layer \
    method.num_values=16 method.weighting=fisher method.max_order=null
search --space kmeans_cifar10.yaml --study kmeans_resnet32 --trials 8 --confirm 2 "${resnet32[@]}"
search --space extended_cifar10.yaml --study extended_resnet32 --trials 2 --confirm 2 "${resnet32[@]}"

studies=({extended,loaded,pwfn,wfn,gpfq,msq,kmeans,fisher16}_cifar10 {extended,kmeans}_resnet32)
"$python" launchers/publish.py --results "$results" --study "${studies[@]}" --out "$pages"
"$python" launchers/report.py --results "$pages" --study "${studies[@]}" --out "$results/report-cifar10"
cp "$results"/report-cifar10/{front-*-test.png,front.md} "$pages"
