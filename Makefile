# make run    set up, then tune the embedded model with ShortFT towards its preference reward (minutes on a laptop)
# make test   set up, then run the tests
# make lint   set up, then check the style and which room imports which
# make site   set up, then build the documentation site, links checked, into site/

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
BIN    := $(VENV)/bin

.PHONY: run test lint site clean

run: $(VENV)/.core
	$(BIN)/python -m benchmark.run --method shortft --reward hps

# Processes of one thread each use the cores better than one process of many.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

site: $(VENV)/.dev
	$(BIN)/mkdocs build --quiet --strict

$(VENV)/.core: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev,docs,dvc,rewards]"
	@touch $@

clean:
	rm -rf $(VENV) build runs site
