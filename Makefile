PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CLIENTS := tests/e2e/clients

# What is compiled is kept: a platform is many processes, and tests start it over and over.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup gen demo up down operate import import-deals export-deals test check fmt bench lock

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) gen ## Make .venv from requirements.lock and generate the protos

demo: gen ## Start everything, send it a world, show what became of it
	$(BIN)/python -m deploy.demo $(if $(DATA),--data '$(DATA)')

up: gen ## Start PostgreSQL, NATS, the services and the gateway on this machine
	$(BIN)/python -m deploy.up

down: gen ## Stop what make up started
	$(BIN)/python -m deploy.down

operate: gen ## Operate a service of make up: make operate S=identity DO="rebuild profiles"
	@$(BIN)/python -m deploy.operate $(S) $(DO)

import: gen ## Import a file into the platform of make up: make import FILE=orders.csv CHECK=1
	@$(BIN)/python -m deploy.importing $(if $(FILE),--file '$(FILE)') $(if $(MAPPING),--mapping '$(MAPPING)') \
	  $(if $(SOURCE),--source '$(SOURCE)') $(if $(CHECK),--check-only) $(if $(UNDO),--undo '$(UNDO)')

import-deals: gen ## Import deals with their histories: make import-deals FILE=deals.csv CHECK=1
	@$(BIN)/python -m deploy.import_deals $(if $(FILE),--file '$(FILE)') $(if $(CHECK),--check-only) \
	  $(if $(CURRENCY),--currency '$(CURRENCY)') $(if $(DATES),--dates '$(DATES)')

export-deals: gen ## Export deals, or all that happened to them: make export-deals FILE=deals.csv CHANGES=1
	@$(BIN)/python -m deploy.export_deals $(if $(FILE),--file '$(FILE)') $(if $(CHANGES),--changes) \
	  $(if $(AT),--at '$(AT)') $(if $(FILTER),--filter '$(FILTER)')

test: gen $(CLIENTS)/node_modules/.ready ## Run every tier but bench, against real PostgreSQL and NATS
	$(BIN)/pytest -n auto $(T)

check: gen ## Lint, types, boundaries, protos and the unit tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format protos --diff --exit-code
	! git rev-parse --quiet --verify main:protos/rapport >/dev/null || \
	  $(BIN)/buf breaking --against "$$(git rev-parse --git-common-dir)#branch=main"
	$(BIN)/pytest tests/unit

fmt: gen ## Format Python and protos
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/buf format protos --write

bench: gen ## Measure beside the bare resource and another library: make bench B=--quick
	$(BIN)/python -m tests.bench $(B)

gen: $(READY) ## Generate Python from the protos into protos/gen
	@$(BIN)/python protos/generate.py

lock: ## Resolve pyproject.toml again (needs uv) into requirements.lock, hashes only
	uv lock --quiet $(if $(UPGRADE),--upgrade)
	uv export --quiet --frozen --no-emit-project --no-header --no-annotate -o requirements.lock

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PYTHON must be 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	INSTALL="$(BIN)/python -m pip --disable-pip-version-check install"; \
	! command -v uv >/dev/null || INSTALL="uv pip install --python $(BIN)/python"; \
	$$INSTALL --quiet --require-hashes -r requirements.lock && \
	$$INSTALL --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Trackers in JavaScript, for one tier of tests: without them the others run all the same.
$(CLIENTS)/node_modules/.ready: $(CLIENTS)/package-lock.json $(READY)
	-@$(BIN)/python $(CLIENTS)/install.py && touch $@
