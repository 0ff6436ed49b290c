/* Reads the files that -kernel and -initrd name: regular files, but pipes and devices
 * too, so size is found by reading. */
#include "firmware/boot_internal.h"

#include "base/host_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_all(struct boot_file *file, int fd, size_t capacity, uint64_t limit, const char *option,
                    const char *path, struct error *err)
{
    for (;;) {
        ssize_t got;

        if (file->size == capacity || !file->data) {
            uint8_t *larger;

            capacity = file->data ? capacity * 2 : capacity;
            larger = realloc(file->data, capacity);
            if (!larger)
                return error_set(err, ENOMEM, "%s %s: no memory to read it", option, path);
            file->data = larger;
            host_memory_prefer_huge(larger, capacity);
        }
        got = read(fd, file->data + file->size, capacity - file->size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, errno, "%s %s: %s", option, path, strerror(errno));
        if (got == 0)
            return 0;
        file->size += got;
        if (file->size > limit)
            return error_set(err, EFBIG, "%s %s: the file is bigger than %llu MiB", option, path,
                             (unsigned long long)(limit / MIB));
    }
}

/* The size is what the file system says, or found by reading. */
static int read_open(struct boot_file *file, const char *option, const char *path, uint64_t limit, struct error *err)
{
    struct stat status;

    if (fstat(file->fd, &status) < 0)
        return error_set(err, errno, "%s %s: %s", option, path, strerror(errno));
    if (S_ISDIR(status.st_mode))
        return error_set(err, EISDIR, "%s %s: it is a directory", option, path);
    if (S_ISCHR(status.st_mode))
        return error_set(err, EINVAL, "%s %s: it is a device, not a file", option, path);
    if ((uint64_t)status.st_size > limit)
        return error_set(err, EFBIG, "%s %s: the file is bigger than %llu MiB", option, path,
                         (unsigned long long)(limit / MIB));
    file->once = !S_ISREG(status.st_mode);
    if (!file->once && lseek(file->fd, 0, SEEK_SET) < 0)
        return error_set(err, errno, "%s %s: %s", option, path, strerror(errno));
    /* One byte more, so that the end of a regular file is seen without growing the buffer. */
    return read_all(file, file->fd, MAX((size_t)status.st_size + 1, (size_t)4096), limit, option, path, err);
}

int boot_file_read(struct boot_file *file, const char *option, const char *path, uint64_t limit, struct error *err)
{
    int result;

    if (!file->open) {
        file->fd = open(path, O_RDONLY | O_CLOEXEC);
        if (file->fd < 0)
            return error_set(err, errno, "%s %s: %s", option, path, strerror(errno));
        file->open = true;
    }
    result = read_open(file, option, path, limit, err);
    if (result)
        boot_file_free(file);
    return result;
}

void boot_file_free(struct boot_file *file)
{
    free(file->data);
    file->data = NULL;
    file->size = 0;
}

void boot_file_close(struct boot_file *file)
{
    boot_file_free(file);
    if (file->open)
        close(file->fd);
    file->open = false;
}
