/* The guest page walker (SDM Vol. 3A chapter 4): a plain paging context in, a
 * mapping or a #PF out. Knows no CPU. */
#ifndef EIDOLON_MMU_WALK_H
#define EIDOLON_MMU_WALK_H

#include "mmu/fault.h"
#include "mmu/physmem.h"

/* The state that decides what paging does. CR bits as in the registers. */
struct paging {
    uint64_t cr0, cr3, cr4, efer;
    uint32_t pkru, pkrs;
    uint8_t max_physical_bits; /* MAXPHYADDR of the guest's CPU model */
    bool has_1gib_pages;
    uint64_t pdpte[4]; /* PAE only: loaded by MOV CR3 and friends (4.4.1) */
};

enum mmu_access { MMU_READ, MMU_WRITE, MMU_EXECUTE };

/* What the access runs as. SUPERVISOR_AC: supervisor with EFLAGS.AC set, so that SMAP
 * lets explicit data accesses through. Implicit supervisor accesses use SUPERVISOR. */
enum mmu_privilege { MMU_USER, MMU_SUPERVISOR, MMU_SUPERVISOR_AC, MMU_PRIVILEGES };

/* What the entries of all levels grant together, before privilege and control registers (4.6). */
enum { RIGHT_WRITE = 1 << 0, RIGHT_USER = 1 << 1, RIGHT_NO_EXECUTE = 1 << 2 };

struct walk_result {
    gpa_t gpa;                           /* of the byte at gva */
    uint64_t page_size;                  /* 4 KiB, 2 MiB, 4 MiB, 1 GiB */
    bool readable, writable, executable; /* for this privilege; pkeys applied */
    bool user, global, dirty;            /* dirty: D is set, so writes need no further walk */
    uint8_t pkey;
    uint8_t rights; /* RIGHT_* */
};

/* 0, or -1 with *fault filled (#PF, exact error code). Sets A, and D for writes,
 * atomically in guest memory (compare-and-swap; re-walks if the entry changed).
 * The caller checks canonicality (that is #GP/#SS, not #PF). CR0.PG = 0 is identity. */
int mmu_walk(const struct paging *paging, struct physmem *mem, gva_t gva, enum mmu_access access,
             enum mmu_privilege privilege, struct walk_result *result, struct fault *fault);
/* The accesses that a translation allows (bit 1 << enum mmu_access each): SDM Vol. 3A 4.6.1 and
 * 4.6.2. What mmu_walk applies, for translations that come out of a TLB. */
unsigned paging_allowed(const struct paging *paging, unsigned rights, unsigned pkey, enum mmu_privilege privilege);
/* For debuggers and the monitor: no A/D, no rights check; false if not mapped. */
bool mmu_walk_debug(const struct paging *paging, struct physmem *mem, gva_t gva, gpa_t *gpa);

/* Loads and checks the four PDPTEs (PAE); false: reserved bits, so #GP. */
bool mmu_load_pdptes(struct paging *paging, struct physmem *mem);

#endif
