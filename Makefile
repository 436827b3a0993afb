# Every target sets up what it needs, once, in .venv; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-faults test-engines check format ui report notebooks docs screenshots bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STORE := results/store
PORT ?= 5000

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12" >&2; exit 1; }
	@echo "making $(VENV): about 6 GB, most of it torch; it takes a minute to some minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable '.[dev]' 2>$(VENV)/pip.log || { cat $(VENV)/pip.log >&2; exit 1; }
	@touch $@

setup: $(READY) ## make the virtual environment, which every other target does by itself

run: $(READY) ## ablate branch positions on the embedded benchmark, then build tables and figures (GRID=..., ARGS=...)
	$(BIN)/python -m experiments.run grid=$(or $(GRID),branch_positions) $(ARGS)

test: $(READY) ## run the tests (ARGS=... for pytest)
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: $(READY) ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

test-faults: $(READY) ## kill runs, fill disks, take servers away: nothing is lost (minutes)
	$(BIN)/python -m pytest -m faults tests/faults $(ARGS)

test-engines: $(READY) ## run studies on a real SLURM and a real Ray, and on shared stores (minutes)
	$(BIN)/python -m pip install --quiet --editable '.[slurm,ray,postgres]'
	$(BIN)/python -m pytest -m engines tests/engines $(ARGS)

check: $(READY) ## ruff and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## let ruff mend what it can
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

ui: $(READY) ## open MLflow on the recorded runs (PORT=5000)
	@test -f $(STORE)/mlflow.db || { echo "nothing is recorded yet: make run" >&2; exit 1; }
	@echo "http://127.0.0.1:$(PORT)/#/experiments?workflowType=machine_learning"
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
	  $(BIN)/mlflow server --backend-store-uri sqlite:///$(STORE)/mlflow.db --host 127.0.0.1 --port $(PORT)

report: $(READY) ## rebuild every table and figure, and results/report.html with all of them (a PDF where Chromium is)
	$(BIN)/python -m analysis.build --report

notebooks: $(READY) ## execute the notebooks on the recorded runs (one whose grid was not run keeps its output)
	$(BIN)/python -m analysis.notebooks

docs: $(READY) ## build the documentation into site/; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "open site/index.html; to search in it: $(BIN)/mkdocs serve"

screenshots: $(READY) ## take the pictures of MLflow's pages in docs/images again (needs Chromium, and what make run records)
	$(BIN)/python -m docs.images.screenshots

bench: $(READY) ## measure everything anew on a quiet machine: training, data, studies, analysis (about half an hour)
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove the virtual environment and caches; recorded runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
