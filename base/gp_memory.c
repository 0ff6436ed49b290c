/* The memory functions of base/gp_memory.h: general registers only.
 *
 * Two sizes of work. Up to 16 bytes (operands, table entries): two moves of the largest power of two that fits, which
 * may overlap. Up to REP_MINIMUM words one after another, of which the last may overlap the one before it. Above that
 * the string instructions, which processors carry out in whole cache lines, but only after some dozens of cycles.
 *
 * Pure functions; any thread. general_registers.cmake keeps the compiler from calling memcpy for these loops. */
#include <stdint.h>

#include "base/gp_memory.h"

#define REP_MINIMUM 256

/* Words at any address, of any type. */
typedef uint64_t __attribute__((aligned(1), may_alias)) word64;
typedef uint32_t __attribute__((aligned(1), may_alias)) word32;
typedef uint16_t __attribute__((aligned(1), may_alias)) word16;

/* At most 16 bytes. Everything is loaded before anything is stored, so they may overlap. */
static inline void move_small(uint8_t *to, const uint8_t *from, size_t size)
{
    if (size >= 8) {
        uint64_t first = *(const word64 *)from, last = *(const word64 *)(from + size - 8);
        *(word64 *)to = first;
        *(word64 *)(to + size - 8) = last;
    } else if (size >= 4) {
        uint32_t first = *(const word32 *)from, last = *(const word32 *)(from + size - 4);
        *(word32 *)to = first;
        *(word32 *)(to + size - 4) = last;
    } else if (size >= 2) {
        uint16_t first = *(const word16 *)from, last = *(const word16 *)(from + size - 2);
        *(word16 *)to = first;
        *(word16 *)(to + size - 2) = last;
    } else if (size) {
        *to = *from;
    }
}

/* More than 16 bytes, in ascending order: right if `to` is outside the source or below it. The last word is loaded
 * first, since the ones before it may be stored over it. */
static inline void move_up(uint8_t *to, const uint8_t *from, size_t size)
{
    uint64_t last = *(const word64 *)(from + size - 8);
    uint8_t *end = to + size - 8;

    if (size >= REP_MINIMUM) {
        size_t words = size / 8;
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    } else {
        for (; to < end; to += 8, from += 8)
            *(word64 *)to = *(const word64 *)from;
    }
    *(word64 *)end = last;
}

/* The same in descending order, for a `to` inside the source. No string instruction: with DF set they go byte by byte. */
static inline void move_down(uint8_t *to, const uint8_t *from, size_t size)
{
    uint64_t first = *(const word64 *)from;

    for (size_t left = size; left > 8; left -= 8)
        *(word64 *)(to + left - 8) = *(const word64 *)(from + left - 8);
    *(word64 *)to = first;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    if (size <= 16)
        move_small(to, from, size);
    else
        move_up(to, from, size);
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    if (size <= 16)
        move_small(to, from, size);
    else if ((uintptr_t)to - (uintptr_t)from >= size)
        move_up(to, from, size);
    else
        move_down(to, from, size);
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    uint64_t value = (uint8_t)byte * 0x0101010101010101ull;
    uint8_t *at = to;

    if (size < 8) {
        for (size_t i = 0; i < size; i++)
            at[i] = (uint8_t)byte;
        return to;
    }
    *(word64 *)(at + size - 8) = value;
    if (size >= REP_MINIMUM) {
        size_t words = size / 8;
        __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(value) : "memory");
    } else {
        for (size_t i = 0; i + 8 < size; i += 8)
            *(word64 *)(at + i) = value;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *left = a, *right = b;

    for (; size >= 8; left += 8, right += 8, size -= 8) {
        uint64_t x = *(const word64 *)left, y = *(const word64 *)right;
        if (x != y) {
            x = __builtin_bswap64(x);
            y = __builtin_bswap64(y);
            return x < y ? -1 : 1;
        }
    }
    for (; size; left++, right++, size--)
        if (*left != *right)
            return *left < *right ? -1 : 1;
    return 0;
}
