/* Everything together, as the translator uses it: a block is told, and perf's files and the log show it under the
 * guest's name; the guest kernel's own symbols are found in its memory, a bounded number of times. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf_maker.h"
#include "jit/jit_tools.h"
#include "kallsyms_maker.h"

#define RAM    (8 * MIB)
#define KERNEL (2 * MIB) /* guest-physical; mapped at KALLSYMS_BASE */
#define TABLES 0x1000

/* As much of a CPU as the tools look at. */
struct machine {
    pthread_mutex_t lock;
    struct physmem *mem;
    struct cpu *cpu;
    struct jit_tools *tools;
    char folder[TEMP_PATH], log[TEMP_PATH], map[TEMP_PATH + 32], dump[TEMP_PATH + 32];
};

static void put_entry(struct machine *machine, gpa_t table, uint64_t address, unsigned shift, uint64_t entry)
{
    cr_assert(physmem_write(machine->mem, table + (address >> shift & 511) * 8, &entry, 8));
}

static struct machine *machine_create(const struct jit_tools_config *config, uint32_t mask)
{
    struct machine *machine = calloc(1, sizeof(*machine));
    struct jit_tools_config full = *config;
    struct error err = { "" };

    pthread_mutex_init(&machine->lock, NULL);
    machine->mem = physmem_create(RAM, &machine->lock, &err);
    cr_assert(machine->mem && physmem_add_ram(machine->mem, 0, RAM, 0, "ram", &err), "%s", err.text);
    machine->cpu = aligned_alloc(64, ALIGN_UP(sizeof(struct cpu), 64));
    memset(machine->cpu, 0, sizeof(struct cpu));
    machine->cpu->physmem = machine->mem;
    machine->cpu->msrs.efer = 0x500; /* LME, LMA */
    machine->cpu->mmu.paging =
        (struct paging){ .cr0 = 0x80000001, .cr3 = TABLES, .cr4 = 0x20, .efer = 0x500, .max_physical_bits = 40 };
    put_entry(machine, TABLES, KALLSYMS_BASE, 39, (TABLES + 0x1000) | 3);
    put_entry(machine, TABLES + 0x1000, KALLSYMS_BASE, 30, (TABLES + 0x2000) | 3);
    put_entry(machine, TABLES + 0x2000, KALLSYMS_BASE, 21, KERNEL | 0x83);

    strcpy(machine->folder, "/tmp/eidolon-test-XXXXXX");
    cr_assert(mkdtemp(machine->folder));
    snprintf(machine->map, sizeof(machine->map), "%s/perf-%d.map", machine->folder, (int)getpid());
    snprintf(machine->dump, sizeof(machine->dump), "%s/jit-%d.dump", machine->folder, (int)getpid());
    cr_assert_eq(log_set_file(temp_file(machine->log, "", 0), &err), 0);
    log_mask = mask;
    full.folder = machine->folder;
    machine->tools = jit_tools_create(&full, &err);
    cr_assert(machine->tools, "%s", err.text);
    return machine;
}

/* Returns the map and the log, one after the other. */
static char *machine_free(struct machine *machine)
{
    char *text, *log, *both;

    jit_tools_destroy(machine->tools);
    text = access(machine->map, F_OK) ? strdup("") : file_contents(machine->map, NULL);
    log = file_contents(machine->log, NULL);
    cr_assert_geq(asprintf(&both, "%s%s", text, log), 0);
    unlink(machine->map);
    unlink(machine->dump);
    unlink(machine->log);
    rmdir(machine->folder);
    physmem_destroy(machine->mem);
    pthread_mutex_destroy(&machine->lock);
    free(machine->cpu);
    free(machine);
    free(text);
    free(log);
    return both;
}

static void put_kernel(struct machine *machine)
{
    struct kallsyms_image *image = kallsyms_make(KALLSYMS_OLD);

    cr_assert(physmem_write(machine->mem, KERNEL, image->bytes, sizeof(image->bytes)));
    free(image);
}

static const uint8_t guest_code[] = { 0x0f, 0x05, 0xc3 }, host_code[] = { 0x48, 0x31, 0xc0, 0xc3 };

