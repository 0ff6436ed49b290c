/* What several threads do at once: look-ups while the map changes, walks against a processor that
 * rewrites an entry, page tracking against writers. For ThreadSanitizer as much as for its own
 * checks; a plain program, since Criterion and ThreadSanitizer do not go together. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/mmu.h"
#include "mmu/paging_bits.h"

#define RAM (64 * MIB)
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

struct shared {
    struct physmem *mem;
    uint8_t *ram;
    struct mmu *mmu;
    uint64_t *entry;
    _Atomic bool stop;
    _Atomic unsigned bad, posted, written;
};

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)size;
    return offset;
}

static const struct io_ops device_ops = { .read = device_read };

static struct shared shared_create(void)
{
    struct shared s = { .mem = physmem_create(RAM, NULL, NULL) };

    CHECK(s.mem && physmem_add_ram(s.mem, 0, RAM, 0, "ram", NULL));
    s.ram = physmem_ram_pointer(s.mem, 0, RAM);
    return s;
}

/* ---- Look-ups while the map changes ---- */

/* Page 16 is RAM page 16 or 32 or MMIO, and so on for page 17. Anything else is a torn look-up. */
static void *look_up(void *opaque)
{
    struct shared *s = opaque;

    while (!s->stop) {
        for (unsigned page = 16; page < 18; page++) {
            struct mem_page got = physmem_lookup(s->mem, (gpa_t)page << PAGE_SHIFT);
            uint64_t at = got.host ? (uint64_t)(got.host - s->ram) >> PAGE_SHIFT : 0;
            bool good = (got.kind == MEM_RAM && (at == page || at == page + 16)) || (got.kind == MEM_MMIO && !got.host);
            s->bad += !good;
        }
        struct mem_page last = physmem_lookup(s->mem, 0x100000);
        s->bad += last.kind != MEM_RAM || last.host != s->ram + 0x100000;
        s->bad += physmem_page_flags(s->mem, 0x100000) != PAGE_FLAGS_DIRTY;
    }
    return NULL;
}

static void test_lookups(void)
{
    struct shared s = shared_create();
    struct mem_region *extra[64];
    pthread_t threads[2];

    struct mem_region *over = physmem_add_ram(s.mem, 0x10000, 0x2000, 0x20000, "over", NULL);
    struct mem_region *bar = physmem_add_mmio(s.mem, 0x20000000, 0x2000, &device_ops, NULL, "bar", NULL);
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, look_up, &s);
    for (unsigned i = 0; i < 4000; i++) {
        physmem_set_enabled(over, i & 1);
        physmem_move(bar, i & 2 ? 0x10000 : 0x20000000);
        if (i % 64 == 0) /* grows past what the views hold */
            extra[i / 64] = physmem_add_mmio(s.mem, 0x40000000 + i * PAGE_SIZE, 0x10, &device_ops, NULL, "extra", NULL);
    }
    for (unsigned i = 0; i * 64 < 4000; i++)
        physmem_remove(extra[i]);
    s.stop = true;
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    CHECK(s.bad == 0);
    physmem_destroy(s.mem);
}

/* ---- Walks against a processor that rewrites the entry ---- */

static void *rewrite_entry(void *opaque)
{
    struct shared *s = opaque;

    for (uint64_t i = 0; !s->stop; i++)
        __atomic_store_n(s->entry, PTE_P | (i & 1 ? 0x8000 | PTE_RW : 0x9000), __ATOMIC_RELEASE);
    return NULL;
}

