#!/bin/bash
# SPDX-License-Identifier: MIT
#
# databases.sh - SQLite and LMDB with their files mapped: what one connection writes
# the other sees at once, through its mapping, and the answers are those without.
#
# Owns a scratch folder; lock: none. OFFLOAD_FILES=all asks for every file: what is
# open for writing is left alone all the same. Large values are in memory that is
# paged: evictions must show that. What is not installed is told, and skipped.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
dir=$(mktemp -d "$(realpath "$B")/databases.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
unset LD_PRELOAD ${!OFFLOAD_*}
bad=0 done=0 missing=

fail() {
	echo "FAIL: $*"
	bad=1
}

# with MODE COMMAND...: under the library and a small budget.
with() {
	local mode=$1

	shift
	rm -f "$dir"/stats.*
	TMPDIR=$dir OFFLOAD_SPILL=$dir OFFLOAD_RAM=16M OFFLOAD_HOST_MIN=64K \
		OFFLOAD_FILES=all OFFLOAD_PAGER=$mode LD_PRELOAD=$lib \
		OFFLOAD_STATS="$dir/stats.%p" timeout 100 "$@"
}

# compare NAME MODE: want and got, and what the statistics show.
compare() {
	local n

	cmp -s "$dir/want" "$dir/got" ||
		fail "$1, $2: $(diff "$dir/want" "$dir/got" | head -n 6)"
	[ "$2" = hints ] && return
	grep -q "\"pager\":\"$2\"" "$dir"/stats.* ||
		{ echo "$1: mode $2 is not to be had here"; return; }
	n=$(grep -ho '"evictions":[0-9]*' "$dir"/stats.* | cut -d: -f2 | sort -n |
		tail -n 1)
	echo "$1, $2: $n evictions"
	[ "${n:-0}" -gt 10 ] || fail "$1, $2: $n evictions"
}

# ---- SQLite: its shell, two connections in turn through one file --------------------
cat >"$dir/one.sql" <<'SQL'
PRAGMA mmap_size=268435456;
PRAGMA cache_size=-2000;
CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v TEXT, b BLOB);
DELETE FROM t;
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 8000)
INSERT INTO t SELECT i, printf('value %d', i * 7919), NULL FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 320000)
INSERT INTO t SELECT 100000, 'big', group_concat(printf('%08x', i * 2654435761), '')
FROM n;
INSERT INTO t SELECT k + j, v, b || j FROM t, (SELECT 1 j UNION SELECT 2 UNION SELECT 3)
WHERE k = 100000;
COMMIT;
UPDATE t SET v = v || ' again' WHERE k % 3 = 0;
PRAGMA integrity_check;
SELECT count(*), sum(length(v)), sum(length(b)) FROM t;
SELECT count(DISTINCT b || v), max(length(b || replace(b, '0', '--'))) FROM t;
SELECT k, hex(substr(b, 1000000, 20)), length(replace(b, 'a', 'bb')) FROM t WHERE k > 90000;
SELECT sum(k * length(v)) FROM t;
.shell sqlite3 $DB "PRAGMA mmap_size=268435456; UPDATE t SET v = 'theirs' WHERE k % 5 = 0; SELECT changes();"
SELECT count(*) FROM t WHERE v = 'theirs';
SELECT sum(length(replace(v, 'e', 'xx'))) FROM t;
DELETE FROM t WHERE k % 2;
VACUUM;
PRAGMA integrity_check;
SELECT count(*), sum(length(v)), sum(length(b)) FROM t;
SQL

sqlite() {
	if ! command -v sqlite3 >/dev/null; then
		missing+=' sqlite3'
		return
	fi
	export DB=$dir/plain.db
	sqlite3 "$DB" <"$dir/one.sql" >"$dir/want" 2>&1 || fail "sqlite3 alone: $?"
	[ "$(grep -c '^ok' "$dir/want")" = 2 ] || fail "sqlite3: $(head -n 5 "$dir/want")"
	for mode in move copy; do
		DB=$dir/$mode.db
		with $mode sqlite3 "$DB" <"$dir/one.sql" >"$dir/got" 2>&1 ||
			fail "sqlite3, $mode: status $?: $(tail -n 2 "$dir/got")"
		compare sqlite3 $mode
		cmp -s "$dir/plain.db" "$DB" || [ "$(sqlite3 "$DB" .dump | cksum)" = \
			"$(sqlite3 "$dir/plain.db" .dump | cksum)" ] ||
			fail "sqlite3, $mode: the database differs"
	done
	done=$((done + 1))
}