static struct jit_tools_block block_at(gva_t gva, bool user)
{
    return (struct jit_tools_block){
        .gva = gva,
        .gpa = KERNEL + (gva - KALLSYMS_BASE),
        .user = user,
        .bits = 64,
        .guest = guest_code,
        .guest_size = sizeof(guest_code),
        .hot = { host_code, 3 },
        .cold = { host_code + 3, 1 },
    };
}

static void expect_in(const char *text, const char *part)
{
    cr_expect(strstr(text, part), "'%s' is not in '%s'", part, text);
}

Test(tools, block)
{
    struct machine *machine = machine_create(&(struct jit_tools_config){ .perf_map = true, .jitdump = true },
                                             1u << LOG_in_asm | 1u << LOG_out_asm);
    struct jit_tools_code thunk = { host_code, 2 }, none = { host_code, 0 };
    struct jit_tools_block block;
    char expected[200], *text;
    size_t size;

    put_kernel(machine);
    cr_assert(jit_tools_wanted(machine->tools));
    jit_tools_add_code(machine->tools, &thunk, "thunk_slow");
    jit_tools_add_code(machine->tools, &none, "nothing");
    block = block_at(0x402000, true);
    jit_tools_add_block(machine->tools, machine->cpu, &block);
    jit_tools_forget_blocks(machine->tools);
    block = block_at(kallsyms_address(20) + 4, false);
    jit_tools_add_block(machine->tools, machine->cpu, &block);
    block = block_at(0x401000, true);
    block.cold.size = 0;
    jit_tools_add_block(machine->tools, machine->cpu, &block);
    text = file_contents(machine->dump, &size); /* its contents are tested in test_perf.c */
    free(text);

    text = machine_free(machine);
    snprintf(expected, sizeof(expected),
             "%lx 2 eidolon:thunk_slow\n%lx 3 guest:func_20+0x4\n%lx 1 guest:func_20+0x4.cold\n", (uintptr_t)host_code,
             (uintptr_t)host_code, (uintptr_t)host_code + 3);
    cr_expect_eq(strncmp(text, expected, strlen(expected)), 0, "%s", text);
    expect_in(text, " 3 guest:user:0x401000\n");
    cr_expect_null(strstr(text, "nothing"));
    expect_in(text, "\nIN: guest:func_20+0x4, gpa 0x201144, 3 bytes\n0xffffffff8e201144:  0f 05 ");
    expect_in(text, "OUT: guest:func_20+0x4, 3 bytes\n");
    expect_in(text, "xor rax, rax\nOUT (cold): guest:func_20+0x4, 1 bytes\n");
    expect_in(text, "IN: guest:user:0x401000,");
    free(text);
}

Test(tools, nothing_wanted)
{
    struct machine *machine = machine_create(&(struct jit_tools_config){ .kernel = "/nonexistent" }, 1u << LOG_exec);
    struct jit_tools_block block = block_at(KALLSYMS_BASE, false);
    char *text;

    put_kernel(machine);
    cr_expect_not(jit_tools_wanted(machine->tools));
    jit_tools_add_block(machine->tools, machine->cpu, &block);
    text = machine_free(machine);
    cr_expect_str_eq(text, "", "%s", text);
    free(text);
}

