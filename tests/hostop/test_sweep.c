/* Every form of the table that is executed by a stub, found by going through all opcodes, compared with the host
 * once with registers and once with memory. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/hostop/fixture.h"

#define SEED 0x5eedffff

static uint8_t memory[64] __attribute__((aligned(64)));

static bool by_stub(const struct insn *insn)
{
    unsigned handler = insn->row->handler;
    return handler == HANDLER_vec || handler == HANDLER_vec_flags || handler == HANDLER_mmx;
}

static void randomise(uint64_t *seed, struct fixture *f, struct native_state *native)
{
    struct cpu *cpu = f->cpu;
    memset(native, 0, sizeof(*native));
    random_fill(seed, native->vec, sizeof(native->vec));
    random_fill(seed, memory, sizeof(memory));
    native->use_x87 = 1;
    native->fx.fcw = 0x37f;
    native->fx.ftw = (uint8_t)random_next(seed);
    for (unsigned i = 0; i < 8; i++)
        random_fill(seed, native->fx.st[i], 10);
    native->mxcsr = 0x1f80 | (random_next(seed) & 0xe040);
    native->rflags = 0x202;
    native->rax = cpu->gpr[REG_RAX] = random_next(seed) % 20;
    native->rcx = cpu->gpr[REG_RCX] = random_next(seed);
    native->rdx = cpu->gpr[REG_RDX] = random_next(seed) % 20;
    native->rbx = (uint64_t)(uintptr_t)memory;
    cpu->gpr[REG_RBX] = DATA;
    cpu->rflags = 0x202;
    uint32_t mxcsr_mask = cpu->vector.fx.mxcsr_mask;
    cpu->vector.fx = native->fx;
    cpu->vector.fx.mxcsr = native->mxcsr;
    cpu->vector.fx.mxcsr_mask = mxcsr_mask;
    for (unsigned i = 0; i < 16; i++) {
        memset(cpu->vector.vec[i], 0, 64);
        memcpy(cpu->vector.vec[i], native->vec[i], 32);
        memcpy(native->fx.xmm[i], native->vec[i], 16);
    }
    memcpy(fixture_memory(f, DATA), memory, sizeof(memory));
}

/* CALL into the instruction uses the host's stack only; what may differ: nothing. Returns what does, or NULL. */
static const char *difference(struct fixture *f, const struct native_state *native)
{
    const struct vector_state *ours = &f->cpu->vector;
    for (unsigned i = 0; i < 16; i++)
        if (memcmp(ours->vec[i], native->vec[i], 32))
            return "vector registers";
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(ours->fx.st[i], native->fx.st[i], 10))
            return "MMX registers";
    if (ours->fx.fsw != native->fx.fsw || ours->fx.ftw != native->fx.ftw)
        return "x87 status";
    if (ours->fx.mxcsr != native->mxcsr)
        return "mxcsr";
    if (f->cpu->gpr[REG_RAX] != native->rax || f->cpu->gpr[REG_RCX] != native->rcx ||
        f->cpu->gpr[REG_RDX] != native->rdx)
        return "general registers";
    if ((f->cpu->rflags ^ native->rflags) & FLAGS_ARITH)
        return "flags";
    return memcmp(fixture_memory(f, DATA), memory, sizeof(memory)) ? "memory" : NULL;
}

struct sweep {
    struct fixture *f;
    uint64_t seed;
    unsigned tried, failed;
};

static void report(struct sweep *sweep, const struct insn *insn, const uint8_t *bytes, const char *what)
{
    sweep->failed++;
    fprintf(stderr, "%s: %s (seed %x):", insn->row->mnemonic, what, SEED);
    for (unsigned i = 0; i < insn->length; i++)
        fprintf(stderr, " %02x", bytes[i]);
    fprintf(stderr, "\n");
}

