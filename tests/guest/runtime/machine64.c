/* The standard state of 64-bit images: descriptor tables, page tables, control registers. SDM Vol. 3A chapters 3 to
 * 5. */
#include "guest.h"

/* 4 GiB of identity mapping in 2 MiB pages, but for [1 GiB, 2 GiB): there the first 8 MiB are the window. */
static u64 pml4[512] __attribute__((aligned(PAGE)));
static u64 pdpt[512] __attribute__((aligned(PAGE)));
static u64 identity[4][512] __attribute__((aligned(PAGE)));
static u64 window_pt[4][512] __attribute__((aligned(PAGE)));
/* one chain of tables for the ends of both halves: entries 0 and 511 of each */
static u64 high_pdpt[512] __attribute__((aligned(PAGE)));
static u64 high_pd[512] __attribute__((aligned(PAGE)));
static u64 high_pt[512] __attribute__((aligned(PAGE)));

u64 gdt[33] __attribute__((aligned(16)));
u64 idt[512] __attribute__((aligned(16)));
u8 tss[104 + 8192 + 1] __attribute__((aligned(16)));
handler_fn *handlers[256];
static u8 trap_stack[2][8192] __attribute__((aligned(16)));
static u8 inner_stack[8192] __attribute__((aligned(16)));
const char *command_line;

extern const u64 exception_stubs[256];
extern struct regs captured;
void enter_probe(const struct regs *in);
void start_image(const u32 *multiboot);

static u64 address_of(const void *pointer)
{
    return (u64)pointer;
}

/* ---- Descriptors ---- */

u64 descriptor(u32 base, u32 limit, u8 type, u8 flags)
{
    return (u64)(base >> 24) << 56 | (u64)flags << 52 | (u64)(limit >> 16 & 15) << 48 | (u64)type << 40 |
           (u64)(base & 0xffffff) << 16 | (limit & 0xffff);
}

void set_gate(unsigned vector, word handler, u16 selector, u8 type, unsigned ist)
{
    idt[vector * 2] =
        (handler & 0xffff) | (u64)selector << 16 | (u64)ist << 32 | (u64)type << 40 | (handler >> 16 & 0xffff) << 48;
    idt[vector * 2 + 1] = handler >> 32;
}

void set_gate_type(unsigned vector, u16 selector, u8 type, unsigned ist)
{
    set_gate(vector, exception_stubs[vector], selector, type, ist);
}

static void load_table(const char *which, const void *base, u16 limit)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) pointer = { limit, address_of(base) };

    if (*which == 'g')
        __asm__ volatile("lgdt %0" : : "m"(pointer));
    else
        __asm__ volatile("lidt %0" : : "m"(pointer));
}

void load_idt(u16 limit)
{
    load_table("idt", idt, limit);
}

static void put64(u8 *at, u64 value)
{
    __builtin_memcpy(at, &value, 8);
}

static void standard_tables(void)
{
    u64 tss_base = address_of(tss);

    for (unsigned i = 0; i < ARRAY_SIZE(gdt); i++)
        gdt[i] = 0;
    gdt[KCS / 8] = descriptor(0, 0xfffff, TYPE_CODE, FLAG_G | FLAG_L);
    gdt[KDS / 8] = descriptor(0, 0xfffff, TYPE_DATA, FLAG_G | FLAG_D);
    gdt[UCS32 / 8] = descriptor(0, 0xfffff, 0x60 | TYPE_CODE, FLAG_G | FLAG_D);
    gdt[UDS / 8] = descriptor(0, 0xfffff, 0x60 | TYPE_DATA, FLAG_G | FLAG_D);
    gdt[UCS / 8] = descriptor(0, 0xfffff, 0x60 | TYPE_CODE, FLAG_G | FLAG_L);
    gdt[KCS32 / 8] = descriptor(0, 0xfffff, TYPE_CODE, FLAG_G | FLAG_D);
    gdt[TSS_SELECTOR / 8] = descriptor((u32)tss_base, TSS_LIMIT, 0x89, 0);
    gdt[TSS_SELECTOR / 8 + 1] = tss_base >> 32;
    load_table("gdt", gdt, GDT_LIMIT);

    for (unsigned i = 0; i < 104; i++)
        tss[i] = 0;
    for (unsigned i = 104; i < sizeof(tss); i++)
        tss[i] = 0xff;
    put64(tss + 4, address_of(inner_stack + sizeof(inner_stack)));
    put64(tss + 0x24, address_of(trap_stack[0] + sizeof(trap_stack[0])));
    put64(tss + 0x2c, address_of(trap_stack[1] + sizeof(trap_stack[1])));
    tss[102] = 104;
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
    __asm__ volatile("lldt %w0" : : "r"(0));

    for (unsigned vector = 0; vector < 256; vector++) {
        int software = vector == VECTOR_DONE || vector == BP || vector == OV;

        set_gate_type(vector, KCS, software ? 0x60 | TYPE_INTERRUPT_GATE : TYPE_INTERRUPT_GATE, vector < VECTOR_PLAIN);
        handlers[vector] = 0;
    }
    load_idt(sizeof(idt) - 1);
}

/* ---- Paging ---- */

static void map_range(u64 va, u64 pa, unsigned pages, u64 flags)
{
    for (unsigned i = 0; i < pages; i++)
        map(va + i * PAGE, pa + i * PAGE, flags);
}

