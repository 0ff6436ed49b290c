/* A model of paging, written from SDM Vol. 3A chapter 4 with no regard to speed and without a look at
 * mmu/walk.c: what tests/mmu compares the walker with. */
#ifndef EIDOLON_TESTS_MMU_MODEL_H
#define EIDOLON_TESTS_MMU_MODEL_H

#include "base/types.h"

enum model_mode { MODEL_32BIT, MODEL_PAE, MODEL_4LEVEL };

struct model_controls {
    enum model_mode mode;
    bool wp, pse, pge, smep, smap, pke, pks, nxe, page_1gib;
    unsigned maxphyaddr;
    uint32_t pkru, pkrs;
    uint64_t cr3;
    uint64_t pdpte[4];
};

struct model_access {
    uint64_t address;
    bool write, fetch; /* neither: read */
    bool user, ac;     /* ac: EFLAGS.AC, of a supervisor access */
};

struct model_change {
    uint64_t address, value; /* of an entry that gets A or D */
    unsigned size;
};

struct model_outcome {
    bool fault;
    uint32_t error;
    uint64_t physical, page_size;
    bool global, dirty;
    struct model_change changes[4];
    unsigned change_count;
};

/* read(opaque, address, size): the guest's memory. */
struct model_outcome model_translate(const struct model_controls *controls, const struct model_access *access,
                                     uint64_t (*read)(void *opaque, uint64_t address, unsigned size), void *opaque);

#endif
