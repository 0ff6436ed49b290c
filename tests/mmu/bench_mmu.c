/* What the slow paths of the MMU cost. The figures in docs/mmu.md come from here. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "mmu/mmu.h"
#include "mmu/paging_bits.h"

#define USER_BASE   0x400000ull
#define KERNEL_BASE 0xffff888000000000ull
#define USER_PAGES  4096
#define LARGE_PAGES 64

struct bench {
    struct physmem *mem;
    struct mmu *mmu;
    uint8_t *ram;
    gpa_t next_table;
    gpa_t roots[2];
    uint64_t started_ns;
};

static uint64_t *entry(struct bench *b, gpa_t root, gva_t gva, unsigned shift)
{
    gpa_t table = root;

    for (unsigned level = 39;; level -= 9) {
        uint64_t *e = (uint64_t *)(b->ram + table) + (gva >> level & 511);
        if (level == shift)
            return e;
        if (!(*e & PTE_P)) {
            *e = b->next_table | PTE_P | PTE_RW | PTE_US;
            b->next_table += PAGE_SIZE;
        }
        table = *e & PTE_ADDRESS;
    }
}

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)size;
    return offset;
}

static void set_up(struct bench *b)
{
    static const struct io_ops ops = { .read = device_read };
    struct error err;

    *b = (struct bench){ .next_table = 0x10000, .roots = { 0x1000, 0x2000 } };
    b->mem = physmem_create(256 * MIB, NULL, &err);
    b->mmu = aligned_alloc(64, ALIGN_UP(sizeof(struct mmu), 64));
    if (!b->mem || !b->mmu || mmu_init(b->mmu, b->mem, &err))
        exit(1);
    physmem_add_ram(b->mem, 0, 128 * MIB, 0, "low", &err);
    physmem_add_ram(b->mem, 4 * GIB, 128 * MIB, 128 * MIB, "high", &err);
    for (unsigned i = 0; i < 20; i++)
        physmem_add_mmio(b->mem, 0xe0000000 + i * 0x10000ull, 0x1000, &ops, NULL, "device", &err);
    b->ram = physmem_ram_pointer(b->mem, 0, 1);
    for (unsigned i = 0; i < USER_PAGES; i++)
        for (unsigned k = 0; k < 2; k++)
            *entry(b, b->roots[k], USER_BASE + i * PAGE_SIZE, 12) =
                (16 * MIB + i * PAGE_SIZE) | PTE_P | PTE_RW | PTE_US;
    for (unsigned i = 0; i < LARGE_PAGES; i++)
        *entry(b, b->roots[0], KERNEL_BASE + i * 2 * MIB, 21) = i * 2 * MIB | PTE_P | PTE_RW | PTE_PS | PTE_G;
    mmu_set_efer(b->mmu, EFER_LMA | EFER_NXE);
    mmu_set_cr4(b->mmu, CR4_PAE | CR4_PGE | CR4_PCIDE);
    mmu_set_cr3(b->mmu, b->roots[0], false);
    mmu_set_cr0(b->mmu, CR0_PG | CR0_WP | 1);
}

static void translate(struct bench *b, gva_t gva)
{
    struct mmu_target target;
    struct fault fault;

    if (mmu_translate(b->mmu, gva, MMU_READ, MMU_SUPERVISOR, &target, &fault))
        exit(1);
}

static void touch(struct bench *b, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++)
        translate(b, USER_BASE + i * PAGE_SIZE);
}

static void start(struct bench *b)
{
    b->started_ns = clock_host_ns();
}

static void report(const struct bench *b, const char *what, unsigned count)
{
    printf("%-40s %8.1f ns\n", what, (double)(clock_host_ns() - b->started_ns) / count);
}

static void bench_fills(struct bench *b)
{
    touch(b, USER_PAGES);
    start(b);
    for (unsigned i = 0; i < 100; i++)
        touch(b, USER_PAGES);
    report(b, "L1 fill from L2", 100 * USER_PAGES);

    start(b);
    for (unsigned i = 0; i < 100; i++) {
        mmu_set_cr3(b->mmu, b->roots[0], false);
        touch(b, USER_PAGES);
    }
    report(b, "L1 fill by a walk", 100 * USER_PAGES);

    start(b);
    for (unsigned i = 0; i < 1000 * LARGE_PAGES; i++)
        translate(b, KERNEL_BASE + (i % LARGE_PAGES) * 2 * MIB + (i & 511) * PAGE_SIZE);
    report(b, "L1 fill from L2, 2 MiB pages", 1000 * LARGE_PAGES);
}

static void bench_switches(struct bench *b)
{
    static const unsigned used[] = { 0, 16, 64, 256, 1024 };

    for (unsigned n = 0; n < ARRAY_SIZE(used); n++) {
        uint64_t total = 0;
        char what[64];
        for (unsigned i = 0; i < 200; i++) {
            touch(b, used[n]);
            start(b);
            mmu_set_cr3(b->mmu, b->roots[i & 1] | (i & 1), true);
            total += clock_host_ns() - b->started_ns;
        }
        snprintf(what, sizeof(what), "CR3 switch, %u entries in use", used[n]);
        printf("%-40s %8.1f ns\n", what, (double)total / 200);
    }
    mmu_set_cr3(b->mmu, b->roots[0], true);
}

static void bench_invalidations(struct bench *b)
{
    touch(b, 1000);
    start(b);
    for (unsigned i = 0; i < 100000; i++)
        mmu_invlpg(b->mmu, 0x10000000000 + (i & 511) * PAGE_SIZE);
    report(b, "INVLPG, not cached", 100000);
    start(b);
    for (unsigned i = 0; i < 10000; i++)
        mmu_invlpg(b->mmu, KERNEL_BASE + (i & 511) * PAGE_SIZE);
    report(b, "INVLPG in a large page", 10000);
    start(b);
    for (unsigned i = 0; i < 10000; i++)
        mmu_drop_write_tags(b->mmu, i * PAGE_SIZE);
    report(b, "write tags of a page dropped", 10000);
    start(b);
    for (unsigned i = 0; i < 1000000; i++)
        mmu_set_pkru(b->mmu, i & 1 ? 0x55555554 : 0x55555550);
    report(b, "WRPKRU, no page concerned", 1000000);
    start(b);
    for (unsigned i = 0; i < 100000; i++)
        mmu_flush_all(b->mmu);
    report(b, "flush of everything, empty", 100000);
}

static void bench_physmem(struct bench *b)
{
    uint64_t sum = 0;

    start(b);
    for (unsigned i = 0; i < 1000000; i++)
        sum += physmem_lookup(b->mem, i * PAGE_SIZE % (128 * MIB)).kind;
    report(b, "physmem_lookup, RAM", 1000000);
    start(b);
    for (unsigned i = 0; i < 1000000; i++)
        sum += physmem_lookup(b->mem, 0xe0000000 + i % 20 * 0x10000ull).kind;
    report(b, "physmem_lookup, MMIO", 1000000);
    start(b);
    for (unsigned i = 0; i < 1000000; i++)
        sum += physmem_mmio_read(b->mem, 0xe0000000 + i % 20 * 0x10000ull, 4);
    report(b, "MMIO read", 1000000);
    if (sum == 0)
        exit(1);
}

int main(void)
{
    struct bench bench;

    set_up(&bench);
    bench_fills(&bench);
    bench_switches(&bench);
    bench_invalidations(&bench);
    bench_physmem(&bench);
    mmu_destroy(bench.mmu);
    free(bench.mmu);
    physmem_destroy(bench.mem);
    return 0;
}
