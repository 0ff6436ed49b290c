/* Decoded blocks against what may change under them: the CS limit, the bytes of an instruction that crosses a page end,
 * and stores into the block that is running. SDM Vol. 3A 5.3 (limits), 8.1.3 (self-modifying code). */
#include "rig.h"

enum {
    CROSSING = 0xcffd, /* an instruction of five bytes here has three on its page and two on the next */
    SECOND_PAGE = 0xd000,
    OTHER_PAGE = 0xe000,
    HIGH_TABLES = 0x110000,
    HIGH_CODE = RIG_UNMAPPED, /* two pages, mapped to CROSSING's and to SECOND_PAGE */
};

static const uint8_t mov_eax_11111111[] = { 0xb8, 0x11, 0x11, 0x11, 0x11 };

static void put_code(struct rig *rig, gpa_t gpa, const void *bytes, size_t size)
{
    cr_assert(physmem_write(rig->mem, gpa, bytes, size));
}

/* Code of 32 bits at base 0 with a limit; never flat, so that blocks made under one limit are found under another. */
static void set_code_limit(struct rig *rig, uint32_t limit)
{
    cpu_set_segment(rig->cpu, SEG_CS, SEL_CODE32, 0, limit, 0x409b);
}

/* Runs cached blocks from `start` until they get to `end`. */
static void run(struct rig *rig, uint64_t start, uint64_t end)
{
    rig->cpu->cpu_rip = start;
    for (unsigned i = 0; rig->cpu->cpu_rip != end; i++) {
        cr_assert_lt(i, 16, "at %llx, not %llx", (unsigned long long)rig->cpu->cpu_rip, (unsigned long long)end);
        cr_assert_neq(interp_step_block(rig->cpu), STEP_EXIT);
    }
}

/* ---- The CS limit ---- */

/* inc eax; inc ecx; inc edx; jmp to itself */
static const uint8_t three_incs[] = { 0x40, 0x41, 0x42, 0xeb, 0xfe };

static void init_limit_test(struct rig *rig, gpa_t code, const void *bytes, size_t size)
{
    rig_init(rig, "max", RIG_PROTECTED);
    rig_gate(rig, VECTOR_GP, SYS_INT_GATE, 0, SEL_CODE32, RIG_HANDLER, 0);
    put_code(rig, code, bytes, size);
}

/* #GP(0) at `rip`, delivered. */
static void assert_stopped_at(struct rig *rig, uint32_t rip)
{
    cr_assert_eq(rig->cpu->gpr[REG_RSP], RIG_KERNEL_STACK - 16);
    cr_assert_eq(rig_read(rig, RIG_KERNEL_STACK - 16, 4), 0);
    cr_assert_eq(rig_read(rig, RIG_KERNEL_STACK - 12, 4), rip, "%x, wanted %x",
                 (unsigned)rig_read(rig, RIG_KERNEL_STACK - 12, 4), rip);
}

Test(code_cache, block_does_not_run_past_the_limit_when_new)
{
    struct rig rig;
    uint64_t edx;

    init_limit_test(&rig, RIG_CODE, three_incs, sizeof(three_incs));
    edx = rig.cpu->gpr[REG_RDX];
    set_code_limit(&rig, RIG_CODE + 1);
    run(&rig, RIG_CODE, RIG_HANDLER);
    assert_stopped_at(&rig, RIG_CODE + 2);
    cr_assert_eq(rig.cpu->gpr[REG_RAX], 1);
    cr_assert_eq(rig.cpu->gpr[REG_RCX], 1);
    cr_assert_eq(rig.cpu->gpr[REG_RDX], edx, "beyond the limit");
    rig_free(&rig);
}

Test(code_cache, block_does_not_run_past_a_lowered_limit)
{
    struct rig rig;
    uint64_t edx;

    init_limit_test(&rig, RIG_CODE, three_incs, sizeof(three_incs));
    set_code_limit(&rig, 0xfffff);
    edx = rig.cpu->gpr[REG_RDX];
    for (unsigned i = 0; i < 3; i++)
        run(&rig, RIG_CODE, RIG_CODE + 3);
    cr_assert_eq(rig.cpu->gpr[REG_RDX], edx + 3);
    set_code_limit(&rig, RIG_CODE + 1);
    run(&rig, RIG_CODE, RIG_HANDLER);
    assert_stopped_at(&rig, RIG_CODE + 2);
    cr_assert_eq(rig.cpu->gpr[REG_RCX], 4);
    cr_assert_eq(rig.cpu->gpr[REG_RDX], edx + 3, "beyond the limit");
    rig_free(&rig);
}

Test(code_cache, crossing_instruction_does_not_run_past_a_lowered_limit)
{
    struct rig rig;

    init_limit_test(&rig, CROSSING, mov_eax_11111111, sizeof(mov_eax_11111111));
    set_code_limit(&rig, CROSSING + 4);
    for (unsigned i = 0; i < 3; i++)
        run(&rig, CROSSING, CROSSING + 5);
    cr_assert_eq(rig.cpu->gpr[REG_RAX], 0x11111111);
    rig.cpu->gpr[REG_RAX] = 0;
    set_code_limit(&rig, CROSSING + 3);
    run(&rig, CROSSING, RIG_HANDLER);
    assert_stopped_at(&rig, CROSSING);
    cr_assert_eq(rig.cpu->gpr[REG_RAX], 0);
    rig_free(&rig);
}

/* ---- Instructions that cross a page end ---- */

static uint64_t run_crossing(struct rig *rig, gva_t start)
{
    rig->cpu->gpr[REG_RAX] = 0;
    run(rig, start, start + 5);
    return rig->cpu->gpr[REG_RAX];
}

