/* SPDX-License-Identifier: MIT */
/* test_graph.c - captures, graphs built by hand, changed, updated, launched: E1, E10, E11. */
#include "tests/emu/test.h"

#include <pthread.h>

static CUdeviceptr d;

static CUstream begin(void)
{
	CUstream s;

	setup();
	OK(cuMemAlloc_v2(&d, 4 * G));
	OK(cuMemsetD8_v2(d, 0, 4 * G));
	OK(cuCtxSynchronize());
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	return s;
}

static void capture(CUstream s)
{
	OK(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
}

static unsigned char byte(CUdeviceptr at)
{
	unsigned char b;

	OK(cuMemcpyDtoH_v2(&b, at, 1));
	return b;
}

static CUgraphExec ready(CUgraph g)
{
	CUgraphExec e;

	OK(cuGraphInstantiateWithFlags(&e, g, 0));
	return e;
}

static CUDA_MEMSET_NODE_PARAMS_v1 set_to(CUdeviceptr at, unsigned value)
{
	return (CUDA_MEMSET_NODE_PARAMS_v1){
		.dst = at, .value = value, .elementSize = 1, .width = 16, .height = 1,
	};
}

static CUDA_MEMCPY3D copy_to(CUdeviceptr to, CUdeviceptr from)
{
	return (CUDA_MEMCPY3D){
		.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = from, .srcPitch = 16,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = to, .dstPitch = 16,
		.WidthInBytes = 16, .Height = 1, .Depth = 1,
	};
}

/* ---- capture ------------------------------------------------------------------ */

static void captures_and_launches(void)
{
	CUstreamCaptureStatus status;
	CUgraphNode nodes[8];
	CUgraph g;
	size_t n = 8;
	CUstream s = begin();
	CUgraphExec e;

	capture(s);
	OK(cuStreamIsCapturing(s, &status));
	CHECK(status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
	OK(cuMemsetD8Async(d, 3, 16, s));
	OK(cuMemcpyDtoDAsync_v2(d + 64, d, 16, s));
	OK(cuStreamEndCapture(s, &g));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d) == 0);			/* captured, not run */
	OK(cuGraphGetNodes(g, nodes, &n));
	CHECK(n == 2);
	OK(cuGraphGetEdges(g, NULL, NULL, &n));
	CHECK(n == 1);
	e = ready(g);
	OK(cuGraphDestroy(g));			/* the other is a copy */
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 64) == 3);
	OK(cuMemsetD8_v2(d + 64, 0, 16));
	OK(cuCtxSynchronize());
	OK(cuGraphLaunch(e, s));
	OK(cuGraphExecDestroy(e));		/* the launch goes on */
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 64) == 3);
	IS(cuGraphLaunch(e, s), CUDA_ERROR_INVALID_VALUE);
}

