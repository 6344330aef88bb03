# Every target does its own set-up: a virtual environment in .venv with pinned packages.
# `make demo` needs the first step only; tests add torch and the linters.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

IMAGE ?=
PROMPT ?=

# For `make bench-peers`: a checkpoint, the tools to run beside ours, and what comes of it.
MODEL ?= build/MobileVLM-V2-1.7B
PEERS ?= llama.cpp ik_llama.cpp torch onnxruntime-genai openvino-genai

.PHONY: demo test test-tiny test-extended test-all test-slow test-real test-arm test-ray test-latest \
	test-oldest test-llama-cpp test-chat coverage lint format docs train bench bench-peers quality footprint \
	clean help

help:
	@echo "make demo [IMAGE=file] [PROMPT=text]   compile the bundled model, ask it about an image"
	@echo "make test                              the default test suite, in two processes"
	@echo "make test-tiny                         what mvlm promises, in a minute"
	@echo "make test-extended                     the other half of the families and schemes, and the"
	@echo "                                       longest tests, the chat on an emulated device among them"
	@echo "make test-slow                         the tests that take minutes"
	@echo "make test-real                         the tests of real sizes: 40 GB of disk, an hour"
	@echo "make test-arm                          the kernels on an emulated Armv8.2 device"
	@echo "make test-ray                          jobs and replicas of the server on a Ray cluster of"
	@echo "                                       several local nodes"
	@echo "make test-latest, make test-oldest     a quick part of the suite on the newest and on the oldest"
	@echo "                                       packages that pyproject.toml allows: 10 minutes each"
	@echo "make test-llama-cpp                    GGUF files in llama.cpp, which is built for it"
	@echo "make test-chat                         the page in Chromium, other programs as clients, schemathesis"
	@echo "make test-all                          every suite that this machine can run"
	@echo "make coverage                          the default suite, and which lines it runs"
	@echo "make lint                              ruff, mypy, import-linter; make format mends what ruff can"
	@echo "make docs                              write docs/commands.md from the commands' help, and the"
	@echo "                                       layers in docs/architecture.md from the imports"
	@echo "make train                             train the bundled model again, about an hour"
	@echo "make bench                             speeds of the bundled model on this machine"
	@echo "make bench-peers [MODEL=dir PEERS=..]  speeds beside other tools; writes docs/speed.md"
	@echo "make quality                           what quantization costs, by our schemes and other tools'"
	@echo "                                       types; writes docs/quantization.md"
	@echo "make footprint                         memory and time of real sizes; writes docs/models.md"

demo: $(VENV)/runtime.stamp
	@$(BIN)/mvlm demo $(if $(IMAGE),--image "$(IMAGE)") $(if $(PROMPT),--prompt "$(PROMPT)")

bench: $(VENV)/runtime.stamp
	@$(BIN)/mvlm bench models/bundled/mobilevlm-shapes

# An hour, of which every second has to be quiet.
bench-peers: $(VENV)/peers.stamp $(MODEL)
	$(BIN)/mvlm bench $(MODEL) $(addprefix --peer ,$(PEERS)) --write docs $(ARGS)

build/MobileVLM-V2-1.7B: | $(VENV)/peers.stamp
	$(BIN)/mvlm synth MobileVLM-V2-1.7B -o $@

# What is measured is kept, so that an interrupted run goes on. Speeds are measured on request, on a
# quiet machine: make quality ARGS="--speed build/MobileVLM-V2-1.7B".
quality: $(VENV)/llama-cpp.stamp $(VENV)/ik-llama-cpp.stamp
	$(BIN)/python -m mvlm.bench.quality --write $(ARGS)

footprint: $(VENV)/test.stamp
	$(BIN)/python -m mvlm.bench.studies.footprint --write

# Without bytecode files, each of the hundreds of processes that tests start would compile our
# sources anew.
unexport PYTHONDONTWRITEBYTECODE

# The markers of what `make test` leaves out.
SPECIAL := slow or real or arm or llama_cpp or ray or chat
DEFAULT := not extended and not ($(SPECIAL))
# Two processes, each with half of the tests in their order, so that those that share an artifact
# run in one; who is done first takes tests over from the other.
PARALLEL := -n 2 --dist worksteal

test: $(VENV)/test.stamp
	$(BIN)/pytest $(PARALLEL) -m "$(DEFAULT)" $(ARGS)

test-tiny: $(VENV)/test.stamp
	$(BIN)/pytest -m "$(DEFAULT)" tests/test_tiny.py $(ARGS)

test-extended: $(VENV)/test.stamp build/arm.stamp
	$(BIN)/pytest $(PARALLEL) -m "extended and not ($(SPECIAL))" $(ARGS)

