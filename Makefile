# Countinghouse: every way to start it. `make` alone lists them.
SHELL := /bin/sh
PYTHON_IN_VENV := .venv/bin/python
.DEFAULT_GOAL := help
CHECKS := check-lint check-format check-types check-imports check-templates check-migrations check-openapi check-settings
.PHONY: help setup run stop test test-full check format bench bench-large environment environment-dev $(CHECKS)

help: ## List the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: environment ## Make .venv with what the application needs
	@echo "Ready: make run, or .venv/bin/python manage.py COMMAND"

run: environment ## Start everything: services, web, worker, beat, demonstration (PORT=8000 DEMO=fast)
	@exec $(PYTHON_IN_VENV) -m config.supervisor run

stop: ## Stop whatever runs in this folder
	@if [ -x $(PYTHON_IN_VENV) ]; then exec $(PYTHON_IN_VENV) -m config.supervisor stop; else echo "Nothing runs here."; fi

test: environment-dev ## Run the tests (ARGS="tests/ledger -k transfer")
	@$(PYTHON_IN_VENV) -m pytest -n 2 --dist worksteal -q $(ARGS)

test-full: environment-dev ## With large tables and twenty times the examples of properties
	@COUNTINGHOUSE_TEST_FULL=1 $(PYTHON_IN_VENV) -m pytest -n 2 --dist worksteal -q $(ARGS)

check: environment-dev $(CHECKS) ## Lint, types, import contracts and drift of generated files
	@echo "All checks passed."

format: environment-dev ## Format code and templates
	@.venv/bin/ruff format --quiet . && .venv/bin/ruff check --quiet --fix .
	@find templates apps -name '*.html' | xargs .venv/bin/djade

bench: environment-dev ## Run the benchmarks
	@$(PYTHON_IN_VENV) -m bench

bench-large: environment-dev ## Ingestion on tables of 1 and 10 million events (15 GB of disk)
	@$(PYTHON_IN_VENV) -m bench --stored 1000000
	@$(PYTHON_IN_VENV) -m bench --stored 10000000

check-lint:
	@.venv/bin/ruff check --quiet .
check-format:
	@.venv/bin/ruff format --quiet --check .
check-types:
	@.venv/bin/mypy --no-error-summary
check-imports:
	@.venv/bin/lint-imports --no-cache >/dev/null || .venv/bin/lint-imports --no-cache
check-templates:
	@find templates apps -name '*.html' | xargs .venv/bin/djade --check
check-migrations:
	@$(PYTHON_IN_VENV) -W "ignore:Got an error checking" manage.py makemigrations --check --dry-run --verbosity 1
check-openapi:
	@$(PYTHON_IN_VENV) manage.py spectacular --validate --fail-on-warn | diff openapi.yaml - \
	  || { echo "openapi.yaml has drifted: .venv/bin/python manage.py spectacular --file openapi.yaml"; exit 1; }
check-settings:
	@$(PYTHON_IN_VENV) manage.py settings_reference | diff docs/settings.md - \
	  || { echo "docs/settings.md has drifted: .venv/bin/python manage.py settings_reference > docs/settings.md"; exit 1; }

environment:
	@requirements/install.sh base
environment-dev:
	@requirements/install.sh dev
