#!/bin/bash
# SPDX-License-Identifier: MIT
#
# style.sh - what a machine can see of the house style.
#
# Owns nothing; lock: none. Looks at the files git knows: length, licence
# line, blanks at line ends, names of machines and places that mean nothing
# to a reader elsewhere, and prints to stdout from inside the library.

cd "$(dirname "$0")/../.." || exit 1
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

files() {
	git ls-files --cached --others --exclude-standard -- "$@" 2>/dev/null
}

[ -n "$(files '*.c')" ] || { echo "not a git checkout"; exit 77; }

sources=$(files '*.c' '*.h' '*.def' '*.sh' 'Makefile' 'core/rename.syms')

for f in $sources; do
	[ -e "$f" ] || continue
	n=$(wc -l <"$f")
	[ "$n" -le 800 ] || fail "$f has $n lines, more than 800"
	head -n 3 "$f" | grep -q 'SPDX-License-Identifier: MIT' ||
		fail "$f does not say its licence in the first lines"
	grep -nE '[[:blank:]]+$' "$f" /dev/null && fail "$f: blanks at line ends"
done

# Words in two halves, so that this file does not find itself.
here='/wo''rk/|/tmp/''npmx|registry\.np''mjs|pypi\.o''rg|deb\.deb''ian|DESIGN\.''md'
text=$(files '*.c' '*.h' '*.def' '*.sh' '*.md' '*.1' '*.7' 'Makefile' 'docs/*')
for f in $text; do
	[ -e "$f" ] || continue
	grep -nE "$here" "$f" /dev/null && fail "$f names a place of one machine"
done

# stdout belongs to the program.
grep -nE '\b(printf|puts|putchar)[[:space:]]*\(|\bstdout\b|STDOUT_FILENO' \
	core/*.[ch] interpose/*.[ch] policy/*.[ch] /dev/null |
	grep -vE '^[^:]*:[0-9]+:[[:space:]]*(\*|/\*|//)|format\(printf|/\*.*(stdout|printf)' |
	grep . && fail "the library may not print on stdout"

# The CUDA driver's own names are typedefs.
grep -nE '^[[:space:]]*typedef\b' $(files '*.c' '*.h' | grep -v '^interpose/cuda_') /dev/null |
	grep -v '(\*' && fail "typedefs hide what a thing is"
exit $bad
