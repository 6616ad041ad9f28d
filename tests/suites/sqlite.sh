#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sqlite.sh - SQLite's shell, tens of megabytes of values and a cache for all of them:
# made, indexed, updated, sorted, rolled back, checked by SQLite itself, and printed as
# counts and sums. Owns nothing. Lock: none.

exec sqlite3 -batch :memory: <<'SQL'
PRAGMA cache_size=-100000;
PRAGMA temp_store=MEMORY;
CREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT, b BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 60000)
INSERT INTO t SELECT i, printf('value %08d', i * 7919 % 60013), NULL FROM n;
CREATE INDEX tv ON t(v);
UPDATE t SET b = CAST(replace(hex(zeroblob(60)), '00', printf('%08d', k)) AS BLOB);
UPDATE t SET b = CAST(replace(hex(zeroblob(100000)), '00', printf('%08d', k)) AS BLOB) WHERE k <= 150;
UPDATE t SET b = CAST(substr(b, 2) AS BLOB) WHERE k <= 150;
SELECT 'rows ' || count(*) || ' ' || sum(length(b)) || ' ' || sum(unicode(b)) FROM t;
BEGIN;
UPDATE t SET v = v || ' again';
DELETE FROM t WHERE k % 3 = 0;
ROLLBACK;
DELETE FROM t WHERE k % 7 = 0;
SELECT 'order ' || sum(k * n % 1000003) FROM
	(SELECT k, row_number() OVER (ORDER BY b DESC, v) AS n FROM t);
SELECT 'index ' || sum(k % 1009) FROM (SELECT k FROM t INDEXED BY tv WHERE v > 'value 0003');
PRAGMA integrity_check;
SELECT 'passed';
SQL
