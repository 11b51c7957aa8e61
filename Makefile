# Keep the telemetry of onnxruntime off in tests and demos.
export ORT_DISABLE_TELEMETRY := 1

PYTHON ?= python3
# What to install besides the package: `make test EXTRAS=dev,experiment` also tests what needs torch.
EXTRAS ?= dev
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint types clean

demo: $(STAMP)
	$(BIN)/python tools/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -q

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@
