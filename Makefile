# On a machine with Python 3.11 or later and nothing installed:
#
#   make quickstart   fetch a small model; train it on a pool, and on the tenth of it that is nearest to one task
#   make test         lint, check types and run the tests
#   make test-lowest, make test-newest  run the core part on the lowest and newest versions, write docs/versions.md
#   make test-faults  inject faults (kills, full disks, damaged files, faulty judges) and write docs/faults.md
#   make docs         build the site of docs/ into site/
#   make results      run scenarios, and make results/README.md and README's table of them: hours, and it goes on
#
# Each makes .venv and installs everything there, once; afterwards only results needs a network, for rows and model.
# PYTHON=python3.12 chooses the interpreter, MODEL=folder a model of your own for the quickstart.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
MODEL ?=
export MODEL
# The part of the scenarios that `make results` runs; OPTIONS are those of `hf-dataselect scenario`.
SCENARIOS ?= target noisy
METHODS ?= length bm25 rds perplexity superfiltering ifd less
OPTIONS ?=

.PHONY: quickstart docs results test test-faults test-lowest test-newest lint clean

quickstart: .venv/.installed
	@PATH="$(CURDIR)/.venv/bin:$$PATH" bash recipes/quickstart/run.sh

docs: .venv/.installed
	.venv/bin/python -m mkdocs build --strict --quiet --site-dir site

results: .venv/.installed
	for scenario in $(SCENARIOS); do \
		.venv/bin/hf-dataselect scenario $$scenario --methods $(METHODS) $(OPTIONS) || exit 1; done
	.venv/bin/python benchmarks/results.py $(addprefix runs/scenarios/,$(SCENARIOS))
	.venv/bin/python benchmarks/decisions.py results

test: lint
	.venv/bin/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

test-faults: .venv/.installed
	.venv/bin/python -m tests.faults

test-lowest: RESOLUTION = lowest-direct
test-newest: RESOLUTION = highest
test-lowest test-newest: test-%:
	rm -rf .venv-$* && $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --no-input uv
	.venv-$*/bin/python -m uv pip install --quiet --python .venv-$*/bin/python --resolution $(RESOLUTION) \
		-e '.[judge,lexical,lm-eval,metrics,report,tags,vision]' 'pytest>=8.0'
	.venv-$*/bin/python -m tests.versions; failed=$$?; rm -rf .venv-$*; exit $$failed

lint: .venv/.installed
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

clean:
	rm -rf .venv .venv-* site runs/quickstart build hf_dataselect.egg-info .mypy_cache .pytest_cache .ruff_cache

.venv/.installed: pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hf_dataselect needs Python 3.11 or later, as TRL does: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv (once, a few minutes) ..."
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-compile -c constraints.txt -e '.[test]'
	@touch $@
