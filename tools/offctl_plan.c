/* SPDX-License-Identifier: MIT */
/* offctl_plan.c - what would be kept where, and how long a token then takes.
 *
 * Owns nothing. The plan is policy/'s; what it is made of is measured here:
 * the model's classes (offctl_model.c), disk and memory (offctl_disk.c,
 * offctl_memory.c), the budget as the library reckons it. Of a running
 * program, what the library counted.
 */
#include "offctl.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/budget.h"
#include "core/options.h"

#define FILES_MAX	256
#define GIB		(1ull << 30)
#define CHUNK		TRIAL_MAX
#define LINK_GUESS	24e9		/* PCIe 4.0, 16 lanes, bytes/s */

struct plan_args {
	const char *target[FILES_MAX];
	unsigned int n;
	uint64_t ram, vram;
	double disk_gbs, link_gbs, compute;	/* 0: not given */
	uint64_t experts;
	bool json;
};

/* What is planned for, and how it is known. */
struct subject {
	struct pol_plan_in in;
	char name[POL_CLASSES][32];
	double busy_disk;		/* bytes/s with the processors busy; 0: not measured */
	double memory;			/* bytes/s; 0: compute was given */
	double seen_s, seen_read;	/* a pass of a running program, or 0 */
	double idle_disk;		/* the same with them idle */
	double rounded;			/* bytes that OFFLOAD_LOSSY lets be, by the trial */
	bool from_pid, guessed_disk;
	uint32_t experts, experts_used;	/* 0: no experts */
};

/* Plans: as it is, and with more of something. */
struct answer {
	struct pol_plan now, serial, more_ram, more_vram, more_disk, more_link;
	uint32_t lead;			/* chunks; 0: nothing is read */
};

static const struct argp_option opts[] = {
	{ "ram", 'r', "SIZE", 0, "memory the library may hold (what it would "
	  "find here)", 0 },
	{ "vram", 'v', "SIZE", 0, "device memory it may hold: the program "
	  "computes there", 0 },
	{ "disk", 'd', "GB/S", 0, "speed of the disk (measured)", 0 },
	{ "link", 'l', "GB/S", 0, "speed of the link to the device (24)", 0 },
	{ "compute", 'c', "SECONDS", 0, "a token takes with all in memory "
	  "(estimated)", 0 },
	{ "experts", 'e', "N", 0, "experts a token uses (what the file says, "
	  "or 2)", 0 },
	{ "json", 'j', NULL, 0, "one line of JSON", 0 },
	{ 0 }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct plan_args *a = state->input;

	switch (key) {
	case 'r':
		a->ram = size_arg("--ram", arg);
		return 0;
	case 'v':
		a->vram = size_arg("--vram", arg);
		return 0;
	case 'd':
		a->disk_gbs = number_arg("--disk", arg);
		return 0;
	case 'l':
		a->link_gbs = number_arg("--link", arg);
		return 0;
	case 'c':
		a->compute = number_arg("--compute", arg);
		return 0;
	case 'e':
		a->experts = (uint64_t)number_arg("--experts", arg);
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->n == FILES_MAX)
			argp_error(state, "too many files");
		a->target[a->n++] = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->n)
			argp_error(state, "which model file, or which process?");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static int refuse(const char *what, const char *why)
{
	fprintf(stderr, "offctl: %s: %s\n", what, why);
	return 1;
}

/* ---- rates and budgets ----------------------------------------------------- */

static uint64_t budget_here(void)
{
	struct budget_now now;
	uint64_t may = 0;
	struct budget b;

	if (budget_open(&b))
		return 0;
	if (!budget_read(&b, &now))
		may = budget_target(&now, 0, off_opt.reserve, off_opt.ram);
	budget_close(&b);
	return may;
}

static void set_budget(const struct plan_args *a, struct subject *s, double ram)
{
	s->in.ram = ram;
	s->in.vram = (double)a->vram;
	if (a->vram)
		s->in.link = a->link_gbs ? a->link_gbs * 1e9 : LINK_GUESS;
	s->in.window = (double)off_opt.window;
	if (s->in.window > ram / 4)	/* the library's own bound */
		s->in.window = ram / 4;
	s->in.overlap = s->in.window >= 2 * CHUNK;
	s->in.read_cpu = POL_READ_CPU;
	s->in.quiet = POL_QUIET;
}

