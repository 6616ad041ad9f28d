/* SPDX-License-Identifier: MIT */
/* random.c - a random program on the CUDA driver API whose memory is known.
 *
 *     random [OPTION VALUE...]
 *
 *   a seed: segments planned, run, compared; then everything freed
 *
 * Prints a line with a hash of all the memory it saw for each seed. It depends on the
 * seed and the options alone: a library between the program and the driver may not
 * change it. Status: 0; 1 when a byte is not what the model says; 2 for a wrong
 * command line; 77 where there is no device.
 * (1) TEST_BREAK=wait leaves out all waits between operations, TEST_BREAK=copy one
 *     copy: a test that does not see these sees nothing.
 * (2) --modes shown: nothing is reached but by arguments, and no graph is captured.
 * Owns the world; lock: none, between segments there is one thread.
 */
#include "tests/engine/options.h"
#include "tests/engine/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct conf conf = { .seed = 1, .count = 1, .ops = 160, .budget = 2 << 20,
			    .threads = 3, .streams = 4, .devices = 2 };

static const struct option_row rows[] = {
	{ "seed", &conf.seed, NULL, 0, UINT64_MAX, "the first seed" },
	{ "count", &conf.count, NULL, 1, 1000000, "how many seeds" },
	{ "ops", &conf.ops, NULL, 1, 1000000, "operations of a seed" },
	{ "budget-bytes", &conf.budget, NULL, 65536, 1ull << 40,
	  "most memory at a time" },
	{ "threads", &conf.threads, NULL, 1, THREADS_MAX, "that issue operations" },
	{ "streams", &conf.streams, NULL, 1, STREAMS_MAX,
	  "of each device, beside the default ones" },
	{ "devices", &conf.devices, NULL, 1, DEVICES_MAX, "of them, at most" },
	{ "api", &conf.api, "dlsym default getproc getproc-old", 0, 0,
	  "how the driver's functions are found" },
	{ "largest", &conf.largest, NULL, 0, 1ull << 40,
	  "bytes of a buffer, about; 0: a quarter of the budget" },
	{ "modes", &conf.modes, "all shown", 0, 0,
	  "how kernels find their operands: any way, or in arguments alone (2)" },
	{ "log", &conf.log, "off on", 0, 0, "operations on stderr" },
	{ NULL, NULL, NULL, 0, 0, NULL }
};

static struct world world;

static const char *const kind_name[KINDS] = {
	"alloc", "free", "move", "copy", "copy2d", "copy3d", "set", "set2d", "kernel",
	"hostfn", "touch", "graph", "relaunch", "query",
};

static const char *const family_name[FAMILIES] = {
	"alloc", "pitch", "async", "pool", "managed", "vmm", "pinned", "registered",
	"pageable",
};

/* ---- devices --------------------------------------------------------------------- */

static void open_device(struct world *w, int i, const char *ptx)
{
	char name[32];
	size_t n;

	ck(cuDevicePrimaryCtxRetain(&w->ctx[i], i));
	ck(cuCtxSetCurrent(w->ctx[i]));
	for (int m = 0; m < 2; m++)
		ck(cuModuleLoadData(&w->module[i][m], ptx));
	for (int b = 0; b < BODIES; b++)
		for (int m = 0; m < MODES; m++) {
			snprintf(name, sizeof(name), "%s_%s", body_name[b],
				 mode_name[m]);
			ck(cuModuleGetFunction(&w->kernel[i][b][m],
					       w->module[i][m == MODE_HIDDEN], name));
		}
	ck(cuModuleGetGlobal_v2(&w->hidden[i], &n, w->module[i][1], "hidden"));
	if (n != OPS_MAX * sizeof(struct operands))
		abort();
	ck(cuMemAlloc_v2(&w->table[i], BUFS_MAX * sizeof(CUdeviceptr)));
	ck(cuMemAlloc_v2(&w->blocks[i], OPS_MAX * sizeof(struct operands)));
}

