/* SPDX-License-Identifier: MIT */
/* engine.c - a small Llama on the CUDA driver API, for tests of what lies below it.
 *
 *     engine [OPTION VALUE...] MODEL.gguf
 *
 *   prompt --passes of a batch--> first token --passes of one--> tokens
 *
 * Prints a line for each token with a hash of its logits' bits, then one of all.
 * Status: 0; 1 when something is wrong; 2 for a wrong command line or file; 77 where
 * there is no device.
 * (1) What it prints depends on the model, the prompt and --gen alone: not on how
 *     memory is had, weights are loaded or kernels are launched, nor on --run.
 * (2) TEST_BREAK in the environment leaves out the waits between streams: a test that
 *     does not see that sees nothing.
 * Owns all of it; lock: none.
 */
#include "tests/engine/cpu.h"
#include "tests/engine/engine.h"
#include "tests/engine/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct conf conf = { .chunk = 256 << 10, .streams = 1, .prompt = 12,
			    .batch = 5, .gen = 6, .seed = 1 };

static const struct option_row rows[] = {
	{ "run", &conf.run, "gpu cpu both", 0, 0, "where; both: compared" },
	{ "api", &conf.api, "dlsym default getproc getproc-old", 0, 0,
	  "how the driver's functions are found" },
	{ "alloc", &conf.alloc, "each one async managed vmm", 0, 0,
	  "what the weights lie in" },
	{ "load", &conf.load, "sync async pinned", 0, 0, "copies of the weights" },
	{ "chunk", &conf.chunk, NULL, 1, 1 << 30, "bytes of a copy" },
	{ "ref", &conf.ref, "direct struct table", 0, 0,
	  "how kernels are told their weights" },
	{ "launch", &conf.launch, "params extra ex", 0, 0, "how they are launched" },
	{ "graph", &conf.graph, "off device params update build", 0, 0,
	  "decoding by a graph" },
	{ "streams", &conf.streams, NULL, 1, LANES_MAX, "streams of a pass" },
	{ "prompt", &conf.prompt, NULL, 1, 4096, "tokens of the prompt" },
	{ "batch", &conf.batch, NULL, 1, 512, "of them, in one pass" },
	{ "gen", &conf.gen, NULL, 1, 4096, "tokens to make" },
	{ "seed", &conf.seed, NULL, 0, UINT64_MAX, "of the prompt" },
	{ "tolerance", &conf.tolerance, NULL, 0, 1000000,
	  "with --run both: millionths by which logits may differ" },
	{ "wait", &conf.wait, "stream context", 0, 0, "for what, after each pass" },
	{ "report", &conf.report, "off on", 0, 0, "sizes and times on stderr" },
	{ NULL, NULL, NULL, 0, 0, NULL }
};

struct run {
	struct model m;
	struct gpu g;
	struct cpu *cpu;
	int *prompt;
	int ctx_len;
	uint64_t hash;			/* of all logits so far */
	uint64_t reached[2];		/* host_reached, before the last pass and now */
};

