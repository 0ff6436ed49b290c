/* Delivery of exceptions, interrupts and software interrupts through the IDT, in real, protected and long mode.
 * SDM Vol. 3A chapter 6; 21.1.4 for real mode; Vol. 2A INT n.
 *
 * A delivery reads and checks everything, writes the stack frame in one piece, and only then changes the CPU: if
 * something faults on the way, nothing has happened and the fault is handled by the rules of table 6-5.
 *
 * Task gates wait for task switches (and virtual-8086 mode for its own issue): a task gate raises #GP(gate), which
 * keeps the chain of faults finite, and is counted and logged. vCPU thread only. */
#include <string.h>

#include "cpu/debug.h"
#include "cpu/system_internal.h"

/* One event on its way to its handler. */
struct delivery {
    uint8_t vector;
    bool software; /* INT n, INT3, INTO: the gate's DPL counts */
    unsigned ext;  /* the EXT bit of error codes that the delivery itself raises */
    bool has_error;
    uint32_t error;
    uint64_t return_ip;
    uint64_t flags; /* the RFLAGS image to push */
};

/* Where a gate leads, after all checks of the gate and its code segment. */
struct target {
    struct segment_register cs;
    unsigned cpl; /* of the handler */
    uint64_t offset;
    unsigned type; /* gate type */
    unsigned ist;
    bool inner; /* to a more privileged level */
};

static uint32_t gate_error(const struct delivery *e)
{
    return (uint32_t)e->vector << 3 | 2 | e->ext; /* IDT bit: the index is of a gate */
}

static bool gate_interrupts_off(unsigned type)
{
    return !(type & 1); /* interrupt gates are 6 and 14, trap gates 7 and 15 */
}

/* ---- Gate and code segment ---- */

static int read_gate(struct cpu *cpu, const struct delivery *e, struct descriptor *gate)
{
    unsigned size = cpu_long_mode(cpu) ? 16 : 8;
    uint32_t offset = e->vector * size;
    uint64_t words[2] = { 0, 0 };

    if (offset + size - 1 > cpu->idtr.limit)
        return raise_fault(cpu, VECTOR_GP, gate_error(e));
    gate->address = cpu->idtr.base + offset;
    if (size == 8)
        gate->address = (uint32_t)gate->address;
    if (system_read(cpu, gate->address, words, size) < 0)
        return -1;
    gate->low = words[0];
    gate->high = words[1];
    return 0;
}

static int check_gate(struct cpu *cpu, const struct delivery *e, const struct descriptor *gate)
{
    unsigned type = descriptor_type(gate);
    bool valid = type == SYS_INT_GATE || type == SYS_TRAP_GATE ||
                 (!cpu_long_mode(cpu) && (type == SYS_INT_GATE16 || type == SYS_TRAP_GATE16 || type == SYS_TASK_GATE));

    if (descriptor_is_segment(gate) || !valid)
        return raise_fault(cpu, VECTOR_GP, gate_error(e));
    if (e->software && descriptor_dpl(gate) < cpu->cpl)
        return raise_fault(cpu, VECTOR_GP, gate_error(e));
    if (!descriptor_present(gate))
        return raise_fault(cpu, VECTOR_NP, gate_error(e));
    if (type == SYS_TASK_GATE) {
        system_unimplemented(cpu, "interrupt through a task gate");
        return raise_fault(cpu, VECTOR_GP, gate_error(e));
    }
    return 0;
}

static int check_handler_code(struct cpu *cpu, const struct delivery *e, uint16_t selector, struct descriptor *d)
{
    int result;

    if (!(selector & 0xfffc))
        return raise_fault(cpu, VECTOR_GP, e->ext);
    result = descriptor_read(cpu, selector, false, d);
    if (result < 0)
        return -1;
    if (result || !descriptor_is_code(d) || descriptor_dpl(d) > cpu->cpl)
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, e->ext));
    if (!descriptor_present(d))
        return raise_fault(cpu, VECTOR_NP, selector_error(selector, e->ext));
    if (cpu_long_mode(cpu) && (!descriptor_long(d) || descriptor_db(d)))
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, e->ext));
    return descriptor_set_accessed(cpu, d);
}

