/* The local APIC, NMIs, and where in the instruction stream interrupts are taken, as far as it does not depend on
 * speed. SDM Vol. 3A 6.7, 6.8, 11; Vol. 3B 18.17. */
#include "apic.h"

static void apic_registers(void)
{
    begin("apic-registers");
    say(" id=%x version=%d lvts=%d", (word)(*apic(APIC_ID) >> 24), (word)((*apic(APIC_VERSION) & 0xff) >= 0x10),
        (word)((*apic(APIC_VERSION) >> 16 & 0xff) >= 3));
    *apic(APIC_TPR) = 0x1234567;
    say(" tpr=%x", (word)*apic(APIC_TPR));
    *apic(APIC_LDR) = 0xffffffff;
    say(" ldr=%x", (word)*apic(APIC_LDR));
    *apic(APIC_DFR) = 0;
    say(" dfr=%x", (word)*apic(APIC_DFR));
    *apic(APIC_DFR) = 0xffffffff;
    *apic(APIC_DIVIDE) = 0xffffffff;
    say(" divide=%x", (word)*apic(APIC_DIVIDE));
    *apic(APIC_TPR) = 0;
    done();

    reset_apic();
    begin("apic-tpr-is-cr8");
    *apic(APIC_TPR) = 0x75;
    {
        word cr8;

        __asm__ volatile("mov %%cr8, %0" : "=r"(cr8));
        say(" cr8=%x", cr8);
        __asm__ volatile("mov %0, %%cr8" : : "r"(3ul));
        say(" tpr=%x", (word)*apic(APIC_TPR));
        __asm__ volatile("mov %0, %%cr8" : : "r"(0ul));
    }
    done();

    begin("apic-software-disable-masks-lvt");
    *apic(APIC_TIMER) = 0x50;
    *apic(APIC_SPURIOUS) = 0xff;
    say(" %x", (word)(*apic(APIC_TIMER) & (MASKED | 0xff)));
    *apic(APIC_TIMER) = 0x50;
    say(" %x", (word)(*apic(APIC_TIMER) & (MASKED | 0xff)));
    reset_apic();
    done();

    begin("apic-base-msr");
    say(" %X", rdmsr(MSR_APIC_BASE));
    done();

    if (!skipped("apic-disabled-by-msr")) {
        begin("apic-disabled-by-msr");
        wrmsr(MSR_APIC_BASE, 0xfee00100);
        say(" cpuid=%d", (word)(cpuid(1, 0).d >> 9 & 1));
        wrmsr(MSR_APIC_BASE, 0xfee00900);
        say(" back=%d", (word)(cpuid(1, 0).d >> 9 & 1));
    }
    reset_apic();
    done();
}

