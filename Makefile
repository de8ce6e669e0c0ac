# gptner.h itself is used by copying it. This builds what surrounds it: the
# examples, the mock server, the tests. Everything lands in $(B).
B           ?= build
CC          ?= cc
CFLAGS      ?= -O2 -g
CPPFLAGS    ?=
LDFLAGS     ?=
WARNINGS    ?= -std=c99 -Wall -Wextra -Wpedantic -Wshadow -Wconversion \
               -Wstrict-prototypes
LIBS        ?= -lmbedtls -lmbedx509 -lmbedcrypto -lpthread
TEST_LIBS   ?= -lcmocka
PREFIX      ?= /usr/local
INCLUDEDIR  ?= $(PREFIX)/include
PKGDIR      ?= $(PREFIX)/share/pkgconfig
DESTDIR     ?=
# Where to look for mbedTLS and cmocka, if the compiler does not know.
DEPS_PREFIX ?= $(shell test "`uname`" != Darwin || brew --prefix)
# Brings in what is missing; `make test SETUP=:` leaves the system alone.
SETUP       ?= sh tests/setup.sh

search    := $(if $(DEPS_PREFIX),-I$(DEPS_PREFIX)/include -L$(DEPS_PREFIX)/lib)
compile    = $(CC) $(WARNINGS) $(CPPFLAGS) $(CFLAGS) -I. $(search) -o $@ $< \
             $(LDFLAGS)
headers   := gptner.h $(wildcard mock_server/*.h tests/*.h tests/fuzz/*)
examples  := $(patsubst examples/%.c,$B/%,$(wildcard examples/*.c))
small     := $(patsubst %,$B/test_%_small,bytes http json)
tests     := $(patsubst tests/%.c,$B/%,$(wildcard tests/test_*.c)) $(small)
scripts   := $(wildcard tests/test_*.sh)
sources   := gptner.h $(wildcard [emt]*/*.[ch] tests/*/*.[ch])
setup     := $(if $(filter demo test,$(MAKECMDGOALS)),deps) # a fresh machine
version    = $(shell sed -n 's/^.define GPTNER_VERSION *"\(.*\)"/\1/p' gptner.h)

.PHONY: all demo test probe bench fuzz size lint format install uninstall \
        clean deps help
.DELETE_ON_ERROR:

all: $(examples) $B/mock_server ## examples and mock server, in build/

demo: $B/batch_processing_example $B/raw $B/mock_server ## real text, over HTTPS
	B=$B sh examples/demo.sh

test: $(examples) $(tests) $B/mock_server $B/probe ## build and run all tests
	B=$B sh tests/run.sh $(tests) $(scripts)

probe: $B/probe ## build/probe: the parsers from the outside

bench: $B/mock_server ## speed and memory, as ratios to peers
	B=$B CC="$(CC)" sh tests/bench/run.sh

fuzz: ## hostile bytes, a minute for each parser; needs clang
	B=$B sh tests/fuzz/run.sh

size: ## code size for each set of options
	CC="$(CC)" sh tests/size.sh

lint: ## names, layers, globals, lengths, manual
	CC="$(CC)" sh tests/lint.sh

format: ## clang-format, in place
	clang-format -i $(sources)

install: ## the header and a pkg-config file; PREFIX, DESTDIR
	mkdir -p "$(DESTDIR)$(INCLUDEDIR)" "$(DESTDIR)$(PKGDIR)"
	cp gptner.h "$(DESTDIR)$(INCLUDEDIR)/gptner.h"
	printf '%s\n' 'Name: gptner' 'Version: $(version)' \
	  'Description: OpenAI-compatible APIs, in parallel, in one C header' \
	  'Cflags: -I$(INCLUDEDIR)' 'Libs: $(LIBS)' \
	  >"$(DESTDIR)$(PKGDIR)/gptner.pc"
	chmod 644 "$(DESTDIR)$(INCLUDEDIR)/gptner.h" \
	  "$(DESTDIR)$(PKGDIR)/gptner.pc"

uninstall: ## remove what install put there
	rm -f "$(DESTDIR)$(INCLUDEDIR)/gptner.h" "$(DESTDIR)$(PKGDIR)/gptner.pc"

clean: ## remove build/
	rm -rf $B

deps: ## bring in compiler, mbedTLS and cmocka, if missing
	CC="$(CC)" FLAGS="$(search) $(CPPFLAGS) $(LDFLAGS)" $(SETUP)

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

$B: | $(setup)
	mkdir -p $B

$B/mock_server: mock_server/main.c $(headers) | $B
	$(compile) $(LIBS)

$B/%: examples/%.c gptner.h | $B
	$(compile) $(LIBS)

$B/test_%: tests/test_%.c $(headers) | $B
	$(compile) $(TEST_LIBS) $(LIBS)

$B/test_%_small: tests/test_%.c $(headers) | $B # what is simpler at -Os
	$(compile) -Os $(TEST_LIBS) $(LIBS)

$B/probe: tests/probe.c $(headers) | $B
	$(compile) $(LIBS)
