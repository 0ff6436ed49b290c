/* Interrupts (docs/design.md, "Soundness", lines 10 and 14): every loop can be interrupted, at 1 kHz and without losing
 * a tick, with the registers and flags that belong to the interrupted instruction; STI with what follows it is one
 * unit. SDM Vol. 3A 6.8, 11.5.4; Vol. 2B STI. */
#include "soundness_ticks.h"

enum { RESCUE = 0x52 };

static volatile word ticks, wanted_ticks;

static void tick(struct regs *regs)
{
    *apic(APIC_EOI) = 0;
    if (++ticks >= wanted_ticks)
        end_probe(regs);
}

static void count_ticks(word wanted, handler_fn *handler, u32 period)
{
    ticks = 0;
    wanted_ticks = wanted;
    start_ticks(handler, period);
}

/* ---- Line 14: loops ---- */

#define LOOPS(X)                                                                                                       \
    X(jump_to_itself, USER, "1: jmp 1b")                                                                               \
    X(jump_to_itself_kernel, KERNEL, "1: jmp 1b")                                                                      \
    X(branch_to_itself, USER, "xor eax, eax; 1: jz 1b; ud2")                                                           \
    X(loop_instruction, USER, "1: mov ecx, -1; 2: loop 2b; jmp 1b")                                                    \
    X(jrcxz_to_itself, USER, "xor ecx, ecx; 1: jrcxz 1b; ud2")                                                         \
    X(indirect_jump, USER, "lea rax, [rip+1f]; 1: jmp rax")                                                            \
    X(indirect_jump_through_memory, USER, "lea rax, [rip+1f]; mov [rbx], rax; 1: jmp [rbx]")                           \
    X(indirect_jumps_alternating, KERNEL, "lea rax, [rip+1f]; lea rcx, [rip+2f]; 1: jmp rcx; ud2; 2: jmp rax")         \
    X(pop_rsp_ret, USER,                                                                                               \
      "lea rax, [rip+1f]; mov [rbx+8], rax; mov [rbx+24], rax; lea rax, [rbx+24]; mov [rbx], rax; "                    \
      "lea rax, [rbx+8]; mov [rbx+16], rax; mov [rbx+32], rbx; mov rax, [rbx+16]; mov rsp, rbx; "                      \
      "jmp 1f; 1: pop rsp; mov rsp, rbx; add rsp, 8; ret")                                                             \
    X(pop_rsp_ret_only, USER,                                                                                          \
      "lea rax, [rip+1f]; lea rcx, [rbx+8]; mov [rbx], rcx; mov [rbx+8], rax; "                                        \
      "mov [rbx+16], rbx; mov rsp, rbx; 1: pop rsp; ret; ud2")                                                         \
    X(ret_to_itself, USER, "lea rax, [rip+1f]; mov [rbx], rax; 1: mov rsp, rbx; ret")                                  \
    X(ret_imm_to_itself, KERNEL,                                                                                       \
      "lea rax, [rip+1f]; mov [rbx+16], rax; lea rsp, [rbx+16]; 1: lea rsp, [rbx+16]; "                                \
      "ret 8")                                                                                                         \
    X(call_and_ret, USER, "1: call 2f; jmp 1b; 2: ret")                                                                \
    X(call_and_ret_unrolled, KERNEL, "1: call 2f; call 2f; call 2f; jmp 1b; 2: ret")                                   \
    X(calls_without_ret, USER, "lea rbx, [rbx+0x800]; 1: mov rsp, rbx; call 1b")                                       \
    X(push_and_ret, USER, "lea rax, [rip+1f]; 1: push rax; ret")                                                       \
    X(indirect_calls, USER, "lea rax, [rip+2f]; 1: call rax; jmp 1b; 2: ret")                                          \
    X(memory, USER, "1: inc dword ptr [rbx]; jmp 1b")                                                                  \
    X(locked_across_pages, USER, "1: lock inc dword ptr [rbx+0xffe]; jmp 1b")                                          \
    X(vectors, USER, "1: paddd xmm0, xmm1; movups [rbx], xmm0; jmp 1b")                                                \
    X(x87, USER, "fninit; fld1; 1: fadd st, st(0); jmp 1b")                                                            \
    X(rep_movs, USER, "1: mov rsi, rbx; lea rdi, [rbx+0x2000]; mov ecx, 0x1000; rep movsb; jmp 1b")                    \
    X(rep_stos_kernel, KERNEL, "1: mov edi, 0x1800000; mov ecx, 0x200000; rep stosq; jmp 1b")                          \
    X(rep_lods, KERNEL, "1: mov esi, 0x1000000; mov ecx, 0x2000000; rep lodsb; jmp 1b")                                \
    X(rep_scas, USER, "1: mov rdi, rbx; mov ecx, 0x4000; mov eax, 0x77; repne scasb; jmp 1b")                          \
    X(rep_with_count_0, USER, "xor ecx, ecx; mov rdi, rbx; 1: rep stosb; jmp 1b")                                      \
    X(pause, USER, "1: pause; jmp 1b")                                                                                 \
    X(long_block, USER, "1: .rept 1000; add rax, rcx; .endr; jmp 1b")                                                  \
    X(many_branches, USER, "1: .rept 200; cmp eax, ecx; jz 9f; .endr; jmp 1b; 9: ud2")                                 \
    X(divisions, USER, "mov ecx, 7; 1: xor edx, edx; div ecx; jmp 1b")                                                 \
    X(halt, KERNEL, "1: hlt; jmp 1b")                                                                                  \
    X(sti_halt_cli, KERNEL, "1: sti; hlt; cli; jmp 1b")                                                                \
    X(cli_sti, KERNEL, "1: cli; nop; sti; jmp 1b")                                                                     \
    X(sti_only, KERNEL, "1: sti; jmp 1b")                                                                              \
    X(popf, KERNEL, "1: pushfq; cli; popfq; jmp 1b")                                                                   \
    X(mov_ss, KERNEL, "mov eax, ss; 1: mov ss, eax; jmp 1b")                                                           \
    X(iret, KERNEL,                                                                                                    \
      "lea rax, [rip+1f]; mov ecx, ss; mov edx, cs; 1: lea rsp, [rbx+0x800]; push rcx; push rsp; pushfq; "             \
      "push rdx; push rax; iretq")                                                                                     \
    X(far_return, USER, "lea rax, [rip+1f]; 1: push 0x2b; push rax; .byte 0x48, 0xcb")                                 \
    X(system_calls, USER, "1: syscall; jmp 1b")                                                                        \
    X(interrupts, USER, "1: int3; jmp 1b")                                                                             \
    X(undefined, USER, "1: ud2")                                                                                       \
    X(page_faults, USER, "1: mov al, [0x40060000]; jmp 1b")                                                            \
    X(single_steps, USER, "1: pushfq; or byte ptr [rsp+1], 1; popfq; nop; jmp 1b")                                     \
    X(self_modification, USER, "1: inc byte ptr [rip+2f+1]; 2: mov al, 0; jmp 1b")                                     \
    X(cpuid, USER, "1: mov r9, rbx; cpuid; mov rbx, r9; jmp 1b")                                                       \
    X(rdtsc, USER, "1: rdtsc; jmp 1b")                                                                                 \
    X(ports, KERNEL, "1: in al, 0x80; jmp 1b")                                                                         \
    X(mmio, KERNEL, "mov ecx, 0xfee00030; 1: mov eax, [rcx]; jmp 1b")                                                  \
    X(msrs, KERNEL, "mov ecx, 0xc0000100; xor eax, eax; xor edx, edx; 1: wrmsr; jmp 1b")                               \
    X(invlpg, KERNEL, "1: invlpg [rbx]; mov rax, [rbx]; jmp 1b")                                                       \
    X(cr3, KERNEL, "mov rax, cr3; 1: mov cr3, rax; mov rcx, [rbx]; jmp 1b")                                            \
    X(segment_loads, KERNEL, "mov ecx, 0x23; 1: mov ds, ecx; jmp 1b")