static void ipis(void)
{
    begin("ipi-self");
    expect_vector(0x51);
    self_ipi(0x51);
    say(" irr=%d", (word)apic_bit(APIC_IRR, 0x51));
    say(" arrived=%d", (word)wait_count(0x51, 1));
    say(" irr=%d isr=%d", (word)apic_bit(APIC_IRR, 0x51), (word)apic_bit(APIC_ISR, 0x51));
    done();

    begin("ipi-priority");
    expect_vector(0x51);
    expect_vector(0x81);
    expect_vector(0x61);
    self_ipi(0x51);
    self_ipi(0x81);
    self_ipi(0x61);
    wait_count(0x51, 1);
    say(" order=%x", order);
    done();

    begin("ipi-twice-is-once-while-pending");
    expect_vector(0x51);
    self_ipi(0x51);
    self_ipi(0x51);
    wait_count(0x51, 1);
    open_window();
    say(" %d", counts[0x51]);
    done();

    begin("ipi-below-tpr-waits");
    expect_vector(0x51);
    *apic(APIC_TPR) = 0x50;
    self_ipi(0x51);
    open_window();
    say(" %d", counts[0x51]);
    *apic(APIC_TPR) = 0x40;
    open_window();
    say(" %d", counts[0x51]);
    *apic(APIC_TPR) = 0;
    done();

    begin("ipi-below-cr8-waits");
    expect_vector(0x51);
    __asm__ volatile("mov %0, %%cr8" : : "r"(5ul));
    self_ipi(0x51);
    open_window();
    say(" %d", counts[0x51]);
    __asm__ volatile("sti; mov %0, %%cr8; nop; nop; cli" : : "r"(0ul) : "memory");
    say(" %d", counts[0x51]);
    done();

    if (!skipped("ipi-illegal-vector")) {
        begin("ipi-illegal-vector");
        *apic(APIC_ESR) = 0;
        self_ipi(0x05);
        *apic(APIC_ESR) = 0;
        say(" esr=%x", (word)*apic(APIC_ESR));
        *apic(APIC_ESR) = 0;
    }
    done();

    if (!skipped("ipi-error-interrupt")) {
        begin("ipi-error-interrupt");
        expect_vector(0x5e);
        *apic(APIC_ERROR) = 0x5e;
        self_ipi(0x05);
        open_window();
        say(" %d", counts[0x5e]);
    }
    reset_apic();
    done();

    begin("ipi-to-absent-cpu");
    *apic(APIC_ICR_HIGH) = 0x7f000000;
    *apic(APIC_ICR) = 0x51;
    say(" pending=%d", (word)(*apic(APIC_ICR) >> 12 & 1));
    *apic(APIC_ICR_HIGH) = 0;
    done();

    begin("ipi-all-excluding-self");
    expect_vector(0x51);
    *apic(APIC_ICR) = 3 << 18 | 0x51;
    open_window();
    say(" %d", counts[0x51]);
    *apic(APIC_ICR) = 2 << 18 | 0x51;
    say(" all-including-self=%d", (word)wait_count(0x51, 1));
    done();

    begin("ipi-logical");
    expect_vector(0x51);
    *apic(APIC_LDR) = 0x04000000;
    *apic(APIC_ICR_HIGH) = 0x08000000;
    *apic(APIC_ICR) = 1 << 11 | 0x51;
    open_window();
    say(" other=%d", counts[0x51]);
    *apic(APIC_ICR_HIGH) = 0x0c000000;
    *apic(APIC_ICR) = 1 << 11 | 0x51;
    say(" mine=%d", (word)wait_count(0x51, 1));
    *apic(APIC_ICR_HIGH) = 0;
    done();
}

static volatile word depth, deepest;

static void nested(struct regs *regs)
{
    counts[regs->vector]++;
    depth++;
    if (depth > deepest)
        deepest = depth;
    if (regs->vector == 0x51) {
        self_ipi(0x52); /* the same class: waits for the EOI */
        self_ipi(0x61); /* a higher one: comes at once */
        open_window();
        order = counts[0x52] << 8 | counts[0x61];
    }
    depth--;
    *apic(APIC_EOI) = 0;
}

static void nesting(void)
{
    begin("interrupt-nesting-by-class");
    expect_vector(0x51);
    expect_vector(0x52);
    expect_vector(0x61);
    handlers[0x51] = handlers[0x52] = handlers[0x61] = nested;
    depth = deepest = 0;
    self_ipi(0x51);
    wait_count(0x52, 1);
    say(" inside=%x deepest=%d all=%d,%d,%d", order, deepest, counts[0x51], counts[0x52], counts[0x61]);
    done();
}

/* ---- Where in the instruction stream interrupts come: SDM Vol. 3A 6.8 ---- */

