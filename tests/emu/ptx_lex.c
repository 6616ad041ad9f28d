/* SPDX-License-Identifier: MIT */
/* ptx_lex.c - PTX text to tokens.
 *
 * Owns nothing. (1) No byte at or past `end` is looked at. (2) A byte that
 * starts no token is a token of its own, K_BAD. Lock: none.
 */
#include "tests/emu/ptx_int.h"

#include <ctype.h>

static bool word_char(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '$';
}

static bool at_is(const struct lex *l, const char *s)
{
	size_t n = strlen(s);

	return (size_t)(l->end - l->at) >= n && !memcmp(l->at, s, n);
}

static void skip_comment(struct lex *l)
{
	bool block = l->at[1] == '*';

	l->at += 2;
	while (l->at < l->end && !(block ? at_is(l, "*/") : *l->at == '\n')) {
		l->line += *l->at == '\n';
		l->at++;
	}
	if (block && l->at < l->end)
		l->at += 2;
}

static void skip_blank(struct lex *l)
{
	while (l->at < l->end) {
		if (at_is(l, "//") || at_is(l, "/*")) {
			skip_comment(l);
		} else if (isspace((unsigned char)*l->at) || !*l->at) {
			l->line += *l->at == '\n';
			l->at++;
		} else {
			break;
		}
	}
}

static void take_while(struct lex *l, bool (*in)(char))
{
	while (l->at < l->end && in(*l->at))
		l->at++;
}

static int digit(char c, unsigned base)
{
	int v = isdigit((unsigned char)c) ? c - '0' :
		isxdigit((unsigned char)c) ? (c | 32) - 'a' + 10 : 99;

	return v < (int)base ? v : -1;
}

static void digits(struct lex *l, unsigned base)
{
	l->num = 0;
	while (l->at < l->end && digit(*l->at, base) >= 0)
		l->num = l->num * base + (unsigned)digit(*l->at++, base);
}

/* Decimal, with a point or an exponent. */
static void decimal(struct lex *l)
{
	char buf[64];
	size_t n = 0;
	double d;

	while (l->at < l->end && n < sizeof(buf) - 1 &&
	       (isalnum((unsigned char)*l->at) || *l->at == '.' ||
		((*l->at == '-' || *l->at == '+') && n && (buf[n - 1] | 32) == 'e')))
		buf[n++] = *l->at++;
	buf[n] = 0;
	d = strtod(buf, NULL);
	memcpy(&l->num, &d, 8);
	l->kind = K_F64;
}

static void number(struct lex *l)
{
	const char *from = l->at;
	char second = l->end - l->at > 1 ? (char)(l->at[1] | 32) : 0;

	l->kind = K_INT;
	if (*l->at == '0' && (second == 'x' || second == 'f' || second == 'd')) {
		l->at += 2;
		digits(l, 16);
		l->kind = second == 'f' ? K_F32 : second == 'd' ? K_F64 : K_INT;
	} else if (*l->at == '0' && second == 'b') {
		l->at += 2;
		digits(l, 2);
	} else {
		digits(l, *l->at == '0' ? 8 : 10);
		if (l->at < l->end && (*l->at == '.' || (*l->at | 32) == 'e')) {
			l->at = from;
			decimal(l);
		}
	}
	if (l->at < l->end && *l->at == 'U')
		l->at++;
	if (l->at < l->end && word_char(*l->at))
		l->kind = K_BAD;
}

static void string(struct lex *l)
{
	l->kind = K_STRING;
	l->at++;
	while (l->at < l->end && *l->at != '"' && *l->at != '\n')
		l->at++;
	if (l->at < l->end && *l->at == '"')
		l->at++;
	else
		l->kind = K_BAD;
}

void ptx_lex_next(struct lex *l)
{
	char c;

	skip_blank(l);
	l->tok_line = l->line;
	l->text = (struct slice){ l->at, 0 };
	l->kind = K_END;
	if (l->at >= l->end)
		return;
	c = *l->at;
	if (isdigit((unsigned char)c)) {
		number(l);
	} else if (c == '"') {
		string(l);
	} else if (word_char(c) || c == '%') {
		l->kind = K_WORD;
		l->at++;
		take_while(l, word_char);
		/* %tid.x */
		if (c == '%' && l->end - l->at >= 2 && *l->at == '.' &&
		    strchr("xyzw", l->at[1]) && l->at[1] &&
		    (l->end - l->at == 2 || !word_char(l->at[2])))
			l->at += 2;
	} else if (c == '.' && l->end - l->at > 1 && word_char(l->at[1])) {
		l->kind = K_DIRECTIVE;
		l->at++;
		take_while(l, word_char);
	} else {
		l->kind = strchr("{}()[]<>,;:=+-*!|@", c) ? K_PUNCT : K_BAD;
		l->at++;
	}
	l->text.len = (uint32_t)(l->at - l->text.at);
}

static bool opcode_char(char c)
{
	return word_char(c) || c == '.' || c == ':';
}

struct slice ptx_lex_opcode(struct lex *l)
{
	struct slice s;

	l->at = l->text.at;
	take_while(l, opcode_char);
	s = (struct slice){ l->text.at, (uint32_t)(l->at - l->text.at) };
	ptx_lex_next(l);
	return s;
}

bool slice_is(struct slice s, const char *word)
{
	return strlen(word) == s.len && !memcmp(s.at, word, s.len);
}

bool ptx_lex_is(const struct lex *l, const char *word)
{
	return (l->kind == K_PUNCT || l->kind == K_WORD || l->kind == K_DIRECTIVE) &&
		slice_is(l->text, word);
}

bool ptx_lex_take(struct lex *l, const char *word)
{
	if (!ptx_lex_is(l, word))
		return false;
	ptx_lex_next(l);
	return true;
}