static void open_devices(struct world *w)
{
	char *ptx;
	int n;

	setenv("CUDA_MODULE_LOADING", "EAGER", 0);	/* not within a capture */
	driver_open((enum driver_api)conf.api);
	ck(cuDeviceGetCount(&n));
	w->devices = n < (int)conf.devices ? n : (int)conf.devices;
	ptx = beside("random.ptx");
	for (int i = 0; i < w->devices; i++)
		open_device(w, i, ptx);
	ck(cuMemHostAlloc((void **)&w->staged, OPS_MAX * sizeof(*w->staged),
			  CU_MEMHOSTALLOC_PORTABLE));
	free(ptx);
	w->op = calloc(OPS_MAX, sizeof(*w->op));
	if (!w->op)
		abort();
}

static void close_devices(struct world *w)
{
	ck(cuMemFreeHost(w->staged));
	for (int i = 0; i < w->devices; i++) {
		ck(cuCtxSetCurrent(w->ctx[i]));
		ck(cuMemFree_v2(w->table[i]));
		ck(cuMemFree_v2(w->blocks[i]));
		ck(cuModuleUnload(w->module[i][0]));
		ck(cuModuleUnload(w->module[i][1]));
		ck(cuDevicePrimaryCtxRelease_v2(i));
	}
	free(w->op);
}

/* Half the streams do not wait for the legacy one. */
static void begin_seed(struct world *w)
{
	CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED };

	w->n_buf = w->n_graph = w->segment = 0;
	w->live = 0;
	w->hash = 0;
	for (int i = 0; i < w->devices; i++) {
		ck(cuCtxSetCurrent(w->ctx[i]));
		for (int s = 0; s < (int)conf.streams; s++)
			ck(cuStreamCreate(&w->stream[i][s], s % 2 ? CU_STREAM_DEFAULT
							     : CU_STREAM_NON_BLOCKING));
		props.location = (CUmemLocation){ CU_MEM_LOCATION_TYPE_DEVICE, i };
		ck(cuMemPoolCreate(&w->pool[i], &props));
	}
}

static void end_seed(struct world *w)
{
	for (int i = 0; i < w->n_graph; i++)
		graph_drop(&w->graph[i]);
	for (int i = 0; i < w->devices; i++) {
		ck(cuCtxSetCurrent(w->ctx[i]));
		for (int s = 0; s < (int)conf.streams; s++)
			ck(cuStreamDestroy_v2(w->stream[i][s]));
		ck(cuMemPoolDestroy(w->pool[i]));
	}
}

/* ---- the image ------------------------------------------------------------------- */

static void fetch_rows(const struct buf *b, uint8_t *to)
{
	CUDA_MEMCPY2D c = {
		.dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = to, .dstPitch = b->width,
		.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = b->addr,
		.srcPitch = b->pitch, .WidthInBytes = b->width,
		.Height = b->bytes / b->width,
	};

	ck(cuMemcpy2D_v2(&c));
}

/* Managed memory is read by the host every other time. */
static void fetch(const struct world *w, const struct buf *b, uint8_t *to)
{
	ck(cuCtxSetCurrent(w->ctx[b->dev]));
	if (b->family >= FAM_HOST || (b->family == FAM_MANAGED && w->segment % 2))
		memcpy(to, b->host, b->bytes);
	else if (b->family == FAM_PITCH)
		fetch_rows(b, to);
	else
		ck(cuMemcpyDtoH_v2(to, b->alias && w->segment % 2 ? b->alias : b->addr,
				   b->bytes));
}

static void tell_op(const struct op *o, int i, int buf)
{
	for (int k = 0; k < o->n_acc; k++)
		if (buf < 0 || o->acc[k].buf == buf) {
			fprintf(stderr, " %2d %s%s thread %d stream %d how %02x:", i,
				o->issued ? "" : "(not issued) ", kind_name[o->kind],
				o->thread, o->stream, (unsigned int)o->how);
			for (int a = 0; a < o->n_acc; a++)
				fprintf(stderr, " %s%d[%zu+%zu]",
					o->acc[a].write ? "=" : "", o->acc[a].buf,
					o->acc[a].off, o->acc[a].len);
			fputc('\n', stderr);
			return;
		}
}

