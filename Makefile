# make demo | make test | make clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test install clean

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
	@echo "         runs/demo/results.json   AP, AP50 and all other numbers"
	@echo "         $(BIN)/tensorboard --logdir runs"

test: install
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) runs data build dist
