# PYTHON=python3.12 chooses the interpreter, VENV=.venv.312 the folder it is installed into, PORT=8001 the port;
# ARGS='-k roster' is handed on to pytest or to the benchmarks.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
ARGS ?=

PY = $(VENV)/bin/python
DEMO = instance/demo

# What is installed into $(VENV). A stamp is made last: an installation that was interrupted has left none, and the
# folder is made anew, as it is where its pip does not work.
SERVER = $(VENV)/.installed-server
ALL = $(VENV)/.installed-all
INTACT = $(shell ls $(VENV)/.installed-* >/dev/null 2>&1 && $(PY) -c 'import pip' 2>/dev/null && echo yes)
INPUTS = pyproject.toml constraints.txt $(wildcard portal/locale/*/LC_MESSAGES/portal.po) $(if $(INTACT),,venv)

# Nothing here may reach a real portal's database.
unexport PORTAL_SQLALCHEMY_DATABASE_URI PORTAL_INSTANCE PYTHONHOME PYTHONPATH

# Without it each process that a test starts compiles the portal anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-all nightly faults check bench screenshots translations clean venv
.DELETE_ON_ERROR:

help:
	@echo 'make run          a demo of its own at http://127.0.0.1:$(PORT)/ (in $(DEMO)/)'
	@echo 'make test         the tests, without the slow ones: two minutes on two cores'
	@echo 'make test-all     all tests'
	@echo 'make nightly      what takes hours: many more examples and kill points, the benchmarks'
	@echo 'make faults       planted faults, each of which a test must notice'
	@echo 'make check        lint, format, types, dependencies'
	@echo 'make bench        the benchmarks'
	@echo 'make screenshots  the pictures of the documentation'
	@echo 'make translations  texts that are new, into the catalogues of all languages'
	@echo 'make clean        away with $(VENV), caches and the demo'

run: export PORTAL_INSTANCE = $(DEMO)
run: export PORTAL_BASE_URL = http://127.0.0.1:$(PORT)
run: $(SERVER)
	$(if $(port_refusal),$(error cannot serve on 127.0.0.1:$(PORT) ($(port_refusal)): choose another port, make run PORT=8001))
	@$(PY) -m flask --app portal db upgrade
	@$(PY) -m flask --app portal demo
	@echo 'Serving http://127.0.0.1:$(PORT)/ until Ctrl-C.'
	@$(carry_out_requests) & \
	exec $(PY) -m gunicorn --bind 127.0.0.1:$(PORT) --threads 8 --no-control-socket --log-level warning wsgi:app

# What cron does for a real portal: superusers see what it did on their pages. It ends with the server, whose process the
# shell becomes.
define carry_out_requests
while sleep 5 && kill -0 $$$$; do \
	    $(PY) -m flask --app portal minutely; \
	done < /dev/null > /dev/null 2>&1
endef

# One worker a core; ARGS=-n0 for none. In CI a test that is skipped has failed. COVERAGE='coverage run -m' measures.
PYTEST = $(PY) -m $(COVERAGE) pytest -n auto --dist worksteal $(if $(CI),-p tests.no_skips)

test: $(ALL)
	@$(PYTEST) -m 'not slow' $(ARGS)

test-all: $(ALL)
	@$(PYTEST) $(ARGS)

# On SQLite, and on the database that PORTAL_TEST_DATABASE_URI names.
NIGHTLY = $(PYTEST) --hypothesis-profile=nightly -m slow $(ARGS)

nightly: $(ALL)
	@env -u PORTAL_TEST_DATABASE_URI $(NIGHTLY)
	@$(if $(PORTAL_TEST_DATABASE_URI),$(NIGHTLY) tests/services)
	@$(PY) bench/run.py
	@$(PY) tests/faults/plant.py

faults: $(ALL)
	@$(PY) tests/faults/plant.py $(ARGS)

check: $(ALL)
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy
	@$(PY) -m deptry .

bench: $(ALL)
	@$(PY) bench/run.py $(ARGS)

translations: $(ALL)
	@$(PY) translations.py

screenshots: $(ALL)
	@$(PY) docs/screenshots.py $(ARGS)

clean:
	rm -rf $(VENV) $(DEMO) build dist htmlcov .coverage .coverage.* .hypothesis
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find . -path ./.git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(SERVER): EXTRAS = server
$(ALL): EXTRAS = server,postgresql,test,e2e,lint
$(SERVER) $(ALL): $(INPUTS)
	@rm -f $(VENV)/.installed-*
	@echo 'Installing the portal [$(EXTRAS)] into $(VENV) …'
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@$(PY) -m compileall -q portal
	@touch $(SERVER) $@

venv:
	$(if $(unfit),$(error $(unfit)))
	@echo 'Making $(VENV) with $(shell $(PYTHON) --version) …'
	@$(PYTHON) -m venv --clear $(VENV)

# Why $(PYTHON) will not do; empty where it will.
unfit = $(shell \
	version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || { \
	    echo '$(PYTHON) does not run: install Python 3.11 or newer (Debian: apt-get install python3-venv) or name one, make PYTHON=/path/to/python3'; exit; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is Python $$version and the portal needs 3.11 or newer: name one, make PYTHON=/path/to/python3"; exit; }; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)")

# Why the port cannot be listened on; empty where it can.
port_refusal = $(shell $(PY) -c 'import socket, sys; socket.create_server(("127.0.0.1", int(sys.argv[1])))' '$(PORT)' 2>&1 \
	| sed -n '$$s/.*Error: //; $$s/ .while attempting.*//; $$p')
