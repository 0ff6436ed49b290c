/* Delivery of exceptions and software interrupts in long mode: gates and code segments that are wrong, error codes,
 * double faults, IST, the stack switch through the TSS, and the ways back by IRET. SDM Vol. 3A 6.13 to 6.15; Vol. 2A
 * INT n, IRET. */
#include "guest.h"

/* ---- Gates ---- */

static void software_interrupts(void)
{
    TRY("int3-user", USER, "int3");
    TRY("int-3-long-form-user", USER, ".byte 0xcd, 3");
    TRY("int1-user", USER, ".byte 0xf1");
    TRY("int-plain-user", USER, "int 0x45");
    TRY("int-plain-kernel", KERNEL, "int 0x45");
    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    TRY("int-user-allowed", USER, "nop; int 0x45");
    set_gate_type(BP, KCS, TYPE_INTERRUPT_GATE, 1);
    TRY("int3-user-gate-dpl-0", USER, "int3");
    set_gate_type(DB, KCS, TYPE_INTERRUPT_GATE, 1);
    TRY("int1-ignores-gate-dpl", USER, ".byte 0xf1");
    TRY("int-1-checks-gate-dpl", USER, ".byte 0xcd, 1");
    TRY("int-14-user-gate-dpl-0", USER, "int 14");
    set_gate_type(0x45, KCS, 0x60 | 0x0e, 0);
    TRY("int-gate-not-present", USER, "int 0x45");
    set_gate_type(0x45, KCS, 0x0e, 0);
    TRY("int-gate-dpl-before-presence", USER, "int 0x45");
    set_gate_type(0x45, KCS, 0x60 | 0x85, 0);
    TRY("int-gate-type-task", USER, "int 0x45");
    set_gate_type(0x45, KCS, 0x60 | 0x8c, 0);
    TRY("int-gate-type-call", USER, "int 0x45");
    set_gate_type(0x45, KCS, 0x60 | 0x86, 0);
    TRY("int-gate-type-16-bit", USER, "int 0x45");
    set_gate_type(0x45, KCS, 0x60 | 0x9e, 0);
    TRY("int-gate-s-bit", USER, "int 0x45");
    load_idt(0x45 * 16 - 1);
    TRY("int-beyond-idt-limit", USER, "int 0x45");
    load_idt(0x45 * 16 + 14);
    TRY("int-partly-beyond-idt-limit", USER, "int 0x45");
}