static void try_bytes(struct sweep *sweep, const uint8_t bytes[INSN_MAX_LENGTH])
{
    struct insn insn;
    struct native_state native;
    if (insn_decode(bytes, INSN_MAX_LENGTH, CODE64, &insn) != DECODE_OK || !by_stub(&insn) || insn.vex.kind == 4)
        return;
    if (!cpu_has(sweep->f->cpu, insn.row->feature) || insn.row->feature == FEATURE_SSE4A)
        return;
    sweep->tried++;
    randomise(&sweep->seed, sweep->f, &native);
    if (fixture_run(sweep->f, (const char *)bytes, insn.length) != STEP_NEXT) {
        report(sweep, &insn, bytes, "not executed");
        return;
    }
    native_run(&native, (const char *)bytes, insn.length);
    const char *what = difference(sweep->f, &native);
    if (what)
        report(sweep, &insn, bytes, what);
}

/* reg 1, rm 2 or [rbx]; other reg fields only where they select an instruction */
static void try_modrms(struct sweep *sweep, uint8_t bytes[INSN_MAX_LENGTH], unsigned at)
{
    struct insn insn;
    for (unsigned reg = 0; reg < 8; reg++) {
        for (unsigned memory_form = 0; memory_form < 2; memory_form++) {
            bytes[at] = (uint8_t)(memory_form ? reg << 3 | 3 : 0xc0 | reg << 3 | 2);
            bytes[at + 1] =
                0x50 | (uint8_t)(random_next(&sweep->seed) & 15); /* immediate: also xmm5 of four operands */
            if (insn_decode(bytes, INSN_MAX_LENGTH, CODE64, &insn) != DECODE_OK)
                continue;
            bool digit =
                insn.row->modrm == MODRM_EXT || insn.row->modrm == MODRM_EXT_MEM || insn.row->modrm == MODRM_EXT_REG;
            if (digit || reg == 1)
                try_bytes(sweep, bytes);
        }
    }
}

static void sweep_legacy(struct sweep *sweep)
{
    static const uint8_t prefixes[] = { 0, 0x66, 0xf3, 0xf2 }, maps[] = { 0, 0x38, 0x3a };
    for (unsigned n = 0; n < 4 * 3 * 2 * 256; n++) {
        uint8_t bytes[INSN_MAX_LENGTH] = { 0 };
        unsigned at = 0, prefix = n & 3, map = n / 4 % 3, rex_w = n / 12 % 2, opcode = n / 24;
        if (!map && (opcode == 0x38 || opcode == 0x3a))
            continue; /* the other maps */
        if (prefixes[prefix])
            bytes[at++] = prefixes[prefix];
        if (rex_w)
            bytes[at++] = 0x48;
        bytes[at++] = 0x0f;
        if (maps[map])
            bytes[at++] = maps[map];
        bytes[at++] = (uint8_t)opcode;
        try_modrms(sweep, bytes, at);
    }
}

static void sweep_vex(struct sweep *sweep)
{
    for (unsigned n = 0; n < 3 * 16 * 2 * 256; n++) { /* map; W L pp; vvvv = 1111b or xmm3; opcode */
        unsigned map = n % 3 + 1, wlpp = n / 3 % 16, third = n / 48 % 2;
        unsigned w = wlpp >> 3, l = wlpp >> 2 & 1, pp = wlpp & 3, vvvv = third ? 15 - 3 : 15;
        uint8_t bytes[INSN_MAX_LENGTH] = { 0xc4, (uint8_t)(0xe0 | map), (uint8_t)(w << 7 | vvvv << 3 | l << 2 | pp),
                                           (uint8_t)(n / 96) };
        try_modrms(sweep, bytes, 4);
    }
}

Test(sweep, every_form_agrees_with_the_host)
{
    struct sweep sweep = { .f = fixture_create(), .seed = SEED };
    sweep_legacy(&sweep);
    unsigned legacy = sweep.tried;
    sweep_vex(&sweep);
    cr_assert_eq(sweep.failed, 0, "%u of %u forms", sweep.failed, sweep.tried);
    cr_assert_gt(legacy, 500);
    cr_assert(!host_has_avx() || sweep.tried - legacy > 800, "%u legacy, %u VEX forms", legacy, sweep.tried - legacy);
    fixture_destroy(sweep.f);
}
