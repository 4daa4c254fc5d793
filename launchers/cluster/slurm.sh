#!/usr/bin/env bash
# One search on several Slurm nodes: Ray on each of them, the search beside it on the first. Submit it from the root of
# the checkout, in the environment that has pwfn installed; both on a file system that every node sees.
#
#   sbatch --nodes=4 --cpus-per-task=32 --gpus-per-node=4 --time=24:00:00 launchers/cluster/slurm.sh \
#       --space deit.yaml --results /shared/results --set data.root=/shared/imagenet
#
# What stands before the script's name is for Slurm (add --partition or --account as your site asks), what stands after
# it for launchers/search.py. Five minutes before the time limit, or when preempted where the site sends the signal,
# the search is asked to stop after the round it is in, and the job queues itself again; it then goes on from the results.
#SBATCH --job-name=pwfn
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
set -euo pipefail

if [[ ! -f launchers/search.py ]]; then
    echo "error: $PWD is not the root of the checkout; call sbatch there" >&2
    exit 2
fi

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1
RAY_AUTH_TOKEN=$(ray get-auth-token --generate) # kept in ~/.ray/auth_token
export RAY_AUTH_TOKEN

# Other jobs on the same node must not meet: the port and the folder depend on the job.
HEAD_IP=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
HEAD_PORT=$((20000 + SLURM_JOB_ID % 10000))
export HEAD_IP HEAD_PORT
address=$HEAD_IP:$HEAD_PORT
ray_log=${SLURM_JOB_NAME:-pwfn}-$SLURM_JOB_ID-ray.out

# shellcheck disable=SC2016 # expanded on each node
srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    --label --open-mode=append --output="$ray_log" bash -c '
        place=(--address="$HEAD_IP:$HEAD_PORT")
        if [[ $SLURM_PROCID == 0 ]]; then
            place=(--head --node-ip-address="$HEAD_IP" --port="$HEAD_PORT")
        fi
        exec ray start "${place[@]}" --block --num-cpus="$SLURM_CPUS_PER_TASK" \
            --temp-dir="/tmp/ray-$SLURM_JOB_ID-$SLURM_PROCID"' &
ray=$!
trap 'kill "$ray" 2>/dev/null && wait "$ray" || true' EXIT

if ! timeout 300 python launchers/cluster/wait_for_nodes.py --address "$address" --nodes "$SLURM_JOB_NUM_NODES"; then
    echo "error: Ray has not come up on all $SLURM_JOB_NUM_NODES nodes; see $ray_log" >&2
    exit 1
fi

out_of_time=
trap 'out_of_time=1; kill -TERM "$search" || true' USR1
python launchers/search.py --address "$address" "$@" &
search=$!
status=0
wait "$search" || status=$? # also returns when the trap has run

if [[ $out_of_time ]]; then
    # What has not ended its round by then goes on from the round before.
    timeout 200 tail --pid="$search" --follow /dev/null || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
