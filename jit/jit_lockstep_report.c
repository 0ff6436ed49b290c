/* What the lockstep engine says: a difference, with both states, the memory that differs, and the code of the block; and the
 * figures at the end. To stderr.
 *
 * Vector state is parked. vCPU thread, or its creator. */
#include "jit/jit_lockstep.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MARK(differs) ((differs) ? '*' : ' ')

static const char *const step_names[] = {
    [STEP_NEXT] = "went on",         [STEP_FAULT] = "fault",          [STEP_BRANCH] = "branch",
    [STEP_END] = "end of block",     [STEP_REPEAT] = "to be repeated", [STEP_RESYNC] = "to be looked up again",
    [STEP_HALT] = "halt",            [STEP_EXIT] = "exit",
};

static const struct cpu *as_cpu(const struct lockstep_state *state)
{
    return (const struct cpu *)(const void *)state->bytes;
}

struct states {
    const struct cpu *before, *translated, *interpreted;
};

/* ---- Registers ---- */

static void print_row(const char *name, uint64_t before, uint64_t interpreted, uint64_t translated, bool differs)
{
    fprintf(stderr, "%c %-10s %016" PRIx64 "  %016" PRIx64 "  %016" PRIx64 "\n", MARK(differs), name, before, interpreted,
            translated);
}

static void print_general(const struct states *s, uint64_t undefined)
{
    static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };

    for (unsigned reg = 0; reg < 16; reg++)
        print_row(names[reg], s->before->gpr[reg], s->interpreted->gpr[reg], s->translated->gpr[reg],
                  s->interpreted->gpr[reg] != s->translated->gpr[reg]);
    print_row("rip", s->before->cpu_rip, s->interpreted->cpu_rip, s->translated->cpu_rip,
              s->interpreted->cpu_rip != s->translated->cpu_rip);
    print_row("rflags", s->before->rflags, s->interpreted->rflags, s->translated->rflags,
              (s->interpreted->rflags ^ s->translated->rflags) & ~undefined);
    if (undefined)
        fprintf(stderr, "  (undefined flags: %" PRIx64 ")\n", undefined);
}

/* Everything else is printed where the two differ. */
struct field {
    const char *name;
    uint16_t offset, size;
};

#define FIELD(member) { #member, offsetof(struct cpu, member), sizeof(((struct cpu *)0)->member) }
#define SEGMENT(name, member)                                                                                          \
    { name ".base", offsetof(struct cpu, member.base), 8 }, { name ".limit", offsetof(struct cpu, member.limit), 4 },  \
        { name ".attr", offsetof(struct cpu, member.attributes), 4 },                                                  \
        { name ".sel", offsetof(struct cpu, member.selector), 2 }, { name ".flat", offsetof(struct cpu, member.flat), 1 }
static const struct field fields[] = {
    FIELD(cpl), FIELD(code_size), FIELD(privilege), FIELD(activity), FIELD(interrupt_shadow), FIELD(nmi_blocked),
    FIELD(in_smm), FIELD(data_breakpoints), FIELD(alignment_check), FIELD(checked_access), FIELD(code_breakpoints),
    FIELD(io_breakpoints), FIELD(debug_shadow), FIELD(step_trap), FIELD(pending_debug), FIELD(cr0), FIELD(cr2),
    FIELD(cr3), FIELD(cr4), FIELD(xcr0), FIELD(dr[0]), FIELD(dr[1]), FIELD(dr[2]), FIELD(dr[3]), FIELD(dr[6]),
    FIELD(dr[7]), FIELD(pkru), SEGMENT("es", segs[SEG_ES]), SEGMENT("cs", segs[SEG_CS]), SEGMENT("ss", segs[SEG_SS]),
    SEGMENT("ds", segs[SEG_DS]), SEGMENT("fs", segs[SEG_FS]), SEGMENT("gs", segs[SEG_GS]), SEGMENT("ldtr", ldtr),
    SEGMENT("tr", tr), FIELD(gdtr.base), FIELD(gdtr.limit), FIELD(idtr.base), FIELD(idtr.limit), FIELD(msrs.efer),
    FIELD(msrs.star), FIELD(msrs.lstar), FIELD(msrs.cstar), FIELD(msrs.fmask), FIELD(msrs.kernel_gs_base),
    FIELD(msrs.tsc_aux), FIELD(msrs.sysenter_cs), FIELD(msrs.sysenter_esp), FIELD(msrs.sysenter_eip),
    FIELD(vector.fx.fcw), FIELD(vector.fx.fsw), FIELD(vector.fx.ftw), FIELD(vector.fx.mxcsr),
};
#undef SEGMENT
#undef FIELD

static uint64_t field_value(const struct cpu *cpu, const struct field *field)
{
    uint64_t value = 0;

    memcpy(&value, (const uint8_t *)cpu + field->offset, field->size);
    return value;
}

static void print_fields(const struct states *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        uint64_t a = field_value(s->interpreted, &fields[i]), b = field_value(s->translated, &fields[i]);
        if (a != b)
            print_row(fields[i].name, field_value(s->before, &fields[i]), a, b, true);
    }
}

