#!/bin/sh
# SPDX-License-Identifier: MIT
# install.sh DIR - have an engine ready under DIR, and say which on stdout:
# "node" (llama.cpp, prebuilt, from the npm registry) or "torch" (Debian's
# python3-torch, where node is too old or the registry cannot be reached).
#
# 1. Nothing is done when DIR holds the engine already.
# 2. Package scripts are never run: the prebuilt library needs none.
# 3. The version is fixed, so that two machines run the same engine.
# 4. llama.cpp's backend for processors with AMX copies most weights into
#    memory of its own when it loads (no option of this package's turns that
#    off), and then the mapped file is read once only. It is left out, so that
#    every processor runs the same way: on the mapping.
set -u

VERSION=3.22.1
dir=${1:?usage: install.sh DIR}
here=$(dirname "$0")
stamp=$dir/.ready-$VERSION-mapped

node_fits() {
	[ "$(uname -m)" = x86_64 ] && command -v npm >/dev/null &&
		node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null
}

install_node() {
	mkdir -p "$dir" || return 1
	echo '{"name":"engine","version":"1.0.0","private":true}' >"$dir/package.json"
	echo "engine: installing llama.cpp (node-llama-cpp $VERSION)" >&2
	(cd "$dir" && npm install --ignore-scripts --omit=optional --no-audit \
		--no-fund --loglevel=error "node-llama-cpp@$VERSION" \
		"@node-llama-cpp/linux-x64@$VERSION") >&2 || return 1
	rm -f "$dir"/node_modules/@node-llama-cpp/linux-x64/bins/*/libggml-cpu-sapphirerapids.so
	: >"$stamp"
}

has_torch() {
	/usr/bin/python3 -c 'import torch, numpy' 2>/dev/null
}

if node_fits && { [ -f "$stamp" ] || install_node; }; then
	echo node
	exit 0
fi
echo "engine: no node 20 or no registry: Debian's python3-torch instead" >&2
has_torch || "$here/../setup.sh" torch || exit 1
has_torch || { echo "engine: Debian's python3 has no torch" >&2; exit 1; }
echo torch
