/* SPDX-License-Identifier: MIT */
/* ptx_int.h - what the parts of the PTX interpreter share.
 *
 *   ptx_lex.c      text -> tokens                    ptx_module.c   variables, functions, linking
 *   ptx_body.c     statements, scopes, labels        ptx_decode*.c  an instruction -> operations
 *   ptx_alu.def    arithmetic, a row each            ptx_ops.h      the loops over 32 lanes, made for
 *   ptx_math.h     halves, approximate functions     ptx_ops_v*.c   each level of the processor
 *   ptx_cvt.c      conversions that are rare         ptx_warp.c     collectives, barriers, atomics
 *   ptx_run.c      blocks, warps, who goes next
 *
 * (1) A warp is 32 lanes. A register is an array of 32 values in the warp's
 *     register file, a predicate is one word of 32 bits; constants and special
 *     registers are arrays too, filled before a block starts: operands are of
 *     one kind only.
 * (2) An operation is a function that loops over all lanes, and keeps what the
 *     lanes had that take no part. Those without effect outside the registers
 *     may compute garbage for them.
 * (3) Registers of a function have fixed places, not shared with what it calls:
 *     so there is no recursion.
 * Lock: none.
 */
#ifndef PTX_INT_H
#define PTX_INT_H

#include "tests/emu/ptx.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LANES		32
#define FULL		0xffffffffu
#define MAX_THREADS	1024
#define MAX_VARS	65536
#define MAX_LOCAL	(512u << 10)
/* Addresses in the generic space that are not memory: their top byte. */
#define WINDOW(addr)	((unsigned)((addr) >> 56))
#define WIN_SHARED	0x51u
#define WIN_LOCAL	0x52u
#define WIN_PARAM	0x53u
#define WINDOW_BASE(w)	((uint64_t)(w) << 56)
/* What shared and local addresses start at: a null pointer is not valid. */
#define SPACE_START	1024u
#define POISON		0x7f

enum ptx_space { SP_GENERIC, SP_GLOBAL, SP_CONST, SP_SHARED, SP_LOCAL, SP_PARAM };

enum ptx_type {
	T_NONE, T_PRED, T_B8, T_B16, T_B32, T_B64, T_U8, T_U16, T_U32, T_U64,
	T_S8, T_S16, T_S32, T_S64, T_F16, T_F16X2, T_BF16, T_BF16X2, T_F32, T_F64,
	T_COUNT
};

/* ---- text ---------------------------------------------------------------- */

struct slice {
	const char *at;
	uint32_t len;
};

enum tok {
	K_END, K_WORD, K_DIRECTIVE, K_INT, K_F32, K_F64, K_STRING, K_PUNCT, K_BAD
};

struct lex {
	const char *at, *end;
	uint32_t line;
	enum tok kind;		/* of the token that is next */
	struct slice text;
	uint64_t num;		/* K_INT: value; K_F32, K_F64: bits */
	uint32_t tok_line;
};

/* The next token is read into *l. */
void ptx_lex_next(struct lex *l);
/* The run of letters, digits and . : _ that starts where the next token does:
 * an instruction with its modifiers. The token after it is read. */
struct slice ptx_lex_opcode(struct lex *l);
bool slice_is(struct slice s, const char *word);
bool ptx_lex_is(const struct lex *l, const char *punct_or_word);
/* Reads on if it is. */
bool ptx_lex_take(struct lex *l, const char *punct_or_word);

/* ---- the module ------------------------------------------------------------ */

