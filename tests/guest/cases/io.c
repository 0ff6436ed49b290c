/* Ports: who may use them (IOPL, the TSS's bitmap), widths, string forms. SDM Vol. 1 19.5; Vol. 2 IN, OUT, INS,
 * OUTS. */
#include "guest.h"

#define FREE_PORT 0x2c0 /* nothing there: reads as ones */

static void allow(unsigned port, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        tss[104 + (port + i) / 8] &= (u8) ~(1u << (port + i) % 8);
}

static void forbid_all(void)
{
    for (unsigned i = 104; i < sizeof(tss); i++)
        tss[i] = 0xff;
}

static void load_tss(u16 limit, u16 bitmap)
{
    tss[102] = (u8)bitmap;
    tss[103] = (u8)(bitmap >> 8);
    gdt[TSS_SELECTOR / 8] = descriptor((u32)(word)tss, limit, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
}

static void permission(void)
{
    TRY("io-user-denied", USER, "in al, dx", .rdx = FREE_PORT);
    TRY("io-user-iopl-3", USER, "in al, dx", .rdx = FREE_PORT, .rflags = 2 | IOPL3);
    TRY("io-user-iopl-2", USER, "in al, dx", .rdx = FREE_PORT, .rflags = 2 | 2 << 12);
    allow(FREE_PORT, 1);
    TRY("io-bitmap-allows-byte", USER, "in al, dx", .rdx = FREE_PORT);
    allow(FREE_PORT, 1);
    TRY("io-bitmap-word-needs-two", USER, "in ax, dx", .rdx = FREE_PORT);
    allow(FREE_PORT, 2);
    TRY("io-bitmap-allows-word", USER, "in ax, dx", .rdx = FREE_PORT);
    allow(FREE_PORT, 3);
    TRY("io-bitmap-dword-needs-four", USER, "in eax, dx", .rdx = FREE_PORT);
    allow(FREE_PORT, 4);
    TRY("io-bitmap-allows-dword", USER, "in eax, dx", .rdx = FREE_PORT);
    allow(FREE_PORT + 7, 2);
    TRY("io-bitmap-word-across-byte", USER, "in ax, dx", .rdx = FREE_PORT + 7);
    allow(FREE_PORT + 7, 1);
    TRY("io-bitmap-word-across-byte-denied", USER, "in ax, dx", .rdx = FREE_PORT + 7);
    allow(FREE_PORT + 5, 4);
    TRY("io-bitmap-dword-across-byte", USER, "in eax, dx", .rdx = FREE_PORT + 5);
    allow(FREE_PORT, 1);
    TRY("io-bitmap-out", USER, "out dx, al", .rdx = FREE_PORT);
    TRY("io-bitmap-out-denied", USER, "out dx, al", .rdx = FREE_PORT);
    allow(0x80, 1);
    TRY("io-bitmap-immediate", USER, "out 0x80, al");
    allow(FREE_PORT, 1);
    TRY("io-bitmap-ins", USER, "insb", .rdx = FREE_PORT, .rdi = UDATA);
    TRY("io-bitmap-ins-denied", USER, "insb", .rdx = FREE_PORT, .rdi = UDATA);
    TRY("io-denied-before-page-fault", USER, "insb", .rdx = FREE_PORT, .rdi = HOLE);
    allow(FREE_PORT, 1);
    TRY("io-page-fault-if-allowed", USER, "insb", .rdx = FREE_PORT, .rdi = HOLE);
    allow(FREE_PORT, 1);
    TRY("io-rep-ins", USER, "rep insb", .rdx = FREE_PORT, .rdi = UDATA, .rcx = 5);
    allow(FREE_PORT, 4);
    TRY32("io-compat", USER32, "in eax, dx", .rdx = FREE_PORT);
    TRY32("io-compat-denied", USER32, "in eax, dx", .rdx = FREE_PORT);
}

static void bitmap_limits(void)
{
    allow(0, 8);
    load_tss(104 + 1, 104);
    TRY("io-limit-two-bytes-port-0", USER, "in al, dx; xor eax, eax", .rdx = 0);
    allow(0, 16);
    load_tss(104 + 1, 104);
    TRY("io-limit-two-bytes-port-8", USER, "in al, dx", .rdx = 8);
    allow(0, 8);
    load_tss(104, 104);
    TRY("io-limit-one-byte-only", USER, "in al, dx", .rdx = 0);
    allow(0, 8);
    load_tss(103, 104);
    TRY("io-limit-no-bitmap", USER, "in al, dx", .rdx = 0);
    load_tss(TSS_LIMIT, 0xffff);
    TRY("io-bitmap-offset-beyond", USER, "in al, dx", .rdx = 0);
    allow(0xfff8, 8);
    TRY("io-last-port", USER, "in al, dx", .rdx = 0xffff);
    allow(0xfff8, 8);
    TRY("io-word-beyond-last-port-denied", USER, "in ax, dx", .rdx = 0xffff);
    forbid_all();
    TRY("io-kernel-ignores-bitmap", KERNEL, "in al, dx", .rdx = FREE_PORT);
}

static void widths(void)
{
    TRY("io-nothing-byte", KERNEL, "in al, dx", .rdx = FREE_PORT, .rax = 0x12345678);
    TRY("io-nothing-word", KERNEL, "in ax, dx", .rdx = FREE_PORT, .rax = 0x12345678);
    TRY("io-nothing-dword", KERNEL, "in eax, dx", .rdx = FREE_PORT, .rax = ~0ul << 32);
    TRY("io-rex-is-ignored", KERNEL, ".byte 0x48; in eax, dx", .rdx = FREE_PORT, .rax = ~0ul << 32);
    TRY("io-port-is-16-bits", KERNEL, "in al, dx", .rdx = 0xffff0000 | FREE_PORT, .rax = 0);
    TRY("io-out-then-nothing", KERNEL, "out dx, eax; in eax, dx", .rdx = FREE_PORT);
    TRY("io-pci-address-dword", KERNEL, "out dx, eax; mov eax, 0; in eax, dx", .rdx = 0xcf8, .rax = 0x80000000);
    TRY("io-pci-address-byte-is-no-address", KERNEL, "out dx, eax; mov al, 0x55; out dx, al; in eax, dx", .rdx = 0xcf8,
        .rax = 0x80000000);
    TRY("io-pci-host-bridge-vendor", KERNEL, "out dx, eax; mov edx, 0xcfc; in ax, dx; movzx eax, ax", .rdx = 0xcf8,
        .rax = 0x80000000);
    TRY("io-pci-vendor-by-byte", KERNEL, "out dx, eax; mov edx, 0xcfd; in al, dx; movzx eax, al", .rdx = 0xcf8,
        .rax = 0x80000000);
    TRY("io-pci-absent-device", KERNEL, "out dx, eax; mov edx, 0xcfc; in eax, dx", .rdx = 0xcf8,
        .rax = 0x8000f800 ^ 0xe000);
    TRY("io-pci-disabled", KERNEL, "out dx, eax; mov edx, 0xcfc; in eax, dx", .rdx = 0xcf8, .rax = 0);
    TRY("io-pic-mask-readback", KERNEL,
        "mov al, 0xa5; out 0x21, al; in al, 0x21; movzx ebx, al; mov al, 0xff; out 0x21, al", .hide = 1);
    TRY("io-rep-outs-ins", KERNEL, "rep outsb; mov ecx, 4; rep insb", .rdx = FREE_PORT, .rsi = DATA, .rdi = DATA + 64,
        .rcx = 4);
    TRY("io-rep-insd", KERNEL, "rep insd; mov eax, [rdi-4]", .rdx = FREE_PORT, .rdi = DATA, .rcx = 3);
    TRY("io-rep-ins-backwards", KERNEL, "rep insw", .rdx = FREE_PORT, .rdi = DATA + 64, .rcx = 3, .rflags = 2 | DF);
    TRY("io-outs-segment-override", KERNEL, "outsb", .rdx = FREE_PORT, .rsi = DATA);
    TRY("io-ins-noncanonical", KERNEL, "insb", .rdx = FREE_PORT, .rdi = NON_CANONICAL);
    TRY("io-fw-cfg-signature", KERNEL,
        "mov dx, 0x510; xor eax, eax; out dx, ax; mov dx, 0x511; in al, dx; mov bl, al; in al, dx; mov bh, al",
        .hide = 1 | 4, .rbx = 0);
}

void cases(void)
{
    permission();
    bitmap_limits();
    widths();
}