static void gate_code_segments(void)
{
    set_gate_type(0x45, 0, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-null-selector", KERNEL, "int 0x45");
    set_gate_type(0x45, 3, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-null-selector-rpl-3", KERNEL, "int 0x45");
    set_gate_type(0x45, 0x1008, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-selector-beyond-gdt", KERNEL, "int 0x45");
    set_gate_type(0x45, KCS | 4, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-selector-in-absent-ldt", KERNEL, "int 0x45");
    set_gate_type(0x45, KDS, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-data-segment", KERNEL, "int 0x45");
    set_gate_type(0x45, UCS, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-code-dpl-above-cpl", KERNEL, "int 0x45");
    set_gate_type(0x45, KCS32, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-code-not-64-bit", KERNEL, "int 0x45");
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x1b, FLAG_G | FLAG_L);
    set_gate_type(0x45, SCRATCH, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-code-not-present", KERNEL, "int 0x45");
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, TYPE_CODE, FLAG_G | FLAG_L | FLAG_D);
    set_gate_type(0x45, SCRATCH, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-code-l-and-d", KERNEL, "int 0x45");
    gdt[SCRATCH / 8] = descriptor(0, 0, TYPE_CODE, FLAG_L);
    set_gate_type(0x45, SCRATCH, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-code-limit-is-ignored", KERNEL, "int 0x45");
    set_gate(0x45, (word)NON_CANONICAL, KCS, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-offset-noncanonical", KERNEL, "int 0x45");
    set_gate_type(0x45, KCS | 3, TYPE_INTERRUPT_GATE, 0);
    TRY("gate-selector-rpl-is-ignored", KERNEL, "int 0x45");
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, TYPE_CODE & ~1, FLAG_G | FLAG_L);
    set_gate_type(0x45, SCRATCH, TYPE_INTERRUPT_GATE, 0);
    OPEN("gate-code-accessed-bit", KERNEL, "int 0x45");
    say(" type=%x", (word)(gdt[SCRATCH / 8] >> 40 & 0xff));
    done();
}

/* ---- Exceptions whose delivery fails: SDM Vol. 3A tables 6-4 and 6-5 ---- */

static void double_faults(void)
{
    set_gate_type(UD, KCS, 0x0e, 1);
    TRY("fault-ud-then-np", KERNEL, "ud2");
    set_gate_type(GP, KCS, 0x0e, 1);
    TRY("fault-gp-then-np", KERNEL, "mov cr4, rax", .rax = BIT(63));
    set_gate_type(GP, KCS, 0x0e, 1);
    TRY("fault-gp-then-np-user", USER, "hlt");
    set_gate_type(DE, KCS, 0x0e, 1);
    TRY("fault-de-then-np", USER, "div rcx", .rcx = 0);
    set_gate_type(PG, KCS, 0x0e, 1);
    TRY("fault-pf-then-np", USER, "mov al, [rax]", .rax = HOLE);
    set_gate_type(PG, 0, TYPE_INTERRUPT_GATE, 1);
    TRY("fault-pf-then-gp", USER, "mov al, [rax]", .rax = HOLE);
    set_gate_type(NM, KCS, 0x0e, 1);
    write_cr0(read_cr0() | CR0_TS);
    TRY("fault-nm-then-np", USER, "fnop");
    set_gate_type(BP, KCS, 0x60 | 0x0e, 1);
    TRY("fault-bp-then-np", USER, "int3");
    set_gate_type(NP, KCS, 0x0e, 1);
    set_gate_type(UD, KCS, 0x0e, 1);
    TRY("fault-ud-then-np-then-np", KERNEL, "ud2");
    /* the stack of the handler is not there: #PF during #GP is not a double fault, #PF during #PF is */
    __builtin_memcpy(tss + 0x24 + 8 * 2, &(u64){ HOLE }, 8);
    set_gate_type(GP, KCS, TYPE_INTERRUPT_GATE, 3);
    TRY("fault-gp-then-pf", KERNEL, "mov cr4, rax", .rax = BIT(63));
    __builtin_memcpy(tss + 0x24 + 8 * 2, &(u64){ HOLE }, 8);
    set_gate_type(PG, KCS, TYPE_INTERRUPT_GATE, 3);
    TRY("fault-pf-then-pf", USER, "mov al, [rax]", .rax = HOLE + PAGE);
    __builtin_memcpy(tss + 0x24 + 8 * 2, &(u64){ HOLE }, 8);
    set_gate_type(UD, KCS, TYPE_INTERRUPT_GATE, 3);
    TRY("fault-ud-then-pf", USER, "ud2");
    __builtin_memcpy(tss + 0x24 + 8 * 2, &(u64){ HOLE }, 8);
    set_gate_type(UD, KCS, TYPE_INTERRUPT_GATE, 3);
    set_gate_type(PG, KCS, 0x0e, 1);
    TRY("fault-ud-then-pf-then-np", USER, "ud2");
}

/* ---- Stack switching: SDM Vol. 3A 6.14.2 to 6.14.5 ---- */

static word top_of_frame(const struct regs *out)
{
    return out->frame + 40; /* SS, RSP, RFLAGS, CS, RIP */
}

static u64 tss64(unsigned offset)
{
    u64 value;

    __builtin_memcpy(&value, tss + offset, 8);
    return value;
}

static void stacks(void)
{
    struct regs out;

    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    out = OPEN("stack-from-user-is-rsp0", USER, "int 0x45");
    say(" rsp0=%d", (word)(top_of_frame(&out) == tss64(4)));
    done();
    out = OPEN("stack-from-kernel-is-current", KERNEL, "push rax; int 0x45");
    say(" frame=%x", STACK_TOP - out.frame);
    done();
    set_gate_type(0x45, KCS, TYPE_INTERRUPT_GATE, 0);
    out = OPEN("stack-is-aligned-to-16", KERNEL, "int 0x45", .rsp = STACK_TOP - 3);
    say(" frame=%x", STACK_TOP - out.frame);
    done();
    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 2);
    out = OPEN("stack-ist-2-from-user", USER, "int 0x45");
    say(" ist=%d", (word)(top_of_frame(&out) == tss64(0x2c)));
    done();
    set_gate_type(0x45, KCS, TYPE_INTERRUPT_GATE, 2);
    out = OPEN("stack-ist-2-from-kernel", KERNEL, "int 0x45");
    say(" ist=%d", (word)(top_of_frame(&out) == tss64(0x2c)));
    done();
    __builtin_memcpy(tss + 4, &(u64){ STACK_TOP - 5 }, 8);
    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    out = OPEN("stack-rsp0-is-aligned", USER, "int 0x45");
    say(" frame=%x", STACK_TOP - out.frame);
    done();
    __builtin_memcpy(tss + 4, &(u64){ NON_CANONICAL + 16 }, 8);
    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    TRY("stack-rsp0-noncanonical", USER, "int 0x45");
    __builtin_memcpy(tss + 4, &(u64){ HOLE }, 8);
    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    TRY("stack-rsp0-absent-page", USER, "int 0x45");
    __builtin_memcpy(tss + 4, &(u64){ UDATA + PAGE }, 8);
    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    TRY("stack-rsp0-user-page-is-allowed", USER, "int 0x45");
    if (has_leaf7_b(20)) {
        __builtin_memcpy(tss + 4, &(u64){ UDATA + PAGE }, 8);
        set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
        write_cr4(read_cr4() | CR4_SMAP);
        TRY("stack-rsp0-user-page-smap", USER, "int 0x45");
    } else {
        absent("stack-rsp0-user-page-smap", "SMAP");
    }
    __builtin_memcpy(tss + 4, &(u64){ STACK }, 8);
    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    TRY("stack-rsp0-runs-into-absent-page", USER, "int 0x45");
    gdt[TSS_SELECTOR / 8] = descriptor((u32)(word)tss, 0x0a, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
    /* no IST either: everything on the current stack, for this case only in the kernel */
    for (unsigned vector = 0; vector < VECTOR_PLAIN; vector++)
        set_gate_type(vector, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    set_gate_type(0x45, KCS, TYPE_INTERRUPT_GATE, 1);
    TRY("stack-ist-beyond-tss-limit", KERNEL, "int 0x45");
    TRY("stack-frame-to-absent-page-kernel", KERNEL, "int 0x45", .rsp = STACK + 8);
    set_gate_type(0x45, KCS, TYPE_INTERRUPT_GATE, 0);
    TRY("stack-frame-noncanonical-kernel", KERNEL, "int 0x45", .rsp = NON_CANONICAL + 16);
    TRY("stack-frame-below-high-half", KERNEL, "int 0x45", .rsp = HIGH_START);
    set_gate_type(UD, KCS, TYPE_INTERRUPT_GATE, 0);
    TRY("stack-ud-with-noncanonical-stack", KERNEL, "ud2", .rsp = NON_CANONICAL + 64);
    set_gate_type(PG, KCS, TYPE_INTERRUPT_GATE, 0);
    TRY("stack-pf-with-absent-stack", KERNEL, "mov al, [rax]", .rsp = HOLE, .rax = HOLE + 64);
}

/* What the frame holds and what the handler starts with. */
static void frames(void)
{
    struct regs out;
    const volatile u64 *frame;

    out = OPEN("frame-of-page-fault", USER, "mov [rax], al", .rax = HOLE + 5, .rflags = 2 | CF | OF | DF);
    frame = (const volatile u64 *)(out.frame - 8);
    say(" error=%x cs=%x flags=%x rsp=%x ss=%x", (word)frame[0], (word)frame[2], (word)(frame[3] & ~(u64)RF),
        (word)frame[4], (word)frame[5]);
    done();
    out = OPEN("frame-rf-of-fault-is-1", USER, "ud2", .show = RF);
    done();
    out = OPEN("frame-rf-of-page-fault-is-1", USER, "mov al, [rax]", .rax = HOLE, .show = RF);
    done();
    out = OPEN("frame-rf-of-trap-is-0", USER, "int3", .show = RF);
    done();
    out = OPEN("frame-rf-of-int-n-is-0", USER, "int 0x40", .show = RF);
    done();
    out = OPEN("frame-selectors-upper-bits-zero", USER, "int3");
    frame = (const volatile u64 *)out.frame;
    say(" %x %x", (word)frame[1], (word)frame[4]);
    done();
}

static word seen_flags, seen_ss, seen_cs;

static void see_handler_state(struct regs *regs)
{
    (void)regs;
    __asm__ volatile("pushfq; popq %0; movl %%ss, %k1; movl %%cs, %k2"
                     : "=r"(seen_flags), "=r"(seen_ss), "=r"(seen_cs));
}

static void handler_state(void)
{
    handlers[0x45] = see_handler_state;
    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    OPEN("handler-state-interrupt-gate", USER, "int 0x45", .rflags = 2 | IF | DF | NT | AC | IOPL3 | ID);
    say(" ss=%x cs=%x if=%d nt=%d ac=%d tf=%d", seen_ss, seen_cs, seen_flags >> 9 & 1, seen_flags >> 14 & 1,
        seen_flags >> 18 & 1, seen_flags >> 8 & 1);
    done();
    handlers[0x45] = see_handler_state;
    set_gate_type(0x45, KCS, 0x60 | TYPE_TRAP_GATE, 0);
    OPEN("handler-state-trap-gate", USER, "int 0x45", .rflags = 2 | IF | NT);
    say(" ss=%x cs=%x if=%d nt=%d", seen_ss, seen_cs, seen_flags >> 9 & 1, seen_flags >> 14 & 1);
    done();
    handlers[0x45] = see_handler_state;
    set_gate_type(0x45, KCS, TYPE_INTERRUPT_GATE, 0);
    OPEN("handler-state-same-level", KERNEL, "int 0x45", .rflags = 2 | ID);
    say(" ss=%x cs=%x", seen_ss, seen_cs);
    done();
}

/* ---- IRET ---- */

/* Pushes SS, RSP, RFLAGS, CS, RIP from rax, rbx, rcx, rdx, rsi. */
#define FRAME_AND_IRETQ "push rax; push rbx; push rcx; push rdx; push rsi; iretq; nop"

static void iret(void)
{
    TRY("iret-to-user", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2 | CF, .rdx = UCS | 3,
        .rsi = UCODE_PAGE + 8, .show = CF);
    TRY("iret-to-user-compat", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS32 | 3,
        .rsi = UCODE_PAGE + 8);
    TRY("iret-rip-noncanonical", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3,
        .rsi = NON_CANONICAL);
    TRY("iret-rip-noncanonical-kernel", KERNEL, FRAME_AND_IRETQ, .rax = KDS, .rbx = STACK_TOP, .rcx = 2, .rdx = KCS,
        .rsi = NON_CANONICAL);
    TRY("iret-rsp-noncanonical-is-loaded", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = NON_CANONICAL, .rcx = 2,
        .rdx = UCS | 3, .rsi = UCODE_PAGE + 8);
    TRY("iret-null-cs", KERNEL, FRAME_AND_IRETQ, .rax = KDS, .rbx = STACK_TOP, .rcx = 2, .rdx = 0,
        .rsi = CODE_PAGE + 8);
    TRY("iret-null-cs-rpl-3", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = 3, .rsi = 0);
    TRY("iret-data-cs", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UDS | 3, .rsi = 0);
    TRY("iret-cs-dpl-not-rpl", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = KCS | 3,
        .rsi = 0);
    TRY("iret-cs-beyond-gdt", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = 0x1003,
        .rsi = 0);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x7b, FLAG_G | FLAG_L);
    TRY("iret-cs-not-present", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = SCRATCH | 3,
        .rsi = 0);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x60 | TYPE_CODE, FLAG_G | FLAG_L | FLAG_D);
    TRY("iret-cs-l-and-d", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = SCRATCH | 3,
        .rsi = 0);
    TRY("iret-user-null-ss", KERNEL, FRAME_AND_IRETQ, .rax = 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3,
        .rsi = UCODE_PAGE + 8);
    TRY("iret-kernel-null-ss", KERNEL, FRAME_AND_IRETQ, .rax = 0, .rbx = STACK_TOP, .rcx = 2, .rdx = KCS,
        .rsi = CODE_PAGE + 8);
    TRY("iret-kernel-null-ss-wrong-rpl", KERNEL, FRAME_AND_IRETQ, .rax = 3, .rbx = STACK_TOP, .rcx = 2, .rdx = KCS,
        .rsi = CODE_PAGE + 8);
    TRY("iret-ss-rpl-not-cs-rpl", KERNEL, FRAME_AND_IRETQ, .rax = KDS, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3,
        .rsi = UCODE_PAGE + 8);
    TRY("iret-ss-dpl-not-cs-rpl", KERNEL, FRAME_AND_IRETQ, .rax = KDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3,
        .rsi = UCODE_PAGE + 8);
    TRY("iret-ss-is-code", KERNEL, FRAME_AND_IRETQ, .rax = UCS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3,
        .rsi = UCODE_PAGE + 8);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x71, FLAG_G | FLAG_D);
    TRY("iret-ss-read-only", KERNEL, FRAME_AND_IRETQ, .rax = SCRATCH | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3,
        .rsi = UCODE_PAGE + 8);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x73, FLAG_G | FLAG_D);
    TRY("iret-ss-not-present", KERNEL, FRAME_AND_IRETQ, .rax = SCRATCH | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3,
        .rsi = UCODE_PAGE + 8);
    TRY("iret-nt-in-long-mode", KERNEL, FRAME_AND_IRETQ, .rax = KDS, .rbx = STACK_TOP, .rcx = 2, .rdx = KCS,
        .rsi = CODE_PAGE + 8, .rflags = 2 | NT);
    TRY("iret-flags-vm-is-ignored", KERNEL, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2 | VM,
        .rdx = UCS | 3, .rsi = UCODE_PAGE + 8);
    TRY("iret-user-cannot-set-iopl-if", USER, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP,
        .rcx = 2 | IOPL3 | IF | AC | ID | NT, .rdx = UCS | 3, .rsi = UCODE_PAGE + 8);
    TRY("iret-user-iopl-3-sets-if", USER, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2 | IF,
        .rdx = UCS | 3, .rsi = UCODE_PAGE + 8, .rflags = 2 | IOPL3);
    TRY("iret-user-to-compat", USER, FRAME_AND_IRETQ, .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS32 | 3,
        .rsi = UCODE_PAGE + 8);
    TRY("iret-user-to-kernel", USER, FRAME_AND_IRETQ, .rax = KDS, .rbx = STACK_TOP, .rcx = 2, .rdx = KCS,
        .rsi = CODE_PAGE + 8);
    TRY("iret-stack-noncanonical", KERNEL, "iretq", .rsp = NON_CANONICAL);
    TRY("iret-stack-absent", KERNEL, "iretq", .rsp = HOLE);
    TRY("iret-stack-partly-absent", KERNEL, "iretq", .rsp = STACK + 4 * PAGE - 16);
    TRY("iretd-in-64-bit-code", KERNEL,
        "sub rsp, 20; mov [rsp], esi; mov [rsp+4], edx; mov [rsp+8], ecx; mov [rsp+12], ebx; mov [rsp+16], eax; iretd; "
        "nop",
        .rax = UDS | 3, .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3, .rsi = UCODE_PAGE + 24);
    TRY("retf-to-compat", KERNEL, "push rdx; push rsi; .byte 0x48, 0xcb; nop", .rdx = KCS32, .rsi = CODE_PAGE + 4);
}

/* Data segments that the outer level may not use are null after a return to it (SDM Vol. 2A IRET, Vol. 3A 5.8.6). */
static void iret_data_segments(void)
{
    struct regs out =
        OPEN("iret-nulls-inner-data-segments", KERNEL, "mov ds, ebp; mov es, edi;" FRAME_AND_IRETQ, .rax = UDS | 3,
             .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3, .rsi = UCODE_PAGE + 12, .rbp = KDS, .rdi = UDS);

    say(" ds=%x es=%x", out.ds & 0xffff, out.es & 0xffff);
    done();
}

void cases(void)
{
    software_interrupts();
    gate_code_segments();
    double_faults();
    stacks();
    frames();
    handler_state();
    iret();
    iret_data_segments();
}
