# Everything a fresh machine needs: Python 3.11 or newer with venv (tested: 3.11, 3.12, 3.13), and a package index that
# pip can reach. chgnet has no wheel for Python 3.13: pip compiles it there, which takes a C compiler.

PYTHON  ?= python3
VENV    := .venv
PY      := $(VENV)/bin/python
READY   := $(VENV)/.installed
CHECKOV := .venv-checkov/.installed
BENCHES := $(basename $(notdir $(shell grep -ls '__main__' tests/benchmarks/*.py)))

# Two processes for what needs a core, and after that one for clusters and servers, which would wait for each other. With
# options in PYTEST, one process for all.
SPREAD  := --numprocesses 2 --dist loadfile
suite   = $(if $(PYTEST),$(PY) -m pytest $(1) $(PYTEST),\
	$(PY) -m pytest $(1) $(SPREAD) tests/unit tests/k8s; units=$$?; $(PY) -m pytest $(1) tests/integration && exit $$units)

# One thread in each process: tensors are small here, and threads that outnumber the free cores wait for each other.
demo sweep-demo cluster-demo test test-all test-lowest test-newest coverage mutation: export OMP_NUM_THREADS ?= 1

.PHONY: demo sweep-demo cluster-demo test test-all test-lowest test-newest coverage mutation lint k8s-lint docs notebooks bench clean-demo
.DEFAULT_GOAL := demo

demo: $(READY)                 ## pretrain, fine-tune, evaluate and export on surrogate data, in demo/
	$(PY) jobs/demo.py

sweep-demo: $(READY)           ## learning rate x freeze depth on the demo's data, in demo/runs/sweep
	$(PY) jobs/prepare_data.py --config jobs/configs/demo/prepare_gga.yaml
	$(PY) jobs/pretrain.py --config jobs/configs/demo/pretrain.yaml
	$(PY) jobs/prepare_data.py --config jobs/configs/demo/prepare_r2scan.yaml
	$(PY) jobs/sweep.py --config jobs/configs/demo/sweep.yaml

cluster-demo: $(READY)         ## a head and two workers on this machine, and the jobs by `ray job submit`, in demo/cluster
	$(PY) jobs/cluster_demo.py

test: $(READY)                 ## the test suite, but for what takes minutes
	$(call suite,)

test-all: $(READY)             ## the whole test suite
	$(call suite,-m "slow or not slow")

coverage: $(READY)             ## lines that the test suite runs, by package: at least 90 %
	@mkdir -p build
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest $(PYTEST)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage json --quiet -o build/coverage.json
	$(PY) -m tests.covered build/coverage.json

mutation: $(READY)             ## changes to the arithmetic that the unit tests notice: at least 85 %
	$(PY) -m tests.mutation

test-lowest test-newest: test-%: .venv-%/.installed  ## the core suite with the lowest dependencies allowed, and the newest
	.venv-$*/bin/python -m pytest $(SPREAD) tests/unit $(PYTEST)

lint: $(READY)                 ## style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

k8s-lint: $(READY) $(CHECKOV)  ## checkov and hadolint over k8s, with the exceptions of tests/k8s/lint.py
	PYTHONPATH=.:platform $(PY) -m tests.k8s.lint

docs: $(READY)                 ## the reference of the settings, and the whole guide as a site in site/
	$(PY) -m rung.config.document docs/reference/configuration.md
	$(PY) -m mkdocs build --strict

notebooks: $(READY)            ## run the guide's notebooks and write their outputs into them
	$(PY) -m tests.unit.docs.notebooks

bench: $(READY) $(BENCHES:%=bench-%)  ## every benchmark; figures in tests/benchmarks/results

bench-%: $(READY)
	@mkdir -p tests/benchmarks/results
	$(PY) -m tests.benchmarks.$* --json tests/benchmarks/results/$*.json

clean-demo:                    ## start the demo anew
	rm -rf demo

# Installed again only when what to install changed. The stamp is written last, so a broken installation is repaired.
# constraints.txt holds the tested versions; torch stands first so that its version is settled before all others.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Rung needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch --editable '.[dev]'
	@touch $@

# The two ends of what pyproject.toml allows. The lowest are its lower bounds, made into pins; the newest are what pip
# finds. What those packages need in turn is left to pip, so these runs also tell what a fresh `pip install` would meet.
LOWEST := sed -nE '/^dependencies/,/^]/s/^ *"([A-Za-z0-9_.-]+)[^=>]*[=>]=([0-9.]+).*/\1==\2/p' pyproject.toml
.venv-lowest/.installed: PINS := $(LOWEST)
.venv-newest/.installed: PINS := true

.venv-lowest/.installed .venv-newest/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(@D)
	$(PINS) > $(@D)/pins.txt
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(@D)/pins.txt --editable '.[dev]'
	@touch $@

# Checkov wants other versions of packages that Rung needs, so it has an environment of its own.
$(CHECKOV):
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check checkov==3.3.30
	@touch $@