/* Every byte that is used is read from memory once, by all processors. */
static void set_compute(const struct plan_args *a, struct subject *s)
{
	double used = 0;

	s->in.compute = a->compute;
	if (a->compute || a->vram)	/* a device's speed is not known here */
		return;
	for (uint32_t i = 0; i < s->in.n; i++)
		used += s->in.class[i].bytes * s->in.class[i].uses;
	s->memory = memory_rate((int)s->in.cores);
	if (s->memory > 0)
		s->in.compute = used / s->memory;
}

static void set_class(struct subject *s, double bytes, double uses,
		      const struct trial_sum *t)
{
	struct pol_class *c = &s->in.class[s->in.n++];

	c->bytes = bytes;
	c->uses = uses;
	c->ratio = t->held ? (double)t->raw / (double)t->held : 1;
	if (t->unpack_ns)
		c->unpack = pol_unpack_rate((double)t->unpacked * 1e9 / (double)t->unpack_ns);
}

/* ---- model files -------------------------------------------------------------- */

static int measure_disk(const char *path, struct subject *s)
{
	int err = disk_rates(path, (int)s->in.cores, &s->idle_disk, &s->busy_disk);

	s->in.disk = s->idle_disk;
	if (!err)
		return 0;
	fprintf(stderr, "offctl: %s: its disk cannot be measured (%s); give "
		"--disk GB/S\n", path, err == -ENODATA ? "the file is too short" :
		err == -EINVAL ? "no O_DIRECT there" : strerror(-err));
	return 1;
}

static int subject_of_files(const struct plan_args *a, struct subject *s)
{
	struct model m = { .experts_used = (uint32_t)a->experts };
	int err = 0;

	for (unsigned int i = 0; i < a->n && !err; i++)
		err = model_add(&m, a->target[i]);
	if (err)
		return err;
	model_uses(&m);
	for (unsigned int i = 0; i < MODEL_CLASSES; i++) {
		const struct model_class *c = &m.class[i];

		if (!c->bytes)
			continue;
		model_class_name(i, s->name[s->in.n], sizeof(s->name[0]));
		set_class(s, (double)c->bytes, c->uses, &c->trial);
		if (c->trial.raw)
			s->rounded += (double)c->bytes * (double)c->trial.rounded /
				      (double)c->trial.raw;
	}
	s->experts = m.experts;
	s->experts_used = m.experts_used;
	set_budget(a, s, (double)(a->ram ? a->ram : budget_here()));
	set_compute(a, s);
	s->in.disk = a->disk_gbs * 1e9;
	return a->disk_gbs ? 0 : measure_disk(a->target[0], s);
}

/* ---- a running program ---------------------------------------------------------- */

static double stat_of(const struct off_stats *st, enum off_stat i)
{
	return (double)stat_get(st, i);
}

/* What packs, packs as what is packed now does. How fast it is unpacked is not
 * counted; a pass over memory is what a good decoder takes. */
static void classes_of(const struct off_stats *st, struct subject *s)
{
	double all = stat_of(st, ST_HOST_MANAGED);
	double loop = stat_of(st, ST_TAPE_PERIOD) * CHUNK;
	struct trial_sum t = {
		.raw = stat_get(st, ST_HOST_PACKED_RAW),
		.held = stat_get(st, ST_HOST_PACKED),
	};

	loop = loop > 0 && loop < all ? loop : all;
	strcpy(s->name[0], "used each pass");
	set_class(s, loop, 1, &t);
	if (loop < all) {
		strcpy(s->name[1], "the rest");
		set_class(s, all - loop, 0, &t);
	}
	if (t.held)
		for (uint32_t i = 0; i < s->in.n; i++)
			s->in.class[i].unpack = pol_unpack_rate(memory_rate(1) / 2);
}