static void forks_and_joins(void)
{
	CUgraphNode from[8], to[8];
	CUevent fork_event, join;
	CUgraph g;
	size_t n = 8;
	CUstream s = begin(), b;

	OK(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
	OK(cuEventCreate(&fork_event, CU_EVENT_DISABLE_TIMING));
	OK(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
	capture(s);
	OK(cuMemsetD8Async(d, 1, 16, s));
	OK(cuEventRecord(fork_event, s));
	OK(cuStreamWaitEvent(b, fork_event, 0));
	OK(cuMemcpyDtoDAsync_v2(d + 64, d, 16, b));
	OK(cuMemcpyDtoDAsync_v2(d + 128, d, 16, s));
	OK(cuEventRecord(join, b));
	OK(cuStreamWaitEvent(s, join, 0));
	OK(cuMemcpyDtoDAsync_v2(d + 130, d + 64, 1, s));
	OK(cuStreamEndCapture(s, &g));
	IS(cuEventQuery(join), CUDA_ERROR_CAPTURED_EVENT);
	OK(cuGraphGetEdges(g, from, to, &n));
	CHECK(n == 4);
	for (int i = 0; i < 20; i++) {
		OK(cuMemsetD8_v2(d, 0, 256));
		OK(cuCtxSynchronize());
		OK(cuGraphLaunch(ready(g), s));
		OK(cuStreamSynchronize(s));
		CHECK(byte(d + 64) == 1 && byte(d + 128) == 1 && byte(d + 130) == 1);
	}
}

static void unjoined(void)
{
	CUevent e;
	CUgraph g;
	CUstream s = begin(), b;

	OK(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
	OK(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
	capture(s);
	OK(cuEventRecord(e, s));
	OK(cuStreamWaitEvent(b, e, 0));
	OK(cuMemsetD8Async(d, 1, 16, b));
	IS(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
	CHECK(!g);
	OK(cuMemsetD8Async(d, 1, 16, b));	/* it captures no more */
	OK(cuStreamSynchronize(b));
	CHECK(byte(d) == 1);
}

static void refused(CUresult (*call)(CUstream), CUresult want)
{
	CUgraph g;
	CUstream s = begin();

	capture(s);
	OK(cuMemsetD8Async(d, 1, 16, s));
	IS(call(s), want);
	IS(cuMemsetD8Async(d, 1, 16, s), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
	IS(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
	CHECK(!g);
	OK(cuStreamSynchronize(s));
	CHECK(byte(d) == 0);
}

static CUresult by_alloc(CUstream s)
{
	CUdeviceptr unused;

	return cuMemAlloc_v2(&unused, 16);
}

static CUresult by_unmap(CUstream s)
{
	return cuMemUnmap(d, G);
}

static void syncing_ends_a_capture(void)
{
	refused(cuStreamSynchronize, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

static void querying_ends_a_capture(void)
{
	refused(cuStreamQuery, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

static void allocating_ends_a_capture(void)
{
	refused(by_alloc, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

static void unmapping_ends_a_capture(void)
{
	refused(by_unmap, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

static void relaxed_captures_allow(void)
{
	CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
	CUgraph g;
	CUstream s = begin();

	OK(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_RELAXED));
	OK(by_alloc(s));
	OK(cuStreamEndCapture(s, &g));
	capture(s);
	OK(cuThreadExchangeStreamCaptureMode(&mode));
	CHECK(mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
	OK(by_alloc(s));
	OK(cuStreamEndCapture(s, &g));
}

static void the_legacy_stream_ends_a_capture(void)
{
	CUgraph g;
	CUstream s;

	begin();
	OK(cuStreamCreate(&s, 0));
	IS(cuStreamBeginCapture_v2(NULL, CU_STREAM_CAPTURE_MODE_RELAXED),
	   CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	OK(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_RELAXED));
	IS(cuMemsetD8Async(d, 1, 16, NULL), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
	IS(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

static void *end_elsewhere(void *s)
{
	CUgraph g;

	IS(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
	return NULL;
}

static void ends_where_it_began(void)
{
	CUgraph g;
	pthread_t t;
	CUstream s = begin();

	IS(cuStreamEndCapture(s, &g), CUDA_ERROR_ILLEGAL_STATE);
	capture(s);
	IS(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_ILLEGAL_STATE);
	CHECK(!pthread_create(&t, NULL, end_elsewhere, s));
	pthread_join(t, NULL);
	OK(cuStreamEndCapture(s, &g));
}

/* ---- by hand ------------------------------------------------------------------ */

static void built_by_hand(void)
{
	CUDA_MEMSET_NODE_PARAMS_v1 m, asked;
	CUDA_MEMCPY3D c;
	CUgraphNode set, copy, list[4];
	CUgraphNodeType type;
	CUgraph g;
	size_t n = 4;
	CUstream s = begin();

	m = set_to(d, 7);
	c = copy_to(d + 64, d);
	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddMemcpyNode(&copy, g, NULL, 0, &c, NULL));
	OK(cuGraphAddMemsetNode(&set, g, NULL, 0, &m, NULL));
	OK(cuGraphAddDependencies(g, &set, &copy, 1));
	IS(cuGraphAddDependencies(g, &set, &copy, 1), CUDA_ERROR_INVALID_VALUE);
	OK(cuGraphGetRootNodes(g, list, &n));
	CHECK(n == 1 && list[0] == set);
	n = 4;
	OK(cuGraphNodeGetDependencies(copy, list, &n));
	CHECK(n == 1 && list[0] == set);
	n = 4;
	OK(cuGraphNodeGetDependentNodes(set, list, &n));
	CHECK(n == 1 && list[0] == copy);
	OK(cuGraphNodeGetType(set, &type));
	CHECK(type == CU_GRAPH_NODE_TYPE_MEMSET);
	OK(cuGraphMemsetNodeGetParams(set, &asked));
	CHECK(asked.dst == d && asked.value == 7);
	OK(cuGraphLaunch(ready(g), s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 64) == 7);
	OK(cuGraphAddDependencies(g, &copy, &set, 1));
	{
		CUgraphExec e;

		IS(cuGraphInstantiateWithFlags(&e, g, 0), CUDA_ERROR_INVALID_VALUE); /* a cycle */
	}
	OK(cuGraphDestroyNode(copy));
	IS(cuGraphNodeGetType(copy, &type), CUDA_ERROR_INVALID_VALUE);
}

static void a_graph_in_a_graph(void)
{
	CUDA_MEMSET_NODE_PARAMS_v1 m;
	CUDA_MEMCPY3D c;
	CUgraphNode in, node, copy, in_clone;
	CUgraph child, g, inside;
	CUgraphExec e;
	CUstream s = begin();

	m = set_to(d, 9);
	c = copy_to(d + 64, d);
	OK(cuGraphCreate(&child, 0));
	OK(cuGraphAddMemsetNode(&in, child, NULL, 0, &m, NULL));
	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddChildGraphNode(&node, g, NULL, 0, child));
	OK(cuGraphAddMemcpyNode(&copy, g, &node, 1, &c, NULL));
	OK(cuGraphChildGraphNodeGetGraph(node, &inside));
	OK(cuGraphNodeFindInClone(&in_clone, in, inside));
	e = ready(g);
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 64) == 9);
	m.value = 10;
	OK(cuGraphExecMemsetNodeSetParams(e, in_clone, &m, NULL));
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 64) == 10);
}

static void a_launch_is_captured(void)
{
	CUDA_MEMSET_NODE_PARAMS_v1 m;
	CUgraphNode node;
	CUgraphNodeType type;
	CUgraph g, outer;
	size_t n = 1;
	CUstream s = begin();

	m = set_to(d, 4);
	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddMemsetNode(&node, g, NULL, 0, &m, NULL));
	capture(s);
	OK(cuGraphLaunch(ready(g), s));
	OK(cuStreamEndCapture(s, &outer));
	OK(cuGraphGetNodes(outer, &node, &n));
	OK(cuGraphNodeGetType(node, &type));
	CHECK(n == 1 && type == CU_GRAPH_NODE_TYPE_GRAPH);
	OK(cuGraphLaunch(ready(outer), s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d) == 4);
}

static int *host_at;
static void host_node(void *arg)
{
	*host_at += *(int *)arg;
}

static void host_nodes_and_events(void)
{
	CUDA_HOST_NODE_PARAMS_v1 h = { host_node, NULL };
	CUgraphNode node, rec, wait;
	int sum = 0, one = 1;
	CUevent before, after;
	CUgraph g;
	CUstream s = begin(), other;

	host_at = &sum;
	h.userData = &one;
	OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
	OK(cuEventCreate(&before, 0));
	OK(cuEventCreate(&after, 0));
	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddEventWaitNode(&wait, g, NULL, 0, before));
	OK(cuGraphAddHostNode(&node, g, &wait, 1, &h));
	OK(cuGraphAddEventRecordNode(&rec, g, &node, 1, after));
	close_gate(other);
	OK(cuEventRecord(before, other));
	OK(cuGraphLaunch(ready(g), s));
	usleep(20000);			/* it has time enough to be wrong */
	IS(cuEventQuery(after), CUDA_ERROR_NOT_READY);
	CHECK(sum == 0);
	open_gate();
	OK(cuEventSynchronize(after));
	CHECK(sum == 1);
}

/* ---- changing ----------------------------------------------------------------- */

static void changes_reach_later_launches(void)
{
	CUDA_MEMSET_NODE_PARAMS_v1 m;
	CUgraphNode set;
	CUgraph g;
	CUgraphExec e;
	unsigned on;
	CUstream s = begin();

	m = set_to(d, 1);
	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddMemsetNode(&set, g, NULL, 0, &m, NULL));
	e = ready(g);
	m = set_to(d + 64, 2);
	OK(cuGraphMemsetNodeSetParams(set, &m));	/* not e's any more */
	close_gate(s);
	OK(cuGraphLaunch(e, s));
	m = set_to(d + 128, 3);
	OK(cuGraphExecMemsetNodeSetParams(e, set, &m, NULL));
	open_gate();
	OK(cuStreamSynchronize(s));
	CHECK(byte(d) == 1 && byte(d + 64) == 0 && byte(d + 128) == 0);
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 128) == 3);
	OK(cuMemsetD8_v2(d + 128, 0, 16));
	OK(cuCtxSynchronize());
	OK(cuGraphNodeSetEnabled(e, set, 0));
	OK(cuGraphNodeGetEnabled(e, set, &on));
	CHECK(!on);
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 128) == 0);
}

static CUgraph two(CUdeviceptr at, unsigned value, bool linked)
{
	CUDA_MEMSET_NODE_PARAMS_v1 m = set_to(at, value);
	CUDA_MEMCPY3D c = copy_to(at + 64, at);
	CUgraphNode a, b;
	CUgraph g;

	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddMemsetNode(&a, g, NULL, 0, &m, NULL));
	OK(cuGraphAddMemcpyNode(&b, g, &a, linked, &c, NULL));
	return g;
}

static void updates_keep_the_shape(void)
{
	CUgraphExecUpdateResultInfo info;
	CUDA_MEMCPY3D c;
	CUgraphNode a, b;
	CUgraph other;
	CUgraphExec e;
	CUstream s = begin();

	e = ready(two(d, 1, true));
	OK(cuGraphExecUpdate_v2(e, two(d + 256, 2, true), &info));
	CHECK(info.result == CU_GRAPH_EXEC_UPDATE_SUCCESS);
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 64) == 0 && byte(d + 256 + 64) == 2);
	IS(cuGraphExecUpdate_v2(e, two(d, 3, false), &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
	CHECK(info.result == CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
	c = copy_to(d, d + 64);
	OK(cuGraphCreate(&other, 0));
	OK(cuGraphAddMemcpyNode(&a, other, NULL, 0, &c, NULL));
	OK(cuGraphAddMemcpyNode(&b, other, &a, 1, &c, NULL));
	IS(cuGraphExecUpdate_v2(e, other, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
	CHECK(info.result == CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED);
	OK(cuGraphLaunch(e, s));	/* as it was */
	OK(cuStreamSynchronize(s));
	CHECK(byte(d) == 0);
}

/* A graph that sets what is at `at`. */
static CUgraphExec setting(CUdeviceptr at)
{
	CUDA_MEMSET_NODE_PARAMS_v1 m = set_to(at, 1);
	CUgraphNode set;
	CUgraph g;

	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddMemsetNode(&set, g, NULL, 0, &m, NULL));
	return ready(g);
}

static void unmap_under_a_graph(void)
{
	CUdeviceptr at;
	CUgraphExec e;
	CUstream s = begin();

	at = mapped(G);
	e = setting(at);
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	close_gate(s);
	OK(cuGraphLaunch(e, s));
	IS(cuMemUnmap(at, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
}

/* Nothing is queued: unmapping is fine, launching again is not. */
static void launch_after_an_unmap(void)
{
	CUdeviceptr at;
	CUgraphExec e;
	CUstream s = begin();

	at = mapped(G);
	e = setting(at);
	OK(cuMemUnmap(at, G));
	OK(cuGraphLaunch(e, s));
	IS(cuStreamSynchronize(s), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E3");
}

static void memory_of_a_graph(void)
{
	CUdeviceptr a;
	CUgraph g;
	CUgraphExec e;
	CUstream s = begin();

	capture(s);
	OK(cuMemAllocAsync(&a, 64, s));
	OK(cuMemsetD8Async(a, 6, 64, s));
	OK(cuMemcpyDtoDAsync_v2(d, a, 64, s));
	OK(cuMemFreeAsync(a, s));
	OK(cuStreamEndCapture(s, &g));
	e = ready(g);
	for (int i = 0; i < 3; i++) {
		OK(cuMemsetD8_v2(d, 0, 64));
		OK(cuCtxSynchronize());
		OK(cuGraphLaunch(e, s));
		OK(cuStreamSynchronize(s));
		CHECK(byte(d) == 6);
	}
	{
		size_t before, after;

		OK(cuMemGetInfo_v2(&before, NULL));
		OK(cuGraphDestroy(g));
		OK(cuMemGetInfo_v2(&after, NULL));
		CHECK(before == after);		/* e has it still */
	}
	OK(cuMemsetD8Async(a, 1, 64, s));	/* between launches it is not there */
	IS(cuStreamSynchronize(s), CUDA_ERROR_ILLEGAL_ADDRESS);
}

static void launches_of_one_run_in_turn(void)
{
	CUDA_MEMSET_NODE_PARAMS_v1 m;
	CUgraphNode set;
	CUgraph g;
	CUgraphExec e;
	CUstream s = begin(), other;

	OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
	m = set_to(d, 1);
	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddMemsetNode(&set, g, NULL, 0, &m, NULL));
	e = ready(g);
	close_gate(s);
	OK(cuGraphLaunch(e, s));
	OK(cuGraphLaunch(e, other));
	usleep(20000);			/* it has time enough to be wrong */
	IS(cuStreamQuery(other), CUDA_ERROR_NOT_READY);
	open_gate();
	OK(cuStreamSynchronize(other));
	OK(cuStreamQuery(s));
	CHECK(byte(d) == 1);
}

static void memory_goes_with_the_graph(void)
{
	size_t before, after;
	CUdeviceptr a;
	CUgraph g;
	CUgraphExec e;
	CUstream s = begin();

	OK(cuMemGetInfo_v2(&before, NULL));
	capture(s);
	OK(cuMemAllocAsync(&a, 1u << 20, s));
	OK(cuMemFreeAsync(a, s));
	OK(cuStreamEndCapture(s, &g));
	e = ready(g);
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	OK(cuGraphDestroy(g));
	OK(cuGraphExecDestroy(e));
	OK(cuMemsetD8Async(d, 1, 1, s));	/* nothing remembers the launch */
	OK(cuStreamSynchronize(s));
	OK(cuMemGetInfo_v2(&after, NULL));
	CHECK(before == after);
}

static CUDA_MEMCPY3D from_to(CUdeviceptr from, CUdeviceptr to, size_t n)
{
	return (CUDA_MEMCPY3D){
		.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = from, .srcPitch = n,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = to, .dstPitch = n,
		.srcHeight = 1, .dstHeight = 1, .WidthInBytes = n, .Height = 1, .Depth = 1,
	};
}

/* A set of d[0] to `value`, in a graph alone. */
static CUgraph one_set(unsigned int value, CUgraphNode *set)
{
	CUDA_MEMSET_NODE_PARAMS_v1 m = { .dst = d, .value = value, .elementSize = 1, .width = 1,
					 .height = 1 };
	CUcontext ctx;
	CUgraph g;

	OK(cuCtxGetCurrent(&ctx));
	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddMemsetNode(set, g, NULL, 0, &m, ctx));
	return g;
}

/* More nodes in a clone: the graph it is of has none of them, what is instantiated knows
 * the clone's handles alone, and an update takes a clone with the same nodes more. */
static void nodes_put_into_a_clone(void)
{
	CUDA_MEMCPY3D c;
	CUgraphNode set, in, copy, node[4], bad;
	CUgraphExecUpdateResult why;
	CUgraph g, clone, other;
	size_t n = 4;
	CUgraphExec e;
	CUcontext ctx;
	CUstream s = begin();

	OK(cuCtxGetCurrent(&ctx));
	g = one_set(7, &set);
	OK(cuGraphClone(&clone, g));
	OK(cuGraphNodeFindInClone(&in, set, clone));
	c = from_to(d, d + 64, 1);
	OK(cuGraphAddMemcpyNode(&copy, clone, &in, 1, &c, ctx));
	OK(cuGraphGetNodes(g, node, &n));
	CHECK(n == 1 && node[0] == set);
	e = ready(clone);
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 64) == 7);
	IS(cuGraphNodeSetEnabled(e, set, 0), CUDA_ERROR_INVALID_VALUE);
	c = from_to(d, d + 128, 1);
	OK(cuGraphExecMemcpyNodeSetParams(e, copy, &c, ctx));
	OK(cuGraphDestroy(g));
	g = one_set(9, &set);
	IS(cuGraphExecUpdate(e, g, &bad, &why), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
	CHECK(why == CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
	OK(cuGraphClone(&other, g));
	OK(cuGraphNodeFindInClone(&in, set, other));
	OK(cuGraphAddMemcpyNode(&node[0], other, &in, 1, &c, ctx));
	OK(cuGraphExecUpdate(e, other, &bad, &why));
	OK(cuGraphDestroy(other));
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
	CHECK(byte(d + 64) == 7 && byte(d + 128) == 9);
	OK(cuGraphNodeSetEnabled(e, copy, 0));	/* the first clone's handles, still */
	IS(cuGraphNodeSetEnabled(e, node[0], 0), CUDA_ERROR_INVALID_VALUE);
	OK(cuGraphExecDestroy(e));
	OK(cuGraphDestroy(clone));
	OK(cuGraphDestroy(g));
}

static const struct test_case cases[] = {
	{ "nodes_put_into_a_clone", nodes_put_into_a_clone, NULL },
	{ "captures_and_launches", captures_and_launches, NULL },
	{ "forks_and_joins", forks_and_joins, "EMU_DELAY_US=100" },
	{ "unjoined", unjoined, NULL },
	{ "syncing_ends_a_capture", syncing_ends_a_capture, NULL },
	{ "querying_ends_a_capture", querying_ends_a_capture, NULL },
	{ "allocating_ends_a_capture", allocating_ends_a_capture, NULL },
	{ "unmapping_ends_a_capture", unmapping_ends_a_capture, NULL },
	{ "relaxed_captures_allow", relaxed_captures_allow, NULL },
	{ "the_legacy_stream_ends_a_capture", the_legacy_stream_ends_a_capture, NULL },
	{ "ends_where_it_began", ends_where_it_began, NULL },
	{ "built_by_hand", built_by_hand, NULL },
	{ "a_graph_in_a_graph", a_graph_in_a_graph, NULL },
	{ "a_launch_is_captured", a_launch_is_captured, NULL },
	{ "host_nodes_and_events", host_nodes_and_events, NULL },
	{ "changes_reach_later_launches", changes_reach_later_launches, NULL },
	{ "updates_keep_the_shape", updates_keep_the_shape, NULL },
	{ "unmap_under_a_graph", unmap_under_a_graph, NULL },
	{ "launch_after_an_unmap", launch_after_an_unmap, NULL },
	{ "launches_of_one_run_in_turn", launches_of_one_run_in_turn, NULL },
	{ "memory_goes_with_the_graph", memory_goes_with_the_graph, NULL },
	{ "memory_of_a_graph", memory_of_a_graph, NULL },
};

MAIN(cases)
