# make demo   set up, run the demo study, print its accuracy table and the path of its page
# make test   set up, lint, unit tests, workflow tests
# make help   the other targets
#
# Everything runs in .venv, made by python3's own venv and pip from requirements.txt.

# A console script cannot start from a path with a blank, and pip would find out at the end.
ifneq ($(words $(CURDIR)),1)
$(error The path of this checkout has a blank ($(CURDIR)): move it to a path without one)
endif

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
export PATH := $(abspath $(BIN)):$(PATH)
export PYTHONPATH := $(abspath workflow/scripts)
export PYTHONDONTWRITEBYTECODE ?=

.PHONY: help setup demo flagship flagship-second interventions muon-settings optimizers permutations figure-planes docs test lint format unit workflow-test test-scale test-browser test-slurm bench lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.complete ## make .venv with every pinned package

$(VENV)/.complete: requirements.txt
	@command -v git >/dev/null || { echo "git is missing: install it and run make again."; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or later, or run make PYTHON=/path/to/python3."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version): Python 3.11 or later is needed; run make PYTHON=/path/to/python3."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (on Debian: apt-get install python3-venv) and run make again."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: setup ## run the demo study (embedded data, some minutes on 2 cores)
	$(BIN)/snakemake --profile profiles/demo --cores $(CORES)
	@$(BIN)/python -m equiscape.report results/demo

flagship: setup ## does the claim hold on real shapes? six seeds, some hours on 2 cores
	$(BIN)/snakemake --profile profiles/local --cores $(CORES) --configfile config/flagship.yaml
	@$(BIN)/python -m equiscape.report results/flagship

flagship-second: setup ## the flagship's PointNet with other seeds, and SOAP
	$(BIN)/snakemake --profile profiles/local --cores $(CORES) --configfile config/flagship-second.yaml
	@$(BIN)/python -m equiscape.report results/flagship-second

interventions: setup ## does accuracy follow the spectrum? real shapes, under 40 minutes on 2 cores
	$(BIN)/snakemake --profile profiles/local --cores $(CORES) --configfile config/interventions.yaml
	@$(BIN)/python -m equiscape.report results/interventions

muon-settings: setup ## Muon's own settings on real shapes, under 40 minutes on 2 cores
	$(BIN)/snakemake --profile profiles/local --cores $(CORES) --configfile config/muon-settings.yaml
	@$(BIN)/python -m equiscape.report results/muon-settings

optimizers: setup ## the optimizers that the field compares, on real shapes, under 40 minutes on 2 cores
	$(BIN)/snakemake --profile profiles/local --cores $(CORES) --configfile config/optimizers.yaml
	@$(BIN)/python -m equiscape.report results/optimizers

permutations: setup ## run the study of permutation representations (docs/permutations.md)
	$(BIN)/snakemake --profile profiles/local --cores $(CORES) --configfile config/permutations.yaml
	@$(BIN)/python -c 'print(open("results/permutations/tables/permutations.md").read())'

figure-planes: setup ## redraw the picture in docs/permutations.md
	$(BIN)/python docs/figures/union_of_planes.py

docs: $(VENV)-docs/.complete ## the documentation site, into site/index.html
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs --quiet build --strict
	@echo "the documentation: $(abspath site/index.html)"

$(VENV)-docs/.complete: requirements-docs.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

test: lint unit workflow-test ## lint, unit tests, workflow tests

lint: setup docs ## ruff, mypy, snakefmt, snakemake --lint, a strict build of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

format: setup ## format everything
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

unit: setup ## unit tests
	$(BIN)/python -m pytest tests/unit -n $(CORES)

workflow-test: setup ## the workflow, end to end on a tiny study, and its bad inputs
	$(BIN)/python -m pytest tests/workflow -m "not scale"

test-scale: setup ## plan a study of ten thousand cells, count the files of a study
	$(BIN)/python -m pytest tests/workflow -m scale

test-browser: setup ## the study's page and the documentation in a headless Chromium (apt-get install chromium)
	$(BIN)/python -m pytest tests/browser

test-slurm: setup ## the workflow on a real one-node SLURM (Debian's packages; needs root)
	@tests/slurm/install.sh
	$(BIN)/python -m pytest tests/slurm -rs

bench: setup ## every comparison with a rival, into benchmarks/results.md and .csv
	$(BIN)/python benchmarks/run.py

lock: ## rewrite requirements.txt from requirements.in
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet -r requirements.in
	{ sed -n '/^#/p' requirements.txt; $(VENV)-lock/bin/python -m pip freeze | sed 's/+cpu//' | sort -f; } > requirements.new
	mv requirements.new requirements.txt
	rm -rf $(VENV)-lock

clean: ## remove the environment and everything the demo made
	rm -rf $(VENV) $(VENV)-docs site results/demo resources/demo
