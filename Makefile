# make run: set everything up and serve. make test: set everything up and run all checks.
# Only Python 3.11+ and make need to be there; what is missing otherwise is installed here.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

WEB := $(shell find trio_sfu/web tests/browser/client -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)

.PHONY: run test lint types check browser bench clean

run: $(VENV)/.installed
	exec $(BIN)/python -m trio_sfu $(ARGS)

test: lint types check

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

# An editable install: its build hook also builds the pages.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml hatch_build.py $(WEB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(BIN)/python hatch_build.py --test
	touch $@

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test-installed
	$(BIN)/mypy
	$(BIN)/python hatch_build.py --check

# Debian's Chromium decides what works, and its coturn is the TURN server; installed where they are missing and we may.
browser:
	@missing=; \
	command -v chromium >/dev/null || missing=chromium; \
	command -v turnserver >/dev/null || missing="$$missing coturn"; \
	test -z "$$missing" || { \
		echo "installing $$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	}

# What may run two files at a time: first what is without a browser, then pages of which nothing is asserted that the
# load of others could change. All that is not named here, and so whatever is new, comes last and one after the other:
# tests that measure want a quiet machine.
TOGETHER := $(wildcard tests/test_*.py) \
	$(addprefix tests/,hls interop media protocols rooms signalling support_tests transport wire)
PAGES_TOGETHER := $(patsubst %,tests/browser/test_%.py,\
	call_repairs calls endings interop pages reconnecting turn watch_page)

PYTEST := $(BIN)/python -m pytest
TWO_FILES := --numprocesses 2 --dist loadfile

# With ARGS, what they choose is run one after the other.
check: $(VENV)/.test-installed browser
ifdef ARGS
	$(PYTEST) $(ARGS)
else
	@failed=; \
	echo "tests without a browser, two files at a time"; $(PYTEST) $(TWO_FILES) $(TOGETHER) || failed=1; \
	echo "pages, two files at a time"; $(PYTEST) $(TWO_FILES) $(PAGES_TOGETHER) || failed=1; \
	echo "all others"; $(PYTEST) $(addprefix --ignore=,$(TOGETHER) $(PAGES_TOGETHER)) || failed=1; \
	test -z "$$failed"
endif

# What only the benchmark wants (plots, other servers to compare with) is installed here and not by the tests.
$(VENV)/.bench-installed: $(VENV)/.test-installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

bench: $(VENV)/.bench-installed
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf $(VENV) trio_sfu/web/dist trio_sfu/web/node_modules tests/browser/dist