/* Its own passes show at least how fast the disk is. */
static int disk_of(const struct plan_args *a, struct subject *s)
{
	s->in.disk = a->disk_gbs * 1e9;
	if (!a->disk_gbs && s->seen_s > 0) {
		s->in.disk = s->seen_read / s->seen_s;
		s->guessed_disk = true;
	}
	if (s->in.disk > 0)
		return 0;
	return refuse(a->target[0], "it has not read through a whole pass yet, "
		      "so the disk's speed is not known; give --disk GB/S");
}

static int subject_of_pid(const struct plan_args *a, int pid, struct subject *s)
{
	struct off_stats st;
	int err = find_stats(pid, &st);

	if (err) {
		fprintf(stderr, "offctl: process %d: %s\n", pid, find_reason(err));
		return 1;
	}
	if (!stat_get(&st, ST_HOST_MANAGED))
		return refuse(a->target[0], "the library manages nothing in it yet");
	s->from_pid = true;
	s->seen_s = stat_of(&st, ST_TAPE_LAST_NS) / 1e9;
	s->seen_read = stat_of(&st, ST_TAPE_LAST_READ);
	classes_of(&st, s);
	set_budget(a, s, a->ram ? (double)a->ram : stat_of(&st, ST_BUDGET_RAM));
	set_compute(a, s);
	if (s->memory > 0 && s->seen_s > 0 && s->in.compute > s->seen_s)
		s->in.compute = s->seen_s;
	return disk_of(a, s);
}

/* ---- the plan ------------------------------------------------------------------- */

static void set_lead(const struct subject *s, struct answer *w)
{
	const struct pol_plan_in *in = &s->in;
	double queue = (DISK_DEPTH - 1) * (double)CHUNK / in->disk;
	double chunks = w->now.disk_s * in->disk / CHUNK;

	if (chunks >= 1)	/* Little's law: a read waits for those before it */
		w->lead = pol_lead(queue, CHUNK, in->disk,
				   w->now.seconds / chunks);
}

/* The plan with more of something; what there is none of stays so. */
static int with(const struct subject *s, double ram, double vram, double disk,
		double link, struct pol_plan *out)
{
	struct pol_plan_in in = s->in;

	in.ram += ram;
	in.vram += in.link > 0 ? vram : 0;
	in.disk *= disk;
	in.link *= link;
	return pol_plan(&in, out);
}

static int answer(const struct subject *s, struct answer *w)
{
	struct pol_plan_in in = s->in;
	int err = pol_plan(&in, &w->now);

	memcpy(&w->serial, &w->now, sizeof(w->now));
	in.overlap = 0;
	if (!err)
		pol_plan_times(&in, &w->serial);
	err = err ? err : with(s, GIB, 0, 1, 1, &w->more_ram);
	err = err ? err : with(s, 0, GIB, 1, 1, &w->more_vram);
	err = err ? err : with(s, 0, 0, 2, 1, &w->more_disk);
	err = err ? err : with(s, 0, 0, 1, 2, &w->more_link);
	if (!err)
		set_lead(s, w);
	return err;
}

/* ---- for people ------------------------------------------------------------------ */

static const char *size(double bytes, char buf[32])
{
	return stats_bytes_text((uint64_t)(bytes + 0.5), buf, 32);
}

static void print_class(const struct subject *s, const struct answer *w,
			uint32_t i)
{
	static const enum pol_tier order[] = {
		POL_TIER_DEVICE, POL_TIER_PLAIN, POL_TIER_PACKED, POL_TIER_ABSENT,
	};
	const struct pol_class *c = &s->in.class[i];
	char b[32];

	printf("%-17s %12s %6.3f ", s->name[i], size(c->bytes, b), c->uses);
	if (c->ratio > 1 && c->unpack > 0)
		printf("%6.2f %6.1f", c->ratio, c->unpack / 1e9);
	else
		printf("%6s %6s", "-", "-");
	for (int t = s->in.link > 0 ? 0 : 1; t < POL_TIERS; t++)
		printf(" %12s", size(w->now.share[i][order[t]] * c->bytes, b));
	putchar('\n');
}

