/* Symbol tables from ELF files and text, look-ups, KASLR, names of blocks, and files that are damaged or hostile.
 *
 * EIDOLON_SEED for the random damage. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elf_maker.h"
#include "jit/jit_symbols.h"

static const struct elf_maker_symbol kernel[] = {
    { "_text", ELF_TEXT, 0, STT_NOTYPE, STB_GLOBAL, IN_TEXT },
    { "startup_64", ELF_TEXT, 0x40, STT_FUNC, STB_GLOBAL, IN_TEXT },
    { "local_alias", ELF_TEXT, 0x40, STT_FUNC, STB_LOCAL, IN_TEXT },
    { "schedule", ELF_TEXT + 0x100, 0x80, STT_FUNC, STB_GLOBAL, IN_TEXT },
    { "inner", ELF_TEXT + 0x120, 0x10, STT_FUNC, STB_LOCAL, IN_TEXT },
    { ".Lnothing", ELF_TEXT + 0x150, 0, STT_NOTYPE, STB_LOCAL, IN_TEXT },
    { "entry_SYSCALL_64", ELF_TEXT + 0x200, 0, STT_NOTYPE, STB_GLOBAL, IN_TEXT },
    { "after_hwframe", ELF_TEXT + 0x220, 0, STT_NOTYPE, STB_GLOBAL, IN_TEXT },
    { "too_long", ELF_TEXT + 0xff00, 0x100000, STT_FUNC, STB_GLOBAL, IN_TEXT },
    { "outside", ELF_TEXT - 0x1000, 0x10, STT_FUNC, STB_GLOBAL, IN_TEXT },
    { "jiffies", ELF_DATA, 8, STT_OBJECT, STB_GLOBAL, IN_DATA },
    { "data_label", ELF_DATA + 0x10, 0, STT_NOTYPE, STB_GLOBAL, IN_DATA },
    { "absolute", ELF_TEXT + 0x300, 0, STT_NOTYPE, STB_GLOBAL, IN_ABSOLUTE },
    { "undefined", ELF_TEXT + 0x300, 0, STT_FUNC, STB_GLOBAL, IN_NOTHING },
    { "wild", ELF_TEXT + 0x300, 0, STT_FUNC, STB_GLOBAL, IN_WILD },
};

/* NAME+0xOFFSET or - */
static const char *at(const struct jit_symbols *symbols, gva_t address)
{
    static char text[320];
    uint64_t offset = 0x5555;
    const char *name = jit_symbols_find(symbols, address, &offset);

    snprintf(text, sizeof(text), name ? "%s+0x%llx" : "-", name, (unsigned long long)offset);
    return text;
}
#define EXPECT(symbols, address, text)                                                                                 \
    cr_expect_str_eq(at(symbols, address), text, "0x%llx is %s, not %s", (unsigned long long)(address),                \
                     at(symbols, address), text)

static struct jit_symbols *load(const char *path)
{
    struct jit_symbols *symbols = jit_symbols_create();
    struct error err = { "" };

    cr_assert_eq(jit_symbols_load_file(symbols, path, &err), 0, "%s", err.text);
    return symbols;
}

static struct jit_symbols *load_text(const char *text)
{
    char path[TEMP_PATH];
    struct jit_symbols *symbols = load(temp_file(path, text, strlen(text)));

    unlink(path);
    return symbols;
}

static void expect_error(const char *text, size_t size, int errnum, const char *reason)
{
    struct jit_symbols *symbols = jit_symbols_create();
    struct error err = { "" };
    char path[TEMP_PATH];

    cr_expect_eq(jit_symbols_load_file(symbols, temp_file(path, text, size), &err), -errnum, "%s: '%s'", reason,
                 err.text);
    cr_expect(strstr(err.text, reason), "'%s' is not in '%s'", reason, err.text);
    unlink(path);
    jit_symbols_destroy(symbols);
}

/* ---- ELF ---- */

