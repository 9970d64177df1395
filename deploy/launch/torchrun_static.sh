#!/usr/bin/env bash
# One node's part of a run whose nodes are known beforehand ("static rendezvous"). Start it on every node:
#
#   torchrun_static.sh RUN.toml NODES RANKS_PER_NODE NODE_RANK FIRST_NODE [PORT]
#   torchrun_static.sh run.toml 2 8 0 10.0.0.1      # on 10.0.0.1
#   torchrun_static.sh run.toml 2 8 1 10.0.0.1      # on the other
#
# RUN.toml, the data and run.output are at the same paths on all nodes; run.output is one folder that all of them share.
# Ctrl-C or SIGTERM on one node stops all: a checkpoint is written, exit code 75. 1: start all of them again. 2: do not.
# PYTHON: of the environment that pfc is installed in (default: python).
set -euo pipefail

usage="usage: $0 RUN.toml NODES RANKS_PER_NODE NODE_RANK FIRST_NODE [PORT]"
if [ $# -lt 5 ] || [ $# -gt 6 ]; then
    echo "$usage" >&2
    exit 2
fi
if [ ! -r "$1" ]; then
    echo "$0: $1: no such file here, or it cannot be read" >&2 # before the nodes wait for each other
    exit 2
fi

# What torchrun reads from the environment: --nnodes, --nproc-per-node, --node-rank, --master-addr, --master-port.
export PET_NNODES=$2 PET_NPROC_PER_NODE=$3 PET_NODE_RANK=$4 PET_MASTER_ADDR=$5 PET_MASTER_PORT=${6:-29500}

# Workers that fail are not started again by their own node: all nodes end, and all are started again.
export PET_MAX_RESTARTS=0

# torchrun with this project's exit codes; "torchrun -m trainer train RUN.toml" works, too, and returns 1 for all of them.
exec "${PYTHON:-python}" -m deploy.launch.agent -m trainer train "$1"
