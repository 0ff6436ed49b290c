/* Flags (docs/design.md, "Soundness", lines 10 and 16): the RFLAGS that an exception pushes are exact, also those that
 * nobody would have read any more, and the guest's AC, TF, NT, IOPL and DF do to the guest what they should and to
 * nobody else anything. SDM Vol. 1 3.4.3; Vol. 3A 2.3, 6.12, 6.15. */
#include "soundness.h"

/* ---- Line 10: RFLAGS at an exception ---- */

struct fragment {
    const char *name;
    struct code (*code)(void);
    word undefined; /* status flags that it leaves undefined */
};

#define FRAGMENT(id, text)                                                                                             \
    static struct code code_##id(void)                                                                                 \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
#define PRODUCERS(X)                                                                                                   \
    X(stc, "stc", 0)                                                                                                   \
    X(clc, "add al, cl; clc", 0)                                                                                       \
    X(cmc, "stc; cmc", 0)                                                                                              \
    X(add8, "add al, cl", 0)                                                                                           \
    X(add64, "add rax, rcx", 0)                                                                                        \
    X(add_memory, "add [rsi], al", 0)                                                                                  \
    X(add_from_memory, "add eax, [rsi+8]", 0)                                                                          \
    X(adc, "stc; adc eax, ecx", 0)                                                                                     \
    X(sub16, "sub ax, cx", 0)                                                                                          \
    X(sbb, "stc; sbb rax, rcx", 0)                                                                                     \
    X(cmp, "cmp ecx, eax", 0)                                                                                          \
    X(cmp_memory, "cmp [rsi], cl", 0)                                                                                  \
    X(neg, "neg rax", 0)                                                                                               \
    X(inc_keeps_carry, "stc; inc ecx", 0)                                                                              \
    X(dec_keeps_carry, "stc; dec qword ptr [rsi]", 0)                                                                  \
    X(and, "and eax, ecx", AF)                                                                                         \
    X(or, "or al, 0x80", AF)                                                                                           \
    X(xor, "xor eax, eax", AF)                                                                                         \
    X(test, "test rax, rax", AF)                                                                                       \
    X(test_memory, "test byte ptr [rsi], 0x81", AF)                                                                    \
    X(shl1, "shl rax, 1", AF)                                                                                          \
    X(shl_cl, "shl eax, cl", AF | OF)                                                                                  \
    X(shl_by_0, "stc; mov ecx, 32; shl eax, cl", 0)                                                                    \
    X(shr1, "shr al, 1", AF)                                                                                           \
    X(sar_cl, "sar rax, cl", AF | OF)                                                                                  \
    X(rol1, "add al, cl; rol rax, 1", 0)                                                                               \
    X(ror, "add al, cl; ror eax, 5", OF)                                                                               \
    X(rcl1, "stc; rcl rax, 1", 0)                                                                                      \
    X(rcr, "stc; rcr al, 3", OF)                                                                                       \
    X(shld, "shld rax, rcx, 7", AF | OF)                                                                               \
    X(bt, "add al, cl; bt rax, 63", OF | SF | AF | PF)                                                                 \
    X(bts_memory, "bts dword ptr [rsi], 3", OF | SF | AF | PF)                                                         \
    X(imul, "imul eax, ecx, 0x7654321", SF | ZF | AF | PF)                                                             \
    X(mul, "mul ecx", SF | ZF | AF | PF)                                                                               \
    X(bsf, "xor ecx, ecx; bsf rax, rcx", CF | OF | SF | AF | PF)                                                       \
    X(popcnt, "popcnt rax, rcx", 0)                                                                                    \
    X(xadd, "xadd eax, ecx", 0)                                                                                        \
    X(cmpxchg, "cmpxchg cl, al", 0)                                                                                    \
    X(lock_xadd, "lock xadd [rsi], eax", 0)                                                                            \
    X(sahf, "mov ah, 0xd5; sahf", 0)                                                                                   \
    X(popf, "push 0x8d5; popfq", 0)                                                                                    \
    X(comiss, "mov eax, 0x3f800000; movd xmm0, eax; pxor xmm1, xmm1; comiss xmm1, xmm0", 0)                            \
    X(ucomisd, "pxor xmm1, xmm1; ucomisd xmm1, xmm1", 0)                                                               \
    X(ptest, "pcmpeqd xmm1, xmm1; ptest xmm1, xmm1", 0)                                                                \
    X(fcomi, "fninit; fld1; fldz; fcomi st, st(1); fninit", OF | SF | AF)                                              \
    X(scas, "mov rdi, rsi; scasb", 0)                                                                                  \
    X(repe_cmps, "mov rdi, rsi; mov ecx, 4; repe cmpsb; mov rsi, rdi", 0)                                              \
    X(dead_then_live, "add al, cl; sub eax, ecx; cmp al, 3", 0)                                                        \
    X(partly_dead, "stc; inc eax; dec ecx", 0)
