# One door to everything; `make help` lists it. Needs make and a python3 >= 3.11; the rest is fetched.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
SRC := src tests benchmarks
JOBS ?= 2
SOAK_S ?= 1800
ROUNDS ?= 1000
# What the image of a container sets for its own logs: each start of Python would compile all modules again, and
# print in pieces.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED
# An environment holds absolute paths: one that was made elsewhere is made anew.
ifneq ($(shell cat .venv/made-in 2>/dev/null),$(shell pwd -P))
STALE := always
endif

.PHONY: help venv dev packages test lint fmt test-user soak bench demo lock lock-check clean always

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

.venv/run.done: requirements.txt pyproject.toml $(STALE)
	@scripts/environment.sh run

.venv/dev.done: requirements-dev.txt requirements.txt pyproject.toml $(STALE)
	@scripts/environment.sh dev

always: ;

venv: .venv/run.done ## .venv with the `instep` command in it

dev: .venv/dev.done ## the same with all development tools

packages: ## system packages that the tests drive (root on Debian; elsewhere only says what is missing)
	@scripts/system-packages.sh

lint: dev ## style, types, imports
	$(BIN)/ruff check $(SRC)
	$(BIN)/ruff format --check $(SRC)
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache

test: dev packages lint ## everything a change must pass; ends with pytest's summary
	$(BIN)/pytest -n $(JOBS) --randomly-seed=1

test-user: dev ## the tests that need no root, as an unprivileged user
	@scripts/test-user.sh

soak: dev packages ## 30 minutes of writers (SOAK_S=1800): nothing grows; then 1,000 random rounds (ROUNDS), all faults
	$(BIN)/python -m tests.system.soak $(SOAK_S)
	INSTEP_ROUNDS=$(ROUNDS) INSTEP_CRASH_POINTS=all INSTEP_SIZES=full \
		$(BIN)/pytest -n $(JOBS) tests/system/test_random.py tests/system/test_faults_*.py
	INSTEP_SIZES=full $(BIN)/pytest -n $(JOBS) -m slow --deselect tests/system/test_random.py

fmt: dev ## format, and mend what can be mended by itself
	$(BIN)/ruff check --fix-only $(SRC)
	$(BIN)/ruff format $(SRC)

# Apart, for one row only: what a plain far side has not is not in the environment either.
.venv/far.done: requirements-far.txt .venv/dev.done
	@rm -rf .venv/far
	@$(BIN)/python -m pip -q --disable-pip-version-check install --require-hashes --target .venv/far -r $< && touch $@

bench: dev packages ## side by side with clsync, lsyncd, rsync, cp (ROWS="latency burst" ARGS=--quick)
	@$(MAKE) -s .venv/far.done || echo "bench: without the row for xxhash on both sides" >&2
	@$(BIN)/python -m benchmarks $(ROWS) $(ARGS)

demo: venv ## a small tree, changed live: see each change arrive
	@$(BIN)/python -m benchmarks.demo

lock: ## new versions into uv.lock and the requirements files made from it (needs uv)
	uv lock --upgrade
	scripts/export-requirements.sh

lock-check: ## uv.lock and the requirements files say the same as pyproject.toml (needs uv)
	uv lock --check
	scripts/export-requirements.sh --check

clean: ## everything that was made here
	rm -rf .venv .cache dist build .hypothesis .import_linter_cache
	find $(SRC) -name __pycache__ -type d -prune -exec rm -rf {} +