#define X(id, mode, text)                                                                                              \
    static struct code loop_##id(void)                                                                                 \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
LOOPS(X)
#undef X
#define X(id, mode, text) { #id, loop_##id, mode },
static const struct {
    const char *name;
    struct code (*code)(void);
    enum mode mode;
} loops[] = { LOOPS(X) };
#undef X

static void set_loop_world(void)
{
    handlers[BP] = handlers[UD] = handlers[PG] = handlers[DB] = go_on;
    wrmsr(MSR_STAR, (u64)(UCS - 16) << 48 | (u64)KCS << 32);
    wrmsr(MSR_LSTAR, CODE_PAGE + 0xf00);
    wrmsr(MSR_FMASK, IF);
    put_code(CODE_FRAME + 0xf00, CODE("sysretq"));
}

static void interrupted_loop(const char *name, struct code code, enum mode mode, word rip)
{
    struct regs out;

    begin(name);
    put_code(CODE_FRAME, code);
    set_loop_world();
    count_ticks(20, tick, KHZ);
    out = AGAIN(mode, .rbx = mode == USER || mode == USER32 ? UDATA : DATA, .rflags = 2 | IF, .rip = rip);
    stop_ticks();
    say(" %s ticks=%d", event_name(out.vector), ticks);
    done();
}

