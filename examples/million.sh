#!/usr/bin/env bash
# A million identities on this machine: draw, train on two ranks, kill, continue on one, evaluate; then the head alone
# at four million classes.
# usage: million.sh BIN [IDENTITIES HEAD_CLASSES FOLDER OPTIONS_OF_BENCH_JOURNEY...]
# (BIN: the environment's bin folder, make million gives it; FOLDER: where runs/ and datasets/ go; HEAD_CLASSES 0: without the head alone)
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-.venv/bin} identities=${2:-1000000} head_classes=${3:-4000000} folder=${4:-.}
shift $(($# < 4 ? $# : 4))
run=$folder/runs/million data=$folder/datasets/million
SECONDS=0

rm -rf "$run" # a journey begins anew; a data set that is there is used again
mkdir -p "$folder/runs" "$folder/datasets"
"$bin/python" -m trainer bench journey examples/million.toml --identities "$identities" \
    --set "run.output=$run" --set "data.records=$data" --table "$run.md" --json "$run.json" "$@"
if [ "$head_classes" -gt 0 ]; then
    echo "the head alone at $head_classes classes, centers in bf16:"
    timeout --kill-after 10 600 "$bin/python" -m trainer bench head --classes "$head_classes" \
        --center-dtype bfloat16 --methods sface --repetitions 3 --warmup 4 --csv "${run}_head.csv"
fi
echo "million finished in $((SECONDS / 60)) min $((SECONDS % 60)) s"
