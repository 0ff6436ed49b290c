/* Builds and tears down a virtual machine. Order: clock, loop, memory and ports, files (so that user mistakes are found
 * before the terminal changes), CPUs, terminal and serial back ends, board, devices. Main thread. */
#include "frontend/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/block.h"
#include "devices/fs/fsdev.h"
#include "devices/irq/lapic.h"
#include "devices/core/object.h"
#include "devices/net/net.h"
#include "frontend/crash.h"
#include "frontend/terminal.h"
#include "frontend/vm_internal.h"
#include "jit/jit.h"
#include "jit/jit_tools.h"

#define GUEST_PHYSICAL_BITS 40

static int create_base(struct vm *vm, struct error *err)
{
    pthread_mutex_t *lock;

    clock_begin(&vm->clock);
    vm->loop = event_loop_create(&vm->clock, err);
    if (!vm->loop)
        return -ENOMEM;
    lock = event_loop_mutex(vm->loop);
    vm->mem = physmem_create(vm->settings->ram_size, lock, err);
    if (!vm->mem)
        return error_prefix(err, -ENOMEM, "-m %lluM", (unsigned long long)(vm->settings->ram_size / MIB));
    vm->ports = port_space_create(lock);
    if (!vm->ports)
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

static int load_image(struct vm *vm, struct error *err)
{
    const struct settings *settings = vm->settings;
    uint64_t low = MIN(settings->ram_size, Q35_LOW_RAM_MAX);
    struct boot_config config = {
        .kernel = settings->kernel,
        .initrd = settings->initrd,
        .append = settings->append,
        .low_ram = low,
        .high_ram = settings->ram_size - low,
        .cpu_count = vm->cpu_count,
        .i440fx = settings->machine_i440fx,
        .texts = &settings->smbios,
    };

    if (!settings->kernel || settings->bios)
        return 0;
    memcpy(config.uuid, settings->uuid, sizeof(config.uuid));
    vm->image = boot_image_load(&config, err);
    return vm->image ? 0 : -EINVAL;
}

static int create_objects(struct vm *vm, struct error *err)
{
    vm->objects = object_registry_create(vm->loop, err);
    if (!vm->objects)
        return -ENOMEM;
    for (size_t i = 0; i < vm->settings->objects.count; i++) {
        const char *object = vm->settings->objects.items[i];
        int ret = object_add(vm->objects, object, err);

        if (ret)
            return error_prefix(err, ret, "-object %s", object);
    }
    return 0;
}

static int create_cpus(struct vm *vm, struct error *err)
{
    clock_calibrate(&vm->clock); /* the kernel was read meanwhile */
    vm->model = cpuid_model_create(vm->settings->cpu_model, &vm->clock, GUEST_PHYSICAL_BITS, vm->cpu_count, err);
    if (!vm->model)
        return error_prefix(err, -EINVAL, "-cpu %s", vm->settings->cpu_model);
    uint64_t ram = vm->settings->ram_size, low = MIN(ram, Q35_LOW_RAM_MAX);
    if (ram > low && 4 * GIB + ram - low > BIT(cpuid_model_physical_bits(vm->model)))
        return error_set(err, EINVAL, "-m: more memory than the CPU model's %u physical address bits reach",
                         cpuid_model_physical_bits(vm->model));
    vm->vcpus = calloc(vm->cpu_count, sizeof(*vm->vcpus));
    vm->cpu_handles = calloc(vm->cpu_count, sizeof(*vm->cpu_handles));
    if (!vm->vcpus || !vm->cpu_handles)
        return error_set(err, ENOMEM, "out of memory");
    const struct settings *settings = vm->settings;
    vm->tools = jit_tools_create(&(struct jit_tools_config){ .kernel = settings->kernel,
                                                             .symbols = settings->symbols,
                                                             .perf_map = settings->perf_map,
                                                             .jitdump = settings->jitdump },
                                 err);
    if (!vm->tools)
        return -EINVAL;
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        struct cpu *cpu = cpu_create(i, vm->model, vm->engine, vm->mem, vm->ports, &vm->clock, err);

        if (!cpu)
            return -ENOMEM;
        jit_set_tools(cpu, vm->tools);
        vm->vcpus[i] = (struct vcpu){ .vm = vm, .cpu = cpu };
        vm->cpu_handles[i] = cpu;
    }
    return 0;
}

