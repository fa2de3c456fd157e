# Convoy. `make help` lists the targets. Everything is built below $(BUILD); SANITIZE=address,undefined builds another
# tree with sanitizers. As many jobs as there are cores, unless -j says otherwise; V=1 shows whole commands.

SHELL := /bin/bash
CC ?= cc
SANITIZE ?=
BUILD ?= build$(if $(SANITIZE),/$(subst $(comma),-,$(SANITIZE)))
comma := ,
VERSION := $(shell sed -n 's/^\#\# \([0-9][^ ]*\).*/\1/p' CHANGELOG.md 2>/dev/null | head -n 1)
PREFIX ?= /usr/local
DESTDIR ?=
PYTHON ?= /usr/bin/python3

JOBS ?= $(shell nproc)
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(JOBS)
endif

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
HARDENING := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
WERROR ?=
CFLAGS ?= -O2 -g
override CFLAGS += -std=gnu11 $(WARNINGS) $(WERROR) -fno-math-errno -ffp-contract=off -pthread -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -MMD -MP \
  -DCONVOY_VERSION='"$(or $(VERSION),0.0.0)"'
ifeq ($(SANITIZE),)
override CFLAGS += $(HARDENING)
override LDFLAGS += -pie -Wl,-z,relro,-z,now -pthread
else
override CFLAGS += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
override LDFLAGS += -fsanitize=$(SANITIZE) -pthread
endif

# Folders, and what each may include: this is the layer order, and `make lint` checks it again.
INC_base := -I.
INC_kernels := -Ikernels
INC_proto := -I. -I$(BUILD)/gen
INC_config := -I.
INC_plan := -I.
INC_tls := -I.
INC_model := -I. -I$(BUILD)/gen
INC_daemon := -I. -I$(BUILD)/gen
INC_ctl := -I. -I$(BUILD)/gen
INC_tests := -I. -I$(BUILD)/gen
INC_bench := -I. -I$(BUILD)/gen

PKG = $(shell pkg-config --libs $(1))
LIBS_kernels = $(call PKG,openblas) -lm
LIBS_proto = $(call PKG,libprotobuf-c)
LIBS_config = $(call PKG,yaml-0.1)
LIBS_tls = $(call PKG,openssl)
LIBS_base = $(call PKG,libcrypto jansson) -lm
LIBS_daemon = $(call PKG,libuv libsystemd libmicrohttpd)
LIBS_ctl = $(call PKG,libavformat libavcodec libavutil libswscale libavdevice libuv)

sources = $(sort $(shell find $(1) -name '*.c' 2>/dev/null))
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(call sources,$(1)))
library = $(BUILD)/lib$(1).a

# main.c of each program stays out of its library, so that tests can link everything else.
MAINS := daemon/main.c ctl/main.c
obj_of = $(filter-out $(patsubst %.c,$(BUILD)/obj/%.o,$(MAINS)),$(call objects,$(1)))

.PHONY: all
all: $(BUILD)/convoyd $(BUILD)/convoyctl ## Build the two programs

# What a recipe does, in a word; V=1 shows the whole commands.
say = $(if $(V),,@printf '  %-6s %s\n' $(1) $(2) &&)

# What everything is compiled with: written only when it differs, and every object depends on it.
$(BUILD)/flags: export FLAGS = $(CC) $(CFLAGS) / $(LDFLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D) && printf '%s\n' "$$FLAGS" | cmp -s - $@ || printf '%s\n' "$$FLAGS" > $@
.PHONY: FORCE

