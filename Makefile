# The habits of this project; CI calls the same. Needs Python 3.10+ and make, and nothing else on a new machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := build/demo
# Where bytecode is not cached, every start would compile the package anew.
COMPILE := $(BIN)/python -m compileall -q resnet_surgeon

.PHONY: demo test lint types docs catalog bench fuzz faults mutants prove audit lowest clean anew

demo: $(VENV)/core
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@$(COMPILE)
	@cd $(DEMO) && PATH="$(CURDIR)/$(BIN):$$PATH" sh ../../docs/demo.sh

test: $(VENV)/dev
	@$(COMPILE)
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_OPTIONS)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

docs: $(VENV)/dev
	$(BIN)/python docs/generate.py

catalog: $(VENV)/dev
	$(BIN)/python docs/generate_catalog.py

bench: $(VENV)/dev
	@$(COMPILE)
	$(BIN)/python benchmarks/run.py $(BENCH)

# FUZZ="safetensors zip" SECONDS=600 make fuzz
FUZZ ?= safetensors zip pickle view diff legacy tar manifest index npz onnx joblib text wrapped module distributed any
SECONDS ?= 60
fuzz: $(VENV)/fuzz
	@set -e; for target in $(FUZZ); do $(BIN)/python -m tests.fuzz.run $$target $(SECONDS) $(FUZZ_OPTIONS); done

# Needs strace, as of Debian's package.
faults: $(VENV)/dev
	@$(COMPILE)
	$(BIN)/python -m pytest tests/hazards/faults.py $(PYTEST_OPTIONS)

# ROOMS=formats/unpickle MUTANTS=500 SEED=1 make mutants
ROOMS ?= operations formats writing verification sources manifest
MUTANTS ?= 100
mutants: $(VENV)/dev
	$(BIN)/python -m tests.mutation.run "$(ROOMS)" $(MUTANTS) $(SEED)

# Sound files of every kind, and lies: SECONDS=3600 make prove
prove: $(VENV)/dev
	@$(COMPILE)
	$(BIN)/python -m tests.verification.trial $(SECONDS) $(SEED)

audit: $(VENV)/made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip_audit --requirement .ci/constraints.txt --no-deps --disable-pip --progress-spinner off

# The oldest versions that pyproject.toml allows, as far as they are ours to choose. The second command fails on purpose.
lowest: $(VENV)/made
	@rm -rf build/lowest && $(BIN)/python -m venv build/lowest && mkdir build/lowest/demo
	@build/lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint .ci/lowest.txt .
	@cd build/lowest/demo && PATH="$(CURDIR)/build/lowest/bin:$$PATH" sh ../../../docs/demo.sh
	@build/lowest/bin/resnet-surgeon adapt; test $$? = 2

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Looked at again only for those who name a Python, or whose environment has lost its own.
$(VENV)/made: $(if $(filter file,$(origin PYTHON)),$(if $(realpath $(BIN)/python),,anew),anew)
	@$(PYTHON) .ci/environment.py $(VENV)

anew:

$(VENV)/core: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/fuzz: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@touch $@

$(VENV)/dev: $(VENV)/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
