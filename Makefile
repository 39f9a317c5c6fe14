# The commands of this project. Each line calls a real tool; nothing is decided here.
# make demo, make test: all a fresh machine needs. CONTRIBUTING.md says more.

PYTHON ?= python3
# Found before the environment's own, which it makes, takes its place in PATH.
PYTHON := $(shell command -v $(PYTHON))
export PYTHON
VENV := .venv
PACKAGE := build/package
BIN := $(VENV)/bin
NEEDS := $(PYTHON) packaging/needs.py
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Found when they are used: on a new machine they are installed by the same command.
CLANG_FORMAT ?= $$(command -v clang-format-14 clang-format | head -n 1)
CLANG_TIDY ?= $$(command -v clang-tidy-14 clang-tidy | head -n 1)
C_FILES = $(shell find src include tests/unit tests/transcripts tests/fuzz tests/hostile \
	tests/soak tests/libmilter examples bench -name '*.[ch]')
PACKAGE_FILES = $(shell find pyproject.toml meson.build meson_options.txt src include python \
	-type f -not -name '*.pyc')

.PHONY: demo test unit libmilter states pytest test-pythons needs-test record sanitize \
	sanitize-python valgrind coverage cross hostile soak retire fuzz bench bench-testing docs lint format wheel clean

# An example filter and messages sent to it; no mail server.
demo: $(VENV)/installed
	@$(BIN)/python examples/demo.py

# Everything that is tested.
test: unit pytest

# The engine's tests in C, and those of the benchmark's parts.
unit: needs-test $(VENV)/tools
	@if $(NEEDS) --has cmocka; then $(call UNIT,build/unit); else echo 'SKIPPED: tests/unit'; fi

# libmilter for C, as the tests in Python run programs on it.
libmilter: needs-test $(VENV)/tools
	@$(call SETUP,build/libmilter,-Dpython=false --werror)
	@meson compile -C build/libmilter

# The page that shows the session's state table, made anew.
states: needs-test $(VENV)/tools
	@$(call SETUP,build/unit,$(FOR_UNIT))
	@meson compile -C build/unit states_doc
	@build/unit/tests/unit/states_doc --write docs/states.md

# The tests in C with the address and undefined behaviour checkers, the server's with the one for
# threads.
sanitize: needs-test $(VENV)/tools
	@$(call UNIT,build/sanitize,-Db_sanitize=address$(,)undefined)
	@$(call UNIT,build/threads,-Db_sanitize=thread,--suite server)

# The tests in Python with the modules built for the same checkers; leaks are looked for too. Left
# out are whole programs, many of which fork (in one of them LeakSanitizer's own tracer crashes), what
# needs the package as it is installed, what measures costs and memory, and what compares with the
# older package, which would get these modules; and callbacks that are left behind, which keep what
# they use on purpose (`hangs`, `behind`); and one that gives up root, as whom the checker cannot look for
# leaks (`may_not_be_set`).
WHOLE := tests/api/test_left.py tests/python/test_send.py tests/api/test_programs.py tests/api/test_quirks.py \
	tests/api/test_server_life.py tests/api/test_costs.py tests/python/test_functions.py tests/python/test_pages.py \
	tests/python/test_pytest_plugin.py tests/python/test_systemd_page.py
SANITIZED_TESTS := $(filter-out $(WHOLE),$(wildcard tests/python/test_*.py tests/api/test_*.py))
CC_FILE = $(shell $(or $(CC),cc) -print-file-name=$(1))
sanitize-python: needs-test $(VENV)/tools
	@$(call SETUP,build/sanitize-python,-Dlibmilter=false -Ddefault_library=static \
		-Db_sanitize=address$(,)undefined -Db_lundef=false \
		--prefix $(CURDIR)/build/sanitize-python/root -Dpython.install_env=prefix)
	@meson install -C build/sanitize-python --quiet --tags runtime,python-runtime
	@$(SANITIZED) $(SANITIZED_TESTS) $(ARGS)
