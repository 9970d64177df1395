# Everything a newcomer needs: make demo, make test. Both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MXNET_VENV := .venv-mxnet
MXNET_READY := $(MXNET_VENV)/.ready
OPENCV_VENV := .venv-opencv
OPENCV_READY := $(OPENCV_VENV)/.ready
# CUDA major version of the DALI wheel: 13 goes with torch's own wheels; both decode on the CPU too.
CUDA ?= 13
PYTEST_ARGS ?=
JOBS ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: venv venv-mxnet venv-opencv demo million test test-without-system chaos lint format clean

venv: $(READY)

$(READY): pyproject.toml constraints.txt setup.py $(wildcard partial_fc/native/* data_pipeline/native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pfc needs Python 3.11 or newer: make venv PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cuda$(CUDA),deepspeed,tensorboard,wandb,kubernetes,export,test,lint]'
	@touch $@

# MXNet lives apart (it needs an old NumPy); only the interoperability tests use it.
venv-mxnet: $(MXNET_READY)

$(MXNET_READY): constraints-mxnet.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || \
		{ echo "MXNet's NumPy has no wheels beyond Python 3.11: make venv-mxnet PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(MXNET_VENV)
	$(MXNET_VENV)/bin/pip install --quiet --requirement constraints-mxnet.txt
	@touch $@

# OpenCV 4 beside the OpenCV 5 of the main environment, and InsightFace: only the tests of exported models use them.
# InsightFace without its dependencies, which are listed: it asks for the opencv-python that needs a display's libraries.
venv-opencv: $(OPENCV_READY)

$(OPENCV_READY): constraints-opencv.txt
	$(PYTHON) -m venv $(OPENCV_VENV)
	$(OPENCV_VENV)/bin/pip install --quiet --requirement constraints-opencv.txt
	$(OPENCV_VENV)/bin/pip install --quiet --no-deps insightface==2.1
	@touch $@

demo: venv
	@bash examples/demo.sh $(BIN)

# A million identities on two cores: draw, train, kill, continue, evaluate, in one table; under 45 minutes, 20 GiB.
million: venv
	@bash examples/million.sh $(BIN)

# Several processes side by side, each on one thread: most tests wait for a process to start. Files in order, so that
# the long ones do not come last: left to itself xdist begins with the files that have the most tests.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
test: venv
	@$(MAKE) --no-print-directory venv-mxnet || echo "the tests of interoperability with MXNet will be skipped"
	@$(MAKE) --no-print-directory venv-opencv || echo "the tests of exported models in OpenCV 4 and InsightFace will be skipped"
	$(PYTEST) $(PYTEST_ARGS)

# All that needs no other software.
test-without-system: venv
	$(PYTEST) --ignore tests/system $(PYTEST_ARGS)

# A run to which FAULTS things happen, drawn from SEED; then its weights are compared with an undisturbed run's.
FAULTS ?= 30
SEED ?= 1
chaos: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/system/test_chaos.py --chaos-faults $(FAULTS) --chaos-seed $(SEED)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(MXNET_VENV) $(OPENCV_VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
