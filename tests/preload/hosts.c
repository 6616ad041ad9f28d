/* SPDX-License-Identifier: MIT */
/* hosts.c - hosts that refuse things: containers, limits, no /proc, no huge pages.
 *
 * Owns nothing but a folder; the program runs itself once more for each host, with
 * what is refused in force before that image begins. Lock: none. (1) Bytes are
 * right, of a file's memory and of a block, whatever is refused. (2) What is lost
 * is said, once, and is never more than speed: the same exit, no other output.
 * (3) Where paging goes on, evictions show it; where it cannot, the mode is hints.
 */
/* env: OFFLOAD_RAM=24M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
/* variants: plain move copy hints */
#include "anon.h"

#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define FILE_SIZE	(40 * MIB)
#define OWN_SIZE	(12 * MIB)

static struct trap t;

/* ---- what a host refuses: true if it does now --------------------------------- */

#define REFUSE(nr) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), \
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

/* As the default profiles of container runtimes do without capabilities. */
static bool container(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		REFUSE(SYS_userfaultfd), REFUSE(SYS_io_uring_setup),
		REFUSE(SYS_io_uring_enter), REFUSE(SYS_io_uring_register),
		REFUSE(SYS_unshare), REFUSE(SYS_setns), REFUSE(SYS_mount),
		REFUSE(SYS_process_madvise), REFUSE(SYS_move_pages),
		REFUSE(SYS_mbind), REFUSE(SYS_perf_event_open), REFUSE(SYS_bpf),
		REFUSE(SYS_keyctl), REFUSE(SYS_syslog), REFUSE(SYS_kcmp),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, args[1])),
		REFUSE(USERFAULTFD_IOC_NEW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(f) / sizeof(*f), f };

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

static bool no_huge_pages(void)
{
	return !prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

static bool limit(int what, rlim_t most)
{
	struct rlimit rl = { most, most };

	return !setrlimit(what, &rl);
}

static bool little_address_space(void)
{
	return limit(RLIMIT_AS, 1536 * MIB);
}

static bool hardly_any_address_space(void)
{
	return limit(RLIMIT_AS, 300 * MIB);
}

static bool few_files(void)
{
	return limit(RLIMIT_NOFILE, 48);
}

/* 0, 1, 2, and the one that the program needs. */
static bool no_files(void)
{
	return limit(RLIMIT_NOFILE, 4);
}

static bool no_locks(void)
{
	return limit(RLIMIT_MEMLOCK, 0);
}

static bool small_files(void)
{
	signal(SIGXFSZ, SIG_IGN);	/* as shells leave it is not: ours to die of */
	return limit(RLIMIT_FSIZE, 64 * KIB);
}

static bool nobody(void)
{
	return !setgroups(0, NULL) && !setresgid(65534, 65534, 65534) &&
	       !setresuid(65534, 65534, 65534) && !access("/proc/self/exe", X_OK) &&
	       !access(t.path, R_OK) && limit(RLIMIT_MEMLOCK, 0);
}

static bool nobody_without_threads(void)
{
	return nobody() && limit(RLIMIT_NPROC, 0);
}

static bool no_proc(void)
{
	return !unshare(CLONE_NEWNS) &&
	       !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("none", "/proc", "tmpfs", 0, NULL);
}

/* pages: memory is paged all the same, in the modes that do; hints: the mode is
 * hints there; least, most: so many lines the library must and may say. */
static const struct host {
	const char *name;
	bool (*refuse)(void);
	bool pages, hints;
	int least, most;
} hosts[] = {
	{ "container", container, false, true, 1, 1 },
	{ "no-huge-pages", no_huge_pages, true, false, 0, 0 },
	{ "little-address-space", little_address_space, false, true, 1, 2 },
	{ "hardly-any-address-space", hardly_any_address_space, false, true, 1, 2 },
	{ "few-files", few_files, true, false, 0, 0 },
	{ "no-files", no_files, false, false, 0, 1 },
	{ "no-locks", no_locks, true, false, 0, 0 },
	{ "small-files", small_files, true, false, 0, 1 },
	{ "nobody", nobody, false, false, 1, 1 },
	{ "nobody-without-threads", nobody_without_threads, false, false, 1, 1 },
	{ "no-proc", no_proc, false, false, 0, 2 },
	{ "chroot", NULL, false, false, 0, 2 },
};

/* ---- the image on that host ---------------------------------------------------- */

static void into_a_chroot(void)
{
	int up = open(trap_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char name[64], dir[PATH_MAX];

	snprintf(name, sizeof(name), "trap.root.%d", (int)getpid());
	snprintf(dir, sizeof(dir), "%s/%s", trap_dir(), name);
	check(up >= 0 && !mkdir(dir, 0700));
	if (chroot(dir)) {
		rmdir(dir);
		skip("no chroot");
	}
	check(!chdir("/") && !unlinkat(up, name, AT_REMOVEDIR));
	close(up);
}

/* The block is written before the library has to page anything. */
static int use_memory(bool jail)
{
	struct block b = block_new(1, OWN_SIZE);
	int fd = trap_open(&t);

	if (jail)
		into_a_chroot();
	t.map = mmap(NULL, t.size, PROT_READ, MAP_SHARED, fd, 0);
	check(t.map != MAP_FAILED);
	close(fd);
	for (int i = 0; i < 2; i++) {
		verify_all(&t, "file");
		block_verify(&b, "block");
		block_fill(&b, b.gen + 1);
	}
	block_free(&b);
	trap_unmap(&t);
	return 0;
}

static int on_host(const char *name)
{
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		if (strcmp(hosts[i].name, name))
			continue;
		if (hosts[i].refuse && !hosts[i].refuse())
			return 77;
		execl("/proc/self/exe", program_invocation_name, "use", name, NULL);
		/* No /proc: by the name it was called with. */
		execl(program_invocation_name, program_invocation_name, "use", name,
		      NULL);
	}
	return 99;
}

/* ---- what it says ----------------------------------------------------------------- */

/* Not that the statistics cannot be written by who became nobody. */
static int lines_of(const char *err)
{
	int n = 0;

	while ((err = strstr(err, "offload["))) {
		n += strncmp(strchr(err, ']') + 3, "OFFLOAD_STATS=", 14) != 0;
		err++;
	}
	return n;
}

/* The statistics of the child, or an empty text. */
static void read_stats(char *buf, size_t room)
{
	const char *own = getenv("OFFLOAD_STATS");
	char path[PATH_MAX];
	ssize_t n = 0;
	int fd;

	buf[0] = 0;
	if (!own || !strchr(own, '/'))
		return;
	snprintf(path, sizeof(path), "%s.child", own);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, buf, room - 1);
	buf[n > 0 ? n : 0] = 0;
	close(fd);
	unlink(path);
}

