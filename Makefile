# make run     a first container, from nothing            make check   linters, types, unit tests: under a minute
# make test    everything, on every lane                  make test-v2 what the kernel decides, on cgroup v2
# make bench   speed beside the peers                     make torture a thousand random kills
# make conformance [RUNTIME=runc]                         the tests that hold against any OCI runtime
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LANES := build/lanes
# The first Python on PATH, else the system's, that is new enough.
PYTHON ?= $(shell for p in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$p" && break; done)

.PHONY: help run venv bell check lint unit test test-host test-v2 record-lanes conformance bench torture clean distclean system-%

help:
	@sed -n '/^SHELL/q; s/^# //p' Makefile

# What the system lacks is installed (root on Debian or Ubuntu) or named.
system-%:
	@test -n "$(PYTHON)" || { echo "make: no python3 >= 3.11 found; hint: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) tools/system --python $(PYTHON) $*

venv: $(VENV)/.stamp
$(VENV)/.stamp: pyproject.toml tools/build_hook.py | system-check
	@$(BIN)/python -c pass 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]'
	@touch $@

bell: venv
	@$(BIN)/python tools/build_bell.py

run: system-run venv bell
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/first-run

check: lint unit

# A script without a suffix is a module of its own to mypy, so each is a call.
lint: venv bell
	@status=0; PATH="$(BIN):$$PATH"; ruff check || status=1; ruff format --check || status=1; mypy || status=1; \
	for tool in tools/system tools/uml-lane tools/host-lane tools/peers; do mypy --no-error-summary $$tool || status=1; done; exit $$status

unit: venv bell
	@mkdir -p $(LANES)
	CLOCHE_LANE=unit CLOCHE_LANE_REPORT=$(LANES)/unit.jsonl $(BIN)/python -m pytest -q tests/unit

test-host: venv bell
	@mkdir -p $(LANES)
	$(BIN)/python tools/host-lane --report $(LANES)/host.jsonl

test-v2: system-test-v2 venv bell
	tools/uml-lane --report $(LANES)/v2.jsonl

# Every lane runs, also after one that failed; the sum of all is judged at the end.
test: system-test venv bell
	@rm -rf $(LANES); status=0; for lane in lint unit test-v2 test-host; do $(MAKE) $$lane || status=1; done; \
	$(BIN)/python tools/lanes.py $(LANES)/{unit,v2,host}.jsonl || status=1; exit $$status

# Sets the number of tests that each lane of the last `make test` must run from now on.
record-lanes:
	$(BIN)/python tools/lanes.py --record $(LANES)/{unit,v2,host}.jsonl

# RUNTIME is a path, or a name on PATH; without it, it is our own.
conformance: system-conformance venv bell
	$(if $(RUNTIME),CONFORMANCE_RUNTIME="$(RUNTIME)") $(BIN)/python -m pytest tests/conformance

bench: system-bench venv bell
	$(BIN)/python bench/peers.py
	$(BIN)/python bench/network.py
	$(BIN)/python bench/pulls.py

torture: system-torture venv bell
	CLOCHE_KILLS=1000 CLOCHE_TEST_LIMIT=3600 $(BIN)/python -m pytest -m torture -o faulthandler_timeout=7200 $(wildcard tests/kernel tests/e2e)

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/cloche/runtime/bell src/cloche/runtime/bell_table.h
	find src tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .peers
