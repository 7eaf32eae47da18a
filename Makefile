PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

setup: $(READY) gen ## Make .venv from requirements.lock and generate the protos

$(READY): requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	if command -v uv >/dev/null; then \
	  uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	  $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .; \
	fi
	touch $@

gen: $(READY) ## Generate Python from the protos into protos/gen
	$(BIN)/python protos/generate.py