static uint64_t mix(uint64_t h, const void *p, size_t words)
{
	const uint32_t *w = p;

	for (size_t i = 0; i < words; i++) {
		h = (h ^ w[i]) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	return h;
}

static void make_prompt(struct run *r)
{
	uint64_t x = conf.seed + 1;

	r->prompt = calloc(conf.prompt, sizeof(*r->prompt));
	if (!r->prompt)
		die("out of memory");
	for (uint64_t i = 0; i < conf.prompt; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		r->prompt[i] = (int)((x >> 33) % (uint64_t)r->m.vocab);
	}
}

static int best_of(const float *logits, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = i;
	return best;
}

/* ---- on the device ------------------------------------------------------------- */

/* Position and tokens of a pass into device memory. */
static void set_state(struct gpu *g, int pos, const int *tokens, int n)
{
	g->host_state[0] = pos;
	memcpy(g->host_state + 1, tokens, (size_t)n * sizeof(int));
	ck(cuMemcpyHtoDAsync_v2(g->state, g->host_state, (size_t)(n + 1) * sizeof(int),
				g->lane[0].stream));
}

/* The token that the device chose. */
static int fetch(struct gpu *g)
{
	CUstream s = g->lane[0].stream;

	ck(cuMemcpyDtoHAsync_v2(g->host_logits, g->logits,
				(size_t)g->m->vocab * sizeof(float), s));
	ck(cuMemcpyDtoHAsync_v2(g->host_state, g->state, 2 * sizeof(int), s));
	if (g->c->wait == WAIT_CONTEXT)
		ck(cuCtxSynchronize());
	else
		ck(cuStreamSynchronize(s));
	return g->host_state[1];
}

static int gpu_prompt(struct run *r)
{
	struct gpu *g = &r->g;
	struct step at = { .state = (const int *)(uintptr_t)g->state };
	int token = 0, n;

	for (int pos = 0; pos < (int)conf.prompt; pos += n) {
		n = (int)conf.prompt - pos;
		n = n < (int)conf.batch ? n : (int)conf.batch;
		set_state(g, pos, r->prompt + pos, n);
		pass(g, n, at);
		token = fetch(g);
	}
	return token;
}

/* In device memory the token is there already, and the position once it was set. */
static int gpu_token(struct run *r, int token, int pos)
{
	struct gpu *g = &r->g;
	struct step at = { .pos = pos, .token = token };

	if (conf.graph == GRAPH_DEVICE) {
		at.state = (const int *)(uintptr_t)g->state;
		if (pos == (int)conf.prompt)
			ck(cuMemsetD32Async(g->state, (unsigned int)pos, 1,
					    g->lane[0].stream));
	}
	if (conf.graph == GRAPH_OFF)
		pass(g, 1, at);
	else
		graph_pass(g, at);
	return fetch(g);
}

/* ---- both ---------------------------------------------------------------------- */

static const float *cpu_prompt(struct run *r)
{
	const float *logits = NULL;

	for (int i = 0; i < (int)conf.prompt; i++)
		logits = cpu_pass(r->cpu, r->prompt[i], i);
	return logits;
}

static void compare(const struct run *r, const float *cpu, int step)
{
	const float *gpu = r->g.host_logits;
	float allowed = (float)conf.tolerance * 1e-6f;

	for (int i = 0; i < r->m.vocab; i++)
		if (u_of(gpu[i]) != u_of(cpu[i]) &&
		    !(fabsf(gpu[i] - cpu[i]) <= allowed * (1 + fabsf(cpu[i])))) {
			fflush(stdout);
			fprintf(stderr, "engine: step %d: logit %d is %a, not %a\n",
				step, i, (double)gpu[i], (double)cpu[i]);
			exit(1);
		}
}

/* STEP 0 is the prompt; TOKEN, the one before. Returns the token made. */
static int make_token(struct run *r, int step, int token)
{
	int pos = (int)conf.prompt + step - 1, made = 0;
	const float *logits = NULL;

	if (conf.run != RUN_GPU) {
		logits = step ? cpu_pass(r->cpu, token, pos) : cpu_prompt(r);
		made = best_of(logits, r->m.vocab);
	}
	if (conf.run != RUN_CPU) {
		made = step ? gpu_token(r, token, pos) : gpu_prompt(r);
		if (conf.run == RUN_BOTH)
			compare(r, logits, step);
		logits = r->g.host_logits;
		if (made != best_of(logits, r->m.vocab)) {
			fflush(stdout);
			fprintf(stderr, "engine: step %d: the device chose %d\n",
				step, made);
			exit(1);
		}
	}
	printf("step %d token %d logits %016llx\n", step, made, (unsigned long long)
	       mix(0, logits, (size_t)r->m.vocab));
	r->hash = mix(r->hash, logits, (size_t)r->m.vocab);
	return made;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void report(const struct run *r, const double *at)
{
	unsigned long long bytes = 0;

	for (int i = 0; i < r->m.n; i++)
		bytes += r->m.t[i].bytes;
	fprintf(stderr, "weights %llu bytes, load %.3f s, prompt %.3f s, token %.6f s\n",
		bytes, at[1] - at[0], at[2] - at[1],
		conf.gen > 1 ? (at[3] - at[2]) / (double)(conf.gen - 1) : 0);
	fprintf(stderr, "read at the host by kernels: %llu bytes in the last pass, %llu in all\n",
		(unsigned long long)(r->reached[1] - r->reached[0]),
		(unsigned long long)r->reached[1]);
}

int main(int argc, char **argv)
{
	const char *path = options_read(argc, argv, rows,
					"engine [OPTION VALUE...] MODEL.gguf");
	struct run r = { .hash = 0 };
	double at[4];
	int token = 0;

	if (!path)
		die("no model (--help shows the options)");
	model_open(&r.m, path);
	make_prompt(&r);
	r.ctx_len = (int)(conf.prompt + conf.gen);
	at[0] = seconds();
	if (conf.run != RUN_GPU)
		r.cpu = cpu_new(&r.m, r.ctx_len);
	if (conf.run != RUN_CPU)
		gpu_open(&r.g, &r.m, &conf, r.ctx_len);
	at[1] = at[2] = seconds();
	for (int step = 0; step < (int)conf.gen; step++) {
		r.reached[0] = r.reached[1];
		token = make_token(&r, step, token);
		r.reached[1] = conf.report ? host_reached() : 0;
		if (step == 0)
			at[2] = seconds();
	}
	at[3] = seconds();
	if (conf.run != RUN_CPU)
		gpu_close(&r.g);
	printf("all %016llx\n", (unsigned long long)r.hash);
	if (conf.report)
		report(&r, at);
	free(r.prompt);
	return 0;
}
