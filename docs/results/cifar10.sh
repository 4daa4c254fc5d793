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
search --space extended_cifar10.yaml --study longer_cifar10 --trials 2 --confirm 2 --set training.steps_per_epoch=90
search --space extended_cifar10.yaml --study patient_cifar10 --trials 4 --confirm 2 \
    --set training.steps_per_epoch=90 training.lr=0.0003
search --space extended_cifar10.yaml --study gentle32_cifar10 --trials 1 --confirm 2 --set training.lr=0.0003 \
    method.codebook=kmeans method.num_values=32 method.sigma_init=fisher method.sigma_scale=0.0025 \
    method.sigma_join=allow_retraining method.noise=false
# Three more seeds of 16 values, Fisher-weighted.
search --space kmeans_cifar10.yaml --study fisher16_cifar10 --trials 1 --confirm 2 --set model.equalize=layer \
    method.num_values=16 method.weighting=fisher method.max_order=null
latent=(method.stage_start=latent method.dampening=0.0)
# Straight-through training in stages: 16, 8, 4, 3 and 2 values in one training of 2,160 steps. Recorded are seed 0 whole
# and the first two stages of seed 1. In float32: that machine has no bfloat16.
for seed in 0 1 2; do
    "$python" launchers/train.py --results "$results" --study staged_cifar10 --space qat_cifar10.yaml --seed "$seed" \
        --set training.precision=float32 training.lr=0.001 training.steps_per_epoch=180 method.num_values=null \
        'method.stages=[16,8,4,3,2]' 'method.stage_rounds=[2,3,3,2,2]' method.later_lr_ratio=1.0 "${latent[@]}"
done
# Seed 2 of the first two of these stages, and 8 values, one of them zero, with a price on bits.
"$python" launchers/train.py --results "$results" --study third_staged_cifar10 --space qat_cifar10.yaml --seed 2 \
    --set training.precision=float32 training.channels_last=true training.lr=0.001 training.steps_per_epoch=180 \
    method.num_values=null 'method.stages=[16,8]' 'method.stage_rounds=[2,3]' method.later_lr_ratio=1.0 "${latent[@]}"
"$python" launchers/train.py --results "$results" --study rate_cifar10 --space qat_cifar10.yaml \
    --set training.precision=float32 training.channels_last=true training.lr=0.001 training.steps_per_epoch=180 \
    method.num_values=8 method.zero=true method.rate_strength=0.05 'method.stage_rounds=[4]' "${latent[@]}"
# The stages in 3,960 steps, with a larger learning rate for fewer values; the two differ in the rate for 8 values.
staged() {
    "$python" launchers/train.py --results "$results" --study "$1" --space qat_cifar10.yaml --seed "$2" \
        --set training.lr=0.001 training.steps_per_epoch=180 method.num_values=null 'method.stages=[16,8,4,3,2]' \
        'method.stage_rounds=[2,4,5,5,6]' "method.later_lr_ratio=$3" "${latent[@]}"
}
staged longer_staged_cifar10 0 '[2,3,4,6]'
staged steady_staged_cifar10 1 '[1,3,4,6]'
staged steady_staged_cifar10 2 '[1,3,4,6]'
# One number of values alone, 700 steps from the float weights at three times the rate, with a higher temperature for 4
# values. Recorded are 4 values, and seeds 0 and 1 of 8.
alone() { # study, seed, values, start, learning rate, temperature, steps per round, further settings
    "$python" launchers/train.py --results "$results" --study "$1" --space qat_cifar10.yaml --seed "$2" \
        --set training.steps_per_epoch="$7" 'method.stage_rounds=[2]' method.zero=false method.rate_strength=0.0 \
        method.weighting=fisher method.dampening=0.0 method.num_values="$3" method.stage_start="$4" training.lr="$5" \
        training.temperature="$6" "${@:8}"
}
last=training.channels_last=true
for seed in 0 1 2; do
    alone single_cifar10 "$seed" 4 latent 0.003 6.0 350 "$last"
    alone single_cifar10 "$seed" 8 latent 0.003 2.0 350 "$last"
