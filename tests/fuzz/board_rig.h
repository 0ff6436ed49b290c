/* A q35 board without CPUs, driven by bytes: see board_rig.c. */
#ifndef EIDOLON_TESTS_FUZZ_BOARD_RIG_H
#define EIDOLON_TESTS_FUZZ_BOARD_RIG_H

#include "devices/board/machine.h"
#include "tests/fuzz/fuzz.h"

#define BOARD_CPUS 3
#define BOARD_RAM  (4 * MIB)

struct board_rig_cpu {
    bool intr;
    unsigned signals;
};

struct board_rig {
    struct clock clock;
    struct event_loop *loop;
    struct physmem *mem;
    struct port_space *ports;
    struct chardev *chardevs[3];
    struct board *board;
    struct board_rig_cpu cpus[BOARD_CPUS];
    void *cpu_handles[BOARD_CPUS];
    bool reset_requested;
    unsigned added; /* devices that -device has made */
};

void board_rig_create(struct board_rig *rig);
void board_rig_destroy(struct board_rig *rig);
/* One operation on the machine, taken from the input. */
void board_rig_operation(struct board_rig *rig, struct fuzz_input *input);
/* What must hold between operations. */
void board_rig_check(struct board_rig *rig);
/* The devices that have state to save: number n, or NULL. */
struct device *board_rig_stateful(struct board_rig *rig, unsigned n);
/* Saves the state, changes bytes of it as the input says, and loads it: whether that is accepted or not, the
 * machine must go on. Without changes it must be accepted and come out the same. */
void board_rig_reload(struct device *device, struct fuzz_input *input, unsigned changes);

#endif
