/* Running a machine: one thread for each vCPU, the event loop on the main thread, and what stops them: reset, power-off,
 * exit requests, triple faults.
 *
 * Requests come from any thread (devices, with the device lock held, on a vCPU's thread). They set a bit, tell the
 * vCPUs to leave the engine, and are acted upon by the loop's thread, which parks all vCPUs first. Parking
 * gives up the device lock while it waits, because a vCPU may be waiting for it on its way out. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "devices/block/block.h"
#include "frontend/boot_cpu.h"
#include "frontend/crash.h"
#include "frontend/vm_internal.h"

/* ---- vCPU threads ---- */

static void request(struct vm *vm, enum vm_request what);

/* Waits until the machine runs. False: it is quitting. */
static bool vcpu_wait_to_run(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    bool go;

    pthread_mutex_lock(&vm->run_lock);
    while (!vm->running && !vm->quitting) {
        vcpu->parked = true;
        pthread_cond_broadcast(&vm->run_cond);
        pthread_cond_wait(&vm->run_cond, &vm->run_lock);
    }
    go = !vm->quitting;
    vcpu->parked = !go;
    if (!go)
        pthread_cond_broadcast(&vm->run_cond);
    pthread_mutex_unlock(&vm->run_lock);
    return go;
}

/* After a request of its own, a vCPU has nothing to do until the loop has acted on it: it stays out of the engine. */
static void vcpu_wait_for_loop(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    uint64_t seen;

    pthread_mutex_lock(&vm->run_lock);
    seen = vm->resumptions; /* a count, so that a quick pause and resume is not missed */
    vcpu->parked = true;
    pthread_cond_broadcast(&vm->run_cond);
    while (vm->resumptions == seen && !vm->quitting)
        pthread_cond_wait(&vm->run_cond, &vm->run_lock);
    pthread_mutex_unlock(&vm->run_lock);
}

static void *vcpu_main(void *opaque)
{
    struct vcpu *vcpu = opaque;
    void *signal_stack = crash_thread_enter();

    while (vcpu_wait_to_run(vcpu)) {
        switch (cpu_run(vcpu->cpu)) {
        case CPU_EXIT_STOPPED:
            break;
        case CPU_EXIT_TRIPLE_FAULT:
            log_event(cpu_reset, "cpu%u: triple fault\n", vcpu->cpu->index);
            if (log_enabled(LOG_cpu_reset))
                cpu_log_state(vcpu->cpu, LOG_cpu_reset);
            request(vcpu->vm, VM_REQUEST_RESET);
            vcpu_wait_for_loop(vcpu);
            break;
        case CPU_EXIT_ERROR:
            atomic_store(&vcpu->vm->exit_status, 1);
            request(vcpu->vm, VM_REQUEST_EXIT);
            vcpu_wait_for_loop(vcpu);
            break;
        }
    }
    crash_thread_leave(signal_stack);
    return NULL;
}

static int start_threads(struct vm *vm, struct error *err)
{
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        char name[16];
        int ret = thread_create_sheltered(&vm->vcpus[i].thread, vcpu_main, &vm->vcpus[i]);

        if (ret)
            return error_set(err, ret, "vCPU thread: %s", strerror(ret));
        vm->vcpus[i].started = true;
        if (vm->settings->name && vm->settings->debug_threads)
            snprintf(name, sizeof(name), "%.9s/cpu%u", vm->settings->name, i % 100);
        else
            snprintf(name, sizeof(name), "vcpu%u", i);
        pthread_setname_np(vm->vcpus[i].thread, name);
    }
    return 0;
}

static void kick_all(struct vm *vm)
{
    for (unsigned i = 0; i < vm->cpu_count; i++)
        cpu_event_set(vm->vcpus[i].cpu, CPU_EVENT_STOP);
}

/* Loop's thread. Returns with every vCPU outside its engine. */
static void pause_all(struct vm *vm)
{
    pthread_mutex_lock(&vm->run_lock);
    vm->running = false;
    pthread_cond_broadcast(&vm->run_cond);
    kick_all(vm);
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        while (vm->vcpus[i].started && !vm->vcpus[i].parked)
            pthread_cond_wait(&vm->run_cond, &vm->run_lock);
    }
    pthread_mutex_unlock(&vm->run_lock);
}

/* The same from a callback of the loop, which holds the device lock (once). */
static void pause_all_in_callback(struct vm *vm)
{
    event_loop_unlock(vm->loop);
    pause_all(vm);
    event_loop_lock(vm->loop);
}

static void resume_all(struct vm *vm)
{
    for (unsigned i = 0; i < vm->cpu_count; i++)
        cpu_event_clear(vm->vcpus[i].cpu, CPU_EVENT_STOP);
    pthread_mutex_lock(&vm->run_lock);
    vm->running = true;
    vm->resumptions++;
    pthread_cond_broadcast(&vm->run_cond);
    pthread_mutex_unlock(&vm->run_lock);
}

