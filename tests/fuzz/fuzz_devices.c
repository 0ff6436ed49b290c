/* A guest, a host and a user that do anything to the machine, but for CPUs: see board_rig.c. Nothing may crash,
 * hang, leak or leave timers behind, and the interrupt controllers' outputs agree with their registers. */
#include "tests/fuzz/board_rig.h"

#include "base/log.h"

#define MAX_OPERATIONS 512

void fuzz_setup(void)
{
    log_mask = 1u << LOG_guest_errors | 1u << LOG_unimp | 1u << LOG_device;
}

void fuzz_one(struct fuzz_input input)
{
    struct board_rig rig;

    board_rig_create(&rig);
    for (unsigned i = 0; i < MAX_OPERATIONS && input.size; i++) {
        board_rig_operation(&rig, &input);
        if (i % 16 == 15)
            board_rig_check(&rig);
    }
    board_rig_check(&rig);
    board_rig_destroy(&rig);
}

/* Each kind of operation in turn, with noise for its operands; the first seeds have few, the later ones more. */
bool fuzz_make_seed(unsigned n, struct fuzz_seed *seed)
{
    uint64_t random = n;

    if (n >= 48)
        return false;
    for (unsigned i = 0; i < 8 + n * 8; i++) {
        uint64_t r = fuzz_random(&random), value = fuzz_random(&random);

        fuzz_add_u8(seed, n < 16 ? (uint8_t)(n | (r & 0xf0)) : (uint8_t)r);
        fuzz_add(seed, &value, (r >> 8) % 9);
    }
    return true;
}