static void wrong(const struct world *w, int n, const uint8_t *got)
{
	const struct buf *b = &w->buf[n];
	size_t i = 0, all = 0;

	while (got[i] == b->model[i])
		i++;
	for (size_t k = i; k < b->bytes; k++)
		all += got[k] != b->model[k];
	fflush(stdout);
	fprintf(stderr, "random: segment %d: buffer %d (%s, device %d, %zu bytes): "
		"byte %zu is %02x, not %02x; %zu bytes differ; what touched it:\n",
		w->segment, n, family_name[b->family], b->dev, b->bytes, i, got[i],
		b->model[i], all);
	for (int k = 0; k < w->n_op; k++)
		tell_op(&w->op[k], k, n);
	exit(1);
}

static void compare(struct world *w)
{
	for (int n = 0; n < w->n_buf; n++) {
		const struct buf *b = &w->buf[n];
		uint8_t *got;

		if (!b->alive)
			continue;
		got = malloc(b->bytes);
		if (!got)
			abort();
		fetch(w, b, got);
		if (memcmp(got, b->model, b->bytes))
			wrong(w, n, got);
		for (size_t i = 0; i + 4 <= b->bytes; i += 4) {
			uint32_t v;

			memcpy(&v, got + i, 4);
			w->hash = (w->hash ^ v) * 0x9e3779b97f4a7c15u;
			w->hash ^= w->hash >> 29;
		}
		free(got);
	}
}

/* ---- between segments ------------------------------------------------------------ */

/* The host writes managed memory, which it may while nothing runs. */
static void write_managed(struct world *w)
{
	for (int n = 0; n < w->n_buf; n++) {
		struct buf *b = &w->buf[n];
		size_t i;

		if (!b->alive || b->family != FAM_MANAGED || random_below(w, 2))
			continue;
		i = random_below(w, b->bytes);
		b->model[i] ^= 0x5a;
		((uint8_t *)b->host)[i] ^= 0x5a;
	}
}

static void write_tables(struct world *w)
{
	CUdeviceptr at[BUFS_MAX] = { 0 };

	for (int n = 0; n < w->n_buf; n++)
		at[n] = w->buf[n].alive ? w->buf[n].addr : 0;
	for (int i = 0; i < w->devices; i++) {
		ck(cuCtxSetCurrent(w->ctx[i]));
		ck(cuMemcpyHtoD_v2(w->table[i], at, sizeof(at)));
		ck(cuCtxSynchronize());
	}
}

static void drop_graphs(struct world *w)
{
	for (int i = 0; i < w->n_graph; i++)
		if (!w->graph[i].alive)
			graph_drop(&w->graph[i]);
}

static void one_segment(struct world *w, int n)
{
	write_managed(w);
	write_tables(w);
	if (n)
		plan_segment(w, n);
	else
		plan_end(w);
	for (int i = 0; conf.log && i < w->n_op; i++)
		tell_op(&w->op[i], i, -1);
	run_segment(w);
	compare(w);
	drop_graphs(w);
	w->segment++;
}

static void one_seed(struct world *w, uint64_t seed)
{
	const char *fault = getenv("TEST_BREAK");

	w->rng = seed * 0x2545f4914f6cdd1du;
	w->drop_waits = fault && !strcmp(fault, "wait");
	w->drop_op = fault && !strcmp(fault, "copy");
	begin_seed(w);
	for (uint64_t done = 0; done < conf.ops; done += (uint64_t)w->n_op) {
		uint64_t n = 12 + random_below(w, OPS_MAX - 12);

		one_segment(w, (int)(n < conf.ops - done ? n : conf.ops - done));
	}
	while (w->live)
		one_segment(w, 0);
	end_seed(w);
	printf("seed %llu memory %016llx\n", (unsigned long long)seed,
	       (unsigned long long)w->hash);
}

int main(int argc, char **argv)
{
	if (options_read(argc, argv, rows, "random [OPTION VALUE...]")) {
		fprintf(stderr, "random: it takes no argument\n");
		return 2;
	}
	world.c = &conf;
	open_devices(&world);
	for (uint64_t i = 0; i < conf.count; i++)
		one_seed(&world, conf.seed + i);
	close_devices(&world);
	return 0;
}
