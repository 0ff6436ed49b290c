#include "guest.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

void guest_create(struct guest *guest)
{
    struct error err;

    *guest = (struct guest){ .next_table = GUEST_TABLES };
    guest->mem = physmem_create(GUEST_RAM, NULL, &err);
    cr_assert(guest->mem, "%s", err.text);
    cr_assert(physmem_add_ram(guest->mem, 0, GUEST_RAM, 0, "ram", &err));
    guest->ram = physmem_ram_pointer(guest->mem, 0, GUEST_RAM);
    for (gpa_t gpa = GUEST_PAGES; gpa < GUEST_RAM; gpa += 8)
        memcpy(guest->ram + gpa, &gpa, 8);
    guest->mmu = aligned_alloc(64, ALIGN_UP(sizeof(struct mmu), 64));
    cr_assert_eq(mmu_init(guest->mmu, guest->mem, &err), 0);
}

void guest_destroy(struct guest *guest)
{
    mmu_destroy(guest->mmu);
    free(guest->mmu);
    physmem_destroy(guest->mem);
}

gpa_t guest_table(struct guest *guest)
{
    gpa_t table = guest->next_table;

    cr_assert_lt(table, GUEST_PAGES);
    guest->next_table += PAGE_SIZE;
    memset(guest->ram + table, 0, PAGE_SIZE);
    return table;
}

uint64_t *guest_entry(struct guest *guest, gpa_t root, gva_t gva, unsigned shift)
{
    gpa_t table = root;

    for (unsigned level = 39;; level -= 9) {
        uint64_t *entry = (uint64_t *)(guest->ram + table) + (gva >> level & 511);
        if (level == shift)
            return entry;
        if (!(*entry & PTE_P))
            *entry = guest_table(guest) | PTE_P | PTE_RW | PTE_US;
        cr_assert_not(*entry & PTE_PS);
        table = *entry & PTE_ADDRESS;
    }
}

void guest_paging_on(struct guest *guest, gpa_t root, uint64_t cr4)
{
    mmu_set_efer(guest->mmu, EFER_LMA | EFER_NXE | BIT(8));
    mmu_set_cr4(guest->mmu, CR4_PAE | CR4_PGE | cr4);
    mmu_set_cr3(guest->mmu, root, false);
    mmu_set_cr0(guest->mmu, CR0_PG | CR0_WP | 1);
}

gpa_t guest_access(struct guest *guest, gva_t gva, enum mmu_access access, enum mmu_privilege privilege, bool *hit)
{
    struct mmu *mmu = guest->mmu;
    uint8_t *host = NULL;
    uint64_t content;

    if (access == MMU_READ)
        host = mmu_lookup_read(mmu, gva, 1, privilege);
    else if (access == MMU_WRITE)
        host = mmu_lookup_write(mmu, gva, 1, privilege);
    else {
        const struct tlb_exec_entry *entry =
            &mmu->exec[privilege != MMU_USER][gva >> PAGE_SHIFT & (MMU_L1_EXEC_SIZE - 1)];
        if (entry->tag == (gva & PAGE_MASK) && entry->host)
            host = entry->host + (gva & ~PAGE_MASK);
    }
    if (hit)
        *hit = host;
    if (!host) {
        struct mmu_target target;
        struct fault fault;
        if (mmu_translate(mmu, gva, access, privilege, &target, &fault)) {
            cr_assert_eq(fault.address, gva);
            return ~0ull;
        }
        cr_assert(target.host);
        cr_assert_eq(target.host - guest->ram, (ptrdiff_t)target.gpa);
        host = target.host;
    }
    memcpy(&content, (uint8_t *)((uintptr_t)host & ~7ull), 8);
    cr_assert_eq(content, (gpa_t)(host - guest->ram) & ~7ull, "a table or a stray page was read as data");
    return (gpa_t)(host - guest->ram);
}