Test(tools, mistakes)
{
    static const struct {
        struct jit_tools_config config;
        const char *reason;
    } cases[] = {
        { { .symbols = "/nonexistent" }, "-symbols /nonexistent: No such file" },
        { { .symbols = "/dev/null" }, "-symbols /dev/null: not a file" },
        { { .perf_map = true, .folder = "/nonexistent" }, "-perfmap: /nonexistent/perf-" },
        { { .jitdump = true, .folder = "/nonexistent" }, "-jitdump: /nonexistent/jit-" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error err = { "" };

        cr_expect_null(jit_tools_create(&cases[i].config, &err), "case %zu", i);
        expect_in(err.text, cases[i].reason);
    }
}

static const char *name(struct machine *machine, gva_t gva)
{
    static char text[JIT_TOOLS_NAME_SIZE];

    return jit_tools_block_name(machine->tools, machine->cpu, gva, 0x1234, false, text, sizeof(text));
}

/* A file goes before what the guest has, and moves with KASLR. */
Test(tools, symbol_file)
{
    static const char map[] = "ffffffff81000000 T in_file\nffffffff81000400 T entry_SYSCALL_64\n";
    char path[TEMP_PATH];
    struct machine *machine =
        machine_create(&(struct jit_tools_config){ .symbols = temp_file(path, map, sizeof(map) - 1) }, 1u << LOG_exec);

    put_kernel(machine);
    cr_expect_str_eq(name(machine, KALLSYMS_BASE), "guest:gpa:0x1234");
    cr_expect_str_eq(name(machine, ELF_TEXT + 1), "guest:in_file+0x1");
    machine->cpu->msrs.lstar = ELF_TEXT + 0x400 + 0x6000000;
    cr_expect_str_eq(name(machine, ELF_TEXT + 0x6000002), "guest:in_file+0x2");
    free(machine_free(machine));
    unlink(path);
}

/* The kernel of -kernel too. */
Test(tools, kernel_file)
{
    static const struct elf_maker_symbol symbol = { "start", ELF_TEXT, 0x10, STT_FUNC, STB_GLOBAL, IN_TEXT };
    char path[TEMP_PATH];
    struct machine *machine;

    elf_make(temp_file(path, "", 0), 64, EM_X86_64, ET_EXEC, &symbol, 1);
    machine = machine_create(&(struct jit_tools_config){ .kernel = path }, 1u << LOG_exec);
    cr_expect_str_eq(name(machine, ELF_TEXT + 1), "guest:start+0x1");
    free(machine_free(machine));
    unlink(path);
}

/* The kernel's tables are looked for once, again when LSTAR changes, and then no more. */
Test(tools, guest_memory)
{
    struct machine *machine = machine_create(&(struct jit_tools_config){ 0 }, 1u << LOG_exec);
    const gva_t function = kallsyms_address(20);

    cr_expect_str_eq(name(machine, 0x401000), "guest:gpa:0x1234"); /* not the kernel's: no search */
    cr_expect_str_eq(name(machine, function), "guest:gpa:0x1234"); /* searched: nothing there */
    put_kernel(machine);
    cr_expect_str_eq(name(machine, function), "guest:gpa:0x1234"); /* nothing has changed */
    machine->cpu->msrs.lstar = kallsyms_address(1);
    cr_expect_str_eq(name(machine, function), "guest:func_20+0x0");
    machine->cpu->msrs.lstar = kallsyms_address(1) + 0x200000; /* booted again, elsewhere */
    cr_expect_str_eq(name(machine, function + 0x200000), "guest:func_20+0x0");
    free(machine_free(machine));
}

Test(tools, guest_memory_is_given_up)
{
    struct machine *machine = machine_create(&(struct jit_tools_config){ 0 }, 1u << LOG_exec);

    for (unsigned i = 0; i < 100; i++) {
        machine->cpu->msrs.lstar = 0x1000 + i;
        cr_expect_str_eq(name(machine, kallsyms_address(20)), "guest:gpa:0x1234");
    }
    put_kernel(machine);
    machine->cpu->msrs.lstar = kallsyms_address(1);
    cr_expect_str_eq(name(machine, kallsyms_address(20)), "guest:gpa:0x1234");
    free(machine_free(machine));
}

/* The last page of the address space, and a mapping to where no memory is. */
Test(tools, guest_memory_edges)
{
    struct machine *machine = machine_create(&(struct jit_tools_config){ 0 }, 1u << LOG_exec);

    put_entry(machine, TABLES + 0x2000, KALLSYMS_BASE, 21, 0xfee00000 | 0x83);
    put_entry(machine, TABLES + 0x2000, KALLSYMS_BASE + 0x200000, 21, (1ull << 39) | 0x83);
    cr_expect_str_eq(name(machine, KALLSYMS_BASE), "guest:gpa:0x1234");
    machine->cpu->msrs.lstar = 1;
    cr_expect_str_eq(name(machine, ~0ull), "guest:gpa:0x1234");
    free(machine_free(machine));
}
