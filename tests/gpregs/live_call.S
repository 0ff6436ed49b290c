/* Calls of C code with known values in all vector, mask and x87 registers: see live.h. XSAVE and XRSTOR, standard format, so
 * that every enabled component is written whatever the processor knows about it (SDM Vol. 1 13.7, 13.8). */
    .text

/* void live_call(const void *before, void *after, uint64_t components, void (*fn)(void *), void *argument) */
    .globl live_call
    .type live_call, @function
live_call:
    push %rbx
    push %r12
    push %r13
    sub $16, %rsp
    stmxcsr (%rsp)              /* their control bits are the caller's (System V ABI) */
    fnstcw 8(%rsp)
    mov %rsi, %rbx
    mov %rdx, %r12
    mov %rcx, %r13
    mov %edx, %eax
    shr $32, %rdx
    xrstor64 (%rdi)
    mov %r8, %rdi
    call *%r13
    mov %r12d, %eax
    mov %r12, %rdx
    shr $32, %rdx
    xsave64 (%rbx)
    fninit
    fldcw 8(%rsp)
    ldmxcsr (%rsp)
    add $16, %rsp
    pop %r13
    pop %r12
    pop %rbx
    ret
    .size live_call, . - live_call

/* void live_park(void *area, uint64_t components): saves the registers and leaves others in them */
    .globl live_park
    .type live_park, @function
live_park:
    mov %esi, %eax
    mov %rsi, %rdx
    shr $32, %rdx
    xsave64 (%rdi)
    fninit
    pushq $0x1f80
    ldmxcsr (%rsp)
    pop %rax
    pcmpeqd %xmm0, %xmm0
    pcmpeqd %xmm1, %xmm1
    pcmpeqd %xmm15, %xmm15
    ret
    .size live_park, . - live_park

/* Where the linker sends calls of code that may use vector registers (allowances.py writes the rest): r11 is its name. */
    .globl live_wrap
    .hidden live_wrap
    .type live_wrap, @function
live_wrap:
    push %rax
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    sub $8, %rsp
    mov %r11, %rdi
    call live_leaving
    add $8, %rsp
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rax
    ret
    .size live_wrap, . - live_wrap

    .section .note.GNU-stack, "", @progbits
