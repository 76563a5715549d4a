# make demo and make test work on a machine that has nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := outputs/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast fuzz lint format bench docs gallery clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/nif: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nif needs Python 3.11 or newer; make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@git rev-parse --git-dir >/dev/null 2>&1 && $(BIN)/pre-commit install >/dev/null 2>&1 || true
	@touch $@

install: $(BIN)/nif ## make .venv and install nif with its development tools

demo: $(BIN)/nif ## train on built-in shapes, extract meshes, render images (about three minutes on two cores)
	@rm -rf $(DEMO)
	$(BIN)/nif train output_dir=$(DEMO)
	$(BIN)/nif extract run=$(DEMO) instances=6
	$(BIN)/nif render run=$(DEMO) instances=6 frames=2
	@echo; echo "meshes:   $(DEMO)/meshes"; echo "images: $(DEMO)/renders"; echo "curves:   $(BIN)/tensorboard --logdir outputs"

test: $(BIN)/nif ## run the tests (NIF_DATA=<folder> adds those on real data)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-fast: $(BIN)/nif ## run the tests without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow and not gpu'

n ?= 1000
fuzz: $(BIN)/nif ## read hostile files of every kind (make fuzz n=10000); failing ones go to outputs/fuzz
	$(BIN)/python tests/fuzz/run.py --n $(n) --record

lint: $(BIN)/nif ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(BIN)/nif ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BIN)/nif ## run the benchmarks (NIF_DATA=<folder>); results in tests/benchmarks/results
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

docs: $(BIN)/nif ## build the pages in docs/ as a site, strictly, into outputs/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site: outputs/site/index.html; with search: $(BIN)/python -m http.server -d outputs/site"

gallery: $(BIN)/nif ## train and draw one small thing for each experiment and model (NIF_DATA=<folder>: real ones)
	$(BIN)/python docs/gallery.py

clean: ## remove .venv and caches (runs in outputs/ stay)
	rm -rf $(VENV) .pytest_cache .ruff_cache dist build
