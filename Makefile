# Two commands set up everything on a fresh machine with Python and pip: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# CPU wheels are far smaller than CUDA's. pip takes them where the index has them, and goes on without
# if it cannot be reached. For a GPU: make demo TORCH_INDEX=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_FROM := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: install demo test test-all lint benchmark benchmark-speed clean

install: $(VENV)/.run

demo: $(VENV)/.run
	$(BIN)/fewlabels article --quick --out runs/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m ''

lint: $(VENV)/.dev
	$(BIN)/ruff check fewlabels benchmarks tests
	$(BIN)/ruff format --check fewlabels benchmarks tests
	$(BIN)/mypy

# Long: each row is kept as soon as it is measured, and rows that are there are skipped.
benchmark: benchmark-speed
	$(BIN)/python -m benchmarks.article
	$(BIN)/python -m benchmarks.collapse
	$(BIN)/python -m benchmarks.methods
	$(BIN)/python -m benchmarks.scores
	$(BIN)/python -m benchmarks.compare
	$(BIN)/python -m benchmarks.labels
	$(BIN)/python -m benchmarks.check
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.suggest
	$(BIN)/python -m benchmarks.documents

# Needs the libraries it measures against. The ratios of one run are measured together, anew each time.
benchmark-speed: $(VENV)/.dev
	$(BIN)/python -m benchmarks.pretrain_speed
	$(BIN)/python -m benchmarks.view_cost
	$(BIN)/python -m benchmarks.resume_time
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.guard_cost
	$(BIN)/python -m benchmarks.ray_cost
	$(BIN)/python -m benchmarks.export_speed
	$(BIN)/python -m benchmarks.documents

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --retries 1 --timeout 15 $(TORCH_FROM) torch torchvision

$(VENV)/.run: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev,wandb,mlflow,ray]'
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV)