#define X(id, text, undefined) FRAGMENT(producer_##id, text)
PRODUCERS(X)
#undef X
#define X(id, text, undefined) { #id, code_producer_##id, undefined },
static const struct fragment producers[] = { PRODUCERS(X) };
#undef X

/* Each faults when RBX is a bad address (or by itself), and none changes flags before it does. */
#define FAULTS(X)                                                                                                      \
    X(load, "mov rdx, [rbx]")                                                                                          \
    X(load_after_loads, "mov rdx, [rsi]; mov rdi, [rsi+8]; mov rbp, [rbx+16]")                                         \
    X(store, "mov [rbx], edx")                                                                                         \
    X(store_crossing, "mov [rbx-2], edx")                                                                              \
    X(read_modify_write, "add [rbx], edx")                                                                             \
    X(locked, "lock sub [rbx], edx")                                                                                   \
    X(compare, "cmp edx, [rbx]")                                                                                       \
    X(adc_from_memory, "adc edx, [rbx]")                                                                               \
    X(push, "mov rsp, rbx; push rdx")                                                                                  \
    X(pop, "mov rsp, rbx; pop rdx")                                                                                    \
    X(call, "mov rsp, rbx; call 1f; 1:")                                                                               \
    X(call_memory, "call [rbx]")                                                                                       \
    X(jump, "jmp rbx")                                                                                                 \
    X(ret, "push rbx; ret")                                                                                            \
    X(division, "xor edi, edi; div edi")                                                                               \
    X(undefined, "ud2")                                                                                                \
    X(breakpoint, "int3")                                                                                              \
    X(movaps, "movaps xmm0, [rsi+1]")                                                                                  \
    X(movups, "movups xmm0, [rbx]")                                                                                    \
    X(stos, "mov rdi, rbx; stosb")                                                                                     \
    X(rep_movs, "mov rdi, rbx; mov ecx, 3; rep movsb")                                                                 \
    X(x87, "fld dword ptr [rbx]")                                                                                      \
    X(cmpxchg, "cmpxchg [rbx], edx")                                                                                   \
    X(non_canonical, "bts rbx, 62; mov rdx, [rbx]")                                                                    \
    X(fxsave, "fxsave [rbx]")
#define X(id, text) FRAGMENT(fault_##id, text)
FAULTS(X)
#undef X
#define X(id, text) { #id, code_fault_##id, 0 },
static const struct fragment faults[] = { FAULTS(X) };
#undef X

#define PRODUCER_REGISTERS .rax = 0x80000000000000f1, .rcx = 0x7f00000f, .rdx = 5

/* XOR and BTS in front of the fault change flags themselves: what they leave alone still counts. */
static word changed_by(const struct fragment *fault)
{
    return fault->code == code_fault_division ? STATUS : fault->code == code_fault_non_canonical ? STATUS : 0;
}

