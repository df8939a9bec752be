# Everything a newcomer types: `make demo`, `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pytest's processes and torch's threads share the cores: one thread each.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# For the tests of third-party attacks only. adv-lib and what it imports are source packages that
# need pkg_resources while they are built: older pips read the first variable, newer ones the second.
OLD_SETUPTOOLS := PIP_CONSTRAINT=$(CURDIR)/build-constraints.txt PIP_BUILD_CONSTRAINT=$(CURDIR)/build-constraints.txt

.PHONY: install adv-lib demo test coverage test-oldest test-newest test-beside browser test-browser lint bench bench-detect bench-faults bench-scale s3 zoo parity robust-training reproduce docs-attacks docs-schema docs example sample-report fuzz audit constraints clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("flatguard needs Python 3.11 or later; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

adv-lib: install
	$(OLD_SETUPTOOLS) $(BIN)/python -m pip wheel --quiet --no-deps -w $(VENV)/wheels \
	  adv-lib==0.2.8 visdom==0.2.4
	$(BIN)/python -m pip install --quiet -c constraints.txt $(VENV)/wheels/*.whl

demo: install
	$(BIN)/flatguard demo

test: install
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist worksteal

# The same with the lines and branches that no test reaches; it takes about 1.7 times as long.
coverage: install
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term

# Tests in other environments, which are kept outside the clone; TESTS="tests/smoke" takes some.
# `oldest`: the lowest versions that pyproject.toml allows. `newest`: nothing pinned. `beside`: what
# touches other libraries, with mlflow, open-clip, timm and transformers, through overrides.txt.
test-beside: TESTS ?= tests/smoke tests/environment tests/contract tests/attacks tests/targets tests/integrations

test-oldest test-newest test-beside: test-%:
	$(ONE_THREAD) $(PYTHON) .ci/environment.py $* -- \
	  python -m pytest -q -n auto --dist worksteal $(TESTS)

# Chromium comes from the distribution; Playwright and axe from the package index.
browser: install
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { command -v apt-get >/dev/null && $(AS_ROOT) apt-get update -qq && $(AS_ROOT) apt-get install -y -qq chromium; } \
	  || { echo 'no Chromium, and apt-get could not install it; install it and try again' >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[browser]'

# Fails, and does not skip, where there is no browser.
test-browser: browser
	FLATGUARD_BROWSER=1 $(ONE_THREAD) $(BIN)/python -m pytest -q tests/browser

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --platform linux
	$(BIN)/mypy --platform win32
	$(BIN)/mypy --platform darwin
	$(BIN)/lint-imports

# CONTENDERS="--network cnn_a_pgd --images 50" takes a real network, "--device cuda" a GPU.
bench: install
	$(BIN)/python -m benchmarks.sharpness
	$(BIN)/python -m benchmarks.recorder
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.imports
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.detector
	$(BIN)/python -m benchmarks.preflight
	$(ONE_THREAD) $(BIN)/python -m benchmarks.contenders $(CONTENDERS)

# Detectors on the real networks that FLATGUARD_REAL names, into docs/detection-study.md: about an hour
# on one core, and it goes on where it stopped; DETECT="--only resnet20" takes one, "--draw" only writes.
bench-detect: install
	$(ONE_THREAD) $(BIN)/python -m benchmarks.detection $(DETECT)

# Every pair of the masking zoo; ZOO="--fresh" measures its labels anew, "--only NAME" takes a few.
zoo: install
	$(ONE_THREAD) $(BIN)/python -m benchmarks.masking_zoo --workers 2 --out reports/masking-zoo $(ZOO)

# The corrected number against AutoAttack standard's: an hour of one core, and it goes on where it stopped;
# PARITY="--only NAME" takes a few, "--again" keeps what AutoAttack found, "--cascade" compares the cascade.
parity: install
	$(ONE_THREAD) $(BIN)/python -m benchmarks.autoattack_parity $(PARITY)

# Both papers, claim by claim; REPRODUCE="--only NAME" takes some, "--fresh" measures anew.
# Trains 40 small networks and measures them: about 20 minutes of one core.
robust-training: install
	$(ONE_THREAD) $(BIN)/python -m benchmarks.robust_training
	$(ONE_THREAD) $(BIN)/python -m benchmarks.robust_training.measure

reproduce: install
	$(ONE_THREAD) $(BIN)/python -m benchmarks.reproduce $(REPRODUCE)

# Hostile files for every loader; FUZZ="--share 0.1", "--only config" take fewer.
fuzz: install
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m benchmarks.fuzz $(FUZZ)

# Known advisories against the tested set; AUDIT=--report only tells. pip-audit wants a newer requests
# than torchattacks allows, so it has an environment of its own.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --disable-pip-version-check --quiet 'pip-audit>=2.7,<3'
	.venv-audit/bin/python .ci/audit.py $(AUDIT)

# A real S3 server for the tests of run folders at s3://; they skip without it. It wants a newer
# requests than torchattacks allows, so it has an environment of its own.
s3: .venv-s3/.installed

.venv-s3/.installed:
	$(PYTHON) -m venv --clear .venv-s3
	.venv-s3/bin/python -m pip install --disable-pip-version-check --quiet 'moto[server]>=5,<6'
	@touch $@

# 200 kills at random moments; about ten minutes. FAULTS="--kills 20" is shorter.
bench-faults: install
	$(ONE_THREAD) $(BIN)/python -m benchmarks.faults $(FAULTS)

# Wants two idle cores.
bench-scale: install
	$(ONE_THREAD) $(BIN)/python -m benchmarks.scale $(SCALE)
	$(ONE_THREAD) $(BIN)/python -m benchmarks.checks_workers

docs-attacks: install
	FLATGUARD_WRITE_DOCS=1 $(ONE_THREAD) $(BIN)/python -m pytest -q tests/contract

# The documentation site, strictly. Its tools want a newer requests than torchattacks allows, so
# they have an environment of their own; nothing of flatguard is imported.
docs: .venv-docs/.installed
	.venv-docs/bin/mkdocs build --strict --quiet --site-dir site

.venv-docs/.installed: docs/requirements.txt
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --disable-pip-version-check --quiet -r docs/requirements.txt
	@touch $@

# The example project against the built wheel, in a new environment outside the repository.
example:
	PYTHON=$(PYTHON) .ci/example

docs-schema: install
	$(BIN)/python -m benchmarks.sample_report --schema
	$(BIN)/flatguard configs --schema > docs/config.schema.json

# The committed sample, and the README's pictures of it.
sample-report: browser
	$(BIN)/python -m benchmarks.sample_report

# One resolution for every Python and platform. torch 2.13 needs mpmath below 1.4.
constraints:
	$(PYTHON) -m venv --clear .venv-uv && .venv-uv/bin/pip install --quiet uv
	printf 'torch==2.13.0\ntorchvision==0.28.0\nmpmath<1.4\nsympy==1.14.0\n' > .venv-uv/pins.txt
	(head -2 constraints.txt; .venv-uv/bin/uv pip compile --quiet --universal --python-version 3.11 \
	  --extra dev --extra browser --extra fuzz pyproject.toml --no-header --no-annotate --constraint .venv-uv/pins.txt | grep -v '^flatguard') > .venv-uv/new.txt
	mv .venv-uv/new.txt constraints.txt && rm -rf .venv-uv

clean:
	rm -rf $(VENV) .venv-docs .venv-audit .venv-s3 site .hypothesis .mypy_cache .ruff_cache .pytest_cache .coverage* htmlcov