static void stop_threads(struct vm *vm)
{
    pthread_mutex_lock(&vm->run_lock);
    vm->quitting = true;
    pthread_cond_broadcast(&vm->run_cond);
    pthread_mutex_unlock(&vm->run_lock);
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        if (vm->vcpus[i].started)
            pthread_join(vm->vcpus[i].thread, NULL);
        vm->vcpus[i].started = false;
    }
}

/* ---- Reset, power, exit ---- */

int vm_start_boot(struct vm *vm, struct error *err)
{
    struct boot_cpu_state state = { 0 };
    int ret;

    if (vm->firmware)
        return 0;
    ret = boot_image_place(vm->image, vm->mem, &state, err);
    if (!ret) {
        boot_cpu_apply(vm->vcpus[0].cpu, &state);
        /* no firmware runs that would set them: RAM is write-back, from the PCI hole to 4 GiB uncached */
        cpu_set_firmware_mtrrs(vm->vcpus[0].cpu, Q35_LOW_RAM_MAX);
    }
    return ret;
}

static void do_reset(struct vm *vm)
{
    struct error err;

    if (vm->settings->no_reboot) {
        atomic_store(&vm->exit_status, 0);
        event_loop_stop(vm->loop);
        return;
    }
    for (unsigned i = 0; i < vm->cpu_count; i++)
        cpu_reset(vm->vcpus[i].cpu);
    board_reset(vm->board);
    vm_set_boot_order(vm, false);
    if (vm_start_boot(vm, &err)) {
        fprintf(stderr, "eidolon: reset: %s\n", err.text);
        atomic_store(&vm->exit_status, 1);
        event_loop_stop(vm->loop);
        return;
    }
    resume_all(vm);
}

/* Loop's thread, device lock held once. Exit beats power-off beats reset. */
static void act_on_requests(void *opaque)
{
    struct vm *vm = opaque;
    uint32_t requests = atomic_exchange(&vm->requests, 0);

    if (!requests)
        return;
    pause_all_in_callback(vm);
    requests |= atomic_exchange(&vm->requests, 0);
    if (requests & VM_REQUEST_EXIT) {
        event_loop_stop(vm->loop);
    } else if (requests & VM_REQUEST_SHUTDOWN) {
        if (!vm->settings->no_shutdown)
            event_loop_stop(vm->loop);
        /* else: stay as we are, paused, until the user quits */
    } else if (requests & VM_REQUEST_RESET) {
        atomic_store(&vm->stopped_by_error, false);
        do_reset(vm);
    } else if (!atomic_load(&vm->stopped_by_error)) {
        resume_all(vm); /* the user was faster */
    }
}

static void request(struct vm *vm, enum vm_request what)
{
    atomic_fetch_or(&vm->requests, what);
    kick_all(vm); /* not one guest instruction more than necessary */
    event_loop_post(vm->loop, act_on_requests, vm);
}

static void request_reset(void *opaque)
{
    request(opaque, VM_REQUEST_RESET);
}

static void request_shutdown(void *opaque)
{
    request(opaque, VM_REQUEST_SHUTDOWN);
}

static void request_exit(void *opaque, int status)
{
    struct vm *vm = opaque;

    atomic_store(&vm->exit_status, status);
    request(vm, VM_REQUEST_EXIT);
}

static void set_a20(void *opaque, bool enabled)
{
    struct vm *vm = opaque;

    if (vm->board) /* NULL: under construction, the gate is open */
        board_set_a20(vm->board, enabled);
}

const struct machine_ops vm_machine_ops = {
    .request_reset = request_reset,
    .request_shutdown = request_shutdown,
    .request_exit = request_exit,
    .set_a20 = set_a20,
};

/* ---- Errors of drives ---- */

void vm_stop_on_error(void *opaque, const char *reason)
{
    struct vm *vm = opaque;

    if (!atomic_exchange(&vm->stopped_by_error, true)) /* many requests fail at the same time */
        fprintf(stderr, "eidolon: %s: the machine is paused; kill -CONT %d goes on\n", reason, (int)getpid());
    request(vm, VM_REQUEST_STOP);
}

void vm_continue_after_error(void *opaque, int signum)
{
    struct vm *vm = opaque;

    (void)signum; /* SIGCONT */
    if (!atomic_exchange(&vm->stopped_by_error, false))
        return;
    block_registry_resume(vm->blocks);
    resume_all(vm);
}

void vm_quit_from_terminal(void *opaque)
{
    struct vm *vm = opaque;

    atomic_store(&vm->exit_status, 0);
    event_loop_stop(vm->loop);
}

int vm_run(struct vm *vm)
{
    struct error err;

    vm->start_ns = clock_host_ns();
    if (start_threads(vm, &err)) {
        fprintf(stderr, "eidolon: %s\n", err.text);
        atomic_store(&vm->exit_status, 1);
    } else {
        resume_all(vm);
        event_loop_run(vm->loop);
    }
    pause_all(vm);
    vm_print_stats(vm); /* before the threads and their CPU clocks are gone */
    stop_threads(vm);
    return atomic_load(&vm->exit_status);
}
