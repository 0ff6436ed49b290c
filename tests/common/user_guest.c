/* See user_guest.h. */
#include "tests/common/user_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/engine.h"

#define TABLES 0x10000 /* page tables, a page each */

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4 };
#define PTE_NX (1ull << 63)

static void fail(const char *what, const struct error *err)
{
    fprintf(stderr, "guest for tests: %s: %s\n", what, err->text);
    abort();
}

/* ---- Paging: only the test's pages exist ---- */

static uint64_t read_entry(struct user_guest *guest, uint64_t gpa)
{
    uint64_t entry = 0;
    physmem_read(guest->physmem, gpa, &entry, 8);
    return entry;
}

void user_guest_map(struct user_guest *guest, gva_t gva, gpa_t gpa, unsigned rights)
{
    uint64_t table = TABLES;

    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t slot = table + (gva >> shift & 511) * 8, entry = read_entry(guest, slot);
        if (!entry) {
            entry = (guest->next_table += PAGE_SIZE) | PTE_P | PTE_W | PTE_U;
            physmem_write(guest->physmem, slot, &entry, 8);
        }
        table = entry & ~0xfffull;
    }
    uint64_t entry = gpa | PTE_P | (rights & USER_GUEST_SUPERVISOR ? 0 : PTE_U) |
                     (rights & USER_GUEST_WRITE ? PTE_W : 0) | (rights & USER_GUEST_EXECUTE ? 0 : PTE_NX);
    physmem_write(guest->physmem, table + (gva >> 12 & 511) * 8, &entry, 8);
}

uint64_t user_guest_root(void)
{
    return TABLES;
}

/* ---- The CPU: as Linux sets it up for a user program ---- */

void user_guest_enter_user(struct user_guest *guest)
{
    const uint32_t user =
        SEG_ATTR_S | SEG_ATTR_P | 3 << SEG_ATTR_DPL_SHIFT | SEG_ATTR_G | SEG_TYPE_ACCESSED | SEG_TYPE_RW;
    struct cpu *cpu = guest->cpu;
    uint16_t selector;

    __asm__("mov %%cs, %0" : "=r"(selector));
    cpu_set_segment(cpu, SEG_CS, selector, 0, ~0u, user | SEG_TYPE_CODE | SEG_ATTR_L);
    __asm__("mov %%ss, %0" : "=r"(selector));
    cpu_set_segment(cpu, SEG_SS, selector, 0, ~0u, user | SEG_ATTR_DB);
    for (unsigned seg = SEG_ES; seg < SEG_COUNT; seg++)
        if (seg != SEG_CS && seg != SEG_SS)
            cpu_set_segment(cpu, seg, 0, 0, ~0u, user | SEG_ATTR_DB | SEG_ATTR_UNUSABLE);
    cpu_set_cpl(cpu, 3);
    cpu_update_mode(cpu);
}

static void set_control_registers(struct cpu *cpu, bool avx, bool fsgsbase)
{
    uint64_t cr4 = 1u << 5 | 1u << 7 | 1u << 9 | 1u << 10 | 1u << 18; /* PAE, PGE, OSFXSR, OSXMMEXCPT, OSXSAVE */

    if (fsgsbase)
        cr4 |= 1u << 16;
    cpu_set_cr4(cpu, cr4);
    cpu_set_efer(cpu, 1u << 0 | 1u << 8 | 1u << 10 | 1u << 11); /* SCE, LME, LMA, NXE */
    cpu_set_cr3(cpu, TABLES, false);
    cpu_set_cr0(cpu, 1u << 31 | 1u << 18 | 1u << 16 | 1u << 5 | 1u << 4 | 1u << 1 |
                         1u << 0); /* PG, AM, WP, NE, ET, MP, PE */
    cpu->xcr0 = avx ? 7 : 3;
    cpu->tr.limit = 0x66; /* no I/O permission map */
}

void user_guest_init(struct user_guest *guest, bool avx, bool fsgsbase)
{
    struct error err = { 0 };

    memset(guest, 0, sizeof(*guest));
    pthread_mutex_init(&guest->lock, NULL);
    clock_init(&guest->clock);
    if (!(guest->physmem = physmem_create(USER_GUEST_RAM, &guest->lock, &err)) ||
        !physmem_add_ram(guest->physmem, 0, USER_GUEST_RAM, 0, "ram", &err))
        fail("memory", &err);
    if (!(guest->model = cpuid_model_create("max", &guest->clock, 46, 1, &err)))
        fail("CPU model", &err);
    guest->ports = port_space_create(&guest->lock);
    if (!(guest->cpu = cpu_create(0, guest->model, test_engine(), guest->physmem, guest->ports, &guest->clock, &err)))
        fail("CPU", &err);
    guest->next_table = TABLES;
    set_control_registers(guest->cpu, avx, fsgsbase);
    user_guest_enter_user(guest);
}

void user_guest_free(struct user_guest *guest)
{
    cpu_destroy(guest->cpu);
    cpuid_model_destroy(guest->model);
    port_space_destroy(guest->ports);
    physmem_destroy(guest->physmem);
    pthread_mutex_destroy(&guest->lock);
}
