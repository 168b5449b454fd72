# Every target sets up .venv by itself: made if missing, refreshed if pyproject.toml or constraints.txt changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
ARGS ?=

.PHONY: lab test lint notebooks bench
.DELETE_ON_ERROR:

lab: $(READY)  ## open the lessons in JupyterLab; ARGS="--no-browser --port 9000" is passed on
	$(BIN)/python -m jupyterlab notebooks --LabApp.default_url=/lab/tree/00_welcome.ipynb $(ARGS)

test: lint  ## prove everything: unit, lesson and browser tests; ARGS="-k freezing" is passed on
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

notebooks: $(READY)  ## run all lessons and store their outputs
	$(BIN)/python notebooks/execute.py $(ARGS)

bench: $(READY)  ## fine-tuning beside other tools, an hour; ARGS="--seeds 1 --rows head" is passed on
	$(BIN)/python benchmarks/fine_tuning.py $(ARGS)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ftlab needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[test]'
	@touch $(READY)
