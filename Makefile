# On a new machine two commands are enough: `make run` (start the system with a demo) and `make test`.
# Each installs only what it needs.
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

help:  ## list all targets
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

run: $(LOCAL)  ## start the whole system on this machine, with a demo on real scans
	@$(BIN)/dicom-functions run

demo: $(LOCAL)  ## start the system, run the demo and stop; fails if the result of any step is wrong
	@$(BIN)/dicom-functions demo

viewer: $(LOCAL)  ## start the OHIF viewer for the system that `make run` started
	@$(BIN)/dicom-functions viewer

# The tests read documents as UTF-8, whatever the locale.
test: export PYTHONUTF8 = 1
test: $(DEV) lint  ## run checks and all tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not serial"
	@$(BIN)/python -m pytest -m serial

lint: $(DEV)  ## run ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(DEV)  ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(DEV)  ## write the table of docs/settings.md from the code
	@$(BIN)/python -m tests.settings_table

# Each file has the same versions as the one before it, so that the tests use the deployed versions.
lock:  ## lock the newest versions of all requirements, with hashes
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv
	@$(LOCK) requirements.in -o requirements.txt
	@$(LOCK) requirements-local.in -c requirements.txt -o requirements-local.txt
	@$(LOCK) requirements-dev.in -c requirements-local.txt -o requirements-dev.txt

bench: $(DEV) $(DEPLOYED)  ## measure everything, compare with other programs, and write docs/benchmarks.md
	@$(BIN)/python -m benchmarks.record bench --python build/deployed/bin/python

chaos: $(DEV)  ## test with faults and kill -9, and write docs/reliability.md (about ten minutes)
	@$(BIN)/python -m benchmarks.record chaos

clean:  ## remove the installed packages and all local data
	rm -rf $(VENV) .local build
