/* x87 and vector state (docs/design.md, "Soundness", lines 13, 16 and 17): all of it survives whatever makes an
 * emulator run code of its own, context switches by every save instruction, and interrupts anywhere; save areas hold
 * what XCR0 allows and nothing else; the control bits count also for code that has run without them. SDM Vol. 1 8, 10
 * to 13; Vol. 3A 2.5, 13. */
#include "apic.h"
#include "soundness.h"

enum { AREA_SIZE = 4096, X87 = 1, SSE = 2, AVX = 4, AVX512 = 0xe0 };

static u8 loaded[AREA_SIZE] __attribute__((aligned(64)));
static u8 saved[AREA_SIZE] __attribute__((aligned(64)));

static u32 all_components(void)
{
    return (u32)(X87 | SSE | (has_leaf1_c(28) ? AVX : 0) | (has_leaf7_b(16) ? AVX512 : 0));
}

static void put16(u8 *at, unsigned value)
{
    at[0] = (u8)value;
    at[1] = (u8)(value >> 8);
}

/* A standard-format area with a value of its own in every register, odd rounding and all exceptions masked. */
static void fill_area(u8 *area, u64 seed, u32 components)
{
    for (unsigned i = 0; i < AREA_SIZE; i++)
        area[i] = 0;
    put16(area, 0x0f7f); /* FCW: towards zero */
    area[4] = 0xff;      /* all registers in use */
    put16(area + 24, 0xffc0);
    for (unsigned i = 0; i < 8; i++) {
        u64 mantissa = random64(&seed) | BIT(63);

        __builtin_memcpy(area + 32 + 16 * i, &mantissa, 8);
        put16(area + 32 + 16 * i + 8, 0x3fff + i);
    }
    for (unsigned i = 0; i < 256; i++)
        area[160 + i] = (u8)random64(&seed);
    put16(area + 512, components);
    for (unsigned c = 2; c < 8; c++) {
        struct cpuid leaf = cpuid(13, c);

        if (c == 3 || c == 4 || !(components >> c & 1))
            continue;
        for (unsigned i = 0; i < leaf.a; i++)
            area[leaf.b + i] = (u8)random64(&seed);
    }
}

/* Where two areas differ, or -1. The pointers of the last x87 instruction may be forgotten: they are line 15. */
static int difference(const u8 *a, const u8 *b, u32 components)
{
    for (unsigned i = 0; i < 416; i++) {
        int reserved = (i >= 6 && i < 24) || i >= 28, is_register = i >= 160 || (i >= 32 && i % 16 < 10);

        if ((!reserved || (i >= 32 && is_register)) && a[i] != b[i])
            return (int)i;
    }
    for (unsigned c = 2; c < 8; c++) {
        struct cpuid leaf = cpuid(13, c);

        if (c == 3 || c == 4 || !(components >> c & 1))
            continue;
        for (unsigned i = 0; i < leaf.a; i++)
            if (a[leaf.b + i] != b[leaf.b + i])
                return (int)(leaf.b + i);
    }
    return -1;
}

/* ---- Line 13: events between loading and saving everything ---- */

static void skip_two(struct regs *regs)
{
    regs->rip += 2;
}

static void make_present(struct regs *regs)
{
    map(regs->cr2, FREE_FRAME, P | W | U);
}

struct event {
    const char *name;
    struct code (*code)(void);
    enum mode mode;
};

