/* One instruction on the host: loads the whole state, jumps to it, stores the whole state.
 *
 *   int native_run(void): state from native_in, result to native_out. What faults comes back through
 *   native_fault_return, with native_out filled by the signal handler (native.c).
 *
 * The instruction is followed by a jump to native_exit. Between the two the stack pointer is the test's,
 * so nothing is pushed; moves do not touch flags. */
        .text
        .globl  native_run, native_exit, native_fault_return
        .type   native_run, @function
native_run:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, native_host_rsp(%rip)
        lea     native_in(%rip), %rax
        fxrstor64 (%rax)
        cmpb    $0, native_use_avx(%rip)
        je      1f
        vmovdqu 512+0*32(%rax), %ymm0
        vmovdqu 512+1*32(%rax), %ymm1
        vmovdqu 512+2*32(%rax), %ymm2
        vmovdqu 512+3*32(%rax), %ymm3
        vmovdqu 512+4*32(%rax), %ymm4
        vmovdqu 512+5*32(%rax), %ymm5
        vmovdqu 512+6*32(%rax), %ymm6
        vmovdqu 512+7*32(%rax), %ymm7
        vmovdqu 512+8*32(%rax), %ymm8
        vmovdqu 512+9*32(%rax), %ymm9
        vmovdqu 512+10*32(%rax), %ymm10
        vmovdqu 512+11*32(%rax), %ymm11
        vmovdqu 512+12*32(%rax), %ymm12
        vmovdqu 512+13*32(%rax), %ymm13
        vmovdqu 512+14*32(%rax), %ymm14
        vmovdqu 512+15*32(%rax), %ymm15
1:      cmpb    $0, native_use_fsgsbase(%rip)
        je      2f
        rdfsbase %rcx
        mov     %rcx, native_host_fs(%rip)
        mov     1168(%rax), %rcx
        wrfsbase %rcx
        mov     1176(%rax), %rcx
        wrgsbase %rcx
2:      mov     1152(%rax), %rcx
        mov     %rcx, native_target(%rip)
        movb    $1, native_running(%rip)
        mov     1024+1*8(%rax), %rcx
        mov     1024+2*8(%rax), %rdx
        mov     1024+3*8(%rax), %rbx
        mov     1024+5*8(%rax), %rbp
        mov     1024+6*8(%rax), %rsi
        mov     1024+7*8(%rax), %rdi
        mov     1024+8*8(%rax), %r8
        mov     1024+9*8(%rax), %r9
        mov     1024+10*8(%rax), %r10
        mov     1024+11*8(%rax), %r11
        mov     1024+12*8(%rax), %r12
        mov     1024+13*8(%rax), %r13
        mov     1024+14*8(%rax), %r14
        mov     1024+15*8(%rax), %r15
        pushq   1160(%rax)
        popfq
        mov     1024+4*8(%rax), %rsp
        mov     1024+0*8(%rax), %rax
        jmp     *native_target(%rip)

native_exit:
        mov     %rax, native_out+1024+0*8(%rip)
        mov     %rsp, native_out+1024+4*8(%rip)
        mov     native_host_rsp(%rip), %rsp
        pushfq
        popq    native_out+1160(%rip)
        pushq   $2
        popfq
        movb    $0, native_running(%rip)
        lea     native_out(%rip), %rax
        mov     %rcx, 1024+1*8(%rax)
        mov     %rdx, 1024+2*8(%rax)
        mov     %rbx, 1024+3*8(%rax)
        mov     %rbp, 1024+5*8(%rax)
        mov     %rsi, 1024+6*8(%rax)
        mov     %rdi, 1024+7*8(%rax)
        mov     %r8, 1024+8*8(%rax)
        mov     %r9, 1024+9*8(%rax)
        mov     %r10, 1024+10*8(%rax)
        mov     %r11, 1024+11*8(%rax)
        mov     %r12, 1024+12*8(%rax)
        mov     %r13, 1024+13*8(%rax)
        mov     %r14, 1024+14*8(%rax)
        mov     %r15, 1024+15*8(%rax)
        fxsave64 (%rax)
        cmpb    $0, native_use_avx(%rip)
        je      3f
        vmovdqu %ymm0, 512+0*32(%rax)
        vmovdqu %ymm1, 512+1*32(%rax)
        vmovdqu %ymm2, 512+2*32(%rax)
        vmovdqu %ymm3, 512+3*32(%rax)
        vmovdqu %ymm4, 512+4*32(%rax)
        vmovdqu %ymm5, 512+5*32(%rax)
        vmovdqu %ymm6, 512+6*32(%rax)
        vmovdqu %ymm7, 512+7*32(%rax)
        vmovdqu %ymm8, 512+8*32(%rax)
        vmovdqu %ymm9, 512+9*32(%rax)
        vmovdqu %ymm10, 512+10*32(%rax)
        vmovdqu %ymm11, 512+11*32(%rax)
        vmovdqu %ymm12, 512+12*32(%rax)
        vmovdqu %ymm13, 512+13*32(%rax)
        vmovdqu %ymm14, 512+14*32(%rax)
        vmovdqu %ymm15, 512+15*32(%rax)
        vzeroupper
3:      cmpb    $0, native_use_fsgsbase(%rip)
        je      4f
        rdfsbase %rcx
        mov     %rcx, 1168(%rax)
        rdgsbase %rcx
        mov     %rcx, 1176(%rax)
        mov     native_host_fs(%rip), %rcx
        wrfsbase %rcx
4:      xor     %eax, %eax
        jmp     5f

/* The signal handler returns to here, on the host's stack. */
native_fault_return:
        mov     $1, %eax
5:      fninit
        ldmxcsr native_host_mxcsr(%rip)
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .size   native_run, . - native_run

        .section .note.GNU-stack, "", @progbits
