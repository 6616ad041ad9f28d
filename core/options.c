/* SPDX-License-Identifier: MIT */
/* options.c - reads the OFFLOAD_ variables.
 *
 * Owns off_opt and the store its texts are copied to.
 *
 *     defaults --options_read--> read (immutable)
 *
 * 1. Nothing is allocated and nothing but the environment is read: this runs
 *    in the constructor of every program of a preloaded shell.
 * 2. A bad variable is told once, with what is accepted and the nearest
 *    name; it is never guessed at (R9).
 * Lock: none; options_read runs before any thread.
 */
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "at_start.h"
#include "log.h"

#define PREFIX		"OFFLOAD_"
#define NAME_MAX_LEN	32

const struct off_options off_opt_default = {
#define OPT(type, name, field, def, min, max, words, help) .field = def,
#include "options.def"
#undef OPT
};

struct off_options off_opt = {
#define OPT(type, name, field, def, min, max, words, help) .field = def,
#include "options.def"
#undef OPT
};

static const struct opt_row rows[] = {
#define OPT(type, name, field, def, min, max, words, help) \
	{ #name, OPT_##type, offsetof(struct off_options, field), min, max, \
	  words, help },
#include "options.def"
#undef OPT
};

#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

/* Holds every text option; untouched, so free, when none is set. */
static char store[16384];
static size_t store_used;

static int is_text(enum opt_type t)
{
	return t == OPT_PATH || t == OPT_GLOB ||
	       t == OPT_RULE || t == OPT_OUT;
}

static uint64_t *number_at(struct off_options *o, const struct opt_row *r)
{
	return (uint64_t *)((char *)o + r->offset);
}

static const char **text_at(struct off_options *o, const struct opt_row *r)
{
	return (const char **)((char *)o + r->offset);
}

/* ---- values -------------------------------------------------------------- */

static int decimal(const char **p, uint64_t *out)
{
	uint64_t v = 0;
	const char *s = *p;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	*p = s;
	*out = v;
	return 0;
}

static int suffix_shift(const char **p)
{
	static const char letters[] = "kmgt";
	const char *at = **p ? strchr(letters, **p | 0x20) : NULL;

	if (!at)
		return 0;
	++*p;
	return (int)(at - letters + 1) * 10;
}

static uint64_t pow10_of(size_t digits)
{
	uint64_t v = 1;

	while (digits--)
		v *= 10;
	return v;
}

int options_size(const char *text, uint64_t *bytes)
{
	uint64_t whole, frac = 0, unit;
	const char *s = text, *point = NULL;
	size_t digits = 0;
	int err, shift;

	err = decimal(&s, &whole);
	if (err)
		return err;
	if (*s == '.') {
		point = ++s;
		err = decimal(&s, &frac);
		digits = (size_t)(s - point);
		if (err || digits > 3)
			return -EINVAL;
	}
	shift = suffix_shift(&s);
	if (shift && (!strcasecmp(s, "b") || !strcasecmp(s, "ib")))
		s += strlen(s);
	if (*s || (point && !shift))
		return -EINVAL;
	unit = 1ull << shift;
	if (whole > OPT_SIZE_MAX / unit)
		return -ERANGE;
	*bytes = whole * unit + frac * unit / pow10_of(digits);
	return *bytes > OPT_SIZE_MAX ? -ERANGE : 0;
}

static int parse_size(const struct opt_row *r, const char *v)
{
	uint64_t n;
	int err = options_size(v, &n);

	if (err)
		return err;
	if (n < r->min || n > r->max)
		return -ERANGE;
	*number_at(&off_opt, r) = n;
	return 0;
}

static int parse_num(const struct opt_row *r, const char *v)
{
	uint64_t n;
	int err = decimal(&v, &n);

	if (err)
		return err;
	if (*v)
		return -EINVAL;
	if (n < r->min || n > r->max)
		return -ERANGE;
	*number_at(&off_opt, r) = n;
	return 0;
}

/* The i-th word of "a|b|c": its length, and where it begins in *at; 0 past
 * the last. */
static size_t word_at(const char *words, unsigned int i, const char **at)
{
	while (i--) {
		words = strchr(words, '|');
		if (!words)
			return 0;
		words++;
	}
	*at = words;
	return strcspn(words, "|");
}

/* Which of the row's words the first len letters of v are, or -EINVAL. */
static int which_word(const struct opt_row *r, const char *v, size_t len)
{
	const char *w;
	size_t n;

	for (unsigned int i = 0; (n = word_at(r->words, i, &w)); i++)
		if (n == len && !strncmp(v, w, len))
			return (int)i;
	return -EINVAL;
}

static int parse_enum(const struct opt_row *r, const char *v)
{
	int i = which_word(r, v, strlen(v));

	if (i < 0)
		return i;
	*number_at(&off_opt, r) = (uint64_t)i;
	return 0;
}

