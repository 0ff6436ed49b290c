/* Confinement (docs/design.md, "Soundness", lines 5, 6 and 7): what a translator finds by a number that it has made
 * of an address and of a mode must not be found from another mode: not by an address that differs in the bits where
 * that number holds the mode, not when the numbers of modes begin again. And what it has prepared for system calls
 * must follow MSRs and control registers that are written where it does not translate: under the shadows of MOV SS,
 * POP SS and STI, and under TF. SDM Vol. 1 3.3.7.1, 6.8.3; Vol. 2A CALL, JMP; Vol. 2B MOV, RET, RDTSC, SYSCALL,
 * SYSRET; Vol. 3A 4.6, 4.10. */
#include "soundness.h"

#define AT   0x2a6u /* of the code in its page: nothing else begins at this offset */
#define MARK 0x1234u

#define FMASK_ALL 0x47ffdu /* all that may be masked */

static void begin_joined(const char *prefix, const char *what, const char *where)
{
    const char *parts[] = { prefix, what, where };
    char name[80], *end = name;

    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
        for (const char *from = parts[i]; *from; from++)
            *end++ = *from;
    *end = 0;
    begin(name);
}

/* ---- Lines 5 and 7: addresses that differ from those of other code in bits 63:48 only ---- */

static const struct leap {
    const char *name;
    unsigned rip, pushed; /* where the jump stands, what lies on the stack then */
} leaps[] = {
    { "jmp", 0, 0 },     { "call", 0, 0 },       { "ret", 1, 8 },
    { "ret-imm", 1, 8 }, { "jmp-memory", 1, 8 }, { "call-memory", 1, 8 },
};

static void put_leap(unsigned leap)
{
    struct code codes[] = {
        CODE("jmp rax"),
        CODE("call rax"),
        CODE("push rax; ret"),
        CODE("push rax; ret 8"),
        CODE("push rax; jmp [rsp]"),
        CODE("push rax; call [rsp]"),
    };

    put_code(CODE_FRAME, codes[leap]);
}

/* A branch to an address that is not canonical is #GP, and neither RIP nor RSP has moved. */
static int refused(const struct regs *out, const struct leap *leap)
{
    return out->vector == GP && out->error == 0 && out->rip == UCODE_PAGE + leap->rip && out->cs == (UCS | 3) &&
           out->rsp == USTACK_TOP - leap->pushed && out->rbx == 0x44;
}

static const struct target {
    const char *name;
    enum mode mode;
    word cr0; /* bits that are set while its code runs */
} targets[] = {
    { "-to-kernel", KERNEL, 0 },
    { "-to-kernel-32", KERNEL32, 0 },
    { "-to-user-with-ts", USER, CR0_TS },
    { "-to-user-32", USER32, 0 },
};

/* The target's code runs in its own mode; then the user goes to its address with other bits above. */
static void leap_to(const struct target *target, unsigned leap)
{
    struct tally tally = { 0 };
    word cr0 = read_cr0();

    begin_joined("soundness-05-", leaps[leap].name, target->name);
    map(PAGE_A, FRAME_A, target->mode == USER || target->mode == USER32 ? P | W | U : P | W);
    put_code(FRAME_A + AT, CODE("mov ebx, 0x1234; mov edx, cs"));
    put_leap(leap);
    for (long difference = -200; difference <= 200; difference++) {
        if (difference == 0)
            continue;
        write_cr0(cr0 | target->cr0);
        struct regs code = AGAIN(target->mode, .rip = PAGE_A + AT);
        write_cr0(cr0);
        struct regs out = AGAIN(USER, .rax = PAGE_A + AT + ((u64)difference << 48));

        if (wrong(&tally, code.rbx == MARK && refused(&out, &leaps[leap]))) {
            say(" {bits=%x", (u16)difference);
            say_event(&out);
            say(" bx=%x sp=%x cs=%x own=%x}", out.rbx, out.rsp, out.cs, code.rbx);
        }
    }
    end_tally(&tally);
}

static void leap_cases(void)
{
    for (unsigned leap = 0; leap < ARRAY_SIZE(leaps); leap++)
        for (unsigned target = 0; target < ARRAY_SIZE(targets); target++)
            leap_to(&targets[target], leap);
}

