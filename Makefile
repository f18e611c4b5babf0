# make demo    set everything up, turn prompts into pictures, write out/report/
# make play    set up what it needs, serve the playground on http://127.0.0.1:7860
# make test    set everything up, run the tests
# make docs    build the docs site, out/docs/index.html; it needs no network to read
# make lint    style, types, import directions, and whether the pages of figures are of the code as it is
# make bench   our steps beside a peer's, timed in the same run
# make peers   the libraries that `python -m experiments audit --target field` audits
# make mutants break the functions that changed, line by line, and see that a test notices (MUTANTS_FLAGS=--help)
# make flaky   the tests under 20 seeds (half an hour)
# make train   train the embedded model again from nothing (hours; the same command resumes)
# make clean   remove caches and results (.venv and training runs stay)
#
# Settings: VENV=path  PYTHON=python3.12  DEMO_FLAGS=...  PLAY_FLAGS=...  TEST_FLAGS="-m slow"  BENCH_FLAGS=...  FLAKY_FLAGS=...  MUTANTS_FLAGS=...  TRAIN_FLAGS=...

VENV ?= .venv
PYTHON ?=
BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.installed
DEMO := $(VENV)/.demo
PLAY := $(VENV)/.play
# They ask for torchvision, or more, for what is not audited: they come without what they depend on.
PEERS := azula bayesflow bionemo-moco dalle2-pytorch deepinv denoising-diffusion-pytorch \
  imagen-pytorch k-diffusion keras-hub nflows nvidia-physicsnemo pyknos rectified-flow-pytorch sbi \
  smalldiffusion torchcfm
SOURCES := pytest_diffusion_math.py diffusion_math sd experiments benchmarks tests .ci

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo play test docs lint format bench peers mutants flaky train clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

setup: $(READY)

$(PY):
	@for candidate in $(PYTHON) python3.11 python3 python3.12 python3.13 python; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "creating $(VENV) with $$candidate"; exec "$$candidate" -m venv $(VENV); \
	  fi; \
	done; echo "make: no Python 3.11 or newer with venv found; set PYTHON=/path/to/python3.11" >&2; exit 2

$(READY): pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,docs,train,cluster,control,digits,openvino-int8,play]'
	@touch $@

# The demo needs no test, docs or OpenVINO package.
$(DEMO): pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[digits]'
	@touch $@

$(PLAY): pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[play]'
	@touch $@

demo: $(DEMO)
	$(PY) -m experiments report --out out/report $(DEMO_FLAGS)

play: $(PLAY)
	$(PY) -m experiments play $(PLAY_FLAGS)

# What one of the suite's processes has compiled, the others read: they start again and again.
test: $(READY)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n auto --dist worksteal $(TEST_FLAGS)

docs: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(PY) -m sphinx --quiet --fail-on-warning --fresh-env --doctree-dir out/.doctrees docs out/docs
	@echo out/docs/index.html

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PY) -m pytest -q -k "complete_and_fresh or code_as_it_is" tests/experiments/test_verify.py tests/experiments/test_mutation.py

format: $(READY)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(PY) -m benchmarks $(BENCH_FLAGS)

peers: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(PEERS)

mutants: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	$(PY) -m tests.mutants $(MUTANTS_FLAGS)

flaky: $(READY)
	$(PY) -m tests.flaky $(FLAKY_FLAGS)

train: $(READY)
	$(PY) -m sd.train $(TRAIN_FLAGS)

clean:
	rm -rf out docs/reference build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(filter-out .ci,$(SOURCES)) -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
