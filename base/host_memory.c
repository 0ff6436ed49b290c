/* Host memory: memfds, anonymous maps, and the doubly mapped region for generated code.
 *
 * Everything is demand-allocated (MAP_NORESERVE): an 8 GiB guest costs what it touches.
 * Creation and destruction are for one thread; the memory itself is anybody's. */
#include "base/host_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A kernel with vm.memfd_noexec = 1 makes memfds non-executable unless they ask; one
 * before 6.3 does not know the flag. */
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>

void host_memory_is_root(void *base, size_t size, bool is_root)
{
    if (is_root)
        __lsan_register_root_region(base, size);
    else
        __lsan_unregister_root_region(base, size);
}
#else
void host_memory_is_root(void *base, size_t size, bool is_root)
{
    (void)base;
    (void)size;
    (void)is_root;
}
#endif

static int memfd_open(const char *name, size_t size, unsigned flags, struct error *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC | flags);

    if (fd < 0 && errno == EINVAL && flags)
        fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0)
        return error_set(err, errno, "cannot create memory file '%s': %s", name, strerror(errno));
    if (ftruncate(fd, (off_t)size) < 0) {
        int errnum = errno;
        close(fd);
        return error_set(err, errnum, "cannot size memory file '%s' to %zu MiB: %s", name, size >> 20,
                         strerror(errnum));
    }
    return fd;
}

int host_memory_memfd(struct host_region *region, const char *name, size_t size, struct error *err)
{
    *region = (struct host_region){ .fd = -1 };
    int fd = memfd_open(name, size, 0, err);
    if (fd < 0)
        return fd;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED) {
        int errnum = errno;
        close(fd);
        return error_set(err, errnum, "cannot map %zu MiB of memory for '%s': %s", size >> 20, name, strerror(errnum));
    }
    *region = (struct host_region){ base, size, fd };
    return 0;
}

int host_memory_anonymous(struct host_region *region, size_t size, struct error *err)
{
    *region = (struct host_region){ .fd = -1 };
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return error_set(err, errno, "cannot map %zu KiB of memory: %s", size >> 10, strerror(errno));
    region->base = base;
    region->size = size;
    return 0;
}

/* The whole pages of [base, base + size); false: there is none. */
static bool whole_pages(void **base, size_t *size)
{
    uintptr_t start = ALIGN_UP((uintptr_t)*base, PAGE_SIZE), end = ALIGN_DOWN((uintptr_t)*base + *size, PAGE_SIZE);

    if (start >= end)
        return false;
    *base = (void *)start;
    *size = end - start;
    return true;
}

/* If it fails, the pages come one by one, and as they are. */
static void advise(void *base, size_t size, int advice)
{
    if (whole_pages(&base, &size))
        madvise(base, size, advice);
}

void host_memory_will_write(void *base, size_t size)
{
    advise(base, size, MADV_POPULATE_WRITE);
}

void host_memory_will_read(void *base, size_t size)
{
    advise(base, size, MADV_POPULATE_READ);
}

void host_memory_prefer_huge(void *base, size_t size)
{
    advise(base, size, MADV_HUGEPAGE);
}

int host_memory_low(struct host_region *region, size_t size, struct error *err)
{
    *region = (struct host_region){ .fd = -1 };
    void *base =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_32BIT, -1, 0);
    if (base == MAP_FAILED)
        return host_memory_anonymous(region, size, err);
    region->base = base;
    region->size = size;
    return 0;
}

void host_memory_free(struct host_region *region)
{
    if (region->base)
        munmap(region->base, region->size);
    if (region->base && region->fd >= 0)
        close(region->fd);
    *region = (struct host_region){ .fd = -1 };
}

int host_code_create(struct host_code *code, size_t size, struct error *err)
{
    *code = (struct host_code){ 0 };
    int fd = memfd_open("eidolon-code", size, MFD_EXEC, err);
    if (fd < 0)
        return fd;
    void *write = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    void *execute = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_NORESERVE, fd, 0);
    int errnum = errno;
    close(fd); /* the mappings keep the file */
    if (write == MAP_FAILED || execute == MAP_FAILED) {
        if (write != MAP_FAILED)
            munmap(write, size);
        if (execute != MAP_FAILED)
            munmap(execute, size);
        return error_set(err, errnum, "cannot map %zu KiB for generated code: %s", size >> 10, strerror(errnum));
    }
    *code = (struct host_code){ write, execute, size };
    return 0;
}

void host_code_destroy(struct host_code *code)
{
    if (code->write) {
        munmap(code->write, code->size);
        munmap((void *)code->execute, code->size);
    }
    *code = (struct host_code){ 0 };
}
