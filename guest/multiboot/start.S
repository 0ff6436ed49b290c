/* Entry of the multiboot test kernel (Multiboot 0.6.96, 3.1 and 3.2): 32-bit protected mode, paging off, EAX = magic,
 * EBX = information structure. */
#define FLAGS 0x3 /* modules page-aligned, memory information wanted */
#define MAGIC 0x1badb002

        .section .multiboot, "a"
        .align 4
        .long MAGIC, FLAGS, -(MAGIC + FLAGS)

        .text
        .globl _start
_start: movl $stack_top, %esp
        pushl $0
        popfl
        pushl %ebx
        pushl %eax
        call kernel_main
1:      hlt
        jmp 1b

        /* Exception stubs: vectors 0 to 31; those without an error code push 0. */
        .macro stub vector, has_error
stub_\vector:
        .if !\has_error
        pushl $0
        .endif
        pushl $\vector
        jmp common
        .endm
        .set i, 0
        .altmacro
        .macro stub_for n
        .if (\n == 8) || ((\n >= 10) && (\n <= 14)) || (\n == 17)
        stub \n, 1
        .else
        stub \n, 0
        .endif
        .endm
        .rept 32
        stub_for %i
        .set i, i + 1
        .endr

common: pushal
        movl %esp, %eax
        pushl %eax
        call handle_exception
        addl $4, %esp
        popal
        addl $8, %esp
        iretl

        .section .rodata
        .globl exception_stubs
exception_stubs:
        .macro address_for n
        .long stub_\n
        .endm
        .set i, 0
        .rept 32
        address_for %i
        .set i, i + 1
        .endr

        .bss
        .align 16
        .skip 16384
stack_top:

        .section .note.GNU-stack, "", @progbits