#define EVENTS(X)                                                                                                      \
    X(nothing, USER, "nop")                                                                                            \
    X(page_fault_load, USER, "mov rcx, [r12]")                                                                         \
    X(page_fault_store, USER, "mov [r12+5], rcx")                                                                      \
    X(page_fault_push, USER, "mov r9, rsp; lea rsp, [r12+0x80]; push rcx; pop rcx; mov rsp, r9")                       \
    X(page_fault_kernel, KERNEL, "add [r12], rcx")                                                                     \
    X(page_fault_string, USER, "mov rsi, rbx; mov r9, rdi; mov rdi, r12; mov ecx, 64; rep movsb; mov rdi, r9")         \
    X(page_fault_crossing, USER, "lock add [r12-4], rcx")                                                              \
    X(tlb_misses, USER,                                                                                                \
      "mov ecx, 64; mov rsi, r14; 1: add rdx, [rsi]; not rdx; mov r9, rsi; xor r9, 0x1000; "                           \
      "add [r9], rdx; add rsi, 0x40; and rsi, -0x1001; dec ecx; jnz 1b")                                               \
    X(crossing_accesses, USER, "mov ecx, 20; 1: add rdx, [r14+rcx+0xfec]; mov [r14+rcx+0xff0], rdx; dec ecx; jnz 1b")  \
    X(mmio_load, KERNEL, "mov ecx, [r13+0x30]; mov ecx, [r13+0x80]")                                                   \
    X(mmio_store, KERNEL, "xor ecx, ecx; mov [r13+0x80], ecx")                                                         \
    X(mmio_string, KERNEL, "mov r9, rdi; mov rdi, r14; lea rsi, [r13+0x80]; mov ecx, 1; rep movsd; mov rdi, r9")       \
    X(port_io, KERNEL, "in al, 0x80; out 0x80, al; in eax, 0x80")                                                      \
    X(cpuid, USER, "mov r9, rbx; xor eax, eax; cpuid; mov eax, 7; xor ecx, ecx; cpuid; mov rbx, r9")                   \
    X(rdtsc, USER, "rdtsc; rdtsc")                                                                                     \
    X(msr, KERNEL, "mov ecx, 0xc0000080; rdmsr; wrmsr")                                                                \
    X(fs_base, KERNEL, "mov ecx, 0xc0000100; xor eax, eax; xor edx, edx; wrmsr")                                       \
    X(system_call, USER, "syscall")                                                                                    \
    X(interrupt, USER, "int3; int3")                                                                                   \
    X(undefined, USER, "ud2; ud2")                                                                                     \
    X(division, USER, "xor ecx, ecx; div ecx")                                                                         \
    X(apic_interrupt, KERNEL, "mov ecx, 0x40051; mov [r13+0x300], ecx; sti; nop; nop; cli")                            \
    X(invlpg, KERNEL, "invlpg [r12]; mov rcx, [rbx]")                                                                  \
    X(cr3, KERNEL, "mov rcx, cr3; mov cr3, rcx; mov rcx, [rbx]")                                                       \
    X(cr4, KERNEL, "mov rcx, cr4; btc rcx, 7; mov cr4, rcx; btc rcx, 7; mov cr4, rcx")                                 \
    X(wbinvd, KERNEL, "wbinvd; clts")                                                                                  \
    X(self_modification, USER, "mov ecx, 30; 1: mov [rip+2f+1], cl; 2: mov al, 0; dec ecx; jnz 1b")                    \
    X(new_code, USER,                                                                                                  \
      "mov ecx, 0xc3; mov [r14+64], cl; lea rcx, [r14+64]; call rcx; mov cl, 0x90; mov [r14+63], cl; "                 \
      "lea rcx, [r14+63]; call rcx")                                                                                   \
    X(far_return, USER, "push 0x2b; lea rcx, [rip+1f]; push rcx; .byte 0x48, 0xcb; 1:")                                \
    X(segment_load, USER, "mov ecx, 0x23; mov es, ecx; mov fs, ecx")                                                   \
    X(deep_calls, USER, "mov ecx, 300; 1: call 2f; jmp 3f; 2: dec ecx; jz 4f; call 2b; 4: ret; 3:")                    \
    X(popf, USER, "pushfq; popfq; std; cld; lahf; sahf")                                                               \
    X(x87_pointer, USER, "fnop; fnstenv [r14+0x100]; fldenv [r14+0x100]")                                              \
    X(xgetbv, USER, "xor ecx, ecx; xgetbv")
