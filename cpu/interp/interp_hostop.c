/* Host ops: finds or makes the stub that executes a guest vector, MMX or x87 instruction on the host.
 *
 * Only rows whose handler is vec, vec_flags, mmx or x87 come here: that is the allow-list (design, 6a.15). What
 * the host lacks, EVEX (not yet), LOCK, and operands that have no place in a stub are refused.
 *
 * Stubs are never freed, so a block may keep pointers to them for ever: there is one per *normalised* encoding
 * (interp_hostop.h), and those are few. With every immediate of every form that has one, a hostile guest
 * can make about 89,000 of them (11 MiB); the region has room for 131,072. A Linux guest makes a few hundred.
 *
 * One table per process, shared by all vCPUs and guarded by a lock that is taken only when a block is
 * built. It is mutable file-scope state because signal handlers and what they divert to are per process too.
 * SDM Vol. 2A chapter 2; Vol. 1 chapters 8 to 14. */
#include <stdlib.h>
#include <string.h>

#include "base/host_memory.h"
#include "cpu/interp/interp_hostop.h"

#define REGION_SIZE (16 * MIB)
#define BUCKETS     4096

static struct hostop_table {
    pthread_mutex_t lock; /* guards all below */
    pthread_once_t once;
    struct host_code code;
    size_t used; /* bytes of `code` */
    struct hostop *buckets[BUCKETS];
    bool host_has[FEATURE_COUNT], avx; /* constant after `once` */
    bool ready;
} table = { .lock = PTHREAD_MUTEX_INITIALIZER, .once = PTHREAD_ONCE_INIT };

/* What a row gets whose feature the guest's CPU model lacks. */
static const struct hostop undefined_hostop = { .kind = HOSTOP_UD };

/* ---- What the host has ---- */

enum { REGISTER_EAX, REGISTER_EBX, REGISTER_ECX, REGISTER_EDX };
static const struct {
    uint32_t leaf;
    uint8_t subleaf, reg, bit;
} feature_bits[FEATURE_COUNT] = {
#define FEATURE(id, name, leaf, subleaf, reg, bit) [FEATURE_##id] = { leaf, subleaf, REGISTER_##reg, bit },
#include "cpu/features.def"
#undef FEATURE
};

static bool host_feature(unsigned feature)
{
    uint32_t leaf = feature_bits[feature].leaf;
    if (!leaf)
        return true; /* FEATURE_BASE */
    if (host_cpuid(leaf & 0xffff0000, 0).eax < leaf)
        return false;
    struct cpuid_regs regs = host_cpuid(leaf, feature_bits[feature].subleaf);
    const uint32_t values[] = { regs.eax, regs.ebx, regs.ecx, regs.edx };
    return values[feature_bits[feature].reg] >> feature_bits[feature].bit & 1;
}

static void table_create(void)
{
    struct error err;
    if (host_code_create(&table.code, REGION_SIZE, &err)) {
        log_warn("no memory for host stubs (%s): the guest's vector and x87 instructions raise #UD", err.text);
        return;
    }
    for (unsigned i = 0; i < FEATURE_COUNT; i++)
        table.host_has[i] = host_feature(i);
    table.avx = host_has_avx();
    hostop_install_signals(table.code.execute, table.code.size);
    table.ready = true;
}

static bool host_can_run(const struct insn *insn)
{
    if (!table.host_has[insn->row->feature])
        return false;
    return !insn->vex.kind || table.avx;
}

/* ---- From a decoded instruction to a plan ---- */

static const char *const operand_type_names[OT_COUNT] = {
#define OPERAND_TYPE(name) [OT_##name] = #name,
#include "cpu/decode/operand_types.def"
#undef OPERAND_TYPE
};

/* The first letter of an operand type says which field of the encoding names it (row.h). */
static int operand_slot(unsigned type)
{
    switch (operand_type_names[type][0]) {
    case 'V':
    case 'G':
    case 'P':
        return SLOT_REG;
    case 'W':
    case 'U':
    case 'Q':
    case 'N':
    case 'E':
    case 'R':
        return SLOT_RM;
    case 'H':
    case 'B':
        return SLOT_VVVV;
    case 'L':
        return SLOT_IS4;
    default:
        return -1;
    }
}

static bool is_gpr_sized(unsigned type)
{
    char letter = operand_type_names[type][0];
    return letter == 'E' || letter == 'G' || letter == 'R' || letter == 'B' || letter == 'r'; /* rAXy: pcmpestr */
}

