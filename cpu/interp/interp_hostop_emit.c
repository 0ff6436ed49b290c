/* The code of host-op stubs: the guest's instruction with its operands renamed to fixed host registers, between
 * loads of the guest registers that it names and stores of those that it writes.
 *
 *   rdi  memory operand            xmm1 / mm1 / rax  ModRM.reg
 *   rsi  &ModRM.reg register       xmm2 / mm2 / rax  ModRM.rm (no instruction names two GPRs explicitly)
 *   rdx  &ModRM.rm register        xmm3 / rax        VEX.vvvv
 *   rcx  &VEX.vvvv register        xmm4              immediate[7:4]
 *   r8   &immediate[7:4] register  xmm0, rax, rdx, rcx  implicit operands
 *   r9   struct vector_state
 *
 * entry: loads; the instruction; stores; rax = result, with flags
 * exit:  emms / fninit / vzeroupper; ret
 *
 * A fault in the instruction continues at exit with rax = enum hostop_outcome (interp_hostop_signal.c): nothing has been
 * stored then, and MXCSR has the flags that the hardware set. The stub never moves rsp while it may fault. MXCSR is the
 * caller's business (hostop_enter_mxcsr).
 *
 * Legacy SSE stubs move 16 bytes and leave the rest of the guest register alone; VEX stubs zero it. A stub that
 * used 256-bit registers ends in vzeroupper, so that the SSE code around it runs at full speed.
 * Encodings: SDM Vol. 2A chapter 2. Pure; any thread. */
#include <string.h>

#include "cpu/interp/interp_hostop.h"

enum { HOST_RAX, HOST_RCX, HOST_RDX, HOST_RBX, HOST_RSP, HOST_RBP, HOST_RSI, HOST_RDI, HOST_R8, HOST_R9, HOST_R10 };

/* The host register that holds the pointer of each slot, and the vector or MMX register that stands for it. */
static const uint8_t slot_pointer[SLOT_COUNT] = { HOST_RSI, HOST_RDX, HOST_RCX, HOST_R8 };
static const uint8_t slot_register[SLOT_COUNT] = { 1, 2, 3, 4 };

struct out {
    uint8_t *bytes;
    unsigned length, capacity;
};

static void put(struct out *out, const void *bytes, unsigned count)
{
    if (out->length + count <= out->capacity)
        memcpy(out->bytes + out->length, bytes, count);
    out->length += count;
}

#define PUT(out, ...)                                                                                                  \
    do {                                                                                                               \
        static const uint8_t put_bytes_[] = { __VA_ARGS__ };                                                           \
        put(out, put_bytes_, sizeof(put_bytes_));                                                                      \
    } while (0)

static void put_byte(struct out *out, unsigned byte)
{
    uint8_t b = (uint8_t)byte;
    put(out, &b, 1);
}

static void put_disp32(struct out *out, size_t disp)
{
    uint32_t d = (uint32_t)disp;
    put(out, &d, 4);
}

/* ---- The instruction itself ---- */

static unsigned slot_number(const struct hostop_plan *plan, enum hostop_slot slot)
{
    return plan->kind[slot] == SLOT_NONE || plan->kind[slot] == SLOT_GPR ? 0 : slot_register[slot];
}

static unsigned modrm_byte(const struct hostop_plan *plan)
{
    const struct insn *insn = plan->insn;
    bool digit =
        insn->row->modrm == MODRM_EXT || insn->row->modrm == MODRM_EXT_MEM || insn->row->modrm == MODRM_EXT_REG;
    unsigned reg = digit ? insn->row->modrm_value : slot_number(plan, SLOT_REG);
    return plan->has_memory ? reg << 3 | HOST_RDI : 0xc0 | reg << 3 | slot_number(plan, SLOT_RM);
}

static unsigned immediate_bytes(const struct insn *insn)
{
    unsigned count = 0;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        unsigned type = insn->row->operands[i].type;
        if (type == OT_Lx || type == OT_Ldq || type == OT_Lqq)
            return 1; /* the register's number and perhaps 4 more bits share a byte */
        count += type == OT_Ib || type == OT_Ib2;
    }
    return count;
}

static void put_immediates(struct out *out, const struct hostop_plan *plan)
{
    unsigned count = immediate_bytes(plan->insn);
    if (count && plan->kind[SLOT_IS4] != SLOT_NONE)
        put_byte(out, slot_register[SLOT_IS4] << 4); /* bits 3:0 mean nothing in AVX */
    else if (count == 1)
        put_byte(out, (unsigned)plan->insn->imm);
    if (count == 2) { /* EXTRQ, INSERTQ: six bits each count; dropping the others bounds the number of stubs */
        put_byte(out, (unsigned)plan->insn->imm & 0x3f);
        put_byte(out, (unsigned)plan->insn->imm2 & 0x3f);
    }
}

static void encode_legacy(struct out *out, const struct hostop_plan *plan)
{
    const struct insn *insn = plan->insn;
    switch (insn->row->prefix) {
    case PREFIX_66:
        put_byte(out, 0x66);
        break;
    case PREFIX_F3:
        put_byte(out, 0xf3);
        break;
    case PREFIX_F2:
        put_byte(out, 0xf2);
        break;
    case PREFIX_NP_66:
        if (insn->prefix_66)
            put_byte(out, 0x66);
        break;
    default:
        break;
    }
    if (plan->w)
        put_byte(out, 0x48);
    put_byte(out, 0x0f);
    if (insn->row->map == MAP_0F38)
        put_byte(out, 0x38);
    else if (insn->row->map == MAP_0F3A)
        put_byte(out, 0x3a);
    put_byte(out, insn->opcode);
    put_byte(out, modrm_byte(plan));
    put_immediates(out, plan);
}

/* C4 | R' X' B' mmmmm | W vvvv' L pp | opcode | ModRM */
static void encode_vex(struct out *out, const struct hostop_plan *plan)
{
    const struct insn *insn = plan->insn;
    unsigned map = 1u + insn->row->map - MAP_VEX_0F;
    unsigned pp = insn->row->prefix == PREFIX_66   ? 1
                  : insn->row->prefix == PREFIX_F3 ? 2
                  : insn->row->prefix == PREFIX_F2 ? 3
                                                   : 0;
    put_byte(out, 0xc4);
    put_byte(out, 0xe0 | map);
    put_byte(out, (unsigned)plan->w << 7 | (~slot_number(plan, SLOT_VVVV) & 15) << 3 | (unsigned)plan->wide << 2 | pp);
    put_byte(out, insn->opcode);
    put_byte(out, modrm_byte(plan));
    put_immediates(out, plan);
}

unsigned hostop_encode(const struct hostop_plan *plan, uint8_t bytes[15])
{
    struct out out = { bytes, 0, 15 };
    if (plan->x87) {
        put_byte(&out, plan->insn->opcode);
        put_byte(&out, plan->has_memory ? (plan->insn->modrm & 0x38) | HOST_RDI : plan->insn->modrm);
    } else if (plan->vex) {
        encode_vex(&out, plan);
    } else {
        encode_legacy(&out, plan);
    }
    return out.length <= 15 ? out.length : 0;
}

/* ---- Around it ---- */

/* movups between xmm `reg` and [pointer + disp8]; vmovups of xmm or ymm in VEX stubs. */
static void put_vector_move(struct out *out, bool store, bool vex, bool wide, unsigned reg, unsigned pointer,
                            unsigned disp)
{
    if (vex) {
        put_byte(out, 0xc4);
        put_byte(out, pointer >= 8 ? 0xc1 : 0xe1);
        put_byte(out, wide ? 0x7c : 0x78);
    } else {
        if (pointer >= 8)
            put_byte(out, 0x41);
        put_byte(out, 0x0f);
    }
    put_byte(out, store ? 0x11 : 0x10);
    put_byte(out, (disp ? 0x40 : 0) | reg << 3 | (pointer & 7));
    if (disp)
        put_byte(out, disp);
}

static void put_mmx_move(struct out *out, bool store, unsigned reg, unsigned pointer)
{
    put_byte(out, 0x0f);
    put_byte(out, store ? 0x7f : 0x6f);
    put_byte(out, reg << 3 | pointer); /* slots REG and RM only: no REX needed */
}

/* mov between a GPR and [pointer + disp8], 64 bits: the upper half of a 32-bit result is zero already */
static void put_gpr_move(struct out *out, bool store, unsigned reg, unsigned pointer, unsigned disp)
{
    put_byte(out, pointer >= 8 ? 0x49 : 0x48);
    put_byte(out, store ? 0x89 : 0x8b);
    put_byte(out, (disp ? 0x40 : 0) | reg << 3 | (pointer & 7));
    if (disp)
        put_byte(out, disp);
}

static const size_t fx_offset = offsetof(struct vector_state, fx);
_Static_assert(offsetof(struct vector_state, vec) == 0, "xmm0 is at [r9]");
_Static_assert(offsetof(struct vector_state, fx) % 16 == 0, "fxsave wants alignment");

static bool is_loaded(const struct hostop_plan *plan, unsigned slot)
{
    /* Legacy SSE leaves parts of a destination alone (movss, sqrtss, pinsrw): always load it. */
    return plan->kind[slot] != SLOT_NONE &&
           (!plan->vex || plan->access[slot] & ACCESS_R || plan->kind[slot] != SLOT_VEC);
}

static void put_loads(struct out *out, const struct hostop_plan *plan)
{
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
        if (!is_loaded(plan, slot))
            continue;
        if (plan->kind[slot] == SLOT_VEC)
            put_vector_move(out, false, plan->vex, plan->wide, slot_register[slot], slot_pointer[slot], 0);
        else if (plan->kind[slot] == SLOT_MMX)
            put_mmx_move(out, false, slot_register[slot], slot_pointer[slot]);
        else
            put_gpr_move(out, false, HOST_RAX, slot_pointer[slot], 0);
    }
    if (plan->xmm0_in)
        put_vector_move(out, false, plan->vex, false, 0, HOST_R9, 0);
    if (plan->length_in || plan->ecx_out)
        PUT(out, 0x49, 0x89, 0xca); /* mov r10, rcx: the GPR file; rcx is about to be written */
    if (plan->length_in) {
        put_gpr_move(out, false, HOST_RAX, HOST_R10, 0);
        put_gpr_move(out, false, HOST_RDX, HOST_R10, 8 * REG_RDX);
    }
}

/* The upper part of a VEX destination becomes zero up to the widest register there is. */
static void put_vector_result(struct out *out, const struct hostop_plan *plan, unsigned reg, unsigned pointer)
{
    put_vector_move(out, true, plan->vex, plan->vex, reg, pointer, 0);
    if (!plan->vex)
        return;
    PUT(out, 0xc5, 0xd0, 0x57, 0xed); /* vxorps xmm5, xmm5, xmm5 */
    put_vector_move(out, true, true, true, 5, pointer, 32);
}

static void put_stores(struct out *out, const struct hostop_plan *plan)
{
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
        if (!(plan->access[slot] & ACCESS_W))
            continue;
        if (plan->kind[slot] == SLOT_VEC)
            put_vector_result(out, plan, slot_register[slot], slot_pointer[slot]);
        else if (plan->kind[slot] == SLOT_MMX)
            put_mmx_move(out, true, slot_register[slot], slot_pointer[slot]);
        else if (plan->kind[slot] == SLOT_GPR)
            put_gpr_move(out, true, HOST_RAX, slot_pointer[slot], 0);
    }
    if (plan->xmm0_out)
        put_vector_result(out, plan, 0, HOST_R9);
    if (plan->ecx_out)
        put_gpr_move(out, true, HOST_RCX, HOST_R10, 8 * REG_RCX);
}

static void put_flags_result(struct out *out, const struct hostop_plan *plan)
{
    if (plan->writes_flags)
        PUT(out, 0x48, 0xc1, 0xe0, 0x20); /* shl rax, 32 */
    else
        PUT(out, 0x31, 0xc0); /* xor eax, eax */
}

static unsigned emit_vector(struct out *out, const struct hostop_plan *plan, const uint8_t *bytes, unsigned length)
{
    put_loads(out, plan);
    put(out, bytes, length);
    put_stores(out, plan); /* moves: flags stay */
    if (plan->writes_flags)
        PUT(out, 0x9c, 0x58); /* pushfq; pop rax */
    put_flags_result(out, plan);
    unsigned exit_offset = out->length;
    if (plan->kind[SLOT_REG] == SLOT_MMX || plan->kind[SLOT_RM] == SLOT_MMX)
        PUT(out, 0x0f, 0x77); /* emms */
    if (plan->wide)
        PUT(out, 0xc5, 0xf8, 0x77); /* vzeroupper */
    return exit_offset;
}

/* The whole x87 state goes in and out as an FXSAVE image; the caller puts FIP, FDP and FOP right. */
static unsigned emit_x87(struct out *out, const struct hostop_plan *plan, const uint8_t *bytes, unsigned length)
{
    PUT(out, 0x49, 0x0f, 0xae, 0x89); /* fxrstor64 [r9 + disp32] */
    put_disp32(out, fx_offset);
    if (plan->reads_flags)
        PUT(out, 0x51, 0x9d); /* push rcx; popfq */
    put(out, bytes, length);
    if (plan->writes_flags)
        PUT(out, 0x9c, 0x58);         /* pushfq; pop rax */
    PUT(out, 0x49, 0x0f, 0xae, 0x81); /* fxsave64 [r9 + disp32] */
    put_disp32(out, fx_offset);
    put_flags_result(out, plan);
    unsigned exit_offset = out->length;
    PUT(out, 0xdb, 0xe3); /* fninit */
    return exit_offset;
}

bool hostop_emit(const struct hostop_plan *plan, const uint8_t *bytes, unsigned length, uint8_t stub[HOSTOP_STUB_SIZE])
{
    struct out out = { stub, 0, HOSTOP_STUB_SIZE - 1 };
    unsigned exit_offset = plan->x87 ? emit_x87(&out, plan, bytes, length) : emit_vector(&out, plan, bytes, length);
    PUT(&out, 0xc3); /* ret */
    if (out.length > out.capacity)
        return false;
    memset(stub + out.length, 0xcc, HOSTOP_STUB_SIZE - 1 - out.length);
    stub[HOSTOP_STUB_SIZE - 1] = (uint8_t)exit_offset;
    return true;
}