static int find_target(struct cpu *cpu, const struct delivery *e, struct target *target)
{
    struct descriptor gate, code;
    uint16_t selector;

    if (read_gate(cpu, e, &gate) < 0 || check_gate(cpu, e, &gate) < 0)
        return -1;
    selector = gate.low >> 16;
    if (check_handler_code(cpu, e, selector, &code) < 0)
        return -1;
    target->type = descriptor_type(&gate);
    target->offset = gate.low & 0xffff;
    if (target->type & 8)
        target->offset |= gate.low >> 32 & 0xffff0000;
    target->ist = 0;
    if (cpu_long_mode(cpu)) {
        target->offset |= gate.high << 32;
        target->ist = gate.low >> 32 & 7;
    }
    target->cpl = descriptor_conforming(&code) ? cpu->cpl : descriptor_dpl(&code);
    target->inner = target->cpl < cpu->cpl;
    target->cs = descriptor_segment(&code, (uint16_t)((selector & ~3u) | target->cpl));
    return 0;
}

static void enter_handler(struct cpu *cpu, const struct target *target)
{
    uint64_t clear = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM;

    if (gate_interrupts_off(target->type))
        clear |= FLAG_IF;
    cpu->rflags &= ~clear;
    segment_commit(cpu, SEG_CS, &target->cs);
    cpu->cpu_rip = target->offset;
}

/* ---- Long mode (SDM Vol. 3A 6.14) ---- */

static int deliver_long(struct cpu *cpu, const struct delivery *e)
{
    struct frame frame = { .flat64 = true, .width = 8, .sp = cpu->gpr[REG_RSP] };
    struct segment_register null_ss;
    struct target target;
    uint64_t sp;

    if (find_target(cpu, e, &target) < 0)
        return -1;
    if (target.ist || target.inner) {
        unsigned index = target.ist ? target.ist + 3 : target.cpl;

        if (frame_stack64(cpu, index, e->ext, &frame.sp) < 0)
            return -1;
    }
    if (!is_canonical(target.offset))
        return raise_fault(cpu, VECTOR_GP, e->ext);
    frame.cpl = target.cpl;
    frame.sp &= ~15ull;
    frame_push(&frame, cpu->segs[SEG_SS].selector);
    frame_push(&frame, cpu->gpr[REG_RSP]);
    frame_push(&frame, e->flags);
    frame_push(&frame, cpu->segs[SEG_CS].selector);
    frame_push(&frame, e->return_ip);
    if (e->has_error)
        frame_push(&frame, e->error);
    if (frame_write(cpu, &frame, e->ext, &sp) < 0)
        return -1;

    if (target.inner) {
        null_ss = segment_null((uint16_t)target.cpl, target.cpl);
        segment_commit(cpu, SEG_SS, &null_ss);
    }
    enter_handler(cpu, &target);
    cpu->gpr[REG_RSP] = sp;
    return 0;
}

/* ---- Protected mode (SDM Vol. 3A 6.12.1) ---- */

static int deliver_protected(struct cpu *cpu, const struct delivery *e)
{
    struct segment_register ss;
    struct target target;
    struct frame frame;
    uint32_t ss_error = e->ext;
    uint64_t sp;

    if (cpu_v86(cpu)) {
        system_unimplemented(cpu, "interrupt from virtual-8086 mode");
        return raise_fault(cpu, VECTOR_GP, gate_error(e));
    }
    if (find_target(cpu, e, &target) < 0)
        return -1;
    frame = frame_current(cpu, target.type & 8 ? 4 : 2);
    frame.cpl = target.cpl;
    if (target.inner) {
        if (frame_inner_stack(cpu, target.cpl, e->ext, &ss, &frame.sp) < 0)
            return -1;
        frame.ss = ss;
        ss_error = selector_error(ss.selector, e->ext);
        frame_push(&frame, cpu->segs[SEG_SS].selector);
        frame_push(&frame, cpu->gpr[REG_RSP]);
    }
    if (target.offset > target.cs.limit)
        return raise_fault(cpu, VECTOR_GP, e->ext);
    frame_push(&frame, e->flags);
    frame_push(&frame, cpu->segs[SEG_CS].selector);
    frame_push(&frame, e->return_ip);
    if (e->has_error)
        frame_push(&frame, e->error);
    if (frame_write(cpu, &frame, ss_error, &sp) < 0)
        return -1;

    if (target.inner)
        segment_commit(cpu, SEG_SS, &ss);
    enter_handler(cpu, &target);
    frame_set_sp(cpu, sp);
    return 0;
}

