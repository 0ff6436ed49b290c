/* STOS and MOVS (docs/design.md, "Soundness", lines 3, 6, 10, 14 and 16), which a translator may do page by page by the
 * host's own instructions: every size, plain and repeated, forwards and backwards, over page ends, into pages that may
 * not be written or are not there, between views of one page, over code. A model that goes byte by byte runs beside
 * them: registers, flags, memory, accessed and dirty bits, the fault and where it comes. SDM Vol. 1 7.3.9; Vol. 2 MOVS, REP, STOS;
 * Vol. 3A 4.6 to 4.8. */
#include "soundness_ticks.h"
#include "soundness_world.h"

/* ---- The model ---- */

enum { PAGES = 6, VARIANTS = 2 * 4 * 3 * 4 * 3, SEGMENT_BASE = 0x1230 };

enum prelude { NONE, COMPARE, COMPARE_AND_LOSE, PRELUDES };

struct variant {
    int move, backwards;
    unsigned size, rep;  /* rep: 0, F2, F3 */
    int narrow, segment; /* 32-bit addresses in 64-bit code; FS as the source's segment */
    enum prelude prelude;
    word at, string_at, length; /* of its code; where in it the instruction in question is */
};

static struct variant variants[VARIANTS];
static unsigned variant_count;

static int model_element(const struct world *w, const struct variant *v, struct machine *m)
{
    u64 from = m->state.rsi + (v->segment ? SEGMENT_BASE : 0), to = m->state.rdi, value = m->state.rax;

    if (v->move) {
        if (faults(w, m, from, v->size, 0))
            return 0;
        value = read_model(w, from, v->size);
    }
    if (faults(w, m, to, v->size, 1))
        return 0;
    write_model(w, to, v->size, value);
    return 1;
}

static void model_variant(const struct world *w, const struct variant *v, struct machine *m)
{
    struct regs *r = &m->state;
    word step = v->backwards ? -(word)v->size : v->size;

    if (v->prelude != NONE)
        subtract(m, (u32)r->rdx, (u32)r->rax, 0, 4);
    if (v->prelude == COMPARE)
        r->rbp = FRAME32(UDATA_FRAME)[0];
    if (v->prelude == COMPARE_AND_LOSE)
        r->rdx = FRAME32(UDATA_FRAME)[0];
    r->rflags |= v->backwards ? DF : 0;
    for (u64 count = v->rep ? r->rcx : 1; count; count--) {
        if (!model_element(w, v, m)) {
            r->rip += v->string_at;
            return;
        }
        r->rdi += step;
        r->rsi += v->move ? step : 0;
        r->rcx -= v->rep != 0;
    }
    r->rbp = FRAME32(UDATA_FRAME)[2];
    r->rip += v->length;
}

/* ---- The code: placed once for each world ---- */

/* [CMP EDX, EAX; MOV EBP or EDX, [RBX]]; [STD]; the instruction; MOV EBP, [RBX + 8]. The loads, and what their checks leave
 * of the flags, are what a translator may get wrong on either side. */
static void emit_variant(struct emitter *e, struct variant *v)
{
    v->at = e->length;
    if (v->prelude != NONE) {
        emit8(e, 0x39); /* cmp edx, eax */
        emit8(e, 0xc2);
        emit8(e, 0x8b); /* mov edx or ebp, [rbx] */
        emit8(e, v->prelude == COMPARE ? 0x2b : 0x13);
    }
    if (v->backwards)
        emit8(e, 0xfd);
    v->string_at = e->length - v->at;
    if (v->segment)
        emit8(e, 0x64);
    if (v->narrow)
        emit8(e, 0x67);
    if (v->size == 2)
        emit8(e, 0x66);
    if (v->rep)
        emit8(e, v->rep);
    if (v->size == 8)
        emit8(e, 0x48);
    emit8(e, (v->move ? 0xa4 : 0xaa) | (v->size > 1));
    emit8(e, 0x8b); /* mov ebp, [rbx + 8] */
    emit8(e, 0x6b);
    emit8(e, 8);
    emit_end(e);
    v->length = e->length - v->at;
}

