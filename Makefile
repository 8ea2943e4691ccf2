# Two doors: `make demo` and `make test`.  Everything they need they get by themselves.
#
#   make demo  [DATASTORE="NAME NAME"|all] [JSON=FILE]      set-up, then the main job on real servers
#              NAME: mariadb redis mongodb cassandra; without it the first two
#   make test  [STEPS="unit live"] [JSON=FILE]               set-up, then everything that is checked
#   make soak                                                the same suites with ten times the counts
#   make bench [BENCH="run mongodb medusa"] [SIZE=1000] [ROUNDS=1] [JSON=FILE]   side by side with other pipelines
#              run (the default) is MariaDB, medusa Cassandra; SIZE in MB; each after run writes FILE.NAME
#   make servers | venv | config | table | clean             the pieces

PYTHON ?= /usr/bin/python3
DATASTORE ?= mariadb redis
STEPS ?=
BENCH ?= run
SIZE ?= 1000
ROUNDS ?= 1
JSON ?=
RECORD = $(if $(JSON),--json '$(JSON)')
RUN = .venv/bin/python

.PHONY: demo test soak bench servers venv config table clean
.DEFAULT_GOAL := demo

venv:
	@$(PYTHON) tools/environment test

servers:
	@$(PYTHON) tools/servers

demo:
	@$(PYTHON) tools/environment demo
	@prefix=$$($(PYTHON) tools/servers $(if $(filter all,$(DATASTORE)),--for demo,$(DATASTORE))) && \
	  exec $(RUN) tools/demo.py --prefix "$$prefix" $(RECORD) $(filter-out all,$(DATASTORE))

test: venv
	@prefix=$$($(PYTHON) tools/servers) && export OSTLER_TEST_PREFIX="$$prefix" && \
	  exec $(RUN) tools/suite.py $(RECORD) $(STEPS)

soak: export OSTLER_COUNT = 10
soak: test

bench: $(addprefix bench-,$(BENCH))

bench-%: venv
	@prefix=$$($(PYTHON) tools/servers --for bench) && \
	  exec $(RUN) bench/$*.py --prefix "$$prefix" --size $(SIZE) $(if $(filter medusa,$*),,--rounds $(ROUNDS)) \
	    $(if $(JSON),--json '$(JSON)$(if $(filter run,$*),,.$*)')

config: venv
	@.venv/bin/oslo-config-generator --config-file etc/config-generator.conf

table: venv
	@$(RUN) tools/table.py

clean:
	rm -rf .venv .servers .tox build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
