# make demo      rank sample documents with the embedded model (sets up .venv first)
# make test      the default test suite
# make check     lint, types, and the order in which packages may import each other
# make coverage  the default test suite with its coverage
# make wheel     build the sdist, the wheel from it, look into both, and run the demo from the wheel in an empty environment
# make docs      build the documentation into build/site; a warning is an error
# make picture   draw the README's picture anew (Chromium, as for make browser)
# make audit     compare what is installed with published advisories (needs the network)
# make slow      the tests that take minutes, with their figures
# make notebooks run every notebook from top to bottom
# make browser   open the page of an explanation in headless Chromium (Debian's, installed where possible)
# make serve-heavy  load on a running server, with its figures; QRHEAD_HEAVY_SECONDS=60 is its longest part
# make bench     the figures of docs/speed.md, into build/bench (about an hour on two cores)
# make ray-heavy    a Ray cluster whose workers are killed and whose nodes go away; Ray Serve
# make heavy        both
# make core      the core's tests with neither LlamaIndex nor LangChain installed
# make lowest    the adapters' tests with the lowest versions of both that are supported

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A process for each core, up to four, with one thread each: two threads on small models are slower than one.
SPREAD := -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test check coverage wheel docs picture audit slow notebooks chromium browser serve-heavy ray-heavy heavy \
	bench core lowest clean

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (about a minute; torch is the large part)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/qrhead demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/mypy -p langchain_qrhead -p llama_index.postprocessor.qrhead

coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) --cov --cov-report=term:skip-covered

wheel: $(READY)
	rm -rf build dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest -m release tests/test_release.py
	$(PYTHON) -m venv --clear build/empty
	build/empty/bin/python -m pip install -qq --constraint constraints.txt dist/*.whl
	cd build && printf '{"text": "The tide turns at six."}' | empty/bin/qrhead explain --query tide --docs - --out page.html
	cd build && empty/bin/qrhead demo && empty/bin/python -c "import langchain_qrhead" 2>&1 | grep -q 'pip install'
	rm -rf build/empty

docs: $(READY)
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

audit: $(READY)
	$(BIN)/python -m pip install -qq pip-audit
	$(BIN)/pip-audit --local --skip-editable

slow: $(READY)
	$(BIN)/python -m pytest -m slow -s

notebooks: $(READY)
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[notebooks]'
	$(BIN)/python -m pytest -m notebooks tests/test_notebooks.py

chromium: $(READY)
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium) >/dev/null 2>&1 || true
	$(BIN)/python -m pip install -qq playwright

picture: chromium
	$(BIN)/python docs/picture.py

browser: chromium
	mkdir -p build
	QRHEAD_ARTEFACTS=build $(BIN)/python -m pytest -rs tests/unit/explain -k 'browser or frame'

serve-heavy: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/server -m heavy -s

bench: $(READY)
	$(BIN)/qrhead bench --lengths 1000,4000,16000 --depths 1,3,5,7,9,11,13,15 --out build/bench/random
	for model in embedded embedded-fast; do $(BIN)/qrhead bench --model $$model --lengths 1000,4000,16000 \
		--max-prompt-tokens 32768 --documents 10,30,100,300,1000 --out build/bench/$$model || exit 1; done
	$(BIN)/qrhead bench --model embedded-fast --lengths 100000 --variants joint --repeats 1 --out build/bench/long

ray-heavy: $(READY)
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev,distributed]' 'ray[serve]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/distributed -m heavy -s

heavy: serve-heavy ray-heavy

core:
	$(PYTHON) -m venv --clear build/core
	build/core/bin/python -m pip install -qq --upgrade pip
	build/core/bin/python -m pip install -qq --constraint constraints.txt --editable '.[test]'
	! build/core/bin/python -c "import langchain_core" 2>/dev/null && ! build/core/bin/python -c "import llama_index.core" 2>/dev/null
	OMP_NUM_THREADS=1 build/core/bin/python -m pytest $(SPREAD) tests/unit tests/parity
	rm -rf build/core

# The frameworks' own warnings are theirs; the files left out need packages that have no such old release.
lowest:
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/python -m pip install -qq --upgrade pip
	build/lowest/bin/python -m pip install -qq --constraint constraints.txt --constraint constraints-lowest.txt \
		--editable '.[test,langchain,llama-index]' langchain langchain-classic
	build/lowest/bin/python -m pytest -W default tests/integrations/test_behaviours.py \
		tests/integrations/test_behaviours_sharing.py \
		tests/integrations/test_llama_index.py tests/integrations/test_langchain.py
	rm -rf build/lowest

clean:
	rm -rf build dist runs $(VENV)