#define X(id, mode, text)                                                                                              \
    static struct code event_##id(void)                                                                                \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
EVENTS(X)
#undef X
#define X(id, mode, text) { #id, event_##id, mode },
static const struct event events[] = { EVENTS(X) };
#undef X

static struct code load_code(int xsave)
{
    return xsave ? CODE("xrstor64 [rbx]; mov r10, rax; mov r11, rdx; mov r15, rax") : CODE("fxrstor64 [rbx]");
}

static struct code save_code(int xsave)
{
    return xsave ? CODE("mov rax, r15; xor edx, edx; xsave64 [rdi]") : CODE("fxsave64 [rdi]");
}

static void set_user_view(void)
{
    /* the areas are the image's: the user sees them in the window */
    map_pages(FREE + 16 * PAGE, (word)loaded & ~0xffful, 3, P | W | U);
    map_pages(FREE + 24 * PAGE, (word)saved & ~0xffful, 3, P | W | U);
    map_pages(FREE + 2 * PAGE, FREE_FRAME + 2 * PAGE, 4, P | W | U);
    map(FREE - PAGE, FREE_FRAME + PAGE, P | W | U);
    handlers[BP] = go_on;
    handlers[UD] = handlers[DE] = skip_two;
    handlers[PG] = make_present;
    expect_vector(0x51);
    wrmsr(MSR_STAR, (u64)(UCS - 16) << 48 | (u64)KCS << 32);
    wrmsr(MSR_LSTAR, CODE_PAGE + 0x800);
    wrmsr(MSR_FMASK, 0);
    put_code(CODE_FRAME + 0x800, CODE("mov r9, rcx; call 1f; jmp 2f; 1: ret; 2: mov rcx, r9; sysretq"));
}

static void survive(const struct event *event, int xsave)
{
    u32 components = xsave ? all_components() : X87 | SSE;
    struct tally tally = { 0 };
    word length;

    begin(name_of("soundness-13-%s-over-%s", xsave ? "xsave" : "fxsave", event->name));
    if (xsave)
        set_xcr0(components);
    length = put_code(CODE_FRAME, load_code(xsave));
    length += put_code(CODE_FRAME + length, event->code());
    put_code(CODE_FRAME + length, save_code(xsave));
    set_user_view();
    for (unsigned i = 0; i < 4; i++) {
        struct regs out;
        int at;

        map(FREE, 0, 0);
        invalidate(FREE);
        fill_area(loaded, 100 + i, components);
        for (unsigned n = 0; n < AREA_SIZE; n++)
            saved[n] = 0;
        out = AGAIN(event->mode, .rbx = FREE + 16 * PAGE + (word)loaded % PAGE,
                    .rdi = FREE + 24 * PAGE + (word)saved % PAGE, .rax = components, .rdx = 0, .r12 = FREE,
                    .r13 = 0xfee00000, .r14 = FREE + 2 * PAGE);
        at = difference(loaded, saved, components);
        if (wrong(&tally, out.vector == VECTOR_DONE && at < 0)) {
            say(" [offset %d: %x for %x;", (word)at, at < 0 ? 0 : (word)saved[at], at < 0 ? 0 : (word)loaded[at]);
            say_event(&out);
            say("]");
        }
    }
    end_tally(&tally);
}

static void survival(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(events); i++)
        survive(&events[i], 0);
    for (unsigned i = 0; i < ARRAY_SIZE(events); i++) {
        if (has_leaf1_c(26))
            survive(&events[i], 1);
        else
            absent(name_of("soundness-13-xsave-over-%s", events[i].name), "XSAVE");
    }
}

/* ---- Line 13: context switches ---- */

enum how { FXSAVE, XSAVE, XSAVEOPT, XSAVEC, HOWS };
static const char *const how_names[HOWS] = { "fxsave", "xsave", "xsaveopt", "xsavec" };
enum { THREADS = 4 };

