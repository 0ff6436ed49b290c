/* Locks on image files, so that two virtual machines cannot write one image; the scheme is QEMU's, so that QEMU and its
 * tools keep out too.
 *
 * Two groups of bytes of the file stand for permissions: byte 100 + n is locked (shared) by whoever has permission n, byte
 * 200 + n by whoever cannot bear others to have it. After taking its own, a process tests that nobody locks the opposite
 * byte of any: both may fail, but never may both succeed. The locks belong to the open file description (F_OFD_SETLK),
 * since a process may open a file more than once, and close() of one must not drop the other's.
 *
 *   n    permission                      who has it                  who does not share it
 *   0    consistent reads                all                         -
 *   1    writing                         writers                     all but force-share=on
 *   3    changing the size               writers                     all but force-share=on */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define PERMISSION_BASE 100
#define UNSHARED_BASE   200

enum { PERMISSION_READ = 1 << 0, PERMISSION_WRITE = 1 << 1, PERMISSION_RESIZE = 1 << 3, PERMISSION_COUNT = 4 };

static int set_locks(int fd, off_t base, unsigned mask)
{
    for (unsigned n = 0; n < PERMISSION_COUNT; n++) {
        struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = base + (off_t)n, .l_len = 1 };
        int ret;

        if (!(mask & 1u << n))
            continue;
        do {
            ret = fcntl(fd, F_OFD_SETLK, &lock);
        } while (ret && errno == EINTR);
        if (ret)
            return -errno;
    }
    return 0;
}

/* Which of the bytes others have locked. */
static unsigned locked_by_others(int fd, off_t base, unsigned mask)
{
    unsigned found = 0;

    for (unsigned n = 0; n < PERMISSION_COUNT; n++) {
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + (off_t)n, .l_len = 1 };

        if (mask & 1u << n && !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK)
            found |= 1u << n;
    }
    return found;
}

int block_file_lock(int fd, const struct block_flags *flags, const char *filename, struct error *err)
{
    unsigned wanted = PERMISSION_READ | (flags->read_only ? 0 : PERMISSION_WRITE | PERMISSION_RESIZE);
    unsigned unshared = flags->force_share ? 0 : PERMISSION_WRITE | PERMISSION_RESIZE;
    int ret;

    if (flags->locking == BLOCK_LOCK_OFF)
        return 0;
    ret = set_locks(fd, PERMISSION_BASE, wanted);
    if (!ret)
        ret = set_locks(fd, UNSHARED_BASE, unshared);
    if (ret == -EAGAIN || ret == -EACCES) /* not QEMU's scheme: somebody locks for himself alone */
        return error_set(err, EAGAIN, "%s: is locked by another program (file.locking=off ignores that)", filename);
    if (ret) { /* a file system without locks */
        if (flags->locking == BLOCK_LOCK_AUTO)
            return 0;
        return error_set(err, -ret, "%s: cannot be locked: %s (file.locking=off does without)", filename,
                         strerror(-ret));
    }
    if (locked_by_others(fd, PERMISSION_BASE, unshared))
        return error_set(
            err, EAGAIN,
            "%s: another virtual machine or tool is writing it (file.locking=off ignores that, at the risk "
            "of destroying the image)",
            filename);
    if (locked_by_others(fd, UNSHARED_BASE, wanted))
        return error_set(err, EAGAIN,
                         "%s: another virtual machine or tool is using it; readonly=on lets you read it too, or "
                         "file.locking=off write it at the risk of destroying it",
                         filename);
    return 0;
}
