/* Short loops (docs/design.md, "Soundness", line 4), of which a translator may do several iterations at a time with one
 * check for all: random loops over arrays that end at page ends behind which there is nothing, or memory that is
 * read-only or a supervisor's. A model that goes instruction by instruction runs beside them: registers, all flags,
 * memory, the fault and where it comes, accessed and dirty bits, and the exit that is taken. SDM Vol. 1 3.4.3, 7.3;
 * Vol. 3A 4.6 to 4.8. */
#include "soundness_world.h"

/* ---- The model ---- */

enum { MAX_STEPS = 24, MAX_EXECUTED = 500, RUNS = 10, ROUNDS = 60 };

/* From CMP on: registers only; from ADVANCE on: a pointer or counter and a constant; then the branches. */
enum kind {
    LOAD,
    STORE,
    ADD_TO_MEMORY,
    ADD_FROM_MEMORY,
    CMP_MEMORY,
    INC_MEMORY,
    CMP,
    TEST,
    ADD,
    ADVANCE_LEA,
    ADVANCE_ADD,
    ADVANCE_SUB,
    ADVANCE_INC,
    ADVANCE_DEC,
    EXIT,
    BACK,
    JUMP
};

struct step {
    enum kind kind;
    unsigned size, reg, base, index, scale, cc;
    int value; /* displacement, or constant */
    word at, exit_at;
};

struct loop {
    struct step steps[MAX_STEPS];
    unsigned count, element, watched; /* watched: the step whose elements may hold the sentinel; count: none */
    unsigned pointers[2], index, counter, sentinel;
    int strides[2], indexed, by_register; /* by_register: the first pointer advances by `index` */
    struct step tail[2];                  /* behind the end and each exit: an access that may fault, and new flags */
    word end, tail_length;
};

static int holds(word flags, unsigned cc)
{
    int less = !(flags & SF) != !(flags & OF), result;

    switch (cc >> 1) {
    case 0:
        result = !!(flags & OF);
        break;
    case 1:
        result = !!(flags & CF);
        break;
    case 2:
        result = !!(flags & ZF);
        break;
    case 3:
        result = !!(flags & (CF | ZF));
        break;
    case 4:
        result = !!(flags & SF);
        break;
    case 5:
        result = !!(flags & PF);
        break;
    case 6:
        result = less;
        break;
    default:
        result = less || flags & ZF;
    }
    return result ^ (int)(cc & 1);
}

static u64 address(const struct world *w, const struct machine *m, const struct step *s)
{
    u64 va = m->regs[s->base] + (u64)(long long)s->value;

    if (s->index != 4)
        va += m->regs[s->index] << s->scale;
    return compat(w) ? (u32)va : va;
}

/* False: it faults. */
static int model_memory(const struct world *w, struct machine *m, const struct step *s)
{
    u64 va = address(w, m, s), reg = m->regs[s->reg], value;

    if (faults(w, m, va, s->size, s->kind == STORE || s->kind == ADD_TO_MEMORY || s->kind == INC_MEMORY))
        return 0;
    value = read_model(w, va, s->size);
    switch (s->kind) {
    case LOAD:
        write_reg(m, s->reg, value, s->size);
        break;
    case STORE:
        write_model(w, va, s->size, reg);
        break;
    case ADD_TO_MEMORY:
        write_model(w, va, s->size, add(m, value, reg, 0, s->size));
        break;
    case ADD_FROM_MEMORY:
        write_reg(m, s->reg, add(m, reg, value, 0, s->size), s->size);
        break;
    case CMP_MEMORY:
        subtract(m, value, reg, 0, s->size);
        break;
    default:
        write_model(w, va, s->size, step_by(m, value, 1, s->size));
    }
    return 1;
}

static void model_registers(struct machine *m, const struct step *s)
{
    u64 a = m->regs[s->base], b = m->regs[s->reg], constant = (u64)(long long)s->value;

    switch (s->kind) {
    case CMP:
        subtract(m, a, b, 0, s->size);
        break;
    case TEST:
        bitwise_and(m, a, b, s->size);
        break;
    case ADD:
        write_reg(m, s->base, add(m, a, b, 0, s->size), s->size);
        break;
    case ADVANCE_LEA:
        write_reg(m, s->base, a + constant, s->size);
        break;
    case ADVANCE_ADD:
        write_reg(m, s->base, add(m, a, constant, 0, s->size), s->size);
        break;
    case ADVANCE_SUB:
        write_reg(m, s->base, subtract(m, a, -constant, 0, s->size), s->size);
        break;
    default:
        write_reg(m, s->base, step_by(m, a, s->kind == ADVANCE_INC ? 1 : -1, s->size), s->size);
    }
}

