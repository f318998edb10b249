# The habits of this project; CI calls the same. Needs Python 3.10+ and make, and nothing else on a new machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := build/demo
# Where bytecode is not cached, every start would compile the package anew.
COMPILE := $(BIN)/python -m compileall -q resnet_surgeon

.PHONY: demo test lint types docs bench fuzz faults prove audit clean

demo: $(VENV)/core
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@$(COMPILE)
	@cd $(DEMO) && PATH="$(CURDIR)/$(BIN):$$PATH" sh ../../docs/demo.sh

test: $(VENV)/dev
	@$(COMPILE)
	$(BIN)/python -m pytest

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

docs: $(VENV)/dev
	$(BIN)/python docs/generate.py

bench: $(VENV)/dev
	@$(COMPILE)
	$(BIN)/python benchmarks/run.py $(BENCH)

# FUZZ="safetensors zip" SECONDS=600 make fuzz
FUZZ ?= safetensors zip pickle legacy tar manifest index any
SECONDS ?= 60
fuzz: $(VENV)/fuzz
	@set -e; for target in $(FUZZ); do $(BIN)/python -m tests.fuzz.run $$target $(SECONDS) $(FUZZ_OPTIONS); done

# Needs strace, as of Debian's package.
faults: $(VENV)/dev
	@$(COMPILE)
	$(BIN)/python -m pytest tests/hazards/faults.py

# Sound files of every kind, and lies: SECONDS=3600 make prove
prove: $(VENV)/dev
	@$(COMPILE)
	$(BIN)/python -m tests.verification.trial $(SECONDS) $(SEED)

audit: $(VENV)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip_audit --requirement .ci/constraints.txt --no-deps --disable-pip --progress-spinner off

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/core: $(VENV)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/fuzz: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@touch $@

$(VENV)/dev: $(VENV)/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
