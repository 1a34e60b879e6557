# make demo | test | bench | gpu | lint | types | optimum | figures | clean
PYTHON ?= python3
# another package index for torch alone: PyPI's Linux build carries CUDA, the project of PyTorch offers a small CPU build on an index of its own
TORCH_INDEX ?=
# a file for the kernels' results: make bench RESULTS=bench/results/CPU.jsonl
RESULTS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OPTIMUM := .venv-optimum
SOURCES := pyproject.toml setup.py constraints.txt $(wildcard csrc/* csrc/*/*)

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench gpu lint types optimum figures clean

help:
	@echo "make demo     fit, compress, measure and report on real data; runs/demo/report.html"
	@echo "make test     the whole test suite"
	@echo "make bench    kernels against peers, variants side by side (pytest --benchmark)"
	@echo "make gpu      on a machine with a GPU: build for it, test on it, measure it"
	@echo "make lint     ruff;  make types: mypy;  make optimum: the second environment's tests"

$(READY): $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, but this is %s: set PYTHON=…" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25"
	$(BIN)/python -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "torch==2.13.0"
	$(BIN)/python -m pip install -q -c constraints.txt setuptools wheel pybind11 ninja
	COMPRESS_REC_REQUIRE_EXT=1 $(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[dev,bench]"
	@touch $(READY)

setup: $(READY)

demo: $(READY)
	$(BIN)/compress-rec data ml-100k
	$(BIN)/compress-rec data minilm-l6
	$(BIN)/compress-rec study studies/demo.toml --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest

bench: $(READY)
	$(BIN)/python -m pytest --benchmark $(if $(RESULTS),--results=$(RESULTS))

# builds with CUDA or fails; every contract test on the device; memory and races as compute-sanitizer sees them, where it is; the GPU bench
# in a folder of its own: the tables of bench/results/*.jsonl are those of CPUs
GPU_RESULTS ?= bench/results/gpu/gpu.jsonl
gpu: $(READY)
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "make gpu needs a CUDA device, but torch %s sees none: install a CUDA build of torch in $(VENV)" % torch.__version__)'
	COMPRESS_REC_CUDA=1 COMPRESS_REC_REQUIRE_EXT=1 $(BIN)/python setup.py -q build_ext --inplace
	$(BIN)/compress-rec doctor
	$(BIN)/python -m pytest tests/cuda tests/ops
	if command -v compute-sanitizer >/dev/null; then for tool in memcheck racecheck; do \
	    compute-sanitizer --tool=$$tool --error-exitcode=1 --target-processes=all $(BIN)/python -m pytest -q tests/cuda \
	        -k "test_cosine_top_k or test_low_rank" || exit 1; done; \
	else echo "compute-sanitizer is not on PATH, so memory and races were not looked at"; fi
	$(BIN)/python -m bench.gpu --results=$(GPU_RESULTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# transformers 4.57 with optimum's ONNX Runtime classes: one install command, or pip would move transformers to 5
$(OPTIMUM)/.ready: pyproject.toml constraints-optimum.txt
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/python -m pip install -q --upgrade "pip>=25"
	$(OPTIMUM)/bin/python -m pip install -q -c constraints-optimum.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "torch==2.13.0"
	$(OPTIMUM)/bin/python -m pip install -q -c constraints-optimum.txt setuptools wheel pybind11 ninja
	COMPRESS_REC_REQUIRE_EXT=1 $(OPTIMUM)/bin/python -m pip install -q -c constraints-optimum.txt --no-build-isolation -e ".[dev,optimum]"
	@touch $@

optimum: $(OPTIMUM)/.ready
	$(OPTIMUM)/bin/python -m pytest tests/exports tests/test_encoder.py tests/test_huggingface.py tests/test_variant.py

figures: $(READY)
	$(BIN)/python -m compress_rec.figures README.md runs/demo/report.jsonl --keep docs/demo

clean:
	rm -rf build dist *.egg-info $(READY) $(OPTIMUM)/.ready