# ---- generated sources -------------------------------------------------------------------------------------------
GEN := $(sort $(patsubst proto/%.proto,%,$(wildcard proto/*.proto)))
$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h &: proto/%.proto
	@mkdir -p $(BUILD)/gen
	$(call say,PROTOC,$<) protoc-c --proto_path=proto --c_out=$(BUILD)/gen proto/$*.proto
GEN_H := $(GEN:%=$(BUILD)/gen/%.pb-c.h)
$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.pb-c.c
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(filter-out $(WARNINGS) -Werror,$(CFLAGS)) -I$(BUILD)/gen -c $< -o $@

# The daemon's page, as the C string web_page.
$(BUILD)/gen/page.c: daemon/control/page.html
	@mkdir -p $(@D)
	$(call say,PAGE,$<) { echo 'extern const char web_page[]; const char web_page[] ='; \
	  sed 's/\\/\\\\/g; s/"/\\"/g; s/^/  "/; s/$$/\\n"/' $<; echo ';'; } > $@
$(BUILD)/obj/gen/page.o: $(BUILD)/gen/page.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(CFLAGS) -c $< -o $@

# ---- objects and libraries ---------------------------------------------------------------------------------------
# Kernels are worth -O3; they are compiled with -Ikernels alone. Without -fno-trapping-math (nobody looks at
# floating-point exceptions; values stay the same) loops with a choice in them do not vectorise.
$(BUILD)/obj/kernels/%.o: CFLAGS += -fno-trapping-math $(if $(SANITIZE),-DKN_SANITIZED,-O3)
$(BUILD)/obj/%.o: %.c $(BUILD)/flags | $(GEN_H)
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(CFLAGS) $(INC_$(firstword $(subst /, ,$*))) -c $< -o $@

# kernels/simd/*.c are compiled once more for every instruction set beyond the architecture's baseline.
ARCH := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null)))
SIMD_x86_64 := avx2 avx512
SIMD_arm := neon
SIMD_FLAGS_avx2 := -mavx2 -mfma
SIMD_FLAGS_avx512 := $(SIMD_FLAGS_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512
SIMD_FLAGS_neon := -mfpu=neon-vfpv4
SIMD_OBJ := $(foreach isa,$(SIMD_$(ARCH)),$(patsubst %.c,$(BUILD)/obj/%__$(isa).o,$(wildcard kernels/simd/*.c)))
define simd_rule
$$(BUILD)/obj/kernels/simd/%__$(1).o: kernels/simd/%.c $$(BUILD)/flags
	@mkdir -p $$(@D)
	$$(call say,CC,$$<:$(1)) $$(CC) $$(CFLAGS) $$(SIMD_FLAGS_$(1)) -DKN_ISA=$(1) $$(INC_kernels) -c $$< -o $$@
endef
$(foreach isa,$(SIMD_$(ARCH)),$(eval $(call simd_rule,$(isa))))

$(call library,kernels): $(call obj_of,kernels) $(SIMD_OBJ)
$(call library,base): $(call obj_of,base)
$(call library,proto): $(call obj_of,proto) $(GEN:%=$(BUILD)/obj/gen/%.o)
$(call library,config): $(call obj_of,config)
$(call library,plan): $(call obj_of,plan)
$(call library,tls): $(call obj_of,tls)
$(call library,model): $(call obj_of,model)
$(call library,daemon): $(call obj_of,daemon) $(BUILD)/obj/gen/page.o
$(call library,ctl): $(call obj_of,ctl)
$(BUILD)/lib%.a:
	@rm -f $@
	$(call say,AR,$@) $(AR) rcs $@ $^

# A program or a test may need any layer below it; the linker takes what it uses.
LAYERS := daemon ctl model plan config proto tls base kernels
libs_from = $(foreach l,$(1),$(call library,$(l)))
LIBS_ALL = $(foreach l,$(LAYERS),$(LIBS_$(l)))

CORE := model plan config proto tls base kernels
$(BUILD)/convoyd: $(BUILD)/obj/daemon/main.o $(call libs_from,daemon $(CORE))
	$(call say,LD,$@) $(CC) $(LDFLAGS) $^ $(foreach l,daemon $(CORE),$(LIBS_$(l))) -o $@
$(BUILD)/convoyctl: $(BUILD)/obj/ctl/main.o $(call libs_from,ctl $(CORE))
	$(call say,LD,$@) $(CC) $(LDFLAGS) $^ $(foreach l,ctl $(CORE),$(LIBS_$(l))) -o $@

# ---- tests -------------------------------------------------------------------------------------------------------
# tests/unit/<layer>/test_*.c and tests/integration/test_*.c: one cmocka program each. tests/kernels/: the checker.
UNIT_TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*/test_*.c tests/integration/test_*.c \
  tests/kernels/test_*.c))
OWN_MALLOC_OBJ := $(BUILD)/obj/tests/lib/own_malloc.o $(BUILD)/obj/tests/lib/failing.o
TESTLIB_OBJ = $(filter-out $(OWN_MALLOC_OBJ),$(call objects,tests/lib)) $(filter-out %/write_models.o,$(call objects,tests/models))
# Programs that count their allocations, or let them fail.
OWN_MALLOC_TESTS := $(addprefix $(BUILD)/tests/,unit/config/test_alloc unit/model/test_import_alloc unit/model/test_model_alloc \
  unit/model/test_exec_memory unit/proto/test_message_memory integration/test_alloc integration/test_steady)
$(OWN_MALLOC_TESTS): $(OWN_MALLOC_OBJ)
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TESTLIB_OBJ) $(call libs_from,$(LAYERS))
	@mkdir -p $(@D)
	$(call say,LD,$@) $(CC) $(LDFLAGS) $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS_ALL) $(call PKG,cmocka) -o $@