static void model_tail(const struct world *w, const struct loop *l, struct machine *m, word at)
{
    m->state.rip += at;
    if (!model_memory(w, m, &l->tail[0]))
        return;
    model_registers(m, &l->tail[1]);
    m->state.rip += l->tail_length;
}

/* Up to the instruction that faults, or behind an INT 0x40; returns how often it has gone back. -1: it takes too long. */
static int model_loop(const struct world *w, const struct loop *l, struct machine *m)
{
    int iterations = 0;

    for (unsigned i = 0, executed = 0; executed < MAX_EXECUTED; i++, executed++) {
        const struct step *s = &l->steps[i];

        if (i == l->count) {
            model_tail(w, l, m, l->end);
            return iterations;
        }
        if (s->kind <= INC_MEMORY) {
            if (!model_memory(w, m, s)) {
                m->state.rip += s->at;
                return iterations;
            }
        } else if (s->kind < EXIT) {
            model_registers(m, s);
        } else if (s->kind == EXIT && holds(m->state.rflags, s->cc)) {
            model_tail(w, l, m, s->exit_at);
            return iterations;
        } else if (s->kind == JUMP || (s->kind == BACK && holds(m->state.rflags, s->cc))) {
            i = ~0u;
            iterations++;
        }
    }
    return -1;
}

/* ---- The code ---- */

static void emit_operation(struct emitter *e, const struct step *s, int memory)
{
    static const u8 opcodes[] = {
        [LOAD] = 0x8a,        [STORE] = 0x88,       [ADD_TO_MEMORY] = 0x00, [ADD_FROM_MEMORY] = 0x02,
        [CMP_MEMORY] = 0x38,  [INC_MEMORY] = 0xfe,  [CMP] = 0x38,           [TEST] = 0x84,
        [ADD] = 0x00,         [ADVANCE_LEA] = 0x8c, [ADVANCE_ADD] = 0x82,   [ADVANCE_SUB] = 0x82,
        [ADVANCE_INC] = 0xfe, [ADVANCE_DEC] = 0xfe
    };
    static const u8 extensions[] = { [ADVANCE_SUB] = 5, [ADVANCE_DEC] = 1, [JUMP] = 0 };
    int by_register = (s->kind != INC_MEMORY && s->kind < ADVANCE_LEA);
    unsigned reg = s->kind == ADVANCE_LEA ? s->base : by_register ? s->reg : extensions[s->kind];
    unsigned high_index = memory && s->index != 4 ? s->index >> 3 : 0;
    unsigned rex = (s->size == 8) << 3 | (reg >> 3) << 2 | high_index << 1 | s->base >> 3;

    if (s->size == 2)
        emit8(e, 0x66);
    if (rex)
        emit8(e, 0x40 | rex);
    emit8(e, opcodes[s->kind] | (s->size > 1));
    if (memory)
        emit_memory(e, reg, s->base, s->index, s->scale, (u32)s->value);
    else
        emit8(e, 0xc0 | (reg & 7) << 3 | (s->base & 7));
    if (s->kind == ADVANCE_ADD || s->kind == ADVANCE_SUB)
        emit8(e, (u8)(s->kind == ADVANCE_ADD ? s->value : -s->value));
}

static void emit_branch_back(struct emitter *e, const struct step *s)
{
    word displacement = -(e->length + 2);

    if (e->length < 120) {
        emit8(e, s->kind == JUMP ? 0xeb : 0x70 | s->cc);
        emit8(e, (u8)displacement);
        return;
    }
    if (s->kind == JUMP) {
        emit8(e, 0xe9);
    } else {
        emit8(e, 0x0f);
        emit8(e, 0x80 | s->cc);
    }
    emit32(e, (u32) - (e->length + 4));
}

