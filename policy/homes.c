/* SPDX-License-Identifier: MIT */
/* homes.c - which extents are homed in the device: those that cost most at the host.
 *
 *   uses --look--> rates --pairs: dearest at the host, cheapest in the device--> moves
 *
 * A byte at the host crosses the link for each use, and twice where kernels write it. A move
 * crosses it once. On a loop that uses all alike any set is as good as another, so that none
 * may be left for another: LRU and its like would move all in each pass.
 *
 * (1) Pairs are made from the ends of both orders: once one pair does not pay none after
 *     it does.
 * (2) A difference has to be seen often, or to be as large as chance makes none: rates have
 *     a variance, which is nothing where each pass is like the last.
 * (3) Extents that were never looked at are not judged by uses.
 * (4) Memory that nobody wants is for anybody: kernels may find by themselves what was
 *     never seen to be used.
 * Lock: none, pure functions of their arguments.
 */
#include "policy/policy_int.h"

#define HORIZON		16	/* looks a mean goes back over */
#define FEW		2	/* looks before a rate is one */
#define SIGMAS		3.0
#define FREE_PAY	16	/* times longer, where nothing goes for it */
#define CROSSINGS	2.0	/* of what is written, per use */

double pol_homes_passes(const struct pol_home *h, uint32_t n)
{
	double used = 0, bytes = 0;

	for (uint32_t i = 0; i < n; i++) {
		used += h[i].uses * (double)h[i].bytes;
		bytes += h[i].uses > 0 ? (double)h[i].bytes : 0;
	}
	return bytes > 0 ? used / bytes : 0;
}

/* Mean and variance, weighed as if there had been no more looks than HORIZON. */
static void fold(struct pol_home *h, double rate)
{
	double n = h->looks < HORIZON ? h->looks + 1 : HORIZON, d = rate - h->rate;

	if (!h->looks) {
		h->rate = (float)rate;
		h->var = 0;
	} else {
		h->rate += (float)(d / n);
		h->var += (float)((d * d * (n - 1) / n - h->var) / n);
	}
	h->looks += h->looks < UINT16_MAX;
}

void pol_homes_look(struct pol_home *h, uint32_t n)
{
	double passes = pol_homes_passes(h, n);

	for (uint32_t i = 0; passes > 0 && i < n; i++) {
		h[i].idle = h[i].uses > 0 ? 0 : h[i].idle + (h[i].idle < UINT16_MAX);
		if (h[i].looks || h[i].uses > 0)
			fold(&h[i], h[i].uses / passes);
		h[i].uses = 0;
	}
}

double pol_home_cost(const struct pol_home *h)
{
	return h->rate * (h->written ? CROSSINGS : 1);
}

/* What was never seen to be used is as cheap as can be (3). */
static bool dearer(const struct pol_home *a, const struct pol_home *b)
{
	double x = pol_home_cost(a), y = pol_home_cost(b);

	if (x > y || x < y)
		return x > y;
	if (a->written != b->written)
		return a->written;
	return a->idle < b->idle;
}

/* What is alike is taken from here and there: what is away is spread over the pass, so
 * that the link has work all along. */
static bool before(const struct pol_home *h, uint32_t a, uint32_t b)
{
	const uint32_t golden = 0x9e3779b1u;	/* a step that comes back nowhere near soon */

	return dearer(&h[a], &h[b]) || (!dearer(&h[b], &h[a]) && a * golden < b * golden);
}

static void sift(const struct pol_home *h, uint32_t *order, uint32_t i, uint32_t n)
{
	uint32_t top = order[i], c;

	while ((c = 2 * i + 1) < n) {
		if (c + 1 < n && before(h, order[c], order[c + 1]))
			c++;
		if (!before(h, top, order[c]))
			break;
		order[i] = order[c];
		i = c;
	}
	order[i] = top;
}

/* The dearest first. */
static void sort(const struct pol_home *h, uint32_t *order, uint32_t n)
{
	for (uint32_t i = n / 2; i-- > 0;)
		sift(h, order, i, n);
	for (uint32_t i = n; i-- > 1;) {
		uint32_t t = order[0];

		order[0] = order[i];
		order[i] = t;
		sift(h, order, 0, i);
	}
}

