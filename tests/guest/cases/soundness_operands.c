/* Operands that a translator has to rewrite (docs/design.md, "Soundness", lines 18 to 20): every general register at
 * every place of an instruction, high byte registers beside a REX prefix's, masked and gathered accesses at page ends,
 * alignment before presence, locked accesses across lines and pages, and what the vendors do differently. SDM Vol. 2A
 * 2.2.1, table 2-19 and the instructions' pages; Vol. 3A 8.1.2. */
#include "soundness.h"

/* ---- Line 19: any register anywhere ---- */

enum operation { ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, XCHG, MOV, XADD, CMPXCHG, OPERATIONS };

struct instruction {
    enum operation operation;
    unsigned size, reg, rm, index, scale;
    int rex, memory, to_reg; /* to_reg: the register is the destination; else the other operand */
    u32 disp;
    u64 address;
};

struct machine {
    u64 regs[16];
    u8 memory[PAGE];
    int carry, zero, sign;
};

static struct machine model;

/* Without REX the byte registers 4 to 7 are AH, CH, DH and BH. */
static u64 read_register(const struct instruction *i, unsigned reg)
{
    if (i->size == 1 && !i->rex && reg >= 4)
        return model.regs[reg - 4] >> 8 & 0xff;
    return model.regs[reg] & mask_of(i->size);
}

static void write_register(const struct instruction *i, unsigned reg, u64 value)
{
    u64 mask = mask_of(i->size);

    if (i->size == 1 && !i->rex && reg >= 4)
        model.regs[reg - 4] = (model.regs[reg - 4] & ~0xff00ull) | (value & 0xff) << 8;
    else
        model.regs[reg] = i->size == 4 ? (u32)value : (model.regs[reg] & ~mask) | (value & mask);
}

static u64 read_other(const struct instruction *i)
{
    u64 value = 0;

    if (!i->memory)
        return read_register(i, i->rm);
    for (unsigned n = 0; n < i->size; n++)
        value |= (u64)model.memory[(i->address + n) % PAGE] << 8 * n;
    return value;
}

static void write_other(const struct instruction *i, u64 value)
{
    if (!i->memory)
        write_register(i, i->rm, value);
    for (unsigned n = 0; i->memory && n < i->size; n++)
        model.memory[(i->address + n) % PAGE] = (u8)(value >> 8 * n);
}

static void set_flags(const struct instruction *i, u64 result, int carry)
{
    result &= mask_of(i->size);
    model.carry = carry;
    model.zero = result == 0;
    model.sign = (int)(result >> (8 * i->size - 1));
}

/* a OP b, and the flags. */
static u64 compute(const struct instruction *i, u64 a, u64 b)
{
    u64 mask = mask_of(i->size), result, in = (u64)model.carry;

    switch (i->operation) {
    case ADD:
    case XADD:
        result = a + b;
        set_flags(i, result, (result & mask) < a);
        return result;
    case ADC:
        result = a + b + in;
        set_flags(i, result, in ? (result & mask) <= a : (result & mask) < a);
        return result;
    case SUB:
    case CMP:
    case CMPXCHG:
        set_flags(i, a - b, a < b);
        return a - b;
    case SBB:
        result = a - b - in;
        set_flags(i, result, in ? a <= b : a < b);
        return result;
    case OR:
        result = a | b;
        break;
    case XOR:
        result = a ^ b;
        break;
    default:
        result = a & b;
    }
    set_flags(i, result, 0);
    return result;
}

static void execute_cmpxchg(const struct instruction *i, u64 old)
{
    u64 source = read_register(i, i->reg), rax = model.regs[0] & mask_of(i->size);
    struct instruction accumulator = { .size = i->size, .rex = 1 };

    compute(i, rax, old);
    if (model.zero)
        write_other(i, source);
    else
        write_register(&accumulator, 0, old);
}