Test(code_cache, crossing_instruction_sees_a_store_to_its_second_page)
{
    static const uint8_t store[] = { 0xc6, 0x05, 0x00, 0xd0, 0, 0, 0x22, 0xeb, 0xfe }; /* mov byte [0xd000], 0x22 */
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    put_code(&rig, CROSSING, mov_eax_11111111, sizeof(mov_eax_11111111));
    put_code(&rig, RIG_CODE, store, sizeof(store));
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(run_crossing(&rig, CROSSING), 0x11111111);
    run(&rig, RIG_CODE, RIG_CODE + 7);
    cr_assert_eq(run_crossing(&rig, CROSSING), 0x11221111);
    rig_free(&rig);
}

Test(code_cache, crossing_instruction_sees_another_second_page)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_write(&rig, RIG_PAGES + 0x1000 + 8, HIGH_TABLES | 7, 8);
    rig_write(&rig, HIGH_TABLES, (HIGH_TABLES + 0x1000) | 7, 8);
    rig_write(&rig, HIGH_TABLES + 0x1000, (CROSSING & PAGE_MASK) | 7, 8);
    rig_write(&rig, HIGH_TABLES + 0x1008, SECOND_PAGE | 7, 8);
    put_code(&rig, CROSSING, mov_eax_11111111, sizeof(mov_eax_11111111));
    rig_write(&rig, OTHER_PAGE, 0x2233, 2);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(run_crossing(&rig, HIGH_CODE + 0xffd), 0x11111111);
    rig_write(&rig, HIGH_TABLES + 0x1008, OTHER_PAGE | 7, 8);
    cpu_set_cr3(rig.cpu, RIG_PAGES, false);
    cr_assert_eq(run_crossing(&rig, HIGH_CODE + 0xffd), 0x22331111);
    rig_free(&rig);
}

/* ---- Stores into the running block ---- */

/* Runs until UD2, which no IDT catches. */
static void run_to_ud2(struct rig *rig, const void *bytes, size_t size)
{
    put_code(rig, RIG_CODE, bytes, size);
    rig->cpu->idtr.limit = 0;
    rig->cpu->cpu_rip = RIG_CODE;
    rig->cpu->activity = CPU_RUNNING;
    cr_assert_eq(cpu_run(rig->cpu), CPU_EXIT_TRIPLE_FAULT);
}

/* Each program is one block that makes an INC EDX (42) of an INC ECX (41) further on. EAX = 42 and EDI = the address of
 * the INC to begin with; the last three bytes are the INC and UD2. */
Test(code_cache, store_changes_a_later_instruction_of_its_block, .timeout = 10)
{
    static const struct {
        const char *name, *bytes;
        size_t size;
    } cases[] = {
#define CASE(name, bytes) { name, bytes, sizeof(bytes) - 1 }
        CASE("mov [edi], al", "\x88\x07\x90\x41\x0f\x0b"),
        CASE("mov byte [edi], 42", "\xc6\x07\x42\x90\x41\x0f\x0b"),
        CASE("the very next one", "\x88\x07\x41\x0f\x0b"),
        CASE("inc byte [edi]", "\xfe\x07\x90\x41\x0f\x0b"),
        CASE("lock inc byte [edi]", "\xf0\xfe\x07\x90\x41\x0f\x0b"),
        CASE("xchg [edi], al", "\x86\x07\x90\x41\x0f\x0b"),
        CASE("stosb", "\xaa\x90\x41\x0f\x0b"),
        CASE("lea esp, [edi + 4]; push 0b0f42", "\x8d\x67\x04\x68\x42\x0f\x0b\x00\x90\x41\x0f\x0b"),
#undef CASE
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig rig;

        rig_init(&rig, "max", RIG_PROTECTED);
        for (unsigned round = 0; round < 2; round++) { /* the second one finds the code page known */
            rig.cpu->gpr[REG_RAX] = 0x42;
            rig.cpu->gpr[REG_RCX] = rig.cpu->gpr[REG_RDX] = 0;
            rig.cpu->gpr[REG_RDI] = RIG_CODE + cases[i].size - 3;
            run_to_ud2(&rig, cases[i].bytes, cases[i].size);
            cr_assert_eq(rig.cpu->gpr[REG_RCX], 0, "%s, round %u: the old instruction ran", cases[i].name, round);
            cr_assert_eq(rig.cpu->gpr[REG_RDX], 1, "%s, round %u", cases[i].name, round);
        }
        rig_free(&rig);
    }
}

/* A loop whose body changes with each turn: 41 and 42 in turn, by XOR. */
Test(code_cache, loop_that_rewrites_itself, .timeout = 10)
{
    /* mov ebx, 10; again: xor byte [RIG_CODE + 12], 3; inc ecx; dec ebx; jnz again; ud2 */
    static const uint8_t bytes[] = { 0xbb, 10, 0, 0,    0,    0x80, 0x35, 0x0c, 0x50,
                                     0,    0,  3, 0x41, 0x4b, 0x75, 0xf5, 0x0f, 0x0b };
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig.cpu->gpr[REG_RCX] = rig.cpu->gpr[REG_RDX] = 0;
    run_to_ud2(&rig, bytes, sizeof(bytes));
    cr_assert_eq(rig.cpu->gpr[REG_RBX], 0);
    cr_assert_eq(rig.cpu->gpr[REG_RDX], 5);
    cr_assert_eq(rig.cpu->gpr[REG_RCX], 5);
    rig_free(&rig);
}
