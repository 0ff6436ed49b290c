/* A guest that looks to a user program as Linux on the host does: 64-bit user mode, the same selectors and control
 * registers, only the pages that a test maps. No guest kernel. */
#ifndef EIDOLON_TESTS_COMMON_USER_GUEST_H
#define EIDOLON_TESTS_COMMON_USER_GUEST_H

#include <pthread.h>

#include "cpu/cpu.h"
#include "mmu/physmem.h"

#define USER_GUEST_RAM (4 * MIB)

enum { USER_GUEST_WRITE = 1, USER_GUEST_EXECUTE = 2, USER_GUEST_SUPERVISOR = 4 };

struct user_guest {
    pthread_mutex_t lock;
    struct physmem *physmem;
    struct port_space *ports;
    struct clock clock;
    struct cpuid_model *model;
    struct cpu *cpu;
    uint64_t next_table;
};

/* `avx`, `fsgsbase`: what the host's kernel lets user programs have. Aborts on failure. */
void user_guest_init(struct user_guest *guest, bool avx, bool fsgsbase);
void user_guest_free(struct user_guest *guest);
/* Guest-physical addresses from 1 MiB on are the test's. */
void user_guest_map(struct user_guest *guest, gva_t gva, gpa_t gpa, unsigned rights);
/* User mode, from whatever ran before. */
void user_guest_enter_user(struct user_guest *guest);
/* The page tables' root, for whoever loads CR3 again. */
uint64_t user_guest_root(void);

#endif