struct ptx_warp;
struct ptx_op;
/* Lanes in m take part. 0: go on; else one of enum leave. */
/* clang-format off */
typedef int (*ptx_fn)(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
/* clang-format on */

/* r[]: places of registers in bytes from the warp's file, while a function is
 * decoded: numbers of slots; 0: none. */
struct ptx_op {
	ptx_fn fn;
	union {
		ptx_fn inner;		/* what a wrapper calls */
		struct ptx_func *callee;
	};
	int64_t imm;
	uint32_t r[6];
	uint32_t guard, guard_not;	/* guard_not: 0 or FULL, xor'ed */
	uint32_t line;
	uint16_t name_len;
	uint8_t space, size, n, kind;	/* memory; kind is the handler's own */
	uint8_t rnd, pad[5];
	const char *name;
};

/* An address in a variable's initialiser. */
struct ptx_reloc {
	size_t at;
	uint32_t var;
	int64_t add;
	uint8_t size;
};

struct ptx_var {
	struct slice name;
	char *cname;			/* globals: ending in NUL */
	enum ptx_space space;
	enum ptx_type type;
	size_t size, align;
	uint8_t *init;
	struct ptx_reloc *reloc;
	uint32_t relocs;
	bool is_extern;
	uint64_t addr;			/* global: where placed; param, local: offset */
	struct ptx_func *func;		/* local: of which */
};

/* What is in a slot before a block starts. */
enum fill {
	FILL_NONE, FILL_CONST, FILL_VAR, FILL_TID, FILL_NTID, FILL_CTAID, FILL_NCTAID,
	FILL_LANE, FILL_WARP, FILL_NWARP, FILL_LANEMASK, FILL_DYN_SHARED, FILL_ALL_SHARED
};

struct ptx_slot {
	uint8_t size;		/* of a lane's value: 2, 4, 8; 0: predicate */
	uint8_t fill;		/* enum fill; FILL_NONE: a register */
	uint32_t var;		/* FILL_VAR: its number */
	uint64_t value;		/* constant; added to var; axis; which mask */
	uint64_t key;		/* register: what it is found by */
	uint32_t place;
};

struct ptx_kernel {
	struct ptx_module *m;
	struct ptx_func *f;
};

struct ptx_func {
	struct ptx_module *m;
	struct slice name;
	char *cname;
	struct ptx_kernel kernel;
	bool is_entry, defined;
	char why[160];			/* it cannot run because; "": it can */
	uint32_t *params, nparams;	/* variables, by number; then the results */
	uint32_t *rets, nrets;
	size_t param_bytes;
	uint32_t code, ncode;		/* in the module's */
	struct ptx_slot *slots;
	uint32_t nslots, cslots;
	uint32_t *hash, hash_size;
	uint32_t regs_base, regs_bytes;	/* registers, ... */
	uint32_t poison_bytes;		/* ... of which the first so many start as poison */
	uint32_t local_base, local_bytes;
	struct ptx_func **calls;
	uint32_t ncalls;
	uint8_t mark;			/* while searching the call graph */
	unsigned max_threads;
	/* Entries only: all that can be reached from it, itself included. */
	struct ptx_func **reach;
	uint32_t nreach;
	uint32_t file_bytes;		/* registers of all of them */
	uint32_t lane_local;		/* local memory of a lane */
	uint32_t *shared;		/* variables in .shared, ... */
	uint32_t *shared_at, nshared;	/* ... and where */
	uint32_t static_shared, dyn_align;
};

struct ptx_module {
	char *text;
	struct ptx_var *vars;
	uint32_t nvars, cvars;
	uint32_t *globals, nglobals;
	struct ptx_func **funcs;
	uint32_t nfuncs;
	struct ptx_func **kernels;
	uint32_t nkernels;
	struct ptx_op *code;
	uint32_t ncode, ccode;
	const ptx_fn *ops;	/* the level's, by enum ptx_opcode */
};

/* Kinds of operations. */
enum vote { VOTE_ALL, VOTE_ANY, VOTE_UNI, VOTE_BALLOT };
enum shfl { SHFL_UP, SHFL_DOWN, SHFL_BFLY, SHFL_IDX };
enum bar { BAR_SYNC, BAR_ARRIVE, BAR_POPC, BAR_AND, BAR_OR };
enum logic { LOGIC_AND, LOGIC_OR, LOGIC_XOR, LOGIC_NOT, LOGIC_MOV };
enum atom {
	ATOM_ADD, ATOM_MIN, ATOM_MAX, ATOM_AND, ATOM_OR, ATOM_XOR, ATOM_EXCH, ATOM_CAS,
	ATOM_INC, ATOM_DEC
};
enum round { RND_NONE, RND_NEAR, RND_ZERO, RND_DOWN, RND_UP, RND_AWAY };

/* ---- parsing ------------------------------------------------------------------ */

struct ptx_names;		/* a scope's names -> variables, ranges of registers */

struct ptx_range {		/* .reg .b32 %r<9> */
	struct slice name;
	uint32_t count;		/* 0: one, without a number */
	enum ptx_type type;
};

enum operand_kind {
	O_NONE, O_REG, O_INT, O_F32, O_F64, O_VAR, O_SPECIAL, O_VEC, O_NAME, O_SINK, O_LIST
};

struct operand {
	uint8_t kind;
	bool not;		/* !%p */
	bool mem;		/* in brackets: imm is added */
	bool minus;
	enum ptx_type type;	/* O_REG: as declared */
	uint32_t slot;		/* O_REG */
	uint32_t var;
	uint64_t imm;
	struct slice name;
	uint8_t n, first;	/* O_VEC, O_LIST: elements in insn.elem */
};

#define MAX_OPERANDS	10
#define MAX_ELEMS	80

struct insn {
	struct slice op;		/* with its modifiers */
	struct slice mod[16];		/* the first is the instruction */
	uint32_t nmods;
	uint32_t line;
	uint32_t guard;			/* slot */
	bool guard_not;
	struct operand o[MAX_OPERANDS];
	uint32_t n;
	struct operand elem[MAX_ELEMS];
	uint32_t nelem;
};

struct scope {
	uint32_t vars, ranges;		/* how many there were outside of it */
};

struct label {
	struct slice name;
	uint32_t at;			/* in code */
};

struct fixup {
	struct slice name;
	uint32_t op, line;
};

struct parse {
	struct ptx_module *m;
	struct lex l;
	char *err;
	size_t errlen;
	int failed;
	struct ptx_func *f;		/* whose body it is */
	struct insn in;
	uint32_t *names;		/* variables in scope */
	uint32_t nnames, cnames;
	struct ptx_range *ranges;
	uint32_t nranges, cranges;
	struct scope scopes[64];
	uint32_t depth;
	struct label *labels;
	uint32_t nlabels, clabels;
	struct fixup *fixups;
	uint32_t nfixups, cfixups;
	bool blocked_start;		/* a label came, no operation yet */
};

/* Says why, once, with the line; returns -EINVAL. */
int ptx_bad(struct parse *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The function cannot run; returns 0. */
int ptx_unsupported(struct parse *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Room for one more of `size` bytes in an array; -ENOMEM. */
int ptx_grow(void *array, uint32_t *cap, uint32_t n, size_t size);

enum ptx_type ptx_type_named(struct slice s);
unsigned ptx_type_size(enum ptx_type t);
static inline bool type_signed(enum ptx_type t)
{
	return t >= T_S8 && t <= T_S64;
}
static inline bool type_float(enum ptx_type t)
{
	return t >= T_F16;
}

/* A declaration after its space: .align, type, name, [sizes], initialiser.
 * *var: its number, or the last of several. */
int ptx_declare(struct parse *p, enum ptx_space space, bool is_extern, bool in_list,
		uint32_t *var);
int ptx_find_var(const struct parse *p, struct slice name, uint32_t *var);
struct ptx_func *ptx_find_func(const struct ptx_module *m, struct slice name);
/* The { was read; reads up to its }. */
int ptx_body(struct parse *p, struct ptx_func *f);
/* p->in -> operations. Only for what is known; else ptx_unsupported. */
int ptx_decode(struct parse *p);
bool ptx_known(struct slice base);

/* Slots; 0: no memory. */
uint32_t ptx_slot_reg(struct ptx_func *f, uint64_t key, unsigned size);
uint32_t ptx_slot_fill(struct ptx_func *f, enum fill fill, uint64_t value, uint32_t var,
		       unsigned size);
uint32_t ptx_slot_temp(struct ptx_func *f, unsigned size);
int ptx_link(struct parse *p);

/* Of the decoder, for its parts. */
struct ptx_op *ptx_emit(struct parse *p, ptx_fn fn);
ptx_fn ptx_op_named(const struct ptx_module *m, const char *name);
bool ptx_mod(const struct insn *in, const char *name);
enum ptx_type ptx_mod_type(const struct insn *in, uint32_t nth);
int ptx_use(struct parse *p, const struct operand *o, unsigned size, uint32_t *slot);
int ptx_use_any(struct parse *p, const struct operand *o, unsigned least, uint32_t *slot,
		unsigned *size);
int ptx_def(struct parse *p, const struct operand *o, unsigned size, uint32_t *slot);
int ptx_want(struct parse *p, uint32_t least, uint32_t most);
/* Says that the instruction cannot be run; returns 0. */
int ptx_unknown(struct parse *p);
/* Are all modifiers types, or words of the list, each after a blank? */
bool ptx_only(const struct insn *in, const char *list);
/* The row of that name, or NULL. */
ptx_fn ptx_row(struct parse *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What is done to the operands and to the result. */
struct ptx_extra {
	const char *before, *after;	/* rows; NULL: none */
	const char *also;		/* after that */
	enum round rnd;
};

/* d, a, b, ...: sizes[] says how wide each of the n is. imm: of the operation. */
int ptx_alu(struct parse *p, ptx_fn fn, const unsigned *sizes, uint32_t n, int64_t imm,
	    const struct ptx_extra *x);
/* *slot becomes one that holds what the row `name` makes of it. */
int ptx_flushed(struct parse *p, const char *name, unsigned size, uint32_t *slot);
int ptx_pred_logic(struct parse *p, enum logic how, uint32_t n);
const char *ptx_float_name(enum ptx_type t);
uint32_t ptx_bits(enum ptx_type t);
char ptx_letter(enum ptx_type t);
int ptx_d_setp(struct parse *p);
int ptx_d_set(struct parse *p);
int ptx_d_selp(struct parse *p);
int ptx_d_slct(struct parse *p);
int ptx_d_testp(struct parse *p);
int ptx_d_mov(struct parse *p);
int ptx_decode_mem(struct parse *p, bool *done);
int ptx_decode_warp(struct parse *p, bool *done);
int ptx_decode_cvt(struct parse *p);

/* ---- running -------------------------------------------------------------------- */

enum leave {
	GO_ON,
	LEAVE_SCHED,		/* paths changed */
	LEAVE_WAIT,		/* w->mask waits at w->pc; may be 0 */
	LEAVE_FAULT,
};

enum path_state { PATH_RUN, PATH_WAIT, PATH_BARRIER };

struct ptx_path {
	const struct ptx_op *pc;
	uint32_t mask;
	uint32_t depth;
	enum path_state state;
	uint32_t barrier;
	uint64_t last;
};

#define MAX_DEPTH	64
#define BARRIERS	16
#define TLB		64

struct ptx_warp {
	uint8_t *r;
	const struct ptx_op *pc;
	uint32_t mask, depth;		/* of the path that runs */
	uint32_t lanes, alive;		/* lanes: popcount of mask */
	int32_t budget;			/* labels until others get their turn */
	bool fair;			/* paths take turns, for one of them may wait for another */
	bool yield;			/* the next warp's turn */
	struct ptx_block *b;
	struct ptx_path path[LANES];	/* those that do not */
	uint32_t npaths;
	uint32_t number;
	uint32_t carry;			/* add.cc, addc */
	uint8_t *local;
	uint64_t count, tick;
	const struct ptx_op *(*back)[LANES];	/* where to return to, by depth */
};

struct ptx_barrier {
	uint32_t arrived;		/* threads */
	uint32_t weight, expected;	/* as they count, if a number was given: in whole warps */
	uint32_t popc;
	bool all, any;
};

struct ptx_tlb {
	uint64_t page;
	uint8_t *host;		/* NULL: not as a whole */
	bool write;
};

/* A launch, and its block that runs. */
struct ptx_block {
	const struct ptx_func *k;
	const struct ptx_mem *mem;
	struct ptx_fault *fault;
	int err;
	unsigned grid[3], block[3], at[3];
	uint32_t threads, nwarps;
	struct ptx_warp *warps;
	uint8_t *shared;
	uint32_t shared_bytes, dyn_bytes;
	uint8_t *params;
	uint32_t param_bytes, lane_local;
	uint32_t alive;
	struct ptx_barrier bar[BARRIERS];
	struct ptx_tlb tlb[TLB];
};

#define REG_AT(w, T, place)	((T *)(void *)((w)->r + (place)))

static inline uint32_t *pred_at(struct ptx_warp *w, uint32_t place)
{
	return REG_AT(w, uint32_t, place);
}

static inline void pred_set(struct ptx_warp *w, uint32_t place, uint32_t value, uint32_t m)
{
	uint32_t *p = pred_at(w, place);

	*p = (*p & ~m) | (value & m);
}

/* Host memory of one lane's access, or NULL with the fault told. */
uint8_t *ptx_reach(struct ptx_warp *w, const struct ptx_op *o, uint64_t addr, unsigned lane,
		   unsigned len, bool write);
/* A page through the launch's cache; NULL: not as a whole. */
uint8_t *ptx_page(struct ptx_block *b, uint64_t page, bool write);
/* The same of a range within a page, past the cache. */
uint8_t *ptx_range(struct ptx_block *b, uint64_t from, size_t len, bool write);
/* Tells the fault; returns LEAVE_FAULT. */
int ptx_fail(struct ptx_warp *w, const struct ptx_op *o, int err, unsigned lane,
	     const char *fmt, ...) __attribute__((format(printf, 5, 6)));

int ptx_op_cvt(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_round(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_join(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_bra(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_exit(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_ret(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_call(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_copy(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_trap(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_shfl(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_vote(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_match(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_redux(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_warpsync(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_activemask(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_bar(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_atom(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_cpasync(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_cvta(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_isspacep(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_clock(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_carry(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_predlogic(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
int ptx_op_setpx(struct ptx_warp *w, const struct ptx_op *o, uint32_t m);

/* The barriers that have all they wait for let them go; true: one did. */
bool ptx_barriers_release(struct ptx_block *b);
/* Would the collective at a waiting path's pc get somewhere now? */
bool ptx_ready(const struct ptx_warp *w, const struct ptx_op *o, uint32_t m);
void ptx_mask_set(struct ptx_warp *w, uint32_t mask);
void ptx_path_add(struct ptx_warp *w, const struct ptx_op *pc, uint32_t mask,
		  enum path_state state);

/* ---- operations of the levels ----------------------------------------------------- */

enum ptx_opcode {
#define ROW(name)		OP_##name,
#include "tests/emu/ptx_rows.h"
#undef ROW
	OP_COUNT
};

extern const char *const ptx_op_names[OP_COUNT];
extern const ptx_fn ptx_ops_v1[OP_COUNT], ptx_ops_v3[OP_COUNT];
/* What this processor can do, 1, 3 or 4, and no more than ptx_level_most,
 * which a test may set before it parses. */
extern int ptx_level_most;
const ptx_fn *ptx_ops_best(void);

#endif
