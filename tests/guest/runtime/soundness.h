/* What the images that test the soundness of a translator share (docs/design.md, "Soundness"): code that is placed once
 * and entered many times, so that whatever an engine has learnt at its first run is there at the next; and tallies, for
 * cases that are thousands of probes compared with a model. */
#ifndef TESTS_GUEST_RUNTIME_SOUNDNESS_H
#define TESTS_GUEST_RUNTIME_SOUNDNESS_H

#include "guest.h"

/* The pages under test, where they are next to each other. */
#define PAGE_A  FREE
#define PAGE_B  (FREE + PAGE)
#define FRAME_A FREE_FRAME
#define FRAME_B (FREE_FRAME + PAGE)

/* Enters what put_code() has placed at the beginning of the code page (or .code_at, or .rip). */
#define AGAIN(how, ...)                                                                                                \
    ({                                                                                                                 \
        struct regs in_ = { DEFAULTS, .mode = (how), ##__VA_ARGS__ }, out_;                                            \
        enter(&in_, &out_);                                                                                            \
        out_;                                                                                                          \
    })
#define PLACE(text) put_code(CODE_FRAME, CODE(text))

/* One case, one piece of code that is entered several times: `setup` (a statement) brings back what it changes. The
 * line shows the last run, and whether one of the others differed. */
#define OPEN_HOT(name, how, setup, text, ...)                                                                          \
    ({                                                                                                                 \
        struct regs in_ = { DEFAULTS, .mode = (how), ##__VA_ARGS__ }, out_ = in_, last_;                               \
        const char *name_ = name;                                                                                      \
        if (!skipped(name_)) {                                                                                         \
            word unsteady_ = 0;                                                                                        \
            put_code(CODE_FRAME + in_.code_at, CODE(text));                                                            \
            for (unsigned i_ = 0; i_ < 4; i_++) {                                                                      \
                setup;                                                                                                 \
                last_ = out_;                                                                                          \
                enter(&in_, &out_);                                                                                    \
                unsteady_ += i_ > 1 && !same_result(&out_, &last_);                                                    \
            }                                                                                                          \
            report(name_, &in_, &out_);                                                                                \
            if (unsteady_)                                                                                             \
                say(" unsteady");                                                                                      \
        }                                                                                                              \
        out_;                                                                                                          \
    })
#define HOT(name, how, setup, text, ...) (OPEN_HOT(name, how, setup, text, ##__VA_ARGS__), done())

/* The registers and what ended the probe. */
static inline int same_result(const struct regs *a, const struct regs *b)
{
    for (unsigned i = 0; i < 16; i++)
        if ((&a->rax)[i] != (&b->rax)[i])
            return 0;
    return a->vector == b->vector && a->error == b->error && a->rip == b->rip && a->cs == b->cs &&
           ((a->rflags ^ b->rflags) & ~(word)RF) == 0 && (a->vector != PG || a->cr2 == b->cr2);
}

static inline void map_pages(u64 va, u64 pa, unsigned pages, u64 flags)
{
    for (unsigned i = 0; i < pages; i++)
        map(va + i * PAGE, pa + i * PAGE, flags);
}

static inline void invalidate(u64 va)
{
    __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

/* Handlers: what came is over; the page is there from now on, if it is a free one. */
static inline void go_on(struct regs *regs)
{
    (void)regs;
}

static inline void map_one(struct regs *regs)
{
    u64 page = regs->cr2 & ~0xfffull;

    map(page, FREE_FRAME + (page - FREE), P | W | U);
}

static inline void set_xcr0(u32 value)
{
    __asm__ volatile("xsetbv" : : "a"(value), "c"(0), "d"(0));
}

static inline u64 mask_of(unsigned size)
{
    return size == 8 ? ~0ull : BIT(8 * size) - 1;
}

/* splitmix64 */
static inline u64 random64(u64 *state)
{
    u64 z = *state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* ---- Tallies ---- */

struct tally {
    word count, wrong;
};

/* True for the first few wrong ones: say what they are. */
static inline int wrong(struct tally *tally, int right)
{
    tally->count++;
    if (right)
        return 0;
    return tally->wrong++ < 3;
}

static inline void say_event(const struct regs *out)
{
    say(" %s", event_name(out->vector));
    if (out->vector == PG)
        say("(%x) cr2=%x", out->error, out->cr2);
    else if (out->vector == GP || out->vector == SS)
        say("(%x)", out->error);
    say(" ip=%x", out->rip);
}

static inline void end_tally(const struct tally *tally)
{
    say(" probes=%d wrong=%d", tally->count, tally->wrong);
    done();
}

/* ---- Code made at run time ---- */

struct emitter {
    word pa, length;
};

static inline void emit8(struct emitter *e, unsigned byte)
{
    FRAME8(e->pa)[e->length++] = (u8)byte;
}

static inline void emit32(struct emitter *e, u32 value)
{
    for (unsigned i = 0; i < 4; i++)
        emit8(e, value >> 8 * i);
}

/* INT 0x40 */
static inline void emit_end(struct emitter *e)
{
    emit8(e, 0xcd);
    emit8(e, 0x40);
}

/* ModRM, SIB and a 32-bit displacement: [base + index * 2^scale + disp]; index 4: none. */
static inline void emit_memory(struct emitter *e, unsigned reg, unsigned base, unsigned index, unsigned scale, u32 disp)
{
    if ((base & 7) == 4 || index != 4) {
        emit8(e, 0x80 | (reg & 7) << 3 | 4);
        emit8(e, scale << 6 | (index & 7) << 3 | (base & 7));
    } else {
        emit8(e, 0x80 | (reg & 7) << 3 | (base & 7));
    }
    emit32(e, disp);
}

/* ---- Outcomes ---- */

/* What an access has to do. */
struct outcome {
    word vector, error, cr2;
};

static inline int same_outcome(const struct outcome *want, const struct regs *out)
{
    return out->vector == want->vector && (want->vector == VECTOR_DONE || out->error == want->error) &&
           (want->vector != PG || out->cr2 == want->cr2);
}

#endif
