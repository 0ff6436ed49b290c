/* The interpreter's cache of decoded blocks: per vCPU, keyed by guest-physical address and mode. */
#ifndef EIDOLON_CPU_INTERP_INTERP_BLOCK_H
#define EIDOLON_CPU_INTERP_INTERP_BLOCK_H

#include "cpu/interp/interp_internal.h"

#define BLOCK_MAX_OPS   32
#define BLOCK_MAX_BYTES 240

/* What decoding depends on besides the bytes:
 *   1:0 enum code_size   3:2 CPL   4 CS DS ES SS are flat (no limit checks)   5 protected mode, not virtual-8086 */
typedef uint8_t block_mode_t;
enum { BLOCK_MODE_FLAT = 1 << 4, BLOCK_MODE_PROTECTED = 1 << 5 };

struct block {
    struct block *next_by_address, *next_in_page; /* hash chains */
    gpa_t gpa;
    block_mode_t mode;
    uint8_t bytes, op_count;
    struct iop ops[]; /* op_count, then an end marker */
};

#define JUMP_CACHE_SIZE 4096
struct jump_entry {
    gva_t linear;
    uint64_t stamp; /* exec_generation + epoch when it was filled; 0: empty */
    struct block *block;
    block_mode_t mode;
};

/* The blocks of one guest-physical page. While there are any, the page is held (physmem_code_acquire). */
struct code_page {
    struct code_page *next; /* hash chain */
    gpa_t page;
    struct block *blocks;
};

/* Instructions that cross a page end depend on two pages: cached by linear address, with their bytes, which are
 * fetched and compared each time. */
#define CROSSING_CACHE_SIZE 256
struct crossing_entry {
    gva_t linear;
    block_mode_t mode;
    uint8_t bytes[INSN_MAX_LENGTH];
};

#define ADDRESS_BUCKETS 65536
#define PAGE_BUCKETS    16384

struct interp {
    struct cpu *cpu;
    uint64_t epoch; /* grows whenever a block is invalidated */
    struct jump_entry jump_cache[JUMP_CACHE_SIZE];
    struct block *by_address[ADDRESS_BUCKETS];
    struct code_page *pages[PAGE_BUCKETS];
    struct code_page *free_pages;
    /* Blocks and pages are cut from one arena and never freed singly; when it is full everything is dropped at the
     * next block boundary, when no block is running. */
    uint8_t *arena;
    size_t arena_size, arena_used;
    struct block *single;     /* room for one instruction: single steps, code outside RAM */
    uint8_t *crossing_blocks; /* CROSSING_CACHE_SIZE blocks of one instruction */
    struct crossing_entry crossing_cache[CROSSING_CACHE_SIZE];
};

#define SINGLE_BLOCK_SIZE (sizeof(struct block) + 2 * sizeof(struct iop))

/* The block at cpu_rip (exact). NULL with cpu->fault (#PF, #GP) if fetching faults. `single`: one instruction, not cached. */
struct block *interp_block_find(struct interp *interp, bool single);
void block_invalidate_range(struct interp *interp, gpa_t gpa, uint64_t size);
void block_invalidate_all(struct interp *interp);

/* End markers and stand-ins (interp.c). */
enum { STEP_BLOCK_END = STEP_EXIT + 1 };
iop_fn interp_op_block_end, interp_op_stale, interp_op_invalid, interp_op_too_long, interp_op_privileged;

#endif
