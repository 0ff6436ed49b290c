/* The address space of one translator: code (two views), sites, struct jit and the return stack, all within 2 GiB of
 * struct cpu, so that code addresses them relative to RIP; or all below 2 GiB, by 32-bit addresses. The latter is better where
 * memory is written and soon read again (unpinned registers, vpage): processors forward such stores without delay if the address
 * does not depend on RIP (measured on Sapphire Rapids: 0.25 against 1.9 ns).
 *
 *   execute view | struct jit | sites | guard page, return stack
 *
 * vCPU's creator only. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/host_memory.h"
#include "base/log.h"
#include "jit/jit_sabotage.h"
#include "jit/jit_translate.h"

#define CODE_MIN (256 * KIB)

#define STEP_BYTES  (64 * MIB)
#define REACH_STEPS 28

/* An unused range of `size` bytes near `near` and, like it, below 2 GiB if possible; reserved without access. */
static uint8_t *reserve_near(const void *near, size_t size)
{
    uintptr_t origin = ALIGN_DOWN((uintptr_t)near, 2 * MIB);

    if ((uintptr_t)near < BIT(31)) {
        void *low = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_32BIT, -1, 0);
        if (low != MAP_FAILED)
            return low;
    }

    for (unsigned n = 1; n <= REACH_STEPS; n++) {
        const uintptr_t tries[] = { origin - n * STEP_BYTES, origin + n * STEP_BYTES };
        for (unsigned side = 0; side < 2; side++) {
            void *at = mmap((void *)tries[side], size, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
            if (at == (void *)tries[side])
                return at;
            if (at != MAP_FAILED)
                munmap(at, size);
        }
    }
    return NULL;
}

/* Both views of anonymous shared memory: perf gives names from its map to code that is in no file. */
static int map_code(struct jit *jit, uint8_t *execute, struct error *err)
{
    size_t size = jit->code.size;
    void *write = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (write == MAP_FAILED)
        return error_set(err, errno, "cannot map %zu KiB for translated code", size >> 10);
    jit->code.write = write;
    /* Old size 0 makes a second mapping of shared pages. */
    if (mremap(write, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, execute) == MAP_FAILED ||
        mprotect(execute, size, PROT_READ | PROT_EXEC) < 0)
        return error_set(err, errno, "the host does not let us execute translated code");
    jit->code.execute = execute;
    return 0;
}

/* EIDOLON_CODE_CACHE, in bytes, if that is set: for tests. */
static size_t code_size(void)
{
    const char *text = getenv("EIDOLON_CODE_CACHE");
    size_t size = CODE_DEFAULT;
    char *end = NULL;

    if (text) {
        size = strtoull(text, &end, 0);
        if (end == text || *end || *text == '-' || !size) {
            log_warn("EIDOLON_CODE_CACHE=%s: not a number of bytes: ignored", text);
            size = CODE_DEFAULT;
        }
    }
    return ALIGN_UP(MAX(MIN(size, 512 * MIB), CODE_MIN), PAGE_SIZE);
}

int jit_memory_create(struct cpu *cpu, struct jit **result, struct error *err)
{
    size_t code = code_size(), own = ALIGN_UP(sizeof(struct jit), PAGE_SIZE);
    size_t sites = ALIGN_UP(SITES_MAX * (sizeof(struct tlb_entry *) + sizeof(uint16_t) + sizeof(uint32_t)), PAGE_SIZE);
    size_t size = code + own + sites + PAGE_SIZE + RETURN_STACK_SIZE;
    uint8_t *base = reserve_near(cpu, size);

    if (!base)
        return error_set(err, ENOMEM, "no address space for translated code near the vCPU");
    struct jit *jit = (struct jit *)(base + code);
    uint8_t *stack = base + code + own + sites + PAGE_SIZE;
    if (mprotect(jit, own + sites, PROT_READ | PROT_WRITE) < 0 ||
        mprotect(stack, RETURN_STACK_SIZE, PROT_READ | PROT_WRITE) < 0) {
        int errnum = errno;
        munmap(base, size);
        return error_set(err, errnum, "no memory for translated code");
    }
    host_memory_is_root(jit, own, true);
    jit->cpu = cpu;
    jit->mapping = base;
    jit->mapping_size = size;
    jit->code.size = code;
    jit->code.hot_size = ALIGN_UP(code / 16 * 9, PAGE_SIZE); /* about what the two take of each block */
    jit->sites = (struct tlb_entry **)(base + code + own);
    jit->site_misses = (uint16_t *)(jit->sites + SITES_MAX);
    jit->site_times = (uint32_t *)(jit->site_misses + SITES_MAX);
    jit->return_stack = stack;
    int ret = map_code(jit, base, err);
    if (ret < 0) {
        jit_memory_destroy(jit);
        return ret;
    }
    *result = jit;
    return 0;
}

void jit_memory_destroy(struct jit *jit)
{
    host_memory_is_root(jit, ALIGN_UP(sizeof(*jit), PAGE_SIZE), false);
    if (jit->code.write)
        munmap(jit->code.write, jit->code.size);
    munmap(jit->mapping, jit->mapping_size);
}

/* ---- Records of translations ---- */

int jit_cache_create(struct jit *jit, struct error *err)
{
    struct host_region arena;
    size_t size = jit->code.size;

    int result = host_memory_anonymous(&arena, size * 2, err);
    if (result)
        return result;
    jit->arena = arena.base;
    jit->arena_size = arena.size;
    jit->by_code_size = size / 64;
    jit->segment_count = (unsigned)MAX(1, MIN(SEGMENTS_MAX, size / SEGMENT_MIN));
    jit->by_code = calloc(jit->by_code_size, sizeof(*jit->by_code));
    jit->page_pool = calloc(PAGES_MAX, sizeof(*jit->page_pool));
    if (!jit->by_code || !jit->page_pool)
        return error_set(err, ENOMEM, "no memory for the translator");
    jit_cache_carve(jit);
    return 0;
}

void jit_cache_destroy(struct jit *jit)
{
    struct host_region arena = { .base = jit->arena, .size = jit->arena_size, .fd = -1 };

    if (jit->arena)
        host_memory_free(&arena);
    jit->arena = NULL;
    free(jit->by_code);
    free(jit->page_pool);
    jit->by_code = NULL;
    jit->page_pool = NULL;
}

int jit_translate_create(struct jit *jit, struct error *err)
{
    jit->translation = calloc(1, sizeof(*jit->translation));
    if (!jit->translation)
        return error_set(err, ENOMEM, "no memory for the translator");
    jit->translation->jit = jit;
    return jit_sabotage_create(&jit->sabotage, err);
}

void jit_translate_destroy(struct jit *jit)
{
    jit_sabotage_destroy(jit->sabotage);
    jit->sabotage = NULL;
    free(jit->translation);
    jit->translation = NULL;
}