static void producer_case(const struct fragment *p)
{
    struct tally tally = { 0 };
    word expected, length;

    begin(name_of("soundness-10-flags-of-%s", p->name));
    fill(UDATA_FRAME, 0x42, 64);
    fill(DATA_FRAME, 0x42, 64);
    put_code(CODE_FRAME + put_code(CODE_FRAME, p->code()), CODE("pushfq; pop r8"));
    expected = AGAIN(USER, PRODUCER_REGISTERS, .rsi = UDATA).r8 & STATUS & ~p->undefined;
    say(" %x", expected);
    length = put_code(CODE_FRAME, p->code());
    for (unsigned i = 0; i < ARRAY_SIZE(faults); i++) {
        word at = length + put_code(CODE_FRAME + length, faults[i].code());

        put_code(CODE_FRAME + at, CODE("add edx, edx; xor ecx, ecx")); /* nobody reads the flags */
        for (unsigned n = 0; n < 6; n++) {
            enum mode mode = n & 2 ? USER : KERNEL;
            word data = mode == USER ? UDATA : DATA, pushed;
            struct regs out;

            fill(mode == USER ? UDATA_FRAME : DATA_FRAME, 0x42, 64);
            /* in turns with an address that is good */
            out = AGAIN(mode, PRODUCER_REGISTERS, .rsi = data, .rbx = n & 1 ? HOLE : data + 0x800);
            pushed = out.rflags & STATUS & ~p->undefined;
            if (!(n & 1))
                continue;
            if (changed_by(&faults[i])) {
                wrong(&tally, out.vector != VECTOR_DONE);
                continue;
            }
            if (wrong(&tally, out.vector != VECTOR_DONE && pushed == expected)) {
                say(" [%s: %x", faults[i].name, pushed);
                say_event(&out);
                say("]");
            }
        }
    }
    end_tally(&tally);
}

/* Every combination of status flags survives a fault that is handled and repeated. */
static void make_present(struct regs *regs)
{
    map(regs->cr2, FREE_FRAME, P | W | U);
}

static void handled_faults(void)
{
    static const char *const names[] = { "load", "store", "read-modify-write", "push", "vector" };
    struct code codes[] = {
        CODE("push rax; popfq; mov rcx, [rbx]; pushfq; pop rdx; add eax, 1"),
        CODE("push rax; popfq; mov [rbx], rcx; pushfq; pop rdx; add eax, 1"),
        CODE("push rax; popfq; not qword ptr [rbx]; pushfq; pop rdx; add eax, 1"),
        CODE("push rax; mov rdi, rsp; popfq; mov rsp, r9; push rcx; mov rsp, rdi; pushfq; pop rdx; add eax, 1"),
        CODE("push rax; popfq; movups xmm0, [rbx]; pushfq; pop rdx; add eax, 1"),
    };

    for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
        struct tally tally = { 0 };

        begin(name_of("soundness-10-flags-survive-handled-fault-%s", names[i]));
        handlers[PG] = make_present;
        put_code(CODE_FRAME, codes[i]);
        for (unsigned n = 0; n < 128; n++) {
            word flags = (n & 1 ? CF : 0) | (n & 2 ? PF : 0) | (n & 4 ? AF : 0) | (n & 8 ? ZF : 0) | (n & 16 ? SF : 0) |
                         (n & 32 ? OF : 0) | (n & 64 ? DF : 0) | 2;
            struct regs out;

            map(FREE, 0, 0);
            invalidate(FREE);
            out = AGAIN(n % 3 ? USER : KERNEL, .rax = flags, .rbx = FREE, .r9 = FREE + 0x100);
            if (wrong(&tally, out.vector == VECTOR_DONE && (out.rdx & (STATUS | DF | 2)) == flags)) {
                say(" [%x: %x", flags, out.rdx);
                say_event(&out);
                say("]");
            }
        }
        end_tally(&tally);
    }
}

/* What SYSCALL saves and what SYSRET and IRET bring back. */
static void system_call_flags(void)
{
    struct tally tally = { 0 };

    begin("soundness-10-flags-through-syscall");
    wrmsr(MSR_STAR, (u64)(UCS - 16) << 48 | (u64)KCS << 32);
    wrmsr(MSR_LSTAR, CODE_PAGE + 0x800);
    wrmsr(MSR_FMASK, 0);
    put_code(CODE_FRAME, CODE("push rax; popfq; mov rdi, [rbx]; syscall; pushfq; pop rdx; add eax, 1"));
    put_code(CODE_FRAME + 0x800, CODE("mov r8, r11; add esi, 1; xor edi, edi; sysretq"));
    for (unsigned n = 0; n < 64; n++) {
        word flags = (n & 1 ? CF : 0) | (n & 2 ? PF : 0) | (n & 4 ? AF : 0) | (n & 8 ? ZF : 0) | (n & 16 ? SF : 0) |
                     (n & 32 ? OF : 0) | 2;
        struct regs out = AGAIN(USER, .rax = flags, .rbx = UDATA);

        if (wrong(&tally,
                  out.vector == VECTOR_DONE && (out.rdx & (STATUS | 2)) == flags && (out.r8 & (STATUS | 2)) == flags))
            say(" [%x: %x %x]", flags, out.rdx, out.r8);
    }
    end_tally(&tally);
}

