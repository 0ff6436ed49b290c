/* What a guest image's cases are written with. An image is a multiboot kernel that runs named cases and prints one line
 * for each on the debug console (port 0xe9):
 *
 *     case NAME: what happened
 *
 * A probe is a piece of assembly (Intel syntax) that is copied into the code page of a test window, entered by IRET
 * with all registers given, and left by the first event: an exception, an interrupt that nobody handles, or its own
 * end (INT 0x40). The line shows the event, its error code, CR2 for page faults, where the probe stood, and every
 * register that differs from what it was given. Nothing printed may depend on addresses of the image or on time.
 *
 * Every case starts from the same state: done() restores segments, tables, control registers and the window. */
#ifndef TESTS_GUEST_RUNTIME_GUEST_H
#define TESTS_GUEST_RUNTIME_GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long word; /* a register */
_Static_assert(sizeof(word) == sizeof(void *), "a register");

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n)        (1ull << (n))
#define PAGE          4096u

/* ---- Registers ---- */

struct regs {
    /* the order of the encoding; 32-bit images use the first eight */
    word rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi;
#ifdef __x86_64__
    word r8, r9, r10, r11, r12, r13, r14, r15;
#endif
    word rip, cs, rflags, ss;
    /* results only */
    word vector, error, cr2, frame; /* frame: where the processor pushed */
    /* inputs only: what the image's mode does not imply */
    word ds, es, fs, gs;
    word mode;    /* enum mode */
    word code_at; /* offset of the probe in the code page: the page after it is there too */
    word show;    /* status flags to print */
    word hide;    /* bit n: general register n of the encoding is not printed, for what differs between builds */
};

enum mode {
    KERNEL,   /* CPL 0, the image's own width */
    USER,     /* CPL 3 */
    USER32,   /* CPL 3, compatibility mode (64-bit images) */
    KERNEL32, /* CPL 0, compatibility mode (64-bit images) */
    AS_GIVEN, /* cs and ss as they are; the code page is the user's if cs & 3 */
};

enum {
    CF = 1 << 0,
    PF = 1 << 2,
    AF = 1 << 4,
    ZF = 1 << 6,
    SF = 1 << 7,
    TF = 1 << 8,
    IF = 1 << 9,
    DF = 1 << 10,
    OF = 1 << 11,
    IOPL3 = 3 << 12,
    NT = 1 << 14,
    RF = 1 << 16,
    VM = 1 << 17,
    AC = 1 << 18,
    ID = 1 << 21,
    STATUS = CF | PF | AF | ZF | SF | OF,
};

enum {
    DE = 0,
    DB = 1,
    NMI = 2,
    BP = 3,
    OV = 4,
    BR = 5,
    UD = 6,
    NM = 7,
    DBL = 8,
    TS = 10,
    NP = 11,
    SS = 12,
    GP = 13,
    PG = 14,
    MF = 16,
    ALIGN = 17,
    MC = 18,
    XM = 19,
    VECTOR_DONE = 0x40,  /* how a probe ends */
    VECTOR_PLAIN = 0x41, /* from here on no IST: a test of stack switching sees RSP0 */
};

/* ---- Probes ---- */

struct code {
    const u8 *start, *end;
};

/* Assembly that ends with INT 0x40. */
#define CODE(text)                                                                                                     \
    ({                                                                                                                 \
        struct code code_;                                                                                             \
        __asm__ volatile(".pushsection .probes, \"a\", @progbits\n\t.intel_syntax noprefix\n"                          \
                         "7710:\n\t" text "\n\tint 0x40\n7711:\n\t"                                                    \
                         ".att_syntax\n\t.popsection\n\t"                                                              \
                         "mov $7710b, %0\n\tmov $7711b, %1"                                                            \
                         : "=r"(code_.start), "=r"(code_.end));                                                        \
        code_;                                                                                                         \
    })
#define CODE32(text) CODE(".code32\n\t" text "\n\tint 0x40\n\t.code64") /* for compatibility mode */
#define CODE16(text) CODE(".code16\n\t" text "\n\tint 0x40\n\t.code32") /* for 16-bit segments */

#define DEFAULTS .rax = 0x11, .rcx = 0x22, .rdx = 0x33, .rbx = 0x44, .rbp = 0x55, .rsi = 0x66, .rdi = 0x77, .rflags = 2

/* Runs a probe; *in is completed (what the mode implies), *out is the state at the event. */
void run(struct code code, struct regs *in, struct regs *out);
#ifdef __x86_64__
/* The two halves of run(), for code that is placed once and entered many times. put_code() returns the length without
 * the INT 0x40: the next piece can be put over that. enter() begins at in->rip if it is given. */
word put_code(word pa, struct code code);
void enter(struct regs *in, struct regs *out);
#endif
/* Prints "case NAME: EVENT..."; the line stays open for say(). */
void report(const char *name, const struct regs *in, const struct regs *out);
/* Ends the line and restores the standard state. */
void done(void);

/* One case, one probe. OPEN leaves the line open: say() more, then done(). */
#define OPEN_CODE(name, how, code, ...)                                                                                \
    ({                                                                                                                 \
        struct regs in_ = { DEFAULTS, .mode = (how), ##__VA_ARGS__ }, out_;                                            \
        const char *name_ = name;                                                                                      \
        if (skipped(name_)) {                                                                                          \
            out_ = in_;                                                                                                \
        } else {                                                                                                       \
            run(code, &in_, &out_);                                                                                    \
            report(name_, &in_, &out_);                                                                                \
        }                                                                                                              \
        out_;                                                                                                          \
    })
#define OPEN(name, how, text, ...)   OPEN_CODE(name, how, CODE(text), ##__VA_ARGS__)
#define OPEN32(name, how, text, ...) OPEN_CODE(name, how, CODE32(text), ##__VA_ARGS__)
#define TRY(name, how, text, ...)    (OPEN(name, how, text, ##__VA_ARGS__), done())
#define TRY32(name, how, text, ...)  (OPEN32(name, how, text, ##__VA_ARGS__), done())
/* A probe that is only a step of a case. */
#define RUN(how, text, ...)                                                                                            \
    ({                                                                                                                 \
        struct regs in_ = { DEFAULTS, .mode = (how), ##__VA_ARGS__ }, out_;                                            \
        run(CODE(text), &in_, &out_);                                                                                  \
        out_;                                                                                                          \
    })

/* ---- Output ---- */

/* %x %d: word; %X: u64; %s; %c; %2x: at least two digits. */
void say(const char *format, ...);
void begin(const char *name);                 /* prints "case NAME:" for a case without a single probe */
const char *name_of(const char *format, ...); /* static buffer: a name for generated cases */
/* The command line may name cases to leave out (" skip=NAME,NAME"): those that the emulator under it cannot survive. */
int skipped(const char *name);
void absent(const char *name, const char *what); /* "case NAME: n/a (what)": this CPU does not have it */
const char *event_name(word vector);
extern void (*on_unexpected_event)(void); /* instead of the message and the end, when an event comes outside a probe */
void finish(void) __attribute__((noreturn)); /* end of the image: exit status 33 */

/* ---- Machine ---- */

static inline void outb(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline void outw(u16 port, u16 value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
static inline void outl(u16 port, u32 value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}
static inline u8 inb(u16 port)
{
    u8 value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline u16 inw(u16 port)
{
    u16 value;

    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline u32 inl(u16 port)
{
    u32 value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline u64 rdmsr(u32 msr)
{
    u32 low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (u64)high << 32 | low;
}
static inline void wrmsr(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}
static inline u64 rdtsc(void)
{
    u32 low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (u64)high << 32 | low;
}
#define ACCESS_REGISTER(name)                                                                                          \
    static inline word read_##name(void)                                                                               \
    {                                                                                                                  \
        word value;                                                                                                    \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(value) : : "memory");                                            \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline void write_##name(word value)                                                                        \
    {                                                                                                                  \
        __asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory");                                                \
    }
ACCESS_REGISTER(cr0);
ACCESS_REGISTER(cr2);
ACCESS_REGISTER(cr3);
ACCESS_REGISTER(cr4);
ACCESS_REGISTER(dr0);
ACCESS_REGISTER(dr1);
ACCESS_REGISTER(dr2);
ACCESS_REGISTER(dr3);
ACCESS_REGISTER(dr6);
ACCESS_REGISTER(dr7);

struct cpuid {
    u32 a, b, c, d;
};
struct cpuid cpuid(u32 leaf, u32 subleaf);
/* Which of the two behaviours that the vendors' manuals describe. */
int is_amd(void);
static inline int has_leaf7_b(unsigned bit)
{
    return cpuid(7, 0).b >> bit & 1;
}
static inline int has_leaf7_c(unsigned bit)
{
    return cpuid(7, 0).c >> bit & 1;
}
static inline int has_leaf1_c(unsigned bit)
{
    return cpuid(1, 0).c >> bit & 1;
}

enum {
    CR0_PE = 1 << 0,
    CR0_MP = 1 << 1,
    CR0_EM = 1 << 2,
    CR0_TS = 1 << 3,
    CR0_NE = 1 << 5,
    CR0_WP = 1 << 16,
    CR0_AM = 1 << 18,
    CR0_NW = 1 << 29,
    CR0_CD = 1 << 30
};
#define CR0_PG 0x80000000u
enum {
    CR4_TSD = 1 << 2,
    CR4_DE = 1 << 3,
    CR4_PSE = 1 << 4,
    CR4_PAE = 1 << 5,
    CR4_PGE = 1 << 7,
    CR4_OSFXSR = 1 << 9,
    CR4_OSXMM = 1 << 10,
    CR4_UMIP = 1 << 11,
    CR4_FSGSBASE = 1 << 16,
    CR4_PCIDE = 1 << 17,
    CR4_OSXSAVE = 1 << 18,
    CR4_SMEP = 1 << 20,
    CR4_SMAP = 1 << 21,
    CR4_PKE = 1 << 22
};
enum {
    MSR_APIC_BASE = 0x1b,
    MSR_EFER = 0xc0000080,
    MSR_STAR,
    MSR_LSTAR,
    MSR_CSTAR,
    MSR_FMASK,
    MSR_FS_BASE = 0xc0000100,
    MSR_GS_BASE,
    MSR_KERNEL_GS_BASE,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP,
    MSR_SYSENTER_EIP
};

/* ---- Descriptor tables ---- */

enum {
    KCS = 0x08,
    KDS = 0x10, /* the image's own width; flat, as are the user's */
    UCS32 = 0x18,
    UDS = 0x20,
    UCS = 0x28, /* SYSRET and SYSEXIT want this order */
    KCS32 = 0x30,
    TSS_SELECTOR = 0x38, /* two places in long mode */
    SCRATCH = 0x48,      /* from here on for cases, to SCRATCH_END */
    SCRATCH_END = 0x100,
};
enum { GDT_LIMIT = 255 };
extern u64 gdt[33]; /* one more than the limit says */
/* The I/O bitmap begins at byte 104, all ones; one more byte of ones ends it (SDM Vol. 1 19.5.2). */
extern u8 tss[104 + 8192 + 1];
enum { TSS_LIMIT = 104 + 8192 };

/* Descriptor words: type is the byte with P, DPL, S and type; flags the four bits G D L AVL. */
u64 descriptor(u32 base, u32 limit, u8 type, u8 flags);
enum {
    TYPE_DATA = 0x93,
    TYPE_CODE = 0x9b,
    TYPE_INTERRUPT_GATE = 0x8e,
    TYPE_TRAP_GATE = 0x8f,
    TYPE_CALL_GATE = 0x8c,
    FLAG_G = 8,
    FLAG_D = 4,
    FLAG_L = 2
};
/* A gate; ist only in long mode. */
void set_gate(unsigned vector, word handler, u16 selector, u8 type, unsigned ist);
/* The gate's usual handler (captures the probe). */
void set_gate_type(unsigned vector, u16 selector, u8 type, unsigned ist);
void load_idt(u16 limit);
extern u64 idt[512];

/* Handlers in C: the event is handled and the interrupted code goes on with *regs. NULL: the event ends the probe. */
typedef void handler_fn(struct regs *regs);
extern handler_fn *handlers[256];

/* ---- Memory ----
 *
 * FRAMES is physical memory of known addresses, identity-mapped. 64-bit images see it through the window, 4 KiB pages
 * that a case may remap; 32-bit images begin without paging and use it as it is. */

enum {
    WINDOW = 0x40000000,
    WINDOW_SIZE = 0x800000,
    FRAMES = 0x1000000,
    CODE_FRAME = FRAMES, /* two */
    STACK_FRAME = FRAMES + 0x2000,
    USTACK_FRAME = FRAMES + 0x6000,
    DATA_FRAME = FRAMES + 0xa000, /* four each */
    UDATA_FRAME = FRAMES + 0xe000,
    FREE_FRAME = FRAMES + 0x200000, /* for cases; 2 MiB aligned */
    FREE_FRAMES = 512,
    NOWHERE = 0x70000000, /* no RAM, no device */
#ifdef __x86_64__
    CODE_PAGE = WINDOW,            /* two pages, supervisor */
    UCODE_PAGE = WINDOW + 0x10000, /* the same two frames for CPL 3 */
    STACK = WINDOW + 0x20000,      /* four pages; RSP starts in their middle */
    USTACK = WINDOW + 0x30000,
    DATA = WINDOW + 0x40000,  /* four pages, supervisor */
    UDATA = WINDOW + 0x50000, /* four pages, user */
    HOLE = WINDOW + 0x60000,  /* nothing */
    FREE = WINDOW + 0x100000, /* for cases: nothing mapped */
#else
    CODE_PAGE = CODE_FRAME,
    UCODE_PAGE = CODE_FRAME,
    STACK = STACK_FRAME,
    USTACK = USTACK_FRAME,
    DATA = DATA_FRAME,
    UDATA = UDATA_FRAME,
#endif
    STACK_TOP = STACK + 0x2000,
    USTACK_TOP = USTACK + 0x2000,
};
enum { P = 1, W = 2, U = 4, PWT = 8, PCD = 16, A = 32, D = 64, PS = 128, G = 256 };
#define NX BIT(63)

#define FRAME8(pa)  ((volatile u8 *)(word)(pa)) /* through the identity mapping */
#define FRAME32(pa) ((volatile u32 *)(word)(pa))
#define FRAME64(pa) ((volatile u64 *)(word)(pa))

void flush_tlb(void); /* everything, global pages too */
void fill(word pa, u8 value, word size);

#ifdef __x86_64__
u64 *pte(u64 va); /* of a window address, or of one in the high window */
u64 *pde(u64 va);
u64 *pdpte(u64 va);
u64 *pml4e(u64 va);
/* Maps one 4 KiB page of the window; the TLB is not flushed. flags 0: absent. */
void map(u64 va, u64 pa, u64 flags);
/* The same tables serve the ends of both canonical halves: 0x7ffffffff000, 0xffff800000000000 and
 * 0xfffffffffffff000 (see pte()). */
#define LOW_END       0x7ffffffff000ull
#define HIGH_START    0xffff800000000000ull
#define HIGH_END      0xfffffffffffff000ull
#define NON_CANONICAL 0x0000800000000000ull
#endif

void standard_state(void);
void cases(void); /* the image's own */
extern const char *command_line;

#endif
