# Everything a fresh Debian 12 or 13 needs is root, python3, git and make: the rest is installed by these targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONPATH := $(CURDIR)/services/src:$(CURDIR)/roles/common/files
# Its own folder is named after the last part of the path only: two checkouts would share it.
export MOLECULE_EPHEMERAL_DIRECTORY := $(CURDIR)/.cache/molecule
READY := $(VENV)/.ready

.PHONY: help demo demo-legacy demo-stop test test-all test-unit lint unit integration faults-short faults alerts molecule requirements build wheel sanity clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): requirements/dev.lock
	@$(PYTHON) tools/bootstrap.py $(VENV) requirements/dev.lock
	@touch $@

demo: targets-ready $(READY) ## Boot a Debian host, deploy the stack, let messages flow and show what runs
	@$(VENV)/bin/python -m tools.demo up

demo-legacy: targets-ready node-ready $(READY) ## Boot a Debian host with the legacy system, messages flowing, to rehearse a migration on
	@$(VENV)/bin/python -m tools.demo legacy

demo-stop: ## Remove everything that `make demo` and `make demo-legacy` made
	@$(PYTHON) -m tools.demo down

.PHONY: targets-ready
targets-ready: # needs no virtual environment: a machine that cannot is told so before one is made
	@$(PYTHON) -m tools.targets check >/dev/null 2>&1 || \
		{ $(PYTHON) -m tools.targets install && $(PYTHON) -m tools.targets check >/dev/null; }

test: test-unit docs sanity integration faults-short molecule molecule-migrate ## Lint, unit tests, the documents, integration tests, a deployment and a migration (what CI runs)

test-unit: $(READY) promtools-ready ## Lint, types and unit tests, no server needed
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint unit

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy
	yamllint --strict .
	ansible-lint --offline
	antsibull-changelog lint

# What tries the rules of the monitoring; neither starts.
PROMTOOLS := prometheus prometheus-alertmanager
.PHONY: promtools-ready
promtools-ready:
	@dpkg -s $(PROMTOOLS) >/dev/null 2>&1 || { echo "Installing $(PROMTOOLS)"; \
		apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
		apt-get install -yqq --no-install-recommends $(PROMTOOLS) >/dev/null; }

unit: $(READY) promtools-ready
	pytest -q -rs tests/unit

# Real servers for the integration tests, which start and stop their own on ports and folders of their own.
EXPORTERS := prometheus prometheus-node-exporter prometheus-redis-exporter prometheus-postgres-exporter
CONTAINERS := podman runc busybox-static
NETWORK := haproxy nftables iproute2 openssl curl
SERVERS := $(NETWORK) postgresql pgbouncer redis-server redis-sentinel rabbitmq-server pgbackrest restic $(EXPORTERS) $(CONTAINERS)
.PHONY: servers-ready node-ready
servers-ready: node-ready
	@dpkg -s $(SERVERS) >/dev/null 2>&1 || { echo "Installing $(SERVERS)"; \
		apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
		apt-get install -yqq --no-install-recommends $(SERVERS) >/dev/null; }

# TimescaleDB's community edition exists here as an npm package only; GramJS writes the legacy gateway's session.
node-ready:
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "Installing nodejs, npm"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -yqq --no-install-recommends nodejs npm >/dev/null; }

# What the console is tried in.
.PHONY: browser-ready
browser-ready:
	@dpkg -s chromium fonts-dejavu-core >/dev/null 2>&1 || { echo "Installing chromium"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -yqq --no-install-recommends chromium fonts-dejavu-core >/dev/null; }

integration: $(READY) targets-ready servers-ready promtools-ready browser-ready
	pytest -q -rs --numprocesses 2 --dist loadfile tests/integration

.PHONY: pictures
pictures: $(READY) servers-ready browser-ready ## Take the pictures of the console in docs/images anew
	TELEGRAM_STACK_PICTURES=docs/images pytest -q -rs tests/integration/test_console.py

faults-short: $(READY) servers-ready
	pytest -q -rs tests/faults

faults: $(READY) servers-ready ## Break each component many times under load, FAULTS="gateway:kill …" or all; goes on where it ended
	$(VENV)/bin/python -m tests.faults $(FAULTS)

alerts: targets-ready $(READY) ## Make every alert fire by a real fault on a host, ALERTS="disk lock …" or all; goes on where it ended
	$(VENV)/bin/python -m tests.alerts $(ALERTS)

.PHONY: bundle bundle-test
BUNDLE ?= 12 13
bundle: $(READY) ## Make all that a deployment installs, for hosts without a network, dist/telegram-stack-bundle-….tar, BUNDLE="12 13"
	@for debian in $(BUNDLE); do $(VENV)/bin/python roles/common/files/bundle.py make --debian $$debian $(BUNDLE_OPTIONS) || exit; done