static void print_table(const struct subject *s, const struct answer *w)
{
	printf("%-17s %12s %6s %6s %6s", "CLASS", "BYTES", "USES", "RATIO",
	       "UNPACK");
	if (s->in.link > 0)
		printf(" %12s", "DEVICE");
	printf(" %12s %12s %12s\n", "PLAIN", "PACKED", "ABSENT");
	for (uint32_t i = 0; i < s->in.n; i++)
		print_class(s, w, i);
}

static void print_rates(const struct subject *s)
{
	const struct pol_plan_in *in = &s->in;
	char b[32], d[32];

	printf("memory     %s, %s of it for what is on its way\n",
	       size(in->ram, b), size(in->window, d));
	if (in->link > 0)
		printf("device     %s, the link %.1f GB/s\n", size(in->vram, b),
		       in->link / 1e9);
	printf("disk       %.2f GB/s", in->disk / 1e9);
	if (s->busy_disk > 0)
		printf(" with the processors idle, %.2f with them busy",
		       s->busy_disk / 1e9);
	puts(s->guessed_disk ? " at least: what the last pass read" : "");
	printf("computing  %.3f s", in->compute);
	if (s->memory > 0)
		printf(", an estimate: memory is read at %.1f GB/s; --compute "
		       "if you know", s->memory / 1e9);
	else if (in->link > 0 && !in->compute)
		printf(", not known for a device; give --compute");
	printf("; processors %.0f\n", in->cores);
	if (trial_bits() && !s->from_pid)
		printf("rounded    %s of it to int%u where it is packed (OFFLOAD_LOSSY): "
		       "results differ\n", size(s->rounded, b), trial_bits());
	if (s->experts)
		printf("experts    %u of %u used by a token\n", s->experts_used,
		       s->experts);
	if (s->seen_s > 0)
		printf("seen       %.3f s in the last pass, %s read\n", s->seen_s,
		       size(s->seen_read, b));
}

static const char *const bound_text[] = {
	[POL_BOUND_COMPUTE] = "computing", [POL_BOUND_DECODE] = "unpacking",
	[POL_BOUND_DISK] = "disk", [POL_BOUND_LINK] = "link",
	[POL_BOUND_BALANCE] = "moving and unpacking alike",
};

static void print_seconds(const struct subject *s, const struct answer *w)
{
	const struct pol_plan *p = &w->now;

	printf("a token takes          %.3f s (%.3f s at best, %.3f s if nothing overlapped)\n",
	       p->likely, p->seconds, w->serial.seconds);
	printf("  of that              disk %.3f s, computing %.3f s, unpacking "
	       "%.3f s", p->disk_s, p->compute_s, p->decode_s);
	if (s->in.link > 0)
		printf(", link %.3f s", p->link_s);
	printf("\nbottleneck             %s\n", bound_text[p->bound]);
	printf("with 1 GiB more memory %.3f s\n", w->more_ram.likely);
	if (s->in.link > 0)
		printf("with 1 GiB more VRAM   %.3f s\n", w->more_vram.likely);
	printf("with twice the disk    %.3f s\n", w->more_disk.likely);
	if (s->in.link > 0)
		printf("with twice the link    %.3f s\n", w->more_link.likely);
	if (w->lead)
		printf("read ahead             %u chunks of 2 MiB\n", w->lead);
}

/* ---- JSON -------------------------------------------------------------------------- */

static void json_class(const struct subject *s, const struct answer *w,
		       uint32_t i)
{
	static const char *const key[POL_TIERS] = {
		[POL_TIER_DEVICE] = "device_bytes",
		[POL_TIER_PLAIN] = "plain_bytes",
		[POL_TIER_PACKED] = "packed_bytes",
		[POL_TIER_ABSENT] = "absent_bytes",
	};
	const struct pol_class *c = &s->in.class[i];

	printf("%s{\"name\":\"%s\",\"bytes\":%.0f,\"uses_per_pass\":%.6g,"
	       "\"ratio\":%.4f,\"unpack_bytes_per_s\":%.0f", i ? "," : "",
	       s->name[i], c->bytes, c->uses, c->ratio, c->unpack);
	for (int t = 0; t < POL_TIERS; t++)
		printf(",\"%s\":%.0f", key[t], w->now.share[i][t] * c->bytes);
	putchar('}');
}

