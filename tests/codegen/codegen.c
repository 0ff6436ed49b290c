/* What the translator makes of the sequences of sequences.def: a line each, for codegen_test.py to compare with expected.txt, or
 * a listing of guest and host code.
 *
 *     codegen                 the table
 *     codegen --list TEXT...  the listing of sequences whose "section: title" contains a TEXT
 *
 * Each sequence lies at the same place in a page whose rest is INT3, and is translated as the engine would: as a block of the cache, in a
 * translator that has nothing else. Nothing is executed, so nothing depends on the host but what the CPU model may offer.
 *
 * Hot code is counted from where direct jumps arrive: the two instructions before it, which set the page for indirect ones, are the
 * same in every block. Cold code holds records between its instructions: bytes only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/system_internal.h"
#include "jit/jit_disassemble.h"
#include "jit/jit_translate.h"

#define CPU_MODEL                                                                                                      \
    "x86-64-v3,+aes,+pclmulqdq,+sha-ni,+adx,+fsgsbase,+smep,+smap,+pcid,+invpcid,+rdrand,+rdtscp,+erms,+xsaveopt,"     \
    "+xgetbv1,enforce"
#define RAM       (2 * MIB)
#define CODE_PAGE 0x100000

enum { EXIT_SKIPPED = 77 };
enum mode { USER64, KERNEL64, USER32, KERNEL32 };

struct sequence {
    const char *section, *title;
    enum mode mode;
    unsigned page_offset, size;
    const char *bytes;
};

static const struct sequence sequences[] = {
#define SEQUENCE(...) { __VA_ARGS__ },
#include "tests/codegen/sequences.def"
};

struct guest {
    pthread_mutex_t lock;
    struct physmem *physmem;
    struct port_space *ports;
    struct clock clock;
    struct cpuid_model *model;
    struct cpu *cpu;
    uint8_t *page; /* CODE_PAGE's bytes */
};

struct counts {
    unsigned guest_insns, handled, hot_insns, hot_bytes, cold_bytes, checks;
};

/* ---- The guest ---- */

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "codegen: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void guest_init(struct guest *guest)
{
    struct error err = { 0 };

    pthread_mutex_init(&guest->lock, NULL);
    clock_init(&guest->clock);
    if (!(guest->physmem = physmem_create(RAM, &guest->lock, &err)) ||
        !physmem_add_ram(guest->physmem, 0, RAM, 0, "ram", &err))
        fail("memory", err.text);
    guest->model = cpuid_model_create(CPU_MODEL, &guest->clock, 40, 1, &err);
    if (!guest->model) {
        fprintf(stderr, "codegen: skipped: this host cannot offer the CPU model: %s\n", err.text);
        exit(EXIT_SKIPPED);
    }
    guest->ports = port_space_create(&guest->lock);
    guest->cpu = cpu_create(0, guest->model, &jit_engine, guest->physmem, guest->ports, &guest->clock, &err);
    if (!guest->cpu)
        fail("CPU", err.text);
    guest->page = physmem_lookup(guest->physmem, CODE_PAGE).host;
    struct jit *jit = jit_of(guest->cpu);
    jit->has_bmi2 = jit->has_avx = true; /* whatever EIDOLON_JIT_NO_BMI2 says */
    jit->has_stats = false;
}

static void guest_free(struct guest *guest)
{
    cpu_destroy(guest->cpu);
    cpuid_model_destroy(guest->model);
    port_space_destroy(guest->ports);
    physmem_destroy(guest->physmem);
    pthread_mutex_destroy(&guest->lock);
}