static long figure(const char *json, const char *key)
{
	const char *p = strstr(json, key);

	return p ? strtol(p + strlen(key), NULL, 10) : 0;
}

static char missing[512];	/* hosts that this machine cannot be made to be */

static void judge(const struct host *h, const struct trap_child *c)
{
	static char json[256 * KIB];
	int said = lines_of(c->err);

	read_stats(json, sizeof(json));
	if (WIFEXITED(c->status) && WEXITSTATUS(c->status) == 77) {
		strcat(strcat(missing, " "), h->name);
		return;
	}
	if (c->status)
		fail("%s: status %#x; it said: %s", h->name, c->status, c->err);
	if (trap_mode_is("torture"))
		return;
	if (strstr(c->err, "very small"))
		fail("%s: OFFLOAD_RAM is not heeded: %s", h->name, c->err);
	if (said > h->most)
		fail("%s: %d messages, not %d: %s", h->name, said, h->most, c->err);
	if (!trap_paged())
		return;
	if (said < h->least)
		fail("%s: %d messages, not %d: %s", h->name, said, h->least, c->err);
	if (h->pages && figure(json, "\"evictions\":") < 1)
		fail("%s: nothing was evicted: %s", h->name, c->err);
	if (h->hints && !strstr(json, "\"pager\":\"hints\""))
		fail("%s: the pager is not hints: %s", h->name, c->err);
}

int main(int argc, char **argv)
{
	struct trap_child c;
	int only = argc == 2;

	trap_shared(&t, FILE_SIZE, 1);
	if (argc > 2 && !strcmp(argv[1], "on"))
		return on_host(argv[2]);
	if (argc > 2)
		return use_memory(!strcmp(argv[2], "chroot"));
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		if (only && strcmp(argv[1], hosts[i].name))
			continue;
		trap_run(&c, "on", hosts[i].name);
		if (only)
			fprintf(stderr, "%#x: %s", c.status, c.err);
		judge(&hosts[i], &c);
	}
	use_memory(false);
	if (missing[0])
		skip("not to be had here:%s", missing);
	return 0;
}
