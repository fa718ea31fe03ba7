# Two commands: `make demo` (text to circuit to page) and `make test`. DEMO_ARGS go to `wirework demo`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test slow-test lint types docs browser-test hostile-test notebook-test bench clean

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/wirework demo $(DEMO_ARGS)

# Tests start hundreds of interpreters: without cached bytecode each compiles everything.
unexport PYTHONDONTWRITEBYTECODE

# One process a core, each with one thread: more threads than cores are slower.
# `worksteal` mostly keeps the tests of a file together, which share what takes long to make.
PARALLEL = -n auto --dist worksteal --durations=25

test: export OMP_NUM_THREADS = 1
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PARALLEL)

# Kills and signals at every moment, whole matrices, small full disks: what takes too long for `test`.
slow-test: export OMP_NUM_THREADS = 1
slow-test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PARALLEL) -m slow --ignore=tests/hostile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# The site, in site/; a warning is an error (mkdocs.yml).
docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build

browser-test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m browser

# Thousands of spoiled files through every loader: tests/hostile/README.md.
hostile-test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/hostile -m slow

notebook-test: export OMP_NUM_THREADS = 1
notebook-test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --nbmake --nbmake-timeout=600 examples

# BENCH_ARGS go to `python -m benchmarks`.
bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# pip writes nothing while it loads a large file or unpacks it, so a line every 20 seconds does.
PIP := start=$$(date +%s); \
	while sleep 20 >/dev/null 2>&1; do echo "installing, $$(( $$(date +%s) - start )) s so far"; done & \
	trap "kill $$!" EXIT; \
	$(BIN)/python -m pip install -c constraints.txt

# torch first and by itself: its version decides which build (CPU or CUDA) the rest is resolved for.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wirework needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) -e .[dev]
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(PIP) -e .[docs]
	touch $@

clean:
	rm -rf $(VENV) build dist site src/*.egg-info
