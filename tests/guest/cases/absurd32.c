/* A guest that does absurd things outside long mode: random descriptors, gates and segments, 16-bit and 32-bit code
 * at every level, paging of every kind, real mode. Nothing is compared; the emulator has to survive. */
#include "absurd.h"

static u32 directory[1024] __attribute__((aligned(PAGE)));
static u64 pointers[4] __attribute__((aligned(32)));

static u32 interesting(void)
{
    static const u32 values[] = {
        0,
        1,
        2,
        4,
        8,
        0xf,
        0x10,
        0xff,
        0x100,
        0xfff,
        0x1000,
        0xfffe,
        0xffff,
        0x10000,
        0x7fffffff,
        0x80000000,
        0xfffffffe,
        0xffffffff,
        CODE_PAGE,
        CODE_PAGE + PAGE - 2,
        STACK_TOP,
        USTACK_TOP,
        DATA,
        DATA + PAGE - 3,
        UDATA,
        FREE_FRAME,
        NOWHERE,
        0x40000000,
        0xfee00000,
        0xfee00300,
        0xfec00010,
        0xfed00000,
        0xb0000000,
        0xa0000,
        0x9fffe,
        0xfffff,
        0x100000 - 4,
        0x3fffffe,
    };

    switch (pick(5)) {
    case 0:
        return (u32)random64();
    case 1:
        return (u32)BIT(pick(32));
    case 2:
        return CHOOSE(values) + pick(16);
    default:
        return CHOOSE(values);
    }
}

static u16 random_selector(void)
{
    return (u16)(pick(8) ? 8 * pick(32) + pick(4) + (pick(8) ? 0 : 4) : random64());
}

/* A descriptor that makes some sense. */
static u64 random_descriptor(void)
{
    static const u32 bases[] = { 0, 0, 0, CODE_PAGE, STACK, DATA, 0xfffff000, 0xfee00000 };
    static const u32 limits[] = { 0xfffff, 0xffff, 0xfff, 0xff, 0x10, 0 };

    if (!pick(4))
        return random64();
    return descriptor(CHOOSE(bases), CHOOSE(limits), (u8)(0x80 | pick(128)), (u8)pick(16));
}

static void shake_tables(void)
{
    unsigned slot = 9 + pick(24);

    switch (pick(7)) {
    case 0:
        gdt[pick(32)] = shaken(gdt[pick(32)]);
        break;
    case 1:
        idt[pick(256)] = shaken(idt[pick(256)]);
        break;
    case 2:
        tss[pick(104)] ^= (u8)BIT(pick(8));
        break;
    case 3: /* a gate: call, interrupt, task */
        gdt[slot] = (u64)(CODE_PAGE & 0xffff) | (u64)random_selector() << 16 | (u64)pick(32) << 32 |
                    (u64)(0x80 | pick(4) << 5 | (pick(2) ? 0x0c : pick(16))) << 40 | (u64)(CODE_PAGE >> 16) << 48;
        break;
    case 4:
        RUN(KERNEL, "lldt ax; mov ds, ecx; mov fs, edx", .rax = random_selector(), .rcx = random_selector(),
            .rdx = random_selector());
        break;
    case 5:
        RUN(KERNEL, "ltr ax", .rax = random_selector());
        break;
    default:
        gdt[slot] = random_descriptor();
    }
}

static void shake_control(void)
{
    switch (pick(8)) {
    case 0:
        RUN(KERNEL, "mov cr0, eax", .rax = (word)shaken(read_cr0()));
        break;
    case 1:
        RUN(KERNEL, "mov cr4, eax", .rax = (word)shaken(read_cr4()));
        break;
    case 2:
        RUN(KERNEL, "mov cr3, eax", .rax = interesting());
        break;
    case 3:
        RUN(KERNEL, "wrmsr", .rcx = MSR_EFER, .rax = (word)shaken(rdmsr(MSR_EFER)), .rdx = 0);
        break;
    case 4:
        RUN(KERNEL, "mov dr0, eax; mov dr7, ebx", .rax = interesting(), .rbx = (word)random64() & 0xffff03ff);
        break;
    case 5:
        RUN(KERNEL, "wrmsr", .rcx = MSR_SYSENTER_CS + pick(3), .rax = interesting(), .rdx = 0);
        break;
    default: /* paging with large pages, some of them odd */
        for (unsigned i = 0; i < 1024; i++)
            directory[i] = (i << 22) | P | W | U | PS;
        for (unsigned i = pick(8); i; i--)
            directory[pick(pick(2) ? 16 : 1024)] ^= (u32)BIT(pick(32));
        write_cr4(read_cr4() | CR4_PSE);
        write_cr3((word)directory);
        RUN(KERNEL, "mov eax, cr0; bts eax, 31; mov cr0, eax");
        if (pick(4) == 0) { /* and then as PAE's */
            for (unsigned i = 0; i < 4; i++)
                pointers[i] = (u32)directory | P;
            RUN(KERNEL, "mov cr3, ebx; mov eax, cr4; or eax, 0x20; mov cr4, eax", .rbx = (word)pointers);
        }
    }
}