static void emit_tail(struct emitter *e, struct loop *l)
{
    word start = e->length;

    emit_operation(e, &l->tail[0], 1);
    emit_operation(e, &l->tail[1], 0);
    emit_end(e);
    l->tail_length = e->length - start;
}

/* The loop, and a tail with INT 0x40 for the end and for each exit of its own. */
static void emit_loop(struct loop *l)
{
    struct emitter e = { CODE_FRAME, 0 };

    for (unsigned i = 0; i < l->count; i++) {
        struct step *s = &l->steps[i];

        s->at = e.length;
        if (s->kind == EXIT) {
            emit8(&e, 0x0f);
            emit8(&e, 0x80 | s->cc);
            emit32(&e, 0);
        } else if (s->kind >= BACK) {
            emit_branch_back(&e, s);
        } else {
            emit_operation(&e, s, s->kind <= INC_MEMORY || s->kind == ADVANCE_LEA);
        }
    }
    l->end = e.length;
    emit_tail(&e, l);
    for (unsigned i = 0; i < l->count; i++) {
        struct step *s = &l->steps[i];

        if (s->kind != EXIT)
            continue;
        for (unsigned n = 0; n < 4; n++)
            FRAME8(CODE_FRAME)[s->at + 2 + n] = (u8)((e.length - s->at - 6) >> 8 * n);
        s->exit_at = e.length;
        emit_tail(&e, l);
    }
}

/* ---- Random loops ---- */

static struct step *append(struct loop *l, struct step s)
{
    l->steps[l->count] = s;
    return &l->steps[l->count++];
}

/* An access that the flags have to survive. */
static void append_access(struct loop *l, u64 r)
{
    append(l, (struct step){ .kind = r & 1 ? LOAD : STORE,
                             .size = l->element,
                             .reg = 2,
                             .index = 4,
                             .base = l->pointers[1],
                             .value = r & 2 ? 0 : (int)(r >> 2) % 32 });
}

static void append_exit(struct loop *l, unsigned cc)
{
    append(l, (struct step){ .kind = EXIT, .cc = cc });
}

static void append_advance(const struct world *w, struct loop *l, unsigned reg, int by, u64 r)
{
    struct step s = { .kind = ADVANCE_LEA + r % 3, .size = compat(w) ? 4 : 8, .base = reg, .index = 4, .value = by };

    if (l->by_register && reg == l->pointers[0]) {
        append(l, (struct step){ .kind = ADD, .size = 8, .reg = l->index, .base = reg });
        return;
    }
    if ((by == 1 || by == -1) && r & 8)
        s.kind = by == 1 ? ADVANCE_INC : ADVANCE_DEC;
    append(l, s);
}

static void append_body(const struct world *w, struct loop *l, u64 *seed)
{
    static const u8 data64[] = { 0, 2, 10, 11 }, data32[] = { 0, 2, 3 };
    u64 r = random64(seed);
    unsigned array = r & 1, reg = compat(w) ? data32[(r >> 8) % 3] : data64[(r >> 8) % 4];
    unsigned other = compat(w) ? data32[(r >> 12) % 3] : data64[(r >> 12) % 4];
    struct step s = { .kind = (r >> 16) % (ADD + 1), .size = l->element, .reg = reg, .index = 4, .base = other };

    if ((r >> 24) % 6 == 0)
        s.size = 1u << (r >> 28) % (compat(w) ? 3 : 4);
    if (s.kind <= INC_MEMORY) {
        s.base = l->pointers[array];
        if (array == 0 && l->indexed) {
            s.index = l->index;
            s.scale = (unsigned)__builtin_ctz((unsigned)(l->strides[0] < 0 ? -l->strides[0] : l->strides[0]));
        }
        s.value = (r >> 32) % 3 ? 0 : (int)((r >> 36) % 48) - 16;
    }
    if (s.kind == CMP_MEMORY && (r >> 44) % 4) {
        s.reg = l->sentinel;
        if (l->watched == MAX_STEPS)
            l->watched = l->count;
        append(l, s);
        append_exit(l, 4);
        return;
    }
    append(l, s);
    if (s.kind >= ADD_TO_MEMORY && (r >> 48) % 3 == 0) {
        if ((r >> 56) % 3 == 0)
            append_access(l, r >> 58);
        append_exit(l, (r >> 52) % 16);
    }
}