static void place_variants(const struct world *w)
{
    struct emitter e = { CODE_FRAME, 0 };
    unsigned n = 0;

    for (unsigned i = 0; i < VARIANTS; i++) {
        static const u8 reps[] = { 0, 0xf2, 0xf3 };
        struct variant v = { .move = i & 1, .size = 1u << (i >> 1) % 4, .rep = reps[(i >> 3) % 3] };
        unsigned special = i / 24 % 4;

        v.prelude = i / 96;
        v.backwards = special == 1;
        v.narrow = special == 2;
        v.segment = special == 3 && v.move;
        if (compat(w) && (v.size == 8 || v.narrow || v.segment))
            continue;
        emit_variant(&e, &v);
        variants[n++] = v;
    }
    variant_count = n;
}

/* ---- The real thing ---- */

struct probes {
    struct world world;
    unsigned spread, count; /* how far from a page end the operands begin; elements at most */
};

static void make_probe(const struct probes *p, const struct variant *v, struct regs *in, u64 *seed)
{
    const struct world *w = &p->world;

    for (unsigned reg = 0; reg < 16; reg++)
        (&in->rax)[reg] = compat(w) ? (u32)random64(seed) : random64(seed);
    u64 r = random64(seed), kind = r % 16;
    u64 edge = FREE + (1 + (r >> 8) % (PAGES - 1)) * PAGE, other = FREE + (1 + (r >> 16) % (PAGES - 1)) * PAGE;

    in->rbx = user(w) ? UDATA : DATA;
    in->rsp = user(w) ? USTACK_TOP : STACK_TOP;
    in->rdi = edge + random64(seed) % (2 * p->spread) - p->spread;
    in->rsi = kind < 6 ? in->rdi + random64(seed) % 33 - 16 : other + random64(seed) % (2 * p->spread) - p->spread;
    in->rsi -= v->segment ? SEGMENT_BASE : 0;
    in->rcx = random64(seed) % (kind % 4 ? 24 : p->count + 1);
    if (kind == 15) /* to where it faults */
        in->rcx = compat(w) || v->narrow ? 0xfffffff0 : ~0ul;
    in->rflags = 2 | (random64(seed) & STATUS);
    in->rip = (user(w) ? UCODE_PAGE : CODE_PAGE) + v->at;
}

/* What 64-bit code has left in the upper halves does not count in compatibility mode; what becomes of it is not compared. */
static void add_garbage(struct regs *in, u64 *seed)
{
    in->rcx |= random64(seed) << 32;
    in->rsi |= random64(seed) << 32;
    in->rdi |= random64(seed) << 32;
}

static void drop_garbage(struct regs *out)
{
    out->rcx = (u32)out->rcx;
    out->rsi = (u32)out->rsi;
    out->rdi = (u32)out->rdi;
}

static void run_probe(const struct probes *p, struct tally *tally, u64 seed)
{
    u64 state = seed;
    const struct world *w = &p->world;
    const struct variant *v = &variants[random64(&state) % variant_count];
    struct regs in = { .mode = w->mode }, out;
    const char *what;

    make_probe(p, v, &in, &state);
    if (random64(&state) % 4 == 0)
        clear_bits(w);
    struct machine m = start_machine(&in);
    model_variant(w, v, &m);
    if (compat(w))
        add_garbage(&in, &state);
    enter(&in, &out);
    if (compat(w))
        drop_garbage(&out);
    what = difference(w, &m, &out);
    if (wrong(tally, !what)) {
        say(" [seed=%X %s%s%d%s%s: %s", seed, v->rep ? "rep " : "", v->move ? "movs" : "stos", (word)v->size,
            v->backwards ? " backwards" : "", v->narrow ? " narrow" : "", what);
        say_event(&out);
        say("]");
    }
    if (what) /* do not report it again */
        set_world(w, &state);
}

static void run_world(const struct probes *p, unsigned rounds)
{
    struct tally tally = { 0 };
    u64 seed = 1;

    begin(p->world.name);
    for (unsigned i = 0; i < 4; i++)
        FRAME32(UDATA_FRAME)[i] = FRAME32(DATA_FRAME)[i] = 0x81828384u + i;
    place_variants(&p->world);
    set_world(&p->world, &seed);
    wrmsr(MSR_FS_BASE, SEGMENT_BASE);
    for (unsigned i = 0; i < rounds; i++)
        run_probe(p, &tally, random64(&seed));
    end_tally(&tally);
}