#define PENDING(name, how, text, ...)                                                                                  \
    do {                                                                                                               \
        self_ipi(0x51);                                                                                                \
        OPEN(name, how, text, ##__VA_ARGS__);                                                                          \
        /* still in service or pending: drop it */                                                                     \
        handlers[0x51] = count;                                                                                        \
        open_window();                                                                                                 \
        *apic(APIC_EOI) = 0;                                                                                           \
        done();                                                                                                        \
    } while (0)

static void recognition(void)
{
    PENDING("recognition-at-iret", KERNEL, "nop; nop", .rflags = 2 | IF);
    PENDING("recognition-at-iret-user", USER, "nop; nop", .rflags = 2 | IF);
    PENDING("recognition-sti-shadow", KERNEL, "sti; nop; nop; nop");
    PENDING("recognition-sti-cli", KERNEL, "sti; cli; nop");
    PENDING("recognition-sti-hlt", KERNEL, "sti; hlt; nop");
    PENDING("recognition-sti-sti", KERNEL, "sti; sti; nop; nop");
    PENDING("recognition-sti-ret", KERNEL, "push rax; sti; ret; nop", .rax = CODE_PAGE + 5);
    PENDING("recognition-popf-no-shadow", KERNEL, "push rax; popfq; nop; nop", .rax = 2 | IF);
    PENDING("recognition-not-with-if-0", KERNEL, "nop; nop");
    PENDING("recognition-int-before-interrupt-gate", KERNEL, "sti; int 0x45; nop");
    PENDING("recognition-user-sti-iopl-3", USER, "sti; nop; nop", .rflags = 2 | IOPL3);
    PENDING("recognition-fault-first-in-shadow", KERNEL, "sti; ud2; nop");
    PENDING("recognition-cr8-write", KERNEL, "mov eax, 8; mov cr8, rax; sti; nop; xor eax, eax; mov cr8, rax; nop");
    PENDING("recognition-step-trap-first", KERNEL, "sti; nop; nop", .rflags = 2 | TF);
}

/* ---- NMI ---- */

static volatile word nmi_depth, nmi_deepest, nmi_in_handler;

static void send_nmi(void)
{
    *apic(APIC_ICR_HIGH) = 0;
    *apic(APIC_ICR) = NMI_DELIVERY;
}

static void nmi_handler(struct regs *regs)
{
    counts[regs->vector]++;
    nmi_depth++;
    if (nmi_depth > nmi_deepest)
        nmi_deepest = nmi_depth;
    if (counts[NMI] == 1) {
        send_nmi(); /* held back until this handler's IRET */
        for (volatile unsigned i = 0; i < 1000; i++)
            ;
        nmi_in_handler = counts[NMI];
    }
    nmi_depth--;
}

/* Goes on behind a two-byte instruction that faults. */
static void skip_two_bytes(struct regs *regs)
{
    regs->rip += 2;
}

static void pause_a_little(void)
{
    for (volatile unsigned i = 0; i < 1000; i++)
        ;
}

/* The first NMI sends another one and then executes an IRET of some kind, which lets it in. */
static void count_nmi(void (*unblock)(void))
{
    counts[NMI]++;
    nmi_depth++;
    if (nmi_depth > nmi_deepest)
        nmi_deepest = nmi_depth;
    if (counts[NMI] == 1) {
        send_nmi();
        pause_a_little();
        nmi_in_handler = counts[NMI];
        unblock();
        pause_a_little();
    }
    nmi_depth--;
}

static void exception_inside(void)
{
    __asm__ volatile("ud2");
}

/* A null CS is #GP. */
static void faulting_iret_inside(void)
{
    __asm__ volatile("push $0; push $0; push $2; push $0; push $0; iretq; add $40, %%rsp" : : : "memory", "cc");
}

static void nmi_with_exception(struct regs *regs)
{
    (void)regs;
    count_nmi(exception_inside);
}

static void nmi_with_faulting_iret(struct regs *regs)
{
    (void)regs;
    count_nmi(faulting_iret_inside);
}

static void nested_nmi(const char *name, handler_fn *handler)
{
    begin(name);
    expect_vector(NMI);
    handlers[NMI] = handler;
    handlers[UD] = handlers[GP] = skip_two_bytes;
    for (unsigned vector = 0; vector < 32; vector++) /* nested: everything on the current stack */
        set_gate_type(vector, KCS, TYPE_INTERRUPT_GATE, 0);
    nmi_depth = nmi_deepest = 0;
    send_nmi();
    pause_a_little();
    say(" count=%d before-iret=%d deepest=%d", counts[NMI], nmi_in_handler, nmi_deepest);
    done();
}

static void nmis(void)
{
    begin("nmi-with-if-0");
    expect_vector(NMI);
    handlers[NMI] = nmi_handler;
    counts[NMI] = 5;
    send_nmi();
    for (volatile unsigned i = 0; i < 1000; i++)
        ;
    say(" %d", counts[NMI]);
    done();

    begin("nmi-blocked-until-iret");
    expect_vector(NMI);
    handlers[NMI] = nmi_handler;
    nmi_depth = nmi_deepest = 0;
    send_nmi();
    for (volatile unsigned i = 0; i < 1000; i++)
        ;
    say(" count=%d in-handler=%d deepest=%d", counts[NMI], nmi_in_handler, nmi_deepest);
    done();

    /* an exception's IRET inside the handler unblocks, even one that faults (SDM Vol. 3A 6.7.1) */
    nested_nmi("nmi-unblocked-by-an-exception", nmi_with_exception);
    nested_nmi("nmi-unblocked-by-a-faulting-iret", nmi_with_faulting_iret);
}

/* ---- Timers of the local APIC ---- */

static void apic_timer(void)
{
    begin("apic-timer-one-shot");
    expect_vector(0x50);
    *apic(APIC_TIMER) = 0x50;
    *apic(APIC_COUNT) = 1000;
    say(" arrived=%d", (word)wait_count(0x50, 1));
    wait_ticks(100000);
    open_window();
    say(" count=%d current=%x", counts[0x50], (word)*apic(APIC_CURRENT));
    done();

    begin("apic-timer-periodic");
    reset_apic();
    expect_vector(0x50);
    *apic(APIC_TIMER) = PERIODIC | 0x50;
    *apic(APIC_COUNT) = 200000;
    say(" five=%d", (word)wait_count(0x50, 5));
    *apic(APIC_COUNT) = 0;
    {
        word seen = counts[0x50];

        open_window();
        seen = counts[0x50];
        wait_ticks(1000000);
        open_window();
        say(" stopped=%d", (word)(counts[0x50] == seen));
    }
    done();

    begin("apic-timer-masked");
    reset_apic();
    expect_vector(0x50);
    *apic(APIC_TIMER) = MASKED | 0x50;
    *apic(APIC_COUNT) = 1000;
    while (*apic(APIC_CURRENT))
        ;
    open_window();
    say(" count=%d", counts[0x50]);
    done();

    begin("apic-timer-counts-down");
    reset_apic();
    *apic(APIC_COUNT) = 0xffffffff;
    {
        u32 a = *apic(APIC_CURRENT), b;

        do
            b = *apic(APIC_CURRENT);
        while (b == a);
        say(" %d", (word)(b < a && a <= 0xffffffff));
    }
    *apic(APIC_COUNT) = 0;
    say(" stopped=%x", (word)*apic(APIC_CURRENT));
    done();

    begin("apic-timer-wakes-hlt");
    reset_apic();
    *apic(APIC_TIMER) = 0x53;
    *apic(APIC_COUNT) = 200000;
    {
        struct regs in = { DEFAULTS, .mode = KERNEL }, out;

        run(CODE("sti; hlt; nop"), &in, &out);
        say(" %s %x ip+%x", event_name(out.vector), out.vector, out.rip - in.rip);
    }
    *apic(APIC_EOI) = 0;
    done();

    begin("apic-timer-interrupts-a-user-loop");
    reset_apic();
    *apic(APIC_TIMER) = 0x53;
    *apic(APIC_COUNT) = 200000;
    {
        struct regs in = { DEFAULTS, .mode = USER, .rflags = 2 | IF }, out;

        run(CODE("1: jmp 1b"), &in, &out);
        say(" %s %x ip+%x cs=%x", event_name(out.vector), out.vector, out.rip - in.rip, out.cs);
    }
    *apic(APIC_EOI) = 0;
    done();

    begin("apic-timer-interrupts-rep-stos");
    reset_apic();
    map(FREE, FREE_FRAME, P | W);
    {
        struct regs in = { DEFAULTS, .mode = KERNEL, .rflags = 2 | IF }, out;
        word fine = 1, rounds = 0, without_rf = 0;

        for (; rounds < 5; rounds++) {
            in.rdi = 0x1800000;
            in.rcx = 0x2000000;
            in.rip = in.rsp = 0;
            *apic(APIC_TIMER) = 0x53;
            *apic(APIC_COUNT) = 300000 * (u32)(rounds + 1);
            run(CODE("rep stosb; jmp $"), &in, &out);
            fine &= out.rdi - 0x1800000 == 0x2000000 - out.rcx;
            without_rf += out.rcx != 0 && out.rcx != 0x2000000 && !(out.rflags & RF);
            *apic(APIC_EOI) = 0;
        }
        say(" consistent=%d without-rf=%d", fine, without_rf);
    }
    done();

    begin("apic-timer-interrupts-loop-of-indirect-jumps");
    reset_apic();
    *apic(APIC_TIMER) = 0x53;
    *apic(APIC_COUNT) = 200000;
    {
        struct regs out = RUN(KERNEL, "lea rax, [rip+1f]; 1: jmp rax", .rflags = 2 | IF);

        say(" %s %x", event_name(out.vector), out.vector);
    }
    *apic(APIC_EOI) = 0;
    done();

    begin("apic-timer-interrupts-pop-rsp-ret-loop");
    reset_apic();
    *apic(APIC_TIMER) = 0x53;
    *apic(APIC_COUNT) = 200000;
    for (unsigned i = 0; i < 4; i++)
        *FRAME64(STACK_FRAME + 0x1000 + 8 * i) = i & 1 ? CODE_PAGE : STACK + 0x1008;
    {
        struct regs out = RUN(USER, "1: pop rsp; ret", .rflags = 2 | IF, .rsp = USTACK + 0x1000);

        (void)out;
    }
    say(" done");
    *apic(APIC_EOI) = 0;
    reset_apic();
    /* on a slow host the interrupt may have come before the loop, and wait in the IRR: not for the next case */
    expect_vector(0x53);
    open_window();
    done();
}

static void deadline_timer(void)
{
    static const char *const names[] = { "tsc-deadline", "tsc-deadline-in-the-past", "tsc-deadline-disarm",
                                         "tsc-deadline-other-mode" };

    if (!has_leaf1_c(24)) {
        for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
            absent(names[i], "TSC deadline");
        return;
    }
    begin(names[0]);
    reset_apic();
    expect_vector(0x50);
    *apic(APIC_TIMER) = DEADLINE | 0x50;
    {
        u64 deadline = rdtsc() + 1000000;

        wrmsr(0x6e0, deadline);
        say(" armed=%d", (word)(rdmsr(0x6e0) == deadline));
        say(" arrived=%d", (word)wait_count(0x50, 1));
        say(" early=%d msr=%X current=%x", (word)(rdtsc() < deadline), rdmsr(0x6e0), (word)*apic(APIC_CURRENT));
    }
    done();
    begin(names[1]);
    expect_vector(0x50);
    *apic(APIC_TIMER) = DEADLINE | 0x50;
    wrmsr(0x6e0, 1);
    say(" arrived=%d", (word)wait_count(0x50, 1));
    done();
    begin(names[2]);
    expect_vector(0x50);
    *apic(APIC_TIMER) = DEADLINE | 0x50;
    wrmsr(0x6e0, rdtsc() + 3000000);
    wrmsr(0x6e0, 0);
    for (u64 start = rdtsc(); rdtsc() - start < 6000000;)
        open_window();
    say(" %d", counts[0x50]);
    done();
    begin(names[3]);
    *apic(APIC_TIMER) = 0x50;
    wrmsr(0x6e0, rdtsc() + 1000000);
    say(" %X", rdmsr(0x6e0));
    reset_apic();
    done();
}

static void x2apic(void)
{
    static const char *const names[] = { "x2apic", "x2apic-back-to-xapic", "x2apic-register-not-there",
                                         "x2apic-reserved-bits", "x2apic-mmio-is-off" };

    if (!has_leaf1_c(21)) {
        for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
            absent(names[i], "x2APIC");
        return;
    }
    wrmsr(MSR_APIC_BASE, 0xfee00d00);
    begin(names[0]);
    expect_vector(0x51);
    say(" id=%X", rdmsr(0x802));
    wrmsr(0x80f, 0x1ff);
    /* count() acknowledges through the registers in memory, which are off now */
    wrmsr(0x83f, 0x51);
    say(" irr=%d", (word)(rdmsr(0x820 + 2) >> (0x51 % 32) & 1));
    {
        struct regs out;

        handlers[0x51] = 0;
        out = RUN(KERNEL, "nop", .rflags = 2 | IF);
        say(" %s %x", event_name(out.vector), out.vector);
        wrmsr(0x80b, 0);
    }
    done();
    TRY(names[1], KERNEL, "wrmsr", .rcx = MSR_APIC_BASE, .rax = 0xfee00900, .rdx = 0);
    TRY(names[2], KERNEL, "rdmsr", .rcx = 0x80e);
    TRY(names[3], KERNEL, "wrmsr", .rcx = 0x80b, .rax = 1, .rdx = 0);
    begin(names[4]);
    {
        struct regs out = RUN(KERNEL, "mov eax, [rbx]", .rbx = 0xfee00030);

        say(" %s", event_name(out.vector));
    }
    wrmsr(MSR_APIC_BASE, 0xfee00000);
    wrmsr(MSR_APIC_BASE, 0xfee00900);
    reset_apic();
    done();
}

static void tsc(void)
{
    begin("tsc-write-and-adjust");
    {
        u64 a = rdtsc(), b = rdtsc();

        say(" monotonic=%d", (word)(b > a));
        wrmsr(0x10, BIT(60));
        b = rdtsc();
        say(" written=%d", (word)(b >= BIT(60) && b < BIT(61)));
        wrmsr(0x10, a);
    }
    done();
}

void cases(void)
{
    reset_interrupt_controllers();
    apic_registers();
    ipis();
    nesting();
    recognition();
    nmis();
    apic_timer();
    deadline_timer();
    x2apic();
    tsc();
}
