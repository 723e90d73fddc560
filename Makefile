PYTHON ?= python3
STAMP := .venv/.ready

.PHONY: setup demo test test-long lint lock schema clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	.venv/bin/labelmill demo

# Two at a time where no ports, clocks and whole machines are at stake.
test: setup
	.venv/bin/python -m pytest -m "not long" --ignore tests/integration -n 2 --dist loadfile
	.venv/bin/python -m pytest -m "not long" tests/integration

test-long: setup
	.venv/bin/python -m pytest

lint: setup
	.venv/bin/ruff check platform tests
	.venv/bin/ruff format --check platform tests
	.venv/bin/mypy

# The pinned closure for every supported Python: no index host in it, so it installs from any mirror.
# torch and torchvision are a matching pair; another pair needs both lines changed together.
lock:
	uv pip compile pyproject.toml --extra quantize --extra export --extra mlflow --extra test --extra lint --extra build --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --constraint .lock-constraints --output-file requirements.lock
	grep -vE '^ +--hash' requirements.lock | sed 's/ *\\$$//' | uv pip compile pyproject.toml --extra build --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --constraint - --output-file deploy/requirements.lock  # what the image has

schema: setup
	.venv/bin/labelmill schema > jobs/labelmill.schema.json

clean:
	rm -rf .venv demo
