/* What may happen to a short loop of which a translator does several iterations at a time (docs/design.md, "Soundness", lines
 * 4, 6, 8, 10 and 14): it shares its head with another, runs again under other page tables, overwrites an instruction of
 * its own, is single-stepped, never ends but for an interrupt. soundness_loops has the random ones. SDM Vol. 3A 4.8,
 * 6.9, 8.1.3; Vol. 3B 18.3. */
#include "soundness_ticks.h"

/* ---- Two loops, one head ---- */

static void shared_heads(void)
{
#define DATA_OF_LOOPS                                                                                                  \
    for (unsigned n_ = 0; n_ < 64; n_++)                                                                               \
    FRAME64(UDATA_FRAME)[n_] = 1ull << n_ % 60
    HOT("soundness-04-loops-share-a-head", USER, DATA_OF_LOOPS,
        "1: add rax, [rsi]; add rsi, 8; inc edx; dec ecx; jnz 1b; mov ecx, 3; sub rsi, 16; dec r8d; jnz 1b", .rax = 0,
        .rsi = UDATA, .rcx = 5, .rdx = 0, .r8 = 7, .show = STATUS);
    HOT("soundness-04-loops-share-a-head-jump-at-the-bottom", USER, DATA_OF_LOOPS,
        "1: add rax, [rsi]; dec ecx; js 2f; test cl, 3; lea rsi, [rsi+8]; jnz 1b; inc edx; jmp 1b; 2:", .rax = 0,
        .rsi = UDATA, .rcx = 20, .rdx = 0, .show = STATUS & ~AF);
    HOT("soundness-04-loops-nested", USER, DATA_OF_LOOPS,
        "1: mov ecx, 5; 2: add rax, [rsi+rcx*8]; dec ecx; jnz 2b; add rsi, 8; dec edx; jnz 1b", .rax = 0, .rsi = UDATA,
        .rdx = 9, .show = STATUS);
    HOT("soundness-04-loops-entered-in-the-middle", USER, DATA_OF_LOOPS,
        "jmp 2f; 1: add rax, [rsi]; 2: add rsi, 8; add rbx, [rsi]; dec ecx; jnz 1b", .rax = 0, .rbx = 0, .rsi = UDATA,
        .rcx = 11, .show = STATUS);
    HOT("soundness-04-loops-of-one-instruction", USER, 0, "mov eax, -9; 1: inc eax; jnz 1b; setc dl", .show = STATUS);
#undef DATA_OF_LOOPS
}

/* ---- Line 4, 8: other page tables under the same loop ---- */

static void say_sum(enum mode mode)
{
    struct regs out = AGAIN(mode, .rsi = FREE + PAGE - 56, .rax = 0, .rcx = 14, .rdx = 0x21);

    say(" %x/%x", out.rax, out.rcx);
    if (out.vector != VECTOR_DONE)
        say_event(&out);
    say("%s%s", *pte(FREE + PAGE) & A ? " a" : "", *pte(FREE + PAGE) & D ? " d" : "");
}

static void remapped(const char *name, enum mode mode, struct code code)
{
    static const u64 flags[] = { P | W | U, P | U, 0, P | W, P | W | U };

    begin(name);
    put_code(CODE_FRAME, code);
    map(FREE, FREE_FRAME, P | W | U);
    for (unsigned i = 0; i < ARRAY_SIZE(flags) * 2; i++) {
        for (unsigned frame = 0; frame < 3; frame++)
            for (unsigned at = 0; at < PAGE / 8; at++)
                FRAME64(FREE_FRAME + frame * PAGE)[at] = 1ull << frame * 16;
        map(FREE + PAGE, FREE_FRAME + PAGE + i % 2 * PAGE, flags[i / 2]);
        invalidate(FREE + PAGE);
        say_sum(mode);
        if (flags[i / 2] == (P | W | U)) { /* bits again, with a TLB that knows the page, or did */
            say_sum(mode);
            *pte(FREE + PAGE) &= ~(u64)(A | D);
            invalidate(FREE + PAGE);
            say_sum(mode);
        }
    }
    done();
}

static void page_tables(void)
{
    remapped("soundness-04-loops-remapped-reads", USER, CODE("1: add rax, [rsi]; add rsi, 8; dec ecx; jnz 1b"));
    remapped("soundness-04-loops-remapped-reads-kernel", KERNEL,
             CODE("1: dec ecx; js 2f; add rax, [rsi]; lea rsi, [rsi+8]; jmp 1b; 2:"));
    remapped("soundness-04-loops-remapped-writes", USER,
             CODE("1: add rax, [rsi]; mov [rsi], rdx; add rsi, 8; dec ecx; jnz 1b"));
    remapped("soundness-04-loops-remapped-read-modify-write-kernel", KERNEL,
             CODE("1: add [rsi], edx; add rax, [rsi]; add rsi, 8; dec ecx; jnz 1b"));
    /* page ends that only iterations to come would reach: reads first, and one write at the very end */
    remapped("soundness-04-loops-one-write-at-last", USER,
             CODE("1: add rax, [rsi]; add rsi, 8; dec ecx; jnz 1b; mov [rsi-64], rdx"));
}