/* Loops over page ends, and one instruction that lies on one and jumps to itself. */
static void loops_across_pages(void)
{
    map_pages(FREE, FREE_FRAME, 2, P | W | U);
    FRAME8(FREE_FRAME)[0x10] = 0xe9; /* jmp +0x1000 */
    FRAME32(FREE_FRAME + 0x11)[0] = 0x1000 - 5;
    FRAME8(FREE_FRAME)[0x1010] = 0xe9; /* jmp -0x1000 */
    FRAME32(FREE_FRAME + 0x1011)[0] = (u32)(-0x1000 - 5);
    interrupted_loop("soundness-14-loop-across-pages", CODE("jmp rsi"), USER, FREE + 0x10);
    map_pages(FREE, FREE_FRAME, 2, P | W | U);
    FRAME8(FREE_FRAME)[0xffe] = 0xe9; /* jmp to itself */
    FRAME32(FREE_FRAME + 0xfff)[0] = (u32)-5;
    interrupted_loop("soundness-14-loop-straddling-jump", CODE("jmp rsi"), USER, FREE + 0xffe);
    interrupted_loop("soundness-14-loop-compatibility", CODE32("1: jmp 1b"), USER32, 0);
    interrupted_loop("soundness-14-loop-compatibility-calls", CODE32("1: call 2f; jmp 1b; 2: mov eax, [ebx]; ret"),
                     USER32, 0);
}

/* ---- Line 14: no tick is lost ---- */

static u64 hpet_ns(void)
{
    u64 femtoseconds = *FRAME64(0xfed00000) >> 32;

    return *FRAME64(0xfed000f0) * (femtoseconds / 1000) / 1000;
}

/* A host that is busy with other things takes the processor away for some milliseconds, again and again; an emulator
 * that looks at its interrupts too seldom loses ticks always. So the best of many short windows counts. */
static void no_tick_lost(const char *name, struct code code, enum mode mode)
{
    word best = ~0ul;

    begin(name);
    put_code(CODE_FRAME, code);
    set_loop_world();
    *FRAME64(0xfed00010) = 1; /* the HPET runs */
    for (unsigned i = 0; i < 500 && best > 0; i++) {
        u64 from, to;

        count_ticks(4, tick, KHZ);
        from = hpet_ns();
        AGAIN(mode, .rbx = mode == USER ? UDATA : DATA, .rflags = 2 | IF);
        to = hpet_ns();
        stop_ticks();
        if ((to - from) / 1000000 - 4 < best)
            best = (to - from) / 1000000 - 4;
    }
    if (best > 0)
        say(" lost=%d", best);
    else
        say(" none lost");
    done();
}

