/* What vm.c (set-up), vm_run.c (threads, reset, power) and vm_cpu.c (CPU <-> board wiring) share. */
#ifndef EIDOLON_FRONTEND_VM_INTERNAL_H
#define EIDOLON_FRONTEND_VM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "cpu/cpu.h"
#include "devices/board/machine.h"
#include "firmware/boot.h"
#include "frontend/vm.h"

/* What the guest or a device asked for; bits of vm->requests. */
enum vm_request {
    VM_REQUEST_RESET = 1 << 0,
    VM_REQUEST_SHUTDOWN = 1 << 1,
    VM_REQUEST_EXIT = 1 << 2,
    VM_REQUEST_STOP = 1 << 3, /* a drive's error, werror=stop */
};

struct vcpu {
    struct vm *vm;
    struct cpu *cpu;
    pthread_t thread;
    bool started; /* thread exists */
    bool parked;  /* guarded by vm->run_lock: outside cpu_run */
};

struct vm {
    struct settings *settings;
    struct clock clock;
    struct event_loop *loop;
    struct physmem *mem;
    struct port_space *ports;
    struct object_registry *objects;
    struct cpuid_model *model;
    struct board *board;
    struct net_registry *nets;
    struct boot_image *image;
    struct block_registry *blocks;
    struct chardev_registry *chardevs;
    struct fsdev_registry *fsdevs;
    struct chardev *serial[SERIAL_PORTS], *debugcon; /* claimed in chardevs */
    const struct engine *engine;
    struct jit_tools *tools;
    unsigned cpu_count;
    bool firmware;    /* runs, from the reset vector; else `image` starts */
    uint16_t pm_base; /* that the ACPI tables in fw_cfg say; 0: there are none */
    struct vcpu *vcpus;
    void **cpu_handles; /* struct cpu *, by APIC id, for the board */

    _Atomic uint32_t requests; /* enum vm_request; set by any thread, taken by the loop's */
    _Atomic int exit_status;

    pthread_mutex_t run_lock;
    pthread_cond_t run_cond; /* running, quitting or a vcpu's parked has changed */
    bool running, quitting;  /* guarded by run_lock */
    atomic_bool stopped_by_error; /* of a drive, until the user goes on */
    uint64_t resumptions;    /* guarded by run_lock */
    uint64_t start_ns;
};

/* vm_cpu.c */
extern const struct board_cpu_ops vm_board_cpu_ops;
extern const struct cpu_apic_ops vm_cpu_apic_ops;

/* vm_run.c */
extern const struct machine_ops vm_machine_ops;
void vm_stop_on_error(void *opaque, const char *reason); /* any thread; SIGCONT goes on */
void vm_continue_after_error(void *opaque, int signum);
void vm_quit_from_terminal(void *opaque);
int vm_start_boot(struct vm *vm, struct error *err); /* places the kernel, sets the first CPU */

/* vm_firmware.c: puts the firmware in its place, if there is no kernel; offers it what it asks for (after all devices are there); before each reset of the
 * board but the first, `first` being false: what changes then. */
int vm_load_firmware(struct vm *vm, struct error *err);
int vm_describe_machine(struct vm *vm, struct error *err);
/* vm_kernel.c: -kernel, -initrd and -append for a firmware that starts the kernel itself. */
int vm_offer_kernel(struct vm *vm, struct error *err);
void vm_set_boot_order(struct vm *vm, bool first);
void vm_acpi_moved(void *opaque, uint16_t pm_base);

/* vm_stats.c */
void vm_print_stats(const struct vm *vm);

#endif