static void json_rates(const struct subject *s)
{
	const struct pol_plan_in *in = &s->in;

	printf("\"budget\":{\"ram_bytes\":%.0f,\"vram_bytes\":%.0f,"
	       "\"window_bytes\":%.0f},", in->ram, in->vram, in->window);
	printf("\"rates\":{\"disk_bytes_per_s\":%.0f,"
	       "\"disk_idle_bytes_per_s\":%.0f,\"disk_busy_bytes_per_s\":%.0f,"
	       "\"link_bytes_per_s\":%.0f,"
	       "\"memory_bytes_per_s\":%.0f,\"processors\":%.0f},", in->disk,
	       s->idle_disk, s->busy_disk, in->link, s->memory, in->cores);
}

static void print_json(const struct subject *s, const struct answer *w)
{
	static const char *const bound[] = {
		[POL_BOUND_COMPUTE] = "compute", [POL_BOUND_DECODE] = "unpack",
		[POL_BOUND_DISK] = "disk", [POL_BOUND_LINK] = "link",
		[POL_BOUND_BALANCE] = "balance",
	};
	const struct pol_plan *p = &w->now;

	printf("{\"schema\":1,\"classes\":[");
	for (uint32_t i = 0; i < s->in.n; i++)
		json_class(s, w, i);
	printf("],");
	json_rates(s);
	printf("\"lossy\":{\"bits\":%u,\"bytes\":%.0f},",
	       s->from_pid ? 0 : trial_bits(), s->rounded);
	printf("\"seen\":{\"seconds\":%.6f,\"read_bytes\":%.0f},", s->seen_s,
	       s->seen_read);
	printf("\"predicted\":{\"seconds\":%.6f,\"likely_seconds\":%.6f,"
	       "\"serial_seconds\":%.6f,"
	       "\"disk_s\":%.6f,\"link_s\":%.6f,\"compute_s\":%.6f,"
	       "\"unpack_s\":%.6f,\"bottleneck\":\"%s\",", p->seconds,
	       p->likely, w->serial.seconds, p->disk_s, p->link_s, p->compute_s, p->decode_s,
	       bound[p->bound]);
	printf("\"gib_more_ram_seconds\":%.6f,\"gib_more_vram_seconds\":%.6f,"
	       "\"disk_twice_seconds\":%.6f,\"link_twice_seconds\":%.6f,"
	       "\"lead_chunks\":%u}}\n", w->more_ram.seconds,
	       w->more_vram.seconds, w->more_disk.seconds,
	       w->more_link.seconds, w->lead);
}

/* ---- all ------------------------------------------------------------------------------ */

/* A file of such a name is given as ./NAME. 0: not a process id. */
static int pid_of(const struct plan_args *a)
{
	const char *s = a->target[0];
	long pid = 0;

	if (a->n == 1 && *s && !s[strspn(s, "0123456789")])
		pid = strtol(s, NULL, 10);
	return pid > 0 && pid <= INT32_MAX ? (int)pid : 0;
}

int cmd_plan(int argc, char **argv)
{
	static const struct argp argp = { opts, parse, "FILE...|PID",
		"Says how much of a model would be kept plain, packed, or read "
		"anew for each token, and how long a token then takes.\vFILE is "
		"GGUF, safetensors, torch zip or ONNX; a model in several files "
		"is given whole. Packing is tried on some chunks of it. PID is "
		"a process the library runs in. Exit status 1: nothing can be "
		"planned.", NULL, NULL, NULL };
	struct plan_args a = { 0 };
	struct subject s = { 0 };
	struct answer w = { 0 };
	int err, pid;

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	options_read(environ);
	s.in.cores = cores_here();
	pid = pid_of(&a);
	err = pid ? subject_of_pid(&a, pid, &s) : subject_of_files(&a, &s);
	if (err)
		return 1;
	if (answer(&s, &w))
		return refuse(a.target[0], "its numbers are out of range");
	if (a.json) {
		print_json(&s, &w);
		return 0;
	}
	print_rates(&s);
	putchar('\n');
	print_table(&s, &w);
	putchar('\n');
	print_seconds(&s, &w);
	return 0;
}
