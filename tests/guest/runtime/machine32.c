/* The standard state of 32-bit images: protected mode, flat segments, no paging. SDM Vol. 3A chapters 3, 5, 6, 8. */
#include "guest.h"

u64 gdt[33] __attribute__((aligned(16)));
u64 idt[512] __attribute__((aligned(16)));
u8 tss[104 + 8192 + 1] __attribute__((aligned(16)));
handler_fn *handlers[256];
static u8 inner_stack[3][4096] __attribute__((aligned(16))); /* of the levels 0 to 2 */
const char *command_line;

extern const u32 exception_stubs[256];
extern struct regs captured, entering;
void enter_probe(void);
void start_image(const u32 *multiboot);
_Static_assert(sizeof(struct regs) <= 96 && __builtin_offsetof(struct regs, ds) == 64, "boot32.S");

u64 descriptor(u32 base, u32 limit, u8 type, u8 flags)
{
    return (u64)(base >> 24) << 56 | (u64)flags << 52 | (u64)(limit >> 16 & 15) << 48 | (u64)type << 40 |
           (u64)(base & 0xffffff) << 16 | (limit & 0xffff);
}

void set_gate(unsigned vector, word handler, u16 selector, u8 type, unsigned ist)
{
    (void)ist;
    idt[vector] = (handler & 0xffff) | (u64)selector << 16 | (u64)type << 40 | (u64)(handler >> 16) << 48;
}

void set_gate_type(unsigned vector, u16 selector, u8 type, unsigned ist)
{
    set_gate(vector, exception_stubs[vector], selector, type, ist);
}

static void load_table(const char *which, const void *base, u16 limit)
{
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) pointer = { limit, (u32)base };

    if (*which == 'g')
        __asm__ volatile("lgdt %0" : : "m"(pointer));
    else
        __asm__ volatile("lidt %0" : : "m"(pointer));
}

void load_idt(u16 limit)
{
    load_table("idt", idt, limit);
}

static void standard_tables(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(gdt); i++)
        gdt[i] = 0;
    gdt[KCS / 8] = descriptor(0, 0xfffff, TYPE_CODE, FLAG_G | FLAG_D);
    gdt[KDS / 8] = descriptor(0, 0xfffff, TYPE_DATA, FLAG_G | FLAG_D);
    gdt[UCS32 / 8] = gdt[UCS / 8] = descriptor(0, 0xfffff, 0x60 | TYPE_CODE, FLAG_G | FLAG_D);
    gdt[UDS / 8] = descriptor(0, 0xfffff, 0x60 | TYPE_DATA, FLAG_G | FLAG_D);
    gdt[KCS32 / 8] = descriptor(0, 0xfffff, 0x40 | TYPE_DATA, FLAG_G | FLAG_D); /* data of level 2 */
    gdt[TSS_SELECTOR / 8] = descriptor((u32)tss, TSS_LIMIT, 0x89, 0);
    gdt[TSS_SELECTOR / 8 + 1] = descriptor(0, 0xfffff, 0x20 | TYPE_DATA, FLAG_G | FLAG_D); /* data of level 1 */
    load_table("gdt", gdt, GDT_LIMIT);
    __asm__ volatile("ljmp $8, $1f; 1: movl %0, %%ds; movl %0, %%es; movl %0, %%ss; movl %1, %%fs; movl %1, %%gs"
                     :
                     : "r"(KDS), "r"(0)
                     : "memory");

    for (unsigned i = 0; i < sizeof(tss); i++)
        tss[i] = i < 104 ? 0 : 0xff;
    for (unsigned level = 0; level < 3; level++) {
        static const u32 ss[] = { KDS, (TSS_SELECTOR + 8) | 1, KCS32 | 2 };
        u32 esp = (u32)(inner_stack[level] + sizeof(inner_stack[level]));

        __builtin_memcpy(tss + 4 + 8 * level, &esp, 4);
        __builtin_memcpy(tss + 8 + 8 * level, &ss[level], 4);
    }
    tss[102] = 104;
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
    __asm__ volatile("lldt %w0" : : "r"(0));

    for (unsigned vector = 0; vector < 256; vector++) {
        int software = vector == VECTOR_DONE || vector == BP || vector == OV;

        set_gate_type(vector, KCS, software ? 0x60 | TYPE_INTERRUPT_GATE : TYPE_INTERRUPT_GATE, 0);
        handlers[vector] = 0;
    }
    load_idt(256 * 8 - 1);
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

void standard_state(void)
{
    write_cr0(CR0_PE | CR0_MP | CR0_NE | CR0_WP | CR0_AM);
    write_cr4(CR4_OSFXSR | CR4_OSXMM);
    if (cpuid(0x80000001, 0).d >> 20 & 1)
        wrmsr(MSR_EFER, 1);
    write_cr3(0);
    write_dr7(0x400);
    write_dr6(0xffff0ff0);
    standard_tables();
}

static void complete(struct regs *in)
{
    if (in->mode != AS_GIVEN) {
        in->cs = in->mode == USER ? UCS | 3 : KCS;
        in->ss = in->mode == USER ? UDS | 3 : KDS;
    }
    if (!in->rsp)
        in->rsp = in->cs & 3 ? USTACK_TOP : STACK_TOP;
    if (!in->ds)
        in->ds = UDS | 3;
    if (!in->es)
        in->es = UDS | 3;
    if (!in->rip)
        in->rip = CODE_PAGE + in->code_at;
}

void run(struct code code, struct regs *in, struct regs *out)
{
    for (const u8 *from = code.start; from < code.end; from++)
        FRAME8(CODE_FRAME)[in->code_at + (word)(from - code.start)] = *from;
    complete(in);
    __builtin_memcpy(&entering, in, sizeof(entering) < sizeof(*in) ? sizeof(entering) : sizeof(*in));
    enter_probe();
    __builtin_memcpy(out, &captured, __builtin_offsetof(struct regs, mode));
}

void done(void)
{
    say("\n");
    standard_state();
}

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
    command_line = multiboot[0] & 4 ? (const char *)multiboot[4] : "";
    outb(0x21, 0xff); /* a BIOS may have left the 8259s open */
    outb(0xa1, 0xff);
    standard_state();
    fill(FRAMES, 0, 0x400000);
    cases();
    finish();
}