/* As Linux sets up its CPUs: everything may be used, segments are flat. */
static void enter_mode(struct cpu *cpu, enum mode mode)
{
    bool user = mode == USER64 || mode == USER32, wide = mode == USER64 || mode == KERNEL64;
    uint32_t dpl = user ? 3u << SEG_ATTR_DPL_SHIFT : 0;
    uint32_t data = SEG_ATTR_S | SEG_ATTR_P | SEG_ATTR_G | SEG_ATTR_DB | SEG_TYPE_ACCESSED | SEG_TYPE_RW | dpl;
    uint32_t code = (data & ~(uint32_t)SEG_ATTR_DB) | SEG_TYPE_CODE | (wide ? SEG_ATTR_L : SEG_ATTR_DB);

    cpu_set_cr4(cpu,
                CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP);
    cpu_set_efer(cpu, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
    cpu_set_cr0(cpu, CR0_PG | CR0_AM | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE);
    cpu->xcr0 = 7;
    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        cpu_set_segment(cpu, seg, (uint16_t)(user ? 0x2b : 0x18), 0, ~0u, seg == SEG_CS ? code : data);
    cpu_set_cpl(cpu, user ? 3 : 0);
    cpu_update_mode(cpu);
}

/* ---- Translating ---- */

static unsigned guest_bits(const struct sequence *s)
{
    return s->mode == USER64 || s->mode == KERNEL64 ? 64 : 32;
}

static unsigned instructions_of(const struct sequence *s)
{
    const uint8_t *bytes = (const uint8_t *)s->bytes;
    unsigned count = 0;
    struct insn insn;

    for (unsigned at = 0; at < s->size; at += insn.length, count++)
        if (insn_decode(bytes + at, s->size - at, guest_bits(s) == 64 ? CODE64 : CODE32, &insn) != DECODE_OK)
            insn.length = (uint8_t)(s->size - at); /* UD2 and its like */
    return count;
}

/* An instruction that lies in two pages is a block of its own. */
static struct jit_block *translate(struct guest *guest, const struct sequence *s)
{
    struct jit *jit = jit_of(guest->cpu);
    unsigned in_page = PAGE_SIZE - s->page_offset;
    uint8_t across[INSN_MAX_LENGTH];

    enter_mode(guest->cpu, s->mode);
    memset(guest->page, 0xcc, PAGE_SIZE);
    memcpy(guest->page + s->page_offset, s->bytes, MIN(s->size, in_page));
    jit_cache_flush(jit);
    gpa_t gpa = CODE_PAGE + s->page_offset;
    jit_mode_t mode = jit_current_mode(guest->cpu) & MODE_KEY;
    struct jit_block *block = jit_translate(jit, gpa, guest->page + s->page_offset, in_page, mode, instructions_of(s));
    if (block)
        return block;
    memset(across, 0xcc, sizeof(across));
    memcpy(across, s->bytes, MIN(s->size, sizeof(across)));
    block = jit_translate(jit, gpa, across, sizeof(across), mode, 1);
    if (!block)
        fail(s->title, "not translated");
    return block;
}

static void count_line(void *opaque, const char *line)
{
    if (strstr(line, ".byte "))
        fail("hot code that is none", line);
    ++*(unsigned *)opaque;
}

static const uint8_t *hot_code(const struct jit *jit, const struct jit_block *block, size_t *size)
{
    *size = block->hot_size;
    return jit->code.execute + block->hot;
}

static struct counts count(struct jit_disassembler *disassembler, struct guest *guest, const struct jit_block *block)
{
    const struct jit *jit = jit_of(guest->cpu);
    struct counts c = { 0 };
    size_t size;

    const uint8_t *hot = hot_code(jit, block, &size);
    jit_disassemble_lines(disassembler, hot, size, 0, 64, count_line, &c.hot_insns);
    c.guest_insns = block->insn_count;
    c.hot_bytes = (unsigned)size;
    c.cold_bytes = block->cold_size;
    c.checks = jit->site_count;
    for (unsigned n = 0; n < jit->translation->count; n++) {
        const struct tinsn *i = &jit->translation->insns[n];
        c.handled += i->kind >= KIND_HELPER && !jit_string_thunk(jit, &i->insn);
    }
    return c;
}

static void add(struct counts *total, const struct counts *c)
{
    total->guest_insns += c->guest_insns;
    total->handled += c->handled;
    total->hot_insns += c->hot_insns;
    total->hot_bytes += c->hot_bytes;
    total->cold_bytes += c->cold_bytes;
    total->checks += c->checks;
}

/* ---- Output ---- */

static void print_row(const char *title, const struct counts *c)
{
    printf("%-48s | %6u | %7u | %6u | %6u | %6u | %6u\n", title, c->guest_insns, c->handled, c->checks, c->hot_insns,
           c->hot_bytes, c->cold_bytes);
}

static void print_table(struct jit_disassembler *disassembler, struct guest *guest)
{
    struct counts total = { 0 };
    const char *section = "";

    printf("%-48s | %6s | %7s | %6s | %6s | %6s | %6s\n", "", "guest", "handled", "checks", "hot", "bytes", "cold");
    for (size_t n = 0; n < ARRAY_SIZE(sequences); n++) {
        const struct sequence *s = &sequences[n];
        if (strcmp(section, s->section))
            printf("\n[%s]\n", section = s->section);
        struct counts c = count(disassembler, guest, translate(guest, s));
        add(&total, &c);
        print_row(s->title, &c);
    }
    printf("\n");
    print_row("total", &total);
}

static void print_line(void *opaque, const char *line)
{
    printf("%s%s\n", (const char *)opaque, line);
}

static void list(struct jit_disassembler *disassembler, struct guest *guest, const struct sequence *s)
{
    static char guest_margin[] = "  ", host_margin[] = "        ", cold_margin[] = "   cold ";
    const struct jit *jit = jit_of(guest->cpu);
    const struct jit_block *block = translate(guest, s);
    struct counts c = count(disassembler, guest, block);
    size_t size;

    printf("%s: %s: %u guest instructions, %u by handlers, %u checks; %u instructions, %u bytes; %u bytes cold\n",
           s->section, s->title, c.guest_insns, c.handled, c.checks, c.hot_insns, c.hot_bytes, c.cold_bytes);
    for (unsigned n = 0; n < c.guest_insns; n++) {
        const struct insn_mark *mark = &block->marks[n], *next = mark + 1;
        const uint8_t *code = jit->code.execute + block->hot + mark->host;
        jit_disassemble_lines(disassembler, (const uint8_t *)s->bytes + mark->offset, next->offset - mark->offset,
                              s->page_offset + mark->offset, guest_bits(s), print_line, guest_margin);
        jit_disassemble_lines(disassembler, code, next->host - mark->host, (uintptr_t)code, 64, print_line,
                              host_margin);
    }
    const uint8_t *hot = hot_code(jit, block, &size), *end = hot + size;
    const uint8_t *rest = jit->code.execute + block->hot + block->marks[c.guest_insns].host;
    printf("  to what follows\n");
    jit_disassemble_lines(disassembler, rest, (size_t)(end - rest), (uintptr_t)rest, 64, print_line, host_margin);
    if (getenv("CODEGEN_COLD"))
        jit_disassemble_lines(disassembler, jit->code.execute + block->cold, block->cold_size,
                              (uintptr_t)jit->code.execute + block->cold, 64, print_line, cold_margin);
    printf("\n");
}

static bool wanted(const struct sequence *s, char **texts)
{
    char name[256];

    snprintf(name, sizeof(name), "%s: %s", s->section, s->title);
    for (; *texts; texts++)
        if (strstr(name, *texts))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct guest guest = { 0 };
    struct jit_disassembler *disassembler = jit_disassembler_create();

    if (argc > 1 && (argc < 3 || strcmp(argv[1], "--list"))) {
        fprintf(stderr, "usage: codegen [--list TEXT...]\n");
        return 2;
    }
    guest_init(&guest);
    if (argc == 1)
        print_table(disassembler, &guest);
    for (size_t n = 0; argc > 1 && n < ARRAY_SIZE(sequences); n++)
        if (wanted(&sequences[n], argv + 2))
            list(disassembler, &guest, &sequences[n]);
    guest_free(&guest);
    jit_disassembler_destroy(disassembler);
    return 0;
}
