# Keep the telemetry of onnxruntime off in tests and demos.
export ORT_DISABLE_TELEMETRY := 1

PYTHON ?= python3
# What to install besides the package: `make test EXTRAS=dev,experiment` also tests what needs torch.
EXTRAS ?= dev
BIN := .venv/bin
STAMP := .venv/.installed
DOCS_STAMP := .venv/.docs

.PHONY: demo test lint types docs dist images lowest clean

demo: $(STAMP)
	$(BIN)/python tools/demo.py

# Tests run side by side already: threads inside of each would stand in each other's way.
test: export OMP_NUM_THREADS := 1
test: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# The documentation, as a site in build/site; anything that is amiss is an error.
docs: $(DOCS_STAMP)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/site

# What is released, in dist/, and whether the wheel does its job in an environment of its own.
dist: $(STAMP)
	rm -rf dist build/installed
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/installed
	build/installed/bin/python -m pip install --quiet dist/*.whl
	build/installed/bin/onnx-upscale doctor

# Container images for amd64 and arm64; needs docker with buildx:
# make images IMAGE=registry/name SOURCE=https://... BAKE='cpu --push'
images: export VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' onnx_upscale/__init__.py)
images: export REVISION = $(shell git rev-parse HEAD)
images:
	docker buildx bake $(BAKE)

# The tests with the lowest versions that pyproject.toml allows; needs uv, to find out which.
lowest: clean
	mkdir -p build
	uv pip compile --quiet --python $(PYTHON) --resolution lowest-direct --extra dev \
		--output-file build/lowest.txt pyproject.toml
	PIP_CONSTRAINT=$(CURDIR)/build/lowest.txt $(MAKE) test

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@