static void make_loop(const struct world *w, struct loop *l, u64 *seed)
{
    static const u8 pointers64[] = { 3, 6, 7, 8, 12, 13, 15 }, backs[] = { 5, 5, 5, 9, 15, 13, 7 };
    u64 r = random64(seed), s = random64(seed);
    unsigned shape = r % 4, steps = 1 + (r >> 8) % 4, advance_at = (r >> 12) % (steps + 1);

    *l = (struct loop){ .element = 1u << (r >> 16) % (compat(w) ? 3 : 4), .watched = MAX_STEPS };
    l->pointers[0] = compat(w) ? 6 : pointers64[(r >> 20) % 7];
    l->pointers[1] = compat(w) ? 7 : pointers64[((r >> 20) + 1 + (r >> 28) % 6) % 7];
    if (l->pointers[0] == l->pointers[1])
        l->pointers[1] = 14;
    l->index = compat(w) ? 3 : 9;
    l->counter = 5;
    l->sentinel = 1;
    l->indexed = !compat(w) && (r >> 32) % 4 == 0;
    l->by_register = !compat(w) && (r >> 32) % 4 == 1;
    for (unsigned i = 0; i < 2; i++) {
        l->strides[i] = (int)l->element * ((s >> 8 * i) % 8 == 0 ? 2 : 1);
        if ((s >> (8 * i + 4)) % 3 == 0)
            l->strides[i] = -l->strides[i];
    }
    if (l->indexed)
        l->strides[0] = l->strides[0] < 0 ? -(int)l->element : (int)l->element;
    l->tail[0] = (struct step){ .kind = LOAD, .size = 4, .reg = 2, .base = l->pointers[1], .index = 4, .value = 8 };
    l->tail[1] = (struct step){ .kind = CMP, .size = 4, .reg = l->counter, .base = 2 };
    if (shape == 1) { /* the test is at the top, a jump at the bottom */
        append(l, (struct step){ .kind = ADVANCE_SUB, .size = 4, .base = l->counter, .index = 4, .value = -1 });
        append_exit(l, 2);
    }
    for (unsigned i = 0; i <= steps; i++) {
        if (i == advance_at) {
            append_advance(w, l, l->indexed ? l->index : l->pointers[0],
                           l->indexed ? (l->strides[0] < 0 ? -1 : 1) : l->strides[0], s >> 24);
            append_advance(w, l, l->pointers[1], l->strides[1], s >> 32);
        }
        if (i < steps)
            append_body(w, l, seed);
    }
    if (shape == 1) {
        append(l, (struct step){ .kind = JUMP });
        return;
    }
    append(l, (struct step){ .kind = shape >= 2 ? ADVANCE_SUB : ADVANCE_DEC,
                             .size = (s >> 40) & 1 ? 2 : 4,
                             .base = l->counter,
                             .index = 4,
                             .value = -1 });
    for (unsigned i = (s >> 44) % 8; i < 3; i++) /* flags that are older than the last accesses */
        append_access(l, s >> (52 + 3 * i));
    append(l, (struct step){ .kind = BACK, .cc = backs[(s >> 48) % 7] });
}

/* ---- The real thing ---- */

/* In front of a page end by up to twelve elements, or behind it, for those that go backwards. */
static u64 start_of(const struct loop *l, unsigned array, u64 r)
{
    u64 edge = FREE + (array ? 3 : 1) * PAGE, elements = r % 13, off = (r >> 8) % 2 ? (r >> 12) % 8 : 0;

    if (l->strides[array] < 0)
        return edge + (u64)(-(long long)l->strides[array]) * elements - l->element + off;
    return edge - (u64)l->strides[array] * elements - off;
}

static void plant_sentinel(const struct world *w, const struct loop *l, const struct machine *m, unsigned iteration)
{
    const struct step *s = &l->steps[l->watched];
    long long stride = l->strides[s->base == l->pointers[1]];
    u64 va = address(w, m, s) + (u64)(stride * iteration);

    for (unsigned i = 0; i < s->size && page_of(w, va + i) < MAX_PAGES; i++) {
        u8 byte = (u8)(m->regs[l->sentinel] >> 8 * i);

        *model_byte(w, va + i) = byte;
        FRAME8(FREE_FRAME + frame_of(w, page_of(w, va + i)) * PAGE)[(va + i) % PAGE] = byte;
    }
}