.PHONY: tests
tests: $(UNIT_TESTS) ## Build all test programs

# The system tests drive the real programs. scripts/run-tests prints the counts; it finds programs and models by
# CONVOY_BUILD and CONVOY_MODELS. CONVOY_TEST_QUICK=1 leaves out the long runs over large models.
SYSTEM_TESTS := $(wildcard tests/system/test_*.py)
RUN_TESTS = CONVOY_BUILD=$(abspath $(BUILD)) scripts/run-tests --logs $(BUILD)/test-logs $(RUN_TESTS_FLAGS)
define run_tests =
	@scripts/install-deps build test
	+@$(MAKE) --no-print-directory all $(BUILD)/bench/engine-convoy $(filter-out %.py,$(1))
	@$(RUN_TESTS) $(2) $(1)
endef
.PHONY: test test-unit test-integration test-system test-compiled test-faults test-threads test-valgrind soak
test: ## Build and run all tests (installs what they need); the last line counts them
	$(call run_tests,$(UNIT_TESTS) $(SYSTEM_TESTS))
test-unit: ## ... the quick ones: tests/unit and tests/kernels
	$(call run_tests,$(filter-out $(BUILD)/tests/integration/%,$(UNIT_TESTS)))
test-integration: ## ... those of several layers together
	$(call run_tests,$(filter $(BUILD)/tests/integration/%,$(UNIT_TESTS)))
test-compiled: ## ... all but those of tests/system: what SANITIZE=address,undefined is for
	$(call run_tests,$(UNIT_TESTS))
# What runs in more than one thread. A race is an error even where it is found in a daemon that a test has started.
THREADED_TESTS := $(filter $(addprefix $(BUILD)/tests/,integration/% unit/daemon/% unit/tls/% unit/ctl/test_client unit/ctl/test_feed \
  unit/ctl/test_interrupt unit/kernels/test_threads unit/model/test_concurrent),$(UNIT_TESTS))
test-threads: ## ... those with more than one thread, under ThreadSanitizer
	+@$(MAKE) --no-print-directory SANITIZE=thread run-threaded
