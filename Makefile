# Sets up .venv and runs the chain or the tests; everything else is the soundstorm command itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv does not read pip's settings: where those name a folder of wheels, such as one with a CPU build of torch, hand it on.
WHEELS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
ifneq ($(WHEELS),)
export UV_FIND_LINKS := $(WHEELS)
endif

.PHONY: setup demo demo-fit test check lock

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[lyra]' --group dev
	@touch $@

demo: setup
	$(BIN)/python -m pipeline.demo $(if $(SOURCE),--source '$(SOURCE)') $(if $(VOICE),--voice '$(VOICE)')

demo-fit: setup
	$(BIN)/python -m pipeline.demo --fit

test: setup
	$(BIN)/python -m pytest -q

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check

# Renew constraints.txt. The wheel folder stays out of it, or the versions would be those of one machine.
lock: setup
	{ echo "# Versions that the tests run with; renewed by: make lock"; \
	  echo 'torch==2.13.0' | env -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet pyproject.toml --all-extras --group dev \
	  --universal --python-version 3.11 --no-annotate --no-header --constraint -; } > constraints.tmp
	mv constraints.tmp constraints.txt