SANITIZED = LD_PRELOAD='$(call CC_FILE,libasan.so) $(call CC_FILE,libubsan.so)' \
	PYTHONMALLOC=malloc UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	PYTHONPATH=$$(echo build/sanitize-python/root/lib/python*/site-packages | \
		sed "s,^,$(CURDIR)/,") \
	$(BIN)/python -m pytest -k 'not oracle and not memory and not hangs and not behind and not may_not_be_set'

valgrind: needs-test $(VENV)/tools
	@$(NEEDS) valgrind
	@$(call SETUP,build/unit,$(FOR_UNIT))
	@meson test -C build/unit --print-errorlogs --no-suite server --no-suite cost --no-suite bench --no-suite model -t 20 \
		--wrap='valgrind --quiet --error-exitcode=9 --leak-check=full'

# The tests in C on other machines: musl, 32 bits with times of 64, big-endian numbers; with cmocka 2.
# TARGETS names some of them. The model of the scheduler is the same on each, and takes minutes.
CROSS = $(or $(TARGETS),$(basename $(notdir $(wildcard packaging/cross/*.ini))))
cross: $(VENV)/tools
	@$(NEEDS) build cross
	@for target in $(CROSS); do \
		if $(NEEDS) --has $$target && $(PYTHON) packaging/cmocka.py $$target; then \
			$(call UNIT,build/cross/$$target,--cross-file packaging/cross/$$target.ini,--no-suite model) \
				|| exit; \
		else echo "SKIPPED: tests/unit for $$target"; test "$$CI" != true || exit 1; fi; \
	done

# How much of the protocol and the session the tests in C reach, then of the server, and that it stays
# so. Socket specifications and listeners are tested in Python and by fuzzing, which does not count
# here: hence the server's lower bounds.
coverage: needs-test $(VENV)/tools
	@$(call UNIT,build/coverage,-Db_coverage=true,--suite wire --suite session)
	@gcovr --root . build/coverage --filter src/wire --filter src/session \
		--fail-under-line 97 --fail-under-branch 90 --print-summary
	@meson test -C build/coverage --print-errorlogs --suite server
	@gcovr --root . build/coverage --filter src/server \
		--fail-under-line 85 --fail-under-branch 74 --print-summary

# A million hostile peers on sessions, and some over sockets. `make unit` has a short form.
hostile: needs-test $(VENV)/tools
	@$(call SETUP,build/unit,$(FOR_UNIT))
	@meson compile -C build/unit hostile
	@tests/hostile/run.sh build/unit/tests/hostile/hostile 1000000 50000 $$(date +%s)

# Three filters under mixed load for MINUTES: every answer right; memory, descriptors and threads
# flat. SEED, which is printed, chooses what happens.
MINUTES ?= 30
soak: needs-test $(VENV)/installed $(VENV)/tools
	@$(call SETUP,build/soak,$(FOR_UNIT) -Dlibmilter=false)
	@meson compile -C build/soak soak_filter hostile load
	@$(BIN)/python tests/soak/soak.py build/soak $(MINUTES) $(SEED)

# Filters that are replaced so often behind real MTAs under load, and no SMTP session sees it. `make
# pytest` has a short form.
REPLACEMENTS ?= 200
retire: needs-test $(VENV)/installed $(VENV)/tools
	@$(BIN)/python tests/mta/replaced.py $(REPLACEMENTS)

# Each fuzz target for SECONDS, two at a time. TARGETS names some of them. The one in Python needs
# atheris, which does not install for every interpreter; without it run.py says that it is left out.
SECONDS ?= 60
CLANG ?= $$(command -v clang-14 clang | head -n 1)
fuzz: $(VENV)/installed $(VENV)/tools
	@$(NEEDS) build fuzz
	@$(BIN)/pip install -q --group fuzz >/dev/null 2>&1 || true
	@export CC=$(CLANG); $(call SETUP,build/fuzz,-Dfuzz=true -Dpython=false -Dlibmilter=false --werror \
		-Ddefault_library=static -Db_sanitize=address$(,)undefined -Db_lundef=false)
	@meson compile -C build/fuzz
	@$(BIN)/python tests/fuzz/run.py build/fuzz $(SECONDS) $(TARGETS)

# The tests in Python, with a real Postfix and a real Sendmail among them. ARGS goes to pytest.
pytest: needs-test libmilter $(VENV)/installed $(VENV)/tools
	@$(BIN)/pytest $(ARGS)

# Tests in Python that need no MTA, or those in ARGS, for each interpreter that runs (or PYTHONS),
# each built in an environment of its own. Of each minor version the first that is found: in PATH,
# then the newest that pyenv has installed.
PYENV = $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions
PYTHONS ?= $(foreach minor,10 11 12 13 14 15,$(firstword $(foreach python,\
	python3.$(minor) $(shell ls -drv $(PYENV)/3.$(minor).*/bin/python3.$(minor) 2>/dev/null),\
	$(shell $(python) -c 'import sys; print(sys.executable)' 2>/dev/null))))