static void execute(const struct instruction *i)
{
    u64 reg = read_register(i, i->reg), other = read_other(i), result;

    switch (i->operation) {
    case MOV:
        if (i->to_reg)
            write_register(i, i->reg, other);
        else
            write_other(i, reg);
        break;
    case XCHG:
        write_register(i, i->reg, other);
        write_other(i, reg);
        break;
    case XADD:
        result = compute(i, other, reg);
        write_register(i, i->reg, other);
        write_other(i, result);
        break;
    case CMPXCHG:
        execute_cmpxchg(i, other);
        break;
    case TEST:
        compute(i, other, reg);
        break;
    case CMP:
        compute(i, i->to_reg ? reg : other, i->to_reg ? other : reg);
        break;
    default:
        result = compute(i, i->to_reg ? reg : other, i->to_reg ? other : reg);
        if (i->to_reg)
            write_register(i, i->reg, result);
        else
            write_other(i, result);
    }
}

static void emit_instruction(struct emitter *e, const struct instruction *i)
{
    static const u8 opcodes[OPERATIONS] = {
        [ADD] = 0x00, [OR] = 0x08,   [ADC] = 0x10,  [SBB] = 0x18, [AND] = 0x20,  [SUB] = 0x28,    [XOR] = 0x30,
        [CMP] = 0x38, [TEST] = 0x84, [XCHG] = 0x86, [MOV] = 0x88, [XADD] = 0xc0, [CMPXCHG] = 0xb0
    };

    if (i->memory) { /* mov base, imm64 (flags stay) */
        u64 base = i->address - (u64)(long long)(int)i->disp - (i->index != 4 ? model.regs[i->index] << i->scale : 0);

        emit8(e, 0x48 | i->rm >> 3);
        emit8(e, 0xb8 | (i->rm & 7));
        emit32(e, (u32)base);
        emit32(e, (u32)(base >> 32));
        model.regs[i->rm] = base;
    }
    if (i->size == 2)
        emit8(e, 0x66);
    if (i->rex)
        emit8(e, 0x40 | (i->size == 8) << 3 | (i->reg >> 3) << 2 | (i->memory ? i->index >> 3 : 0) << 1 | i->rm >> 3);
    if (i->operation >= XADD)
        emit8(e, 0x0f);
    emit8(e,
          opcodes[i->operation] | (i->to_reg && (i->operation <= CMP || i->operation == MOV) ? 2 : 0) | (i->size > 1));
    if (i->memory)
        emit_memory(e, i->reg, i->rm, i->index, i->scale, i->disp);
    else
        emit8(e, 0xc0 | (i->reg & 7) << 3 | (i->rm & 7));
}

static void make_instruction(struct instruction *i, u64 *seed, int bytes, u64 window)
{
    u64 r = random64(seed), s = random64(seed);
    unsigned registers;

    *i = (struct instruction){ .operation = r % OPERATIONS, .index = 4 };
    i->size = bytes ? 1 : 1u << (r >> 8) % 4;
    i->rex = i->size == 8 || (r >> 12) % 2;
    registers = i->rex ? 16 : 8;
    i->reg = (r >> 16) % registers;
    i->rm = (r >> 24) % registers;
    i->memory = (r >> 32) % 2;
    i->to_reg = (r >> 33) % 2;
    if ((r >> 34) % 2) {
        i->index = (r >> 36) % registers;
        i->scale = (r >> 40) % 4;
        if (i->index == i->rm)
            i->index = 4;
    }
    i->disp = (u32)s;
    i->address = window + (s >> 32) % (PAGE - 8);
}

