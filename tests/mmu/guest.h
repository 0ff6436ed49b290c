/* A guest for TLB tests: RAM whose every 8 bytes hold their own guest-physical address, an
 * MMU, and 4-level page tables that are built as pages are mapped. */
#ifndef EIDOLON_TESTS_MMU_GUEST_H
#define EIDOLON_TESTS_MMU_GUEST_H

#include "mmu/mmu.h"
#include "mmu/paging_bits.h"

#define GUEST_RAM    (32 * MIB)
#define GUEST_TABLES 0x10000   /* page tables from here */
#define GUEST_PAGES  (8 * MIB) /* free for mapping from here */

struct guest {
    struct physmem *mem;
    uint8_t *ram;
    struct mmu *mmu;
    gpa_t next_table;
};

void guest_create(struct guest *guest);
void guest_destroy(struct guest *guest);
gpa_t guest_table(struct guest *guest); /* a new, empty one */
/* The entry that maps gva at `shift` (12, 21, 30); upper levels are made as needed (P, R/W, U/S). */
uint64_t *guest_entry(struct guest *guest, gpa_t root, gva_t gva, unsigned shift);
/* CR0.PG and WP, CR4.PAE and PGE and `cr4`, EFER.LMA and NXE, CR3. */
void guest_paging_on(struct guest *guest, gpa_t root, uint64_t cr4);

/* As a CPU does it: look up, else mmu_translate; the host's answer is checked for being the right page. ~0: page
 * fault. `*hit`: the L1 entry was enough; may be NULL. */
gpa_t guest_access(struct guest *guest, gva_t gva, enum mmu_access access, enum mmu_privilege privilege, bool *hit);

#endif