static bool plan_register(struct hostop_plan *plan, unsigned n)
{
    static const uint8_t kinds[] = { [OPERAND_GPR] = SLOT_GPR, [OPERAND_MMX] = SLOT_MMX, [OPERAND_VEC] = SLOT_VEC };
    const struct operand *operand = &plan->insn->operands[n];
    int slot = operand_slot(plan->insn->row->operands[n].type);
    unsigned kind = operand->kind < ARRAY_SIZE(kinds) ? kinds[operand->kind] : SLOT_NONE;
    if (slot < 0 || kind == SLOT_NONE || plan->kind[slot] != SLOT_NONE)
        return false;
    plan->kind[slot] = (uint8_t)kind;
    plan->access[slot] = operand->access & ACCESS_RW;
    plan->operand[slot] = (uint8_t)n;
    return true;
}

/* rAX, rDX, rCX, XMM0 that the opcode fixes: pcmpestr, pcmpistr, blendv, sha256rnds2. */
static bool plan_implicit(struct hostop_plan *plan, unsigned n)
{
    const struct operand_spec *spec = &plan->insn->row->operands[n];
    switch (spec->type) {
    case OT_XMM0:
        plan->xmm0_in |= spec->access & ACCESS_R;
        plan->xmm0_out |= !!(spec->access & ACCESS_W);
        return true;
    case OT_ECX:
        plan->ecx_out = true;
        return spec->access == ACCESS_W;
    case OT_EAX:
    case OT_EDX:
    case OT_rAXy:
    case OT_rDXy:
    case OT_rAXv:
    case OT_rDXv:
        plan->length_in = true;
        return spec->access == ACCESS_R;
    default:
        return false;
    }
}

static bool plan_operand(struct hostop_plan *plan, unsigned n)
{
    switch (plan->insn->operands[n].kind) {
    case OPERAND_NONE:
    case OPERAND_IMM:
    case OPERAND_ST:
        return true;
    case OPERAND_MEM:
        plan->has_memory = true;
        return plan->insn->operands[n].size >= 1 && plan->insn->operands[n].size <= 64 && !plan->insn->mem.vsib;
    default:
        return plan->insn->row->operands[n].implicit ? plan_implicit(plan, n) : plan_register(plan, n);
    }
}

static bool class_uses_mxcsr(unsigned exception_class)
{
    switch (exception_class) {
    case EXC_SSE_FP:
    case EXC_SSE_FP_ALIGNED:
    case EXC_VEX_FP:
    case EXC_EVEX_FP:
    case EXC_SSE_INT_MMX:
        return true;
    default:
        return false;
    }
}

/* W matters where the row says so, and where it is the width of a GPR (in 64-bit mode only). Elsewhere it is
 * ignored: dropped, so that it does not multiply stubs. */
static bool plan_w(const struct insn *insn)
{
    bool gpr = false;
    for (unsigned i = 0; i < insn->operand_count; i++)
        gpr |= is_gpr_sized(insn->row->operands[i].type);
    if (gpr && insn->code_size != CODE64)
        return false;
    if (!gpr && !(insn->row->attributes & (ATTR_W0 | ATTR_W1 | ATTR_W0_64)))
        return false;
    return insn->vex.kind ? insn->vex.w : insn->rex & 8;
}

static bool make_plan(const struct insn *insn, struct hostop_plan *plan)
{
    const struct insn_row *row = insn->row;
    *plan = (struct hostop_plan){ .insn = insn };
    switch (row->map) {
    case MAP_0F:
    case MAP_0F38:
    case MAP_0F3A:
        break;
    case MAP_VEX_0F:
    case MAP_VEX_0F38:
    case MAP_VEX_0F3A:
        plan->vex = true;
        plan->wide = insn->vex.l && !(row->attributes & ATTR_VEX_LIG);
        break;
    case MAP_X87:
        plan->x87 = true;
        break;
    default:
        return false;
    }
    if (insn->lock || !insn->has_modrm || insn->vex.kind == 4)
        return false;
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (!plan_operand(plan, i))
            return false;
    /* rcx is one of two things */
    if ((plan->length_in || plan->ecx_out) && plan->kind[SLOT_VVVV] != SLOT_NONE)
        return false;
    plan->w = plan_w(insn);
    plan->reads_flags = row->flags_read & FLAGS_ARITH;
    plan->writes_flags = (row->flags_written | row->flags_undefined) & FLAGS_ARITH;
    return plan->x87 || !plan->reads_flags;
}

/* ---- From a plan to a stub ---- */

static unsigned align_mask(const struct insn_row *row, unsigned size)
{
    switch (row->exception_class) {
    case EXC_SSE_ALIGNED:
    case EXC_SSE_FP_ALIGNED:
    case EXC_SSE_INT_MMX: /* the last: cvtpd2pi */
        return size == 16 ? 15 : 0;
    case EXC_VEX_ALIGNED:
        return size - 1;
    default:
        return 0;
    }
}

