# Two commands do everything on a fresh machine: `make run` (the main job) and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run demo viewer test lint format docs lock chaos clean help

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): requirements-dev.txt
	@test -x $(BIN)/python || ./infra/local/make-venv.sh $(PYTHON) $(VENV)
	@echo "Installing what the project needs into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

run: $(STAMP)  ## start the whole system here and show the main job on real scans
	@$(BIN)/python -m infra.local run

demo: $(STAMP)  ## the same, then stop; fails when any step's result is wrong
	@$(BIN)/python -m infra.local demo

viewer: $(STAMP)  ## the OHIF viewer, looking at the system that `make run` started
	@$(BIN)/python -m infra.local.viewer

# The tests read documents, whose letters not every locale has.
test: export PYTHONUTF8 = 1
test: $(STAMP) lint  ## checks and all tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not serial"
	@$(BIN)/python -m pytest -m serial

lint: $(STAMP)  ## ruff, mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)  ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(STAMP)  ## write the settings table of the README from the code
	@$(BIN)/python -m tests.readme

lock:  ## lock the requirements again, newest versions, with hashes
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv
	@for file in requirements requirements-dev; do build/lock/bin/uv pip compile --quiet --upgrade --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header $$file.in -o $$file.txt; done

chaos: $(STAMP)  ## uploads, exports and deletes under faults and kill -9 (about ten minutes)
	@$(BIN)/python -m benchmarks.chaos
	@$(BIN)/python -m tests.chaos

clean:  ## remove what was installed and all local data
	rm -rf $(VENV) .local build
