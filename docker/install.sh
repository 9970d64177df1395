#!/bin/sh
# The builder stage's work, in two layers: what others wrote changes seldom, our sources often.
#
#   install.sh requirements EXTRAS    of pyproject.toml, at the versions of constraints.txt, into /opt/pfc
#   install.sh project TORCH          from /source, if torch is built for TORCH (cuda or cpu); then pip goes
#
# PIP_CONSTRAINT, PIP_FIND_LINKS and the like come from the Dockerfile.
set -eu

pip() { /opt/pfc/bin/python -m pip --disable-pip-version-check "$@"; }

case $1 in
    requirements)
        python3 /build/requirements.py /build/pyproject.toml "$2" > /build/requirements.txt
        pip install --requirement /build/requirements.txt setuptools
        # Tests of torch, NumPy, SymPy, ...: 0.2 GB that no run reads. torch_shm_manager is no test.
        site=$(/opt/pfc/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        find "$site/torch/bin" -type f ! -name torch_shm_manager -delete
        rm -rf "$site/torch/test"
        for package in matplotlib mpmath networkx numpy sympy; do
            find "$site/$package" -type d -name tests -prune -exec rm -rf {} +
        done
        ;;
    project)
        # The index decides which torch comes, and nothing else would say so before a run does.
        /opt/pfc/bin/python -c '
import sys
import torch

kind = "cuda" if torch.version.cuda else "cpu"
if kind != sys.argv[1]:
    sys.exit(f"torch {torch.__version__} is built for {kind}, not for {sys.argv[1]}: see docker/README.md, Build")' "$2"
        # By the setuptools that is pinned; pip in isolation would take the newest one.
        pip install --no-deps --no-build-isolation /source
        # Where they cannot be compiled our extensions are left out in silence; in an image that would be a fault.
        /opt/pfc/bin/python -c '
from data_pipeline import native_library
from partial_fc import native_library as kernels

assert kernels.available() and native_library.available(), "our extensions did not compile"'
        pip uninstall --yes pip
        ;;
    *)
        echo "install.sh: requirements EXTRAS, or project TORCH" >&2
        exit 2
        ;;
esac
