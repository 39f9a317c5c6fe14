# The commands of this project. Each line calls a real tool; nothing is decided here.
# make demo, make test: all a fresh machine needs. CONTRIBUTING.md says more.

PYTHON ?= python3
# Found before the environment's own, which it makes, takes its place in PATH.
PYTHON := $(shell command -v $(PYTHON))
export PYTHON
VENV := .venv
BIN := $(VENV)/bin
NEEDS := $(PYTHON) packaging/needs.py
export PATH := $(CURDIR)/$(BIN):$(PATH)

CLANG_FORMAT ?= $(firstword $(shell command -v clang-format-14 clang-format))
CLANG_TIDY ?= $(firstword $(shell command -v clang-tidy-14 clang-tidy))
C_FILES = $(shell find src include tests/unit bench -name '*.[ch]')
PACKAGE_FILES = $(shell find pyproject.toml meson.build meson_options.txt src include python \
	-type f -not -name '*.pyc')

.PHONY: demo test unit pytest needs-test sanitize bench lint format wheel clean

# An example filter and messages sent to it; no mail server.
demo: $(VENV)/installed
	@$(BIN)/python examples/demo.py

# Everything that is tested.
test: unit pytest

# The engine's tests in C.
unit: needs-test $(VENV)/tools
	@if $(NEEDS) --has cmocka; then $(call UNIT,build/unit); else echo 'SKIPPED: tests/unit'; fi

# The same with the address and undefined behaviour checkers.
sanitize: needs-test $(VENV)/tools
	@$(call UNIT,build/sanitize,-Db_sanitize=address$(,)undefined)

# The tests in Python, with a real Postfix among them. ARGS goes to pytest.
pytest: needs-test $(VENV)/installed $(VENV)/tools
	@$(BIN)/pytest $(ARGS)

needs-test:
	@$(NEEDS) build test

# Figures beside those of the older package. ARGS goes to the program.
bench:
	@$(NEEDS) build bench
	@/usr/bin/python3 bench/run.py $(ARGS)

lint: $(VENV)/tools
	@$(NEEDS) build lint bench
	ruff check
	ruff format --check
	mypy --strict python
	$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)
	@test -f build/lint/build.ninja || meson setup build/lint -Dbench=true
	find src bench -name '*.c' | xargs -P 2 -n 4 $(CLANG_TIDY) --quiet -p build/lint
	cppcheck --quiet --error-exitcode=1 --inline-suppr --enable=warning,performance,portability \
		--library=python --suppress=missingIncludeSystem -Iinclude -Isrc src

format: $(VENV)/tools
	ruff check --fix
	ruff format
	$(CLANG_FORMAT) -i $(C_FILES)

wheel: $(VENV)/tools
	$(BIN)/pip wheel --no-build-isolation --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist

# $(call UNIT,FOLDER,MORE OPTIONS): sets a build folder up if it is new, builds and tests there.
, := ,
define UNIT
{ test -f $(1)/build.ninja || meson setup $(1) -Dtests=true -Dpython=false \
	-Ddefault_library=static --werror $(2); } && meson test -C $(1) --print-errorlogs
endef

# The environment: first what building needs, then the tools of test and lint, then the package.
$(VENV)/made: pyproject.toml
	@$(NEEDS) build
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --upgrade 'pip>=25.1'
	@$(BIN)/pip install -q --group build
	@touch $@

$(VENV)/tools: $(VENV)/made
	@$(BIN)/pip install -q --group dev
	@touch $@

$(VENV)/installed: $(VENV)/made $(PACKAGE_FILES)
	@$(BIN)/pip install -q --no-build-isolation --no-deps -Cbuild-dir=build/package .
	@touch $@