/* ---- Real mode (SDM Vol. 3A 21.1.4): a vector is CS:IP, no error codes ---- */

static int deliver_real(struct cpu *cpu, const struct delivery *e)
{
    struct frame frame = frame_current(cpu, 2);
    uint32_t vector_offset = e->vector * 4u, far_pointer;
    uint64_t sp;

    if (vector_offset + 3 > cpu->idtr.limit)
        return raise_fault(cpu, VECTOR_GP, gate_error(e));
    if (system_read(cpu, (uint32_t)(cpu->idtr.base + vector_offset), &far_pointer, 4) < 0)
        return -1;
    frame_push(&frame, e->flags);
    frame_push(&frame, cpu->segs[SEG_CS].selector);
    frame_push(&frame, e->return_ip);
    if (frame_write(cpu, &frame, 0, &sp) < 0)
        return -1;
    cpu_set_rflags(cpu, cpu->rflags & ~(uint64_t)(FLAG_IF | FLAG_TF | FLAG_RF | FLAG_AC));
    segment_load_real(cpu, SEG_CS, (uint16_t)(far_pointer >> 16));
    cpu->cpu_rip = far_pointer & 0xffff;
    frame_set_sp(cpu, sp);
    return 0;
}

/* ---- One event ---- */

static void log_delivery(const struct cpu *cpu, const struct delivery *e)
{
    log_vprint(LOG_int, "v=%02x e=%04x i=%d cpl=%d IP=%04x:%016llx SP=%04x:%016llx CR2=%016llx\n", e->vector,
               e->has_error ? e->error : 0, e->software, cpu->cpl, cpu->segs[SEG_CS].selector,
               (unsigned long long)e->return_ip, cpu->segs[SEG_SS].selector, (unsigned long long)cpu->gpr[REG_RSP],
               (unsigned long long)cpu->cr2);
}

/* 0, or -1: the delivery itself faulted, see cpu->fault. */
static int deliver(struct cpu *cpu, const struct delivery *e)
{
    if (log_enabled(LOG_int))
        log_delivery(cpu, e);
    if (!cpu_protected(cpu))
        return deliver_real(cpu, e);
    return cpu_long_mode(cpu) ? deliver_long(cpu, e) : deliver_protected(cpu, e);
}

/* ---- Exceptions ---- */

static bool pushes_error(unsigned vector)
{
    const uint32_t mask = 1u << VECTOR_DF | 1u << VECTOR_TS | 1u << VECTOR_NP | 1u << VECTOR_SS | 1u << VECTOR_GP |
                          1u << VECTOR_PF | 1u << VECTOR_AC | 1u << 21 /* #CP */;

    return vector < 32 && (mask >> vector & 1);
}

/* Table 6-4. */
static bool contributory(unsigned vector)
{
    const uint32_t mask =
        1u << VECTOR_DE | 1u << VECTOR_TS | 1u << VECTOR_NP | 1u << VECTOR_SS | 1u << VECTOR_GP | 1u << 21;

    return vector < 32 && (mask >> vector & 1);
}

/* Table 6-5: does `second`, raised while `first` was delivered, make a double fault? */
static bool doubles(unsigned first, unsigned second)
{
    if (contributory(first))
        return contributory(second);
    if (first == VECTOR_PF)
        return contributory(second) || second == VECTOR_PF;
    return false;
}