static struct {
    struct regs regs[THREADS];
    enum how how;
    u32 components;
    unsigned current;
    word switches, limit;
} threads;
static u8 contexts[THREADS][AREA_SIZE] __attribute__((aligned(64)));

static void save_context(u8 *area)
{
    switch (threads.how) {
    case FXSAVE:
        __asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
        break;
    case XSAVE:
        __asm__ volatile("xsave64 (%0)" : : "r"(area), "a"(threads.components), "d"(0) : "memory");
        break;
    case XSAVEOPT:
        __asm__ volatile("xsaveopt64 (%0)" : : "r"(area), "a"(threads.components), "d"(0) : "memory");
        break;
    default:
        __asm__ volatile("xsavec64 (%0)" : : "r"(area), "a"(threads.components), "d"(0) : "memory");
    }
}

static void load_context(const u8 *area)
{
    if (threads.how == FXSAVE)
        __asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
    else
        __asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"(threads.components), "d"(0) : "memory");
}

static void copy_registers(struct regs *to, const struct regs *from)
{
    __builtin_memcpy(to, from, __builtin_offsetof(struct regs, ss) + sizeof(word));
}

static void switch_thread(struct regs *regs)
{
    unsigned next = (threads.current + 1) % THREADS;

    if (regs->vector >= 32)
        *apic(APIC_EOI) = 0;
    if (++threads.switches > threads.limit) {
        regs->r15 = 1; /* the thread sees that and ends the probe */
        return;
    }
    save_context(contexts[threads.current]);
    copy_registers(&threads.regs[threads.current], regs);
    threads.current = next;
    load_context(contexts[next]);
    copy_registers(regs, &threads.regs[next]);
}

/* Each thread has its number in all registers, R14 among them, and looks at some of them all the time; R8 counts the
 * rounds, R9 the times that something was wrong. */
#define LOOK_SSE                                                                                                       \
    "movq rax, xmm0; cmp rax, r14; setne cl; movq rax, xmm9; cmp rax, r14; setne dl; or cl, dl; movhlps xmm15, xmm7; " \
    "movq rax, xmm15; movq xmm15, r14; cmp rax, r14; setne dl; or cl, dl; fld st(0); fistp qword ptr [rbx]; "          \
    "cmp r14, [rbx]; setne dl; or cl, dl; fstp qword ptr [rbx]; fld qword ptr [rbx]; movzx ecx, cl; add r9, rcx; inc " \
    "r8;"
#define LOOK_AVX "vextractf128 xmm14, ymm5, 1; vmovq rax, xmm14; cmp rax, r14; setne cl; movzx ecx, cl; add r9, rcx;"
#define LEAVE    "test r15, r15; jz 1b"

static void prepare_threads(enum how how, int avx)
{
    threads.how = how;
    threads.components = how == FXSAVE ? X87 | SSE : all_components();
    threads.current = 0;
    threads.switches = 0;
    for (unsigned t = 0; t < THREADS; t++) {
        u8 *area = contexts[t];
        u64 mark = 0x1000001ul * (t + 3);
        struct regs in = {
            .mode = USER, .rbx = UDATA + t * PAGE, .rsp = USTACK + (t + 1) * PAGE - 0x100, .rip = UCODE_PAGE
        };

        fill_area(area, 7 + t, threads.components);
        put16(area, 0x037f);
        put16(area + 24, 0x1f80);
        for (unsigned i = 0; i < 32; i++)
            __builtin_memcpy(area + 160 + 8 * i, &mark, 8);
        for (unsigned i = 0; avx && i < 32; i++)
            __builtin_memcpy(area + 576 + 8 * i, &mark, 8);
        /* ST0 holds the number: mantissa and exponent of an integer */
        {
            unsigned shift = (unsigned)__builtin_clzll(mark);
            u64 mantissa = mark << shift;

            __builtin_memcpy(area + 32, &mantissa, 8);
            put16(area + 40, 0x3fff + 63 - shift);
        }
        area[4] = 0x01; /* ST0 only: the rest is room to compute in */
        in.r14 = mark;
        in.rflags = 2 | IF;
        in.cs = UCS | 3;
        in.ss = UDS | 3;
        threads.regs[t] = in;
        if (how == XSAVEC) { /* to the compacted form: what the processor itself makes of it */
            __asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"(threads.components), "d"(0) : "memory");
            save_context(area);
        }
    }
}

