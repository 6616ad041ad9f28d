/* SPDX-License-Identifier: MIT */
/* outfile.c - files the library writes where an option names a path.
 *
 * (1) In a folder that others may write to (/tmp) a name may be there before us:
 *     nothing is written through it, and nothing of it is cut off before it is
 *     known to be ours.
 * Owns nothing. Lock: none.
 */
#include "core/outfile.h"
#include "core/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* 0 or -errno. */
static int make_ours(int fd)
{
	struct stat st;

	if (off_sys_fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return 0;
	if (st.st_uid != geteuid() || st.st_nlink > 1)
		return -EPERM;
	if (st.st_mode & 077 && fchmod(fd, st.st_mode & 0700))
		return -errno;
	return off_sys_ftruncate(fd, 0) ? -errno : 0;
}

int outfile_open(const char *path, bool fresh)
{
	const int flags = O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
	int fd = off_sys_open(path, flags | O_CREAT | O_EXCL, 0600), err;

	if (fd >= 0 || errno != EEXIST || fresh)
		return fd < 0 ? -errno : fd;
	fd = off_sys_open(path, flags, 0);
	if (fd < 0)
		return -errno;
	err = make_ours(fd);
	if (!err)
		return fd;
	off_sys_close(fd);
	return err;
}

const char *outfile_error(int err)
{
	switch (-err) {
	case ELOOP:
		return "is a symbolic link, which is not followed";
	case EPERM:
		return "is another user's, or has a second name";
	}
	return strerrordesc_np(-err);
}
