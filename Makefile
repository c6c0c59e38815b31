# Verbs for people. CMake does the work: see CMakePresets.json and CONTRIBUTING.md.
#
# make demo and make test install the Debian packages that are missing (tools/install_deps.sh says which and how),
# build, and run. `make OC_DEPS=0 ...` leaves the system's packages alone.

OC_DEPS ?= 1
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# Debian's python3, which sees Debian's python3-numpy, before one that is earlier in PATH.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
BIN := build/release/ocellus
DEMO_IMAGE := examples/architecture.png
DEMO_PROMPT := What is in the centre?

.DEFAULT_GOAL := build
.PHONY: build demo test test-all deps deps-build deps-test deps-all eval-tiny fuzz install clean help

help:
	@echo 'make            build $(BIN)'
	@echo 'make demo       build, then ask the embedded model about $(DEMO_IMAGE)'
	@echo 'make test       the whole test suite with sanitizers, some 16 minutes on 2 cores'
	@echo 'make test-all   the same plus what is slow: every test under ASan, a ThreadSanitizer build, valgrind, aarch64, fuzzing'
	@echo 'make deps       install all Debian packages that building and testing need'
	@echo 'make eval-tiny  measure the embedded model on held-out pictures; writes the table into its model card'
	@echo 'make fuzz       fuzz every parser; FUZZ_SECONDS=600 for each target, FUZZ=json for one'
	@echo 'make install    into PREFIX=/usr/local (and DESTDIR)'
	@echo 'make clean      remove build/'

build: deps-build
	@cmake --preset release --log-level=NOTICE
	@cmake --build --preset release -j $(JOBS)

demo: build
	@[ -f models/ocellus-tiny-4bit/model.safetensors ] || { echo 'make demo: models/ocellus-tiny-4bit is not in this tree yet' \
	    '(docs/TINY.md says how it is trained); ask another model: $(BIN) run -m MODEL -i $(DEMO_IMAGE) "..."' >&2; exit 1; }
	@echo
	@echo '$$ $(BIN) run --stats -i $(DEMO_IMAGE) "$(DEMO_PROMPT)"'
	@$(BIN) run --stats -i $(DEMO_IMAGE) "$(DEMO_PROMPT)"

test: deps-test
	@$(PYTHON) tools/run_tests.py --jobs $(JOBS)

test-all: deps-all
	@$(PYTHON) tools/run_tests.py --jobs $(JOBS) --all

deps-build deps-test deps-all:
	@[ '$(OC_DEPS)' = 0 ] || sh tools/install_deps.sh $(@:deps-%=%)

deps: deps-all

eval-tiny: deps-test build
	@[ -f build/fonts/words.txt ] || { echo 'Collecting the evaluation fonts in build/fonts'; sh tools/tiny/fonts.sh build/fonts >/dev/null; }
	@TINY_FONTS=build/fonts $(PYTHON) tools/tiny/eval.py --ocellus $(BIN) \
	    --card models/ocellus-tiny-4bit/README.md

fuzz: deps-all
	@$(PYTHON) tools/run_fuzz.py --jobs $(JOBS) --seconds $(or $(FUZZ_SECONDS),600) $(FUZZ)

PREFIX ?= /usr/local
install: build
	@cmake --install build/release --prefix $(PREFIX)

clean:
	rm -rf build