test-pythons:
	@for python in $(PYTHONS); do \
		name=$$($$python -c 'import sys; print(*sys.version_info[:2], sep=".")') && \
		echo "Python $$name" && \
		$(MAKE) --no-print-directory pytest PYTHON=$$python VENV=build/pythons/$$name \
			PACKAGE=build/package-$$name \
			ARGS='$(or $(ARGS),-q tests/mime tests/companions tests/python tests/api)' || exit; \
	done

# Records sessions with the real MTAs anew: seeds of the fuzz targets, in tests/fuzz/corpus.
record: needs-test $(VENV)/installed $(VENV)/tools
	@$(BIN)/python tests/mta/sessions.py

needs-test:
	@$(NEEDS) build test

# Figures beside those of the peers. It installs what it needs itself. ARGS goes to the program.
bench:
	@/usr/bin/python3 bench/run.py $(ARGS)

# What the MTA's side in Python costs: a test with one message, and `milterkit send --repeat`.
bench-testing: $(VENV)/installed
	@$(call SETUP,build/load,-Dbench=true -Dpython=false -Dlibmilter=false --buildtype=release)
	@meson compile -C build/load bench/load
	@$(BIN)/python bench/testing.py build/load/bench/load

# The documentation, in build/docs/index.html. Warnings are errors; links are checked, without a
# network.
docs: $(VENV)/installed $(VENV)/docs
	@$(NEEDS) build docs
	@$(BIN)/sphinx-build -W --keep-going -q -E -d build/docs-trees -b html docs build/docs
	@$(BIN)/python docs/sphinx/links.py

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

# $(call SETUP,FOLDER,OPTIONS): sets a build folder up if it is new.
# $(call UNIT,FOLDER,MORE OPTIONS,WHICH TESTS): the same for the tests in C; builds and runs them.
, := ,
SETUP = { test -f $(1)/build.ninja || meson setup $(1) $(2); }
FOR_UNIT = -Dtests=true -Dbench=true -Dpython=false -Ddefault_library=static --werror
UNIT = $(call SETUP,$(1),$(FOR_UNIT) $(2)) && meson test -C $(1) --print-errorlogs $(3)

# The environment: first what building needs, then the tools of test and lint, then the package.
$(VENV)/made: pyproject.toml
	@$(NEEDS) build
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --upgrade 'pip>=25.1'
	@$(BIN)/pip install -q --group build
	@touch $@

$(VENV)/tools: $(VENV)/made
	@$(BIN)/pip install -q --group dev
	@$(BIN)/pip install -q --group programs --no-deps --upgrade --target $(VENV)/programs
	@touch $@

$(VENV)/docs: $(VENV)/made
	@$(BIN)/pip install -q --group docs
	@touch $@

$(VENV)/installed: $(VENV)/made $(PACKAGE_FILES)
	@$(BIN)/pip install -q --no-build-isolation --no-deps -Cbuild-dir=$(PACKAGE) .
	@touch $@