static void any_register(const char *name, int bytes, enum mode mode)
{
    const word frame = mode == USER ? UDATA_FRAME : DATA_FRAME;
    struct tally tally = { 0 };

    begin(name);
    for (unsigned n = 0; n < PAGE; n++)
        FRAME8(frame)[n] = model.memory[n] = (u8)(n * 7);
    for (unsigned round = 0; round < 1500; round++) {
        struct regs in = { .mode = mode }, out;
        struct emitter e = { CODE_FRAME, 0 };
        u64 seed = 5000 + round;
        int same;

        model.carry = model.zero = model.sign = 0;
        in.rflags = 2;
        for (unsigned reg = 0; reg < 16; reg++)
            model.regs[reg] = (&in.rax)[reg] = random64(&seed) | 1;
        for (unsigned n = 0; n < 4; n++) {
            struct instruction i;

            make_instruction(&i, &seed, bytes, mode == USER ? UDATA : DATA);
            emit_instruction(&e, &i);
            execute(&i);
        }
        emit_end(&e);
        enter(&in, &out);
        same = out.vector == VECTOR_DONE && (int)(out.rflags & CF) == model.carry &&
               !(out.rflags & ZF) == !model.zero && !(out.rflags & SF) == !model.sign;
        for (unsigned reg = 0; reg < 16; reg++)
            same &= (&out.rax)[reg] == model.regs[reg];
        for (unsigned n = 0; n < PAGE / 8; n++)
            same &= FRAME64(frame)[n] == ((const u64 *)(const void *)model.memory)[n];
        if (wrong(&tally, same)) {
            say(" [seed=%d", 5000ul + round);
            say_event(&out);
            say("]");
        }
        for (unsigned n = 0; !same && n < PAGE; n++)
            FRAME8(frame)[n] = model.memory[n];
    }
    end_tally(&tally);
}

static void byte_registers(void)
{
    any_register("soundness-19-byte-registers", 1, KERNEL);
    any_register("soundness-19-byte-registers-user", 1, USER);
    any_register("soundness-19-all-sizes", 0, KERNEL);
    any_register("soundness-19-all-sizes-user", 0, USER);
    fill(UDATA_FRAME, 0x81, 64);
    TRY("soundness-19-high-bytes-mixed", USER,
        "mov ah, [rbx]; mov ch, ah; add dh, [rbx+1]; mov [rbx+8], bh; movzx esi, ch; movsx edi, ah; shl ch, 1; "
        "setc dl; xchg ah, al; cmp ch, [rbx+2]; adc bh, 0",
        .rbx = UDATA, .show = CF | ZF | SF);
    TRY("soundness-19-multiply-divide-by-high-bytes", USER,
        "mov ax, 0x0507; mul ah; mov cx, ax; mov bh, 5; div bh; mov dx, ax; mov al, 0xfb; xchg dl, dh; imul dh",
        .rdx = 0);
    TRY("soundness-19-high-bytes-beside-extended-bases", USER,
        "mov r8, rbx; mov al, [r8]; mov ah, al; mov r13, rbx; mov [r13+0], al; mov r12, rbx; mov cl, [r12]; mov ch, "
        "cl; "
        "mov sil, [r8]; mov [rbx+rsi*1+16], ch; movzx r9d, sil; mov spl, [r8]; mov [r12+rsi*2], bpl",
        .rbx = UDATA);
}