static void all_ticks(void)
{
    no_tick_lost("soundness-14-no-tick-lost-jump", loop_jump_to_itself(), USER);
    no_tick_lost("soundness-14-no-tick-lost-calls", loop_call_and_ret(), USER);
    no_tick_lost("soundness-14-no-tick-lost-memory", loop_memory(), USER);
    no_tick_lost("soundness-14-no-tick-lost-indirect", loop_indirect_jumps_alternating(), KERNEL);
    no_tick_lost("soundness-14-no-tick-lost-strings", loop_rep_movs(), USER);
    no_tick_lost("soundness-14-no-tick-lost-system-calls", loop_system_calls(), USER);
    no_tick_lost("soundness-14-no-tick-lost-halt", loop_sti_halt_cli(), KERNEL);
}

/* The same by the PIT through the IOAPIC. */
static void pit_ticks(void)
{
    struct regs out;

    begin("soundness-14-pit-at-1-khz");
    PLACE("1: jmp 1b");
    count_ticks(20, tick, KHZ);
    reset_apic();
    route(2, TICK);
    outb(0x43, 0x34);
    outb(0x40, 1193 & 0xff);
    outb(0x40, 1193 >> 8);
    out = AGAIN(USER, .rflags = 2 | IF);
    route(2, MASKED);
    outb(0x43, 0x30);
    stop_ticks();
    say(" %s ticks=%d", event_name(out.vector), ticks);
    done();
}

/* ---- Line 14: STI and what follows ---- */

static volatile word places[16], place_count;

static void note_place(struct regs *regs)
{
    *apic(APIC_EOI) = 0;
    if (place_count < ARRAY_SIZE(places))
        places[place_count] = regs->rip & 0xfff;
    place_count++;
}

/* An interrupt that came before HLT would leave nobody to end it: a second timer does. */
static volatile word rescues;

static void rescue(struct regs *regs)
{
    (void)regs;
    *apic(APIC_EOI) = 0;
    rescues++;
}

static void pending_units(const char *name, struct code code, word rip)
{
    struct regs out;

    begin(name);
    put_code(rip ? FREE_FRAME + (rip - FREE) : CODE_FRAME, code);
    handlers[0x51] = note_place;
    handlers[RESCUE] = rescue;
    place_count = rescues = 0;
    reset_apic();
    *apic(APIC_TIMER) = PERIODIC | RESCUE;
    *apic(APIC_COUNT) = 500 * KHZ;
    out = AGAIN(KERNEL, .r13 = 0xfee00000, .rcx = 15, .rip = rip);
    reset_apic();
    handlers[0x51] = handlers[RESCUE] = count;
    open_window();
    say(" %s taken=%d at", event_name(out.vector), place_count);
    for (unsigned i = 0; i < 3 && i < place_count; i++)
        say(" %x", places[i]);
    for (unsigned i = 3; i < ARRAY_SIZE(places) && i < place_count; i++)
        if (places[i] != places[i % 3])
            say(" then %x", places[i]);
    if (rescues)
        say(" rescued");
    done();
}