static void describe_slots(struct hostop *hostop, const struct hostop_plan *plan)
{
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
        hostop->slots[slot].kind = plan->kind[slot];
        hostop->slots[slot].operand = plan->operand[slot];
        switch (plan->kind[slot]) {
        case SLOT_VEC:
            hostop->slots[slot].base = offsetof(struct cpu, vector.vec);
            hostop->slots[slot].mask = 31;
            hostop->slots[slot].shift = 6;
            break;
        case SLOT_GPR:
            hostop->slots[slot].base = offsetof(struct cpu, gpr);
            hostop->slots[slot].mask = 15;
            hostop->slots[slot].shift = 3;
            break;
        case SLOT_MMX: /* depends on TOP: the handler finds it */
            hostop->has_mmx = true;
            hostop->slots[slot].mask = 7;
            if (plan->access[slot] & ACCESS_W)
                hostop->mmx_written = (uint8_t)(slot + 1);
            break;
        default:
            break;
        }
    }
    if (plan->length_in || plan->ecx_out)
        hostop->slots[SLOT_VVVV].base = offsetof(struct cpu, gpr);
}

static void describe(struct hostop *hostop, const struct hostop_plan *plan)
{
    const struct insn *insn = plan->insn;
    hostop->row = insn->row;
    hostop->kind = plan->x87 ? HOSTOP_X87 : HOSTOP_VECTOR;
    hostop->writes_flags = plan->writes_flags;
    hostop->reads_flags = plan->reads_flags;
    hostop->uses_mxcsr = class_uses_mxcsr(insn->row->exception_class);
    for (unsigned i = 0; i < insn->operand_count; i++) {
        if (insn->operands[i].kind != OPERAND_MEM)
            continue;
        hostop->mem_access = insn->operands[i].access & ACCESS_RW;
        hostop->mem_size = (uint8_t)insn->operands[i].size;
        hostop->align_mask = (uint8_t)align_mask(insn->row, insn->operands[i].size);
    }
    describe_slots(hostop, plan);
    /* CVTPI2PS and CVTPI2PD from memory touch no MMX state: processors check no pending x87 exception then. */
    hostop->exception_class = insn->row->exception_class;
    if (hostop->exception_class == EXC_SSE_INT_MMX && !hostop->has_mmx)
        hostop->exception_class = EXC_SSE_FP;
}

static struct hostop **bucket_of(const struct insn_row *row, const uint8_t *bytes, unsigned length)
{
    uint64_t hash = (uintptr_t)row * 0x9e3779b97f4a7c15ull;
    for (unsigned i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3ull;
    return &table.buckets[(hash ^ hash >> 32) % BUCKETS];
}

static struct hostop *find(struct hostop *hostop, const struct insn_row *row, const uint8_t *bytes, unsigned length)
{
    for (; hostop; hostop = hostop->next)
        if (hostop->row == row && hostop->length == length && !memcmp(hostop->bytes, bytes, length))
            return hostop;
    return NULL;
}

static const struct hostop *create(const struct hostop_plan *plan, const uint8_t *bytes, unsigned length,
                                   struct hostop **bucket)
{
    uint8_t stub[HOSTOP_STUB_SIZE];
    if (table.used + HOSTOP_STUB_SIZE > table.code.size) {
        log_warn("the region for host stubs is full: %s raises #UD", plan->insn->row->mnemonic);
        return NULL;
    }
    if (!hostop_emit(plan, bytes, length, stub))
        return NULL;
    struct hostop *hostop = calloc(1, sizeof(*hostop));
    if (!hostop)
        return NULL;
    describe(hostop, plan);
    memcpy(hostop->bytes, bytes, length);
    hostop->length = (uint8_t)length;
    memcpy(table.code.write + table.used, stub, sizeof(stub));
    hostop->code = (hostop_code *)(uintptr_t)(table.code.execute + table.used);
    table.used += HOSTOP_STUB_SIZE;
    hostop->next = *bucket;
    *bucket = hostop;
    return hostop;
}

const void *hostop_prepare(struct cpu *cpu, const struct insn *insn)
{
    struct hostop_plan plan;
    uint8_t bytes[15];
    if (!cpu_has(cpu, insn->row->feature))
        return &undefined_hostop;
    cpu_park_vectors(cpu); /* locks, allocates */
    pthread_once(&table.once, table_create);
    if (!table.ready || !host_can_run(insn) || !make_plan(insn, &plan))
        return NULL;
    unsigned length = hostop_encode(&plan, bytes);
    if (!length)
        return NULL;
    struct hostop **bucket = bucket_of(insn->row, bytes, length);
    pthread_mutex_lock(&table.lock);
    const struct hostop *hostop = find(*bucket, insn->row, bytes, length);
    if (!hostop)
        hostop = create(&plan, bytes, length, bucket);
    pthread_mutex_unlock(&table.lock);
    return hostop;
}