done
# 4 values at other rates and temperatures, in smaller batches, and from GPTQ.
alone rates_cifar10 0 4 latent 0.001 2.0 350 "$last"
alone rates_cifar10 0 4 latent 0.001 8.0 350 "$last"
alone rates_cifar10 0 4 latent 0.0005 2.0 1400 "$last" training.batch_size=32
alone rates_cifar10 0 4 latent 0.003 2.0 350 "$last"
alone rates_cifar10 0 4 latent 0.008 2.0 350 "$last"
for lr in 0.0003 0.001 0.003; do alone rates_cifar10 0 4 gptq "$lr" 2.0 350; done
alone rates_cifar10 0 4 gptq 0.001 4.0 350
# The stages again at such rates. Recorded are seed 0, and the first two stages of seed 1.
for seed in 0 1; do
    "$python" launchers/train.py --results "$results" --study hot_staged_cifar10 --space qat_cifar10.yaml --seed "$seed" \
        --set "$last" training.steps_per_epoch=180 method.num_values=null \
        'method.stages=[16,8,4,3,2]' 'method.stage_rounds=[2,5,10,12,15]' method.zero=false method.rate_strength=0.0 \
        method.weighting=fisher "${latent[@]}" training.lr=0.002 'method.later_lr_ratio=[1.25,2,2.5,3.5]' \
        training.temperature=6.0
done
# The values of k-means, given to the weights by path following and by GPTQ, without training. Recorded are, of path
# following, seed 0 of all and seeds 1 and 2 of 16 values and fewer (5: none); of GPTQ 16, 8, 5 and 4 values, and 3 once.
assigned() {
    "$python" launchers/train.py --results "$results" --study "$1" --space kmeans_cifar10.yaml --seed "$2" \
        --set method.num_values="$3" method.weighting=fisher model.equalize=layer method.max_order=null \
        method.assignment="$4" "${@:5}"
}
for seed in 0 1 2; do
    for values in 8 4 16 3 2 32 64 5; do
        assigned followed_cifar10 "$seed" "$values" path_following
        assigned gptq_kmeans_cifar10 "$seed" "$values" gptq
    done
done
for seed in 0 1 2; do
    for values in 8 4 16; do
        assigned gptq_kmeans_resnet32 "$seed" "$values" gptq "${resnet32[@]:1}" # without --set
    done
done
# Straight-through training from GPTQ: 16 values alone (none recorded yet), and in stages (recorded: seed 0 down to 4 values).
from_gptq=(--set training.precision=float32 training.channels_last=true training.steps_per_epoch=120 method.zero=false
    training.lr=0.0005 method.rate_strength=0.0 method.weighting=fisher method.stage_start=gptq method.dampening=0.5)
for seed in 0 1 2; do
    "$python" launchers/train.py --results "$results" --study gptq16_cifar10 --space qat_cifar10.yaml --seed "$seed" \
        "${from_gptq[@]}" method.num_values=16 'method.stage_rounds=[1]'
done
"$python" launchers/train.py --results "$results" --study gptq_staged_cifar10 --space qat_cifar10.yaml --seed 0 \
    "${from_gptq[@]}" method.num_values=null 'method.stages=[16,8,4,3,2]' 'method.stage_rounds=[1,3,8,8,9]' \
    'method.later_lr_ratio=[2,6,8,12]'
search --space kmeans_cifar10.yaml --study kmeans_resnet32 --trials 16 --confirm 2 "${resnet32[@]}"
search --space gpfq_cifar10.yaml --study gpfq_resnet32 --trials 5 --confirm 2 "${resnet32[@]}"
search --space gpfq_cifar10.yaml --study msq_resnet32 --trials 5 --confirm 2 "${resnet32[@]}" method.name=msq
search --space wfn_cifar10.yaml --study wfn_resnet32 --trials 2 --confirm 2 "${resnet32[@]}"
search --space pwfn_cifar10.yaml --study pwfn_resnet32 --trials 4 --confirm 2 "${resnet32[@]}"
search --space extended_cifar10.yaml --study extended_resnet32 --trials 4 --confirm 2 "${resnet32[@]}"
search --space extended_cifar10.yaml --study longer_resnet32 --trials 1 --confirm 2 "${resnet32[@]}" \
    training.steps_per_epoch=90