static void shake_ports(void)
{
    word port = random_port();

    switch (pick(4)) {
    case 0:
        RUN(KERNEL, "in al, dx; in eax, dx", .rdx = port);
        break;
    case 1:
        RUN(KERNEL, "out dx, al", .rdx = port, .rax = interesting());
        break;
    case 2:
        RUN(KERNEL, "out dx, eax", .rdx = port, .rax = interesting());
        break;
    default:
        RUN(KERNEL, "rep insw; mov ecx, 20; rep outsb", .rdx = port, .rcx = pick(100), .rdi = interesting(),
            .rsi = interesting());
    }
}

static void random_instructions(void)
{
    u8 bytes[256];
    unsigned n = put_instructions(bytes);
    struct regs in = { DEFAULTS, .mode = pick(2) }, out;

    if (pick(3) == 0) { /* some code segment, maybe of 16 bits, and some stack */
        gdt[SCRATCH / 8] = descriptor(pick(2) ? 0 : CODE_PAGE, pick(2) ? 0xfffff : 0xfff,
                                      (u8)(0x98 | pick(4) << 5 | pick(8)), (u8)(pick(16) & 0xd));
        gdt[SCRATCH / 8 + 1] = descriptor(pick(2) ? 0 : STACK, pick(2) ? 0xfffff : 0xffff,
                                          (u8)(0x93 | pick(4) << 5 | (pick(4) ? 0 : 4)), (u8)pick(16));
        in.mode = AS_GIVEN;
        in.cs = SCRATCH | (gdt[SCRATCH / 8] >> 45 & 3);
        in.ss = (SCRATCH + 8) | (gdt[SCRATCH / 8] >> 45 & 3);
        if (pick(2))
            in.rip = (CODE_PAGE & 0xfff) + pick(4);
    }
    for (unsigned i = 0; i < 8; i++)
        if (i != 4 || !pick(8))
            (&in.rax)[i] = pick(4) ? interesting() : (word)random64() & 0xff;
    if (pick(2))
        in.rflags = 2 | ((word)random64() & 0x257fd5 & ~(word)(pick(4) ? TF | NT : 0));
    arm_watchdog();
    run((struct code){ bytes, bytes + n }, &in, &out);
}

/* ---- Real mode ----
 *
 * 7000: what loads the segments and jumps to 8000, where the random instructions are; 7800: the way back, which is also
 * the handler of every interrupt. */
extern const u8 real_entry[], real_entry_end[], real_exit[], real_exit_end[];
void enter_real_mode(void); /* absurd32.S */

static void random_real_mode(void)
{
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) table = { GDT_LIMIT, (u32)gdt };
    u8 bytes[256];
    unsigned n = put_instructions(bytes);

    standard_state();
    gdt[SCRATCH / 8] = descriptor(0, 0xffff, TYPE_CODE, 0);
    gdt[SCRATCH / 8 + 1] = descriptor(0, 0xffff, TYPE_DATA, 0);
    for (unsigned i = 0; i < 256; i++)
        *FRAME32(i * 4) = 0x7800;
    for (unsigned i = 0; &real_entry[i] < real_entry_end; i++)
        *FRAME8(0x7000 + i) = real_entry[i];
    for (unsigned i = 0; &real_exit[i] < real_exit_end; i++)
        *FRAME8(0x7800 + i) = real_exit[i];
    for (unsigned i = 0; i < sizeof(table); i++)
        *FRAME8(0x7900 + i) = ((const u8 *)&table)[i];
    for (unsigned i = 0; i < n; i++)
        *FRAME8(0x8000 + i) = bytes[i];
    *FRAME32(0x6000) = 2 | ((u32)random64() & 0x240ed5); /* what POPFD and POPAD take */
    for (unsigned i = 1; i < 9; i++)
        *FRAME32(0x6000 + 4 * i) = interesting();
    arm_watchdog();
    enter_real_mode();
    standard_state();
}

static void step(int gentle)
{
    switch (gentle ? 2 + pick(14) : pick(16)) {
    case 0:
        shake_control();
        break;
    case 1:
        shake_tables();
        break;
    case 2:
        shake_ports();
        break;
    case 3:
        standard_state();
        break;
    case 4:
    case 5:
    case 6:
        random_real_mode();
        break;
    default:
        random_instructions();
    }
}

void cases(void)
{
    run_rounds(step);
}
