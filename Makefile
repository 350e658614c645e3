# `make run` serves the scripted provider; `make test` runs every check. Both set up what they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 9099
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# The tests start many Pythons. Each would compile the package anew if none of them may keep the result.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check unit simulate fuzz docs generate bench interop lock clean

run: $(VENV)/runtime.stamp
	$(BIN)/trio-agent serve --config docs/examples/replay.json --port $(PORT)

# Left out: 119 and 900 (generators are closed by aclosing, see docs/architecture.md), 124 (views), 127 (httpx is
# the API only), 91x (a checkpoint in every async function).
ASYNC_RULES := --disable=ASYNC119,ASYNC124,ASYNC127,ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913 \
	--startable-in-context-manager=serve_asgi,serve,serve_on

test: check unit simulate fuzz docs

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/flake8-async $(ASYNC_RULES) $$(find trio_agent/ statemachine -name "*.py")
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# One process for each core, up to four: each of them imports and collects everything first.
unit: $(VENV)/dev.stamp
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# Ten thousand turns in a simulated world, held against the invariants (docs/simulation.md).
SEEDS ?= 0-499
simulate: $(VENV)/dev.stamp
	PYTHONPATH=tests $(BIN)/python -m simulation --seeds $(SEEDS)

# What no client should send, sent to a server for a while (docs/security.md). FUZZ_SEED leads elsewhere.
FUZZ_SECONDS ?= 40
FUZZ_SEED ?= 1
fuzz: $(VENV)/dev.stamp
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

# The manual as a site, in build/site/index.html. Whatever is doubtful about a page ends it.
docs: $(VENV)/dev.stamp
	rm -rf build/site
	$(BIN)/python -m sphinx -c docs -W --keep-going -n -q -E -d build/doctrees . build/site
	PYTHONPATH=tools $(BIN)/python -m manual.site build/site

# The parts of the manual that are made from the program: the pages on commands, the machine's table and drawing,
# the layers of imports, the first columns of the tables of keys and error codes.
generate: $(VENV)/dev.stamp
	PYTHONPATH=.:tools $(BIN)/python -m manual

# What a turn and a chunk cost; rewrites the table in docs/performance.md.
bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks

# The server in front of other people's servers and behind their agents; needs npm and the network.
INTEROP ?=
interop: $(VENV)/dev.stamp
	PYTHONPATH=tests:tools $(BIN)/python -m interop $(INTEROP)

# Pin every dependency anew, with hashes.
COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock: $(VENV)/dev.stamp
	$(COMPILE) --upgrade -o requirements/runtime.lock pyproject.toml requirements/build.in
	$(COMPILE) --upgrade -o requirements/dev.lock requirements/dev.in

# Debian ships Python without the part that makes virtual environments.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -qq -y python3-venv; \
		else \
			echo "Python cannot make virtual environments here. On Debian: sudo apt-get install python3-venv" >&2; \
			exit 1; \
		fi; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime.stamp: $(VENV)/bin/python requirements/runtime.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/runtime.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/runtime.stamp requirements/dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.lock
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache
