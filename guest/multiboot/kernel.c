/* A bare-metal test kernel: checks what a boot loader and a CPU owe a multiboot kernel, prints to COM1 and leaves through
 * isa-debug-exit at port 0xf4: value 0 (exit status 1) if all is well, 1 (status 3) if not. The command line chooses more:
 *   triple    load an empty IDT and fault
 *   reset     reset by port 0xcf9
 *   keyboard  reset by the keyboard controller
 *   poweroff  ACPI S5 through PM1a_CNT (0x604)
 *   hang      halt for good
 *   exit=N    leave with value N */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define MULTIBOOT_MAGIC 0x2badb002
#define COM1            0x3f8
#define DEBUG_EXIT      0xf4

struct multiboot_info {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
    u32 syms[4], mmap_length, mmap_addr;
};

struct memory_map {
    u32 size;
    u64 base, length;
    u32 type;
} __attribute__((packed));

struct frame {
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax, vector, error, eip, cs, eflags;
};

void kernel_main(u32 magic, const struct multiboot_info *info);
void handle_exception(struct frame *frame);
extern const u32 exception_stubs[32];

static u32 failures;

static inline void outb(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
    u8 value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void print(const char *text)
{
    for (; *text; text++) {
        while (!(inb(COM1 + 5) & 0x20))
            ;
        outb(COM1, (u8)*text);
    }
}

static void print_hex(u64 value)
{
    char digits[17];

    for (int i = 0; i < 16; i++)
        digits[i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
    digits[16] = 0;
    print(digits);
}

static void check(const char *name, u64 got, u64 want)
{
    print(name);
    print(got == want ? ": ok\n" : ": WRONG ");
    if (got != want) {
        print_hex(got);
        print("\n");
        failures++;
    }
}

/* ---- Exceptions ---- */

struct gate {
    u16 low, selector, type, high;
};
struct table {
    u16 limit;
    u32 base;
} __attribute__((packed));

static struct gate idt[32];
static const u64 gdt[3] = { 0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull };
static volatile u32 last_vector, last_error, last_cr2, resume_at;

void handle_exception(struct frame *frame)
{
    u32 cr2;

    __asm__ volatile("movl %%cr2, %0" : "=r"(cr2));
    last_vector = frame->vector;
    last_error = frame->error;
    last_cr2 = cr2;
    if (!resume_at) {
        print("unexpected exception ");
        print_hex((u64)frame->vector << 32 | frame->eip);
        print("\n");
        outb(DEBUG_EXIT, 2);
        for (;;)
            __asm__ volatile("hlt");
    }
    frame->eip = resume_at;
    resume_at = 0;
}

static void load_tables(void)
{
    struct table gdtr = { sizeof(gdt) - 1, (u32)gdt }, idtr = { sizeof(idt) - 1, (u32)idt };

    for (int i = 0; i < 32; i++)
        idt[i] = (struct gate){ (u16)exception_stubs[i], 8, 0x8e00, (u16)(exception_stubs[i] >> 16) };
    __asm__ volatile("lgdt %0; ljmp $8, $1f; 1: movw $16, %%ax; movw %%ax, %%ds; movw %%ax, %%es; movw %%ax, %%ss; "
                     "movw %%ax, %%fs; movw %%ax, %%gs; lidt %1"
                     :
                     : "m"(gdtr), "m"(idtr)
                     : "eax", "memory");
}

/* Runs one instruction that must fault, and comes back behind it. */
#define FAULTING(code, ...)                                                                                            \
    __asm__ volatile("movl $1f, %0\n" code "\n1:" : "=m"(resume_at) : __VA_ARGS__ : "eax", "edx", "memory")

static void test_exceptions(void)
{
    FAULTING("xorl %%edx, %%edx; xorl %%eax, %%eax; divl %%edx", "i"(0));
    check("#DE", last_vector, 0);
    FAULTING("ud2", "i"(0));
    check("#UD", last_vector, 6);
    FAULTING("movw $0x100, %%ax; movw %%ax, %%ds", "i"(0));
    check("#GP", (u64)last_vector << 32 | last_error, 0xd00000100ull);
    FAULTING("movl $0x10, %%eax; rdmsr", "i"(0)); /* TSC: no fault */
    resume_at = 0;
    FAULTING("int3", "i"(0));
    check("#BP", last_vector, 3);
}

/* ---- Paging: 4 MiB pages, then a hole ---- */

static u32 page_directory[1024] __attribute__((aligned(4096)));

static void test_paging(void)
{
    u32 value;

    for (u32 i = 0; i < 1024; i++)
        page_directory[i] = i << 22 | 0x83;
    page_directory[512] = 0;          /* 2 GiB: not present */
    page_directory[513] = 0x00000083; /* maps the first 4 MiB again */
    __asm__ volatile("movl %%cr4, %%eax; orl $0x10, %%eax; movl %%eax, %%cr4; movl %0, %%cr3; movl %%cr0, %%eax;"
                     "orl $0x80010000, %%eax; movl %%eax, %%cr0"
                     :
                     : "r"(page_directory)
                     : "eax", "memory");
    value = *(volatile u32 *)(0x80400000u + 0x100000u);
    check("alias", value, 0x1badb002);
    FAULTING("movl 0x80001234, %%eax", "i"(0));
    check("#PF", (u64)last_vector << 32 | last_error, 0xe00000000ull);
    check("CR2", last_cr2, 0x80001234u);
    FAULTING("movl %%eax, 0x80001234", "i"(0));
    check("#PF write", last_error, 2);
    page_directory[513] = 0x00000081; /* read-only */
    __asm__ volatile("invlpg 0x80400000" : : : "memory");
    FAULTING("movl %%eax, 0x80500000", "i"(0));
    check("#PF protection", last_error, 3);
}

/* ---- What the loader says ---- */

static void test_information(u32 magic, const struct multiboot_info *info)
{
    u64 total = 0;
    u32 entries = 0;

    check("magic", magic, MULTIBOOT_MAGIC);
    check("memory fields", info->flags & 1, 1);
    check("lower memory", info->mem_lower >= 512 && info->mem_lower <= 640, 1);
    print("upper memory KiB: ");
    print_hex(info->mem_upper);
    print("\n");
    if (info->flags & 1 << 6) {
        for (u32 at = info->mmap_addr; at < info->mmap_addr + info->mmap_length;) {
            const struct memory_map *map = (const struct memory_map *)at;

            if (map->type == 1)
                total += map->length;
            entries++;
            at += map->size + 4;
        }
        check("memory map", entries > 1, 1);
        print("usable memory: ");
        print_hex(total);
        print("\n");
    }
    if (info->flags & 1 << 3 && info->mods_count) {
        const u32 *module = (const u32 *)info->mods_addr;

        print("module bytes: ");
        print_hex(module[1] - module[0]);
        print("\n");
    }
}

/* ---- Arithmetic that a boot loader test wants to see ---- */

static void test_cpu(void)
{
    u32 a, b, c, d;
    u64 x = 1, sum = 0;

    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
    check("cpuid: FPU, TSC, MSR, PAE, CX8, APIC", d & 0x371, 0x371);
    for (u32 i = 0; i < 10000; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        sum ^= x >> (x & 31);
    }
    check("arithmetic", sum, 0x88fb2b7592533f23ull);
}

static int word_in(const char *text, const char *word)
{
    for (; *text; text++) {
        int i = 0;

        while (word[i] && text[i] == word[i])
            i++;
        if (!word[i])
            return (int)(u8)text[i] + 1;
    }
    return 0;
}

static void triple_fault(void)
{
    struct table empty = { 0, 0 };

    __asm__ volatile("lidt %0; ud2" : : "m"(empty));
}

static void halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* Resets and power-off may take effect a little later: nothing else happens meanwhile. */
static void choose_end(const char *cmdline)
{
    if (word_in(cmdline, "triple"))
        triple_fault();
    if (word_in(cmdline, "keyboard")) {
        outb(0x64, 0xfe);
        halt();
    }
    if (word_in(cmdline, "reset")) {
        outb(0xcf9, 0x06);
        halt();
    }
    if (word_in(cmdline, "poweroff")) {
        __asm__ volatile("outw %0, %1" : : "a"((u16)0x2000), "d"((u16)0x604));
        halt();
    }
    if (word_in(cmdline, "hang"))
        halt();
    if (word_in(cmdline, "exit="))
        outb(DEBUG_EXIT, (u8)(word_in(cmdline, "exit=") - 1 - '0'));
}

void kernel_main(u32 magic, const struct multiboot_info *info)
{
    const char *cmdline = magic == MULTIBOOT_MAGIC && info->flags & 4 ? (const char *)info->cmdline : "";

    outb(COM1 + 3, 0x03);
    print("multiboot test kernel\n");
    print("command line: ");
    print(cmdline);
    print("\n");
    load_tables();
    test_information(magic, info);
    test_cpu();
    test_exceptions();
    test_paging();
    print(failures ? "multiboot: FAILED\n" : "multiboot: ok\n");
    choose_end(cmdline);
    outb(DEBUG_EXIT, failures != 0);
    halt();
}
