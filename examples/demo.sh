#!/usr/bin/env bash
# The whole journey in one command: draw a data set, train on two ranks, verify on unseen identities, report.
# usage: demo.sh BIN    (BIN: the environment's bin folder; make demo gives it)
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-.venv/bin}
data=datasets/demo
run=runs/demo
SECONDS=0

if [ ! -e "$data/train.rec" ]; then
    "$bin/pfc" data synth "$data" --identities 500 --images-per-identity 20 --unseen-identities 200 --pairs 1000 --workers 2
fi
# Two ranks share the machine's cores: one arithmetic thread each.
OMP_NUM_THREADS=1 "$bin/torchrun" --standalone --nproc-per-node 2 -m trainer train examples/demo.toml
report=$("$bin/pfc" report "$run")
"$bin/python" - "$run" <<'PYTHON'
import sys
from pathlib import Path

from trainer.evaluation import load_results

first, *_, last = load_results(Path(sys.argv[1]) / "evaluations")
print(f"verification accuracy on unseen identities: {100 * last.accuracy_mean:.1f}% "
      f"(the same network untrained: {100 * first.accuracy_mean:.1f}%)")
PYTHON
echo "report: $report"
echo "demo finished in $((SECONDS / 60)) min $((SECONDS % 60)) s"