# The compact transformer, from the float network of docs/results/models (its training: search_spaces/cct_cifar10.yaml).
# torch's fused attention is slow on a CPU for so few tokens.
export TIMM_FUSED_ATTN=0
cct=(--set model.checkpoint=docs/results/models/cct4-float.safetensors baseline.epochs=0)
for seed in 0 1 2; do
    "$python" launchers/train.py --results "$results" --study cct_staged --space cct_cifar10.yaml --seed "$seed" \
        "${cct[@]}" method.name=qat method.zero=false method.rate_strength=0.0 method.weighting=fisher \
        method.num_values=null 'method.stages=[64,32,16,8,4]' 'method.stage_rounds=[1,2,4,12,7]' \
        'method.later_lr_ratio=[1,1.4,2,3]' training.steps_per_epoch=340 training.batch_size=64 training.lr=0.0005 \
        training.distillation=0.5 method.stage_start=latent method.dampening=0.0
done
search --space cct_cifar10.yaml --study cct_kmeans --trials 5 --confirm 2 "${cct[@]}" method.name=kmeans \
    method.assignment=nearest search.baselines=false
# The same with path following: without training, and as the start of each stage. Recorded are the stages down to 8 values
# of seeds 0 and 1, to 16 of seed 2, and seeds 0 and 1 of cct_gentle.
cct_filter=("${cct[@]}" model.equalize=filter)
for seed in 0 1 2; do
    for values in 64 16 8 32 4; do # recorded: seed 0 of all, seeds 1 and 2 of 64, 16 and 8 values
        "$python" launchers/train.py --results "$results" --study cct_followed_kmeans --space cct_cifar10.yaml \
            --seed "$seed" "${cct_filter[@]}" method.name=kmeans method.weighting=fisher method.num_values="$values" \
            method.assignment=path_following
    done
    "$python" launchers/train.py --results "$results" --study cct_followed --space cct_cifar10.yaml --seed "$seed" \
        "${cct_filter[@]}" method.name=qat method.zero=false method.rate_strength=0.0 method.weighting=fisher \
        method.num_values=null 'method.stages=[64,32,16,8,4]' 'method.stage_rounds=[1,1,5,12,4]' training.lr=0.0003 \
        'method.later_lr_ratio=[1.67,5,10,17]' training.steps_per_epoch=340 training.batch_size=64 \
        training.distillation=0.5 method.stage_start=path_following method.dampening=0.5
    "$python" launchers/train.py --results "$results" --study cct_gentle --space cct_cifar10.yaml --seed "$seed" \
        "${cct_filter[@]}" method.name=qat method.zero=false method.rate_strength=0.0 method.weighting=fisher \
        method.num_values=16 'method.stage_rounds=[2]' training.lr=0.0005 training.steps_per_epoch=340 \
        training.batch_size=64 training.distillation=0.5 method.stage_start=path_following method.dampening=0.5
done
# GPTQ instead of path following, in float32. Recorded are all without training, and seeds 0 and 2 of the training.
cct_float32=("${cct_filter[@]}" training.precision=float32)
for seed in 0 1 2; do
    for values in 8 4 16 32 64; do
        "$python" launchers/train.py --results "$results" --study cct_gptq_kmeans --space cct_cifar10.yaml \
            --seed "$seed" "${cct_float32[@]}" method.name=kmeans method.weighting=fisher method.assignment=gptq \
            method.num_values="$values"
    done
    for values in 8 4; do
        "$python" launchers/train.py --results "$results" --study cct_gptq_2000 --space cct_cifar10.yaml \
            --seed "$seed" "${cct_float32[@]}" method.name=kmeans method.weighting=fisher method.assignment=gptq \
            method.num_values="$values" method.calibration_images=2000 method.fisher_images=2000
    done
    "$python" launchers/train.py --results "$results" --study cct_gptq --space cct_cifar10.yaml --seed "$seed" \
        "${cct_float32[@]}" method.name=qat method.zero=false method.rate_strength=0.0 method.weighting=fisher \
        method.num_values=8 'method.stage_rounds=[3]' training.lr=0.0007 training.steps_per_epoch=340 \
        training.batch_size=64 training.distillation=0.5 method.stage_start=gptq method.dampening=0.5
