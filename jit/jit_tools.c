/* Brings symbols, perf's files and disassembly together for the translator.
 *
 * Names come from the files that the user gave. Without one, the guest kernel's own symbol table is read out of its
 * memory: when the first block in the upper 2 GiB (where x86-64 Linux runs) is translated, and, if it was not there,
 * when LSTAR changes, a few times in all. The table that is found is published once and stays until the end, so that
 * look-ups need no lock.
 *
 * Threads: any vCPU's; set-up and destruction when none runs. The lock is taken for what happens once per block,
 * never for looking a name up. */
#include "jit/jit_tools.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "jit/jit_disassemble.h"
#include "jit/jit_jitdump.h"
#include "jit/jit_kallsyms.h"
#include "jit/jit_perf.h"
#include "jit/jit_symbols.h"
#include "mmu/walk.h"

#define KERNEL_WINDOW   0xffffffff80000000ull /* __START_KERNEL_map */
#define KERNEL_SIZE_MAX (64 * MIB)
#define KERNEL_ALIGN    (2 * MIB)
#define SEARCHES_MAX    4 /* what bounds the time that a guest without a symbol table costs */

#define NAME_WANTED (1u << LOG_in_asm | 1u << LOG_out_asm | 1u << LOG_exec)

struct jit_tools {
    struct jit_symbols *files; /* never NULL */
    _Atomic(struct jit_symbols *)
        guest;                   /* NULL: not found yet. Release: its contents come first; acquire in find_symbols */
    struct jit_perf *perf;       /* or NULL */
    struct jit_jitdump *jitdump; /* or NULL */

    pthread_mutex_t lock;
    struct jit_disassembler *disassembler; /* guarded by lock */
    unsigned searches;                     /* guarded by lock */
    uint64_t searched_lstar;               /* guarded by lock */
};

/* ---- Set-up ---- */

static bool names_wanted(const struct jit_tools_config *config)
{
    return config->perf_map || config->jitdump || (log_mask & NAME_WANTED);
}

static int load_symbols(struct jit_tools *tools, const struct jit_tools_config *config, struct error *err)
{
    int ret = 0;

    if (config->symbols)
        ret = jit_symbols_load_file(tools->files, config->symbols, err);
    if (ret)
        return error_prefix(err, ret, "-symbols %s", config->symbols);
    if (config->kernel && names_wanted(config))
        jit_symbols_load_kernel(tools->files, config->kernel);
    return 0;
}

static int open_files(struct jit_tools *tools, const struct jit_tools_config *config, struct error *err)
{
    if (config->perf_map) {
        char path[4096];

        snprintf(path, sizeof(path), "%s/perf-%d.map", config->folder ? config->folder : "", (int)getpid());
        tools->perf = jit_perf_open(config->folder ? path : NULL, err);
        if (!tools->perf)
            return error_prefix(err, -EIO, "-perfmap");
    }
    if (config->jitdump) {
        tools->jitdump = jit_jitdump_open(config->folder, err);
        if (!tools->jitdump)
            return error_prefix(err, -EIO, "-jitdump");
    }
    return 0;
}

struct jit_tools *jit_tools_create(const struct jit_tools_config *config, struct error *err)
{
    struct jit_tools *tools = calloc(1, sizeof(*tools));

    if (tools) {
        pthread_mutex_init(&tools->lock, NULL);
        tools->files = jit_symbols_create();
        tools->disassembler = jit_disassembler_create();
    }
    if (!tools || !tools->files || !tools->disassembler)
        error_set(err, ENOMEM, "out of memory");
    else if (!load_symbols(tools, config, err) && !open_files(tools, config, err))
        return tools;
    jit_tools_destroy(tools);
    return NULL;
}

void jit_tools_destroy(struct jit_tools *tools)
{
    if (!tools)
        return;
    jit_perf_close(tools->perf);
    jit_jitdump_close(tools->jitdump);
    jit_disassembler_destroy(tools->disassembler);
    jit_symbols_destroy(tools->files);
    jit_symbols_destroy(atomic_load_explicit(&tools->guest, memory_order_relaxed));
    pthread_mutex_destroy(&tools->lock);
    free(tools);
}

bool jit_tools_wanted(const struct jit_tools *tools)
{
    return tools->perf || tools->jitdump || log_enabled(LOG_in_asm) || log_enabled(LOG_out_asm);
}

/* ---- The guest's own symbol table ---- */

/* What is not mapped stays zero. DMA's reading: devices are not touched. */
static void read_guest(struct cpu *cpu, gva_t gva, uint8_t *buffer, size_t size)
{
    for (size_t at = 0; at < size; at += PAGE_SIZE) {
        gpa_t gpa;

        if (mmu_walk_debug(&cpu->mmu.paging, cpu->physmem, gva + at, &gpa))
            physmem_read(cpu->physmem, gpa, buffer + at, PAGE_SIZE);
    }
}

