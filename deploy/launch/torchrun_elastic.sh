#!/usr/bin/env bash
# One node's part of a run on as many nodes as there happen to be ("elastic rendezvous"). Start it on every node:
#
#   torchrun_elastic.sh RUN.toml GLOBAL_BATCH RANKS_PER_NODE MIN:MAX FIRST_NODE:PORT
#   torchrun_elastic.sh run.toml 1024 8 1:4 10.0.0.1:29500
#   torchrun_elastic.sh run.toml 1024 8 1:1 localhost:29500      # one node
#
# What is elastic here, and what is not:
# - Each start takes the nodes that have come: at once when MAX are there, else LAST_CALL seconds after MIN were.
# - A run keeps its global batch, whatever the nodes: data.batch_size becomes GLOBAL_BATCH / ranks, which must divide it
#   (else all ranks end with bad input). The weights are those of the same run on any number of ranks with
#   backbone.normalization "sync_batch" or "group"; plain batch norm sees the local batch, whose size changes.
# - A node that comes while it runs: torchrun means to stop all workers and start them again with it. Not tested; to
#   add a node surely, stop one (all write a checkpoint and end) and start all of them.
# - A node that is lost ends the run on all nodes, with code 1 after MAX_RESTARTS of torchrun's own (default 0). On
#   several nodes those hung in trials with gloo: leave them at 0 there, and start all nodes again, which goes on from
#   the newest checkpoint with the nodes that are left. On one node (MIN:MAX 1:1) MAX_RESTARTS=3 works.
# - torchrun's exit code is 1 for all that is not 0: bad input and stops on request, too. Nothing tells them apart.
#
# PYTHON, LAST_CALL, MAX_RESTARTS: see above. RUN_ID: of runs that share a FIRST_NODE:PORT.
set -euo pipefail

if [ $# -ne 5 ]; then
    echo "usage: $0 RUN.toml GLOBAL_BATCH RANKS_PER_NODE MIN:MAX FIRST_NODE:PORT" >&2
    exit 2
fi
if [ ! -r "$1" ]; then
    echo "$0: $1: no such file here, or it cannot be read" >&2 # before the nodes wait for each other
    exit 2
fi
export PFC_CONFIG=$1 PFC_GLOBAL_BATCH=$2 PFC_PYTHON=${PYTHON:-python}

# Between SIGTERM and SIGKILL: a checkpoint must fit (torchrun's own default is 30 s).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-570}

# What every rank runs: WORLD_SIZE is known only now.
# shellcheck disable=SC2016  # for the rank's shell to fill in
rank='
if [ $((PFC_GLOBAL_BATCH % WORLD_SIZE)) -ne 0 ]; then
    echo "a global batch of $PFC_GLOBAL_BATCH cannot be split over $WORLD_SIZE ranks" >&2
    exit 2
fi
exec "$PFC_PYTHON" -m trainer train "$PFC_CONFIG" --set data.batch_size=$((PFC_GLOBAL_BATCH / WORLD_SIZE))'

# c10d: the nodes meet in a store that the node at FIRST_NODE keeps. --no-python: the ranks are shells.
exec "$PFC_PYTHON" -m torch.distributed.run \
    --nnodes "$4" \
    --nproc-per-node "$3" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$5" \
    --rdzv-id "${RUN_ID:-pfc}" \
    --rdzv-conf "last_call_timeout=${LAST_CALL:-30}" \
    --max-restarts "${MAX_RESTARTS:-0}" \
    --no-python bash -c "$rank"
