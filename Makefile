# make demo   rank sample documents with the embedded model (sets up .venv first)
# make test   the default test suite
# make check  lint and types
# make wheel  build the wheel and run the demo from it in an empty environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check wheel clean

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (about a minute; torch is the large part)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/qrhead demo

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy -p langchain_qrhead -p llama_index.postprocessor.qrhead

wheel: $(READY)
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv --clear build/empty
	build/empty/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build && empty/bin/qrhead demo && empty/bin/python -c "import langchain_qrhead" 2>&1 | grep -q 'pip install'

clean:
	rm -rf build dist runs $(VENV)