done
# The same start with temperature 6 and larger rates; recorded is seed 0.
"$python" launchers/train.py --results "$results" --study cct_hot_staged --space cct_cifar10.yaml --seed 0 \
    "${cct_filter[@]}" method.name=qat method.zero=false method.rate_strength=0.0 method.weighting=fisher \
    method.num_values=null 'method.stages=[64,32,16,8,4]' 'method.stage_rounds=[1,1,2,6,8]' training.lr=0.0005 \
    'method.later_lr_ratio=[1.4,2.4,6,8]' training.steps_per_epoch=340 training.batch_size=64 \
    training.distillation=1.0 training.temperature=6.0 method.stage_start=gptq method.dampening=0.0
# WFN with the settings of its space, but for fewer rounds.
wfn() {
    "$python" launchers/train.py --results "$results" --study cct_wfn --space cct_cifar10.yaml "${cct[@]}" \
        method.name=wfn method.regularization_ratio=0.4 training.steps_per_epoch=27 training.clip_norm=0.5 \
        training.distillation=0.0 model.equalize="$1" method.delta="$2" method.zero_distance="$3" training.lr="$4"
}
wfn none 0.03 0.015625 0.0003
wfn layer 0.1 0.03 0.001
wfn none 0.01 0.0078125 0.00002
for values in 32 64; do # PWFN with as many values as cct_pwfn lacks
    "$python" launchers/train.py --results "$results" --study cct_pwfn_many --space cct_cifar10.yaml "${cct[@]}" \
        method.name=pwfn method.codebook=kmeans method.num_values="$values" method.sigma_init=fisher \
        method.noise=false method.fixed_weights=hold training.lr=0.001 training.steps_per_epoch=30 \
        training.settle_epochs=2
done
for bits in 2 3 4 5 6; do
    "$python" launchers/train.py --results "$results" --study cct_msq --space cct_cifar10.yaml "${cct[@]}" \
        training.precision=float32 method.name=msq method.bits="$bits" method.shared_alphabet=true
done
search --space cct_cifar10.yaml --study cct_pwfn --trials 3 "${cct[@]}" method.name=pwfn search.baselines=false
for bits in 2 3 4 5; do
    "$python" launchers/train.py --results "$results" --study cct_gpfq --space cct_cifar10.yaml "${cct[@]}" \
        method.name=gpfq method.bits="$bits" method.shared_alphabet=true
done
for values in 64 32 16 8; do
    "$python" launchers/train.py --results "$results" --study cct_plain --space cct_cifar10.yaml "${cct[@]}" \
        method.name=kmeans method.num_values="$values" method.weighting=plain method.assignment=nearest
done

shown=({gptq_kmeans,single,hot_staged,longer_staged,extended,pwfn,gpfq,kmeans}_cifar10
    {gptq_kmeans,extended,pwfn,wfn,gpfq,msq,kmeans,longer}_resnet32
    cct_{gptq_kmeans,gptq_2000,staged,followed,pwfn,gpfq,kmeans,followed_kmeans})
further=({followed,rates,gptq_staged,staged,steady_staged,third_staged,rate,fisher16,patient,gentle32,loaded,wfn,msq,longer}_cifar10
    cct_{gptq,hot_staged,gentle,plain,msq,wfn,pwfn_many})
"$python" launchers/publish.py --results "$results" --study "${shown[@]}" "${further[@]}" --out "$pages"
"$python" launchers/report.py --results "$pages" --study "${shown[@]}" --out "$results/report-cifar10"
cp "$results"/report-cifar10/{front-*-test.png,front.md} "$pages"
