# One environment, .venv, made by plain venv and pip.  Files in .venv/stamps record what is installed, so that an
# install happens once, and again when a lock file or pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMPS := .venv/stamps
RUN := runs/digits

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench laws torture parity notebooks docs lock install install-dev clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install ## train on handwritten digits, draw a hundred, say where the picture is
	$(BIN)/python train.py --config configs/digits.py --workdir $(RUN)
	$(BIN)/python sample.py --workdir $(RUN) --num 100 --labels 0,1,2,3,4,5,6,7,8,9 --out $(RUN)/samples
	@echo "the picture is $(RUN)/samples/samples.png"

test: lint ## lint, check types, run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=25

# Without the setting, pyright asks the package index on every run whether a newer pyright exists.
lint: install-dev ## lint and check types only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

bench: install-dev ## measure ourselves, and beside the libraries that are installed (bench/README.md)
	$(BIN)/python -m bench all

laws: install-dev ## every solver x schedule x prediction against its laws, into docs/laws.md
	$(BIN)/python -m tests.laws.report docs/laws.md

torture: install-dev ## kill a run a hundred times and see whether it ends as if it had been left alone
	$(BIN)/python -m tests.torture --kills 100

parity: .venv-peers/stamp ## compare our samplers with other libraries', number by number
	.venv-peers/bin/python -m pytest tests/parity

notebooks: install-dev ## run the notebooks in full, and keep what they show; trains the demo's model if there is none
	$(BIN)/python train.py --config configs/digits.py --workdir $(RUN)
	DIFFJAX_RUN=$(abspath $(RUN)) $(BIN)/python notebooks/run.py

docs: install-dev ## build the site from docs/ and the docstrings; a broken link or example fails
	$(BIN)/python -m sphinx -n -W --keep-going -q -c docs -d docs/_build/doctrees . docs/_build/html
	$(BIN)/python -m pytest -q tests/test_docs.py -m 'not slow'
	@echo "the site is docs/_build/html/docs/index.html"

install: $(STAMPS)/runtime ## make .venv with what diffjax needs to run

install-dev: $(STAMPS)/dev ## make .venv with the development tools too

clean: ## remove .venv and the caches; keep runs/
	rm -rf .venv .venv-peers .venv-flax .cache .pytest_cache .ruff_cache docs/_build docs/api

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	"error: '$(PYTHON)' is not Python 3.11 or newer; name one that is, as in: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@mkdir -p $(STAMPS) && touch $@

# What diffjax needs, to build and to run, has just been installed from the lock with its hashes checked: fetch no more.
EDITABLE := --no-deps --no-build-isolation --editable .

$(STAMPS)/runtime: requirements.lock pyproject.toml | $(STAMPS)/venv
	$(PIP) install --quiet --require-hashes -r $<
	$(PIP) install --quiet $(EDITABLE)
	@touch $@

# The development lock contains the runtime lock, so this counts as both.
$(STAMPS)/dev: requirements-dev.lock requirements.lock pyproject.toml | $(STAMPS)/venv
	$(PIP) install --quiet --require-hashes -r $<
	$(PIP) install --quiet $(EDITABLE)
	@touch $(STAMPS)/runtime $@

# The peers have an environment of their own, which git and ruff leave alone.  k-diffusion, torch-fidelity and clean-fid go in
# without what they need for training and networks: torchvision is one of those, and its mere presence breaks the others.
.venv-peers/stamp: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv .venv-peers
	@echo '*' > .venv-peers/.gitignore
	.venv-peers/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $<
	.venv-peers/bin/python -m pip --disable-pip-version-check install --quiet --no-build-isolation --editable '.[peers]'
	.venv-peers/bin/python -m pip --disable-pip-version-check install --quiet --no-deps \
		k-diffusion==0.1.1.post1 torch-fidelity==0.4.0 clean-fid==0.1.35
	@touch $@

# FlaxDiff and what hackable_diffusion imports, for `python -m bench peers`: beside ours, without FlaxDiff's own pins.
.venv-flax/stamp: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv-flax
	@echo '*' > .venv-flax/.gitignore
	.venv-flax/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $<
	.venv-flax/bin/python -m pip --disable-pip-version-check install --quiet chex einops immutabledict mock typeguard==4.4.4
	.venv-flax/bin/python -m pip --disable-pip-version-check install --quiet --no-deps flaxdiff==0.2.11
	@touch $@

# Pins for every supported Python and platform, with hashes and without the address of any index.  Pins that still
# fit are kept; `make lock UPGRADE=--upgrade` renews them.
UPGRADE ?=
COMPILE = UV_PYTHON_DOWNLOADS=never $(BIN)/python -m uv pip compile pyproject.toml --quiet --universal \
	--generate-hashes --no-emit-index-url --group build --annotation-style line \
	--custom-compile-command "make lock" $(UPGRADE)

lock: | $(STAMPS)/venv ## renew both lock files from pyproject.toml
	$(PIP) install --quiet uv
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra dev --constraint requirements.lock -o requirements-dev.lock
