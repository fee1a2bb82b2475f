# The verbs of this project. `make up` and `make test` install what they need into .venv first.
PYTHON ?= python3
BIN := .venv/bin
# --without-pip and `pip --python` need neither Debian's python3-venv package nor a second copy of pip.
PIP := $(PYTHON) -m pip --python $(BIN)/python install --disable-pip-version-check

.PHONY: fuzz up test test-redis check lock demo clean help load bench-start bench-propagation bench-redirect bench-memory bench-conventions bench-bulk bench-rebuild bench-imports bench-ingest bench-stats bench-way

help:
	@echo "make up      start Linkwire here (Ctrl-C stops it)"
	@echo "make test    every check and test, on servers of their own"
	@echo "make test-redis   the tests, on the machine's own redis-server"
	@echo "make fuzz    requests made of the OpenAPI document, many more than make test does"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make demo LOG=access.log.gz   replay a web server log through a running Linkwire"
	@echo "make load    a minute of visitors, every answer checked and every click counted (installs locust)"
	@echo "make bench-start, bench-propagation, bench-redirect, bench-memory, bench-conventions,\n  bench-bulk, bench-rebuild, bench-imports, bench-ingest, bench-stats, bench-way   measure what is promised"
	@echo "make lock    resolve pyproject.toml into the lock files"

up: .venv/runtime.stamp
	@$(BIN)/linkwire up

demo: .venv/runtime.stamp
	@$(BIN)/linkwire demo --log $(LOG)

test: check
	$(BIN)/pytest -n 2 --dist worksteal $(if $(shell command -v chromium),,-m "not browser")

# The same on a real Redis (Debian: apt-get install redis-server), but for what tests the embedded Valkey itself.
test-redis: .venv/dev.stamp
	TEST_REDIS_SERVER=$$(command -v redis-server) $(BIN)/pytest -n 2 --dist worksteal -m "not browser"

# What `make test` does for half a minute, for longer: requests made of the OpenAPI document.
fuzz: .venv/dev.stamp
	TEST_OPENAPI_EXAMPLES=500 $(BIN)/pytest tests/openapi --timeout 3600

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

load: .venv/load.stamp
	@$(BIN)/python -m benchmarks.load

bench-start bench-propagation bench-redirect bench-memory bench-conventions bench-bulk bench-rebuild bench-imports bench-ingest bench-stats bench-way: .venv/dev.stamp
	@$(BIN)/python -m benchmarks.$(@:bench-%=%)

.venv/bin/python:
	@echo "Linkwire: making .venv"
	@$(PYTHON) -m venv --without-pip .venv

.venv/runtime.stamp: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Linkwire: installing into .venv (once; about half a minute)"
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --quiet --no-deps --no-build-isolation --no-index -e .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/runtime.stamp
	@echo "Linkwire: installing the test tools"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

.venv/load.stamp: requirements-load.lock .venv/dev.stamp
	@echo "Linkwire: installing locust"
	@$(PIP) --require-hashes -r requirements-load.lock
	@touch $@

# Hashes for every platform, markers for every Python, and no address of an index.
UV := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links pyproject.toml
lock: .venv/bin/python
	@$(PIP) --quiet uv
	$(UV) -o requirements.lock
	$(UV) --extra dev -c requirements.lock -o requirements-dev.lock
	$(UV) --extra load -c requirements-dev.lock -o requirements-load.lock

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
