/* The L1 arrays: filling, and taking things out.
 *
 * Invariants:
 *   - An entry that is not valid for an access has mmu_invalid_tag(index) as its tag and the
 *     no-access page as its host pointer, for reading and for writing separately.
 *   - A slot's bit is set in exactly one of the *_local and *_global bitmaps if its entry is
 *     valid in any way, in none if it is not.
 *   - For every valid entry of a page above 4 KiB the page is in large_local or large_global. A page
 *     that was put into an exec array since the last flush of its kind is in executed_*.
 *
 * A flush costs what was filled since the last one, not the size of the arrays: a context switch
 * after a hundred page accesses clears a hundred entries, and the global ones stay unvisited.
 *
 * exec_generation moves when an entry that was ever in an exec array is dropped for a reason other than lack
 * of room: then, what somebody remembers of an earlier look-up may be wrong.
 *
 * Threads: the owner's only. SDM Vol. 3A 4.10.4. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "mmu/mmu_internal.h"

/* struct tlb_info: bits below the page's address */
enum {
    TLB_GLOBAL = 1 << 0,
    TLB_SIZE_SHIFT = 1,
    TLB_SIZE_MASK = 3 << TLB_SIZE_SHIFT,
    TLB_PKEY_SHIFT = 3,
    TLB_PKEY_MASK = 15 << TLB_PKEY_SHIFT,
};
#define TLB_GPA_MASK 0x000ffffffffff000ull

static uint64_t info_word(const struct translation *translation)
{
    return translation->gpa | (translation->global ? TLB_GLOBAL : 0) |
           (uint64_t)translation->size_code << TLB_SIZE_SHIFT | (uint64_t)translation->pkey << TLB_PKEY_SHIFT;
}

static unsigned info_size_code(uint64_t word)
{
    return (word & TLB_SIZE_MASK) >> TLB_SIZE_SHIFT;
}

/* ---- Filters ---- */

static unsigned filter_bit(gva_t gva, unsigned size_code)
{
    uint64_t page = (gva >> page_size_shift(size_code)) * 4 + size_code;

    return (unsigned)(page * 0x9e3779b97f4a7c15ull >> 54) | (unsigned)(gva >> 63) << 10;
}

static void filter_add(struct page_filter *filter, gva_t gva, unsigned size_code)
{
    unsigned bit = filter_bit(gva, size_code);

    filter->words[bit >> 6] |= BIT(bit & 63);
}

static bool filter_test(const struct page_filter *filter, gva_t gva, unsigned first_size_code)
{
    for (unsigned code = first_size_code; code <= PAGE_1G; code++) {
        unsigned bit = filter_bit(gva, code);
        if (filter->words[bit >> 6] >> (bit & 63) & 1)
            return true;
    }
    return false;
}

/* ---- Single entries ---- */

static void data_clear(struct mmu *mmu, unsigned array, unsigned index)
{
    uint64_t tag = mmu_invalid_tag(index);

    mmu->l1[array][index] = (struct tlb_entry){ tag, mmu->no_access_page, tag, mmu->no_access_page };
}

static void exec_clear(struct mmu *mmu, unsigned array, unsigned index)
{
    mmu->exec[array][index] = (struct tlb_exec_entry){ .tag = mmu_invalid_tag(index), .gpa = ~0ull };
}

static void data_drop(struct mmu *mmu, unsigned array, unsigned index)
{
    struct tlb_info *info = mmu->info;

    info->data_local[array][index >> 6] &= ~BIT(index & 63);
    info->data_global[array][index >> 6] &= ~BIT(index & 63);
    data_clear(mmu, array, index);
}

static void exec_drop(struct mmu *mmu, unsigned array, unsigned index)
{
    struct tlb_info *info = mmu->info;

    info->exec_local[array][index >> 6] &= ~BIT(index & 63);
    info->exec_global[array][index >> 6] &= ~BIT(index & 63);
    exec_clear(mmu, array, index);
}

/* The page number of a valid entry; a read tag may be invalid beside a valid write tag only in theory, but
 * the check is free. */
static gva_t data_gva(const struct mmu *mmu, unsigned array, unsigned index)
{
    const struct tlb_entry *entry = &mmu->l1[array][index];

    return entry->tag_r == mmu_invalid_tag(index) ? entry->tag_w : entry->tag_r;
}

