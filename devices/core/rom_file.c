/* Looks for ROM files and reads them. Before the machine runs. */
#include "devices/core/rom_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The empty one: the program's own folder. */
static const char *const folders[] = {
    "", "/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu", "/usr/share/ovmf", "/usr/share/OVMF",
};

static const struct {
    const char *prefix, *package;
} packages[] = {
    { "bios", "seabios" },   { "vgabios", "seabios" }, { "efi-", "ipxe-qemu" },
    { "pxe-", "ipxe-qemu" }, { "OVMF", "ovmf" },       { "linuxboot", "qemu-system-data" },
};

static bool in_folder(const char *folder, const char *name, char path[PATH_MAX])
{
    char program[PATH_MAX];
    int length;

    if (!*folder) {
        ssize_t end = readlink("/proc/self/exe", program, sizeof(program) - 1);

        if (end <= 0)
            return false;
        program[end] = '\0';
        *strrchr(program, '/') = '\0';
        folder = program;
    }
    length = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return length < PATH_MAX && access(path, F_OK) == 0;
}

static bool find(const char *name, char path[PATH_MAX])
{
    if (strchr(name, '/') || access(name, F_OK) == 0) {
        snprintf(path, PATH_MAX, "%s", name);
        return access(name, F_OK) == 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        if (in_folder(folders[i], name, path))
            return true;
    }
    return false;
}

bool rom_file_exists(const char *name)
{
    char path[PATH_MAX];

    return find(name, path);
}

static int not_found(const char *name, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(packages) && !strchr(name, '/'); i++) {
        if (!strncmp(name, packages[i].prefix, strlen(packages[i].prefix)))
            return error_set(err, ENOENT, "%s: no such file (install the package %s, or name the file)", name,
                             packages[i].package);
    }
    return error_set(err, ENOENT, "%s: no such file", name);
}

static int read_all(int fd, const char *path, uint64_t max, uint8_t **data, uint64_t *size, struct error *err)
{
    struct stat status;
    uint64_t done = 0;

    if (fstat(fd, &status))
        return error_set(err, errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return error_set(err, EINVAL, "%s: not a file", path);
    if ((uint64_t)status.st_size > max)
        return error_set(err, EFBIG, "%s: %llu bytes are too many; %llu is the limit", path,
                         (unsigned long long)status.st_size, (unsigned long long)max);
    *size = (uint64_t)status.st_size;
    *data = malloc(*size + 1);
    if (!*data)
        return error_set(err, ENOMEM, "%s: out of memory", path);
    while (done < *size) {
        ssize_t part = read(fd, *data + done, *size - done);

        if (part < 0 && errno == EINTR)
            continue;
        if (part <= 0) {
            free(*data);
            *data = NULL;
            return error_set(err, part ? errno : EIO, "%s: %s", path, part ? strerror(errno) : "it became shorter");
        }
        done += (uint64_t)part;
    }
    return 0;
}

int rom_file_read(const char *name, uint64_t max, uint8_t **data, uint64_t *size, struct error *err)
{
    char path[PATH_MAX];
    int fd, result;

    *data = NULL;
    *size = 0;
    if (!find(name, path))
        return not_found(name, err);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, errno, "%s: %s", path, strerror(errno));
    result = read_all(fd, path, max, data, size, err);
    close(fd);
    return result;
}