static void print_bytes(const char *heading, const uint8_t *bytes, size_t size)
{
    fprintf(stderr, "    %-12s", heading);
    for (size_t i = 0; i < size; i++)
        fprintf(stderr, "%s%02x", i && i % 8 == 0 ? " " : "", bytes[i]);
    fprintf(stderr, "\n");
}

static void print_wide(const char *name, unsigned number, const uint8_t *before, const uint8_t *interpreted,
                       const uint8_t *translated, size_t size)
{
    if (!memcmp(interpreted, translated, size))
        return;
    fprintf(stderr, "* %s%u, lowest byte first\n", name, number);
    print_bytes("before", before, size);
    print_bytes("interpreter", interpreted, size);
    print_bytes("translator", translated, size);
}

static void print_vectors(const struct states *s)
{
    const struct vector_state *before = &s->before->vector, *a = &s->interpreted->vector, *b = &s->translated->vector;

    for (unsigned i = 0; i < 32; i++)
        print_wide("zmm", i, before->vec[i], a->vec[i], b->vec[i], sizeof(a->vec[i]));
    for (unsigned i = 0; i < 8; i++)
        print_wide("k", i, (const uint8_t *)&before->mask[i], (const uint8_t *)&a->mask[i],
                   (const uint8_t *)&b->mask[i], sizeof(a->mask[i]));
    for (unsigned i = 0; i < 8; i++)
        print_wide("st", i, before->fx.st[i], a->fx.st[i], b->fx.st[i], 10);
}

/* ---- Memory ---- */

#define RANGE_MAX  64 /* bytes printed at once */
#define RANGES_MAX 16

/* What the translated block left at this place of the page. */
static uint8_t translated_byte(const struct lockstep_page *page, unsigned at)
{
    return at >= page->low && at < page->high ? page->after[at] : page->before[at];
}

static unsigned print_page(const struct lockstep_page *page, unsigned left)
{
    for (unsigned at = 0; at < PAGE_SIZE && left; at++) {
        uint8_t translated[RANGE_MAX];
        unsigned size = 0;
        while (at + size < PAGE_SIZE && size < RANGE_MAX && translated_byte(page, at + size) != page->host[at + size]) {
            translated[size] = translated_byte(page, at + size);
            size++;
        }
        if (!size)
            continue;
        fprintf(stderr, "* gpa %#" PRIx64, page->gpa + at);
        if (page->tag_count)
            fprintf(stderr, " (gva %#" PRIx64 ")", page->tags[0].page + at);
        fprintf(stderr, ", %u bytes\n", size);
        print_bytes("before", page->before + at, size);
        print_bytes("interpreter", page->host + at, size);
        print_bytes("translator", translated, size);
        at += size;
        left--;
    }
    return left;
}

static void print_memory(const struct lockstep *ls)
{
    unsigned left = RANGES_MAX;

    for (unsigned i = 0; i < ls->memory.page_count; i++)
        left = print_page(&ls->memory.pages[i], left);
    if (left == RANGES_MAX)
        fprintf(stderr, "  all that was written is equal\n");
}

/* ---- Code ---- */

static void print_line(void *opaque, const char *line)
{
    (void)opaque;
    fprintf(stderr, "  %s\n", line);
}

static unsigned bits_of(jit_mode_t mode)
{
    return mode & MODE_CODE64 ? 64 : 32;
}

/* Bytes of the first `count` instructions, which lie in one page but for the last. */
static size_t size_of_instructions(const uint8_t *bytes, size_t available, unsigned count, jit_mode_t mode)
{
    size_t size = 0;

    while (count-- && size < available) {
        struct insn insn = { 0 };
        insn_decode(bytes + size, available - size, mode & MODE_CODE64 ? CODE64 : CODE32, &insn);
        size += MAX(insn.length, 1u);
    }
    return MIN(size, available);
}

static void print_guest_code(const struct lockstep *ls, gpa_t gpa, gva_t rip, unsigned count, jit_mode_t mode,
                             struct jit_disassembler *disassembler)
{
    struct mem_page page = physmem_lookup(ls->cpu->physmem, gpa);
    const uint8_t *bytes = page.host + (gpa & ~PAGE_MASK);

    fprintf(stderr, "guest code, %u instructions:\n", count);
    if (page.host)
        jit_disassemble_lines(disassembler, bytes,
                              size_of_instructions(bytes, PAGE_SIZE - (gpa & ~PAGE_MASK), count, mode), rip,
                              bits_of(mode), print_line, NULL);
}

/* An instruction that lies in two pages. */
static void print_crossing(const struct jit_block *block, gva_t rip, struct jit_disassembler *disassembler)
{
    fprintf(stderr, "guest code, 1 instructions:\n");
    jit_disassemble_lines(disassembler, jit_replays(block)[0].bytes, block->guest_bytes, rip, bits_of(block->mode), print_line,
                          NULL);
}

static void print_host_code(const struct lockstep *ls, const struct jit_block *block,
                            struct jit_disassembler *disassembler)
{
    const uint8_t *code = ls->jit->code.execute;

