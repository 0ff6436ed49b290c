/* A guest that does absurd things in long mode: random contents of control registers, MSRs, descriptors, page tables,
 * devices, and random instructions at every privilege level. Nothing is compared; the emulator has to survive. */
#include "absurd.h"

/* A value that means something to somebody: addresses, bits, edges. */
static u64 interesting(void)
{
    static const u64 values[] = {
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
        0xffff,
        0x10000,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        0x100000000,
        0x7fffffffffffffff,
        0x8000000000000000,
        ~0ull,
        LOW_END,
        LOW_END + 0xfff,
        HIGH_START,
        HIGH_START - 1,
        HIGH_END,
        HIGH_END + 0xffe,
        NON_CANONICAL,
        CODE_PAGE,
        CODE_PAGE + PAGE - 2,
        UCODE_PAGE,
        STACK_TOP,
        USTACK_TOP,
        DATA,
        DATA + PAGE - 3,
        DATA + 4 * PAGE - 4,
        UDATA,
        UDATA + 4 * PAGE - 1,
        HOLE,
        FREE,
        FREE + PAGE - 8,
        NOWHERE,
        FREE_FRAME,
        0xfee00000,
        0xfee000b0,
        0xfee00300,
        0xfee00380,
        0xfec00000,
        0xfec00010,
        0xfed00000,
        0xfed00100,
        0xb0000000,
        0xb00f8000,
        0xa0000,
        0xc0000,
        0xfffffff0,
        0x3f8,
        0x60,
        0xcf8,
        0xcfc,
        0x80000000,
        0x8000f800,
    };

    switch (pick(5)) {
    case 0:
        return random64();
    case 1:
        return BIT(pick(64));
    case 2:
        return CHOOSE(values) + pick(16);
    default:
        return CHOOSE(values);
    }
}

/* ---- State ---- */

static void shake_control(void)
{
    word value;

    switch (pick(9)) {
    case 0:
        value = pick(8) ? shaken(read_cr0()) : random64();
        RUN(KERNEL, "mov cr0, rax", .rax = value);
        break;
    case 1:
        value = pick(8) ? shaken(read_cr4()) : random64();
        RUN(KERNEL, "mov cr4, rax", .rax = value);
        break;
    case 2:
        value = pick(8) ? shaken(read_cr3()) : interesting();
        RUN(KERNEL, "mov cr3, rax", .rax = value);
        break;
    case 3:
        RUN(KERNEL, "mov cr8, rax", .rax = pick(4) ? pick(16) : interesting());
        break;
    case 4:
        RUN(KERNEL, "xsetbv", .rcx = pick(8) == 0, .rax = pick(4) ? shaken(7) : random64(),
            .rdx = pick(2) ? 0 : random64());
        break;
    case 5:
        RUN(KERNEL, "wrmsr", .rcx = MSR_EFER, .rax = shaken(rdmsr(MSR_EFER)), .rdx = pick(4) ? 0 : random64());
        break;
    case 6:
        RUN(KERNEL, "mov dr0, rax; mov dr1, rbx; mov dr7, rcx", .rax = interesting(), .rbx = interesting(),
            .rcx = pick(4) ? random64() & 0xffff03ff : random64());
        break;
    case 7:
        RUN(KERNEL, "mov dr6, rax", .rax = interesting());
        break;
    default:
        RUN(KERNEL, "mov cr2, rax", .rax = interesting());
    }
}

static void shake_msr(void)
{
    static const u32 msrs[] = {
        0x10,       0x1b,       0x3b,       0x48,       0x49,       0x8b,       0xce,       0xfe,       0x10a,
        0x140,      0x174,      0x175,      0x176,      0x179,      0x17a,      0x17b,      0x1a0,      0x1d9,
        0x200,      0x201,      0x20f,      0x250,      0x258,      0x26f,      0x277,      0x2ff,      0x400,
        0x401,      0x427,      0x6e0,      0x802,      0x803,      0x808,      0x80b,      0x80d,      0x80f,
        0x828,      0x82f,      0x830,      0x832,      0x835,      0x838,      0x83e,      0x83f,      0xda0,
        0x11,       0x12,       0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d05, 0x4b564d06,
        0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103,
        0xc0010015, 0xc0011029,
    };
    u64 value = interesting();
    u32 msr = pick(8) ? CHOOSE(msrs) : (u32)interesting();

    if (pick(4))
        RUN(KERNEL, "wrmsr", .rcx = msr, .rax = (u32)value, .rdx = value >> 32);
    else
        RUN(KERNEL, "rdmsr", .rcx = msr);
}