.PHONY: run-threaded
run-threaded: export TSAN_OPTIONS = log_path=$(abspath $(BUILD))/races/race exitcode=66 suppressions=$(abspath tests/tsan.supp)
run-threaded:
	@rm -rf $(BUILD)/races && mkdir -p $(BUILD)/races
	$(call run_tests,$(THREADED_TESTS)); status=$$?; ! cat $(BUILD)/races/* 2>/dev/null && exit $$status
# Programs that bring their own malloc(), measure memory, or compute for minutes tell nothing here. Valgrind knows no AVX-512.
VALGRIND = valgrind -q --suppressions=$(abspath tests/valgrind.supp) --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite
VALGRIND_TESTS := $(filter-out %memory %_alloc %/test_alloc %/test_cuts %/test_reference %/test_concurrent %/test_import_models \
  %/test_pictures %/test_mover %/test_simulate,\
  $(filter $(BUILD)/tests/unit/%,$(UNIT_TESTS)))
test-valgrind: export OPENBLAS_CORETYPE = Haswell
test-valgrind: export OPENBLAS_NUM_THREADS = 1
test-valgrind: export CONVOY_SIMD = avx2
test-valgrind: ## ... those of tests/unit under valgrind
	$(call run_tests,$(VALGRIND_TESTS),--under '$(VALGRIND)')
test-system: ## ... those with the real programs, signals, scripts
	$(call run_tests,$(SYSTEM_TESTS))
test-faults: ## Kill, freeze, cut and restart devices while frames flow (minutes; as root also in network namespaces)
	$(call run_tests,$(wildcard tests/fault/test_*.py))
	@grep -h "^# test_" $(BUILD)/test-logs/tests-fault-*.log || true

.PHONY: test-systemd
test-systemd: ## The unit under a systemd that boots in a container: start, reload, watchdog, stop (root; skipped where that cannot be)
	@scripts/install-deps build test systemd
	+@$(MAKE) --no-print-directory all
	+@$(MAKE) --no-print-directory --silent install PREFIX=/usr DESTDIR=$(abspath $(BUILD))/systemd-install
	@$(RUN_TESTS) $(wildcard tests/systemd/test_*.py)

SOAK_S ?= 3600
soak: ## Clients that come, go and misbehave for SOAK_S seconds; memory and descriptors must stay
	@scripts/install-deps build test
	+@$(MAKE) --no-print-directory all
	@CONVOY_BUILD=$(abspath $(BUILD)) tests/soak/soak.py --seconds $(SOAK_S) $(SOAK_FLAGS)

# Kernels and operators on another architecture: built with Debian's cross compiler and libraries (below $(BUILD)/root-ARCH;
# this machine's packages stay as they are), run by qemu-user. The daemon and convoyctl are left out: their libraries are many,
# and what they do does not depend on the CPU. CROSS_TESTS names other programs below tests/.
CROSS_TRIPLET_arm64 := aarch64-linux-gnu
CROSS_QEMU_arm64 := qemu-aarch64
CROSS_TRIPLET_armhf := arm-linux-gnueabihf
CROSS_QEMU_armhf := qemu-arm
CROSS_TESTS ?= $(patsubst tests/%.c,%,$(wildcard tests/kernels/test_*.c tests/unit/base/test_*.c tests/unit/kernels/test_*.c \
  tests/unit/proto/test_*.c tests/unit/model/test_ops_*.c tests/unit/model/test_half.c tests/unit/model/test_dynamic.c \
  tests/unit/model/test_graph.c tests/unit/model/test_passes.c tests/unit/model/test_traps.c))
define test_cross =
	@scripts/install-deps build test $(1)
	@scripts/cross-root $(1) $(BUILD)/root-$(1)
	+@PKG_CONFIG_SYSROOT_DIR=$(abspath $(BUILD)/root-$(1)) \
	  PKG_CONFIG_LIBDIR=$(abspath $(BUILD)/root-$(1)/usr/lib/$(CROSS_TRIPLET_$(1))/pkgconfig) \
	  $(MAKE) --no-print-directory BUILD=$(BUILD)/$(1) CC='$(filter ccache,$(CC)) $(CROSS_TRIPLET_$(1))-gcc --sysroot=$(abspath $(BUILD)/root-$(1))' \
	  LAYERS='$(CORE)' $(CROSS_TESTS:%=$(BUILD)/$(1)/tests/%)
	@CONVOY_TEST_QUICK=1 scripts/run-tests --logs $(BUILD)/$(1)/test-logs \
	  --under '$(CROSS_QEMU_$(1)) -L $(abspath $(BUILD)/root-$(1))' $(RUN_TESTS_FLAGS) $(CROSS_TESTS:%=$(BUILD)/$(1)/tests/%)
endef
.PHONY: test-arm64 test-armhf
test-arm64: ## The tests of kernels and models, built for 64-bit ARM (NEON), run by qemu-user (minutes)
	$(call test_cross,arm64)
test-armhf: ## ... for 32-bit ARM
	$(call test_cross,armhf)

# ONNX's own backend test data through importer and executor: a table per operator, and the counts in the last line.
.PHONY: conformance
conformance: ## Run ONNX's own tests of every operator (installs what it needs)
	@scripts/install-deps build test
	+@$(MAKE) --no-print-directory $(BUILD)/tests/conformance/conformance
	@$(BUILD)/tests/conformance/conformance $(CONFORMANCE_FLAGS)

.PHONY: operators
operators: $(BUILD)/convoyctl ## Write docs/operators.md from the table of operators
	@$(BUILD)/convoyctl ops --markdown > docs/operators.md.new && mv docs/operators.md.new docs/operators.md

# AlexNet, VGG-16, ResNet-50, MobileNetV3, ... with random weights, for sizes and speed: 1 GB in $(BUILD)/models.
$(BUILD)/write-models: $(call objects,tests/models) $(call libs_from,$(CORE))
	$(call say,LD,$@) $(CC) $(LDFLAGS) $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(foreach l,$(CORE),$(LIBS_$(l))) -o $@
.PHONY: models
models: $(BUILD)/write-models ## Write the well-known networks with random weights to $(BUILD)/models
	@$(BUILD)/write-models $(BUILD)/models

# The engines of bench/engines, and the peers they are compared with. BENCH_FLAGS go to bench/speed; BENCH_QUICK=1 is a
# minute with three networks.
BENCH_ENGINES := $(BUILD)/bench/engine-convoy $(BUILD)/bench/engine-opencv
$(BUILD)/bench/engine-convoy: $(BUILD)/obj/bench/engines/convoy.o $(call libs_from,ctl $(CORE))
	@mkdir -p $(@D)
	$(call say,LD,$@) $(CC) $(LDFLAGS) $^ $(foreach l,ctl $(CORE),$(LIBS_$(l))) -o $@
$(BUILD)/bench/engine-opencv: bench/engines/opencv.cpp
	@mkdir -p $(@D)
	$(call say,C++,$<) $(CXX) -O2 -Wall -Wextra -I/usr/include/opencv4 $< -lopencv_dnn -lopencv_core -o $@
.PHONY: bench
bench: ## Compare with ONNX Runtime and OpenCV, engine by engine in turn (installs what it needs)
	@scripts/install-deps build bench
	+@$(MAKE) --no-print-directory all models $(BENCH_ENGINES)
	@bench/install-peers $(BUILD)/bench
	@CONVOY_BUILD=$(abspath $(BUILD)) bench/speed $(BENCH_FLAGS)

# How long loading takes, and how much memory, against reading the file once.
$(BUILD)/bench/load: $(BUILD)/obj/bench/load.o $(call libs_from,$(CORE))
	@mkdir -p $(@D)
	$(call say,LD,$@) $(CC) $(LDFLAGS) $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(foreach l,$(CORE),$(LIBS_$(l))) -o $@
.PHONY: bench-load
bench-load: $(BUILD)/bench/load $(BUILD)/write-models ## Time and memory of loading a ResNet-50
	@$(BUILD)/write-models $(BUILD)/models resnet50
	@$(BUILD)/bench/load $(BUILD)/models/resnet50.onnx

.PHONY: bench-cluster
bench-cluster: ## Measure lines of emulated devices, as root (BENCH_FLAGS go to bench/cluster)
	@scripts/install-deps build test bench
	+@$(MAKE) --no-print-directory all models
	@CONVOY_BUILD=$(abspath $(BUILD)) bench/cluster $(BENCH_FLAGS)

.PHONY: demo
demo: ## Classify 10,000 real pictures on a line of three daemons (installs what it needs)
	@scripts/install-deps build test
	+@$(MAKE) --no-print-directory all
	@CONVOY_BUILD=$(abspath $(BUILD)) $(PYTHON) scripts/demo

# ---- fuzzing -----------------------------------------------------------------------------------------------------
# tests/fuzz/fuzz_NAME.c is a libFuzzer target; `make fuzz-NAME FUZZ_S=60` runs it. What it finds stays in its corpus,
# $(BUILD)/fuzz/corpus/NAME, which starts with tests/fuzz/corpus/NAME. FUZZ_SEED other than 0: the same inputs each time.
FUZZ_S ?= 60
FUZZ_SEED ?= 0
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BUILD := $(BUILD)/fuzz
$(BUILD)/tests/fuzz/%: LDFLAGS += -fsanitize=fuzzer
define fuzz =
	@scripts/install-deps build test lint
	+@$(MAKE) --no-print-directory CC=clang-14 WERROR=-w BUILD=$(FUZZ_BUILD) SANITIZE=fuzzer-no-link,address,undefined \
	  $(1:%=$(FUZZ_BUILD)/tests/fuzz/fuzz_%)
	@set -e; for name in $(1); do \
	  echo "fuzz-$$name: $(FUZZ_S) s"; mkdir -p $(FUZZ_BUILD)/corpus/$$name tests/fuzz/corpus/$$name; \
	  $(FUZZ_BUILD)/tests/fuzz/fuzz_$$name -max_total_time=$(FUZZ_S) -seed=$(FUZZ_SEED) -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
	    -print_final_stats=1 -artifact_prefix=$(FUZZ_BUILD)/ $(FUZZ_BUILD)/corpus/$$name tests/fuzz/corpus/$$name; \
	done
endef
.PHONY: seeds
seeds: $(BUILD)/tests/seeds/onnx_seeds ## Write the fuzzer's seeds that have every operator
	@$(BUILD)/tests/seeds/onnx_seeds tests/fuzz/corpus/onnx
.PHONY: fuzz $(FUZZERS:%=fuzz-%)
fuzz: ## Run every fuzzer of tests/fuzz for FUZZ_S seconds each (fuzz-NAME: one)
	$(call fuzz,$(FUZZERS))
$(FUZZERS:%=fuzz-%): fuzz-%:
	$(call fuzz,$*)

# ---- lint --------------------------------------------------------------------------------------------------------
# Compiled sources first, so that what is found here is not a plain error. A .tidy or .alone file says that its source
# was clean; it is made again when its object is, that is when any of its headers changes.
SOURCES := $(call sources,base kernels proto config plan tls model daemon ctl tests bench)
HEADERS := $(sort $(shell find base kernels proto config plan tls model daemon ctl tests -name '*.h' 2>/dev/null))
layer_of = $(firstword $(subst /, ,$(1)))
.PHONY: lint lint-all
lint: ## Format, clang-tidy, headers, layer order, scripts, man pages (installs what it needs)
	@scripts/install-deps build test lint
	@scripts/lint
	+@$(MAKE) --no-print-directory -k lint-all
	@echo "lint: clean"
lint-all: $(SOURCES:%.c=$(BUILD)/lint/%.tidy) $(HEADERS:%.h=$(BUILD)/lint/%.alone)
$(BUILD)/lint/%.tidy: $(BUILD)/obj/%.o .clang-tidy
	@mkdir -p $(@D)
	$(call say,TIDY,$*.c) clang-tidy-14 --quiet --warnings-as-errors='*' $*.c -- -std=gnu11 -pthread -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DCONVOY_VERSION='""' \
	  $(INC_$(call layer_of,$*)) 2>&1 | { ! grep -Ev '^[0-9]+ warnings? (generated|treated as)'; }
	@touch $@
$(BUILD)/lint/%.alone: %.h $(BUILD)/flags | $(GEN_H)
	@mkdir -p $(@D)
	$(call say,ALONE,$<) echo '#include "$(notdir $<)"' | $(CC) $(CFLAGS) -Werror -x c -iquote $(<D) $(INC_$(call layer_of,$<)) -o /dev/null -c - \
	  -MF $@.d -MT $@
	@touch $@

# ---- installing --------------------------------------------------------------------------------------------------
# Below $(DESTDIR)$(PREFIX); systemd looks there for units, users and folders, whether it is /usr or /usr/local.
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/convoy
SYSTEMDDIR ?= $(if $(filter /usr,$(PREFIX)),,$(PREFIX))/lib/systemd/system
INSTALLED = $(addprefix $(PREFIX)/bin/,convoyd convoyctl) $(SYSTEMDDIR)/convoyd.service \
  $(PREFIX)/lib/sysusers.d/convoy.conf $(PREFIX)/lib/tmpfiles.d/convoy.conf \
  $(foreach page,$(notdir $(wildcard docs/man/*)),$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(page)) \
  $(addprefix $(DOCDIR)/examples/,$(notdir $(wildcard config/examples/*.yaml)))
.PHONY: install uninstall
install: all ## Copy programs, manual pages, systemd's files and examples below $(DESTDIR)$(PREFIX)
	install -D -t $(DESTDIR)$(PREFIX)/bin $(BUILD)/convoyd $(BUILD)/convoyctl
	install -D -m 644 systemd/convoyd.service $(DESTDIR)$(SYSTEMDDIR)/convoyd.service
	sed -i 's|/usr/bin/convoyd|$(PREFIX)/bin/convoyd|' $(DESTDIR)$(SYSTEMDDIR)/convoyd.service
	install -D -m 644 systemd/convoy.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/convoy.conf
	install -D -m 644 systemd/convoy.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/convoy.conf
	for page in docs/man/*; do install -D -m 644 -t $(DESTDIR)$(MANDIR)/man$${page##*.} $$page; done
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/examples config/examples/*.yaml
uninstall: ## Remove what install has copied
	rm -f $(INSTALLED:%=$(DESTDIR)%)

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F '|' '{printf "  make %-17s %s\n", $$1, $$2}'

.PHONY: clean
clean: ## Remove what was built
	rm -rf build

.SECONDARY:
-include $(shell find $(BUILD)/obj $(BUILD)/lint -name '*.d' 2>/dev/null)
