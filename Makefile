# Everything a person or CI does with this repository. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BOOTSTRAP := $(PYTHON) platform/devstack/bootstrap.py $(VENV)
export PYTHONPATH := $(CURDIR)/platform:$(CURDIR)
# Settings refuse to start without these; checks that open no connection take any value.
OFFLINE := DATABASE_URL=postgresql://nobody@127.0.0.1:1/none REDIS_URL=redis://127.0.0.1:1/0 \
	DJANGO_SETTINGS_MODULE=pilothouse.settings
# The length and variety that `check --deploy` asks of a production key.
SAMPLE_KEY := PILOTHOUSE_SECRET_KEY=only-for-checks-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJ

.DEFAULT_GOAL := help
.PHONY: help run reset services test test-unit lint format lock bench contract install install-dev

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

install:
	@$(BOOTSTRAP) requirements.txt

install-dev:
	@$(BOOTSTRAP) requirements-dev.txt

run: install ## the whole platform on this machine; PORT picks the port
	@exec $(VENV)/bin/python -m devstack run --with-parent

reset: install ## remove the data of `make run`
	@exec $(VENV)/bin/python -m devstack reset

services: install ## PostgreSQL and Valkey alone, for running single tests fast
	@exec $(VENV)/bin/python -m devstack services

test: install-dev ## all tests, with all they need
	@$(VENV)/bin/python -m tests.support.provision
	@exec $(VENV)/bin/python -m tests.support.run

test-unit: install-dev ## tests that start no cluster and no browser
	@exec $(VENV)/bin/python -m pytest tests/unit tests/app

contract: install-dev ## the embedded cluster against recordings of a real one
	@exec $(VENV)/bin/python -m pytest tests/contract

# makemigrations warns that it cannot ask the database what is applied; the files are what is checked.
lint: install-dev ## style, types, import rules, migrations, production settings
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(OFFLINE) $(SAMPLE_KEY) $(VENV)/bin/mypy
	$(OFFLINE) $(SAMPLE_KEY) $(VENV)/bin/lint-imports --no-cache
	$(OFFLINE) $(SAMPLE_KEY) $(VENV)/bin/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	$(OFFLINE) $(SAMPLE_KEY) $(VENV)/bin/python manage.py check --deploy --fail-level WARNING

format: install-dev ## put the code into its form
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: install-dev ## measurements, printed as ratios
	@exec $(VENV)/bin/python -m benchmarks

lock: install ## write requirements.txt and requirements-dev.txt anew
	$(VENV)/bin/uv pip compile -q --python-version 3.11 --universal --generate-hashes \
		--no-emit-index-url --no-header requirements.in -o requirements.txt
	$(VENV)/bin/uv pip compile -q --python-version 3.11 --universal --generate-hashes \
		--no-emit-index-url --no-header requirements-dev.in -o requirements-dev.txt