static char *store_text(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	char *at = store + store_used;

	if (la + lb + 2 > sizeof(store) - store_used)
		return NULL;
	memcpy(at, a, la);
	memcpy(at + la, b, lb + 1);
	store_used += la + lb + 1;
	return at;
}

/* A relative path means the directory the program started in; by the time
 * it is opened the program may have gone elsewhere. */
static int parse_path(const struct opt_row *r, const char *v)
{
	char dir[4096];
	long n = 0;

	if (v[0] != '/') {
		n = syscall(SYS_getcwd, dir, sizeof(dir) - 1);
		if (n <= 1)
			return -EINVAL;
		if (dir[n - 2] != '/')
			strcpy(dir + n - 1, "/");
	}
	*text_at(&off_opt, r) = store_text(n ? dir : "", v);
	return *text_at(&off_opt, r) ? 0 : -ENAMETOOLONG;
}

static int parse_text(const struct opt_row *r, const char *v)
{
	*text_at(&off_opt, r) = store_text("", v);
	return *text_at(&off_opt, r) ? 0 : -ENAMETOOLONG;
}

static int parse_rule(const struct opt_row *r, const char *v)
{
	size_t word = strcspn(v, ":");
	int i = which_word(r, v, word);

	if (i < 0 || (v[word] && !v[word + 1]))
		return -EINVAL;
	return parse_text(r, v);
}

static int parse_out(const struct opt_row *r, const char *v)
{
	if (!strcmp(v, "0")) {
		*text_at(&off_opt, r) = NULL;
		return 0;
	}
	return strcmp(v, "1") ? parse_path(r, v) : parse_text(r, v);
}

static int parse(const struct opt_row *r, const char *v)
{
	switch (r->type) {
	case OPT_SIZE:
		return parse_size(r, v);
	case OPT_NUM:
		return parse_num(r, v);
	case OPT_ENUM:
		return parse_enum(r, v);
	case OPT_PATH:
		return parse_path(r, v);
	case OPT_RULE:
		return parse_rule(r, v);
	case OPT_OUT:
		return parse_out(r, v);
	case OPT_GLOB:
		break;
	}
	return parse_text(r, v);
}

/* ---- what is near to what was meant -------------------------------------- */

static unsigned int min3(unsigned int a, unsigned int b, unsigned int c)
{
	unsigned int m = a < b ? a : b;

	return m < c ? m : c;
}

/* Edit distance, a swap of two neighbours counting as one. */
static unsigned int distance(const char *a, size_t la, const char *b, size_t lb)
{
	unsigned int d[3][NAME_MAX_LEN + 1];
	unsigned int *two = d[0], *one = d[1], *now = d[2], *t;

	la = la < NAME_MAX_LEN ? la : NAME_MAX_LEN;
	lb = lb < NAME_MAX_LEN ? lb : NAME_MAX_LEN;
	for (size_t j = 0; j <= lb; j++)
		one[j] = two[j] = (unsigned int)j;
	for (size_t i = 1; i <= la; i++) {
		now[0] = (unsigned int)i;
		for (size_t j = 1; j <= lb; j++) {
			now[j] = min3(one[j] + 1, now[j - 1] + 1,
				      one[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1] && two[j - 2] + 1 < now[j])
				now[j] = two[j - 2] + 1;
		}
		t = two;
		two = one;
		one = now;
		now = t;
	}
	return one[lb];
}

static const struct opt_row *nearest_row(const char *name, size_t len)
{
	const struct opt_row *best = &rows[0];
	unsigned int least = ~0u, d;

	for (size_t i = 0; i < N_ROWS; i++) {
		d = distance(name, len, rows[i].name, strlen(rows[i].name));
		if (d < least) {
			least = d;
			best = &rows[i];
		}
	}
	return best;
}

static size_t nearest_word(const struct opt_row *r, const char *v,
			   const char **word)
{
	unsigned int least = ~0u, d;
	size_t len, best = 0;
	const char *w;

	for (unsigned int i = 0; (len = word_at(r->words, i, &w)); i++) {
		d = distance(v, strlen(v), w, len);
		if (d < least) {
			least = d;
			best = len;
			*word = w;
		}
	}
	return best;
}

static void say_unknown(const char *var, size_t name_len)
{
	const struct opt_row *r = nearest_row(var + strlen(PREFIX), name_len);
	char name[NAME_MAX_LEN + 16], form[128];

	snprintf(name, sizeof(name), "%.*s",
		 (int)(strlen(PREFIX) + name_len), var);
	off_log("%s is not an option; the nearest is " PREFIX "%s (%s); "
		"`offctl run --help` lists all", name, r->name,
		options_accepted(r, form, sizeof(form)));
}

static void say_malformed(const struct opt_row *r, const char *v)
{
	char form[128], near[64] = "", value[80];
	const char *w = NULL;
	size_t n;

	if (r->type == OPT_ENUM || r->type == OPT_RULE) {
		n = nearest_word(r, v, &w);
		snprintf(near, sizeof(near), "; the nearest is %.*s", (int)n, w);
	}
	snprintf(value, sizeof(value), "%s", v);
	off_log(PREFIX "%s=%s: not accepted; it takes %s%s", r->name, value,
		options_accepted(r, form, sizeof(form)), near);
}