# ---- LMDB: a reader that keeps its mapping, a writer in another process ---------------
cat >"$dir/lmdb.py" <<'PY'
import ctypes as C, hashlib, os, sys
L = C.CDLL("liblmdb.so.0")
class Val(C.Structure):
    _fields_ = [("n", C.c_size_t), ("p", C.c_void_p)]
P = C.c_void_p

def ok(r):
    assert r == 0, r

class Env:
    def __init__(self, path, flags=0):
        self.env = P()
        ok(L.mdb_env_create(C.byref(self.env)))
        ok(L.mdb_env_set_mapsize(self.env, C.c_size_t(256 << 20)))
        ok(L.mdb_env_open(self.env, path.encode(), C.c_uint(flags), 0o600))
    def begin(self, read):
        self.txn, self.dbi = P(), C.c_uint()
        ok(L.mdb_txn_begin(self.env, None, C.c_uint(0x20000 if read else 0),
                           C.byref(self.txn)))
        ok(L.mdb_dbi_open(self.txn, None, C.c_uint(0), C.byref(self.dbi)))
    def put(self, k, v):
        a, b = C.create_string_buffer(k, len(k)), C.create_string_buffer(v, len(v))
        ok(L.mdb_put(self.txn, self.dbi, C.byref(Val(len(k), C.cast(a, P))),
                     C.byref(Val(len(v), C.cast(b, P))), C.c_uint(0)))
    def get(self, k):
        a, v = C.create_string_buffer(k, len(k)), Val()
        ok(L.mdb_get(self.txn, self.dbi, C.byref(Val(len(k), C.cast(a, P))),
                     C.byref(v)))
        return C.string_at(v.p, v.n)
    def commit(self):
        ok(L.mdb_txn_commit(self.txn))

def value(i, gen):
    return (b"%d of %d;" % (i, gen)) * (50 + i % 200)

def write(path, gen):
    e = Env(path)
    e.begin(False)
    for i in range(1500):
        e.put(b"%d" % i, value(i, gen))
    e.put(b"big", b"%03d" % gen * (2 << 20))
    e.commit()

path = sys.argv[1]
os.mkdir(path)
write(path, 1)
e = Env(path)                      # its mapping stays over what others write
for gen in (1, 2):
    if gen > 1:
        pid = os.fork()
        if not pid:
            write(path, gen)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    ballast = bytearray(os.urandom(1 << 20)) * 24
    e.begin(True)
    bad = sum(e.get(b"%d" % i) != value(i, gen) for i in range(1500))
    big = e.get(b"big")
    print(gen, bad, len(big), hashlib.sha256(big).hexdigest(), len(ballast))
    e.commit()
PY

lmdb() {
	if ! command -v python3 >/dev/null ||
	   ! python3 -c 'import ctypes; ctypes.CDLL("liblmdb.so.0")' 2>/dev/null; then
		missing+=' liblmdb0'
		return
	fi
	python3 "$dir/lmdb.py" "$dir/plain.mdb" >"$dir/want" 2>&1 ||
		fail "lmdb alone: $(tail -n 1 "$dir/want")"
	for mode in move copy hints; do
		with $mode python3 "$dir/lmdb.py" "$dir/$mode.mdb" >"$dir/got" 2>&1 ||
			fail "lmdb, $mode: status $?: $(tail -n 2 "$dir/got")"
		compare lmdb $mode
	done
	done=$((done + 1))
}

sqlite
lmdb
[ $bad = 0 ] || exit 1
[ -z "$missing" ] || { echo "not installed:$missing; $done of 2 looked at"; exit 77; }
