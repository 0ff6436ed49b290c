/* The host CPU as the oracle: a forked child that loads a whole user-mode state, runs code, and stores the state that came
 * out of it, with the fault that ended it. What a case is, and what is mapped, is the caller's (struct native_job).
 * <signal.h> and cpu/decode/insn.h do not go together: neither is included here. */
#ifndef EIDOLON_TESTS_INSN_NATIVE_H
#define EIDOLON_TESTS_INSN_NATIVE_H

#include "base/types.h"

/* FXSAVE image: SDM Vol. 1 table 10-2. */
struct fx_image {
    uint16_t fcw, fsw;
    uint8_t ftw, reserved;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16];
    uint8_t rest[96];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct fx_image) == 512, "FXSAVE image");

/* Offsets are used by native_run.S. */
struct machine_state {
    struct fx_image fx;        /* 0; its xmm part is not used */
    uint8_t ymm[16][32];       /* 512 */
    uint64_t gpr[16];          /* 1024, in encoding order */
    uint64_t rip;              /* 1152 */
    uint64_t rflags;           /* 1160 */
    uint64_t fs_base, gs_base; /* 1168, 1176 */
};
_Static_assert(offsetof(struct machine_state, ymm) == 512 && offsetof(struct machine_state, gpr) == 1024 &&
                   offsetof(struct machine_state, rip) == 1152 && offsetof(struct machine_state, gs_base) == 1176,
               "native_run.S");

/* An execution that never came back: no vector has this number. */
enum { OUTCOME_NONE = 0xff, OUTCOME_HANG = 0xfe, OUTCOME_DIED = 0xfd };

/* How it ended. */
struct outcome {
    uint8_t vector; /* OUTCOME_NONE: completed */
    uint32_t error;
    uint64_t cr2; /* if vector is #PF, else 0 */
};

struct native_job {
    size_t case_size, result_size;
    uint64_t code_base, code_size;               /* a clock signal that finds the case here twice: it hangs */
    void (*setup)(void);                         /* in the child, before system calls are forbidden: maps memory */
    void (*run)(const void *test, void *result); /* in the child */
    void (*died)(void *result);                  /* in the parent: this case killed the child */
};

struct native;
bool native_has_avx(void);
bool native_has_fsgsbase(void);
struct native *native_create(const struct native_job *job, unsigned batch);
void native_destroy(struct native *native);
void *native_case(struct native *native, unsigned index); /* of `batch` ones, shared with the child */
void *native_result(struct native *native, unsigned index);
void native_start(struct native *native, unsigned count); /* runs cases [0, count) in the child */
void native_finish(struct native *native);                /* waits for it */

/* For native_job.run. *outcome: vector OUTCOME_NONE if the code jumped to native_exit; then rip in *out is not set. */
void native_execute(const struct machine_state *in, struct machine_state *out, struct outcome *outcome);
extern char native_exit[];
/* For native_job.setup: pages at a fixed address, all zero, or those of a file; ends the child on failure. */
uint8_t *native_map(uint64_t address, size_t size, int protection);
uint8_t *native_map_file(uint64_t address, size_t size, int protection, int fd, uint64_t offset);

#endif