/* ---- Line 6: more address spaces and views of a page than sixteen bits can number ---- */

#define VIEW_1     (FREE + 4 * PAGE)
#define VIEW_2     (FREE + 8 * PAGE)
#define VIEW_FRAME (FREE_FRAME + 4 * PAGE)
#define VIEW_CODE  0x400u

/* All that is present below this table is global, so that what is known about the kernel outlives CR3. */
static void make_global(u64 table, int level)
{
    for (unsigned i = 0; i < 512 && (level < 4 || i == 0); i++) {
        volatile u64 *entry = &FRAME64(table)[i];

        if (!(*entry & P))
            continue;
        if (level == 1 || (*entry & PS && level < 4))
            *entry |= G;
        else
            make_global(*entry & 0xffffffffff000ull, level - 1);
    }
}

/* What ends each round: the user goes to the kernel's code. */
static void tried(struct tally *tally, const struct regs *kernel, const struct regs *out)
{
    int good = kernel->rbx == MARK && out->vector == PG && (out->error & ~16ul) == 5 && out->rip == PAGE_A + AT;

    if (wrong(tally, good)) {
        say(" {round=%d", tally->count);
        say_event(out);
        say(" bx=%x cs=%x kernel=%x}", out->rbx, out->cs, kernel->rbx);
    }
}

static void set_up_numbers(void)
{
    map(PAGE_A, FRAME_A, P | W);
    map(VIEW_1, VIEW_FRAME, P | W | U);
    map(VIEW_2, VIEW_FRAME, P | W | U);
    put_code(FRAME_A + AT, CODE("mov ebx, 0x1234; mov edx, cs"));
    put_code(VIEW_FRAME + VIEW_CODE, CODE("dec ecx; jz 1f; xchg rdi, rsi; jmp rsi; 1: jmp rax"));
    make_global(read_cr3() & ~0xfffull, 4);
    *pte(VIEW_1) &= ~(u64)G;
    *pte(VIEW_2) &= ~(u64)G;
    flush_tlb();
}

#define VIEWS(times, target)                                                                                           \
    AGAIN(USER, .rip = VIEW_1 + VIEW_CODE, .rsi = VIEW_1 + VIEW_CODE, .rdi = VIEW_2 + VIEW_CODE, .rcx = (times),       \
          .rax = (target))

/* One page at two addresses, in turns: each turn may need a number. The fault that ends a round may give the kernel
 * a new one, so that each round is as long as it takes to come back to it, and a little shorter or longer. */
static void many_views(void)
{
    struct tally tally = { 0 };

    begin("soundness-06-numbers-of-views");
    set_up_numbers();
    PLACE("nop");
    for (unsigned i = 0; i < 32; i++) {
        AGAIN(KERNEL, .rip = PAGE_A + AT);
        VIEWS(65536 - 16 + i, (word)UCODE_PAGE);
        struct regs kernel = AGAIN(KERNEL, .rip = PAGE_A + AT);
        struct regs out = VIEWS(1, PAGE_A + AT);

        tried(&tally, &kernel, &out);
    }
    end_tally(&tally);
}

/* The same with what the kernel does in each of the user's system calls. It jumps to where the user tries to go
 * afterwards, so that this is known under the number that system calls have had all the time. */
static void many_calls(const char *name, struct code kernel_code)
{
    struct tally tally = { 0 };

    begin(name);
    set_up_numbers();
    wrmsr(MSR_STAR, (u64)KCS << 32 | (u64)(UCS32 | 3) << 48);
    wrmsr(MSR_FMASK, FMASK_ALL);
    wrmsr(MSR_LSTAR, PAGE_A + 0x800);
    put_code(FRAME_A + 0x800, kernel_code);
    put_code(FRAME_A + AT, CODE("mov ebx, 0x1234; test ebp, ebp; jz 1f; sysretq; 1:"));
    put_code(VIEW_FRAME + VIEW_CODE,
             CODE("1: syscall; dec edi; jnz 1b; xor ebp, ebp; mov r10d, ebx; mov ebx, 5; jmp rax"));
    for (unsigned i = 0; i < 24; i++) {
        struct regs out = AGAIN(USER, .rip = VIEW_1 + VIEW_CODE, .rdi = 65536 - 12 + i, .rax = PAGE_A + AT,
                                .rdx = PAGE_A + AT, .rsi = VIEW_1);
        struct regs kernel = { .rbx = out.r10 };

        tried(&tally, &kernel, &out);
    }
    end_tally(&tally);
}