static const struct probes worlds[] = {
    { { "soundness-03-strings-user", USER, "012345", "wwwwww" }, 64, 1200 },
    { { "soundness-03-strings-kernel", KERNEL, "012345", "wwwwww" }, 64, 1200 },
    { { "soundness-03-strings-compatibility", USER32, "012345", "wwwwww" }, 64, 1200 },
    { { "soundness-03-strings-far-apart", USER, "012345", "wwwwww" }, 2048, 9000 },
    { { "soundness-03-strings-aliases", USER, "010110", "wwwwww" }, 64, 600 },
    { { "soundness-03-strings-aliases-compatibility", USER32, "010110", "wwwwww" }, 64, 600 },
    { { "soundness-03-strings-read-only", USER, "012345", "wrwwrw" }, 64, 600 },
    { { "soundness-03-strings-read-only-kernel", KERNEL, "012345", "wrwwrw" }, 64, 600 },
    { { "soundness-03-strings-holes", USER, "012345", "w-ww-w" }, 64, 600 },
    { { "soundness-03-strings-holes-compatibility", USER32, "012345", "w-ww-w" }, 64, 600 },
    { { "soundness-03-strings-holes-in-aliases", KERNEL, "010110", "w-ww-w" }, 64, 600 },
    { { "soundness-03-strings-supervisor", USER, "012345", "wswwsw" }, 64, 600 },
    { { "soundness-03-strings-supervisor-kernel", KERNEL, "012345", "wswwsw" }, 64, 600 },
};

/* ---- Line 6: over code ---- */

/* The page that the code lies in, above the code: tracked, and half of it only data. */
static void beside_code(void)
{
    static u8 code[PAGE];
    struct tally tally = { 0 };

    begin("soundness-06-strings-beside-code");
    put_code(CODE_FRAME, CODE("rep stosd; rep movsb; nop"));
    for (unsigned i = 0; i < 400; i++) {
        u64 at = UDATA + 0x100 + i % 64, to = FREE + 0x800 + i * 5 % 0x700, count = 1 + i % 40;
        u32 value = 0x04030201u + i * 0x11111111u;
        struct regs out;

        if (i % 50 == 0) {
            map(FREE, CODE_FRAME, P | W | U);
            invalidate(FREE);
            __builtin_memcpy(code, (const void *)(word)CODE_FRAME, PAGE);
        }
        for (unsigned n = 0; n < count * 4; n++)
            code[to % PAGE + n] = (u8)(value >> n % 4 * 8);
        out = AGAIN(USER, .rdi = to, .rcx = count, .rax = value, .rsi = at);
        int same = out.rdi == to + count * 4 && out.rcx == 0 && out.rsi == at;
        for (unsigned n = 0; n < PAGE; n++)
            same &= code[n] == FRAME8(CODE_FRAME)[n];
        if (wrong(&tally, out.vector == VECTOR_DONE && same)) {
            say(" [round=%d", (word)i);
            say_event(&out);
            say("]");
        }
    }
    end_tally(&tally);
}

