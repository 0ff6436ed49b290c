/* Guests that never end, chosen by the command line ("loop=NAME"): whatever one does, the emulator must still
 * obey its user. Each says "running" first. */
#include "guest.h"

static volatile u32 *apic(unsigned offset)
{
    return FRAME32(0xfee00000 + offset);
}

static void storm(struct regs *regs)
{
    if (regs->vector >= 32)
        *apic(0xb0) = 0;
    if (regs->vector == 0x51)
        *apic(0x300) = 1 << 18 | 0x51; /* and again */
    if (regs->vector == NMI)
        *apic(0x300) = 4 << 8;
}

static void nothing(struct regs *regs)
{
    (void)regs;
}

#define LOOP(id, ...)                                                                                                  \
    static void loop_##id(void)                                                                                        \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

LOOP(self_jump, __asm__ volatile("1: jmp 1b");)
LOOP(halt, for (;;) __asm__ volatile("cli; hlt");)
LOOP(halt_open, for (;;) __asm__ volatile("sti; hlt");)
LOOP(rep_stos_nowhere, for (;;) __asm__ volatile("rep stosb" : : "D"(NOWHERE), "c"(0x20000000ul), "a"(0) : "memory");)
LOOP(rep_stos_ram, for (;;) __asm__ volatile("rep stosq" : : "D"(FRAMES), "c"(0x200000ul), "a"(0) : "memory");)
LOOP(rep_movs_apic, for (;;) __asm__ volatile("rep movsl"
                                              :
                                              : "D"(0xfed00000ul), "S"(0xfed00000ul), "c"(0x100ul)
                                              : "memory");)
LOOP(rep_lods, for (;;) __asm__ volatile("rep lodsb" : : "S"(NOWHERE), "c"(0x20000000ul) : "rax");)
LOOP(rep_scas, for (;;) __asm__ volatile("repe scasb" : : "D"(NOWHERE), "c"(0x20000000ul), "a"(0xff));)
LOOP(rep_outs, for (;;) __asm__ volatile("rep outsb" : : "S"(0ul), "c"(0x3000000ul), "d"(0x80));)
LOOP(rep_ins, for (;;) __asm__ volatile("rep insb" : : "D"(FRAMES), "c"(0x3000000ul), "d"(0x2c0) : "memory");)
LOOP(
    rep_nowhere_in_page_tables, for (;;) {
        *pde(FREE) = NOWHERE | P | W;
        flush_tlb();
        RUN(KERNEL, "mov al, [rbx]", .rbx = FREE);
    })
LOOP(pop_rsp_ret,
     RUN(KERNEL,
         "lea rax, [rip+1f]; mov [rbx+8], rax; mov [rbx], rbx; add qword ptr [rbx], 8; mov [rbx+16], rbx; mov rsp, rbx;"
         "1: lea rsp, [rbx]; pop rsp; jmp 2f; 2: ret",
         .rbx = STACK + 0x100);)
LOOP(indirect_jumps, __asm__ volatile("lea 1f(%%rip), %%rax; 1: jmp *%%rax" : : : "rax");)
LOOP(undefined, handlers[UD] = nothing; for (;;) __asm__ volatile("ud2");)
LOOP(page_fault, handlers[PG] = nothing; for (;;) * (volatile u8 *)HOLE = 0;)
LOOP(single_step, handlers[DB] = nothing; __asm__ volatile("pushq $0x102; popfq; 1: jmp 1b");)
LOOP(interrupt, handlers[0x51] = storm; *apic(0xf0) = 0x1ff; *apic(0x300) = 1 << 18 | 0x51;
     for (;;) __asm__ volatile("sti; nop");)
LOOP(nmi, handlers[NMI] = storm; *apic(0xf0) = 0x1ff; *apic(0x300) = 4 << 8; for (;;);)
LOOP(timer, handlers[0x50] = storm; *apic(0xf0) = 0x1ff; *apic(0x3e0) = 0xb; *apic(0x320) = 1 << 17 | 0x50;
     *apic(0x380) = 1; for (;;) __asm__ volatile("sti; nop");)
LOOP(self_modifying, RUN(KERNEL, "1: inc byte ptr [rip+2f+1]; 2: mov al, 0; jmp 1b");)
LOOP(
    invalidation, for (;;) {
        flush_tlb();
        write_cr3(read_cr3());
        __asm__ volatile("invlpg 0");
    })
LOOP(debug_output, for (;;) outb(0xe9, 'x');)
LOOP(serial_output, for (;;) outb(0x3f8, 'x');)
LOOP(hpet_storm, *FRAME64(0xfed00100) = 1 << 2 | 1 << 3 | 1 << 6 | 1 << 1; *FRAME64(0xfed00108) = 1;
     *FRAME64(0xfed00010) = 3; for (;;) __asm__ volatile("pause");)
LOOP(pit_storm, outb(0x43, 0x34); outb(0x40, 1); outb(0x40, 0); for (;;) __asm__ volatile("pause");)
LOOP(
    rtc_storm, outb(0x70, 0x0a); outb(0x71, 0x21); outb(0x70, 0x0b); outb(0x71, 0x72); for (;;) {
        outb(0x70, 0x0c);
        inb(0x71);
    })
LOOP(locked_across_pages, map(FREE, FREE_FRAME, P | W); map(FREE + PAGE, FREE_FRAME + PAGE, P | W);
     RUN(KERNEL, "1: lock inc dword ptr [rbx]; jmp 1b", .rbx = FREE + PAGE - 2);)

static const struct {
    const char *name;
    void (*run)(void);
} loops[] = {
#define ROW(id)                                                                                                        \
    {                                                                                                                  \
#id, loop_##id                                                                                                 \
    }
    ROW(self_jump),
    ROW(halt),
    ROW(halt_open),
    ROW(rep_stos_nowhere),
    ROW(rep_stos_ram),
    ROW(rep_movs_apic),
    ROW(rep_lods),
    ROW(rep_scas),
    ROW(rep_outs),
    ROW(rep_ins),
    ROW(rep_nowhere_in_page_tables),
    ROW(pop_rsp_ret),
    ROW(indirect_jumps),
    ROW(undefined),
    ROW(page_fault),
    ROW(single_step),
    ROW(interrupt),
    ROW(nmi),
    ROW(timer),
    ROW(self_modifying),
    ROW(invalidation),
    ROW(debug_output),
    ROW(serial_output),
    ROW(hpet_storm),
    ROW(pit_storm),
    ROW(rtc_storm),
    ROW(locked_across_pages),
};

static int equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return !*a && (!*b || *b == ' ');
}

void cases(void)
{
    const char *at = command_line;

    while (*at && !(at[0] == 'l' && at[1] == 'o' && at[2] == 'o' && at[3] == 'p' && at[4] == '='))
        at++;
    if (*at)
        at += 5;
    if (equal("list", at)) {
        for (unsigned i = 0; i < ARRAY_SIZE(loops); i++)
            say("%s\n", loops[i].name);
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(loops); i++) {
        if (equal(loops[i].name, at)) {
            say("running\n");
            loops[i].run();
        }
    }
}
