/* Reads the files that -kernel and -initrd name: regular files, but pipes and devices
 * too, so size is found by reading. */
#include "firmware/boot_internal.h"

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

int boot_file_read(struct boot_file *file, const char *option, const char *path, uint64_t limit, struct error *err)
{
    struct stat status;
    int fd, result;

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, errno, "%s %s: %s", option, path, strerror(errno));
    if (fstat(fd, &status) < 0) {
        result = error_set(err, errno, "%s %s: %s", option, path, strerror(errno));
    } else if (S_ISDIR(status.st_mode)) {
        result = error_set(err, EISDIR, "%s %s: it is a directory", option, path);
    } else if ((uint64_t)status.st_size > limit) {
        result = error_set(err, EFBIG, "%s %s: the file is bigger than %llu MiB", option, path,
                           (unsigned long long)(limit / MIB));
    } else {
        memset(file, 0, sizeof(*file));
        file->once = !S_ISREG(status.st_mode);
        /* One byte more, so that the end of a regular file is seen without growing the buffer. */
        result = read_all(file, fd, MAX((size_t)status.st_size + 1, (size_t)4096), limit, option, path, err);
        if (result)
            boot_file_free(file);
    }
    close(fd);
    return result;
}

void boot_file_free(struct boot_file *file)
{
    free(file->data);
    memset(file, 0, sizeof(*file));
}