/* Stack instructions with other operand sizes and operands than usual. */
static void stack_operands(void)
{
    HOT("soundness-19-push-16-bits", USER, ,
        "mov r8, rsp; push ax; push cx; mov edx, [rsp]; pop bx; pop si; sub r8, rsp", .rax = 0x1111222233334444,
        .rcx = 0x5555666677778888, .rsi = 0x9999aaaabbbbcccc);
    HOT("soundness-19-push-16-bit-immediate", USER, ,
        "mov r8, rsp; .byte 0x66, 0x68, 0x34, 0x12; .byte 0x66, 0x6a, 0xff; sub "
        "r8, rsp; pop rax; .byte 0x66; push fs; pop cx",
        .hide = 0);
    HOT("soundness-19-push-immediates", USER, ,
        "push -1; push 0x7fffffff; push -0x80000000; pop rax; pop rcx; pop rdx");
    HOT("soundness-19-push-rsp", USER, ,
        "mov r8, rsp; push rsp; pop rax; sub rax, r8; push rax; push rsp; mov rcx, [rsp]; "
        "sub rcx, rsp; add rsp, 16; push [rsp-8]; pop rdx; sub rdx, r8",
        .hide = 1 << 8);
    HOT("soundness-19-pop-rsp", USER, ,
        "mov r8, rsp; lea rax, [rsp-0x40]; push rax; pop rsp; sub rsp, r8; mov rcx, rsp; mov "
        "rsp, r8",
        .hide = 1 | 1 << 8);
    HOT("soundness-19-pop-memory-off-rsp", USER, ,
        "mov r8, rsp; push 5; push 6; push 7; pop [rsp]; pop rax; pop rcx; push 8; "
        "pop [rsp+8]; mov rdx, [rsp+8]; mov rsp, r8",
        .hide = 1 << 8);
    HOT("soundness-19-push-memory", USER, fill(UDATA_FRAME, 0x5a, 64),
        "push [rbx]; .byte 0x66; push [rbx+8]; pop ax; pop rcx; "
        "push [rbx+rdx*8]; pop [rbx+16]; mov rsi, [rbx+16]",
        .rbx = UDATA, .rdx = 4);
    HOT("soundness-19-leave-and-enter", USER, ,
        "mov r8, rsp; enter 32, 0; mov [rbp-8], rax; mov rcx, [rsp+24]; leave; enter "
        "16, 3; mov rdx, rsp; leave; sub rdx, rsp; .byte 0x66; push bp; .byte 0x66; pop bp; sub r8, rsp",
        .rbp = USTACK_TOP - 0x100);
    HOT("soundness-19-rsp-arithmetic", USER, ,
        "mov r8, rsp; and rsp, -64; mov rax, rsp; neg rsp; mov rcx, rsp; xchg rsp, rdx; "
        "lea rsp, [rdx+rdx*2]; cmp rsp, rdx; imul rsi, rsp, 3; bswap esp; movzx edi, spl; mov rsp, r8; sub rax, r8; "
        "add rcx, "
        "r8",
        .hide = 1 << 2 | 1 << 6 | 1 << 7 | 1 << 8);
}

/* ---- Line 18: masked accesses ---- */

struct masked {
    const char *name;
    struct code (*code)(void);
    unsigned lanes, width;
    int store;
};

#define MASKED(id, text)                                                                                               \
    static struct code masked_##id(void)                                                                               \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
/* the mask at RSI, data from or to RDI */
MASKED(ps_load, "vmovups ymm1, [rsi]; vmaskmovps ymm2, ymm1, [rbx]; vmovups [rdi], ymm2")
MASKED(pd_load, "vmovups ymm1, [rsi]; vmaskmovpd ymm2, ymm1, [rbx]; vmovups [rdi], ymm2")
MASKED(d_load, "vmovups xmm1, [rsi]; vpmaskmovd xmm2, xmm1, [rbx]; vmovups [rdi], xmm2")
MASKED(q_load, "vmovups ymm1, [rsi]; vpmaskmovq ymm2, ymm1, [rbx]; vmovups [rdi], ymm2")
MASKED(ps_store, "vmovups ymm1, [rsi]; vmovups ymm2, [rdi]; vmaskmovps [rbx], ymm1, ymm2")
MASKED(pd_store, "vmovups ymm1, [rsi]; vmovups ymm2, [rdi]; vmaskmovpd [rbx], ymm1, ymm2")
MASKED(d_store, "vmovups xmm1, [rsi]; vmovups xmm2, [rdi]; vpmaskmovd [rbx], xmm1, xmm2")
MASKED(q_store, "vmovups ymm1, [rsi]; vmovups ymm2, [rdi]; vpmaskmovq [rbx], ymm1, ymm2")

static const struct masked masked_forms[] = {
    { "vmaskmovps-load", masked_ps_load, 8, 4, 0 },   { "vmaskmovpd-load", masked_pd_load, 4, 8, 0 },
    { "vpmaskmovd-load", masked_d_load, 4, 4, 0 },    { "vpmaskmovq-load", masked_q_load, 4, 8, 0 },
    { "vmaskmovps-store", masked_ps_store, 8, 4, 1 }, { "vmaskmovpd-store", masked_pd_store, 4, 8, 1 },
    { "vpmaskmovd-store", masked_d_store, 4, 4, 1 },  { "vpmaskmovq-store", masked_q_store, 4, 8, 1 },
};

enum { MASK_AT = 0x800, DATA_AT = 0x840 };

/* Lane n lies in the absent page if n >= split. Which address in that page a fault names is up to the processor: of the
 * first such lane, or, for stores on some, of the last byte that would be written. */
