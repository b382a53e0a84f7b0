# splitbus on a fresh machine: `make demo`, `make test`. Needs Python 3.11 or newer, make and a package index.
# Everything goes into .venv; the stamps there make a second run quick, and pyproject.toml makes them old.

.DEFAULT_GOAL := help
.PHONY: help demo test check fuzz soak setup system clean

VENV := .venv
BIN := $(VENV)/bin
# ONNX Runtime would keep usage statistics in the home folder.
export ORT_DISABLE_TELEMETRY := 1
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)

help:  ## Show this
	@echo 'make demo    set everything up and run the demo; ARGS="--seconds 30 --headless" are passed on'
	@echo 'make test    set everything up and run every check and test'
	@echo 'make fuzz    fuzz every decoder with atheris; RUNS=1000000 for each'
	@echo 'make soak    the fault suite with 50 deaths of everything, hours; then the table in docs/reliability.md'
	@echo 'make setup   set everything up for development'
	@echo 'make check   run every check and test on what is set up; ARGS="-k cuts" are passed to pytest'
	@echo 'make clean   remove everything that make made, .venv too'

demo: $(VENV)/demo.stamp
	$(BIN)/splitbus demo $(ARGS)

test: setup
	./check $(ARGS)

check:
	./check $(ARGS)

# What each decoder is given, from the committed corpus on; finds are left in build/fuzz.
RUNS ?= 200000
FUZZED := packet sealed-packet opened parts codec coefficients differences tables file message signed keys card text publish journal record

fuzz: $(VENV)/fuzz.stamp
	@for target in $(FUZZED); do \
	  echo "$$target: $(RUNS) runs"; \
	  $(BIN)/python -m tests.fuzz.run $$target -runs=$(RUNS) >build/fuzz-$$target.log 2>&1 \
	    || { tail -n 30 build/fuzz-$$target.log; exit 1; }; \
	  grep -h '^stat::\(number_of_executed_units\|average_exec_per_sec\|peak_rss_mb\)' build/fuzz-$$target.log; \
	done

# Timings are the promise here, and whoever else uses the machine is not part of the faults: as root, others come second.
# Where the kernel shares time by session (kernel.sched_autogroup_enabled), that helps little: leave the machine alone.
FIRST := $(shell [ "$$(id -u)" = 0 ] && echo nice -n -5)

soak: setup
	SPLITBUS_SOAK=1 $(FIRST) $(BIN)/pytest tests/faults $(ARGS)
	$(BIN)/python -m tests.faults.report

setup: system $(VENV)/dev.stamp

clean:
	rm -rf $(VENV) build dist .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call install,EXTRA): this checkout, editable, with an extra of pyproject.toml
define install
	@echo "Installing splitbus and the packages of its extra '$(1)' (see pyproject.toml) into $(VENV); this takes a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]'
	@echo "Installed in $(VENV):" $$($(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable)
	@touch $@
endef

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(call install,demo)

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	$(call install,dev)
	@touch $(VENV)/demo.stamp

$(VENV)/fuzz.stamp: pyproject.toml | $(BIN)/python
	$(call install,fuzz)
	@mkdir -p build

# A failed attempt leaves nothing that looks finished.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo 'splitbus needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python3.'; exit 1; }
	@echo "Creating $(VENV) with $(PYTHON) ($$($(PYTHON) --version))"
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call apt,python3-venv,Debian keeps it apart from Python)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# $(call apt,PACKAGE,REASON): when root, and say so; package lists are fetched when they are missing or old
apt = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
  && echo "Installing $(1) with apt-get: $(2)." \
  && export DEBIAN_FRONTEND=noninteractive \
  && { apt-get install -qq -y --no-install-recommends $(1) >/dev/null 2>&1 \
    || { apt-get update -qq && apt-get install -qq -y --no-install-recommends $(1) >/dev/null; }; } \
  || echo "$(1) is not installed and cannot be from here: $(2)."; }

# What the tests use of the system. Without mosquitto they look for a Docker engine, and say so.
system:
	@PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v mosquitto >/dev/null || $(call apt,mosquitto,the tests want the real broker)
	@command -v systemd-analyze >/dev/null || $(call apt,systemd,the tests verify the unit files with systemd-analyze)
	@ls /usr/lib/*/faketime/libfaketime.so.1 /usr/lib*/faketime/libfaketime.so.1 2>/dev/null | grep -q . || $(call apt,faketime,the tests make the broker's clock jump)
