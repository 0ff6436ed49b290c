/* The translator's side of its signal handler: async-signal-safe, on the faulting thread. */
#include "jit/jit_signal.h"

#include <string.h>
#include <unistd.h>

#include "jit/jit_internal.h"

void jit_signal_return_stack_lost(struct jit *jit)
{
    jit->user_stack.sp = jit->outer_stack.sp = 0;
}

bool jit_signal_note_fault(struct jit *jit, int number, uintptr_t pc, const long long *registers)
{
    const uint8_t *at = (const uint8_t *)pc;
    const struct jit_block *block = jit->single_block;

    if (!block || (uint64_t)(at - jit->code.execute) - block->hot >= block->hot_size)
        block = jit_block_by_pc(jit, at);
    if (!block)
        return false;
    jit->fault_pc = pc;
    jit->fault_signal = number;
    memcpy(jit->fault_registers, registers, sizeof(jit->fault_registers));
    return true;
}

static char *append(char *out, const char *text)
{
    size_t length = strlen(text);
    memcpy(out, text, length);
    return out + length;
}

static char *append_hex(char *out, uint64_t value)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        *out++ = "0123456789abcdef"[value >> shift & 15];
    return out;
}

/* What was going on when the translator itself went wrong: guest and host context, a line each. */
void jit_signal_report(const struct jit *jit, uintptr_t pc, const long long *registers)
{
    static const char names[][6] = { " r8=",  " r9=",  " r10=", " r11=", " r12=", " r13=", " r14=", " r15=",
                                     " rdi=", " rsi=", " rbp=", " rbx=", " rdx=", " rax=", " rcx=", " rsp=" };
    char text[1024], *out = text;

    out = append(out, "\neidolon: fault in translated code at ");
    out = append_hex(out, pc - (uintptr_t)jit->code.execute);
    out = append(out, ", guest code page ");
    out = append_hex(out, jit->vpage);
    out = append(out, ", last known guest rip ");
    out = append_hex(out, jit->cpu->cpu_rip);
    out = append(out, "\neidolon: host registers:");
    for (unsigned n = 0; n < ARRAY_SIZE(names); n++) {
        out = append(out, names[n]);
        out = append_hex(out, (uint64_t)registers[n]);
    }
    out = append(out, "\n");
    ssize_t ignored = write(STDERR_FILENO, text, (size_t)(out - text));
    (void)ignored;
}

void jit_signal_enter(struct jit *jit)
{
    jit->signal_region = (struct jit_signal_region){
        .jit = jit,
        .code = (uintptr_t)jit->code.execute,
        .code_size = jit->code.size,
        .guard = (uintptr_t)jit->return_stack - PAGE_SIZE,
        .guard_size = PAGE_SIZE,
        .thunk_fault = (uintptr_t)jit->thunk_fault,
        .return_base = jit->return_base,
    };
    jit_signal_set_region(&jit->signal_region);
}