/* ---- Lines 6 and 7: what system calls rely on is changed where nothing is translated ---- */

#define ENTRY_1 (PAGE_A + 0x240)
#define ENTRY_2 (PAGE_A + 0x440)
#define CHANGE  0x640u

struct place {
    const char *name;
    enum mode mode;
    struct code wrmsr, mov_cr4;
};

static const struct call_change {
    const char *name;
    u32 msr;
    u64 value;
} call_changes[] = {
    { "lstar", MSR_LSTAR, ENTRY_2 },
    { "star-kernel", MSR_STAR, (u64)0x50 << 32 | (u64)(UCS32 | 3) << 48 },
    { "star-user", MSR_STAR, (u64)KCS << 32 | (u64)(0x30 | 3) << 48 },
    { "fmask", MSR_FMASK, FMASK_ALL & ~1u },
    { "sce", MSR_EFER, 0 },
};

/* Five system calls; the kernel tells its selector, which entry it is, and whether it has got the user's carry. */
static void prepare_calls(void)
{
    map(PAGE_A, FRAME_A, P | W);
    wrmsr(MSR_STAR, (u64)KCS << 32 | (u64)(UCS32 | 3) << 48);
    wrmsr(MSR_FMASK, FMASK_ALL);
    wrmsr(MSR_LSTAR, ENTRY_1);
    put_code(FRAME_A + 0x240, CODE("setc r9b; mov r10d, cs; mov ebx, 1; sysretq"));
    put_code(FRAME_A + 0x440, CODE("setc r9b; mov r10d, cs; mov ebx, 2; sysretq"));
    put_code(CODE_FRAME, CODE("mov edi, 5; 1: stc; syscall; dec edi; jnz 1b"));
}

static void say_calls(const char *when, const struct regs *out)
{
    say(" %s %s ip+%x entry=%d carry=%d cs=%x user=%x", when, event_name(out->vector), out->rip - UCODE_PAGE, out->rbx,
        out->r9, out->r10, out->cs);
}

static void change_between(const struct place *place, const struct call_change *change)
{
    u64 value = change->msr == MSR_EFER ? rdmsr(MSR_EFER) & ~1ull : change->value;
    struct regs out;

    begin_joined("soundness-07-", change->name, place->name);
    prepare_calls();
    AGAIN(USER, .r9 = 0);
    out = AGAIN(USER, .r9 = 0);
    say_calls("before", &out);
    put_code(FRAME_A + CHANGE, place->wrmsr);
    out = AGAIN(place->mode, .rip = PAGE_A + CHANGE, .rcx = change->msr, .rax = (u32)value, .rdx = value >> 32);
    say(", %s,", event_name(out.vector));
    out = AGAIN(USER, .r9 = 0);
    say_calls("after", &out);
    done();
}

/* RDTSC is forbidden between two runs: the user must not get any further than to the first one. */
static void forbid_tsc(const struct place *place)
{
    struct regs out;

    begin_joined("soundness-07-", "tsd", place->name);
    prepare_calls();
    put_code(CODE_FRAME, CODE("mov edi, 5; 1: syscall; rdtsc; dec edi; jnz 1b"));
    AGAIN(USER);
    out = AGAIN(USER);
    say(" %s", event_name(out.vector));
    put_code(FRAME_A + CHANGE, place->mov_cr4);
    out = AGAIN(place->mode, .rip = PAGE_A + CHANGE, .rax = read_cr4() | 4);
    say(", %s,", event_name(out.vector));
    out = AGAIN(USER);
    say(" %s(%x) ip+%x di=%d", event_name(out.vector), out.error, out.rip - UCODE_PAGE, out.rdi);
    done();
}