static bool start_interrupted(void *opaque)
{
    (void)opaque;
    return termination_signal() != 0;
}

static int create_chardevs(struct vm *vm, struct error *err)
{
    const struct chardev_terminal terminal = {
        .enter_raw = terminal_enter_raw,
        .leave_raw = terminal_leave_raw,
        .quit = vm_quit_from_terminal,
        .interrupted = start_interrupted,
        .opaque = vm,
    };
    const struct settings *settings = vm->settings;

    vm->chardevs = chardev_registry_create(vm->loop, &terminal, err);
    if (!vm->chardevs)
        return -ENOMEM;
    chardev_registry_set_escape(vm->chardevs, settings->escape_key);
    for (size_t i = 0; i < settings->chardevs.count; i++) {
        const char *option = settings->chardevs.items[i];
        int ret = chardev_add(vm->chardevs, option, err);

        if (ret)
            return error_prefix(err, ret, "-chardev %s", option);
    }
    for (unsigned i = 0; i < SERIAL_PORTS; i++) {
        const char *spec = settings->serial_ports[i];
        char user[16];

        if (!spec)
            continue;
        snprintf(user, sizeof(user), "serial%u", i);
        vm->serial[i] = chardev_open_legacy(vm->chardevs, user, spec, err);
        if (!vm->serial[i])
            return error_prefix(err, -EINVAL, "-serial %s", spec);
    }
    if (settings->debugcon) {
        vm->debugcon = chardev_open_legacy(vm->chardevs, "debugcon", settings->debugcon, err);
        if (!vm->debugcon)
            return error_prefix(err, -EINVAL, "-debugcon %s", settings->debugcon);
    }
    return 0;
}

static int create_fsdevs(struct vm *vm, struct error *err)
{
    vm->fsdevs = fsdev_registry_create(err);
    if (!vm->fsdevs)
        return -ENOMEM;
    for (size_t i = 0; i < vm->settings->fsdevs.count; i++) {
        const char *option = vm->settings->fsdevs.items[i];
        int ret = fsdev_add(vm->fsdevs, option, err);

        if (ret)
            return error_prefix(err, ret, "-fsdev %s", option);
    }
    return 0;
}

/* Before the CPUs and the terminal: mistakes in file names are the most common of all. */
static int open_blocks(struct vm *vm, struct error *err)
{
    int ret;

    vm->blocks = block_registry_create(vm->loop, err);
    if (!vm->blocks)
        return -ENOMEM;
    /* AHCI: each port is a bus; the PIIX's channels have two drives. */
    block_registry_set_bus_units(vm->blocks, BLOCK_IF_IDE, vm->settings->machine_i440fx ? 2 : 1);
    block_registry_set_stop_handler(vm->blocks, vm_stop_on_error, vm);
    ret = settings_open_blocks(vm->settings, vm->blocks, err);
    return ret ? ret : continuation_watch(vm->loop, vm_continue_after_error, vm, err);
}

static int create_networks(struct vm *vm, struct error *err)
{
    vm->nets = net_registry_create(vm->loop, err);
    return vm->nets ? settings_create_networks(vm->settings, vm->nets, err) : -ENOMEM;
}

/* The cards of -nic and -net come before the devices of -device, as in QEMU. */
static int add_cards(struct vm *vm, struct error *err)
{
    const char *device;

    vm->board->env.nets = vm->nets;
    while ((device = net_next_device(vm->nets))) {
        int ret = board_add_device(vm->board, device, err);

        if (ret)
            return error_prefix(err, ret, "-nic: %s", device);
    }
    return 0;
}

static int add_devices(struct vm *vm, struct error *err)
{
    struct device_env *env = &vm->board->env;

    env->blocks = vm->blocks;
    env->chardevs = vm->chardevs;
    env->fsdevs = vm->fsdevs;
    env->objects = vm->objects;
    int ret = add_cards(vm, err);
    if (ret)
        return ret;
    for (size_t i = 0; i < vm->settings->devices.count; i++) {
        const char *device = vm->settings->devices.items[i];

        ret = board_add_device(vm->board, device, err);
        if (ret)
            return error_prefix(err, ret, "-device %s", device);
    }
    net_registry_check(vm->nets);
    ret = board_add_drives(vm->board, err);
    return ret ?: board_collect_boot_order(vm->board, err);
}