# These measure, or start many processes of their own: one at a time, and with more patience.
test-slow: $(VENV)/test.stamp
	$(BIN)/pytest -m slow --timeout 3600 $(ARGS)

test-real: $(VENV)/test.stamp
	$(BIN)/pytest -m real --timeout 14400 $(ARGS)

test-arm: $(VENV)/test.stamp build/arm.stamp
	$(BIN)/pytest -m arm --timeout 3600 $(ARGS)

test-ray: $(VENV)/ray.stamp
	$(BIN)/pytest -m ray --timeout 3600 $(ARGS)

# All of them, even where one fails. What a machine cannot run is skipped there, with the reason.
SUITES := test test-extended test-slow test-arm test-ray test-llama-cpp test-chat test-latest \
	test-oldest test-real
test-all:
	@failed=; for suite in $(SUITES); do \
		echo "=== make $$suite"; $(MAKE) --no-print-directory $$suite || failed="$$failed $$suite"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

# build/coverage/index.html shows the lines.
coverage: $(VENV)/test.stamp
	$(BIN)/pytest $(PARALLEL) -m "$(DEFAULT)" --cov --cov-report term:skip-covered \
		--cov-report html:build/coverage $(ARGS)

# What touches packages most: arrays that reach compiled code, images, tokenizers, the formats of
# other tools, the command line. docs/commands.md is as the pinned Typer writes help.
VERSIONS := tests/runtime tests/schedules/test_kv_cache.py tests/models/interchange \
	$(addprefix tests/models/test_,adapter.py checkpoint.py config.py onnx_vision.py) \
	$(addprefix tests/cli/test_,chat.py command_line.py compile.py) \
	--ignore=tests/runtime/test_device_server.py \
	--deselect=tests/cli/test_command_line.py::test_docs_commands_are_current

# Each time: newer packages may have come out. Warnings are shown, and fail nothing: other versions
# have others.
test-latest: $(VENV)-latest/bin/pip
	PIP_CONSTRAINT= $(VENV)-latest/bin/pip --disable-pip-version-check --quiet \
		install --upgrade --upgrade-strategy eager --editable ".[test]"
	$(VENV)-latest/bin/python -m pytest -W default -m "$(DEFAULT)" $(VERSIONS) $(ARGS)

test-oldest: $(VENV)-oldest/test.stamp
	$(VENV)-oldest/bin/python -m pytest -W default -m "$(DEFAULT)" $(VERSIONS) $(ARGS)

test-chat: $(VENV)/chat.stamp $(VENV)-clients/stamp build/clients/stamp build/chat-debian.stamp
	$(BIN)/pytest -m chat --timeout 1800 $(ARGS)

test-llama-cpp: $(VENV)/llama-cpp.stamp
	$(BIN)/pytest -m llama_cpp --timeout 3600 $(ARGS)

lint: $(VENV)/lint.stamp build/typing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(addprefix -p mvlm.,$(PACKAGES))
	PYTHONPATH=build/typing $(BIN)/lint-imports --cache-dir build/import_linter

format: $(VENV)/lint.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/runtime.stamp
	$(BIN)/python -m mvlm.cli.reference > docs/commands.md
	$(BIN)/python docs/draw_layers.py

train: $(VENV)/test.stamp
	$(BIN)/python -m mvlm.training

clean:
	rm -rf $(VENV) $(VENV)-latest $(VENV)-oldest $(VENV)-clients build .mypy_cache .pytest_cache .ruff_cache *.egg-info

# mypy and import-linter cannot follow setup.py's mapping of folders to packages; these links spell
# it out.
PACKAGES := bench cli compile distribution models runtime schedules training
build/typing: setup.py
	mkdir -p build/typing/mvlm
	for package in $(PACKAGES); do ln -sfn "$(CURDIR)/$$package" build/typing/mvlm/$$package; done
	touch build/typing

$(VENV)/test.stamp: $(VENV)/runtime.stamp
	$(PIP) install --editable ".[test]"
	touch $@

$(VENV)-latest/bin/pip $(VENV)-oldest/bin/pip: | $(VENV)/runtime.stamp
	$(BIN)/python -m venv $(patsubst %/bin/pip,%,$@)

$(VENV)-oldest/test.stamp: $(VENV)-oldest/bin/pip build/oldest.txt
	PIP_CONSTRAINT=$(CURDIR)/build/oldest.txt $(VENV)-oldest/bin/pip --disable-pip-version-check \
		--quiet install --editable ".[test]"
	touch $@