/* Not inline: nothing of the caller's may be in a vector register. */
static __attribute__((noinline)) void run_threads(int timer, u32 period, struct regs *out)
{
    load_context(contexts[0]);
    if (timer) {
        reset_apic();
        *apic(APIC_TIMER) = PERIODIC | 0x50;
        *apic(APIC_COUNT) = period;
    }
    enter(&threads.regs[0], out);
    if (timer) {
        reset_apic();
        open_window();
    }
}

static void context_switches(enum how how, int timer)
{
    const char *name = name_of("soundness-13-context-switches-%s-%s", how_names[how], timer ? "timer" : "int3");
    int avx = how != FXSAVE && has_leaf1_c(28), offered = how == FXSAVE || has_leaf1_c(26);
    word rounds = 0, bad = 0;
    struct regs out;

    if (offered && how > XSAVE)
        offered = cpuid(13, 1).a >> (how - XSAVEOPT) & 1;
    if (!offered) {
        absent(name, how_names[how]);
        return;
    }
    begin(name);
    if (has_leaf1_c(26))
        set_xcr0(all_components());
    if (avx)
        put_code(CODE_FRAME, timer ? CODE("1:" LOOK_SSE LOOK_AVX LEAVE) : CODE("1:" LOOK_SSE LOOK_AVX "int3;" LEAVE));
    else
        put_code(CODE_FRAME, timer ? CODE("1:" LOOK_SSE LEAVE) : CODE("1:" LOOK_SSE "int3;" LEAVE));
    handlers[BP] = handlers[0x50] = switch_thread;
    /* Where code runs slowly (an engine that compares), the timer leaves a thread no time for a round: then it gets more. */
    for (word period = 50000; rounds <= THREADS && period < 1000000000; period *= 8) {
        rounds = 0;
        prepare_threads(how, avx);
        threads.limit = timer ? 400 : 1000;
        run_threads(timer, (u32)period, &out);
        copy_registers(&threads.regs[threads.current], &out);
        for (unsigned t = 0; t < THREADS; t++) {
            rounds += threads.regs[t].r8;
            bad += threads.regs[t].r9;
        }
        if (!timer)
            break;
    }
    say(" %s wrong=%d", event_name(out.vector), bad);
    if (timer)
        say(" ran=%d", (word)(rounds > THREADS));
    else
        say(" rounds=%d", rounds);
    drained();
    __asm__ volatile("fninit");
}

/* ---- Line 16: the control bits, over the same code ---- */

static const struct control {
    const char *name;
    word cr0_set, cr0_clear, cr4_clear;
    u32 xcr0; /* 0: everything */
} controls[] = {
    { "on", 0, 0, 0, 0 },
    { "ts", CR0_TS, 0, 0, 0 },
    { "em", CR0_EM, 0, 0, 0 },
    { "ts-no-mp", CR0_TS, CR0_MP, 0, 0 },
    { "no-osfxsr", 0, 0, CR4_OSFXSR, 0 },
    { "no-osxsave", 0, 0, CR4_OSXSAVE, 0 },
    { "xcr0-sse", 0, 0, 0, X87 | SSE },
};