Test(symbols, elf)
{
    char path[TEMP_PATH];
    struct jit_symbols *symbols;

    elf_make(temp_file(path, "", 0), 64, EM_X86_64, ET_EXEC, kernel, ARRAY_SIZE(kernel));
    symbols = load(path);
    unlink(path);
    EXPECT(symbols, ELF_TEXT - 1, "-");
    EXPECT(symbols, ELF_TEXT, "startup_64+0x0"); /* a global function rather than a label or a local one */
    EXPECT(symbols, ELF_TEXT + 0x3f, "startup_64+0x3f");
    EXPECT(symbols, ELF_TEXT + 0x40, "-"); /* between functions */
    EXPECT(symbols, ELF_TEXT + 0x11f, "schedule+0x1f");
    EXPECT(symbols, ELF_TEXT + 0x12f, "inner+0xf");
    EXPECT(symbols, ELF_TEXT + 0x130, "schedule+0x30"); /* the one that inner lies in */
    EXPECT(symbols, ELF_TEXT + 0x150, "schedule+0x50"); /* no local labels */
    EXPECT(symbols, ELF_TEXT + 0x180, "-");
    EXPECT(symbols, ELF_TEXT + 0x21f, "entry_SYSCALL_64+0x1f"); /* no size: up to the next */
    EXPECT(symbols, ELF_TEXT + 0x300, "after_hwframe+0xe0");    /* what is not in a code section is not there */
    EXPECT(symbols, ELF_TEXT + 0xffff, "too_long+0xff");
    EXPECT(symbols, ELF_TEXT + 0x10000, "-"); /* not beyond its section */
    EXPECT(symbols, ELF_TEXT - 0x1000, "-");
    EXPECT(symbols, ELF_DATA, "-");
    EXPECT(symbols, ELF_DATA + 0x10, "-");
    EXPECT(symbols, 0, "-");
    EXPECT(symbols, ~0ull, "-");
    jit_symbols_destroy(symbols);
}

Test(symbols, elf_32)
{
    char path[TEMP_PATH];
    struct jit_symbols *symbols;

    elf_make(temp_file(path, "", 0), 32, EM_386, ET_EXEC, kernel, ARRAY_SIZE(kernel));
    symbols = load(path);
    unlink(path);
    EXPECT(symbols, (uint32_t)ELF_TEXT + 0x101, "schedule+0x1");
    EXPECT(symbols, ELF_TEXT + 0x101, "-");
    jit_symbols_destroy(symbols);
}

Test(symbols, elf_refused)
{
    static const struct {
        unsigned machine, type;
        int errnum;
        const char *reason;
    } cases[] = {
        { EM_AARCH64, ET_EXEC, EINVAL, "another architecture" },
        { EM_X86_64, ET_REL, EINVAL, "not an executable" },
        { EM_X86_64, ET_CORE, EINVAL, "not an executable" },
        { EM_X86_64, ET_DYN, 0, "" },
    };
    char path[TEMP_PATH];
    struct error err;

    temp_file(path, "", 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct jit_symbols *symbols = jit_symbols_create();

        err.text[0] = '\0';
        elf_make(path, 64, cases[i].machine, cases[i].type, kernel, ARRAY_SIZE(kernel));
        cr_expect_eq(jit_symbols_load_file(symbols, path, &err), -cases[i].errnum, "case %zu: %s", i, err.text);
        cr_expect(strstr(err.text, cases[i].reason), "case %zu: %s", i, err.text);
        jit_symbols_destroy(symbols);
    }
    /* Only data: no functions. */
    elf_make(path, 64, EM_X86_64, ET_EXEC, &kernel[10], 1);
    struct jit_symbols *symbols = jit_symbols_create();
    cr_expect_eq(jit_symbols_load_file(symbols, path, &err), -ENODATA);
    jit_symbols_load_kernel(symbols, path); /* not an error there */
    jit_symbols_load_kernel(symbols, "/nonexistent");
    cr_expect_eq(jit_symbols_count(symbols), 0);
    jit_symbols_destroy(symbols);
    unlink(path);
}

/* Kernels of other formats are passed over. */
Test(symbols, kernel_file)
{
    struct jit_symbols *symbols = jit_symbols_create();
    char path[TEMP_PATH];
    static const char text[] = "ffffffff81000000 T f\n";

    jit_symbols_load_kernel(symbols, temp_file(path, text, sizeof(text) - 1));
    cr_expect_eq(jit_symbols_count(symbols), 0);
    elf_make(path, 64, EM_X86_64, ET_EXEC, kernel, ARRAY_SIZE(kernel));
    jit_symbols_load_kernel(symbols, path);
    EXPECT(symbols, ELF_TEXT + 0x101, "schedule+0x1");
    jit_symbols_destroy(symbols);
    unlink(path);
}

/* Whatever is wrong with a file: it is read or refused, and look-ups work. Run under the sanitizers, this is the test
 * of bounds. */
static void survive(const char *path, const uint8_t *data, size_t size)
{
    struct jit_symbols *symbols = jit_symbols_create();
    FILE *file = fopen(path, "w");
    struct error err;
    uint64_t offset;

    cr_assert(file && fwrite(data, 1, size, file) == size && !fclose(file));
    jit_symbols_load_file(symbols, path, &err);
    for (gva_t address = ELF_TEXT; address < ELF_TEXT + 0x400; address += 0x20) {
        const char *name = jit_symbols_find(symbols, address, &offset);

        cr_assert(!name || strlen(name) < 256);
    }
    jit_symbols_destroy(symbols);
}