build/oldest.txt: tests/oldest.py pyproject.toml | $(VENV)/runtime.stamp
	mkdir -p build
	$(BIN)/python -m tests.oldest > $@.part
	mv $@.part $@

# qemu and an arm64 Python, by apt-get but into build/arm: no root, and nothing is installed.
# Where they cannot be had, the tests that need them say why and are skipped.
build/arm.stamp: $(VENV)/test.stamp tests/arm/sysroot.py pyproject.toml constraints.txt
	@echo "Setting up an emulated Armv8.2 device in build/arm (once, about 300 MB to fetch)"
	@$(BIN)/python -m tests.arm.sysroot --or-say-why
	@test -e build/arm.reason || touch $@

# Built from source for this CPU, which takes a C++ compiler and many minutes: nothing that another
# CPU built is taken from pip's cache.
FRESH := --no-cache-dir --force-reinstall --no-deps --no-binary

# Without AMX: with it llama.cpp ends by SIGILL at a prompt on the Intel machines where it was tried,
# which are virtual, although a small program can use AMX there.
NO_AMX := $(if $(filter x86_64,$(shell uname -m)),-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)

$(VENV)/llama-cpp.stamp: $(VENV)/test.stamp
	CFLAGS="$(NO_AMX)" CXXFLAGS="$(NO_AMX)" \
		$(PIP) install $(FRESH) llama-cpp-python llama-cpp-python
	$(PIP) install --editable ".[llama-cpp]"
	touch $@

# The wheel on PyPI ends at AVX2; GGML_NATIVE is `-march=native`. Attention over caches of less than 8
# bits, which we do not run, takes long to compile. Headers and libraries that llama-cpp-python
# installs in the same places, too, stay out; each package loads its own folder's.
$(VENV)/ik-llama-cpp.stamp: $(VENV)/test.stamp bench/peers/ik_llamacpp.cmake
	CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_IQK_FA_ALL_QUANTS=OFF \
		-DCMAKE_PROJECT_INCLUDE='$(CURDIR)/bench/peers/ik_llamacpp.cmake'" \
	SKBUILD_WHEEL_EXCLUDE="bin/**;include/**;lib/**;lib64/**" \
		$(PIP) install $(FRESH) ik-llama-cpp-python ik-llama-cpp-python
	$(PIP) install --editable ".[ik-llama-cpp]"
	touch $@

# Other programs' clients, apart from our packages: each asks for versions of its own.
$(VENV)-clients/stamp: tests/clients/requirements.txt | $(BIN)/pip
	$(PYTHON) -m venv $(VENV)-clients
	PIP_CONSTRAINT= $(VENV)-clients/bin/pip --disable-pip-version-check --quiet install -r $<
	touch $@

# Where they are missing, from Debian's archive.
build/chat-debian.stamp:
	@command -v chromium >/dev/null && command -v npm >/dev/null || \
		$$([ "$$(id -u)" = 0 ] || echo sudo) sh -c \
			'apt-get update -qq && apt-get install -y -qq chromium nodejs npm >/dev/null'
	@mkdir -p build && touch $@

build/clients/stamp: tests/clients/package.json tests/clients/package-lock.json \
		| build/chat-debian.stamp
	mkdir -p build/clients
	cp $^ build/clients
	cd build/clients && npm ci --silent
	touch $@

$(VENV)/chat.stamp: $(VENV)/test.stamp
	$(PIP) install --editable ".[chat]"
	touch $@

$(VENV)/ray.stamp: $(VENV)/test.stamp
	$(PIP) install --editable ".[ray-serve]"
	touch $@

$(VENV)/peers.stamp: $(VENV)/llama-cpp.stamp $(VENV)/ik-llama-cpp.stamp
	$(PIP) install --editable ".[bench,torch,onnxruntime-genai,openvino-genai]"
	touch $@

$(VENV)/lint.stamp: $(VENV)/test.stamp
	$(PIP) install --editable ".[lint]"
	touch $@

# Linking needs a C compiler; where there is none, the one inside PyPI's ziglang serves.
$(VENV)/runtime.stamp: $(BIN)/pip setup.py pyproject.toml constraints.txt
	@echo "Installing the pinned packages into $(VENV) (once, about a minute)"
	@$(PIP) install --editable ".[compile]"
	@command -v cc gcc clang >/dev/null || $(PIP) install ziglang
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or newer is needed; say which with make PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
		echo "Python's venv module is not complete: installing Debian's python3-venv"; \
		rm -rf $(VENV); \
		$$([ "$$(id -u)" = 0 ] || echo sudo) sh -c \
			'apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null' && \
		$(PYTHON) -m venv $(VENV); }