/* It overwrites what follows it, which is then what is executed. */
static void over_next_instruction(void)
{
#define NOPS 0x9090909090909090
#define OVER(name, text, skip, ...)                                                                                    \
    HOT("soundness-06-strings-" name, USER,                                                                            \
        (map(UDATA, CODE_FRAME, P | W | U), invalidate(UDATA), put_code(CODE_FRAME, CODE(text))), text,                \
        .rdi = UDATA + (skip), .rax = NOPS, ##__VA_ARGS__)
    OVER("over-next-stosb", "stosb; int3; inc rax", 1);
    OVER("over-next-stosq", "stosq; ud2; ud2; ud2; ud2; inc rax", 2);
    OVER("over-next-rep-stosb", "rep stosb; ud2; ud2; ud2; ud2; inc rax", 2, .rcx = 8);
    OVER("over-next-rep-stosd", "rep stosd; ud2; ud2; ud2; ud2; inc rax", 2, .rcx = 2);
    OVER("over-next-later", "rep stosb; jmp 1f; .skip 64, 0x90; 1: ud2; ud2; ud2; inc rax", 0x44, .rcx = 6);
    FRAME32(USTACK_FRAME)[0] = 0x90909090;
    OVER("over-next-rep-movsb", "rep movsb; ud2; ud2; inc rax", 2, .rsi = USTACK, .rcx = 4);
#undef OVER
}

/* ---- Single cases ---- */

static void single_cases(void)
{
#define PAIR(first, second) (map(FREE, FREE_FRAME, first), map(FREE + PAGE, FREE_FRAME + PAGE, second), flush_tlb())
    HOT("soundness-03-strings-count-0-nowhere", USER, 0, "rep stosd", .rdi = HOLE, .rcx = 0);
    HOT("soundness-03-strings-count-0-non-canonical", USER, 0, "rep movsq", .rdi = NON_CANONICAL, .rsi = HOLE,
        .rcx = 0);
    HOT("soundness-03-strings-non-canonical", USER, 0, "rep stosd", .rdi = NON_CANONICAL, .rcx = 3);
    HOT("soundness-03-strings-non-canonical-source", USER, 0, "movsq", .rdi = UDATA, .rsi = NON_CANONICAL);
    HOT("soundness-03-strings-huge-count", USER, PAIR(P | W | U, 0), "rep stosq", .rdi = FREE + 3, .rcx = ~0ul);
    HOT("soundness-03-strings-huge-count-narrow", USER, PAIR(P | W | U, 0), ".byte 0x67; rep stosd", .rdi = FREE + 3,
        .rcx = 0x12345678fffffff0);
    HOT("soundness-03-strings-huge-move-to-read-only", USER, PAIR(P | W | U, P | U), "rep movsw", .rsi = FREE,
        .rdi = FREE + 0x10, .rcx = ~0ul);
    HOT("soundness-03-strings-both-fault", USER, 0, "rep movsb", .rdi = HOLE, .rsi = HOLE + PAGE, .rcx = 9);
    HOT("soundness-03-strings-narrow-garbage", USER, 0, ".byte 0x67; rep movsb", .rdi = UDATA | 0x1234567800000000,
        .rsi = (UDATA + 64) | 0xabcdef0100000000, .rcx = 0x9999999900000002);
    HOT("soundness-03-strings-low-end", USER, 0, "rep stosb", .rdi = LOW_END + 0xffe, .rcx = 4);
    HOT("soundness-10-strings-fault-flags", USER, PAIR(P | W | U, 0), "sub eax, 0x12; rep stosd; setc al",
        .rdi = FREE + PAGE - 8, .rcx = 9);
    HOT("soundness-16-strings-df-stays", USER, 0, "std; stosb; pushfq; pop rdx; cld", .rdi = UDATA + 5);
#undef PAIR
}

/* ---- Line 14: interrupts between elements ---- */

enum { LONG = 0x200000, LONG_AT = 0x1800000 };

static word rep_at;
static volatile word ticks, in_the_middle, wrong_ticks;
static u32 period;

/* What was done and what is left make the whole, at every interrupt; the instruction goes on where it was. */
static void tick(struct regs *regs)
{
    *apic(APIC_EOI) = 0;
    ticks++;
    if (!in_the_middle && ticks % 500 == 0) /* a slow engine on a busy host gets nowhere between two ticks */
        *apic(APIC_COUNT) = period *= 2;
    if (regs->rip == rep_at && regs->rcx != LONG && regs->r9 > 2) { /* every page is known by then */
        in_the_middle++;
        wrong_ticks += regs->rdi + regs->rcx * 4 != LONG_AT + LONG * 4ul || (regs->rflags & STATUS) != (CF | AF);
    }
    if (in_the_middle >= 10 || ticks >= 10000)
        end_probe(regs);
}

static void interrupted(void)
{
    struct regs out;

    begin("soundness-14-strings-interrupted");
    put_code(CODE_FRAME, CODE("1: inc r9d; mov edi, 0x1800000; mov ecx, 0x200000; mov edx, -1; cmp r8d, edx; jmp 2f; "
                              ".balign 64; 2: rep stosd; jmp 1b"));
    for (rep_at = CODE_FRAME; FRAME8(rep_at)[0] != 0xf3 || FRAME8(rep_at)[1] != 0xab;)
        rep_at++;
    rep_at += CODE_PAGE - CODE_FRAME;
    ticks = in_the_middle = wrong_ticks = 0;
    period = 300000;
    start_ticks(tick, period);
    out = AGAIN(KERNEL, .r8 = 0, .r9 = 0, .rflags = 2 | IF);
    stop_ticks();
    say(" %s in-the-middle=%d wrong=%d", event_name(out.vector), in_the_middle, wrong_ticks);
    done();
}

void cases(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(worlds); i++)
        run_world(&worlds[i], 300);
    beside_code();
    over_next_instruction();
    single_cases();
    interrupted();
}
