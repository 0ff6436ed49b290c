/* The memory functions that use general registers only, against loops over bytes: all sizes up to some hundred, all
 * alignments, all overlaps, and nothing outside is touched. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

/* By the names that calls of the C library's functions are given (base/gp_memory.h). */
void *gp_memcpy(void *to, const void *from, size_t size);
void *gp_memmove(void *to, const void *from, size_t size);
void *gp_memset(void *to, int byte, size_t size);
int gp_memcmp(const void *a, const void *b, size_t size);

enum { ROOM = 2048, MAX_SIZE = 600 };

static void fill(uint8_t *bytes, unsigned seed)
{
    for (unsigned i = 0; i < ROOM; i++)
        bytes[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 13);
}

static void model_move(uint8_t *room, size_t to, size_t from, size_t size)
{
    uint8_t copy[ROOM];

    for (size_t i = 0; i < size; i++)
        copy[i] = room[from + i];
    for (size_t i = 0; i < size; i++)
        room[to + i] = copy[i];
}

static void check(const uint8_t *got, const uint8_t *wanted, const char *what, size_t to, size_t from, size_t size)
{
    for (size_t i = 0; i < ROOM; i++)
        cr_assert_eq(got[i], wanted[i], "%s(%zu, %zu, %zu): byte %zu is 0x%02x, wanted 0x%02x", what, to, from, size, i,
                     got[i], wanted[i]);
}

Test(gp_memory, copy)
{
    uint8_t got[ROOM], wanted[ROOM];

    for (size_t size = 0; size < MAX_SIZE; size++) {
        for (size_t shift = 0; shift < 64; shift++) {
            size_t to = 8 + shift % 8, from = ROOM / 2 + shift / 8;
            fill(got, (unsigned)size);
            fill(wanted, (unsigned)size);
            model_move(wanted, to, from, size);
            cr_assert_eq(gp_memcpy(got + to, got + from, size), got + to);
            check(got, wanted, "memcpy", to, from, size);
        }
    }
}

Test(gp_memory, move)
{
    uint8_t got[ROOM], wanted[ROOM];

    for (size_t size = 0; size < MAX_SIZE; size += 1 + size / 40) {
        for (size_t to = MAX_SIZE - size; to <= MAX_SIZE + size; to += 1 + size / 100) {
            fill(got, (unsigned)size);
            fill(wanted, (unsigned)size);
            model_move(wanted, to, MAX_SIZE, size);
            cr_assert_eq(gp_memmove(got + to, got + MAX_SIZE, size), got + to);
            check(got, wanted, "memmove", to, MAX_SIZE, size);
        }
    }
}

Test(gp_memory, set)
{
    uint8_t got[ROOM], wanted[ROOM];

    for (size_t size = 0; size < MAX_SIZE; size++) {
        for (size_t to = 8; to < 16; to++) {
            fill(got, 1);
            fill(wanted, 1);
            for (size_t i = 0; i < size; i++)
                wanted[to + i] = (uint8_t)(0x80 + size);
            cr_assert_eq(gp_memset(got + to, (int)(0x1080 + size), size), got + to);
            check(got, wanted, "memset", to, 0, size);
        }
    }
}

Test(gp_memory, compare)
{
    uint8_t a[ROOM], b[ROOM];

    for (size_t size = 0; size < 100; size++) {
        fill(a, 2);
        fill(b, 2);
        b[size] ^= 1; /* behind the end */
        cr_assert_eq(gp_memcmp(a, b, size), 0);
        b[size] ^= 1;
        for (size_t i = 0; i < size; i++) {
            a[i] = 0x7f;
            b[i] = 0x80; /* unsigned bytes are compared, and the first that differs decides */
            if (i + 1 < size)
                b[i + 1] = (uint8_t)(a[i + 1] - 1);
            cr_assert_lt(gp_memcmp(a, b, size), 0, "size %zu, byte %zu", size, i);
            cr_assert_gt(gp_memcmp(b, a, size), 0, "size %zu, byte %zu", size, i);
            fill(a, 2);
            fill(b, 2);
        }
    }
}
