# SPDX-License-Identifier: MIT
# liboffload: `make`, `make check`, `make demo`. V=1 shows the commands.

CC      ?= cc
CFLAGS  ?= -O2 -g
LDFLAGS ?=
PREFIX  ?= /usr/local
DESTDIR ?=
B       := build
VERSION := 0.1.0

WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
           -Wmissing-prototypes -Wno-unused-parameter -Wvla
BASE    := -std=gnu17 $(WARN) -D_GNU_SOURCE -fPIC -fvisibility=hidden -fdata-sections \
           -pthread -MMD -MP -I. -DOFF_VERSION='"$(VERSION)"'
ALLCF    = $(BASE) $(CFLAGS) $(OWN) $(SAN)

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-7s %s\n' $(1) $(2)
endif

policy_src := $(sort $(wildcard policy/*.c))
core_src   := $(sort $(wildcard core/*.c))
ipo_src    := $(sort $(wildcard interpose/*.c))
offctl_src := $(sort $(wildcard tools/offctl*.c))
unit_src   := $(sort $(wildcard tests/unit/test_*.c))
emu_src    := $(sort $(filter-out tests/emu/test_% tests/emu/ptx%,$(wildcard tests/emu/*.c)))
emu_test   := $(sort $(filter-out tests/emu/test_ptx_%,$(wildcard tests/emu/test_*.c)))
fuzz_src   := $(sort $(wildcard tests/fuzz/*.c))
trap_src   := $(sort $(wildcard tests/preload/*.c))
ptx_src    := $(sort $(wildcard tests/emu/ptx*.c))
ptx_test   := $(sort $(wildcard tests/emu/test_ptx_*.c))

# malloc itself may not be turned into calls of malloc.
$(B)/o/interpose/heap.o: OWN += -fno-builtin

obj = $(patsubst %.c,$(B)/o/%.o,$(1))

.DELETE_ON_ERROR:
.SECONDARY:

all: $(B)/liboffload.so $(B)/offctl $(B)/mkmodel $(B)/libpolicy.a

$(B)/o/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALLCF) -c -o $@ $<

# What the archives, the library and offctl are made of: a source that came or went makes
# them anew, whatever its age (to make, a missing object is no reason: .SECONDARY).
.PHONY: FORCE
$(B)/%.list: FORCE
	@mkdir -p $(@D)
	$(Q)echo '$($*_src)' | cmp -s - $@ || echo '$($*_src)' >$@

$(B)/libpolicy.a: $(B)/policy.list $(call obj,$(policy_src))
	$(call say,AR,$@)
	$(Q)rm -f $@; ar rcs $@ $(filter %.o,$^)

$(B)/libcore.a: $(B)/core.list $(call obj,$(core_src))
	$(call say,AR,$@)
	$(Q)rm -f $@; ar rcs $@ $(filter %.o,$^)

# ---- bundled archives, their libc and malloc names renamed (R8), nothing of
# theirs run at load (jemalloc's constructor: the heap is set up at first use)
ARCHIVES := uring lz4 zstd jemalloc_pic sodium
DEPS     := $(ARCHIVES:%=$(B)/deps/lib%.a)

$(B)/deps/lib%.a: core/rename.syms
	$(call say,RENAME,lib$*.a)
	@mkdir -p $(@D)
	$(Q)src=$$($(CC) -print-file-name=lib$*.a); \
	 [ -e "$$src" ] || { echo "make: lib$*.a is missing: run tools/setup.sh" >&2; exit 1; }; \
	 objcopy --redefine-syms=core/rename.syms --remove-section=.init_array \
	   --remove-section=.rela.init_array "$$src" $@

# Small variables lie together, between no tables: a start touches two pages of them.
# Written once more from its start to its end: a linker writes here and there, and the
# page cache then holds it in small pieces, which costs each start 0.3 ms.
$(B)/liboffload.so: $(B)/ipo.list $(call obj,$(ipo_src)) $(B)/libcore.a $(B)/libpolicy.a \
		    $(DEPS) interpose/exports.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -o $@.ld $(call obj,$(ipo_src)) $(B)/libcore.a \
	  $(B)/libpolicy.a $(DEPS) -Wl,--version-script=interpose/exports.map \
	  -Wl,-z,now -Wl,-z,relro -Wl,-z,nodelete -Wl,--no-undefined \
	  -Wl,--exclude-libs,ALL -Wl,-O1 -Wl,--as-needed -Wl,--sort-section=alignment \
	  -pthread $(SAN) $(LDFLAGS)
	$(Q)cat $@.ld >$@.tmp && chmod +x $@.tmp && mv $@.tmp $@ && rm $@.ld

$(B)/offctl: $(B)/offctl.list $(call obj,$(offctl_src)) $(B)/libcore.a $(B)/libpolicy.a $(DEPS)
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $(filter-out %.list,$^) -pthread -Wl,--as-needed -lncursesw -ltinfo $(SAN) $(LDFLAGS)

$(B)/mkmodel: $(call obj,tools/mkmodel.c)
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ -lm -pthread $(SAN) $(LDFLAGS)

# ---- tests ----------------------------------------------------------------
$(B)/unit/%: $(B)/o/tests/unit/%.o $(B)/libcore.a $(B)/libpolicy.a $(DEPS)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ -Wl,--start-group $^ -Wl,--end-group -lcmocka -pthread $(SAN) $(LDFLAGS)

# The seams that failures are put in at: see tests/fault/sites.def.
fault_obj := $(call obj,$(sort $(wildcard tests/fault/*.c)))
wraps := syscall ioctl off_sys_ioctl run_judge io_uring_ops io_pread_ops \
	 $(sort $(shell grep '^FN' tests/fault/sites.def | cut -d, -f1 | cut -c4-))

$(fault_obj): tests/fault/sites.def
$(B)/fault/nth: $(fault_obj) $(B)/libcore.a $(B)/libpolicy.a $(DEPS)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $(wraps:%=-Wl,--wrap=%) -Wl,--start-group $^ -Wl,--end-group -pthread $(SAN) $(LDFLAGS)

$(B)/fuzz/%: $(B)/o/tests/fuzz/%.o $(B)/libcore.a $(B)/libpolicy.a $(DEPS)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ -Wl,--start-group $^ -Wl,--end-group -fsanitize=fuzzer -pthread $(SAN) $(LDFLAGS)

# Intrinsics of a CPU that need not be there.
$(B)/o/tests/unit/test_fx512.o: OWN += -Itests/unit/shim

# The PTX interpreter. Its values may not depend on what the compiler contracts.
$(B)/o/tests/emu/ptx_%.o: OWN += -fno-strict-aliasing -ffp-contract=off \
  -fno-math-errno -fno-trapping-math
$(B)/o/tests/emu/ptx_ops_%.o: OWN += $(if $(SAN),-O1,-O3)

$(B)/libptx.a: $(call obj,$(ptx_src))
	$(call say,AR,$@)
	$(Q)rm -f $@; ar rcs $@ $^

$(B)/unit/test_ptx_%: $(B)/o/tests/emu/test_ptx_%.o $(B)/libptx.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -lcmocka -lm -pthread $(SAN) $(LDFLAGS)

# Test programs of the preload suite: plain programs, nothing of ours inside.
$(B)/preload/sites: trap_ld := -rdynamic	# its functions' names can be found
$(B)/preload/%: tests/preload/%.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 $(WARN) -D_GNU_SOURCE -O2 -g -pthread -MMD -MP -o $@ $< $(trap_ld)

# The emulated GPU driver, and programs that hold it to its rules: they link it.
$(B)/emu/libcuda.so.1: $(call obj,$(emu_src)) $(B)/libptx.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -o $@ $^ -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic -Wl,--no-undefined \
	  -Wl,-z,nodelete -lm -pthread $(SAN) $(LDFLAGS)
	$(Q)ln -sf libcuda.so.1 $(@D)/libcuda.so

$(B)/emu/%: $(B)/o/tests/emu/%.o $(B)/emu/libcuda.so.1
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ -Wl,-rpath,'$$ORIGIN' -pthread $(SAN) $(LDFLAGS)

unit_bin := $(patsubst tests/unit/%.c,$(B)/unit/%,$(unit_src)) \
	    $(patsubst tests/emu/%.c,$(B)/unit/%,$(ptx_test))
fuzz_bin := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(fuzz_src))

# ---- a program on the CUDA driver API, and its kernels where clang is to be had
# One text for the processor and for the kernels: the same bits (arith.h).
$(B)/o/tests/engine/%.o: OWN += -ffp-contract=off

$(B)/engine/engine: $(call obj,$(addprefix tests/engine/,cpu.c driver.c engine.c graph.c launch.c load.c model.c options.c pass.c))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -pthread -lm -ldl $(SAN) $(LDFLAGS)

$(B)/engine/random: $(call obj,$(addprefix tests/engine/,driver.c options.c) $(wildcard tests/engine/random*.c))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -pthread -ldl $(SAN) $(LDFLAGS)

$(B)/engine/skew: $(call obj,$(addprefix tests/engine/,driver.c options.c skew.c))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -pthread -ldl $(SAN) $(LDFLAGS)

$(B)/engine/graphs: $(call obj,$(addprefix tests/engine/,driver.c options.c graphs.c))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -pthread -ldl $(SAN) $(LDFLAGS)

$(B)/engine/%.ptx: tests/engine/%.cu tests/engine/arith.h tests/engine/random_body.h
	$(call say,PTX,$@)
	@mkdir -p $(@D)
	$(Q)clang++ -x cuda --cuda-device-only --cuda-gpu-arch=sm_80 -nocudainc -nocudalib \
	  -Xclang -target-feature -Xclang +ptx70 -Wno-unknown-cuda-version -Wall -Wextra -Werror \
	  -O2 -ffp-contract=off -I. -S -o $@ $<

# Questions to a card: no library, no compiler is needed where they are asked.
$(B)/gpu/facts: $(call obj,tests/engine/driver.c $(wildcard tests/gpu/facts*.c))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -pthread -ldl $(SAN) $(LDFLAGS)
$(B)/gpu/cudart: $(call obj,tests/gpu/cudart.c)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -Wl,--export-dynamic-symbol=dlsym -ldl $(LDFLAGS)
$(B)/gpu/launch: tests/bench/launch.c
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 $(WARN) -Wno-missing-prototypes -D_GNU_SOURCE -O2 -o $@ $< -ldl $(LDFLAGS)
$(B)/gpu/stub/libcuda.so.1: tests/bench/launch.c
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 $(WARN) -Wno-missing-prototypes -D_GNU_SOURCE -O2 -DDRIVER -fPIC \
	  -shared -Wl,-soname,libcuda.so.1 -o $@ $< $(LDFLAGS)
gpu_bin := $(addprefix $(B)/gpu/,facts cudart launch stub/libcuda.so.1)
tests-bin: $(gpu_bin)

engine_bin := $(B)/engine/engine $(B)/engine/random $(B)/engine/skew $(B)/engine/graphs
ifneq ($(shell command -v clang++ 2>/dev/null),)
engine_bin += $(B)/engine/engine.ptx $(B)/engine/random.ptx $(B)/engine/skew.ptx
endif
tests-bin: $(engine_bin)

trap_bin := $(patsubst tests/preload/%.c,$(B)/preload/%,$(trap_src))

# The driver's look-ups: a stub of it, programs that find it in every way there is,
# and objects they load. Linked for binding at start, and at first use.
$(B)/o/tests/cuda/%.o: OWN += -fvisibility=default
$(B)/cuda/%/libcuda.so.1: $(B)/o/tests/cuda/stub.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -o $@ $^ -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic $(LDFLAGS)
$(B)/cuda/%.so: $(B)/o/tests/cuda/lib_%.o $(B)/cuda/stub/libcuda.so.1
	$(call say,LD,$@)
	$(Q)$(CC) -shared -o $@ $< $(cuda_ld) $(LDFLAGS)
$(B)/cuda/sub/libinner.so: $(B)/o/tests/cuda/lib_inner.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -o $@ $< $(LDFLAGS)
$(B)/cuda/plugin.so: $(B)/cuda/sub/libinner.so
$(B)/cuda/plugin.so: cuda_ld := -Wl,--enable-new-dtags,-rpath,'$$ORIGIN/sub:$$ORIGIN/stub' \
  -Wl,--no-as-needed $(B)/cuda/stub/libcuda.so.1 $(B)/cuda/sub/libinner.so
$(B)/cuda/%.now $(B)/cuda/%.lazy: $(B)/o/tests/cuda/%.o $(B)/cuda/stub/libcuda.so.1
	$(call say,LD,$@)
	$(Q)$(CC) -pie -o $(B)/cuda/$*.now $^ -Wl,-z,now -Wl,-z,relro -Wl,-rpath,'$$ORIGIN/stub' -pthread $(LDFLAGS)
	$(Q)$(CC) -no-pie -o $(B)/cuda/$*.lazy $^ -Wl,-z,lazy -Wl,-rpath,'$$ORIGIN/stub' -pthread $(LDFLAGS)
$(B)/cuda/nvml/libnvidia-ml.so.1: $(B)/o/tests/cuda/lib_nvml.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -o $@ $< -Wl,-soname,libnvidia-ml.so.1 $(LDFLAGS)
$(B)/cuda/account: $(B)/o/tests/cuda/account.o $(B)/o/tests/cuda/account_more.o $(B)/emu/libcuda.so.1
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ -Wl,-rpath,'$$ORIGIN/../emu' -pthread $(LDFLAGS)
$(B)/cuda/%: $(B)/o/tests/cuda/%.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $< -pthread $(LDFLAGS)
cuda_bin := $(addprefix $(B)/cuda/,stub/libcuda.so.1 moved/libcuda.so.1 plugin.so wrap.so \
  nvml/libnvidia-ml.so.1 lookups plugged owner account linked.now wrapped.now)

setup:
	$(Q)tools/setup.sh

emu_bin  := $(patsubst tests/emu/%.c,$(B)/emu/%,$(emu_test))

tests-bin: $(unit_bin) $(trap_bin) $(B)/fault/nth $(emu_bin) $(cuda_bin)

check: setup
	$(Q)$(MAKE) --no-print-directory all tests-bin
	$(Q)tests/run.sh check

check-long:
	$(Q)tools/setup.sh build test long
	$(Q)$(MAKE) --no-print-directory all tests-bin
	$(Q)tests/run.sh long

# Sanitizers never preload malloc: they run the unit programs and the emulated driver's.
check-asan:
	$(Q)$(MAKE) --no-print-directory B=$(B)/asan SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" unit emu
check-tsan:
	$(Q)$(MAKE) --no-print-directory B=$(B)/tsan SAN="-fsanitize=thread" unit emu

# A fuzzer for each decoder, by clang: tests/run.sh long runs them.
fuzz:
	$(Q)$(MAKE) --no-print-directory B=$(B)/clang CC=clang SAN="-fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined" fuzz-bin
fuzz-bin: $(fuzz_bin)

unit: $(unit_bin)
	$(Q)B=$(B) tests/run.sh unit

# What needs a card. It runs on a build that was brought, too: nothing is built for those
# who have no card, and where it cannot be built (no compiler) what is there is run.
gpu-bin: all $(gpu_bin) $(engine_bin)
check-gpu:
	$(Q)tests/gpu/run.sh --present >/dev/null && { $(MAKE) --no-print-directory gpu-bin || \
	  { [ -e $(B)/gpu/facts ] && echo "check-gpu: not built here: the build that is there is run"; }; } || true
	$(Q)B=$(B) tests/gpu/run.sh

engine: all $(B)/emu/libcuda.so.1 $(engine_bin)
	$(Q)B=$(B) tests/run.sh engine

emu: $(B)/emu/libcuda.so.1 $(emu_bin)
	$(Q)B=$(B) tests/run.sh emu

demo: setup
	$(Q)$(MAKE) --no-print-directory all
	$(Q)tools/demo.sh

bench: setup
	$(Q)$(MAKE) --no-print-directory all
	$(Q)tests/bench/run.sh

install: all
	install -d $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 755 $(B)/liboffload.so $(DESTDIR)$(PREFIX)/lib/
	install -m 755 $(B)/offctl $(DESTDIR)$(PREFIX)/bin/
	install -m 644 docs/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 docs/*.7 $(DESTDIR)$(PREFIX)/share/man/man7/

clean:
	rm -rf $(B)

.PHONY: all setup check check-long check-asan check-tsan unit emu engine gpu-bin check-gpu tests-bin fuzz fuzz-bin demo bench install clean

-include $(shell find $(B) -name '*.d' 2>/dev/null)
