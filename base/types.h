/* Fundamental types and small helpers that every layer uses. */
#ifndef EIDOLON_BASE_TYPES_H
#define EIDOLON_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Three kinds of address that are never mixed: guest-virtual (linear),
 * guest-physical, and host (an ordinary pointer). */
typedef uint64_t gva_t;
typedef uint64_t gpa_t;

#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define TIB (1ull << 40)

#define PAGE_SHIFT 12
#define PAGE_SIZE  (1ull << PAGE_SHIFT)
#define PAGE_MASK  (~(PAGE_SIZE - 1))

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define BIT(n)                          (1ull << (n))
#define likely(x)                       __builtin_expect(!!(x), 1)
#define unlikely(x)                     __builtin_expect(!!(x), 0)
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define printf_like(fmt, args)          __attribute__((format(printf, fmt, args)))

#undef MIN /* <sys/param.h> may have come first, through libuv */
#undef MAX
#define MIN(a, b)        ((a) < (b) ? (a) : (b))
#define MAX(a, b)        ((a) > (b) ? (a) : (b))
#define ALIGN_DOWN(x, a) ((x) & ~((uint64_t)(a)-1))
#define ALIGN_UP(x, a)   ALIGN_DOWN((x) + (uint64_t)(a)-1, a)

static inline uint64_t bits(uint64_t value, unsigned high, unsigned low)
{
    return (value >> low) & (~0ull >> (63 - (high - low)));
}

#endif
