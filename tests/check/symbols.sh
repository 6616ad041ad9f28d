#!/bin/bash
# SPDX-License-Identifier: MIT
#
# symbols.sh - what the library shows to others, needs from others, and hides
# from itself.
#
# Owns nothing; lock: none.
# (1) The exports are the rows of interpose/symtab.def, no more and no less.
# (2) At run time it needs libc alone.
# (3) The bundled archives neither call nor define a name that the library
#     or a program's allocator may stand for (R8), and run nothing at load.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

rows() {
	sed -n 's/^[A-Z]*SYM[A-Z_]*(\([A-Za-z0-9_]*\).*/\1/p' \
		interpose/symtab.def | sort -u
}

mapped() {
	sed -e 's|/\*.*\*/||' -e '/local:/,$d' interpose/exports.map |
		grep -o '[A-Za-z_][A-Za-z0-9_]*;' | tr -d ';' | sort -u
}

exported() {
	nm -D --defined-only "$B/liboffload.so" | awk '{ print $3 }' |
		sed 's/@.*//' | grep -v '^OFFLOAD_' | sort -u
}

exports() {
	[ -n "$(rows)" ] || fail "interpose/symtab.def has no row"
	diff <(rows) <(mapped) ||
		fail "symtab.def (<) and exports.map (>) differ"
	diff <(rows) <(exported) ||
		fail "symtab.def (<) and the exports of liboffload.so (>) differ"
}

needed() {
	local extra

	extra=$(readelf -d "$B/liboffload.so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
		grep -vE '^(libc\.so\.6|ld-linux-.*\.so\.[0-9])$')
	[ -z "$extra" ] || fail "liboffload.so needs" $extra
}

names='malloc free calloc realloc reallocarray posix_memalign aligned_alloc
memalign valloc pvalloc malloc_usable_size malloc_trim mallopt cfree strdup
mmap mmap64 munmap mremap mprotect pkey_mprotect madvise posix_madvise mlock
mlock2 munlock mlockall munlockall mincore msync fork _Fork vfork clone
posix_spawn read readv pread pread64 preadv preadv64 preadv2 write writev
pwrite pwrite64 pwritev open open64 openat openat64 creat creat64 close
close_range closefrom dup dup2 dup3 fopen fopen64 fread ioctl sbrk brk dlsym
dlvsym dlopen getenv secure_getenv atexit pthread_atfork pthread_create
mallctl malloc_conf malloc_message mallocx _Znwm _Znam _ZdlPv _ZdaPv'

archive() {
	local found

	found=$(nm "$1" 2>/dev/null | awk 'NF >= 2 { print $NF, $(NF - 1) }' |
		grep -E ' [A-Zuvwi]$' | cut -d' ' -f1 | sort -u |
		comm -12 - <(tr ' ' '\n' <<<"$names" | sort -u))
	[ -z "$found" ] || fail "$1 still knows:" $found
	# Constructors, that is; .fini_array and old .ctors are as bad.
	found=$(readelf -SW "$1" 2>/dev/null |
		grep -oE '\.(init_array|fini_array|ctors|dtors)' | sort -u)
	[ -z "$found" ] || fail "$1 would run code at load:" $found
}

# The renamed names are known to the check: a row that nm cannot see in the
# archive as Debian ships it would make it vacuous.
not_vacuous() {
	local src

	src=$(${CC:-cc} -print-file-name=libjemalloc_pic.a)
	[ -e "$src" ] || return 0
	nm "$src" 2>/dev/null | grep -q ' U mmap$' &&
		nm "$src" 2>/dev/null | grep -q ' T malloc$' ||
		fail "the archive check looks for names that are never there"
}

[ -e "$B/liboffload.so" ] || { echo "FAIL: $B/liboffload.so is missing"; exit 1; }
exports
needed
for a in "$B"/deps/*.a; do
	[ -e "$a" ] || fail "no archive in $B/deps"
	archive "$a"
done
not_vacuous
exit $bad