static void shake_descriptors(void)
{
    unsigned slot;

    switch (pick(6)) {
    case 0:
        slot = pick(32);
        gdt[slot] = pick(3) ? shaken(gdt[slot]) : random64();
        break;
    case 1:
        slot = pick(512);
        idt[slot] = pick(3) ? shaken(idt[slot]) : random64();
        break;
    case 2:
        tss[pick(2) ? pick(104) : pick(sizeof(tss))] ^= (u8)BIT(pick(8));
        break;
    case 3:
        RUN(KERNEL, "sub rsp, 16; mov [rsp+6], ax; mov [rsp+8], rbx; lidt [rsp+6]", .rax = pick(2) ? 0xfff : random64(),
            .rbx = pick(2) ? (word)idt : interesting());
        break;
    case 4:
        RUN(KERNEL, "sub rsp, 16; mov [rsp+6], ax; mov [rsp+8], rbx; lgdt [rsp+6]", .rax = pick(2) ? 0xff : random64(),
            .rbx = pick(2) ? (word)gdt : interesting());
        break;
    default:
        RUN(KERNEL, "lldt ax; ltr bx; mov ds, ecx; mov fs, edx", .rax = 8 * pick(32), .rbx = 8 * pick(32),
            .rcx = random64() & 0xff, .rdx = random64() & 0xff);
    }
}

static u64 random_frame(void)
{
    static const u64 devices[] = { 0xfee00000, 0xfec00000, 0xfed00000, 0xb0000000,
                                   0xa0000,    NOWHERE,    0xffff0000, 0x10000000000 };

    if (pick(3))
        return FRAMES + (u64)pick(1024) * PAGE;
    return pick(2) ? CHOOSE(devices) : random64() & 0xffffffffff000ull;
}

static void shake_page_tables(void)
{
    static const u64 addresses[] = { CODE_PAGE, UCODE_PAGE, STACK,   USTACK_TOP - PAGE, DATA,    UDATA,
                                     FREE,      HOLE,       LOW_END, HIGH_START,        HIGH_END };
    u64 address = CHOOSE(addresses), *entry;

    switch (pick(8)) {
    case 0:
        entry = pde(address);
        break;
    case 1:
        entry = pdpte(address);
        break;
    case 2:
        entry = pml4e(address);
        break;
    default:
        entry = pte(address);
    }
    *entry = pick(3) ? shaken(*entry) : random_frame() | (random64() & 0xfff) | (pick(4) ? 0 : NX);
    switch (pick(4)) {
    case 0:
        flush_tlb();
        break;
    case 1:
        __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
        break;
    case 2:
        RUN(KERNEL, "mov [rsp], rbx; mov [rsp+8], rcx; invpcid rax, [rsp]", .rax = pick(5),
            .rbx = pick(4) ? 0 : random64(), .rcx = interesting());
        break;
    }
}

/* ---- Devices ---- */

static void shake_ports(void)
{
    word port = random_port();

    switch (pick(7)) {
    case 0:
        RUN(KERNEL, "in al, dx", .rdx = port);
        break;
    case 1:
        RUN(KERNEL, "in ax, dx", .rdx = port);
        break;
    case 2:
        RUN(KERNEL, "in eax, dx", .rdx = port);
        break;
    case 3:
        RUN(KERNEL, "out dx, al", .rdx = port, .rax = interesting());
        break;
    case 4:
        RUN(KERNEL, "out dx, ax", .rdx = port, .rax = interesting());
        break;
    case 5:
        RUN(KERNEL, "out dx, eax", .rdx = port, .rax = interesting());
        break;
    default:
        RUN(KERNEL, "mov edx, 0xcf8; out dx, eax; mov edx, ecx; mov eax, ebx; out dx, eax; in eax, dx",
            .rax = 0x80000000 | (u32)(pick(2) ? 0xf800 : 0) | (u32)(pick(64) * 4), .rcx = 0xcfc, .rbx = interesting());
    }
}

