/* A board without CPUs, for tests: what it asks of the frontend and of a CPU is counted or dropped. Included by one file of a program. */
#ifndef EIDOLON_TESTS_PCI_BOARD_RIG_H
#define EIDOLON_TESTS_PCI_BOARD_RIG_H

#include "devices/board/machine.h"

#include <criterion/criterion.h>

static struct clock machine_clock;
static struct event_loop *loop;
static struct physmem *mem;
static struct port_space *ports;
static struct board *board;
static unsigned resets, shutdowns, exits;
static int cpu_tokens[2];
static void *cpus[2] = { &cpu_tokens[0], &cpu_tokens[1] };

static void on_reset(void *opaque)
{
    (void)opaque;
    resets++;
}

static void on_shutdown(void *opaque)
{
    (void)opaque;
    shutdowns++;
}

static void on_exit_request(void *opaque, int status)
{
    (void)opaque, (void)status;
    exits++;
}

static void on_a20(void *opaque, bool enabled)
{
    (void)opaque, (void)enabled;
}

static void cpu_intr(void *cpu, bool level)
{
    (void)cpu, (void)level;
}

static void cpu_signal(void *cpu)
{
    (void)cpu;
}

static void cpu_sipi(void *cpu, uint8_t vector)
{
    (void)cpu, (void)vector;
}

static const struct machine_ops machine_ops = {
    .request_reset = on_reset,
    .request_shutdown = on_shutdown,
    .request_exit = on_exit_request,
    .set_a20 = on_a20,
};
static const struct board_cpu_ops cpu_ops = {
    .set_intr = cpu_intr,
    .nmi = cpu_signal,
    .init = cpu_signal,
    .sipi = cpu_sipi,
    .smi = cpu_signal,
};

typedef struct board *board_create_fn(struct event_loop *loop, struct clock *clock, struct physmem *mem,
                                      struct port_space *ports, const struct board_config *config,
                                      const struct machine_ops *machine, void *machine_opaque, struct error *err);

/* The device lock is held from here to teardown(). */
static void create_board(board_create_fn *create_fn, const struct board_config *config)
{
    struct error err = { 0 };

    resets = shutdowns = exits = 0;
    clock_init(&machine_clock);
    loop = event_loop_create(&machine_clock, &err);
    cr_assert_not_null(loop, "%s", err.text);
    event_loop_lock(loop);
    mem = physmem_create(config->ram_size, event_loop_mutex(loop), &err);
    ports = port_space_create(event_loop_mutex(loop));
    board = create_fn(loop, &machine_clock, mem, ports, config, &machine_ops, NULL, &err);
    cr_assert_not_null(board, "%s", err.text);
}

static void teardown(void)
{
    board_destroy(board);
    port_space_destroy(ports);
    physmem_destroy(mem);
    event_loop_unlock(loop);
    event_loop_destroy(loop);
}

static uint32_t config_read(uint8_t devfn, unsigned offset, unsigned size)
{
    port_space_write(ports, 0xcf8, 4, 0x80000000u | devfn << 8 | (offset & 0xfc));
    return port_space_read(ports, 0xcfc + (offset & 3), size);
}

static void config_write(uint8_t devfn, unsigned offset, unsigned size, uint32_t value)
{
    port_space_write(ports, 0xcf8, 4, 0x80000000u | devfn << 8 | (offset & 0xfc));
    port_space_write(ports, 0xcfc + (offset & 3), size, value);
}

#endif
