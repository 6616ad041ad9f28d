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

set -- $(for f in $sources; do [ -e "$f" ] && echo "$f"; done)
wc -l "$@" | awk '$2 != "total" && $1 > 800' | grep . && fail "files of more than 800 lines"
awk 'FNR == 1 { seen[FILENAME] = 0 } FNR <= 3 && /SPDX-License-Identifier: MIT/ { seen[FILENAME] = 1 }
     END { for (f in seen) if (!seen[f]) print f }' "$@" | grep . &&
	fail "they do not say their licence in the first lines"
grep -nE '[[:blank:]]+$' "$@" /dev/null && fail "blanks at line ends"

# Words in two halves, so that this file does not find itself.
here='/wo''rk/|/tmp/''npmx|registry\.np''mjs|pypi\.o''rg|deb\.deb''ian|DESIGN\.''md'
text=$(files '*.c' '*.h' '*.def' '*.sh' '*.md' '*.1' '*.7' 'Makefile' 'docs/*')
set -- $(for f in $text; do [ -e "$f" ] && echo "$f"; done)
grep -nE "$here" "$@" /dev/null && fail "a place of one machine is named"

# stdout belongs to the program.
grep -nE '\b(printf|puts|putchar)[[:space:]]*\(|\bstdout\b|STDOUT_FILENO' \
	core/*.[ch] interpose/*.[ch] policy/*.[ch] /dev/null |
	grep -vE '^[^:]*:[0-9]+:[[:space:]]*(\*|/\*|//)|format\(printf|/\*.*(stdout|printf)' |
	grep . && fail "the library may not print on stdout"

# The CUDA driver's own names are typedefs.
grep -nE '^[[:space:]]*typedef\b' $(files '*.c' '*.h' | grep -v '^interpose/cuda_') /dev/null |
	grep -v '(\*' && fail "typedefs hide what a thing is"
exit $bad
