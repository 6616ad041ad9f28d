/* SPDX-License-Identifier: MIT */
/* offctl_target.c - can a library be preloaded into this program?
 *
 * Owns nothing. The loader says nothing when it leaves a preload out (static,
 * setuid) and an error per process when it cannot map it (other
 * architecture, other libc); so it is found out before, by reading.
 */
#include "offctl.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define HEAD 4096
#define MAX_SCRIPTS 4		/* the kernel follows as many */

struct head {
	int fd;
	ssize_t n;
	unsigned char b[HEAD];
};

/* The architecture of offctl itself, which is the library's. */
#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#else
#error "add this architecture's EM_ number"
#endif

static int read_head(const char *path, struct head *h)
{
	memset(h, 0, sizeof(*h));
	h->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (h->fd < 0)
		return -errno;
	h->n = pread(h->fd, h->b, HEAD - 1, 0);
	return h->n < 0 ? -EIO : 0;
}

static bool is_elf(const struct head *h)
{
	return h->n >= (ssize_t)sizeof(Elf64_Ehdr) &&
	       !memcmp(h->b, ELFMAG, SELFMAG);
}

/* ---- what gives a program more rights than its caller -------------------- */

static bool has_caps(const char *path)
{
	return getuid() && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* The loader ignores a preload with a slash when the program gains rights. */
static bool gains_rights(const char *path, const char **how)
{
	struct statvfs fs;
	struct stat st;

	if (stat(path, &st) || (!statvfs(path, &fs) && fs.f_flag & ST_NOSUID))
		return false;
	*how = "is setuid";
	if (st.st_mode & S_ISUID && st.st_uid != getuid())
		return true;
	*how = "is setgid";
	if ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
	    st.st_gid != getgid())
		return true;
	*how = "has file capabilities";
	return has_caps(path);
}

/* ---- ELF ----------------------------------------------------------------- */

/* The path of the loader it asks for; empty: it asks for none (static). */
static int read_interp(const struct head *h, char *out, size_t len)
{
	const Elf64_Ehdr *e = (const Elf64_Ehdr *)h->b;
	Elf64_Phdr p;
	size_t n;

	out[0] = 0;
	for (unsigned int i = 0; i < e->e_phnum; i++) {
		off_t at = (off_t)(e->e_phoff + i * sizeof(p));

		if (pread(h->fd, &p, sizeof(p), at) != sizeof(p))
			return -ENOEXEC;
		if (p.p_type != PT_INTERP)
			continue;
		n = p.p_filesz < len ? p.p_filesz : len - 1;
		if (pread(h->fd, out, n, (off_t)p.p_offset) != (ssize_t)n)
			return -ENOEXEC;
		out[n] = 0;
		return 0;
	}
	return 0;
}

static int check_elf(const char *path, const struct head *h, char *why,
		     size_t len)
{
	const Elf64_Ehdr *e = (const Elf64_Ehdr *)h->b;
	const char *how;
	char interp[256];
	int err;

	if (h->b[EI_CLASS] != ELFCLASS64 || e->e_machine != OWN_MACHINE) {
		snprintf(why, len, "%s is for another architecture than the "
			 "library", path);
		return 1;
	}
	err = read_interp(h, interp, sizeof(interp));
	if (err)
		return err;
	how = !interp[0] ? "is linked statically" :
	      strstr(interp, "ld-musl") ? "uses musl, the library needs glibc" :
	      NULL;
	if (!how && !gains_rights(path, &how))
		return 0;
	snprintf(why, len, "%s %s", path, how);
	return 1;
}

/* ---- scripts ------------------------------------------------------------- */

/* "#! /usr/bin/env python3" -> "/usr/bin/env". What env starts inherits the
 * preload, so the first word is what matters. */
static bool script_interpreter(const struct head *h, char *out, size_t len)
{
	const char *s = (const char *)h->b + 2;
	size_t n;

	if (h->n < 3 || memcmp(h->b, "#!", 2))
		return false;
	s += strspn(s, " \t");
	n = strcspn(s, " \t\n");
	if (!n || n >= len)
		return false;
	memcpy(out, s, n);
	out[n] = 0;
	return true;
}

int target_check(const char *path, char *why, size_t len)
{
	char here[HEAD];
	struct head h;
	int ret = -ENOEXEC;

	snprintf(here, sizeof(here), "%s", path);
	for (int i = 0; i <= MAX_SCRIPTS; i++) {
		ret = read_head(here, &h);
		if (ret)
			break;
		if (is_elf(&h)) {
			ret = check_elf(here, &h, why, len);
			break;
		}
		/* execvp gives text without #! to the shell */
		if (!script_interpreter(&h, here, sizeof(here)))
			strcpy(here, "/bin/sh");
		close(h.fd);
		h.fd = -1;
		ret = -ELOOP;
	}
	if (h.fd >= 0)
		close(h.fd);
	return ret;
}
