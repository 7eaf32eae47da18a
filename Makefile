PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# What the tests run: make test T=tests/unit, or T="-k merge".
T ?=
# What the demo shows: make demo DATA=file.
DATA ?=

.DEFAULT_GOAL := help
.PHONY: help setup gen demo up down test check fmt bench

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) gen ## Make .venv from requirements.lock and generate the protos

demo: gen ## Start everything, send it a world, show what became of it
	$(BIN)/python -m deploy.demo $(if $(DATA),--data $(DATA))

up: gen ## Start PostgreSQL, NATS, the services and the gateway on this machine
	$(BIN)/python -m deploy.up

down: gen ## Stop what make up started
	$(BIN)/python -m deploy.down

test: gen ## Run every tier but bench, against real PostgreSQL and NATS
	$(BIN)/pytest $(T)

check: gen ## Lint, types, boundaries, protos and the unit tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format protos --diff --exit-code
	! git rev-parse --quiet --verify main:buf.yaml >/dev/null || \
	  $(BIN)/buf breaking --against "$$(git rev-parse --git-common-dir)#branch=main"
	$(BIN)/pytest tests/unit

fmt: gen ## Format Python and protos
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/buf format protos --write

bench: gen ## Measure; numbers go to bench/results
	$(BIN)/python -m tests.bench

gen: $(READY) ## Generate Python from the protos into protos/gen
	@$(BIN)/python protos/generate.py

$(READY): requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	INSTALL="$(BIN)/python -m pip install"; \
	! command -v uv >/dev/null || INSTALL="uv pip install --python $(BIN)/python"; \
	$$INSTALL --quiet --require-hashes -r requirements.lock && \
	$$INSTALL --quiet --no-deps --no-build-isolation -e .
	@touch $@
