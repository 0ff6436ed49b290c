/* Bits of the control registers and of paging-structure entries (SDM Vol. 3A 2.5, 4.2 to 4.5). */
#ifndef EIDOLON_MMU_PAGING_BITS_H
#define EIDOLON_MMU_PAGING_BITS_H

#include "base/types.h"

#define CR0_WP    BIT(16)
#define CR0_PG    BIT(31)
#define CR4_PSE   BIT(4)
#define CR4_PAE   BIT(5)
#define CR4_PGE   BIT(7)
#define CR4_LA57  BIT(12)
#define CR4_PCIDE BIT(17)
#define CR4_SMEP  BIT(20)
#define CR4_SMAP  BIT(21)
#define CR4_PKE   BIT(22)
#define CR4_PKS   BIT(24)
#define EFER_LMA  BIT(10)
#define EFER_NXE  BIT(11)

/*  63 62..59 58..52 51..12    11..9 8 7    6 5 4   3   2   1   0
 *  XD  key    -     address     -   G PS/- D A PCD PWT U/S R/W P   */
#define PTE_P          BIT(0)
#define PTE_RW         BIT(1)
#define PTE_US         BIT(2)
#define PTE_A          BIT(5)
#define PTE_D          BIT(6)
#define PTE_PS         BIT(7)
#define PTE_G          BIT(8)
#define PTE_XD         BIT(63)
#define PTE_PKEY_SHIFT 59
#define PTE_ADDRESS    0x000ffffffffff000ull

#endif
