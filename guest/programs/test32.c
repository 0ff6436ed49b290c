/* A 32-bit Linux program with no C library: exercises what a 32-bit process needs from the CPU (compatibility
 * mode, int 0x80, SYSENTER through the vDSO, segment loads for thread-local storage, 32-bit x87 and integer
 * code, signals) and prints a line for each. The last line is "test32: ok" when all agree. */
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;

enum {
    SYS_exit = 1,
    SYS_write = 4,
    SYS_getpid = 20,
    SYS_kill = 37,
    SYS_sigaction = 67,
    SYS_sigreturn = 119,
    SYS_uname = 122,
    SYS_mmap2 = 192,
    SYS_set_thread_area = 243,
    SYS_modify_ldt = 123
};

static u32 failures;

static int call(u32 n, u32 a, u32 b, u32 c)
{
    int ret;

    __asm__ volatile("int $0x80" : "=a"(ret) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return ret;
}

static u32 length(const char *text)
{
    u32 n = 0;

    while (text[n])
        n++;
    return n;
}

static void print(const char *text)
{
    call(SYS_write, 1, (u32)text, length(text));
}

static void report(const char *name, u64 got, u64 want)
{
    char digits[20];

    for (int i = 0; i < 16; i++)
        digits[i] = "0123456789abcdef"[got >> (60 - 4 * i) & 15];
    digits[16] = '\n';
    digits[17] = 0;
    print("test32: ");
    print(name);
    print(got == want ? " " : " WRONG ");
    print(digits);
    failures += got != want;
}

static u64 divide_bits(u64 a, u32 b)
{
    u32 high = (u32)(a >> 32), low = (u32)a, q1, q0, rest;

    __asm__("divl %4" : "=a"(q1), "=d"(rest) : "a"(high), "d"(0), "r"(b));
    __asm__("divl %4" : "=a"(q0), "=d"(rest) : "a"(low), "d"(rest), "r"(b));
    return (u64)q1 << 32 | q0;
}

static void test_integer(void)
{
    u64 x = 88172645463325252ull, sum = 0;

    for (u32 i = 0; i < 100000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        sum += divide_bits(x, 12345 + (i & 0xff)) ^ x * 3;
    }
    report("integer", sum, 0xd3311217e21ceae6ull);
}

static void test_bcd(void)
{
    u32 daa, aam;

    /* DAA and AAM exist only outside 64-bit mode (SDM Vol. 2A). */
    __asm__("movl $0x79, %%eax; addb $0x35, %%al; daa; movl %%eax, %0; movl $87, %%eax; aam; movl %%eax, %1"
            : "=&r"(daa), "=&r"(aam)
            :
            : "eax", "cc");
    report("bcd", (u64)daa << 32 | aam, 0x1400000807ull);
}

static void test_x87(void)
{
    static const double three = 3.0, seven = 7.0;
    u64 bits = 0;
    double root;

    __asm__("fldl %1; fldl %2; fdivrp; fsqrt; fstpl %0" : "=m"(root) : "m"(three), "m"(seven));
    __builtin_memcpy(&bits, &root, sizeof(bits));
    report("x87", bits, 0x3fe4f2ec413cb52bull);
}

static void test_push_pop(void)
{
    u32 a, b;

    __asm__ volatile("pushal; movl 28(%%esp), %%eax; popal; pushl $0x12345678; popl %0; movl $5, %%ecx;"
                     "pushl %%ecx; pushw %%cx; popw %%cx; popl %1"
                     : "=r"(a), "=r"(b)
                     :
                     : "ecx", "memory");
    report("stack", (u64)a << 32 | b, 0x1234567800000005ull);
}

struct user_desc {
    u32 entry, base, limit, flags;
};

static u32 tls_value = 0xfeedf00d;

static void test_segment(void)
{
    /* flags: seg_32bit, limit_in_pages, useable */
    struct user_desc desc = { 0xffffffffu, (u32)&tls_value, 0xfffff, 1 | 1 << 4 | 1 << 6 };
    u32 value = 0;

    if (call(SYS_set_thread_area, (u32)&desc, 0, 0)) {
        report("segment", 1, 0);
        return;
    }
    __asm__ volatile("movw %1, %%gs; movl %%gs:0, %0" : "=r"(value) : "r"((u16)(desc.entry << 3 | 3)));
    report("segment", value, 0xfeedf00d);
}

static volatile u32 signals;

static void handler(int signum)
{
    signals += signum == 10;
}

struct old_sigaction {
    void (*fn)(int);
    u32 mask, flags;
    void (*restorer)(void);
};

static void test_signal(void)
{
    struct old_sigaction action = { handler, 0, 0, 0 };

    call(SYS_sigaction, 10, (u32)&action, 0);
    for (int i = 0; i < 3; i++)
        call(SYS_kill, (u32)call(SYS_getpid, 0, 0, 0), 10, 0);
    report("signal", signals, 3);
}

/* The vDSO's __kernel_vsyscall, from the auxiliary vector's AT_SYSINFO (32). */
static void test_vsyscall(const u32 *stack)
{
    const u32 *p = stack + 1 + stack[0] + 1;
    u32 entry = 0, pid;

    while (*p)
        p++;
    for (p++; p[0]; p += 2)
        entry = p[0] == 32 ? p[1] : entry;
    if (!entry) {
        print("test32: vsyscall none\n");
        return;
    }
    __asm__ volatile("call *%1" : "=a"(pid) : "r"(entry), "a"(SYS_getpid) : "memory", "ecx", "edx");
    report("vsyscall", pid == (u32)call(SYS_getpid, 0, 0, 0), 1);
}

static void test_memory(void)
{
    u32 args[6] = { 0, 1 << 20, 3, 0x22, 0xffffffffu, 0 }, sum = 0;
    unsigned char *memory;

    __asm__ volatile(
        "pushl %%ebp; movl 20(%%esi), %%ebp; pushl %%esi; movl 12(%%esi), %%esi; int $0x80; popl %%esi; popl %%ebp"
        : "=a"(memory)
        : "a"(SYS_mmap2), "b"(args[0]), "c"(args[1]), "d"(args[2]), "S"(args), "D"(args[4])
        : "memory");
    for (u32 i = 0; i < 1 << 20; i++)
        memory[i] = (unsigned char)(i * 7 + (i >> 8));
    __asm__ volatile("rep movsl" : : "S"(memory), "D"(memory + 1000), "c"(1000) : "memory");
    for (u32 i = 0; i < 1 << 20; i++)
        sum = sum * 31 + memory[i];
    report("memory", sum, 0xbf7afe00u);
}

__attribute__((used, noreturn)) void start_c(const u32 *stack)
{
    test_integer();
    test_bcd();
    test_x87();
    test_push_pop();
    test_segment();
    test_signal();
    test_vsyscall(stack);
    test_memory();
    print(failures ? "test32: FAILED\n" : "test32: ok\n");
    call(SYS_exit, failures != 0, 0, 0);
    __builtin_unreachable();
}

__asm__(".globl _start\n_start:\n    movl %esp, %eax\n    andl $-16, %esp\n    subl $12, %esp\n    pushl %eax\n    "
        "call start_c\n");
