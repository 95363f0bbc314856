# Two commands do everything on a fresh machine: `make run` (the main job) and `make test`.
# Each installs what it needs and no more.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCAL := $(VENV)/.local-installed
DEV := $(VENV)/.dev-installed
DEPLOYED := build/deployed/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
LOCK := build/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

.PHONY: run demo viewer test lint format docs lock bench chaos clean help

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(LOCAL): requirements-local.txt pyproject.toml
	@test -x $(BIN)/python || ./infra/local/make-venv.sh $(PYTHON) $(VENV)
	@echo "Installing the system and the command dicom-functions into $(VENV) (once)"
	@$(PIP) install --require-hashes -r requirements-local.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.txt $(LOCAL)
	@echo "Installing what the tests need into $(VENV) (once)"
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

# What the cloud installs and nothing else: cold starts are measured in it.
$(DEPLOYED): requirements.txt
	@./infra/local/make-venv.sh $(PYTHON) build/deployed
	@echo "Installing what is deployed into build/deployed (once)"
	@$(subst $(BIN),build/deployed/bin,$(PIP)) install --require-hashes -r $<
	@touch $@

run: $(LOCAL)  ## start the whole system here and show the main job on real scans
	@$(BIN)/dicom-functions run

demo: $(LOCAL)  ## the same, then stop; fails when any step's result is wrong
	@$(BIN)/dicom-functions demo

viewer: $(LOCAL)  ## the OHIF viewer, looking at the system that `make run` started
	@$(BIN)/dicom-functions viewer

# The tests read documents, whose letters not every locale has.
test: export PYTHONUTF8 = 1
test: $(DEV) lint  ## checks and all tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not serial"
	@$(BIN)/python -m pytest -m serial

lint: $(DEV)  ## ruff, mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(DEV)  ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(DEV)  ## write the table of docs/settings.md from the code
	@$(BIN)/python -m tests.settings_table

# Each file keeps to the versions of the one before it: what is tested is what is deployed.
lock:  ## lock the requirements again, newest versions, with hashes
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv
	@$(LOCK) requirements.in -o requirements.txt
	@$(LOCK) requirements-local.in -c requirements.txt -o requirements-local.txt
	@$(LOCK) requirements-dev.in -c requirements-local.txt -o requirements-dev.txt

bench: $(DEV) $(DEPLOYED)  ## measure everything beside its peers and write docs/benchmarks.md anew
	@$(BIN)/python -m benchmarks.record bench --python build/deployed/bin/python

chaos: $(DEV)  ## faults and kill -9 everywhere; writes docs/reliability.md anew (about ten minutes)
	@$(BIN)/python -m benchmarks.record chaos

clean:  ## remove what was installed and all local data
	rm -rf $(VENV) .local build
