/* Vector, x87 and MXCSR state between the host's registers and struct cpu: parked before C code that may use them runs,
 * loaded again when translated code goes on (design, section 5, "Slow paths"; 6a.16).
 *
 * The guest has no more than AVX: zmm0..15's upper halves, zmm16..31 and the mask registers are nobody's.
 * SDM Vol. 1 10.5 (FXSAVE), 13.5. vCPU thread. */
#include "base/host_cpu.h"
#include "jit/jit_internal.h"

#define FOR_EACH_REGISTER(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

static void save_ymm(uint8_t vec[][64])
{
#define SAVE(n) __asm__ volatile("vmovups %%ymm" #n ", %0" : "=m"(*(uint8_t(*)[32])vec[n]));
    FOR_EACH_REGISTER(SAVE)
#undef SAVE
    __asm__ volatile("vzeroupper");
}

static void load_ymm(uint8_t vec[][64])
{
#define LOAD(n) __asm__ volatile("vmovups %0, %%ymm" #n : : "m"(*(const uint8_t(*)[32])vec[n]));
    FOR_EACH_REGISTER(LOAD)
#undef LOAD
}

static void save_xmm(uint8_t vec[][64])
{
#define SAVE(n) __asm__ volatile("movups %%xmm" #n ", %0" : "=m"(*(uint8_t(*)[16])vec[n]));
    FOR_EACH_REGISTER(SAVE)
#undef SAVE
}

static void load_xmm(uint8_t vec[][64])
{
#define LOAD(n) __asm__ volatile("movups %0, %%xmm" #n : : "m"(*(const uint8_t(*)[16])vec[n]));
    FOR_EACH_REGISTER(LOAD)
#undef LOAD
}

/* The first `size` bytes (up to 32) of a vector register, live or parked. */
void jit_store_vector(const struct cpu *cpu, unsigned reg, uint8_t *to, unsigned size)
{
    const void *parked = cpu->vector.vec[reg];

    if (!cpu->vectors_live) {
        memcpy(to, parked, size);
        return;
    }
    uint8_t value[32];
    bool wide = size > 16;
    switch (reg) {
#define STORE(n)                                                                                                       \
    case n:                                                                                                            \
        if (wide)                                                                                                      \
            __asm__ volatile("vmovups %%ymm" #n ", %0" : "=m"(value));                                                 \
        else                                                                                                           \
            __asm__ volatile("movups %%xmm" #n ", %0" : "=m"(*(uint8_t(*)[16])value));                                 \
        break;
        FOR_EACH_REGISTER(STORE)
#undef STORE
    }
    memcpy(to, value, size);
}

#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_STICKY  0x3fu
#define FCW_DEFAULT   0x37f

void jit_park(struct cpu *cpu)
{
    struct jit *jit = jit_of(cpu);
    struct vector_state *state = &cpu->vector;
    uint8_t image[512] __attribute__((aligned(16)));

    if (!cpu->vectors_live)
        return;
    cpu->vectors_live = false;
    jit->stats.parks++;
    __asm__ volatile("fxsave64 %0" : "=m"(image));
    if (jit->has_avx)
        save_ymm(state->vec);
    else
        save_xmm(state->vec);
    __asm__ volatile("" : : : "memory"); /* where vector registers may be used (sanitizers), they may be from here on */
    /* The xmm part of the guest's image is not used, but stays as it is. */
    __builtin_memcpy(&state->fx, image, offsetof(struct fxsave_area, xmm));
    state->fx.fip = state->fx.fdp = 0; /* the host's addresses are no business of the guest's */
    if (state->fx.ftw || state->fx.fcw != FCW_DEFAULT || (state->fx.fsw & 0xff))
        __asm__ volatile("fninit");
    if ((state->fx.mxcsr & ~MXCSR_STICKY) != MXCSR_DEFAULT) {
        uint32_t plain = MXCSR_DEFAULT;
        __asm__ volatile("ldmxcsr %0" : : "m"(plain));
    }
}

void jit_unpark(struct cpu *cpu)
{
    struct vector_state *state = &cpu->vector;

    __asm__ volatile("fxrstor64 %0" : : "m"(state->fx));
    if (jit_of(cpu)->has_avx)
        load_ymm(state->vec);
    else
        load_xmm(state->vec);
    cpu->vectors_live = true;
}