/* No translation may mix two values of the entry, and neither side's update may be lost. */
static void test_walk_race(void)
{
    struct shared s = shared_create();
    pthread_t thread;

    for (unsigned level = 0; level < 3; level++)
        *(uint64_t *)(s.ram + 0x1000 + level * PAGE_SIZE) = (0x2000 + level * PAGE_SIZE) | PTE_P | PTE_RW;
    s.entry = (uint64_t *)(s.ram + 0x4000);
    *s.entry = 0x8000 | PTE_P | PTE_RW;
    struct paging paging = {
        .cr0 = CR0_PG | CR0_WP | 1, .cr3 = 0x1000, .cr4 = CR4_PAE, .efer = EFER_LMA, .max_physical_bits = 40
    };
    pthread_create(&thread, NULL, rewrite_entry, &s);
    for (unsigned i = 0; i < 200000; i++) {
        struct walk_result result;
        struct fault fault;
        if (mmu_walk(&paging, s.mem, 0, MMU_WRITE, MMU_SUPERVISOR, &result, &fault) == 0) {
            CHECK((result.gpa & PAGE_MASK) == 0x8000); /* not through the entry that is read-only */
            CHECK(result.dirty);
        }
        uint64_t now = __atomic_load_n(s.entry, __ATOMIC_ACQUIRE);
        CHECK((now & PAGE_MASK) != 0x9000 || !(now & PTE_D));
    }
    s.stop = true;
    pthread_join(thread, NULL);
    physmem_destroy(s.mem);
}

/* ---- Tracking: a vCPU writes through its TLB while another thread collects dirty pages ---- */

static void post_drop(void *opaque, gpa_t page)
{
    struct shared *s = opaque;

    mmu_post_drop_write_tags(s->mmu, page);
    s->posted++;
}

static void count_written(void *opaque, gpa_t gpa, uint64_t size)
{
    (void)gpa, (void)size;
    ((struct shared *)opaque)->written++;
}

#define TRACKED_PAGES 128 /* more than the queue holds */

static void *write_pages(void *opaque)
{
    struct shared *s = opaque;

    while (!s->stop) {
        for (unsigned page = 0; page < TRACKED_PAGES; page++) {
            gva_t gva = 0x100000 + page * PAGE_SIZE;
            uint8_t *host = mmu_lookup_write(s->mmu, gva, 8, MMU_SUPERVISOR);
            struct mmu_target target = { .host = host };
            struct fault fault;
            if (!host)
                CHECK(mmu_translate(s->mmu, gva, MMU_WRITE, MMU_SUPERVISOR, &target, &fault) == 0);
            __atomic_add_fetch((uint64_t *)target.host, 1, __ATOMIC_RELAXED);
            if (target.notice)
                physmem_written(s->mem, target.gpa, 8);
        }
        mmu_run_pending(s->mmu); /* the safe point */
    }
    mmu_run_pending(s->mmu);
    return NULL;
}

static void test_tracking(void)
{
    struct shared s = shared_create();
    uint64_t bitmap[TRACKED_PAGES / 64];
    pthread_t thread;

    s.mmu = aligned_alloc(64, ALIGN_UP(sizeof(struct mmu), 64));
    CHECK(mmu_init(s.mmu, s.mem, NULL) == 0);
    struct physmem_listener listener = { .write_tracking = post_drop, .code_written = count_written, .opaque = &s };
    physmem_add_listener(s.mem, &listener);
    pthread_create(&thread, NULL, write_pages, &s);
    for (unsigned i = 0; i < 300; i++) {
        physmem_collect_dirty(s.mem, 0x100000, TRACKED_PAGES * PAGE_SIZE, PAGE_FLAG_DIRTY_MIGRATION, bitmap);
        physmem_page_set_flags(s.mem, 0x100000 + i % TRACKED_PAGES * PAGE_SIZE, PAGE_FLAG_CODE);
        physmem_page_clear_flags(s.mem, 0x100000 + (i + 64) % TRACKED_PAGES * PAGE_SIZE, PAGE_FLAG_CODE);
    }
    s.stop = true;
    pthread_join(thread, NULL);
    CHECK(s.posted > 0);

    /* All is quiet: after a collection, a write is noticed exactly once per page. */
    physmem_collect_dirty(s.mem, 0x100000, TRACKED_PAGES * PAGE_SIZE, PAGE_FLAG_DIRTY_MIGRATION, bitmap);
    mmu_run_pending(s.mmu);
    for (unsigned page = 0; page < TRACKED_PAGES; page++)
        CHECK(!mmu_lookup_write(s.mmu, 0x100000 + page * PAGE_SIZE, 1, MMU_SUPERVISOR));
    mmu_destroy(s.mmu);
    free(s.mmu);
    physmem_destroy(s.mem);
}

int main(void)
{
    test_lookups();
    test_walk_race();
    test_tracking();
    return 0;
}