/* The same from inside the third system call. */
static void change_inside(const char *name, struct code kernel, const struct call_change *change)
{
    u64 value = change ? change->value : 0;
    struct regs out;

    begin(name);
    prepare_calls();
    put_code(FRAME_A + 0x240, kernel);
    put_code(CODE_FRAME, CODE("mov edi, 5; 1: stc; syscall; rdtsc; dec edi; jnz 1b"));
    if (change && change->msr == MSR_EFER)
        value = rdmsr(MSR_EFER) & ~1ull;
    AGAIN(USER, .rdi = 0, .r12 = 0);
    AGAIN(USER, .r12 = 0);
    out = AGAIN(USER, .r12 = 1, .r13 = change ? change->msr : 0, .r14 = value, .r8 = value >> 32, .r9 = 0, .r10 = 0);
    say(" %s ip+%x di=%d entry=%d carry=%d cs=%x user=%x tsd=%d", event_name(out.vector), out.rip - UCODE_PAGE, out.rdi,
        out.rbx, out.r9, out.r10, out.cs, (int)(read_cr4() >> 2 & 1));
    done();
}

#define INSIDE(change)                                                                                                 \
    CODE("setc r9b; mov r10d, cs; mov ebx, 1; test r12d, r12d; jz 1f; cmp edi, 3; jne 1f; mov r15, rcx; " change       \
         "; mov rcx, r15; 1: sysretq")
#define LOAD_MSR "mov rcx, r13; mov rax, r14; mov rdx, r8; "
#define LOAD_CR4 "mov rax, cr4; or eax, 4; "
#define SHADOW   "mov ebp, ss; mov ss, ebp; "

static void changed_calls(void)
{
    const struct place places[] = {
        { "-plain", KERNEL, CODE("wrmsr"), CODE("mov cr4, rax") },
        { "-after-mov-ss", KERNEL, CODE("mov r8d, ss; mov ss, r8d; wrmsr"),
          CODE("mov r8d, ss; mov ss, r8d; mov cr4, rax") },
        { "-after-sti", KERNEL, CODE("cli; sti; wrmsr; cli"), CODE("cli; sti; mov cr4, rax; cli") },
        { "-after-pop-ss", KERNEL32, CODE32("push ss; pop ss; wrmsr"), CODE32("push ss; pop ss; mov cr4, eax") },
        { "-under-tf", KERNEL, CODE("pushfq; or qword ptr [rsp], 0x100; popfq; wrmsr; nop"),
          CODE("pushfq; or qword ptr [rsp], 0x100; popfq; mov cr4, rax; nop") },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(call_changes); j++)
            change_between(&places[i], &call_changes[j]);
        forbid_tsc(&places[i]);
    }
    change_inside("soundness-07-lstar-inside-after-mov-ss", INSIDE(LOAD_MSR SHADOW "wrmsr"), &call_changes[0]);
    change_inside("soundness-07-star-inside-after-mov-ss", INSIDE(LOAD_MSR SHADOW "wrmsr"), &call_changes[2]);
    change_inside("soundness-07-fmask-inside-after-mov-ss", INSIDE(LOAD_MSR SHADOW "wrmsr"), &call_changes[3]);
    change_inside("soundness-07-sce-inside-after-mov-ss", INSIDE(LOAD_MSR SHADOW "wrmsr"), &call_changes[4]);
    change_inside("soundness-07-tsd-inside", INSIDE(LOAD_CR4 "mov cr4, rax"), 0);
    change_inside("soundness-07-tsd-inside-after-mov-ss", INSIDE(LOAD_CR4 SHADOW "mov cr4, rax"), 0);
    change_inside("soundness-07-tsd-inside-after-sti", INSIDE(LOAD_CR4 "sti; mov cr4, rax; cli"), 0);
}

void cases(void)
{
    leap_cases();
    many_views();
    many_calls("soundness-06-numbers-of-spaces", CODE("mov r8, cr3; mov cr3, r8; jmp rdx"));
    many_calls("soundness-06-numbers-of-invalidations", CODE("invlpg [rsi]; jmp rdx"));
    changed_calls();
}