Test(symbols, elf_truncated)
{
    char path[TEMP_PATH];
    size_t size;
    uint8_t *whole;

    elf_make(temp_file(path, "", 0), 64, EM_X86_64, ET_EXEC, kernel, ARRAY_SIZE(kernel));
    whole = (uint8_t *)file_contents(path, &size);
    for (size_t cut = 0; cut < size; cut++)
        survive(path, whole, cut);
    free(whole);
    unlink(path);
}

Test(symbols, elf_damaged)
{
    const char *given = getenv("EIDOLON_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : 20230601;
    char path[TEMP_PATH];
    size_t size;
    uint8_t *whole, *damaged;

    fprintf(stderr, "seed %u\n", seed);
    srand(seed);
    elf_make(temp_file(path, "", 0), 64, EM_X86_64, ET_EXEC, kernel, ARRAY_SIZE(kernel));
    whole = (uint8_t *)file_contents(path, &size);
    damaged = malloc(size);
    for (unsigned round = 0; round < 4000; round++) {
        memcpy(damaged, whole, size);
        for (int change = rand() % 4; change >= 0; change--) {
            size_t place = (size_t)rand() % (size - 8);
            uint64_t value = (uint64_t[]){ 0, ~0ull, 0x7fffffffffffffff, 1, 0x80, (uint64_t)rand() }[rand() % 6];

            /* Half of them in the header or the section headers, where the offsets are. */
            if (rand() % 2)
                place = rand() % 2 ? (size_t)rand() % 64 : size - 8 - (size_t)rand() % 376;
            memcpy(damaged + place, &value, 1u << rand() % 4);
        }
        survive(path, damaged, size);
    }
    free(damaged);
    free(whole);
    unlink(path);
}

/* ---- Text ---- */

static const char system_map[] = "0000000000000000 D __per_cpu_start\n"
                                 "ffffffff81000000 T _text\n"
                                 "ffffffff81000000 T startup_64\r\n"
                                 "ffffffff81000100 t schedule\n"
                                 "                 U elsewhere\n"
                                 "ffffffff81000200 T entry_SYSCALL_64\n"
                                 "\n"
                                 "ffffffff81000300 W weak_one\n"
                                 "ffffffff81000400 D jiffies\n"
                                 "ffffffff82000000 t last";

Test(symbols, text)
{
    struct jit_symbols *symbols = load_text(system_map);

    EXPECT(symbols, 0x400000, "-");
    EXPECT(symbols, ELF_TEXT, "_text+0x0");
    EXPECT(symbols, ELF_TEXT + 0xff, "_text+0xff");
    EXPECT(symbols, ELF_TEXT + 0x1ff, "schedule+0xff");
    EXPECT(symbols, ELF_TEXT + 0x3ff, "weak_one+0xff");
    EXPECT(symbols, ELF_TEXT + 0x400, "-"); /* data ends it */
    EXPECT(symbols, 0xffffffff82000010, "last+0x10");
    EXPECT(symbols, 0xffffffff82000000 + JIT_SYMBOL_OPEN_SIZE, "-");
    jit_symbols_destroy(symbols);
}

Test(symbols, text_refused)
{
    static const struct {
        const char *text;
        int errnum;
        const char *reason;
    } cases[] = {
        { "", ENODATA, "no functions" },
        { "hello, world\n", EINVAL, "line 1" },
        { "ffffffff81000000 T\n", EINVAL, "line 1" },
        { "ffffffff81000000\n", EINVAL, "line 1" },
        { "ffffffff81000000 T f\nffffffff81000000T g\n", EINVAL, "line 2" },
        { "ffffffff81000000 T f\nffffffff81000000 Tg h\n", EINVAL, "line 2" },
        { "ffffffff81000000 T f\nffffffff810000000 T g\n", EINVAL, "line 2" },
        { "ffffffff81000000 T f\nffffffff81000000 4 g\n", EINVAL, "line 2" },
        { "0000000000000000 T f\n0000000000000000 t g\n", ENODATA, "all addresses are zero" },
    };
    char *longest = malloc(5000), zeros[] = "ffffffff81000000 T f\0g\n";

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        expect_error(cases[i].text, strlen(cases[i].text), cases[i].errnum, cases[i].reason);
    memset(longest, 'a', 5000);
    expect_error(longest, 5000, EINVAL, "line 1");
    expect_error(zeros, sizeof(zeros) - 1, EINVAL, "line 1");
    free(longest);
}

Test(symbols, files_refused)
{
    static const char *const cases[][2] = {
        { "/nonexistent", "No such file or directory" },
        { "/", "not a file" },
        { "/dev/zero", "not a file" },
        { "/tmp/eidolon-test-fifo", "not a file" },
    };
    struct jit_symbols *symbols = jit_symbols_create();
    struct error err;

    unlink(cases[3][0]);
    cr_assert_eq(mkfifo(cases[3][0], 0600), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        err.text[0] = '\0';
        cr_expect_lt(jit_symbols_load_file(symbols, cases[i][0], &err), 0, "%s", cases[i][0]);
        cr_expect_str_eq(err.text, cases[i][1], "%s: %s", cases[i][0], err.text);
    }
    unlink(cases[3][0]);
    jit_symbols_destroy(symbols);
}

/* Names go into files in which a line is a record. */
Test(symbols, names_are_harmless)
{
    struct jit_symbols *symbols = jit_symbols_create();
    char name[1000], buffer[100];
    uint64_t offset;

    memset(name, 'x', sizeof(name));
    memcpy(name, "a\nb c\033[31m\xff", 11);
    struct jit_symbol_source source = { .address = ELF_TEXT, .size = 16, .name = name, .name_length = sizeof(name) };
    cr_assert_eq(jit_symbols_add(symbols, &source), 0);
    jit_symbols_finish(symbols);
    const char *found = jit_symbols_find(symbols, ELF_TEXT, &offset);
    cr_assert_eq(strlen(found), 255);
    cr_assert_eq(strncmp(found, "a_b_c_[31m_x", 12), 0, "%s", found);
    jit_symbols_block_name(symbols, ELF_TEXT, 0, false, buffer, sizeof(buffer)); /* too small: cut */
    cr_assert_eq(strlen(buffer), sizeof(buffer) - 1);
    jit_symbols_destroy(symbols);
}

/* ---- KASLR ---- */

Test(symbols, kaslr)
{
    struct jit_symbols *symbols = load_text("ffffffff81000100 T schedule\n"
                                            "ffffffff81000200 T entry_SYSCALL_64\n"
                                            "ffffffff81000300 D end\n"
                                            "ffffffffc0001000 t virtnet_poll\t[virtio_net]\n");
    const gva_t linked = ELF_TEXT + 0x200, slide = 0x1a400000;
    static const gva_t ignored[] = { 0x401000, ELF_TEXT + 0x1000 /* not aligned */, ELF_TEXT + 0x200 + 0x60000000,
                                     ELF_TEXT + 0x200 - 0x60000000 };

    EXPECT(symbols, ELF_TEXT + 0x110, "schedule+0x10");
    EXPECT(symbols, 0xffffffffc0001010, "virtio_net:virtnet_poll+0x10");
    jit_symbols_relocate(symbols, linked + slide);
    EXPECT(symbols, ELF_TEXT + slide + 0x110, "schedule+0x10");
    EXPECT(symbols, ELF_TEXT + 0x110, "-");
    EXPECT(symbols, 0xffffffffc0001010 + slide, "-"); /* where a module is now, nobody knows */
    for (size_t i = 0; i < ARRAY_SIZE(ignored); i++) {
        jit_symbols_relocate(symbols, ignored[i]);
        EXPECT(symbols, ELF_TEXT + slide + 0x110, "schedule+0x10");
    }
    jit_symbols_relocate(symbols, linked - 0x200000);
    EXPECT(symbols, ELF_TEXT - 0x200000 + 0x110, "schedule+0x10");
    jit_symbols_relocate(symbols, 0); /* reset */
    EXPECT(symbols, ELF_TEXT + 0x110, "schedule+0x10");
    jit_symbols_destroy(symbols);
}

/* An LSTAR means nothing to a table without the symbol. */
Test(symbols, kaslr_without_anchor)
{
    struct jit_symbols *symbols = load_text("0000000000200000 T a\n");

    jit_symbols_relocate(symbols, 0x400000);
    EXPECT(symbols, 0x200000, "a+0x0");
    jit_symbols_destroy(symbols);
}

Test(symbols, block_names)
{
    struct jit_symbols *symbols = load_text(system_map);
    char name[64];

    cr_expect_str_eq(jit_symbols_block_name(symbols, ELF_TEXT + 0x112, 0x1000112, false, name, sizeof(name)),
                     "guest:schedule+0x12");
    cr_expect_str_eq(jit_symbols_block_name(symbols, ELF_TEXT + 0x112, 0x1000112, true, name, sizeof(name)),
                     "guest:user:0xffffffff81000112");
    cr_expect_str_eq(jit_symbols_block_name(symbols, 0x7c00, 0x7c00, false, name, sizeof(name)), "guest:gpa:0x7c00");
    jit_symbols_destroy(symbols);
}
