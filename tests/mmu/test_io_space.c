/* The splitting rule for device accesses, and the port space. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/io_space.h"

/* A device of 64 registers of a byte that writes down each access. */
struct recorder {
    uint8_t bytes[64];
    char log[256];
};

static uint64_t recorder_read(void *opaque, uint64_t offset, unsigned size)
{
    struct recorder *r = opaque;
    uint64_t value = 0;

    memcpy(&value, r->bytes + offset, size);
    snprintf(r->log + strlen(r->log), sizeof(r->log) - strlen(r->log), "r%u@%llu ", size, (unsigned long long)offset);
    return value;
}

static void recorder_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct recorder *r = opaque;

    memcpy(r->bytes + offset, &value, size);
    snprintf(r->log + strlen(r->log), sizeof(r->log) - strlen(r->log), "w%u@%llu=%llx ", size,
             (unsigned long long)offset, (unsigned long long)value);
}

static struct io_ops recorder_ops(unsigned min, unsigned max)
{
    return (struct io_ops){ recorder_read, recorder_write, (uint8_t)min, (uint8_t)max };
}

static struct recorder recorder_create(void)
{
    struct recorder r = { 0 };

    for (unsigned i = 0; i < sizeof(r.bytes); i++)
        r.bytes[i] = (uint8_t)(i + 1);
    return r;
}

Test(io_ops, reads_are_split_and_widened)
{
    static const struct {
        unsigned min, max, offset, size;
        uint64_t value;
        const char *log;
    } cases[] = {
        { 0, 0, 4, 4, 0x08070605, "r4@4 " },
        { 0, 0, 4, 8, 0x0c0b0a0908070605, "r4@4 r4@8 " },
        { 1, 8, 4, 8, 0x0c0b0a0908070605, "r8@4 " },
        { 1, 1, 4, 4, 0x08070605, "r1@4 r1@5 r1@6 r1@7 " },
        { 1, 4, 3, 2, 0x0504, "r2@3 " },
        { 1, 4, 3, 3, 0x060504, "r2@3 r1@5 " },
        { 4, 4, 5, 1, 0x06, "r4@4 " },
        { 4, 4, 6, 2, 0x0807, "r4@4 " },
        { 4, 4, 7, 2, 0x0908, "r4@4 r4@8 " },
        { 8, 8, 4, 4, 0x08070605, "r8@0 " },
        { 2, 2, 0, 7, 0x07060504030201, "r2@0 r2@2 r2@4 r2@6 " },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct recorder r = recorder_create();
        struct io_ops ops = recorder_ops(cases[i].min, cases[i].max);
        cr_assert_eq(io_ops_read(&ops, &r, cases[i].offset, cases[i].size), cases[i].value, "case %u", i);
        cr_assert_str_eq(r.log, cases[i].log, "case %u", i);
    }
}

Test(io_ops, writes_are_split_and_widened)
{
    static const struct {
        unsigned min, max, offset, size;
        uint64_t value;
        const char *log;
    } cases[] = {
        { 0, 0, 4, 4, 0x11223344, "w4@4=11223344 " },
        { 0, 0, 4, 8, 0x8877665511223344, "w4@4=11223344 w4@8=88776655 " },
        { 1, 8, 4, 8, 0x8877665511223344, "w8@4=8877665511223344 " },
        { 1, 2, 1, 4, 0x11223344, "w2@1=3344 w2@3=1122 " },
        { 4, 4, 5, 1, 0xffffab, "w4@4=ab00 " },
        { 4, 4, 7, 2, 0xabcd, "w4@4=cd000000 w4@8=ab " },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct recorder r = recorder_create();
        struct io_ops ops = recorder_ops(cases[i].min, cases[i].max);
        io_ops_write(&ops, &r, cases[i].offset, cases[i].size, cases[i].value);
        cr_assert_str_eq(r.log, cases[i].log, "case %u", i);
    }
}

Test(io_ops, missing_callbacks)
{
    struct io_ops ops = { 0 };

    cr_assert_eq(io_ops_read(&ops, NULL, 0, 2), 0xffff);
    io_ops_write(&ops, NULL, 0, 8, 1);
}

Test(ports, later_ranges_cover_earlier_ones)
{
    struct port_space *space = port_space_create(NULL);
    struct recorder a = recorder_create(), b = recorder_create();
    struct io_ops ops = recorder_ops(1, 4);

    cr_assert_eq(port_space_read(space, 0x60, 1), 0xff);
    cr_assert_eq(port_space_read(space, 0x60, 4), 0xffffffff);
    port_space_write(space, 0x60, 4, 0);
    cr_assert_eq(port_space_add(space, 0x100, 16, &ops, &a, "a", NULL), 0);
    cr_assert_eq(port_space_add(space, 0x104, 4, &ops, &b, "b", NULL), 0);
    cr_assert_eq(port_space_read(space, 0x100, 4), 0x04030201);
    cr_assert_eq(port_space_read(space, 0x104, 4), 0x04030201);
    cr_assert_eq(port_space_read(space, 0x102, 4), 0x06050403, "whoever owns the first port gets the access");
    cr_assert_eq(port_space_read(space, 0x108, 4), 0x0c0b0a09);
    cr_assert_eq(port_space_read(space, 0x10e, 4), 0xffff100f);
    port_space_write(space, 0x107, 2, 0xbbaa);
    cr_assert_eq(b.bytes[3], 0xaa);
    cr_assert_eq(a.bytes[8], 0xbb);
    cr_assert_eq(port_space_read(space, 0x0fe, 4), 0x0201ffff);
    port_space_remove(space, 0x104, 4, &a); /* not a's */
    cr_assert_eq(port_space_read(space, 0x104, 2), 0x0201);
    port_space_remove(space, 0x104, 4, &b);
    cr_assert_eq(port_space_read(space, 0x104, 4), 0x08070605);
    port_space_remove(space, 0x100, 16, &a);
    cr_assert_eq(port_space_read(space, 0x104, 4), 0xffffffff);
    port_space_destroy(space);
}

Test(ports, the_end_of_the_space)
{
    struct port_space *space = port_space_create(NULL);
    struct recorder a = recorder_create();
    struct io_ops ops = recorder_ops(1, 4);
    struct error err;

    cr_assert_neq(port_space_add(space, 0xfff0, 17, &ops, &a, "a", &err), 0);
    cr_assert_neq(port_space_add(space, 0, 0, &ops, &a, "a", &err), 0);
    cr_assert_eq(port_space_add(space, 0xfffe, 2, &ops, &a, "a", &err), 0);
    cr_assert_eq(port_space_read(space, 0xffff, 4), 0xffffff02, "ports do not wrap");
    port_space_write(space, 0xfffe, 4, 0x11223344);
    cr_assert_eq(a.bytes[0], 0x44);
    port_space_destroy(space);
}

static struct port_space *own_space;

static void remove_itself(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size, (void)value;
    port_space_remove(own_space, 0x200, 8, opaque);
}

/* A BAR that the write itself turns off. */
Test(ports, callback_removes_its_range)
{
    struct io_ops ops = { NULL, remove_itself, 1, 1 };

    own_space = port_space_create(NULL);
    port_space_add(own_space, 0x200, 8, &ops, &ops, "bar", NULL);
    port_space_write(own_space, 0x200, 4, 0);
    cr_assert_eq(port_space_read(own_space, 0x200, 1), 0xff);
    port_space_destroy(own_space);
}