/* ---- Line 6: loops that change themselves ---- */

enum { CODE_AT = 0x800, ITERATIONS = 12 };

/* The byte that the stores reach is the constant of ADD EBX, 1; if it ends the loop, the opcode of the JNZ behind DEC ECX. */
struct self_change {
    const char *name;
    int step; /* of the stores */
    u8 value;
    u8 later, ends; /* it counts from the next iteration on; it ends the loop */
    struct code code;
};

/* Stores walk towards an instruction of the loop and reach it in iteration k. */
static void change_at(const struct self_change *c, struct tally *tally, enum mode mode, u64 view, unsigned k)
{
    word at = CODE_FRAME + CODE_AT;
    unsigned old = k + c->later, rounds = c->ends ? old + 1 : ITERATIONS;
    struct regs out;

    put_code(at, c->code);
    for (unsigned n = 0; n < 3; n++) /* known, and done several times at once, before */
        AGAIN(mode, .code_at = CODE_AT, .rsi = UDATA + PAGE, .rcx = ITERATIONS, .rdx = 0);
    while (c->ends ? FRAME8(at)[0] != 0xc9 || FRAME8(at)[1] != 0x75 : FRAME8(at)[0] != 0xc3 || FRAME8(at)[1] != 1)
        at++;
    at -= CODE_FRAME - 1;
    out = AGAIN(mode, .code_at = CODE_AT, .rsi = view + at - (u64)(c->step * (int)k), .rcx = ITERATIONS,
                .rdx = c->value, .rax = 0, .rbx = 0);
    word want = c->ends ? rounds : old >= ITERATIONS ? ITERATIONS : old + (ITERATIONS - old) * c->value;
    if (wrong(tally,
              out.vector == VECTOR_DONE && out.rax == rounds && out.rbx == want && out.rcx == ITERATIONS - rounds)) {
        say(" [%s k=%d view=%X ax=%x bx=%x instead of %x", mode == USER ? "user" : "kernel", (word)k, view, out.rax,
            out.rbx, want);
        say_event(&out);
        say("]");
    }
}

static void self_changes(void)
{
    const struct self_change changes[] = {
        { "next-instruction", 64, 5, 0, 0,
          CODE("1: inc eax; mov [rsi], dl; add rsi, 64; add ebx, 1; dec ecx; jnz 1b") },
        { "before", 64, 5, 1, 0, CODE("1: add ebx, 1; inc eax; mov [rsi], dl; add rsi, 64; dec ecx; jnz 1b") },
        { "backwards", -64, 9, 0, 0, CODE("1: inc eax; mov [rsi], dl; sub rsi, 64; add ebx, 1; dec ecx; jnz 1b") },
        { "branch", 64, 0x74, 0, 1, CODE("1: inc eax; mov [rsi], dl; add rsi, 64; inc ebx; dec ecx; jnz 1b; nop") },
        { "jump-back", 64, 5, 0, 0,
          CODE("1: inc eax; mov [rsi], dl; add rsi, 64; add ebx, 1; dec ecx; jz 2f; jmp 1b; 2: nop") },
        { "after-loads", 64, 5, 0, 0,
          CODE("1: inc eax; mov r8d, [rsi-64]; mov [rsi], dl; add r8d, [rsi+64]; add rsi, 64; add ebx, 1; dec ecx; "
               "jnz 1b") },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(changes); i++) {
        struct tally tally = { 0 };

        begin(name_of("soundness-06-loops-change-%s", changes[i].name));
        map_pages(FREE, CODE_FRAME, 1, P | W | U);
        map_pages(FREE + PAGE, CODE_FRAME, 1, P | W | U);
        for (unsigned k = 0; k < 10; k++) {
            change_at(&changes[i], &tally, USER, FREE, k);
            change_at(&changes[i], &tally, USER, FREE + PAGE, k);
            change_at(&changes[i], &tally, KERNEL, FREE + k % 2 * PAGE, k);
            change_at(&changes[i], &tally, KERNEL, CODE_FRAME, k);
        }
        end_tally(&tally);
    }
    HOT("soundness-06-loops-change-in-every-iteration", USER, (map(FREE, CODE_FRAME, P | W | U), invalidate(FREE)),
        "1: inc edx; mov [rsi], dl; add ebx, 1; dec ecx; jnz 1b", .rsi = FREE + 6, .rdx = 0, .rbx = 0, .rcx = 20);
}

/* ---- Line 10: single steps ---- */

static word steps, step_limit;

static void step(struct regs *regs)
{
    if (++steps == step_limit)
        regs->rflags &= ~(word)TF;
}

/* The page is there from now on, and what follows is stepped through. */
static void step_from_here(struct regs *regs)
{
    map(FREE + PAGE, FREE_FRAME + PAGE, P | W | U);
    invalidate(FREE + PAGE);
    regs->rflags |= TF;
}

