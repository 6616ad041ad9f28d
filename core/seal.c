/* SPDX-License-Identifier: MIT */
/* seal.c - what goes to the spill file, encrypted: keys and numbers.
 *
 *   key:  none --seal_key_new--> made --seal_key_drop--> none (wiped)
 *
 * (1) A key belongs to one spill file, and a spill file is written by the process
 *     that made it alone. So a forked child, which has its parent's keys to read
 *     what it inherited, never seals anything with them: the file it makes has a
 *     key of its own, and no (key, number) pair is used twice.
 * (2) Numbers count up from 1; 2^64 of them are not used up.
 * (3) Keys lie in pages that are not dumped, locked where the limit allows it,
 *     and are wiped when their file is closed.
 * (4) No key, no spilling: nothing goes to a disk in the clear instead.
 * Owns the keys and the rooms. Lock: none, see seal.h.
 */
#include "core/seal.h"
#include "core/core_int.h"
#include "core/spill.h"

#include <sodium.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROOMS	4		/* as many as writes under way: anon_io.c */

_Static_assert(SEAL_KEYS == SPILL_FILES + 1, "a key for each");
_Static_assert(sizeof(crypto_aead_aes256gcm_state) <= SEAL_STATE, "it fits");

struct key {
	uint8_t state[SEAL_STATE] __attribute__((aligned(64)));
	uint8_t raw[32];
	uint64_t last;		/* number given out */
	bool made;
};

static struct key *keys;
static const struct seal_ops *ops;
static struct { char *at; uint32_t chunk; bool used; } room[ROOMS];

/* ---- two ways ------------------------------------------------------------------ */

static void nonce_of(uint8_t nonce[12], const struct seal *s)
{
	memset(nonce, 0, 4);
	memcpy(nonce + 4, &s->number, 8);
}

static bool aes_here(void)
{
	return crypto_aead_aes256gcm_is_available();
}

static void aes_ready(void *state, const uint8_t *key)
{
	crypto_aead_aes256gcm_beforenm(state, key);
}

static void aes_make(const void *state, struct seal *s, void *dst, const void *src,
		     size_t len)
{
	uint8_t nonce[12];

	nonce_of(nonce, s);
	crypto_aead_aes256gcm_encrypt_detached_afternm(dst, s->tag, NULL, src, len, NULL, 0,
						       NULL, nonce, state);
}

static int aes_open(const void *state, const struct seal *s, void *buf, size_t len)
{
	uint8_t nonce[12];

	nonce_of(nonce, s);
	return crypto_aead_aes256gcm_decrypt_detached_afternm(buf, NULL, buf, len, s->tag,
			NULL, 0, nonce, state) ? -EBADMSG : 0;
}

static bool chacha_here(void)
{
	return true;
}

static void chacha_ready(void *state, const uint8_t *key)
{
	memcpy(state, key, 32);
}

static void chacha_make(const void *state, struct seal *s, void *dst, const void *src,
			size_t len)
{
	uint8_t nonce[12];

	nonce_of(nonce, s);
	crypto_aead_chacha20poly1305_ietf_encrypt_detached(dst, s->tag, NULL, src, len,
							   NULL, 0, NULL, nonce, state);
}

static int chacha_open(const void *state, const struct seal *s, void *buf, size_t len)
{
	uint8_t nonce[12];

	nonce_of(nonce, s);
	return crypto_aead_chacha20poly1305_ietf_decrypt_detached(buf, NULL, buf, len,
			s->tag, NULL, 0, nonce, state) ? -EBADMSG : 0;
}

const struct seal_ops seal_aes = {
	"AES-256-GCM", aes_here, aes_ready, aes_make, aes_open
};
const struct seal_ops seal_chacha = {
	"ChaCha20-Poly1305", chacha_here, chacha_ready, chacha_make, chacha_open
};

int seal_init(void)
{
	if (sodium_init() < 0)
		return -ENOSYS;
	ops = seal_aes.here() ? &seal_aes : &seal_chacha;
	return 0;
}

/* ---- keys ---------------------------------------------------------------------- */

/* (3) */
static int make_pages(void)
{
	size_t len = page_up(SEAL_KEYS * sizeof(*keys));
	struct key *p = keys ? NULL : reserve_range(len);
	int err;

	if (keys)
		return 0;
	if (!p)
		return -ENOMEM;
	if (off_sys_madvise(p, len, MADV_DONTDUMP)) {
		err = -errno;
		off_sys_munmap(p, len);
		return err;
	}
	off_sys_mlock(p, len);
	/* Two stores may want their first key at a time. */
	if (!__sync_bool_compare_and_swap(&keys, NULL, p))
		off_sys_munmap(p, len);
	return 0;
}

static int random_key(uint8_t raw[32])
{
	long n;

	do
		n = syscall(SYS_getrandom, raw, 32, 0);
	while (n < 0 && errno == EINTR);
	return n == 32 ? 0 : n < 0 ? -errno : -EIO;
}

int seal_key_new(uint32_t file)
{
	int err = seal_init();
	struct key *k;

	if (!err)
		err = make_pages();
	if (err)
		return err;
	k = &keys[file];
	off_assert(file < SEAL_KEYS && !k->made);
	err = random_key(k->raw);
	if (err)
		return err;
	ops->ready(k->state, k->raw);
	k->last = 0;
	k->made = true;
	off_verbose(1, "the spill file is encrypted (%s)", ops->name);
	return 0;
}

void seal_key_drop(uint32_t file)
{
	if (keys)
		sodium_memzero(&keys[file], sizeof(keys[file]));
}

static const struct key *key_of(uint32_t file)
{
	off_assert(file < SEAL_KEYS && keys && keys[file].made);
	return &keys[file];
}

const void *seal_key_state(uint32_t file)
{
	return key_of(file)->state;
}

uint64_t seal_number(uint32_t file)
{
	key_of(file);
	return ++keys[file].last;
}

void seal_make(uint32_t file, struct seal *s, void *dst, const void *src, size_t len)
{
	off_assert(s->number);
	ops->make(key_of(file)->state, s, dst, src, len);
}

int seal_open(uint32_t file, const struct seal *s, void *buf, size_t len)
{
	return s->number ? ops->open(key_of(file)->state, s, buf, len) : -EBADMSG;
}

/* ---- rooms --------------------------------------------------------------------- */

/* Not inherited: nothing is under way at a fork, and a child makes its own. */
static bool make_rooms(void)
{
	char *p = room[0].at ? NULL : reserve_own(ROOMS * CHUNK);

	for (int i = 0; p && i < ROOMS; i++)
		room[i].at = p + (size_t)i * CHUNK;
	return room[0].at != NULL;
}

char *seal_room(uint32_t chunk)
{
	int i = 0;

	if (!make_rooms())
		return NULL;
	while (i < ROOMS && room[i].used)
		i++;
	if (i == ROOMS)
		return NULL;
	room[i].used = true;
	room[i].chunk = chunk;
	return room[i].at;
}

void seal_give(uint32_t chunk)
{
	for (int i = 0; i < ROOMS; i++)
		if (room[i].used && room[i].chunk == chunk)
			room[i].used = false;
}

void seal_rooms_reset(void)
{
	memset(room, 0, sizeof(room));
}