static void shake_devices(void)
{
    static const u32 bases[] = { 0xfee00000, 0xfec00000, 0xfed00000, 0xb0000000, 0xb00f8000, 0xa0000, 0xfffc0000 };
    word address = CHOOSE(bases) + (pick(2) ? pick(64) * 16 : pick(PAGE));

    switch (pick(6)) {
    case 0:
        RUN(KERNEL, "mov eax, [rbx]", .rbx = address);
        break;
    case 1:
        RUN(KERNEL, "mov rax, [rbx]", .rbx = address);
        break;
    case 2:
        RUN(KERNEL, "mov [rbx], al", .rbx = address, .rax = interesting());
        break;
    case 3:
        RUN(KERNEL, "lock xadd [rbx], rax", .rbx = address, .rax = interesting());
        break;
    case 4:
        RUN(KERNEL, "movups xmm0, [rbx]; movups [rbx+8], xmm0", .rbx = address);
        break;
    default:
        RUN(KERNEL, "mov [rbx], eax", .rbx = address, .rax = interesting());
    }
}

/* Hands the fw_cfg device a random DMA command. */
static void shake_dma(void)
{
    volatile u32 *command = FRAME32(DATA_FRAME);

    command[0] = __builtin_bswap32((u32)(pick(2) ? pick(64) << 16 | pick(32) : random64()));
    command[1] = __builtin_bswap32((u32)(pick(2) ? pick(8192) : interesting()));
    *(volatile u64 *)(command + 2) = __builtin_bswap64(pick(2) ? FREE_FRAME + pick(8192) : interesting());
    outl(0x514, pick(8) ? 0 : (u32)random64());
    outl(0x518, __builtin_bswap32(pick(8) ? DATA_FRAME : (u32)interesting()));
}

/* ---- Instructions ---- */

static void random_instructions(void)
{
    static const word selectors[] = { KCS, UCS | 3, UCS32 | 3, KCS32, 0x4b, 0x53 };
    static const word stacks[] = { KDS, UDS | 3, 0, 3, 0x4b };
    u8 bytes[256];
    unsigned n = put_instructions(bytes);
    struct regs in = { DEFAULTS }, out;

    in.mode = pick(8) ? pick(4) : AS_GIVEN;
    in.cs = CHOOSE(selectors);
    in.ss = CHOOSE(stacks);
    for (unsigned i = 0; i < 16; i++)
        if (i != 4 || !pick(4))
            (&in.rax)[i] = pick(4) ? interesting() : random64() & 0xff;
    if (pick(2))
        in.rflags = 2 | (random64() & 0x3f7fd7 & ~(pick(4) ? (u64)(TF | VM | NT) : 0));
    in.code_at = pick(4) ? 0 : PAGE - 1 - pick(16);
    if (pick(8) == 0) {
        gdt[0x48 / 8] = shaken(gdt[KCS32 / 8]);
        gdt[0x50 / 8] = shaken(gdt[UCS32 / 8]);
    }
    arm_watchdog();
    run((struct code){ bytes, bytes + n }, &in, &out);
}

static void step(int gentle)
{
    switch (gentle ? 3 + pick(16) : pick(16)) {
    case 0:
        shake_control();
        break;
    case 1:
        shake_msr();
        break;
    case 2:
        shake_descriptors();
        break;
    case 3:
        shake_page_tables();
        break;
    case 4:
        shake_ports();
        break;
    case 5:
        shake_devices();
        break;
    case 6:
        shake_dma();
        break;
    case 7:
        standard_state();
        break;
    default:
        random_instructions();
    }
}

void cases(void)
{
    run_rounds(step);
}
