#include "tests/firmware/guest.h"

#include "devices/board/machine.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void guest_create(struct guest *guest, uint64_t ram)
{
    pthread_mutexattr_t attributes;
    struct error err;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&guest->lock, &attributes);
    guest->low_ram = MIN(ram, Q35_LOW_RAM_MAX);
    guest->high_ram = ram - guest->low_ram;
    guest->mem = physmem_create(ram, &guest->lock, &err);
    cr_assert_not_null(guest->mem, "%s", err.text);
    cr_assert_not_null(physmem_add_ram(guest->mem, 0, 0xa0000, 0, "low", &err));
    cr_assert_not_null(physmem_add_ram(guest->mem, 0xc0000, guest->low_ram - 0xc0000, 0xc0000, "ram", &err));
    if (guest->high_ram)
        cr_assert_not_null(physmem_add_ram(guest->mem, 4 * GIB, guest->high_ram, guest->low_ram, "high", &err));
}

void guest_destroy(struct guest *guest)
{
    physmem_destroy(guest->mem);
    pthread_mutex_destroy(&guest->lock);
}

char *temporary_file(const void *data, size_t size)
{
    char *name = strdup("/tmp/eidolon-test-XXXXXX");
    int fd = mkstemp(name);

    cr_assert_geq(fd, 0);
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(fd, (const char *)data + done, size - done);

        cr_assert_gt(wrote, 0);
        done += wrote;
    }
    close(fd);
    return name;
}