static void control_bits(const char *name, struct code code, int avx)
{
    word cr0 = read_cr0(), cr4 = read_cr4();

    if (avx && !has_leaf1_c(28)) {
        absent(name, "AVX");
        return;
    }
    begin(name);
    put_code(CODE_FRAME, code);
    for (unsigned i = 0; i < ARRAY_SIZE(controls); i++) {
        struct regs out;

        for (unsigned n = 0; n < 4; n++) { /* off and on again */
            const struct control *c = n & 1 ? &controls[0] : &controls[i];

            if (has_leaf1_c(26)) {
                write_cr4(cr4);
                set_xcr0(c->xcr0 ? c->xcr0 : all_components());
            }
            write_cr4(cr4 & ~c->cr4_clear);
            write_cr0((cr0 | c->cr0_set) & ~c->cr0_clear);
            out = AGAIN(USER, .rbx = UDATA);
            if (n < 2)
                say(n ? "/%s" : i ? " %s" : " on:%s", event_name(out.vector));
        }
        write_cr0(cr0);
        write_cr4(cr4);
    }
    done();
}

static void all_control_bits(void)
{
    control_bits("soundness-16-controls-x87", CODE("nop; fldz; fstp st(0)"), 0);
    control_bits("soundness-16-controls-fwait", CODE("nop; fwait"), 0);
    control_bits("soundness-16-controls-sse", CODE("nop; paddd xmm0, xmm1; movups xmm2, [rbx]"), 0);
    control_bits("soundness-16-controls-sse-store", CODE("mov rax, [rbx]; movups [rbx], xmm2"), 0);
    control_bits("soundness-16-controls-avx", CODE("nop; vpaddd xmm0, xmm1, xmm1; vmovups xmm2, [rbx]"), 1);
    control_bits("soundness-16-controls-avx-ymm", CODE("mov rax, [rbx]; vmovups [rbx], ymm2; vzeroupper"), 1);
    control_bits("soundness-16-controls-integer", CODE("mov rax, [rbx]; popcnt rcx, rax; movnti [rbx], rax"), 0);
}

/* ---- Line 16: unmasked exceptions ---- */

static word exceptions;

static void mask_simd(struct regs *regs)
{
    static const u32 masked = 0x1f80;

    (void)regs;
    exceptions++;
    __asm__ volatile("ldmxcsr %0" : : "m"(masked));
}

static void mask_x87(struct regs *regs)
{
    (void)regs;
    exceptions++;
    __asm__ volatile("fnclex");
}

static void unmasked(void)
{
    begin("soundness-16-simd-exception-in-turns");
    PLACE(
        "ldmxcsr [rbx]; movups xmm0, [rbx+16]; xorps xmm1, xmm1; movaps xmm2, xmm0; divps xmm2, xmm1; movd eax, xmm2; "
        "stmxcsr [rbx+8]; mov ecx, [rbx+8]");
    handlers[XM] = mask_simd;
    for (unsigned i = 0; i < 6; i++) {
        struct regs out;

        FRAME32(UDATA_FRAME)[0] = i & 1 ? 0x1d80 : 0x1f80;
        for (unsigned n = 0; n < 4; n++)
            FRAME32(UDATA_FRAME)[4 + n] = 0x3f800000;
        exceptions = 0;
        out = AGAIN(USER, .rbx = UDATA);
        say(" %s:%x:%x:%d", event_name(out.vector), out.rax, out.rcx, exceptions);
    }
    done();
    begin("soundness-16-x87-exception-in-turns");
    PLACE("fninit; fldcw [rbx]; fld1; fldz; fdivp; mov eax, 5; fnstsw ax; mov edx, eax; fwait; fnstsw ax; fninit");
    handlers[MF] = mask_x87;
    for (unsigned i = 0; i < 6; i++) {
        struct regs out;

        FRAME32(UDATA_FRAME)[0] = i & 1 ? 0x37b : 0x37f;
        exceptions = 0;
        out = AGAIN(USER, .rbx = UDATA);
        say(" %s:%x:%x:%d", event_name(out.vector), out.rdx & 0xffff, out.rax & 0xffff, exceptions);
    }
    done();
}