/* ---- Line 16: flags that change what instructions do ---- */

static volatile word steps, step_sum;

static void step(struct regs *regs)
{
    steps++;
    step_sum = step_sum * 31 + (regs->rip & 0xfff);
}

/* A bit of everything: crossing and misaligned accesses, strings in the direction of DF, a page that is only there
 * after its fault, calls, vectors, x87, an interrupt and back. */
#define WORKOUT                                                                                                        \
    "mov rax, [rbx]; mov [rbx+8], rax; mov ecx, [rbx+0xffe]; mov [rbx+0xffd], ecx; push rax; pop rdx; call 1f; jmp "   \
    "2f;"                                                                                                              \
    "1: add rax, rcx; ret; 2: lea rsi, [rbx+0x1010]; lea rdi, [rbx+0x1803]; mov ecx, 37; rep movsb; lea rdi, "         \
    "[rbx+0xfff]; mov ecx, 5; rep stosw; movups xmm0, [rbx+1]; movups [rbx+0x21], xmm0; mov eax, 77; mul ecx; mov "    \
    "eax, "                                                                                                            \
    "1234567; mov ecx, 13; div ecx; lock inc dword ptr [rbx+0x3b]; int3; mov r9, [r12+3]; fninit; fld dword ptr "      \
    "[rbx+3]; fstp qword ptr [rbx+0x45]; xchg [rbx+0x51], rdx; bts dword ptr [rbx+0x61], 30; cmpxchg [rbx+0x71], rcx;" \
    "mov r10d, [rbx+0xffd]; mov r11w, [rbx+0x7ff]; enter 24, 1; leave; xor edx, edx"

static word memory_sum(word pa)
{
    word sum = 0;

    for (unsigned i = 0; i < 4 * PAGE / 8; i++)
        sum = sum * 33 + FRAME64(pa)[i];
    return sum;
}

static void workout(const char *name, enum mode mode, word flags, word cr0)
{
    word data = mode == USER ? UDATA : DATA, frame = mode == USER ? UDATA_FRAME : DATA_FRAME, sums[3];
    struct regs out = { 0 };

    begin(name);
    handlers[BP] = go_on;
    handlers[PG] = make_present;
    handlers[DB] = step;
    write_cr0(cr0);
    PLACE(WORKOUT);
    *FRAME64(FREE_FRAME) = 0x1122334455667788;
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned n = 0; n < 4 * PAGE; n++)
            FRAME8(frame)[n] = (u8)(n * 5 + (n >> 8));
        map(FREE, 0, 0);
        invalidate(FREE);
        steps = step_sum = 0;
        out = AGAIN(mode, .rbx = data, .r12 = FREE, .rflags = 2 | flags);
        sums[i] = memory_sum(frame);
    }
    say(" %s", event_name(out.vector));
    if (out.vector != VECTOR_DONE)
        say(" ip+%x", out.rip & 0xfff);
    say(" ax=%x r9=%x r10=%x r11=%x memory=%x same=%d flags=%x", out.rax, out.r9, out.r10, out.r11,
        sums[0] & 0xffffffff, (word)(sums[0] == sums[1] && sums[1] == sums[2]), out.rflags & ~(word)(STATUS | RF));
    if (flags & TF)
        say(" steps=%d sum=%x", steps, step_sum & 0xffffffff);
    done();
}