    fprintf(stderr, "host code; the guest's instructions begin at");
    for (unsigned i = 0; i < block->insn_count; i++)
        fprintf(stderr, " +%#x", block->marks[i].host);
    fprintf(stderr, ":\n");
    jit_disassemble_lines(disassembler, code + block->hot, block->hot_size, (uintptr_t)code + block->hot, 64, print_line,
                          NULL);
    fprintf(stderr, "host code, out of line, with records among it:\n");
    jit_disassemble_lines(disassembler, code + block->cold, block->cold_size, (uintptr_t)code + block->cold, 64,
                          print_line, NULL);
}

#define HOST_CODE_OF 4 /* blocks, the last ones */

/* The translator's blocks need not begin and end where the interpreter's do: those that are not found are part of others. */
static void print_slice(const struct lockstep *ls, struct jit_disassembler *disassembler)
{
    unsigned first = ls->trace_count > LOCKSTEP_TRACE ? ls->trace_count - LOCKSTEP_TRACE : 0;

    fprintf(stderr, "executed by the interpreter%s:\n", first ? ", the last of it" : "");
    for (unsigned i = first; i < ls->trace_count; i++) {
        const struct lockstep_trace *entry = &ls->trace[i % LOCKSTEP_TRACE];
        const struct jit_block *block = jit_block_find(ls->jit, entry->gpa, entry->mode, 0);
        fprintf(stderr, "-- rip %#" PRIx64 ", gpa %#" PRIx64 ", mode %#x\n", entry->rip, entry->gpa, entry->mode);
        print_guest_code(ls, entry->gpa, entry->rip, entry->count, entry->mode, disassembler);
        if (block && i + HOST_CODE_OF >= ls->trace_count)
            print_host_code(ls, block, disassembler);
    }
}

static void print_outcome(const char *who, const struct lockstep_outcome *outcome)
{
    fprintf(stderr, "  %s: %u instructions, then: %s", who, outcome->executed, step_names[outcome->step]);
    if (outcome->step == STEP_FAULT && outcome->fault.vector == VECTOR_WITHHELD)
        fprintf(stderr, ", an access to a device");
    else if (outcome->step == STEP_FAULT)
        fprintf(stderr, ", vector %u, error code %#x, address %#" PRIx64, outcome->fault.vector, outcome->fault.error,
                outcome->fault.address);
    fprintf(stderr, "%s\n", outcome->host_fault ? "; it accessed host memory that it must not" : "");
}

void lockstep_report(struct lockstep *ls, const struct lockstep_plan *plan, const struct lockstep_outcome *translated,
                     const struct lockstep_outcome *interpreted)
{
    const struct states s = { as_cpu(&ls->before), as_cpu(&ls->translated), as_cpu(&ls->interpreted) };
    struct jit_disassembler *disassembler = jit_disassembler_create();

    fprintf(stderr,
            "\neidolon: lockstep: translator and interpreter differ, after %" PRIu64 " instructions that were equal\n"
            "%s at rip %#" PRIx64 ", CPL %u\n",
            ls->compared, plan ? "block" : "chained blocks", s.before->cpu_rip, s.before->cpl);
    print_outcome("interpreter", interpreted);
    print_outcome("translator ", translated);
    fprintf(stderr, "registers:   %-16s  %-16s  translator\n", "before", "interpreter");
    print_general(&s, interpreted->undefined);
    print_fields(&s);
    print_vectors(&s);
    fprintf(stderr, "memory:\n");
    print_memory(ls);
    if (disassembler && plan) {
        if (plan->second_page)
            print_crossing(plan->block, s.before->cpu_rip, disassembler);
        else
            print_guest_code(ls, plan->gpa, s.before->cpu_rip, plan->count, plan->mode, disassembler);
        print_host_code(ls, plan->block, disassembler);
    } else if (disassembler) {
        print_slice(ls, disassembler);
    }
    jit_disassembler_destroy(disassembler);
}

void lockstep_say(const char *text)
{
    fprintf(stderr, "\neidolon: lockstep: %s\n", text);
}

void lockstep_summary(const struct lockstep *ls)
{
    static const char *const texts[] = {
#define REASON(name, text) [REASON_##name] = text,
        LOCKSTEP_REASONS(REASON)
#undef REASON
    };
    uint64_t executed = ls->compared;

    for (unsigned i = 0; i < REASON_COUNT; i++)
        executed += ls->not_compared[i];
    fprintf(stderr,
            "eidolon: lockstep: %" PRIu64 " instructions executed, %" PRIu64 " compared (%.4f %%) in %" PRIu64
            " steps; %" PRIu64 " exceptions compared; %s\n",
            executed, ls->compared, executed ? 100.0 * (double)ls->compared / (double)executed : 100.0, ls->steps,
            ls->exceptions, ls->failed ? "stopped at a difference" : "no difference");
    if (ls->leaked)
        fprintf(stderr, "eidolon: lockstep: %" PRIu64 " slices stored undefined flags: compared block by block\n", ls->leaked);
    for (unsigned i = 0; i < REASON_COUNT; i++)
        if (ls->not_compared[i])
            fprintf(stderr, "eidolon: lockstep: not compared: %" PRIu64 " %s\n", ls->not_compared[i], texts[i]);
}