/* ---- Line 17: what a save area holds ---- */

static void bounded(const char *name, enum how how, u32 xcr0)
{
    u32 size, all = all_components();
    word beyond = 0, used, compacted = 0;

    if (!has_leaf1_c(26) || (xcr0 & ~all) || (how == XSAVEC && !(cpuid(13, 1).a & 2))) {
        absent(name, "XSAVE");
        return;
    }
    begin(name);
    set_xcr0(all);
    fill_area(loaded, 55, all);
    __asm__ volatile("xrstor64 (%0)" : : "r"(loaded), "a"(all), "d"(0) : "memory");
    set_xcr0(xcr0);
    size = how == XSAVEC ? cpuid(13, 1).b : cpuid(13, 0).b;
    for (unsigned i = 0; i < AREA_SIZE; i++)
        saved[i] = i >= 512 && i < 576 ? 0 : 0xcc;
    if (how == XSAVEC)
        __asm__ volatile("xsavec64 (%0)" : : "r"(saved), "a"(~0u), "d"(~0u) : "memory");
    else if (how == XSAVEOPT)
        __asm__ volatile("xsaveopt64 (%0)" : : "r"(saved), "a"(~0u), "d"(~0u) : "memory");
    else
        __asm__ volatile("xsave64 (%0)" : : "r"(saved), "a"(~0u), "d"(~0u) : "memory");
    for (unsigned i = size; i < AREA_SIZE; i++)
        beyond += saved[i] != 0xcc;
    used = *(const u64 *)(const void *)(saved + 512);
    compacted = *(const u64 *)(const void *)(saved + 520);
    say(" size=%d bv=%x compacted=%X beyond=%d", (word)size, used, compacted, beyond);
    say(" xcr0-allows=%d", (word)((used & ~(word)xcr0) == 0));
    set_xcr0(all);
    done();
    __asm__ volatile("fninit");
}

static void save_areas(void)
{
    bounded("soundness-17-xsave-x87", XSAVE, X87);
    bounded("soundness-17-xsave-sse", XSAVE, X87 | SSE);
    bounded("soundness-17-xsave-avx", XSAVE, X87 | SSE | AVX);
    bounded("soundness-17-xsave-avx512", XSAVE, X87 | SSE | AVX | AVX512);
    bounded("soundness-17-xsavec-sse", XSAVEC, X87 | SSE);
    bounded("soundness-17-xsavec-avx", XSAVEC, X87 | SSE | AVX);
    bounded("soundness-17-xsavec-avx512", XSAVEC, X87 | SSE | AVX | AVX512);
    if (has_leaf1_c(26)) {
        /* components beyond XCR0, asked for in the header: #GP; in the mask only: ignored */
        HOT("soundness-17-xrstor-beyond-xcr0", USER,
            (fill(UDATA_FRAME, 0, AREA_SIZE), *FRAME64(UDATA_FRAME + 512) = 0x400), "xrstor [rbx]", .rbx = UDATA,
            .rax = ~0u, .rdx = ~0u);
        HOT("soundness-17-xrstor-all-asked-for", USER,
            (fill(UDATA_FRAME, 0, AREA_SIZE), *FRAME64(UDATA_FRAME + 512) = 0), "xrstor [rbx]; xgetbv; and eax, 3",
            .rbx = UDATA, .rax = ~0u, .rdx = ~0u, .rcx = 0);
    } else {
        absent("soundness-17-xrstor-beyond-xcr0", "XSAVE");
        absent("soundness-17-xrstor-all-asked-for", "XSAVE");
    }
}

void cases(void)
{
    RUN(KERNEL, "fninit");
    reset_interrupt_controllers();
    survival();
    for (unsigned how = 0; how < HOWS; how++) {
        context_switches(how, 0);
        context_switches(how, 1);
    }
    all_control_bits();
    unmasked();
    save_areas();
}
