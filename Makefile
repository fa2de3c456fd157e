# Convoy. `make help` lists the targets. Everything is built below $(BUILD); SANITIZE=address,undefined builds another
# tree with sanitizers.

SHELL := /bin/bash
CC ?= cc
SANITIZE ?=
BUILD ?= build$(if $(SANITIZE),/$(subst $(comma),-,$(SANITIZE)))
comma := ,
VERSION := $(shell sed -n 's/^\#\# \([0-9][^ ]*\).*/\1/p' CHANGELOG.md 2>/dev/null | head -n 1)
PREFIX ?= /usr/local
DESTDIR ?=
PYTHON ?= /usr/bin/python3

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
HARDENING := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
WERROR ?=
CFLAGS ?= -O2 -g
override CFLAGS += -std=gnu11 $(WARNINGS) $(WERROR) -fno-math-errno -ffp-contract=off -pthread -D_GNU_SOURCE -MMD -MP \
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
INC_model := -I. -I$(BUILD)/gen
INC_daemon := -I. -I$(BUILD)/gen
INC_ctl := -I. -I$(BUILD)/gen
INC_tests := -I. -I$(BUILD)/gen

PKG = $(shell pkg-config --libs $(1))
LIBS_kernels = $(call PKG,openblas) -lm
LIBS_proto = $(call PKG,libprotobuf-c)
LIBS_config = $(call PKG,yaml-0.1)
LIBS_base = $(call PKG,libcrypto)
LIBS_daemon = $(call PKG,libuv libsystemd jansson)
LIBS_ctl = $(call PKG,libavformat libavcodec libavutil libswscale libavdevice jansson libuv)

sources = $(sort $(shell find $(1) -name '*.c' 2>/dev/null))
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(call sources,$(1)))
library = $(BUILD)/lib$(1).a

# main.c of each program stays out of its library, so that tests can link everything else.
MAINS := daemon/main.c ctl/main.c
obj_of = $(filter-out $(patsubst %.c,$(BUILD)/obj/%.o,$(MAINS)),$(call objects,$(1)))

.PHONY: all
all: $(BUILD)/convoyd $(BUILD)/convoyctl ## Build the two programs

# ---- generated sources -------------------------------------------------------------------------------------------
GEN := convoy onnx
$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h &: proto/%.proto
	@mkdir -p $(BUILD)/gen
	protoc-c --proto_path=proto --c_out=$(BUILD)/gen proto/$*.proto
GEN_H := $(GEN:%=$(BUILD)/gen/%.pb-c.h)
$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.pb-c.c
	@mkdir -p $(@D)
	$(CC) $(filter-out $(WARNINGS) -Werror,$(CFLAGS)) -I$(BUILD)/gen -c $< -o $@

# ---- objects and libraries ---------------------------------------------------------------------------------------
# Kernels are worth -O3; they are compiled with -Ikernels alone.
$(BUILD)/obj/kernels/%.o: CFLAGS += $(if $(SANITIZE),,-O3)
$(BUILD)/obj/%.o: %.c | $(GEN_H)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(INC_$(firstword $(subst /, ,$*))) -c $< -o $@

$(call library,kernels): $(call obj_of,kernels)
$(call library,base): $(call obj_of,base)
$(call library,proto): $(call obj_of,proto) $(GEN:%=$(BUILD)/obj/gen/%.o)
$(call library,config): $(call obj_of,config)
$(call library,plan): $(call obj_of,plan)
$(call library,model): $(call obj_of,model)
$(call library,daemon): $(call obj_of,daemon)
$(call library,ctl): $(call obj_of,ctl)
$(BUILD)/lib%.a:
	@rm -f $@
	$(AR) rcs $@ $^

# A program or a test may need any layer below it; the linker takes what it uses.
LAYERS := daemon ctl model plan config proto base kernels
libs_from = $(foreach l,$(1),$(call library,$(l)))
LIBS_ALL = $(foreach l,$(LAYERS),$(LIBS_$(l)))

CORE := model plan config proto base kernels
$(BUILD)/convoyd: $(BUILD)/obj/daemon/main.o $(call libs_from,daemon $(CORE))
	$(CC) $(LDFLAGS) $^ $(foreach l,daemon $(CORE),$(LIBS_$(l))) -o $@
$(BUILD)/convoyctl: $(BUILD)/obj/ctl/main.o $(call libs_from,ctl $(CORE))
	$(CC) $(LDFLAGS) $^ $(foreach l,ctl $(CORE),$(LIBS_$(l))) -o $@

# ---- tests -------------------------------------------------------------------------------------------------------
# tests/unit/<layer>/test_*.c and tests/integration/test_*.c: one cmocka program each. tests/kernels/: the checker.
UNIT_TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*/test_*.c tests/integration/test_*.c tests/kernels/test_*.c))
TESTLIB_OBJ = $(call objects,tests/lib)
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TESTLIB_OBJ) $(call libs_from,$(LAYERS))
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS_ALL) $(call PKG,cmocka) -o $@

.PHONY: tests
tests: $(UNIT_TESTS) ## Build all test programs

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

.PHONY: clean
clean: ## Remove what was built
	rm -rf build

.SECONDARY:
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
