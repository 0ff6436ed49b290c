/* Faults are values: whoever detects one fills this and returns it; nothing has
 * been committed when it is returned (SDM Vol. 3A 6.5, 6.15). */
#ifndef EIDOLON_MMU_FAULT_H
#define EIDOLON_MMU_FAULT_H

#include "base/types.h"

enum exception_vector {
    VECTOR_DE = 0,
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_DF = 8,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MF = 16,
    VECTOR_AC = 17,
    VECTOR_MC = 18,
    VECTOR_XM = 19,
};

struct fault {
    uint8_t vector;
    uint32_t error; /* error code; ignored for vectors that push none */
    gva_t address;  /* #PF: what goes to CR2 */
};

/* #PF error code, SDM Vol. 3A 4.7 */
enum {
    PF_PRESENT = 1 << 0,
    PF_WRITE = 1 << 1,
    PF_USER = 1 << 2,
    PF_RESERVED = 1 << 3,
    PF_FETCH = 1 << 4,
    PF_PKEY = 1 << 5,
};

#endif