/* ---- The limit for tests ---- */

static void fifo_push(struct mmu *mmu, struct tlb_fifo *fifo, unsigned array, unsigned index,
                      void (*drop)(struct mmu *mmu, unsigned array, unsigned index))
{
    uint16_t slot = (uint16_t)(array << 12 | index);

    for (unsigned i = 0; i < fifo->count; i++)
        if (fifo->slots[i] == slot)
            return;
    while (fifo->count >= mmu->info->limit) {
        drop(mmu, fifo->slots[0] >> 12, fifo->slots[0] & 0xfff);
        memmove(fifo->slots, fifo->slots + 1, --fifo->count * sizeof(fifo->slots[0]));
    }
    fifo->slots[fifo->count++] = slot;
}

void mmu_set_l1_limit(struct mmu *mmu, unsigned entries)
{
    tlb_flush_all(mmu);
    mmu->info->limit = MIN(entries, (unsigned)TLB_LIMIT_MAX);
}

/* ---- Filling ---- */

static void slot_mark(uint64_t *local, uint64_t *global, unsigned index, bool is_global)
{
    uint64_t bit = BIT(index & 63);

    local[index >> 6] = is_global ? local[index >> 6] & ~bit : local[index >> 6] | bit;
    global[index >> 6] = is_global ? global[index >> 6] | bit : global[index >> 6] & ~bit;
}

void tlb_fill_data(struct mmu *mmu, gva_t gva, enum mmu_privilege privilege, const struct translation *translation,
                   uint8_t *host_r, uint8_t *host_w)
{
    struct tlb_info *info = mmu->info;
    unsigned index = mmu_l1_index(gva);
    uint64_t invalid = mmu_invalid_tag(index);

    if (unlikely(info->limit))
        fifo_push(mmu, &info->data_fifo, privilege, index, data_drop);
    mmu->l1[privilege][index] = (struct tlb_entry){
        .tag_r = host_r ? gva & PAGE_MASK : invalid,
        .host_r = host_r ? host_r : mmu->no_access_page,
        .tag_w = host_w ? gva & PAGE_MASK : invalid,
        .host_w = host_w ? host_w : mmu->no_access_page,
    };
    info->data[privilege][index] = info_word(translation);
    info->pkeys |= 1u << translation->pkey;
    slot_mark(info->data_local[privilege], info->data_global[privilege], index, translation->global);
    if (translation->size_code != PAGE_4K)
        filter_add(translation->global ? &info->large_global : &info->large_local, gva, translation->size_code);
    mmu->stats.l1_fills++;
}

void tlb_fill_exec(struct mmu *mmu, gva_t gva, bool supervisor, const struct translation *translation, uint8_t *host)
{
    struct tlb_info *info = mmu->info;
    unsigned index = gva >> PAGE_SHIFT & (MMU_L1_EXEC_SIZE - 1);

    if (unlikely(info->limit))
        fifo_push(mmu, &info->exec_fifo, supervisor, index, exec_drop);
    mmu->exec[supervisor][index] = (struct tlb_exec_entry){ gva & PAGE_MASK, host, translation->gpa };
    info->exec[supervisor][index] = info_word(translation);
    slot_mark(info->exec_local[supervisor], info->exec_global[supervisor], index, translation->global);
    if (translation->size_code != PAGE_4K)
        filter_add(translation->global ? &info->large_global : &info->large_local, gva, translation->size_code);
    filter_add(translation->global ? &info->executed_global : &info->executed_local, gva, translation->size_code);
    if (!translation->global)
        filter_add(&info->executed_kept, gva, translation->size_code);
    mmu->stats.l1_fills++;
}

/* ---- Flushes ---- */

static void bitmap_drop(struct mmu *mmu, uint64_t *bitmap, unsigned words, unsigned array,
                        void (*clear)(struct mmu *mmu, unsigned array, unsigned index))
{
    for (unsigned word = 0; word < words; word++) {
        for (uint64_t left = bitmap[word]; left; left &= left - 1)
            clear(mmu, array, word * 64 + (unsigned)__builtin_ctzll(left));
        bitmap[word] = 0;
    }
}