/* Called with the lock held. */
static void search_guest(struct jit_tools *tools, struct cpu *cpu, gva_t text)
{
    gva_t start = ALIGN_DOWN(text, KERNEL_ALIGN);
    size_t size = MIN(KERNEL_SIZE_MAX, 0 - start); /* not beyond the end of the address space */
    struct jit_symbols *found = jit_symbols_create();
    uint8_t *image = calloc(1, size);

    if (found && image) {
        read_guest(cpu, start, image, size);
        if (jit_kallsyms_read(found, image, size, text)) {
            jit_symbols_finish(found);
            atomic_store_explicit(&tools->guest, found, memory_order_release);
            found = NULL; /* published */
        }
    }
    free(image);
    jit_symbols_destroy(found);
}

/* The table to look names up in, moved to where the kernel is now. */
static const struct jit_symbols *find_symbols(struct jit_tools *tools, struct cpu *cpu, gva_t gva, bool user)
{
    struct jit_symbols *symbols = tools->files;

    if (user)
        return symbols; /* only kernels are looked up */
    if (!jit_symbols_count(symbols)) {
        symbols = atomic_load_explicit(&tools->guest, memory_order_acquire);
        if (!symbols && gva >= KERNEL_WINDOW && cpu_long_mode(cpu)) {
            pthread_mutex_lock(&tools->lock);
            if (!tools->searches || (tools->searches < SEARCHES_MAX && tools->searched_lstar != cpu->msrs.lstar)) {
                tools->searches++;
                tools->searched_lstar = cpu->msrs.lstar;
                search_guest(tools, cpu, gva);
            }
            pthread_mutex_unlock(&tools->lock);
            symbols = atomic_load_explicit(&tools->guest, memory_order_acquire);
        }
        if (!symbols)
            return tools->files;
    }
    jit_symbols_relocate(symbols, cpu->msrs.lstar);
    return symbols;
}

const char *jit_tools_block_name(struct jit_tools *tools, struct cpu *cpu, gva_t gva, gpa_t gpa, bool user,
                                 char *buffer, size_t size)
{
    return jit_symbols_block_name(find_symbols(tools, cpu, gva, user), gva, gpa, user, buffer, size);
}

/* ---- Blocks ---- */

static void add_code(struct jit_tools *tools, const struct jit_tools_code *code, const char *name)
{
    if (!code->size)
        return;
    if (tools->perf)
        jit_perf_add(tools->perf, code->address, code->size, name);
    if (tools->jitdump)
        jit_jitdump_add(tools->jitdump, code->address, code->size, name);
}

static void list_code(struct jit_tools *tools, const struct jit_tools_code *code, const char *kind, const char *name)
{
    char heading[JIT_TOOLS_NAME_SIZE + 64];

    if (!code->size)
        return;
    snprintf(heading, sizeof(heading), "OUT%s: %s, %zu bytes", kind, name, code->size);
    jit_disassemble(tools->disassembler, LOG_out_asm, heading, code->address, code->size, (uintptr_t)code->address, 64);
}

/* A listing is not torn apart by another vCPU's. */
static void list_block(struct jit_tools *tools, const struct jit_tools_block *block, const char *name)
{
    char heading[JIT_TOOLS_NAME_SIZE + 64];

    pthread_mutex_lock(&tools->lock);
    if (log_enabled(LOG_in_asm)) {
        snprintf(heading, sizeof(heading), "IN: %s, gpa 0x%" PRIx64 ", %zu bytes", name, block->gpa, block->guest_size);
        jit_disassemble(tools->disassembler, LOG_in_asm, heading, block->guest, block->guest_size, block->gva,
                        block->bits);
    }
    if (log_enabled(LOG_out_asm)) {
        list_code(tools, &block->hot, "", name);
        list_code(tools, &block->cold, " (cold)", name);
    }
    pthread_mutex_unlock(&tools->lock);
}

void jit_tools_add_block(struct jit_tools *tools, struct cpu *cpu, const struct jit_tools_block *block)
{
    char name[JIT_TOOLS_NAME_SIZE], cold_name[JIT_TOOLS_NAME_SIZE + 8];

    if (!jit_tools_wanted(tools))
        return;
    jit_tools_block_name(tools, cpu, block->gva, block->gpa, block->user, name, sizeof(name));
    snprintf(cold_name, sizeof(cold_name), "%s.cold", name);
    add_code(tools, &block->hot, name);
    add_code(tools, &block->cold, cold_name);
    if (log_enabled(LOG_in_asm) || log_enabled(LOG_out_asm))
        list_block(tools, block, name);
}

void jit_tools_add_code(struct jit_tools *tools, const struct jit_tools_code *code, const char *name)
{
    char full[JIT_TOOLS_NAME_SIZE];

    snprintf(full, sizeof(full), "eidolon:%s", name);
    add_code(tools, code, full);
    if (tools->perf)
        jit_perf_keep(tools->perf);
}

void jit_tools_forget_blocks(struct jit_tools *tools)
{
    if (tools->perf) /* the jitdump has times */
        jit_perf_forget(tools->perf);
}

void jit_tools_forget_code(struct jit_tools *tools, const struct jit_tools_code *code)
{
    if (tools->perf)
        jit_perf_forget_code(tools->perf, code->address, code->size);
}
