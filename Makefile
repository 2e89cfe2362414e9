# `make demo` and `make test` do most; every target sets up the virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DATE := 2026-03-08

.PHONY: demo demo-elasticsearch demo-loop test test-all test-elasticsearch-8 check docs clean

demo: $(VENV)/.installed-cpu
	@test -e demo_index/nightrank_index.json || $(BIN)/nightrank index sample_data --to demo_index
	@$(BIN)/nightrank nightly --config examples/demo.toml --run-date $(DEMO_DATE)

demo-elasticsearch: $(VENV)/.installed-dev
	@$(BIN)/python -m examples.demo_elasticsearch

# Seven nights that each train on their clicks; half an hour.
demo-loop: $(VENV)/.installed-dev
	@mkdir -p demo_output
	@$(BIN)/python -m benchmarks.loop --plot demo_output/loop.png --json demo_output/loop.json

# All tests, and beside them those that need a server once more with Elasticsearch 8, which mostly wait for it. The output
# of each run comes when it ends. `pytest` by hand runs in one process; here the files are dealt out to a worker a core,
# each file to one worker, which makes what its tests share once. They are dealt in order, as the slowest come first.
test: $(VENV)/.installed-dev $(VENV)/.installed-elasticsearch-8 $(VENV)/.installed-airflow
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target test-all test-elasticsearch-8

# The workers have the cores between them.
test-all: export OMP_NUM_THREADS = 1
test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

# Its client goes before the installed one.
test-elasticsearch-8: $(VENV)/.installed-dev $(VENV)/.installed-elasticsearch-8
	PYTHONPATH=$(abspath $(VENV))/elasticsearch-8 $(BIN)/python -m pytest -p no:cacheprovider tests/integration \
		--ignore=tests/integration/test_flink.py --ignore=tests/integration/test_object_stores.py \
		--ignore=tests/integration/test_spark.py

check: $(VENV)/.installed-dev docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Warnings are errors, among them every link to a page or heading that is not there. --fresh-env: as on a new machine.
docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/docs
	@echo "The pages are in build/docs/index.html"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Nightrank needs Python 3.11 or newer")'
	@echo "Making the virtual environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-cpu: setup.py pyproject.toml | $(VENV)/bin/python
	@echo "Installing Nightrank for scoring on CPU (no torch); about a minute ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-cpu
	@echo "Installing what the tests and checks need, every engine among them (9 GB); some minutes ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,openvino,train,tensorboard,dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-cpu
	@echo "Installing what builds the documentation ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,docs]'
	@touch $@

# Two packages without their dependencies, which are the installed client's own.
$(VENV)/.installed-elasticsearch-8: setup.py | $(VENV)/bin/python
	@echo "Installing the client of Elasticsearch 8 beside the newer one ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps \
		--target $(VENV)/elasticsearch-8 'elasticsearch>=8.19,<9' 'elastic-transport>=8.17,<9'
	@touch $@

# In a virtual environment of its own: it pins what it needs, as on a machine that schedules nights. Half a minute.
$(VENV)/.installed-airflow: | $(VENV)/bin/python
	@echo "Installing Airflow, to parse the example of a schedule (0.3 GB) ..."
	@$(BIN)/python -m venv $(VENV)/airflow
	@$(VENV)/airflow/bin/python -m pip install --quiet --disable-pip-version-check 'apache-airflow-task-sdk>=1.3,<2'
	@touch $@

clean:
	rm -rf $(VENV) demo_output demo_index build *.egg-info