void tlb_flush_local(struct mmu *mmu)
{
    struct tlb_info *info = mmu->info;
    mmu->data_generation++;

    for (unsigned array = 0; array < TLB_ARRAYS; array++)
        bitmap_drop(mmu, info->data_local[array], MMU_L1_SIZE / 64, array, data_clear);
    for (unsigned array = 0; array < TLB_EXEC_ARRAYS; array++)
        bitmap_drop(mmu, info->exec_local[array], MMU_L1_EXEC_SIZE / 64, array, exec_clear);
    info->large_local = (struct page_filter){ 0 };
    info->executed_local = (struct page_filter){ 0 };
    mmu->exec_generation++;
}

void tlb_flush_all(struct mmu *mmu)
{
    struct tlb_info *info = mmu->info;

    tlb_flush_local(mmu);
    for (unsigned array = 0; array < TLB_ARRAYS; array++)
        bitmap_drop(mmu, info->data_global[array], MMU_L1_SIZE / 64, array, data_clear);
    for (unsigned array = 0; array < TLB_EXEC_ARRAYS; array++)
        bitmap_drop(mmu, info->exec_global[array], MMU_L1_EXEC_SIZE / 64, array, exec_clear);
    info->large_global = (struct page_filter){ 0 };
    info->executed_global = (struct page_filter){ 0 };
    info->executed_kept = (struct page_filter){ 0 };
    mmu->exec_global_generation++;
    mmu->exec_space_generation++;
    info->pkeys = 0;
    info->data_fifo.count = info->exec_fifo.count = 0;
}

/* ---- One page ---- */

/* Every valid entry whose page, of whatever size, holds gva (design 6a.11). */
static void data_drop_large(struct mmu *mmu, gva_t gva)
{
    struct tlb_info *info = mmu->info;

    for (unsigned array = 0; array < TLB_ARRAYS; array++) {
        for (unsigned word = 0; word < MMU_L1_SIZE / 64; word++) {
            uint64_t left = info->data_local[array][word] | info->data_global[array][word];
            for (; left; left &= left - 1) {
                unsigned index = word * 64 + (unsigned)__builtin_ctzll(left);
                unsigned shift = page_size_shift(info_size_code(info->data[array][index]));
                if ((data_gva(mmu, array, index) ^ gva) >> shift == 0)
                    data_drop(mmu, array, index);
            }
        }
    }
}

static void exec_drop_large(struct mmu *mmu, gva_t gva)
{
    struct tlb_info *info = mmu->info;

    for (unsigned array = 0; array < TLB_EXEC_ARRAYS; array++) {
        for (unsigned word = 0; word < MMU_L1_EXEC_SIZE / 64; word++) {
            uint64_t left = info->exec_local[array][word] | info->exec_global[array][word];
            for (; left; left &= left - 1) {
                unsigned index = word * 64 + (unsigned)__builtin_ctzll(left);
                unsigned shift = page_size_shift(info_size_code(info->exec[array][index]));
                if ((mmu->exec[array][index].tag ^ gva) >> shift == 0)
                    exec_drop(mmu, array, index);
            }
        }
    }
}

void tlb_invalidate_page(struct mmu *mmu, gva_t gva)
{
    struct tlb_info *info = mmu->info;
    unsigned index = mmu_l1_index(gva), exec_index = gva >> PAGE_SHIFT & (MMU_L1_EXEC_SIZE - 1);
    gva_t page = gva & PAGE_MASK;
    mmu->data_generation++;

    for (unsigned array = 0; array < TLB_ARRAYS; array++)
        if (mmu->l1[array][index].tag_r == page || mmu->l1[array][index].tag_w == page)
            data_drop(mmu, array, index);
    for (unsigned array = 0; array < TLB_EXEC_ARRAYS; array++)
        if (mmu->exec[array][exec_index].tag == page)
            exec_drop(mmu, array, exec_index);
    if (filter_test(&info->large_local, gva, PAGE_2M) || filter_test(&info->large_global, gva, PAGE_2M)) {
        data_drop_large(mmu, gva);
        exec_drop_large(mmu, gva);
    }
    if (filter_test(&info->executed_local, gva, PAGE_4K) || filter_test(&info->executed_global, gva, PAGE_4K))
        mmu->exec_generation++;
    if (filter_test(&info->executed_global, gva, PAGE_4K))
        mmu->exec_global_generation++;
    tlb_note_invalidated(mmu, gva);
}

