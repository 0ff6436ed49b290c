/* Extended state: which XSAVE components there are, where they lie in an XSAVE area, and the
 * initial values (SDM Vol. 1 chapter 13). Used by the XSAVE family (cpu/interp/interp_xsave.c) and by
 * CPUID leaf 0DH, which must agree.
 *
 * Guests are told that FCS and FDS are deprecated (CPUID.(7,0):EBX[13] = 1: they read as zero), and that FDP
 * is written only by x87 instructions that incur an unmasked exception (EBX[6] = 1), as FOP is. */
#ifndef EIDOLON_CPU_XSTATE_H
#define EIDOLON_CPU_XSTATE_H

#include "base/types.h"

enum {
#define XSTATE_COMPONENT(bit, name, offset, size, supervisor, align64) XSTATE_BIT_##name = 1 << (bit),
#include "cpu/xstate.def"
#undef XSTATE_COMPONENT
    XSTATE_AVX512 = XSTATE_BIT_OPMASK | XSTATE_BIT_ZMM_HI256 | XSTATE_BIT_HI16_ZMM,
};

enum {
    XSAVE_LEGACY_SIZE = 512, /* the FXSAVE image */
    XSAVE_HEADER_SIZE = 64,  /* XSTATE_BV, XCOMP_BV, reserved */
    XSAVE_EXTENDED_OFFSET = XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE,
    XSAVE_MAX_SIZE = 2688 + 64, /* of any format that we write, rounded up to 64 */
};
#define XCOMP_BV_COMPACTED (1ull << 63)

struct xstate_component {
    uint8_t bit;
    bool supervisor, align64;
    uint16_t offset, size; /* bytes; offset in the standard format */
};
extern const struct xstate_component xstate_components[]; /* ends with size == 0 */

/* NULL if there is no such component. */
const struct xstate_component *xstate_component(unsigned bit);
/* Bytes of an area in the standard format with the user components of `mask` (CPUID.(0DH,0):EBX, ECX). */
unsigned xstate_standard_size(uint64_t mask);
/* Bytes of a compacted area with the components of `mask`, XCR0 | XSS (CPUID.(0DH,1):EBX). */
unsigned xstate_compacted_size(uint64_t mask);
/* Where component `bit` lies in a compacted area whose XCOMP_BV is `mask`. */
unsigned xstate_compacted_offset(uint64_t mask, unsigned bit);

struct vector_state;
enum { MXCSR_RESET = 0x1f80, FCW_RESET = 0x40, FCW_FNINIT = 0x37f };
/* The state after power-up and RESET (SDM Vol. 3A table 9-1): FCW 0x40, registers zero and valid, MXCSR 0x1f80.
 * INIT leaves x87, MMX, SSE and AVX state alone, so it does not call this. */
void vector_state_reset(struct vector_state *state);
/* MXCSR bits that may be set: the host's MXCSR_MASK without AMD's misaligned mode. */
uint32_t mxcsr_valid_mask(void);

#endif