/* Fault-class exceptions push RF = 1, so that the restarted instruction does not meet its breakpoint again; but
 * not the instruction breakpoint itself (SDM Vol. 3B 18.3.1.1). #DF and #MC are aborts. */
static bool pushes_rf(const struct fault *fault)
{
    if (fault->vector == VECTOR_DB)
        return fault->address & DR6_BD;
    return fault->vector != VECTOR_DF && fault->vector != VECTOR_MC && fault->vector != VECTOR_BP &&
           fault->vector != VECTOR_OF;
}

/* What an exception changes besides the transfer: CR2, DR6 and DR7. */
static void note_exception(struct cpu *cpu, const struct fault *fault)
{
    cpu->stats.exceptions++;
    cpu->pending_debug = 0;
    cpu->step_trap = false;
    if (fault->vector == VECTOR_PF) {
        cpu->cr2 = fault->address;
    } else if (fault->vector == VECTOR_DB) {
        cpu->dr[6] = (cpu->dr[6] & ~15ull) | fault->address;
        cpu->dr[7] &= ~(uint64_t)DR7_GD;
        debug_update(cpu);
    }
}

static enum step triple_fault(struct cpu *cpu, unsigned vector)
{
    cpu->activity = CPU_SHUTDOWN;
    log_event(cpu_reset, "vCPU %u: triple fault (vector %u while delivering a double fault)\n", cpu->index, vector);
    if (log_enabled(LOG_cpu_reset))
        cpu_log_state(cpu, LOG_cpu_reset);
    return STEP_EXIT;
}

enum step cpu_deliver_exception(struct cpu *cpu)
{
    for (;;) {
        struct fault fault = cpu->fault;
        struct delivery e = {
            .vector = fault.vector,
            .ext = 1,
            .has_error = pushes_error(fault.vector),
            .error = fault.error,
            .return_ip = cpu->cpu_rip,
            .flags = cpu->rflags | (pushes_rf(&fault) ? FLAG_RF : 0),
        };

        note_exception(cpu, &fault);
        if (deliver(cpu, &e) == 0)
            return STEP_BRANCH;
        if (fault.vector == VECTOR_DF && (contributory(cpu->fault.vector) || cpu->fault.vector == VECTOR_PF))
            return triple_fault(cpu, cpu->fault.vector);
        if (doubles(fault.vector, cpu->fault.vector)) {
            if (cpu->fault.vector == VECTOR_PF)
                cpu->cr2 = cpu->fault.address;
            raise_fault(cpu, VECTOR_DF, 0);
        }
    }
}

enum step cpu_deliver_interrupt(struct cpu *cpu, uint8_t vector)
{
    struct delivery e = { .vector = vector, .ext = 1, .return_ip = cpu->cpu_rip, .flags = cpu->rflags };

    if (deliver(cpu, &e) == 0)
        return STEP_BRANCH;
    return cpu_deliver_exception(cpu);
}

/* ---- INT n and kin ---- */

enum step cpu_software_interrupt(struct cpu *cpu, uint8_t vector, uint64_t return_ip)
{
    struct delivery e = { .vector = vector, .software = true, .return_ip = return_ip, .flags = cpu->rflags };

    if (deliver(cpu, &e) < 0)
        return STEP_FAULT;
    cpu->step_trap = false; /* the delivery cleared TF: no trap after INT (SDM Vol. 3B 18.3.1.4) */
    return STEP_BRANCH;
}

/* INT1: #DB by a privileged software exception: no DPL check, EXT set, DR6 unchanged. */
enum step cpu_software_debug(struct cpu *cpu, uint64_t return_ip)
{
    struct delivery e = { .vector = VECTOR_DB, .ext = 1, .return_ip = return_ip, .flags = cpu->rflags };

    if (deliver(cpu, &e) < 0)
        return STEP_FAULT;
    cpu->step_trap = false;
    return STEP_BRANCH;
}
