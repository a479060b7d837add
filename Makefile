# SPDX-License-Identifier: Apache-2.0
# Needs make, git and Python 3.11 or newer; every target makes what else it needs. `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
# What the environment is made of: `make lock` renews it, everything else only reads it.
LOCK := constraints-dev.txt
# The Airflow of the development environment.
AIRFLOW := 3.3.2
# An empty file, as new as the environment: it is made again when pyproject.toml or the lock file changes.
STAMP := $(VENV)/.stamp

install = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraints $(LOCK) --group $(1) || $(BIN)/python -m pip install --quiet --constraint $(LOCK) --group $(1)

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-cluster test test-lowest test-fast test-slow test-cluster test-matrix test-upgrade test-newest lock cluster-venv bench chaos chaos-airflow fuzz soak docs lint clean

help: ## show this
	@echo 'make demo   run the example DAGs on a real Airflow against the simulator, and show how each task waited'
	@echo '            KEEP=1            leave Airflow and the simulator up until Ctrl-C'
	@echo '            DIALECT=observed  the services as they really answer, not as they are documented'
	@echo 'make demo-cluster   the same on PostgreSQL, Redis, two Celery workers and two triggerers, then 2,000 waits at a time'
	@echo '            (ARGS="--waits N"); ARGS=--failover kills and restarts parts under 1,000 waits instead'
	@echo 'make test   run all tests, in five processes, those on a real Airflow too (5 minutes)'
	@echo '            (ARGS="tests/waiting -k poll" runs some, ARGS="-n 0 --pdb" in one process)'
	@echo 'make test-fast  run all tests that need no Airflow'
	@echo 'make test-slow  kill tasks on a real Airflow whose server a document blocks for 6 or 25 seconds (4 minutes)'
	@echo 'make test-cluster   run the tests on PostgreSQL, Redis and Celery, which make test skips where Celery is not installed'
	@echo 'make test-lowest  run the transport and the protocols on the lowest versions that are allowed (2 minutes)'
	@echo 'make test-newest  run the same on the newest version of everything, if that differs from $(LOCK) (3 minutes)'
	@echo 'make lock   renew $(LOCK), the versions of all that development installs'
	@echo 'make test-matrix   build the package, install it into clean Airflows from 3.1 to the newest pre-release, on three'
	@echo '            Pythons, and run the tests there (2 hours; ARGS="--airflow 3.1.8 --part sensors" runs less)'
	@echo 'make test-upgrade  defer tasks on Airflow 3.3.2, and end them on the newest with the same database (5 minutes)'
	@echo 'make bench  measure the waiting beside its peers and its floor (10 minutes; ARGS=--quick is shorter)'
	@echo 'make chaos  break things on purpose: 100,000 waits through random faults, in virtual time'
	@echo '            ARGS="--seed N --waits N" plays a run again'
	@echo 'make chaos-airflow  take a real Airflow apart under 200 waits (5 minutes), and look for credentials in all it wrote'
	@echo 'make fuzz   give bad input to everything that reads some (ARGS="--inputs N")'
	@echo 'make soak   5,000 waits that come and go for an hour; the plot is docs/soak.svg (ARGS="--minutes N")'
	@echo 'make docs   build the documentation into build/docs and check its links (LINKS=all: other sites too)'
	@echo 'make lint   check style, types, and the language of documentation and messages'
	@echo 'make venv   only make the environment that the others need'
	@echo 'make clean  remove the environment and everything else that these targets made'
	@echo
	@echo 'PYTHON=/path/to/python3.11 chooses the interpreter.'

venv: $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -m tools.demo $(if $(filter-out 0 no false,$(KEEP)),--keep) $(if $(DIALECT),--dialect $(DIALECT))

demo-cluster: cluster-venv
	@$(BIN)/python -m tools.cluster $(ARGS)

# tests/system has two Airflows, each in one of the processes (tests/airflows.py).
# The supervisor ends all that the run has started, however it ends.
PYTEST := $(BIN)/python -m tools.supervise $(BIN)/python -m pytest -n 5 --dist loadgroup

test: $(STAMP)
	$(PYTEST) $(ARGS)

test-fast: $(STAMP)
	$(PYTEST) -m 'not airflow' $(ARGS)

test-slow: $(STAMP)
	$(BIN)/python -m tools.kills $(ARGS)

test-cluster: cluster-venv
	$(BIN)/python -m tools.supervise $(BIN)/python -m pytest tests/system/test_cluster.py $(ARGS)

cluster-venv: $(STAMP)
	@$(call install,cluster)

test-lowest: $(STAMP)
	@tools/lowest.sh build/lowest $(ARGS)

test-newest: $(STAMP)
	@tools/newest.sh build/newest $(ARGS)

lock: $(STAMP)
	echo 'apache-airflow==$(AIRFLOW)' | $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-emit-index-url --no-annotate --no-header --constraints - --all-extras \
		--group dev --group bench --group cluster --group docs pyproject.toml --output-file $(LOCK)

test-matrix: $(STAMP)
	@$(BIN)/python -m tools.matrix $(ARGS)

test-upgrade: $(STAMP)
	@$(BIN)/python -m tools.upgrade $(ARGS)

bench: $(STAMP)
	@$(call install,bench)
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(STAMP)
	@$(BIN)/python -m chaos $(ARGS)

chaos-airflow: $(STAMP)
	@$(BIN)/python -m chaos.airflow $(ARGS)

fuzz: $(STAMP)
	@$(BIN)/python -m chaos.fuzz $(ARGS)

soak: $(STAMP)
	@MALLOC_MMAP_THRESHOLD_=131072 $(BIN)/python -m chaos.soak $(ARGS)

docs: $(STAMP)
	@$(call install,docs)
	@rm -rf build/docs
	$(BIN)/python -m sphinx -q -n -W --keep-going -d build/doctrees docs build/docs
	$(BIN)/python -m tools.links build/docs $(if $(filter all,$(LINKS)),--external)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m tools.prose

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml $(LOCK) tools/venv.sh
	@PYTHON='$(PYTHON)' tools/venv.sh $(VENV)
	@touch $@
