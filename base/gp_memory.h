/* memcpy, memmove, memset and memcmp for code that runs while the guest's vector state is in the host's registers
 * (docs/design.md 9.4). Not to be included: base/general_registers.cmake puts it in front of every file of such code.
 *
 * The C library's versions use vector registers. A name of its own for each in the assembler (GCC: "Asm Labels") reaches
 * every call, also those that the compiler makes up for copying or clearing a structure. That it does is looked at by
 * base/general_registers.py, which knows no allowance for the plain names. */
#ifndef EIDOLON_BASE_GP_MEMORY_H
#define EIDOLON_BASE_GP_MEMORY_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size) __asm__("gp_memcpy");
void *memmove(void *to, const void *from, size_t size) __asm__("gp_memmove");
void *memset(void *to, int byte, size_t size) __asm__("gp_memset");
int memcmp(const void *a, const void *b, size_t size) __asm__("gp_memcmp");

#endif