static void units(void)
{
#define IPI "mov dword ptr [r13+0x300], 0x40051;"
    pending_units("soundness-14-sti-hlt", CODE("1:" IPI "sti; hlt; cli; dec ecx; jnz 1b"), 0);
    pending_units("soundness-14-sti-nop", CODE("1:" IPI "sti; nop; nop; cli; dec ecx; jnz 1b"), 0);
    pending_units("soundness-14-sti-cli", CODE("1:" IPI "sti; cli; nop; dec ecx; jnz 1b; sti; nop; nop; cli"), 0);
    pending_units("soundness-14-sti-jmp", CODE("1:" IPI "sti; jmp 2f; nop; 2: nop; cli; dec ecx; jnz 1b"), 0);
    pending_units("soundness-14-sti-call", CODE("1:" IPI "sti; call 2f; cli; dec ecx; jnz 1b; jmp 3f; 2: nop; ret; 3:"),
                  0);
    pending_units("soundness-14-sti-ret",
                  CODE("1:" IPI "lea rax, [rip+2f]; push rax; sti; ret; ud2; 2: nop; cli; dec ecx; jnz 1b"), 0);
    pending_units("soundness-14-sti-load", CODE("1:" IPI "sti; mov rax, [rsp]; nop; cli; dec ecx; jnz 1b"), 0);
    pending_units("soundness-14-sti-mmio", CODE("1:" IPI "sti; mov eax, [r13+0x30]; nop; cli; dec ecx; jnz 1b"), 0);
    pending_units("soundness-14-popf", CODE("1:" IPI "push 0x202; popfq; nop; nop; cli; dec ecx; jnz 1b"), 0);
    pending_units("soundness-14-cr8",
                  CODE("1: mov eax, 6; mov cr8, rax; " IPI "sti; nop; nop; xor eax, eax; mov cr8, rax; nop;"
                       "nop; cli; dec ecx; jnz 1b"),
                  0);
    pending_units("soundness-14-iret",
                  CODE("1:" IPI "mov rdx, rsp; mov eax, ss; push rax; push rdx; push 0x202; mov eax, cs; "
                       "push rax; lea rax, [rip+2f]; push rax; iretq; ud2; 2: nop; cli; dec ecx; jnz 1b"),
                  0);
    /* STI is the last byte of its page, HLT the first of the next */
    map_pages(FREE, FREE_FRAME, 2, P | W);
    pending_units("soundness-14-sti-hlt-across-pages", CODE("1:" IPI "sti; hlt; cli; dec ecx; jnz 1b"),
                  FREE + PAGE - 12);
}

static volatile word forbidden;

static void look_at_place(struct regs *regs)
{
    *apic(APIC_EOI) = 0;
    place_count += (regs->rip & 0xfff) == forbidden;
    if (++ticks >= wanted_ticks)
        end_probe(regs);
}

/* Nothing is taken behind MOV SS or STI, however often a timer tries. */
static void shadow(const char *name, struct code code, word forbidden_at)
{
    struct regs out;

    begin(name);
    put_code(CODE_FRAME, code);
    place_count = 0;
    forbidden = forbidden_at;
    count_ticks(300, look_at_place, 50000);
    out = AGAIN(KERNEL, .rflags = 2 | IF);
    stop_ticks();
    say(" %s inside=%d", event_name(out.vector), place_count);
    done();
}

static void shadows(void)
{
    shadow("soundness-14-mov-ss-shadow", CODE("mov eax, ss; 1: mov ss, eax; nop; jmp 1b"), 4);
    shadow("soundness-14-sti-shadow", CODE("1: sti; nop; cli; jmp 1b"), 1);
    shadow("soundness-14-sti-shadow-before-load", CODE("1: sti; mov rax, [rsp]; cli; jmp 1b"), 1);
}

/* ---- Line 10: registers and flags at an interrupt ---- */

static struct regs snapshots[256];
static u8 known[256];

static void learn(struct regs *regs)
{
    unsigned at = regs->rip & 0xff;

    snapshots[at] = *regs;
    known[at] = 1;
    if (++ticks >= wanted_ticks)
        end_probe(regs);
}

static volatile word interrupts_seen, interrupts_wrong;

