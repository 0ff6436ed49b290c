/* Saved states of any content, loaded into every device and into a CPU: refused with a message, or accepted, and
 * then the machine runs on.
 *
 * Input: u8 which device (from CPU on: the CPU), u8 how; how & 1: the rest is the whole buffer; else how >> 1
 * changes to a valid one, and operations. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tests/fuzz/board_rig.h"
#include "tests/fuzz/cpu_rig.h"

#define MAX_OPERATIONS 64
#define CPU_STEPS      32
#define CPU            0xb0

void fuzz_setup(void)
{
    log_mask = 1u << LOG_guest_errors | 1u << LOG_device;
}

/* The input is all there is in the buffer, allocated in its exact size. */
static void load_raw(const struct state_table *table, void *owner, struct fuzz_input input)
{
    struct state_buffer buffer = { .data = malloc(input.size ? input.size : 1),
                                   .size = input.size,
                                   .capacity = input.size };
    struct error err = { "" };

    if (input.size)
        memcpy(buffer.data, input.data, input.size);
    if (state_load(&buffer, table, owner, &err))
        FUZZ_CHECK(err.text[0]);
    FUZZ_CHECK(buffer.position <= buffer.size);
    state_buffer_free(&buffer);
}

static void try_device(uint8_t which, struct fuzz_input input)
{
    uint8_t how = fuzz_u8(&input);
    struct board_rig rig;
    struct device *device;

    board_rig_create(&rig);
    device = board_rig_stateful(&rig, which % 16);
    if (device && how & 1) {
        load_raw(device->type->state, device, input);
        input.size = 0;
    } else if (device) {
        board_rig_reload(device, &input, how >> 1);
    }
    for (unsigned i = 0; i < MAX_OPERATIONS && input.size; i++)
        board_rig_operation(&rig, &input);
    board_rig_destroy(&rig);
}

static void try_cpu(struct fuzz_input input)
{
    uint8_t how = fuzz_u8(&input);
    struct cpu_rig *rig = cpu_rig_get(0, false);
    struct state_buffer buffer = { 0 };
    struct error err = { "" };

    cpu_rig_start(rig, &(struct cpu_rig_setup){ .mode = (how >> 5) % CPU_RIG_MODES, .cr4 = CR4_OSFXSR });
    if (how & 1) {
        load_raw(&cpu_state_table, rig->cpu, input);
    } else {
        fuzz_need(state_save(&buffer, &cpu_state_table, rig->cpu, &err) == 0, &err);
        for (unsigned i = 0; i < how >> 1; i++) {
            size_t at = fuzz_u16(&input) % buffer.size;

            buffer.data[at] = fuzz_u8(&input);
        }
        if (state_load(&buffer, &cpu_state_table, rig->cpu, &err))
            FUZZ_CHECK(err.text[0]);
        state_buffer_free(&buffer);
    }
    for (unsigned i = 0; i < CPU_STEPS; i++)
        cpu_rig_step(rig);
}

void fuzz_one(struct fuzz_input input)
{
    uint8_t which = fuzz_u8(&input);

    if (which >= CPU)
        try_cpu(input);
    else
        try_device(which, input);
}

/* ---- Seeds: a whole valid state of each, and changes ---- */

static void add_whole(struct fuzz_seed *seed, const struct state_table *table, void *owner)
{
    struct state_buffer buffer = { 0 };
    struct error err;

    fuzz_need(state_save(&buffer, table, owner, &err) == 0, &err);
    fuzz_add_u8(seed, 1);
    fuzz_add(seed, buffer.data, buffer.size);
    state_buffer_free(&buffer);
}

static void add_changes(struct fuzz_seed *seed, uint64_t random)
{
    unsigned changes = 1 + fuzz_random(&random) % 32;

    fuzz_add_u8(seed, (uint8_t)(changes << 1));
    for (unsigned i = 0; i < changes * 3 + 64; i++)
        fuzz_add_u8(seed, (uint8_t)fuzz_random(&random));
}

#define SEEDS_EACH 4
#define CPU_SEEDS  32

static bool make_cpu_seed(unsigned n, struct fuzz_seed *seed)
{
    fuzz_add_u8(seed, CPU);
    if (n) {
        add_changes(seed, n);
    } else {
        cpu_rig_start(cpu_rig_get(0, false), &(struct cpu_rig_setup){ .mode = CPU_LONG });
        add_whole(seed, &cpu_state_table, cpu_rig_get(0, false)->cpu);
    }
    return n < CPU_SEEDS;
}

bool fuzz_make_seed(unsigned n, struct fuzz_seed *seed)
{
    struct board_rig rig;
    struct device *device;

    if (n < CPU_SEEDS)
        return make_cpu_seed(n, seed);
    n -= CPU_SEEDS;
    board_rig_create(&rig);
    device = board_rig_stateful(&rig, n / SEEDS_EACH);
    if (device) {
        fuzz_add_u8(seed, (uint8_t)(n / SEEDS_EACH));
        if (n % SEEDS_EACH)
            add_changes(seed, n);
        else
            add_whole(seed, device->type->state, device);
    }
    board_rig_destroy(&rig);
    return device != NULL;
}
