# From a fresh clone: `make up` starts everything, `make test` tests it. Needs Python 3.11 to 3.13 only.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install up test test-lowest test-newest wheel-test check format bench chaos soak docs lock clean

install: $(INSTALLED)

# Any of these Pythons will do; `make up PYTHON=python3.13` names one. 3.14 has no wheel of the
# embedded MongoDB yet.
PYTHON ?= python3.11 python3.12 python3.13 python3

# Every package is installed as a wheel: no compiler is needed, and none is used.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Rebuilt only when the lock or the project's own metadata changed.
$(INSTALLED): requirements-dev.lock pyproject.toml
	@for name in $(PYTHON); do \
		version=$$($$name -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
		case $$version in \
			3.11|3.12|3.13) python=$$name; break;; \
			3.1[4-9]) found="$$found $$name is $$version, for which the embedded MongoDB has no wheel yet.";; \
			*) found="$$found $$name is $$version, which is too old.";; \
		esac; done; \
	if [ -z "$$python" ]; then \
		echo "Callboard needs Python 3.11, 3.12 or 3.13.$${found:- No $(PYTHON) was found.}" >&2; exit 1; fi; \
	[ -x $(BIN)/python ] || $$python -m venv $(VENV) || { rm -rf $(VENV); \
		echo "This Python cannot make a virtual environment. On Debian: apt-get install python3-venv" >&2; \
		exit 1; }
	@echo "Installing into $(VENV) ..."
	@$(PIP_INSTALL) --only-binary :all: --require-hashes -r requirements-dev.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

up: install
	@$(BIN)/callboard up $(ARGS)

test: install
	@$(BIN)/pytest $(ARGS)

# The built wheel, in a fresh environment without a compiler: about two minutes.
wheel-test: install
	@$(BIN)/pytest tests/wheel $(ARGS)

# With the oldest and with the newest packages that pyproject.toml admits, not those of the locks.
# A warning of an old package is no error, and a tool of the tests that needs a newer one is skipped.
test-lowest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-lowest test-newest: install
	@mkdir -p build
	@$(BIN)/uv pip compile --quiet --no-config --python-version 3.11 --only-binary :all: \
		--upgrade --resolution $(RESOLUTION) --extra server --extra embedded --extra tracing \
		pyproject.toml -o build/$@.txt
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/$@
	@$(BIN)/uv pip install --quiet --python build/$@ --only-binary :all: -r build/$@.txt
	@$(BIN)/uv pip install --quiet --python build/$@ --only-binary :all: -c build/$@.txt --group dev pip
	@$(BIN)/uv pip install --quiet --python build/$@ --no-deps --no-build-isolation -e .
	@CI= build/$@/bin/pytest -W default::DeprecationWarning tests/unit tests/integration $(ARGS)

check: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# The peers' packages come on top; the lock keeps those that Callboard itself uses as they are.
$(VENV)/.bench-installed: requirements-bench.lock $(INSTALLED)
	@echo "Installing the benchmark's peers into $(VENV) ..."
	@$(PIP_INSTALL) --only-binary :all: --require-hashes -r requirements-bench.lock
	@touch $@

bench: $(VENV)/.bench-installed
	@$(BIN)/python -m benchmarks $(ARGS)

# About 15 minutes each; `make chaos ARGS="--faults 40 --seed 7"`, `make soak ARGS="--minutes 3"`.
chaos: install
	@PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

soak: install
	@PYTHONPATH=tests $(BIN)/python -m chaos.soak $(ARGS)

$(VENV)/.docs-installed: requirements-docs.lock $(INSTALLED)
	@echo "Installing what builds the documentation into $(VENV) ..."
	@$(PIP_INSTALL) --only-binary :all: --require-hashes -r requirements-docs.lock
	@touch $@

# Into site/, to be opened from there.
docs: $(VENV)/.docs-installed
	@$(BIN)/python docs/generate_settings.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Pins stay as they are where they still fit; `make lock ARGS=--upgrade` takes the newest.
LOCK := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header

lock: install
	@$(LOCK) $(ARGS) pyproject.toml --extra server -o requirements.lock
	@$(LOCK) $(ARGS) pyproject.toml -c requirements.lock --extra embedded --extra tracing \
		--group dev -o requirements-dev.lock
	@$(LOCK) $(ARGS) pyproject.toml -c requirements-dev.lock --extra embedded \
		-o requirements-embedded.lock
	@$(LOCK) $(ARGS) pyproject.toml -c requirements-dev.lock --extra tracing \
		-o requirements-tracing.lock
	@$(LOCK) $(ARGS) pyproject.toml -c requirements-dev.lock --extra server --group bench \
		-o requirements-bench.lock
	@$(LOCK) $(ARGS) pyproject.toml -c requirements-dev.lock --extra server --group docs \
		-o requirements-docs.lock
	@echo hatchling | $(LOCK) $(ARGS) - -c requirements-dev.lock -o requirements-build.lock

clean:
	rm -rf $(VENV) build site .mypy_cache .ruff_cache .pytest_cache
