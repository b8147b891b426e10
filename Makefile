# make demo   follow an object through the clip in demo/ with the model that ships
# make test   run the tests
# make lint   style and types
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# More extras to install, such as ,fused,ray
EXTRAS =

.PHONY: demo test lint clean

demo: $(VENV)/runtime
	$(BIN)/vos-deploy-run --video demo/frames --mask demo/masks --output out/demo

test: $(VENV)/everything
	$(BIN)/python -m pytest -n logical --dist worksteal

lint: $(VENV)/everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# mypy sees the subpackages only where they are installed under vos_deploy/.
	rm -rf build/types
	$(BIN)/pip install --quiet --no-deps --target build/types .
	cd build/types && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml -p vos_deploy

$(VENV)/runtime: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[cpu]"
	touch $@

$(VENV)/everything: $(VENV)/runtime
	$(BIN)/pip install --quiet --editable ".[cpu,export,train,test,dev$(EXTRAS)]"
	touch $@

clean:
	rm -rf $(VENV) build dist out *.egg-info
