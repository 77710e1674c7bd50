# make demo | make quick | make test | make lint | make clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo quick test lint install slurm browser trackers clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

# Trains on an embedded data set, evaluates, draws; about five minutes on two CPU cores.
demo: install
	rm -rf runs/demo
	$(BIN)/fleet-rcnn train configs/shapes/demo.yaml
	$(BIN)/fleet-rcnn predict runs/demo data/shapes/val --score 0.5
	@echo
	@echo "Look at  runs/demo/predictions/   what the detector found in 120 images it had never seen"
	@echo "         runs/demo/pictures/      ground truth beside predictions"
	@echo "         runs/demo/plots/         losses, metrics, precision-recall curves, confusion"
	@echo "         runs/demo/results.json   AP, AP50 and all other numbers"
	@echo "         $(BIN)/tensorboard --logdir runs"

# Everything that needs no cluster, no browser and no training: under three minutes on two cores.
quick: install
	$(BIN)/python -m pytest -q -n $$($(BIN)/python -c 'import os; print(len(os.sched_getaffinity(0)))') --dist worksteal \
	-m "not slow" tests/detector tests/launcher tests/test_house.py

# Lint, import order, and types of the public API.
lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

# A file of tests stays with one process: the cluster that they share is there once. Its tests mostly wait, so there is one
# process more than cores.
test: install slurm browser trackers
	$(BIN)/python -m pytest -n $$($(BIN)/python -c 'import os; print(min(4, len(os.sched_getaffinity(0)) + 1))') \
	--dist loadscope --no-loadscope-reorder --durations 10

# Tests of launching run on a real Slurm. It is installed where that is allowed; elsewhere they are skipped and say so.
slurm:
	@PATH=$$PATH:/usr/sbin command -v slurmctld >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge >/dev/null; } \
	|| echo "no Slurm here, and it cannot be installed: its tests will be skipped"

# Tests of the report open it in a real browser; the same holds for it.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
	|| echo "no Chromium here, and it cannot be installed: tests of the report in a browser will be skipped"

# Tests of sync run on a real MLflow server and on W&B without a network; half a gigabyte, which nothing else needs.
trackers: install
	@$(BIN)/python -c "import mlflow, sqlalchemy, flask, wandb" 2>/dev/null \
	|| $(BIN)/pip install --quiet --disable-pip-version-check --editable ".[mlflow,wandb]" mlflow \
	|| echo "MLflow and W&B cannot be installed here: their tests will be skipped"

clean:
	rm -rf $(VENV) runs data build dist