/* ---- the table ----------------------------------------------------------- */

static const struct opt_row *find_row(const char *name, size_t len)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (strlen(rows[i].name) == len &&
		    !strncmp(rows[i].name, name, len))
			return &rows[i];
	return NULL;
}

/* GCC tells its helpers OFFLOAD_TARGET_NAMES and OFFLOAD_TARGET_DEFAULT: the
 * prefix is not ours alone. */
static bool not_ours(const char *name)
{
	return !strncmp(name, "TARGET_", 7);
}

static AT_START int read_one(const char *var)
{
	const char *name = var + strlen(PREFIX);
	size_t len = strcspn(name, "=");
	const struct opt_row *r = find_row(name, len);
	const char *value = name + len + (name[len] == '=');

	if (not_ours(name))
		return 0;
	if (!r) {
		say_unknown(var, len);
		return -EINVAL;
	}
	if (!*value || !parse(r, value))
		return 0;
	say_malformed(r, value);
	return -EINVAL;
}

AT_START int options_read(char **envp)
{
	int err = 0;

	for (; envp && *envp; envp++)
		if (**envp == PREFIX[0] &&
		    !strncmp(*envp, PREFIX, strlen(PREFIX)) && read_one(*envp))
			err = -EINVAL;
	return err;
}

int options_each(int (*cb)(const struct opt_row *row, void *arg), void *arg)
{
	int ret = 0;

	for (size_t i = 0; i < N_ROWS && !ret; i++)
		ret = cb(&rows[i], arg);
	return ret;
}

static void accepted_number(const struct opt_row *r, char *buf, size_t len)
{
	if (r->max == UINT64_MAX)
		snprintf(buf, len, "a whole number");
	else
		snprintf(buf, len, "a whole number from %llu to %llu",
			 (unsigned long long)r->min, (unsigned long long)r->max);
}

const char *options_accepted(const struct opt_row *row, char *buf, size_t len)
{
	static const char *const forms[] = {
		[OPT_SIZE] = "a size in bytes, or with K, M, G or T, as in 512M",
		[OPT_PATH] = "a path",
		[OPT_GLOB] = "patterns with commas between, as in *.gguf,model*",
		[OPT_OUT] = "0, 1 or a path",
	};

	if (row->type == OPT_NUM)
		accepted_number(row, buf, len);
	else if (row->type == OPT_RULE)
		snprintf(buf, len, "%s, or with patterns of names, as in int8:*ffn*",
			 row->words);
	else
		snprintf(buf, len, "%s", row->type == OPT_ENUM ? row->words :
			 forms[row->type]);
	return buf;
}

const char *options_size_text(uint64_t bytes, char *buf, size_t len)
{
	int i = 0;

	while (i < 4 && bytes && !(bytes & 1023)) {
		bytes >>= 10;
		i++;
	}
	snprintf(buf, len, "%llu%.*s", (unsigned long long)bytes, i > 0,
		 &"\0KMGT"[i]);
	return buf;
}

const char *options_value(const struct opt_row *row, const struct off_options *o,
			  char *buf, size_t len)
{
	uint64_t n = is_text(row->type) ? 0 :
		     *(const uint64_t *)((const char *)o + row->offset);
	const char *s = !is_text(row->type) ? NULL :
			*(const char *const *)((const char *)o + row->offset);

	if (is_text(row->type))
		snprintf(buf, len, "%s", s ? s : "");
	else if (row->type == OPT_SIZE)
		options_size_text(n, buf, len);
	else if (row->type == OPT_NUM)
		snprintf(buf, len, "%llu", (unsigned long long)n);
	else if ((n = word_at(row->words, (unsigned int)n, &s)))
		snprintf(buf, len, "%.*s", (int)n, s);
	return buf;
}

/* ---- patterns ------------------------------------------------------------ */

/* One pattern against one name; on a mismatch the last * takes one more. */
static bool match(const char *p, size_t plen, const char *s)
{
	const char *end = p + plen, *star = NULL, *back = NULL;

	while (*s) {
		if (p < end && *p == '*') {
			star = ++p;
			back = s;
		} else if (p < end && (*p == '?' || *p == *s)) {
			p++;
			s++;
		} else if (star) {
			p = star;
			s = ++back;
		} else {
			return false;
		}
	}
	while (p < end && *p == '*')
		p++;
	return p == end;
}

bool options_glob(const char *list, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	size_t len;

	for (; list && *list; list += len + (list[len] == ',')) {
		len = strcspn(list, ",");
		if (len == 3 && !strncmp(list, "all", 3))
			return true;
		if (len && match(list, len, memchr(list, '/', len) ? path : base))
			return true;
	}
	return false;
}