static void workouts(void)
{
    word cr0 = read_cr0(), no_am = cr0 & ~(word)CR0_AM;

    workout("soundness-16-plain", USER, 0, cr0);
    workout("soundness-16-ac-without-am", USER, AC, no_am);
    workout("soundness-16-ac-kernel", KERNEL, AC, cr0);
    workout("soundness-16-nt", USER, NT, cr0);
    workout("soundness-16-nt-kernel", KERNEL, NT, cr0);
    workout("soundness-16-iopl", USER, IOPL3, cr0);
    workout("soundness-16-id", USER, ID, cr0);
    workout("soundness-16-direction", USER, DF, cr0);
    workout("soundness-16-direction-kernel", KERNEL, DF, cr0);
    workout("soundness-16-single-step", USER, TF, cr0);
    workout("soundness-16-single-step-kernel", KERNEL, TF, cr0);
    workout("soundness-16-all-at-once", USER, AC | NT | IOPL3 | ID | DF, no_am);
    workout("soundness-16-all-at-once-stepping", USER, AC | NT | IOPL3 | ID | DF | TF, no_am);
}

/* AC in turns over the same code. */
static void alignment_in_turns(void)
{
    begin("soundness-16-ac-in-turns");
    PLACE("mov eax, [rbx+2]; mov [rbx+6], eax");
    for (unsigned i = 0; i < 8; i++) {
        struct regs out = AGAIN(USER, .rbx = UDATA, .rflags = 2 | (i & 1 ? AC : 0));

        say(" %s", event_name(out.vector));
        if (out.vector != VECTOR_DONE)
            say("(%x)", out.error);
    }
    done();
    begin("soundness-16-ac-set-in-the-middle");
    PLACE("mov eax, [rbx+2]; push rcx; popfq; mov edx, [rbx]; mov ebp, [rbx+2]; push rsi; popfq");
    for (unsigned i = 0; i < 4; i++) {
        struct regs out = AGAIN(USER, .rbx = UDATA, .rcx = 2 | (i & 1 ? AC : 0), .rsi = 2);

        say(" %s", event_name(out.vector));
        if (out.vector != VECTOR_DONE)
            say("(%x)+%x", out.error, out.rip - UCODE_PAGE);
    }
    done();
}

/* IOPL and the I/O bitmap in turns over the same code. */
static void io_in_turns(void)
{
    begin("soundness-16-iopl-in-turns");
    PLACE("cli; in al, 0x80; sti");
    for (unsigned i = 0; i < 6; i++) {
        struct regs out = AGAIN(i == 4 ? KERNEL : USER, .rflags = 2 | (i & 1 ? IOPL3 : 0));

        say(" %s+%x", event_name(out.vector), out.rip & 0xfff);
    }
    done();
}

/* TF that is set and cleared in the middle of a hot piece of code. */
static void stepping_in_turns(void)
{
    begin("soundness-16-single-step-in-turns");
    handlers[DB] = step;
    PLACE("push rcx; popfq; mov eax, 1; add eax, [rbx]; call 1f; jmp 2f; 1: ret; 2: push rsi; popfq; mov edx, 2; jmp "
          "3f; 3:");
    for (unsigned i = 0; i < 6; i++) {
        steps = step_sum = 0;
        AGAIN(USER, .rbx = UDATA, .rcx = 2 | (i & 1 ? TF : 0), .rsi = 2);
        say(" %d:%x", steps, step_sum & 0xffff);
    }
    done();
    begin("soundness-16-direction-in-turns");
    PLACE("mov rdi, rbx; mov ecx, 4; rep stosd; pushfq; pop rdx");
    for (unsigned i = 0; i < 4; i++) {
        struct regs out = AGAIN(USER, .rbx = UDATA + 0x1000, .rflags = 2 | (i & 1 ? DF : 0));

        say(" %d:%x", (word) !!(out.rdx & DF), out.rdi - UDATA);
    }
    done();
}

void cases(void)
{
    RUN(KERNEL, "fninit");
    for (unsigned i = 0; i < ARRAY_SIZE(producers); i++)
        producer_case(&producers[i]);
    handled_faults();
    system_call_flags();
    workouts();
    alignment_in_turns();
    io_in_turns();
    stepping_in_turns();
}