static void standard_paging(void)
{
    /* These are the live tables: what is in use never passes through another value. */
    for (unsigned i = 0; i < 512; i++) {
        int end = i == 0 || i == 511;

        pml4[i] = i == 0                             ? address_of(pdpt) | P | W | U
                  : i == 255 || i == 256 || i == 511 ? address_of(high_pdpt) | P | W | U
                                                     : 0;
        pdpt[i] = i < 4 ? address_of(identity[i]) | P | W | U : 0;
        high_pdpt[i] = end ? address_of(high_pd) | P | W | U : 0;
        high_pd[i] = end ? address_of(high_pt) | P | W | U : 0;
        high_pt[i] = 0;
        for (u64 gib = 0; gib < 4; gib++)
            if (gib != 1)
                identity[gib][i] = (gib * BIT(30) + i * BIT(21)) | P | W | PS;
        identity[1][i] = i < 4 ? address_of(window_pt[i]) | P | W | U : 0;
        for (unsigned j = 0; j < 4; j++)
            window_pt[j][i] = 0;
    }
    map_range(CODE_PAGE, CODE_FRAME, 2, P | W);
    map_range(UCODE_PAGE, CODE_FRAME, 2, P | W | U);
    map_range(STACK, STACK_FRAME, 4, P | W);
    map_range(USTACK, USTACK_FRAME, 4, P | W | U);
    map_range(DATA, DATA_FRAME, 4, P | W);
    map_range(UDATA, UDATA_FRAME, 4, P | W | U);
}

u64 *pml4e(u64 va)
{
    return &pml4[va >> 39 & 511];
}
u64 *pdpte(u64 va)
{
    return &(va >> 39 ? high_pdpt : pdpt)[va >> 30 & 511];
}

u64 *pde(u64 va)
{
    return &(va >> 39 ? high_pd : identity[va >> 30 & 3])[va >> 21 & 511];
}

u64 *pte(u64 va)
{
    return &(va >> 39 ? high_pt : window_pt[va >> 21 & 3])[va >> 12 & 511];
}

void map(u64 va, u64 pa, u64 flags)
{
    *(volatile u64 *)pte(va) = flags ? pa | flags : 0;
}

void flush_tlb(void)
{
    word cr4 = read_cr4();

    write_cr4(cr4 ^ CR4_PGE);
    write_cr4(cr4);
}

void fill(word pa, u8 value, word size)
{
    __asm__ volatile("rep stosb" : "+D"(pa), "+c"(size) : "a"(value) : "memory");
}

/* ---- Control registers ---- */

void standard_state(void)
{
    u64 efer = BIT(0) | BIT(8) | (cpuid(0x80000001, 0).d >> 20 & 1) << 11;
    word cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMM;

    if (has_leaf1_c(26))
        cr4 |= CR4_OSXSAVE;
    write_dr7(0x400);
    write_dr0(0);
    write_dr1(0);
    write_dr2(0);
    write_dr3(0);
    write_dr6(0xffff0ff0);
    write_cr0(CR0_PG | CR0_PE | CR0_MP | CR0_NE | CR0_WP | CR0_AM);
    wrmsr(MSR_EFER, efer);
    standard_paging();
    write_cr4(cr4 & ~(word)CR4_PGE);
    write_cr3(address_of(pml4));
    write_cr4(cr4);
    standard_tables();
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
}

/* ---- Probes ---- */

static void complete(struct regs *in, word *code_page)
{
    static const struct {
        word cs, ss, code, stack;
    } modes[] = {
        [KERNEL] = { KCS, KDS, CODE_PAGE, STACK_TOP },
        [USER] = { UCS | 3, UDS | 3, UCODE_PAGE, USTACK_TOP },
        [USER32] = { UCS32 | 3, UDS | 3, UCODE_PAGE, USTACK_TOP },
        [KERNEL32] = { KCS32, KDS, CODE_PAGE, STACK_TOP },
    };

    if (in->mode != AS_GIVEN) {
        in->cs = modes[in->mode].cs;
        in->ss = modes[in->mode].ss;
    }
    *code_page = in->cs & 3 ? UCODE_PAGE : CODE_PAGE;
    if (!in->rsp)
        in->rsp = in->cs & 3 ? USTACK_TOP : STACK_TOP;
    if (!in->ds)
        in->ds = UDS | 3;
    if (!in->es)
        in->es = UDS | 3;
}

void enter(struct regs *in, struct regs *out)
{
    word code_page;

    complete(in, &code_page);
    if (!in->rip)
        in->rip = code_page + in->code_at;
    enter_probe(in);
    __builtin_memcpy(out, &captured, sizeof(*out));
}

word put_code(word pa, struct code code)
{
    for (const u8 *from = code.start; from < code.end; from++)
        FRAME8(pa)[from - code.start] = *from;
    return (word)(code.end - code.start) - 2;
}

void run(struct code code, struct regs *in, struct regs *out)
{
    put_code(CODE_FRAME + in->code_at, code);
    in->rip = 0;
    enter(in, out);
}

void done(void)
{
    say("\n");
    standard_state();
}

/* ---- Start ---- */

struct cpuid cpuid(u32 leaf, u32 subleaf)
{
    struct cpuid r;

    __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
    return r;
}

int is_amd(void)
{
    return cpuid(0, 0).b == 0x68747541; /* "Auth" */
}

void start_image(const u32 *multiboot)
{
    command_line = multiboot[0] & 4 ? (const char *)(word)multiboot[4] : "";
    outb(0x21, 0xff); /* a BIOS may have left the 8259s open */
    outb(0xa1, 0xff);
    standard_state();
    fill(FRAMES, 0, 0x400000);
    cases();
    finish();
}