/* Everything has the value that single-stepping found at this instruction. XOR and TEST leave AF undefined. */
static void compare(struct regs *regs)
{
    unsigned at = regs->rip & 0xff;
    const struct regs *want = &snapshots[at];
    int same = known[at] && ((want->rflags ^ regs->rflags) & (STATUS & ~AF)) == 0;

    *apic(APIC_EOI) = 0;
    if (!regs->r15) /* the first round begins with other values */
        return;
    for (unsigned i = 0; i < 16; i++)
        same &= (&want->rax)[i] == (&regs->rax)[i];
    interrupts_seen++;
    if (!same && interrupts_wrong++ < 3) {
        say(" [at %x: flags %x for %x", (word)at, regs->rflags, want->rflags);
        for (unsigned i = 0; i < 16; i++)
            if ((&want->rax)[i] != (&regs->rax)[i])
                say(" r%d=%x for %x", (word)i, (&regs->rax)[i], (&want->rax)[i]);
        say("]");
    }
    if (interrupts_seen >= wanted_ticks)
        end_probe(regs);
}

static void exact_state(const char *name, struct code code, enum mode mode)
{
    struct regs out;

    begin(name);
    put_code(CODE_FRAME, code);
    for (unsigned i = 0; i < 256; i++)
        known[i] = 0;
    count_ticks(400, tick, KHZ);
    reset_apic();
    handlers[DB] = learn;
#define STATE .rbx = mode == USER ? UDATA : DATA, .rsp = mode == USER ? USTACK_TOP : STACK_TOP
    fill(mode == USER ? UDATA_FRAME : DATA_FRAME, 0x61, 0x2000);
    AGAIN(mode, STATE, .rflags = 2 | TF);
    interrupts_seen = interrupts_wrong = 0;
    count_ticks(400, compare, 37000);
    out = AGAIN(mode, STATE, .rflags = 2 | IF);
    stop_ticks();
    say(" %s interrupts=%d wrong=%d", event_name(out.vector), interrupts_seen, interrupts_wrong);
    done();
}

static void exact_states(void)
{
    struct code mixed = CODE(
        "1: mov eax, 0x80000001; add eax, eax; mov rdx, [rbx]; adc eax, 5; mov [rbx+8], rax; inc eax; push rax; pop "
        "rcx; sub ecx, 9; mov [rbx+0xffc], rcx; cmp eax, ecx; lea r8, [rax+rcx]; call 2f; test eax, eax; mov rax, "
        "[rbx+0x10]; xor r8d, r8d; shl rax, 3; mov r9, [rbx+0xffe]; jc 3f; nop; 3: bt rax, 5; mov r15d, 1; jmp 1b; 2: "
        "neg eax; mov "
        "rdx, [rbx+16]; sbb r10d, r10d; ret");
    struct code dead =
        /* flags that nobody reads, between accesses that may check what they like */
        CODE(
            "1: stc; mov rax, [rbx]; add ecx, 1; mov ecx, 7; mov [rbx+0x20], ecx; cmp ecx, 7; mov rdx, [rbx+0x28]; sub "
            "edx, edx; mov [rbx+0x1010], rdx; or eax, 1; mov rsi, [rbx+0x1018]; and esi, 0; push rsi; xor edi, edi; "
            "pop rdi;"
            "mov r15d, 1; jmp 1b");

    exact_state("soundness-10-state-at-interrupts", mixed, USER);
    exact_state("soundness-10-state-at-interrupts-kernel", mixed, KERNEL);
    exact_state("soundness-10-dead-flags-at-interrupts", dead, USER);
    exact_state("soundness-10-dead-flags-at-interrupts-kernel", dead, KERNEL);
}

void cases(void)
{
    reset_interrupt_controllers();
    for (unsigned i = 0; i < ARRAY_SIZE(loops); i++)
        interrupted_loop(name_of("soundness-14-loop-%s", loops[i].name), loops[i].code(), loops[i].mode, 0);
    loops_across_pages();
    pit_ticks();
    units();
    shadows();
    exact_states();
    all_ticks();
}