void tlb_note_invalidated(struct mmu *mmu, gva_t gva)
{
    struct tlb_info *info = mmu->info;

    if (!filter_test(&info->executed_kept, gva, PAGE_4K))
        return;
    info->executed_kept = (struct page_filter){ 0 };
    mmu->exec_space_generation++;
}

bool mmu_exec_is_global(const struct mmu *mmu, gva_t gva)
{
    unsigned index = gva >> PAGE_SHIFT & (MMU_L1_EXEC_SIZE - 1);

    return mmu->exec[1][index].tag == (gva & PAGE_MASK) && (mmu->info->exec_global[1][index >> 6] >> (index & 63) & 1);
}

/* ---- By other properties ---- */

void tlb_drop_pkeys(struct mmu *mmu, uint32_t pkeys)
{
    struct tlb_info *info = mmu->info;

    if (!(info->pkeys & pkeys))
        return;
    mmu->data_generation++;
    for (unsigned array = 0; array < TLB_ARRAYS; array++) {
        for (unsigned word = 0; word < MMU_L1_SIZE / 64; word++) {
            uint64_t left = info->data_local[array][word] | info->data_global[array][word];
            for (; left; left &= left - 1) {
                unsigned index = word * 64 + (unsigned)__builtin_ctzll(left);
                unsigned pkey = (info->data[array][index] & TLB_PKEY_MASK) >> TLB_PKEY_SHIFT;
                if (pkeys >> pkey & 1)
                    data_drop(mmu, array, index);
            }
        }
    }
    info->pkeys &= ~pkeys;
}

static void data_drop_write(struct mmu *mmu, unsigned array, unsigned index)
{
    mmu->l1[array][index].tag_w = mmu_invalid_tag(index);
    mmu->l1[array][index].host_w = mmu->no_access_page;
}

void tlb_drop_write_tags(struct mmu *mmu, gpa_t page)
{
    struct tlb_info *info = mmu->info;
    mmu->data_generation++;

    page &= TLB_GPA_MASK;
    for (unsigned array = 0; array < TLB_ARRAYS; array++) {
        for (unsigned word = 0; word < MMU_L1_SIZE / 64; word++) {
            uint64_t left = info->data_local[array][word] | info->data_global[array][word];
            for (; left; left &= left - 1) {
                unsigned index = word * 64 + (unsigned)__builtin_ctzll(left);
                if ((info->data[array][index] & TLB_GPA_MASK) == page)
                    data_drop_write(mmu, array, index);
            }
        }
    }
}

void tlb_drop_all_write_tags(struct mmu *mmu)
{
    mmu->data_generation++;
    for (unsigned array = 0; array < TLB_ARRAYS; array++)
        for (unsigned index = 0; index < MMU_L1_SIZE; index++)
            data_drop_write(mmu, array, index);
}

int tlb_init(struct mmu *mmu, struct error *err)
{
    void *page = mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const char *limit = getenv("EIDOLON_L1_ENTRIES");

    mmu->no_access_page = page == MAP_FAILED ? NULL : page;
    mmu->info = calloc(1, sizeof(*mmu->info));
    if (!mmu->no_access_page || !mmu->info)
        return error_set(err, ENOMEM, "out of memory for the TLB");
    pthread_mutex_init(&mmu->info->pending_lock, NULL);
    for (unsigned array = 0; array < TLB_ARRAYS; array++)
        for (unsigned index = 0; index < MMU_L1_SIZE; index++)
            data_clear(mmu, array, index);
    for (unsigned array = 0; array < TLB_EXEC_ARRAYS; array++)
        for (unsigned index = 0; index < MMU_L1_EXEC_SIZE; index++)
            exec_clear(mmu, array, index);
    if (limit) {
        char *end;
        unsigned long entries = strtoul(limit, &end, 10);
        if (end == limit || *end || *limit == '-')
            log_warn("EIDOLON_L1_ENTRIES=%s: not a number of entries: ignored", limit);
        else
            mmu_set_l1_limit(mmu, (unsigned)MIN(entries, (unsigned long)TLB_LIMIT_MAX));
    }
    return 0;
}

void tlb_destroy(struct mmu *mmu)
{
    if (mmu->info)
        pthread_mutex_destroy(&mmu->info->pending_lock);
    if (mmu->no_access_page)
        munmap(mmu->no_access_page, PAGE_SIZE);
    free(mmu->info);
    mmu->info = NULL;
    mmu->no_access_page = NULL;
}