static double mean_var(const struct pol_home *h)
{
	return h && h->looks ? h->var / (h->looks < HORIZON ? h->looks : HORIZON) : 0;
}

/* (2), of bytes that gain so much. */
static bool sure(double gain, const struct pol_home *in, const struct pol_home *out)
{
	double each = gain / (double)in->bytes;

	return each > 0 && each * each > SIGMAS * SIGMAS * (mean_var(in) + mean_var(out));
}

/* What may be judged by its rate. */
static bool known(const struct pol_home *h)
{
	return h->looks >= FEW;
}

/* Written and used, by no known rate yet: it comes before all that is not written. */
static bool first(const struct pol_home *h)
{
	return h->written && !known(h) && (h->uses > 0 || h->rate > 0);
}

/* Does it pay to have `in` there, where n extents go that cost `out` together? */
static bool pays(const struct pol_home *in, double out, uint64_t out_bytes,
		 const struct pol_home *cheapest)
{
	double gain = pol_home_cost(in) * (double)in->bytes - out;

	double passes = out_bytes ? POL_HOME_PAY : POL_HOME_PAY * FREE_PAY;

	if (first(in) || (!in->looks && !out_bytes))	/* (4) */
		return true;
	return known(in) && gain * passes >= (double)(in->bytes + out_bytes) &&
	       sure(gain, in, cheapest);
}

/* May h go for `in`? What has no rate yet does not go, but for who comes first. */
static bool may_go(const struct pol_home *h, const struct pol_home *in)
{
	if (h->stays || !h->device)
		return false;
	return first(in) ? !h->written : known(h) || (!h->looks && !h->written);
}

struct hand {
	const struct pol_home *h;
	const uint32_t *order;
	uint32_t n, last;	/* order[last - 1]: the cheapest not gone yet */
	uint64_t room, spare, host;
	uint32_t *out, done, most;
};

/* The extents that go for `in`, the cheapest first; false: they are too dear, or cannot. */
static bool swap(struct hand *k, uint32_t in)
{
	const struct pol_home *h = k->h, *cheapest = NULL;
	uint64_t room = h[in].written ? k->room : k->spare, host = k->host, bytes = 0;
	uint32_t done = k->done, last = k->last;
	double cost = 0;

	while (room + bytes < h[in].bytes) {
		while (last && !may_go(&h[k->order[last - 1]], &h[in]))
			last--;
		if (!last || done + 1 >= k->most)
			return false;
		last--;
		cheapest = &h[k->order[last]];
		if (cheapest->bytes > host || (!first(&h[in]) && !dearer(&h[in], cheapest)))
			return false;
		host -= cheapest->bytes;
		bytes += cheapest->bytes;
		cost += pol_home_cost(cheapest) * (double)cheapest->bytes;
		k->out[done++] = k->order[last];
	}
	if (done == k->most || !pays(&h[in], cost, bytes, cheapest))
		return false;
	k->out[done++] = in;
	k->done = done;
	k->last = last;
	k->host = host + h[in].bytes;
	k->room = k->room + bytes > h[in].bytes ? k->room + bytes - h[in].bytes : 0;
	k->spare = k->spare + bytes > h[in].bytes ? k->spare + bytes - h[in].bytes : 0;
	return true;
}

uint32_t pol_homes(const struct pol_homes_in *in, const struct pol_home *h, uint32_t n,
		   uint32_t *order, uint32_t *out, uint32_t most)
{
	struct hand k = { .h = h, .order = order, .n = n, .last = n, .room = in->room,
			  .spare = in->spare < in->room ? in->spare : in->room,
			  .host = in->host, .out = out, .most = most };

	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	sort(h, order, n);
	/* Those that come first have no rate: they are dear by what they are. */
	for (uint32_t i = 0; i < n; i++)
		if (!h[i].device && !h[i].stays && first(&h[i]) && !swap(&k, i))
			return k.done;
	k.last = n;
	for (uint32_t i = 0, was = k.done; !was && i < n && i < k.last; i++) {
		const struct pol_home *e = &h[order[i]];

		if (!e->device && !e->stays && !swap(&k, order[i]) && known(e))
			break;
	}
	return k.done;
}