/* Translated code, then n iterations step by step: all of them, up to a limit, or from a page fault on. */
static void stepped(const char *name, enum mode mode)
{
    struct tally tally = { 0 };
    u64 sum = 0;

    begin(name);
    put_code(CODE_FRAME, CODE("1: add eax, [rsi]; lea rsi, [rsi+4]; dec ecx; jnz 1b"));
    map(FREE, FREE_FRAME, P | W | U);
    handlers[DB] = step;
    handlers[PG] = step_from_here;
    for (unsigned i = 0; i < PAGE / 2; i++)
        FRAME32(FREE_FRAME)[i] = i * i;
    for (unsigned n = 1; n < 40; n++) {
        unsigned before = n * 7 % 11, first = PAGE / 4 - before, stepwise = n > before ? 4 * (n - before) : 0;
        unsigned limit = n * 5 % 13, wants[] = { 0, 4 * n, limit && limit < 4 * n ? limit : 4 * n, stepwise };
        struct regs out;

        sum = 0;
        for (unsigned i = 0; i < n; i++)
            sum += (u64)(first + i) * (first + i);
        for (unsigned i = 0; i < 4; i++) {
            word want = wants[i];

            map(FREE + PAGE, i == 3 ? 0 : FREE_FRAME + PAGE, i == 3 ? 0 : P | W | U);
            invalidate(FREE + PAGE);
            steps = 0;
            step_limit = i == 2 ? limit : 0;
            out = AGAIN(mode, .rsi = FREE + first * 4, .rax = 0, .rcx = n, .rflags = 2 | (i == 1 || i == 2 ? TF : 0));
            if (wrong(&tally, out.vector == VECTOR_DONE && steps == want && out.rax == (u32)sum && out.rcx == 0 &&
                                  (out.rflags & STATUS & ~(word)CF) == (ZF | PF))) {
                say(" [n=%d way=%d steps=%d instead of %d ax=%x", (word)n, (word)i, steps, want, out.rax);
                say_event(&out);
                say("]");
            }
        }
    }
    handlers[DB] = handlers[PG] = 0;
    end_tally(&tally);
}

/* ---- Line 14: interrupts ---- */

enum { TICKS = 8 };

static word (*right_at)(const struct regs *regs, word at);
static volatile word ticks, wrong_ticks;

static void tick(struct regs *regs)
{
    *apic(APIC_EOI) = 0;
    ticks++;
    wrong_ticks += !right_at(regs, (regs->rip - CODE_PAGE) & 0xffff); /* the user's view of it, too */
    if (ticks >= TICKS)
        end_probe(regs);
}

/* 0: lea; 3: test; 5: jz */
static word right_in_counter(const struct regs *regs, word at)
{
    return (at == 0 || at == 3 || at == 5) && regs->rdx == 0 &&
           (regs->rax == 0 || (regs->rflags & STATUS & ~(word)AF) == (ZF | PF));
}

/* 0: add rbx, [rsi]; 3: inc rdx; 6: jmp */
static word right_in_sum(const struct regs *regs, word at)
{
    return (at == 0 || at == 3 || at == 6) && regs->rbx == 3 * (regs->rdx + (at == 3));
}

/* 0: mov [rsi], rax; 3: cmp [rsi], rbx; 6: jne. 1 - 2 borrows. */
static word right_in_stores(const struct regs *regs, word at)
{
    return (at == 0 || at == 3 || at == 6) && (regs->rflags & STATUS) == (CF | AF | SF | PF);
}

static void endless(const char *name, enum mode mode, struct code code, word (*right)(const struct regs *, word))
{
    struct regs out;
    u64 data = mode == USER ? UDATA : DATA;

    begin(name);
    put_code(CODE_FRAME, code);
    FRAME64(UDATA_FRAME)[0] = FRAME64(DATA_FRAME)[0] = 3;
    ticks = wrong_ticks = 0;
    right_at = right;
    start_ticks(tick, KHZ);
    out = AGAIN(mode, .rax = right == right_in_stores, .rbx = right == right_in_stores ? 2 : 0, .rdx = 0, .rsi = data,
                .rflags = 2 | IF | CF | AF | SF | PF);
    stop_ticks();
    say(" %s ticks=%d wrong=%d", event_name(out.vector), ticks, wrong_ticks);
    done();
}

static void endless_loops(void)
{
    static const enum mode modes[] = { KERNEL, USER };

    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        const char *who = i ? "user" : "kernel";

        endless(name_of("soundness-14-loops-counter-%s", who), modes[i],
                CODE("1: lea eax, [rax+1]; test edx, edx; jz 1b"), right_in_counter);
        endless(name_of("soundness-14-loops-sum-%s", who), modes[i], CODE("1: add rbx, [rsi]; inc rdx; jmp 1b"),
                right_in_sum);
        endless(name_of("soundness-14-loops-stores-%s", who), modes[i],
                CODE("1: mov [rsi], rax; cmp [rsi], rbx; jne 1b"), right_in_stores);
    }
}

void cases(void)
{
    shared_heads();
    page_tables();
    self_changes();
    stepped("soundness-10-loops-stepped-user", USER);
    stepped("soundness-10-loops-stepped-kernel", KERNEL);
    endless_loops();
}