static int masked_right(const struct masked *m, unsigned mask, unsigned split, const struct regs *out, int user)
{
    unsigned beyond = mask >> split << split;

    if (beyond && (out->vector != PG || out->error != ((word)m->store << 1 | (word)user << 2) ||
                   (out->cr2 & ~0xfffull) != PAGE_B))
        return 0;
    if (!beyond && out->vector != VECTOR_DONE)
        return 0;
    for (unsigned i = 0; i < m->lanes * m->width; i++) {
        unsigned lane = i / m->width;
        u8 memory = (u8)(0x20 + i), data = (u8)(0xc0 + i);
        int set = mask >> lane & 1;

        if (lane < split &&
            FRAME8(FRAME_B)[(long)i - (long)(split * m->width)] != (m->store && set && !beyond ? data : memory))
            return 0;
        if (!m->store && !beyond && FRAME8(UDATA_FRAME + DATA_AT)[i] != (set ? memory : 0))
            return 0;
    }
    return 1;
}

static void masked_case(const struct masked *m)
{
    struct tally tally = { 0 };

    begin(name_of("soundness-18-%s", m->name));
    set_xcr0(7);
    map(PAGE_A, FRAME_A, P | W | U);
    put_code(CODE_FRAME, m->code());
    for (unsigned mask = 0; mask < 1u << m->lanes; mask++)
        for (unsigned split = 0; split <= m->lanes; split++) {
            struct regs out;

            for (unsigned i = 0; i < 32; i++) {
                unsigned lane = i / m->width;

                FRAME8(UDATA_FRAME + MASK_AT)[i] = (mask >> lane & 1) && i % m->width == m->width - 1 ? 0x80 : 0x7f;
                FRAME8(UDATA_FRAME + DATA_AT)[i] = (u8)(0xc0 + i);
                if (lane < split && lane < m->lanes)
                    FRAME8(FRAME_B)[(long)i - (long)(split * m->width)] = (u8)(0x20 + i);
            }
            AGAIN(USER, .rbx = UDATA, .rsi = UDATA + MASK_AT, .rdi = UDATA + 0xc00); /* somewhere harmless first */
            out = AGAIN(USER, .rbx = PAGE_B - split * m->width, .rsi = UDATA + MASK_AT, .rdi = UDATA + DATA_AT);
            if (wrong(&tally, masked_right(m, mask, split, &out, 1))) {
                say(" [mask=%x split=%d", (word)mask, (word)split);
                say_event(&out);
                say("]");
            }
        }
    end_tally(&tally);
}

/* Elements 0 and 1 are there, 2 is not: they are done, their masks clear, when the fault comes; then all is well. */
static void gathers(void)
{
    if (!has_leaf7_b(5)) {
        absent("soundness-18-gather-faults-in-the-middle", "AVX2");
        absent("soundness-18-gather-masked-off-absent", "AVX2");
        return;
    }
    for (unsigned masked_off = 0; masked_off < 2; masked_off++) {
        static const u32 indices[4] = { 3, 1, 1024 + 2, 2 };
        struct regs out;

        begin(masked_off ? "soundness-18-gather-masked-off-absent" : "soundness-18-gather-faults-in-the-middle");
        set_xcr0(7);
        map(PAGE_A, FRAME_A, P | W | U);
        for (unsigned i = 0; i < 8; i++)
            FRAME32(FRAME_A)[i] = 0xaa00 + i;
        for (unsigned i = 0; i < 4; i++) {
            FRAME32(UDATA_FRAME + MASK_AT)[i] = masked_off && i == 2 ? 0 : 0x80000000;
            FRAME32(UDATA_FRAME + DATA_AT)[i] = indices[i];
        }
        out = RUN(USER, "movups xmm1, [rsi]; movups xmm2, [rdi]; pxor xmm3, xmm3; vpgatherdd xmm3, [rbx+xmm2*4], xmm1",
                  .rbx = PAGE_A, .rsi = UDATA + MASK_AT, .rdi = UDATA + DATA_AT);
        say(" %s", event_name(out.vector));
        if (out.vector == PG)
            say("(%x) cr2=%x", out.error, out.cr2);
        RUN(USER, "movups [rsi], xmm1; movups [rdi], xmm3", .rsi = UDATA + MASK_AT, .rdi = UDATA + DATA_AT);
        for (unsigned i = 0; i < (masked_off ? 4u : 2u); i++)
            say(" %x:%x", (word)FRAME32(UDATA_FRAME + MASK_AT)[i] >> 31, (word)FRAME32(UDATA_FRAME + DATA_AT)[i]);
        if (!masked_off)
            say(" mask2=%x", (word)FRAME32(UDATA_FRAME + MASK_AT)[2] >> 31);
        done();
    }
}

