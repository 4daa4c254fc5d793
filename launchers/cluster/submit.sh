#!/usr/bin/env bash
# Submit a search as a job to a running Ray cluster, from the root of the checkout, whose files go with it:
#
#   launchers/cluster/submit.sh NODES --space deit.yaml --results s3://bucket/results --set data.root=/data/imagenet
#
# NODES is how many nodes the cluster will have, the head included: the search starts once they are there. Everything
# after it is for launchers/search.py; --results has to be an address or a folder that every node reaches.
# RAY_API_SERVER_ADDRESS says where the cluster's dashboard is (default http://127.0.0.1:8265).
# `ray job logs --follow ID` shows the search again, `ray job stop ID` stops it after the round it is in; this same
# command goes on where the results stand.
set -euo pipefail

if [[ ! -f launchers/search.py || $# -lt 3 || $1 == *[!0-9]* ]]; then
    echo "usage, from the root of the checkout: launchers/cluster/submit.sh NODES --space SPACE --results PLACE ..." >&2
    exit 2
fi

export RAY_AUTH_MODE=token
export RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}

# Ray kills a job 3 seconds after it was told to stop; a round takes longer.
# shellcheck disable=SC2016 # expanded on the cluster
exec ray job submit --working-dir . --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "300"}}' -- \
    bash -c 'python launchers/cluster/wait_for_nodes.py --address auto --nodes "$0" &&
             exec python launchers/search.py --address auto "$@"' "$@"