static void start_registers(const struct world *w, const struct loop *l, struct regs *in, u64 *state)
{
    for (unsigned reg = 0; reg < 16; reg++)
        (&in->rax)[reg] = compat(w) ? (u32)random64(state) : random64(state);
    in->rsp = user(w) ? USTACK_TOP : STACK_TOP;
    in->rip = user(w) ? UCODE_PAGE : CODE_PAGE;
    for (unsigned array = 0; array < 2; array++)
        (&in->rax)[l->pointers[array]] = start_of(l, array, random64(state));
    if (l->indexed) {
        u64 index = random64(state) % 64;
        (&in->rax)[l->index] = index;
        (&in->rax)[l->pointers[0]] -= index * (unsigned)(l->strides[0] < 0 ? -l->strides[0] : l->strides[0]);
    }
    if (l->by_register)
        (&in->rax)[l->index] = (u64)(long long)l->strides[0];
    (&in->rax)[l->counter] = 1 + random64(state) % 14;
}

static unsigned long_loops;

static void run_loop(const struct world *w, struct tally *tally, u64 seed)
{
    struct loop l;
    u64 state = seed;

    make_loop(w, &l, &state);
    emit_loop(&l);
    for (unsigned i = 0; i < RUNS; i++) {
        struct regs in = { .mode = w->mode, .rflags = 2 | (random64(&state) & STATUS) }, out;
        const char *what;
        int iterations;

        if ((random64(&state) & 1) || i == 0)
            clear_bits(w);
        start_registers(w, &l, &in, &state);
        struct machine m = start_machine(&in);
        if (l.watched < MAX_STEPS)
            plant_sentinel(w, &l, &m, i);
        iterations = model_loop(w, &l, &m);
        if (iterations < 0) {
            set_world(w, &state);
            continue;
        }
        long_loops += iterations >= 4;
        enter(&in, &out);
        what = difference(w, &m, &out);
        if (wrong(tally, !what)) {
            say(" [seed=%X run=%d iterations=%d %s", seed, (word)i, (word)iterations, what);
            say_event(&out);
            say("]");
        }
        if (what) /* do not report it again */
            set_world(w, &state);
    }
}

static void run_world(const struct world *w, u64 first_seed)
{
    struct tally tally = { 0 };
    u64 seed = 1;

    begin(w->name);
    set_world(w, &seed);
    long_loops = 0;
    for (unsigned i = 0; i < ROUNDS; i++)
        run_loop(w, &tally, first_seed + i);
    say(" of-four-iterations-and-more=%d", (word)long_loops);
    end_tally(&tally);
}

/* The ends of pages 0 and 2 are where the arrays lie; page 2 and 3 are the second array's. */
static const struct world worlds[] = {
    { "soundness-04-loops-user", USER, "0123", "wwww" },
    { "soundness-04-loops-kernel", KERNEL, "0123", "wwww" },
    { "soundness-04-loops-compatibility", USER32, "0123", "wwww" },
    { "soundness-04-loops-second-absent-user", USER, "0123", "w-w-" },
    { "soundness-04-loops-second-absent-kernel", KERNEL, "0123", "w-ww" },
    { "soundness-04-loops-second-absent-compatibility", USER32, "0123", "w-w-" },
    { "soundness-04-loops-second-read-only-user", USER, "0123", "wrwr" },
    { "soundness-04-loops-second-read-only-kernel", KERNEL, "0123", "wwwr" },
    { "soundness-04-loops-second-supervisor-user", USER, "0123", "wsww" },
    { "soundness-04-loops-second-supervisor-kernel", KERNEL, "0123", "wsw-" },
    { "soundness-04-loops-first-absent-user", USER, "0123", "-w-w" },
    { "soundness-04-loops-first-read-only-user", USER, "0123", "rwrw" },
    { "soundness-04-loops-first-read-only-compatibility", KERNEL32, "0123", "rwwr" },
    { "soundness-04-loops-aliases-user", USER, "0101", "wwww" },
    { "soundness-04-loops-aliases-one-read-only-kernel", KERNEL, "0110", "wrww" },
};

void cases(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(worlds); i++)
        run_world(&worlds[i], 1000 * (i + 1));
}