static void masked_accesses(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(masked_forms); i++) {
        if (has_leaf7_b(5))
            masked_case(&masked_forms[i]);
        else
            absent(name_of("soundness-18-%s", masked_forms[i].name), "AVX2");
    }
    gathers();
}

/* ---- Line 18: alignment, locks ---- */

#define ALIGNED(id, text)                                                                                              \
    static struct code aligned_##id(void)                                                                              \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
ALIGNED(movaps_load, "movaps xmm0, [rbx]")
ALIGNED(movaps_store, "movaps [rbx], xmm0")
ALIGNED(movdqa_load, "movdqa xmm0, [rbx]")
ALIGNED(movntdq, "movntdq [rbx], xmm0")
ALIGNED(addps, "addps xmm0, [rbx]")
ALIGNED(pshufb, "pshufb xmm0, [rbx]")
ALIGNED(paddd, "paddd xmm0, [rbx+rcx*8+16]")
ALIGNED(cmpxchg16b, "cmpxchg16b [rbx]")

static void alignment(void)
{
    static struct code (*const codes[])(void) = { aligned_movaps_load, aligned_movaps_store, aligned_movdqa_load,
                                                  aligned_movntdq,     aligned_addps,        aligned_pshufb,
                                                  aligned_paddd,       aligned_cmpxchg16b };
    struct tally tally = { 0 };

    begin("soundness-18-alignment-before-presence");
    for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
        put_code(CODE_FRAME, codes[i]());
        for (unsigned n = 0; n < 3 * 32; n++) {
            static const u64 places[] = { UDATA, HOLE, HOLE - 16 };
            u64 va = places[n / 32] + n % 32, in_hole = va - HOLE < 0x1000 || HOLE - va <= 16;
            word write =
                codes[i] == aligned_movaps_store || codes[i] == aligned_movntdq || codes[i] == aligned_cmpxchg16b;
            struct outcome want = va % 16   ? (struct outcome){ GP, 0, 0 }
                                  : in_hole ? (struct outcome){ PG, 4 | write << 1, va }
                                            : (struct outcome){ VECTOR_DONE, 0, 0 };
            struct regs out = AGAIN(USER, .rbx = codes[i] == aligned_paddd ? va - 16 : va, .rcx = 0);

            if (codes[i] == aligned_cmpxchg16b && in_hole)
                continue; /* its error code is a matter of its own */
            if (wrong(&tally, same_outcome(&want, &out))) {
                say(" [%d at %X:", (word)i, va);
                say_event(&out);
                say("]");
            }
        }
    }
    end_tally(&tally);
}

