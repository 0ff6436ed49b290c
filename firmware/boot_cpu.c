/* The state in which kernels are entered: a GDT with flat segments, identity page tables,
 * registers (Linux Documentation/x86/boot.rst "64-bit boot protocol"; Xen docs/misc/pvh.pandoc; Multiboot 0.6.96,
 * section 3.2). */
#include "firmware/boot_internal.h"

#include <string.h>

#define IDENTITY_GIB      4
#define PTE_PRESENT_WRITE 0x3ull
#define PTE_LARGE         0x80ull

/* Descriptors, SDM Vol. 3A 3.4.5; the accessed bit is set, as the cached segments were never loaded from here. */
#define GDT_CODE64 0x00af9b000000ffffull
#define GDT_CODE32 0x00cf9b000000ffffull
#define GDT_DATA   0x00cf93000000ffffull
#define GDT_TSS    0x00008b0000000067ull

enum { ATTR_CODE64 = 0xa09b, ATTR_CODE32 = 0xc09b, ATTR_DATA = 0xc093, ATTR_TSS = 0x8b };
#define BOOT_TR        0x20
#define BOOT_GDT_LIMIT (6 * 8 - 1) /* the 64-bit TSS descriptor takes two places */

bool boot_place_gdt(struct physmem *mem, gpa_t address, bool long_mode)
{
    uint64_t gdt[6] = {
        [BOOT_CS / 8] = long_mode ? GDT_CODE64 : GDT_CODE32,
        [BOOT_DS / 8] = GDT_DATA,
        [BOOT_TR / 8] = GDT_TSS,
    };

    return physmem_write(mem, address, gdt, sizeof(gdt));
}

bool boot_place_identity_tables(struct physmem *mem)
{
    uint64_t pml4 = BOOT_PML4, pdpt = pml4 + PAGE_SIZE, pd = pdpt + PAGE_SIZE;
    uint64_t entry = pdpt | PTE_PRESENT_WRITE, table[512];
    bool ok = physmem_zero(mem, pml4, 2 * PAGE_SIZE) && physmem_write(mem, pml4, &entry, 8);

    for (unsigned i = 0; i < IDENTITY_GIB && ok; i++) {
        entry = (pd + i * PAGE_SIZE) | PTE_PRESENT_WRITE;
        for (unsigned j = 0; j < 512; j++)
            table[j] = (i * GIB + j * 2 * MIB) | PTE_PRESENT_WRITE | PTE_LARGE;
        ok = physmem_write(mem, pdpt + 8 * i, &entry, 8) && physmem_write(mem, pd + i * PAGE_SIZE, table, PAGE_SIZE);
    }
    return ok;
}

static void common_state(struct boot_cpu_state *state, uint64_t rip, uint32_t code_attributes)
{
    memset(state, 0, sizeof(*state));
    state->rip = rip;
    state->rsp = BOOT_STACK_TOP;
    state->rflags = 2;
    state->cs = (struct boot_segment){ BOOT_CS, 0, 0xffffffff, code_attributes };
    state->data = (struct boot_segment){ BOOT_DS, 0, 0xffffffff, ATTR_DATA };
    state->tr = (struct boot_segment){ BOOT_TR, 0, 0x67, ATTR_TSS };
    state->gdt_base = BOOT_GDT;
    state->gdt_limit = BOOT_GDT_LIMIT;
}

void boot_state_long64(struct boot_cpu_state *state, uint64_t rip)
{
    common_state(state, rip, ATTR_CODE64);
    state->mode = BOOT_MODE_LONG64;
    state->cr0 = 0x80000011; /* PG, ET, PE */
    state->cr3 = BOOT_PML4;
    state->cr4 = 0x20;   /* PAE */
    state->efer = 0x500; /* LMA, LME */
}

void boot_state_protected32(struct boot_cpu_state *state, uint64_t rip)
{
    common_state(state, rip, ATTR_CODE32);
    state->mode = BOOT_MODE_PROTECTED32;
    state->cr0 = 0x11;
}
