# make demo | test | install | book | bench | lint | test-core | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := pyproject.toml CMakeLists.txt constraints.txt $(shell find csrc -name '*.hpp' -o -name '*.cpp')
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: install demo test lint test-core test-python book bench clean

install: $(STAMP)

# The editable install needs its build tools in the environment itself: --no-build-isolation keeps
# the build from fetching a second torch-free world, and makes rebuilding quick.
$(STAMP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -c constraints.txt scikit-build-core pybind11 cmake ninja
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[test,book]'
	touch $@

demo: install
	$(BIN)/sgdmc demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint test-core test-python

# The compiled core alone, under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
test-core: install
	PATH="$(abspath $(BIN)):$$PATH" csrc/tests/run.sh

test-python: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

book: install
	$(BIN)/python book/build.py

bench: install
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]' --no-build-isolation
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build book/_build sgdmc-demo sgdmc-forecast .pytest_cache .mypy_cache .ruff_cache
