/* A vCPU in 64-bit mode with paging, and single instructions executed on it; and the host to compare with. */
#ifndef EIDOLON_TESTS_HOSTOP_FIXTURE_H
#define EIDOLON_TESTS_HOSTOP_FIXTURE_H

#include "cpu/interp/interp_internal.h"
#include "cpu/xstate.h"

/* Guest memory: 2 MiB identity-mapped with 4 KiB pages, writable but for these. */
enum {
    DATA = 0x20000,
    ABSENT_PAGE = 0x23000,
    READ_ONLY_PAGE = 0x25000,
    MMIO_LIKE_PAGE = 0x27000, /* write-tracked: every store takes the slow path */
    GUEST_RAM = 0x200000,
};

struct fixture {
    struct physmem *physmem;
    struct cpuid_model *model;
    struct clock clock;
    pthread_mutex_t lock;
    struct cpu *cpu;
    struct iop op; /* the last instruction */
};

struct fixture *fixture_create(void);
void fixture_destroy(struct fixture *f);
uint8_t *fixture_memory(struct fixture *f, gva_t gva);
/* Decodes and executes one instruction: what its handler returned. *f->cpu has the fault. */
enum step fixture_run(struct fixture *f, const char *bytes, size_t length);
enum step fixture_run_mode(struct fixture *f, enum code_size code_size, const char *bytes, size_t length);
#define RUN(f, bytes)   fixture_run(f, bytes, sizeof(bytes) - 1)
#define RUN32(f, bytes) fixture_run_mode(f, CODE32, bytes, sizeof(bytes) - 1)

/* splitmix64 */
uint64_t random_next(uint64_t *seed);
void random_fill(uint64_t *seed, void *buffer, size_t size);

/* The host's registers around one instruction. */
struct native_state {
    uint8_t vec[16][32];
    uint64_t rax, rcx, rdx, rbx, rflags;
    uint32_t mxcsr;
    struct fxsave_area fx; /* x87 in and out, if use_x87 */
    uint32_t use_x87;
};
/* Executes the bytes with the registers loaded from *state. rbx points at memory. */
void native_run(struct native_state *state, const char *bytes, size_t length);

/* signal_probe.c: whether a SIGFPE that is none of a stub's reaches a handler installed before. */
bool signal_probe_install(void);
int signal_probe_divide_by_zero(void);

#endif