static int create_board(struct vm *vm, struct error *err)
{
    struct board_config config = {
        .ram_size = vm->settings->ram_size,
        .cpu_count = vm->cpu_count,
        .debugcon = vm->debugcon,
        .debugcon_port = vm->settings->debugcon_port,
        .cpu_ops = &vm_board_cpu_ops,
        .cpus = vm->cpu_handles,
        .rtc_base_ns = (int64_t)clock_wall_ns() + vm->settings->rtc_offset_ns,
        .firmware = vm->firmware,
        .acpi_moved = vm_acpi_moved,
    };

    memcpy(config.serial, vm->serial, sizeof(config.serial));
    memcpy(config.uuid, vm->settings->uuid, sizeof(config.uuid));
    vm->board = (vm->settings->machine_i440fx ? board_create_i440fx : board_create_q35)(
        vm->loop, &vm->clock, vm->mem, vm->ports, &config, &vm_machine_ops, vm, err);
    if (!vm->board)
        return -EINVAL;
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        lapic_set_features(vm->board->lapics[i], cpuid_model_physical_bits(vm->model),
                           cpuid_model_has(vm->model, FEATURE_X2APIC),
                           cpuid_model_has(vm->model, FEATURE_TSC_DEADLINE));
        cpu_set_apic(vm->vcpus[i].cpu, vm->board->lapics[i], &vm_cpu_apic_ops);
    }
    int ret = add_devices(vm, err);
    ret = ret ?: vm_load_firmware(vm, err);
    if (ret)
        return ret;
    board_reset(vm->board);
    return vm_describe_machine(vm, err);
}

struct vm *vm_create(struct settings *settings, struct error *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    int ret;

    if (!vm) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    vm->settings = settings;
    vm->firmware = !settings->kernel || settings->bios;
    vm->cpu_count = settings->cpu_count;
    pthread_mutex_init(&vm->run_lock, NULL);
    pthread_cond_init(&vm->run_cond, NULL);

    ret = settings_choose_engine(settings, &vm->engine, err);
    if (!ret)
        ret = create_base(vm, err);
    if (!ret)
        ret = load_image(vm, err);
    if (!ret)
        ret = open_blocks(vm, err);
    if (!ret)
        ret = create_networks(vm, err);
    if (!ret)
        ret = create_fsdevs(vm, err);
    if (!ret)
        ret = create_cpus(vm, err);
    if (!ret)
        ret = terminal_watch_job_control(vm->loop, err);
    if (!ret) {
        termination_install(vm->loop);
        ret = create_chardevs(vm, err);
    }
    if (!ret)
        ret = create_objects(vm, err);
    if (!ret)
        ret = create_board(vm, err);
    if (!ret)
        ret = vm_start_boot(vm, err);
    if (ret) {
        vm_destroy(vm);
        return NULL;
    }
    return vm;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    termination_remove(); /* it points at the loop */
    if (vm->board)
        board_destroy(vm->board);
    block_registry_destroy(vm->blocks); /* before the memory that requests point to */
    net_registry_destroy(vm->nets); /* the cards are gone */
    for (unsigned i = 0; vm->vcpus && i < vm->cpu_count; i++) {
        if (vm->vcpus[i].cpu)
            cpu_destroy(vm->vcpus[i].cpu);
    }
    jit_tools_destroy(vm->tools);
    chardev_registry_destroy(vm->chardevs);
    fsdev_registry_destroy(vm->fsdevs);
    if (vm->model)
        cpuid_model_destroy(vm->model);
    if (vm->image)
        boot_image_destroy(vm->image);
    if (vm->ports)
        port_space_destroy(vm->ports);
    object_registry_destroy(vm->objects);
    if (vm->mem)
        physmem_destroy(vm->mem);
    event_loop_destroy(vm->loop);
    pthread_cond_destroy(&vm->run_cond);
    pthread_mutex_destroy(&vm->run_lock);
    free(vm->cpu_handles);
    free(vm->vcpus);
    free(vm);
}