bundle-test: $(READY) targets-ready ## Deploy from the bundle to a host whose way to the outside is cut (a quarter of an hour)
	$(VENV)/bin/python -m tests.offline

.PHONY: benchmark benchmark-api benchmark-migration benchmark-database
benchmark: targets-ready $(READY) servers-ready ## Measure the pipeline against the legacy path on the demo's host (three quarters of an hour)
	@$(VENV)/bin/python -m benchmarks.pipeline

benchmark-api: $(READY) servers-ready ## Measure the API against the legacy one (about ten minutes)
	@$(VENV)/bin/python -m benchmarks.api

benchmark-migration: targets-ready $(READY) ## Move a legacy system of 300,000 messages between two hosts, and back (three quarters of an hour)
	@$(VENV)/bin/python -m benchmarks.migration

benchmark-database: $(READY) servers-ready ## Measure the database against the legacy schema (about ten minutes)
	@$(VENV)/bin/python -m benchmarks.database

# Found without being named only where there is a .git, which an archive of the repository lacks.
MOLECULE := molecule --base-config .config/molecule/config.yml
molecule: $(READY) targets-ready
	$(MOLECULE) test --scenario-name default $(if $(TELEGRAM_STACK_LONG),,--platform-name mol-debian13)

.PHONY: molecule-migrate
molecule-migrate: $(READY) targets-ready ## Move a legacy system to the stack, back and again, sabotaged and killed, on a host of its own under load
	$(MOLECULE) test --scenario-name migrate

.PHONY: molecule-multi
molecule-multi: $(READY) targets-ready ## Deploy one stack to three hosts, try to get in, and cut each host's cable under load (not in `make test`)
	$(MOLECULE) test --scenario-name multi

.PHONY: molecule-lifecycle
molecule-lifecycle: $(READY) targets-ready ## Upgrade two hosts' stack under load, and back; remove it and bring it back from a backup (not in `make test`)
	$(MOLECULE) test --scenario-name lifecycle

test-all: export TELEGRAM_STACK_WRITERS_SECONDS = 60
test-all: export TELEGRAM_STACK_LONG = 1
test-all: test molecule-lifecycle molecule-multi bundle-test ## The long form: also an upgrade, several hosts, a migration killed at two dozen points, and a deployment offline

# What draws the diagrams of the documents.
DRAWERS := plantuml graphviz fonts-dejavu-core
.PHONY: docs docs-ready
docs-ready:
	@dpkg -s $(DRAWERS) >/dev/null 2>&1 || { echo "Installing $(DRAWERS)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -yqq --no-install-recommends $(DRAWERS) >/dev/null; }

docs: $(READY) docs-ready ## Build the documents as a site, dist/docs/index.html; a broken link or a warning is an error
	@$(VENV)/bin/python -m tools.docs

requirements: $(READY) ## List the numbered requirements that no test names
	@$(VENV)/bin/python -m tools.requirements

COMPILE = uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: lock
lock: $(READY) ## Lock the newest allowed versions of everything that is installed, with hashes
	$(COMPILE) services/pyproject.toml -o services/requirements.lock
	$(COMPILE) services/build.in -o services/build.lock
	$(COMPILE) requirements/dev.in services/pyproject.toml -c services/requirements.lock -o requirements/dev.lock
	$(COMPILE) requirements/ansible-2.18.in -o requirements/ansible-2.18.lock

wheel: $(READY) ## Build the services' wheel that the collection carries
	$(VENV)/bin/python roles/common/files/wheelhouse.py wheel

build: wheel ## Build the collection's package
	ansible-galaxy collection build --force --output-path dist

AUDIT = pip-audit --strict --disable-pip --require-hashes --progress-spinner off --requirement
LOCKS := services/requirements.lock services/build.lock requirements/dev.lock requirements/ansible-2.18.lock
.PHONY: audit sbom
audit: $(READY) ## Look up what is locked among known vulnerabilities; what cannot be looked up is an error too
	@failed=; for lock in $(LOCKS); do echo "$$lock"; $(AUDIT) $$lock || failed="$$failed $$lock"; done; \
		[ -z "$$failed" ] || { echo "Known vulnerabilities, or a package that could not be looked up, as said above, in$$failed:" \
		"docs/security.md#known-vulnerabilities says what to do." >&2; exit 1; }

sbom: $(READY) ## Write what the services consist of, and what is known against it, as CycloneDX: dist/sbom.json
	@mkdir -p dist && $(AUDIT) services/requirements.lock --format cyclonedx-json --output dist/sbom.json

.PHONY: changelog
changelog: $(READY) ## Take the fragments of changelogs/fragments into CHANGELOG.md, below the version of galaxy.yml
	antsibull-changelog release --update-existing --use-ansible-doc

sanity: build ## Run ansible-test sanity on the built package
	$(VENV)/bin/python -m tools.sanity dist/tradingsystem-telegram_stack-*.tar.gz

clean: ## Remove what was built here (not the caches in your cache folder)
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache
