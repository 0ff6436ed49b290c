/* First pass of the translator: decodes a block and says of each instruction how it is translated and which registers and
 * flags it touches.
 *
 * What is executed on the host is an allow-list of handlers (design, 6a.15): everything else goes to the interpreter's handler. */
#include "jit/jit_translate.h"

static const char operand_letter[OT_COUNT] = {
#define OPERAND_TYPE(name) [OT_##name] = #name[0],
#include "cpu/decode/operand_types.def"
#undef OPERAND_TYPE
};

/* ---- Kinds ---- */

enum { N = 1 + KIND_NATIVE }; /* 0: not listed, a helper */
static const uint8_t kind_of_handler[HANDLER_COUNT] = {
#define NATIVE(name) [HANDLER_##name] = N
    NATIVE(add), NATIVE(or), NATIVE(adc), NATIVE(sbb), NATIVE(and), NATIVE(sub), NATIVE(xor), NATIVE(cmp), NATIVE(test),
    NATIVE(inc), NATIVE(dec), NATIVE(neg), NATIVE(not), NATIVE(mul), NATIVE(imul1), NATIVE(imul), NATIVE(div), NATIVE(idiv),
    NATIVE(rol), NATIVE(ror), NATIVE(rcl), NATIVE(rcr), NATIVE(shl), NATIVE(shr), NATIVE(sar), NATIVE(shld), NATIVE(shrd),
    NATIVE(mov), NATIVE(movzx), NATIVE(movsx), NATIVE(movsxd), NATIVE(xchg), NATIVE(xadd), NATIVE(cmpxchg),
    NATIVE(cmpxchg8b), NATIVE(cmpxchg16b), NATIVE(bswap), NATIVE(movbe), NATIVE(bt), NATIVE(bts), NATIVE(btr), NATIVE(btc),
    NATIVE(bsf), NATIVE(bsr), NATIVE(tzcnt), NATIVE(lzcnt), NATIVE(popcnt), NATIVE(crc32), NATIVE(cbw), NATIVE(cwd),
    NATIVE(lahf), NATIVE(sahf), NATIVE(clc), NATIVE(stc), NATIVE(cmc), NATIVE(setcc), NATIVE(cmovcc), NATIVE(adcx),
    NATIVE(adox), NATIVE(andn), NATIVE(bextr), NATIVE(blsi), NATIVE(blsmsk), NATIVE(blsr), NATIVE(bzhi), NATIVE(mulx),
    NATIVE(pdep), NATIVE(pext), NATIVE(rorx), NATIVE(sarx), NATIVE(shlx), NATIVE(shrx), NATIVE(movnti), NATIVE(lfence),
    NATIVE(mfence), NATIVE(sfence), NATIVE(pause), NATIVE(vec), NATIVE(vec_flags), NATIVE(mmx), NATIVE(x87), NATIVE(emms),
    NATIVE(zeroupper), NATIVE(fnclex), NATIVE(fninit), NATIVE(fldcw), NATIVE(fnstcw), NATIVE(fnstsw), NATIVE(fwait),
    NATIVE(ldmxcsr), NATIVE(stmxcsr),
#undef NATIVE
    [HANDLER_nop] = 1 + KIND_NOTHING, [HANDLER_prefetch] = 1 + KIND_NOTHING,
    [HANDLER_lea] = 1 + KIND_LEA, [HANDLER_push] = 1 + KIND_PUSH, [HANDLER_pop] = 1 + KIND_POP,
    [HANDLER_leave] = 1 + KIND_LEAVE, [HANDLER_jcc] = 1 + KIND_JCC, [HANDLER_loop] = 1 + KIND_LOOP,
    [HANDLER_loope] = 1 + KIND_LOOP, [HANDLER_loopne] = 1 + KIND_LOOP, [HANDLER_jcxz] = 1 + KIND_LOOP,
    [HANDLER_jmp] = 1 + KIND_JMP, [HANDLER_call] = 1 + KIND_CALL, [HANDLER_ret] = 1 + KIND_RET,
    [HANDLER_ret_imm] = 1 + KIND_RET, [HANDLER_jmp_ind] = 1 + KIND_JMP_INDIRECT,
    [HANDLER_call_ind] = 1 + KIND_CALL_INDIRECT, [HANDLER_pushf] = 1 + KIND_PUSH,
    [HANDLER_cli] = 1 + KIND_SYSTEM, [HANDLER_sti] = 1 + KIND_SYSTEM, [HANDLER_swapgs] = 1 + KIND_SYSTEM,
    [HANDLER_rdtsc] = 1 + KIND_SYSTEM, [HANDLER_rdtscp] = 1 + KIND_SYSTEM, [HANDLER_rdfsbase] = 1 + KIND_SYSTEM,
    [HANDLER_rdgsbase] = 1 + KIND_SYSTEM, [HANDLER_mov_from_seg] = 1 + KIND_SYSTEM,
    [HANDLER_wrfsbase] = 1 + KIND_SYSTEM, [HANDLER_wrgsbase] = 1 + KIND_SYSTEM, [HANDLER_mov_from_cr] = 1 + KIND_SYSTEM,
    [HANDLER_stac] = 1 + KIND_SYSTEM, [HANDLER_clac] = 1 + KIND_SYSTEM, [HANDLER_serialize] = 1 + KIND_SYSTEM,
    [HANDLER_cld] = 1 + KIND_SYSTEM, [HANDLER_std] = 1 + KIND_SYSTEM, [HANDLER_rdpkru] = 1 + KIND_SYSTEM,
    [HANDLER_wrpkru] = 1 + KIND_SYSTEM,
};

/* May the host execute it, as far as CR0, CR4 and XCR0 are concerned? Otherwise the handler raises what is due. */
static bool class_allowed(const struct insn_row *row, jit_mode_t mode)
{
    switch (row->handler == HANDLER_fwait ? EXC_X87 : row->exception_class) {
    case EXC_NONE:
    case EXC_VEX_GPR:
        return true;
    case EXC_X87:
    case EXC_X87_NOWAIT:
    case EXC_MMX:
        return mode & MODE_X87;
    case EXC_SSE_INT_MMX:
        return (mode & MODE_X87) && (mode & MODE_SSE);
    case EXC_SSE:
    case EXC_SSE_ALIGNED:
    case EXC_SSE_FP:
    case EXC_SSE_FP_ALIGNED:
        return mode & MODE_SSE;
    case EXC_VEX:
    case EXC_VEX_ALIGNED:
    case EXC_VEX_FP:
    case EXC_VEX_ZEROUPPER:
        return mode & MODE_AVX;
    default:
        return false;
    }
}

static bool is_bit_test_by_register(const struct tinsn *i)
{
    unsigned handler = i->insn.row->handler;
    return (handler == HANDLER_bt || handler == HANDLER_bts || handler == HANDLER_btr || handler == HANDLER_btc) &&
           i->insn.operands[1].kind == OPERAND_GPR;
}

/* 32-bit code may set VEX bits that do not count there (B, W, the top bits of vvvv and of a register in an immediate); in
 * the host's mode they do. */
static bool vex_bits_matter(const struct translation *t, const struct tinsn *i)
{
    const struct insn *insn = &i->insn;
    const uint8_t *p = i->bytes;

    if (t->code64 || !insn->vex.kind)
        return false;
    while (*p != 0xc4 && *p != 0xc5)
        p++;
    unsigned last = *p == 0xc5 ? p[1] : p[2];
    if (!(last & 0x40) || (*p == 0xc4 && (!(p[1] & 0x20) || ((last & 0x80) && !(insn->row->attributes & ATTR_W1)))))
        return true;
    for (unsigned n = 0; n < insn->operand_count; n++)
        if (insn->row->operands[n].type >= OT_Lx && insn->row->operands[n].type <= OT_Lqq && (i->bytes[insn->length - 1] & 0x80))
            return true;
    return false;
}

static bool needs_handler(const struct translation *t, const struct tinsn *i)
{
    const struct insn *insn = &i->insn;
    const struct insn_row *row = insn->row;

    if (!cpu_has(t->jit->cpu, row->feature) && row->handler != HANDLER_nop && row->handler != HANDLER_prefetch &&
        row->handler != HANDLER_pause)
        return true;
    if (!class_allowed(row, t->mode) || insn->vex.kind == 4 || vex_bits_matter(t, i))
        return true;
    if (row->map == MAP_ONEBYTE && insn->opcode == 0x82) /* of 32-bit code only: the host's mode does not have it */
        return true;
    if ((row->attributes & ATTR_CPL0) && (t->mode >> MODE_CPL_SHIFT & 3))
        return true;
    if (i->has_memory && (i->memory_size == 0 || insn->mem.vsib))
        return true;
    if ((i->has_memory || row->handler == HANDLER_lea) && insn->address_size == 2)
        return true;
    return false;
}

/* Data segments other than FS and GS are flat in the modes that are translated; loads of FS and GS bases in 32-bit code
 * would need limit checks. */
static bool segment_needs_handler(const struct translation *t, const struct tinsn *i)
{
    return i->has_memory && !t->code64 && i->insn.mem.segment >= SEG_FS;
}

static unsigned stack_kind(const struct translation *t, const struct tinsn *i, unsigned kind)
{
    unsigned size = t->code64 ? 8 : 4;

    if (i->insn.operand_size != size)
        return KIND_HELPER; /* 16-bit pushes */
    if (kind == KIND_POP && i->insn.operands[0].kind != OPERAND_GPR)
        return KIND_HELPER;
    if (i->insn.row->handler == HANDLER_pushf && !t->jit->has_bmi2)
        return KIND_HELPER;
    return kind;
}

static unsigned control_kind(const struct translation *t, const struct tinsn *i, unsigned kind)
{
    if (i->insn.operand_size != (t->code64 ? 8 : 4))
        return KIND_HELPER_END; /* 16-bit targets */
    if (kind == KIND_LOOP && i->insn.address_size == 2)
        return KIND_HELPER_END;
    return kind;
}

static unsigned choose_kind(const struct translation *t, const struct tinsn *i)
{
    const struct insn_row *row = i->insn.row;
    unsigned listed = kind_of_handler[row->handler];
    bool ends = row->attributes & (ATTR_BRANCH | ATTR_END) || row->jit_class == JIT_END;

    if (unlikely(t->jit->slices) && jit_runs_once(&i->insn))
        return KIND_HELPER_END;
    if (!listed || needs_handler(t, i) || segment_needs_handler(t, i))
        return ends ? KIND_HELPER_END : KIND_HELPER;
    switch (listed - 1) {
    case KIND_PUSH:
    case KIND_POP:
    case KIND_LEAVE:
        return stack_kind(t, i, listed - 1);
    case KIND_JCC:
    case KIND_LOOP:
    case KIND_JMP:
    case KIND_CALL:
    case KIND_RET:
    case KIND_JMP_INDIRECT:
    case KIND_CALL_INDIRECT:
        return control_kind(t, i, listed - 1);
    case KIND_SYSTEM:
        return system_is_inline(t, i) ? KIND_SYSTEM : ends ? KIND_HELPER_END : KIND_HELPER;
    case KIND_NATIVE:
        if (i->has_memory && is_bit_test_by_register(i))
            return bits_are_inline(t, i) ? KIND_BITS : KIND_HELPER;
        return native_is_possible(i) ? KIND_NATIVE : KIND_HELPER;
    default:
        return listed - 1;
    }
}

/* ---- Registers ---- */

static int role_of(char letter)
{
    switch (letter) {
    case 'G':
        return ROLE_REG;
    case 'E':
    case 'R':
        return ROLE_RM;
    case 'B':
        return ROLE_VVVV;
    case 'Z':
        return ROLE_OPCODE;
    default:
        return -1;
    }
}

static void note_access(struct tinsn *i, unsigned reg, unsigned access, unsigned size)
{
    if (access & ACCESS_R)
        i->reads |= (uint16_t)(1u << reg);
    if (access & (ACCESS_W | ACCESS_CW)) {
        i->writes |= (uint16_t)(1u << reg);
        if (size < 4 || access & ACCESS_CW)
            i->reads |= (uint16_t)(1u << reg); /* the rest of the register stays */
    }
}

static void note_gpr(struct tinsn *i, unsigned n)
{
    const struct operand *o = &i->insn.operands[n];
    const struct operand_spec *spec = &i->insn.row->operands[n];
    int role = spec->implicit ? -1 : role_of(operand_letter[spec->type]);

    i->high_byte |= o->kind == OPERAND_GPR_HIGH;
    note_access(i, o->reg, o->access, o->size);
    if (role >= 0 && i->gpr[role] == NO_GPR) {
        i->gpr[role] = o->reg;
        i->access[role] = o->access;
        i->size[role] = (uint8_t)o->size;
        i->rm_is_cell_sized |= operand_letter[spec->type] == 'E';
        return;
    }
    if (o->reg == REG_RCX) {
        i->reads_rcx |= o->access & ACCESS_R;
        i->writes_rcx |= !!(o->access & (ACCESS_W | ACCESS_CW));
        i->reads_rcx |= i->writes_rcx;
    }
}

static void note_memory(struct tinsn *i, unsigned n)
{
    const struct operand *o = &i->insn.operands[n];

    if (o->access == ACCESS_NONE)
        return;
    i->has_memory = true;
    i->memory_access |= o->access & ACCESS_RW;
    i->memory_size = o->size > 64 ? 0 : (uint8_t)o->size;
}

static void note_address(struct tinsn *i)
{
    if (i->insn.mem.base < 16)
        i->reads |= (uint16_t)(1u << i->insn.mem.base);
    if (!i->insn.mem.vsib && i->insn.mem.index < 16)
        i->reads |= (uint16_t)(1u << i->insn.mem.index);
}

/* Registers that operands of the row do not show. */
static void note_implicit(struct tinsn *i)
{
    switch (i->insn.row->handler) {
    case HANDLER_push:
    case HANDLER_pushf:
    case HANDLER_pop:
    case HANDLER_call:
    case HANDLER_call_ind:
    case HANDLER_ret:
    case HANDLER_ret_imm:
        i->reads |= 1 << REG_RSP;
        i->writes |= 1 << REG_RSP;
        break;
    case HANDLER_leave:
        i->reads |= 1 << REG_RBP;
        i->writes |= 1 << REG_RSP | 1 << REG_RBP;
        break;
    default:
        break;
    }
}

static void note_operands(struct tinsn *i)
{
    memset(i->gpr, NO_GPR, sizeof(i->gpr));
    for (unsigned n = 0; n < i->insn.operand_count; n++) {
        switch (i->insn.operands[n].kind) {
        case OPERAND_GPR:
        case OPERAND_GPR_HIGH:
            note_gpr(i, n);
            break;
        case OPERAND_MEM:
            note_memory(i, n);
            note_address(i);
            break;
        default:
            break;
        }
    }
    note_implicit(i);
}

/* ---- Flags ---- */

static bool is_shift(unsigned handler)
{
    switch (handler) {
    case HANDLER_rol:
    case HANDLER_ror:
    case HANDLER_rcl:
    case HANDLER_rcr:
    case HANDLER_shl:
    case HANDLER_shr:
    case HANDLER_sar:
    case HANDLER_shld:
    case HANDLER_shrd:
        return true;
    default:
        return false;
    }
}

/* A shift by a count that is not zero for certain sets what it sets; the row says "perhaps". */
static void note_flags(struct tinsn *i)
{
    const struct insn_row *row = i->insn.row;
    uint32_t changed = (row->flags_written | row->flags_undefined) & FLAGS_ARITH;

    i->flags_read = row->flags_read & FLAGS_ARITH;
    i->flags_changed = i->flags_set = changed;
    if (is_shift(row->handler)) {
        bool immediate = i->insn.operands[i->insn.operand_count - 1].kind == OPERAND_IMM;
        unsigned mask = i->insn.operands[0].size == 8 ? 63 : 31; /* REX.W does not matter for bytes */
        /* RCL, RCR read CF whatever the count */
        uint32_t truly_read =
            row->handler == HANDLER_rcl || row->handler == HANDLER_rcr ? (uint32_t)FLAG_CF : 0u;
        if (immediate && ((uint64_t)i->insn.imm & mask) != 0) {
            i->flags_read = truly_read;
        } else {
            i->flags_set = 0;
            i->flags_read |= changed;
        }
    }
    if (i->kind == KIND_HELPER || i->kind == KIND_HELPER_END || (i->kind == KIND_SYSTEM && system_may_leave(i)))
        i->flags_read = FLAGS_ARITH; /* sees, and may push, all of RFLAGS */
}

/* ---- The block ---- */

static bool decode_one(struct translation *t, struct tinsn *i, unsigned page_offset)
{
    const uint8_t *bytes = t->host + (page_offset - (t->gpa & ~PAGE_MASK));

    memset(&i->bytes, 0, sizeof(*i) - offsetof(struct tinsn, bytes)); /* the decoder fills insn */
    i->bytes = bytes;
    i->page_offset = (uint16_t)page_offset;
    i->group = NO_SLOT;
    size_t available = t->available - (size_t)(bytes - t->host);
    enum decode_status status = insn_decode(bytes, available, t->code64 ? CODE64 : CODE32, &i->insn);
    if (status == DECODE_TRUNCATED)
        return false;
    if (status != DECODE_OK) {
        i->kind = KIND_HELPER_END;
        i->insn.row = NULL;
        i->flags_read = FLAGS_ARITH;
        return true;
    }
    note_operands(i);
    i->kind = (uint8_t)choose_kind(t, i);
    note_flags(i);
    return true;
}

static bool is_sti(const struct tinsn *i)
{
    return i->kind == KIND_SYSTEM && i->insn.row->handler == HANDLER_sti;
}

static bool ends_block(const struct tinsn *i)
{
    switch (i->kind) {
    case KIND_JMP:
    case KIND_RET:
    case KIND_JMP_INDIRECT:
    case KIND_HELPER_END:
        return true;
    default:
        return false;
    }
}

/* Going on behind a branch makes longer stretches for groups, at the price of translating code more than once: not for long, nor
 * where a translation exists already. */
static bool ends_at_branch(const struct translation *t, unsigned exits, unsigned next)
{
    if (t->mode & MODE_SINGLE)
        return exits >= BLOCK_MAX_LINKS / 2 - 1;
    if (t->count >= t->jit->soft_limit || exits >= BLOCK_MAX_LINKS / 4 - 1)
        return true;
    return next < PAGE_SIZE && jit_block_find(t->jit, (t->gpa & PAGE_MASK) + next, t->mode, 0);
}

unsigned translation_decode(struct translation *t, unsigned max_insns)
{
    unsigned offset = t->gpa & ~PAGE_MASK, exits = 0;

    t->count = 0;
    t->ends_in_branch = t->next_crosses = t->unrolled = false;
    while (t->count < max_insns && offset < PAGE_SIZE && offset - (t->gpa & ~PAGE_MASK) < 240) {
        struct tinsn *i = &t->insns[t->count];
        if (!decode_one(t, i, offset)) {
            t->next_crosses = true;
            break;
        }
        if (unlikely(t->jit->slices) && t->count && is_sti(&t->insns[t->count - 1]) && i->kind == KIND_HELPER_END)
            break; /* a slice may end between the two: the shadow has to be seen */
        t->count++;
        offset += i->insn.length;
        if (i->kind >= KIND_JCC && i->kind <= KIND_CALL_INDIRECT)
            exits++;
        if (ends_block(i)) {
            /* behind a handler that ends the block there is an exit too, for when nothing has happened */
            t->ends_in_branch = i->kind != KIND_HELPER_END;
            break;
        }
        if (i->kind >= KIND_JCC && i->kind <= KIND_CALL_INDIRECT && ends_at_branch(t, exits, offset))
            break;
    }
    if (t->count && is_sti(&t->insns[t->count - 1])) { /* nothing may be delivered before the next one */
        t->insns[t->count - 1].kind = KIND_HELPER_END;
        note_flags(&t->insns[t->count - 1]);
    }
    t->guest_bytes = offset - (unsigned)(t->gpa & ~PAGE_MASK);
    return t->count;
}

/* ---- Loops ---- */

/* A short loop whose body is one straight run (branches out of it aside) is translated several iterations at a time: accesses off one
 * pointer share checks across iterations, and only the last branch back polls. */
enum { LOOP_MAX_INSNS = 24, LOOP_MAX_COPIES = 4 };

static bool goes_back(const struct translation *t, const struct tinsn *i)
{
    return (i->kind == KIND_JCC || i->kind == KIND_JMP) &&
           (int64_t)i->page_offset + i->insn.length + i->insn.imm == (int64_t)(t->gpa & ~PAGE_MASK);
}

bool translation_decode_loop(struct translation *t)
{
    unsigned offset = t->gpa & ~PAGE_MASK, exits = 0;

    t->count = 0;
    for (;;) {
        struct tinsn *i = &t->insns[t->count];
        if (t->count == LOOP_MAX_INSNS || offset >= PAGE_SIZE || offset - (t->gpa & ~PAGE_MASK) >= 240 ||
            !decode_one(t, i, offset) || i->kind > KIND_JMP || i->kind == KIND_SYSTEM || i->kind == KIND_LOOP)
            return false;
        t->count++;
        offset += i->insn.length;
        exits += i->kind == KIND_JCC;
        if (goes_back(t, i))
            break;
        if (i->kind == KIND_JMP)
            return false;
    }
    unsigned copies = MIN(LOOP_MAX_COPIES, BLOCK_MAX_INSNS / t->count), body = t->count;
    copies = MIN(copies, BLOCK_MAX_LINKS / 4 / MAX(exits, 1u));
    if (copies < 2)
        return false;
    for (unsigned n = 1; n < copies; n++) {
        t->insns[t->count - 1].again = true;
        memcpy(&t->insns[t->count], &t->insns[0], body * sizeof(t->insns[0]));
        t->count += body;
    }
    t->insns[t->count - 1].again = false;
    t->unrolled = true;
    t->next_crosses = false;
    t->ends_in_branch = t->insns[t->count - 1].kind == KIND_JMP;
    t->guest_bytes = offset - (unsigned)(t->gpa & ~PAGE_MASK);
    return true;
}