/* Locked read-modify-writes at each offset around a line's and a page's end. */
static void locked(const char *name, u64 second_flags)
{
    struct tally tally = { 0 };

    begin(name);
    map(PAGE_A, FRAME_A, P | W | U);
    map(PAGE_B, FRAME_B, second_flags);
    for (unsigned n = 0; n < 3 * 2 * 20; n++) {
        unsigned size = 2u << n / 40;
        u64 edge = n / 20 % 2 ? PAGE_B : PAGE_A + 64, va = edge - 10 + n % 20, old, sum;
        int crosses = va < PAGE_B + 10 && va + size > PAGE_B;
        struct regs out;

        if (n % 40 == 0) {
            if (size == 2)
                PLACE("lock xadd [rbx], cx; mov rdx, rcx");
            else if (size == 4)
                PLACE("lock xadd [rbx], ecx; mov edx, ecx");
            else
                PLACE("lock xadd [rbx], rcx; mov rdx, rcx");
        }
        for (unsigned i = 0; i < 32; i++)
            FRAME8(FRAME_A + (edge - PAGE_A) - 16)[i] = (u8)(0xf0 + i * 3);
        old = *(const volatile __attribute__((aligned(1))) u64 *)(word)(FRAME_A + (va - PAGE_A));
        out = AGAIN(USER, .rbx = va, .rcx = 0x1112131415161718, .rdx = 0);
        sum = *(const volatile __attribute__((aligned(1))) u64 *)(word)(FRAME_A + (va - PAGE_A));
        if (second_flags & W || !crosses) {
            u64 mask = mask_of(size);

            if (wrong(&tally, out.vector == VECTOR_DONE && (out.rdx & mask) == (old & mask) &&
                                  sum == ((old & ~mask) | ((old + 0x1112131415161718) & mask))))
                say(" [size %d at %X: %x %x]", (word)size, va, out.rdx, sum);
        } else if (wrong(&tally, out.vector == PG && (out.error & ~(word)W) == 5 - !(second_flags & P) && sum == old)) {
            say(" [size %d at %X:", (word)size, va);
            say_event(&out);
            say("]");
        }
    }
    end_tally(&tally);
}

/* ---- Line 20 ---- */

static void vendors(void)
{
    HOT("soundness-20-bsf-of-zero", USER, , "bsf rax, rcx; bsf dx, cx", .rcx = 0, .rax = 0x1234567890abcdef,
        .rdx = 0x99, .show = ZF);
    HOT("soundness-20-bsr-of-zero", USER, , "bsr rax, rcx; bsr dx, cx", .rcx = 0, .rax = 0x1234567890abcdef,
        .rdx = 0x99, .show = ZF);
    HOT("soundness-20-bsf-of-zero-in-memory", USER, fill(UDATA_FRAME, 0, 64),
        "mov rcx, [rbx+8]; bsf rax, [rbx]; mov rdx, [rbx+16]; bsr rbp, [rbx+24]", .rbx = UDATA, .rax = 0x5555,
        .rbp = 0x6666, .show = ZF);
    HOT("soundness-20-shift-by-zero-keeps-flags", USER, fill(UDATA_FRAME, 0xff, 64),
        "stc; mov rdx, [rbx]; shl rdx, cl; rol qword ptr [rbx+8], cl; shld rdx, rax, cl; sar dword ptr [rbx+16], cl",
        .rbx = UDATA, .rcx = 0x40, .show = CF);
    if (!is_amd()) { /* AMD's processors cut the address to 16 bits */
        HOT("soundness-20-66h-near-branches-intel", USER, ,
            "mov ecx, 50; xor r8d, r8d; 1: .byte 0x66, 0xe9; .long 2; ud2; inc r8d; .byte 0x66, 0xe8; .long 2f-3f; 3: "
            "dec "
            "ecx; .byte 0x66, 0x0f, 0x85; .long 1b-4f; 4: jmp 5f; 2: mov rax, [rsp]; lea rdx, [rip+3b]; cmp rax, rdx; "
            "setz "
            "al; movzx eax, al; add r8d, eax; .byte 0x66, 0xc3; 5:",
            .hide = 4);
    }
    begin(is_amd() ? "soundness-20-sysret-noncanonical-amd" : "soundness-20-sysret-noncanonical-intel");
    PLACE("sysretq");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
    wrmsr(MSR_STAR, (u64)(UCS - 16) << 48 | (u64)KCS << 32);
    for (unsigned i = 0; i < 4; i++) {
        struct regs out = AGAIN(KERNEL, .rcx = i & 1 ? NON_CANONICAL : HOLE, .r11 = 2);

        say(" %s cs=%x ip=%x", event_name(out.vector), out.cs, out.rip);
    }
    done();
}

void cases(void)
{
    byte_registers();
    stack_operands();
    masked_accesses();
    alignment();
    locked("soundness-18-locked-across", P | W | U);
    locked("soundness-18-locked-across-read-only", P | U);
    locked("soundness-18-locked-across-absent", 0);
    vendors();
}
