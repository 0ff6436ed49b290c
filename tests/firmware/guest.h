/* A guest without CPUs: memory laid out as the q35 board does it. */
#ifndef EIDOLON_TESTS_FIRMWARE_GUEST_H
#define EIDOLON_TESTS_FIRMWARE_GUEST_H

#include "firmware/boot.h"

struct guest {
    pthread_mutex_t lock;
    struct physmem *mem;
    uint64_t low_ram, high_ram;
};

void guest_create(struct guest *guest, uint64_t ram);
void guest_destroy(struct guest *guest);
/* Writes `data` to a fresh temporary file; the name is to be unlinked and freed by the caller. */
char *temporary_file(const void *data, size_t size);

#endif
