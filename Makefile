# Everything lives in .venv and needs only Python >= 3.11, git and make. The files .venv/.uv, .venv/.demo and
# .venv/.test record what is installed; they are redone when the lock or a pyproject.toml is newer.

PYTHON ?= python3
VENV := .venv
UV_VERSION := 0.13.9
MEMBERS := core stt_pod agent operator
PROJECTS := pyproject.toml $(MEMBERS:%=%/pyproject.toml)
CUDA_LIBRARIES := 'nvidia-cublas-cu12>=12.4,<13' 'nvidia-cudnn-cu12>=9.1,<10' # what CTranslate2's wheels load on a GPU
EDITABLE := $(MEMBERS:%=-e %)
INSTALL := .ci/uv pip install --python $(VENV) --compile-bytecode # where Python may not write it, each start would compile
COMPILE := $(VENV)/bin/python -m compileall -q $(MEMBERS)

.DEFAULT_GOAL := help
.PHONY: help demo test e2e lint bench images docs lock clean

help: ## List the commands
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

demo: $(VENV)/.demo ## Before and after on this machine: real pods, real speech, one table
	$(VENV)/bin/everwarm demo

test: lint ## Everything that needs no root: style, types, import direction, then all tests
	$(VENV)/bin/python -m tests.cluster
	$(VENV)/bin/python -m pytest --durations=15 $(ARGS)

e2e: $(VENV)/.test ## The whole story on a real cluster: KUBECONFIG's, kind's, or a node of our own (Linux and root)
	$(VENV)/bin/python -m tests.cluster
	EVERWARM_E2E=1 $(VENV)/bin/python -m pytest --durations=15 tests/e2e $(ARGS)

lint: $(VENV)/.test ## Style, types and import direction; seconds, no network
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

bench: $(VENV)/.test ## Measure; results go to bench/results
	$(VENV)/bin/python -m bench $(ARGS)

images: ## Build the container images and print their sizes (docs/how-to/images.md)
	$(PYTHON) images/build.py $(ARGS)

docs: $(VENV)/.test ## Write the reference pages that are made from the code
	$(VENV)/bin/python docs/generate.py

lock: $(VENV)/.uv ## Write the two requirements*.lock from the pyproject.toml files (ARGS=--upgrade for new versions)
	.ci/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --all-extras \
		--group pyproject.toml:dev --group pyproject.toml:base-model $(MEMBERS:%=%/pyproject.toml) \
		--no-emit-package everwarm-core --no-emit-package everwarm-stt \
		--custom-compile-command "make lock" --output-file requirements.lock $(ARGS)
	printf '%s\n' $(CUDA_LIBRARIES) | .ci/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate \
		--python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" \
		--output-file requirements-cuda.lock $(ARGS) -

clean: ## Remove what the commands made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the demo needs, from the index or its mirror; as constraints, the lock pins versions and verifies hashes.
$(VENV)/.demo: $(VENV)/.uv requirements.lock $(PROJECTS)
	$(INSTALL) --constraints requirements.lock hatchling
	$(INSTALL) --constraints requirements.lock --no-build-isolation \
		-e core -e stt_pod -e 'agent[demo]'
	@$(COMPILE)
	@touch $@

# Everything: exactly what the lock says, then the members themselves, which have no hashes.
$(VENV)/.test: $(VENV)/.uv requirements.lock $(PROJECTS)
	$(INSTALL) --require-hashes --requirements requirements.lock
	$(INSTALL) --no-deps --no-build-isolation $(EDITABLE)
	@$(COMPILE)
	@touch $@ $(VENV)/.demo

$(VENV)/.uv: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Everwarm needs Python 3.11 or newer, and '$(PYTHON)' is not. Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@
