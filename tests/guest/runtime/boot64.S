/* Multiboot entry of a 64-bit image (Multiboot 0.6.96, 3.2: 32-bit protected mode, paging off), the way to long mode
 * (SDM Vol. 3A 9.8.5), and the exception stubs. The image lies below 2 GiB: 32-bit addresses everywhere. */
#define MAGIC 0x1badb002

        .section .multiboot, "a"
        .align 4
        .long MAGIC, 0, -MAGIC

        .text
        .code32
        .globl _start
_start: cli
        cld
        movl $stack_top, %esp
        pushl $0
        popfl
        movl %ebx, boot_info
        /* the first GiB, twice 2 MiB at a time: enough for the C code to build the real tables */
        movl $boot_pd, %edi
        movl $0x83, %eax
1:      movl %eax, (%edi)
        movl $0, 4(%edi)
        addl $0x200000, %eax
        addl $8, %edi
        cmpl $boot_pd + 4096, %edi
        jb 1b
        movl $boot_pd + 3, boot_pdpt
        movl $boot_pdpt + 3, boot_pml4
        movl $0x20, %eax
        movl %eax, %cr4
        movl $boot_pml4, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx
        movl $0x100, %eax
        xorl %edx, %edx
        wrmsr
        movl $0x80000021, %eax
        movl %eax, %cr0
        lgdt boot_gdt_pointer
        ljmp $8, $long_mode
        .code64
long_mode:
        movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        xorl %eax, %eax
        movl %eax, %fs
        movl %eax, %gs
        movl $stack_top, %esp
        movl boot_info, %edi
        call start_image
1:      hlt
        jmp 1b

        .section .rodata
        .align 8
boot_gdt:
        .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
boot_gdt_pointer:
        .word 23
        .long boot_gdt

/* ---- Entering a probe: void enter_probe(const struct regs *in) returns when the probe is over ---- */

/* offsets in struct regs */
#define RIP 128
#define CS 136
#define RFLAGS 144
#define SS 152
#define VECTOR 160
#define ERROR 168
#define CR2 176
#define FRAME 184
#define IN_DS 192
#define IN_ES 200
#define IN_FS 208
#define IN_GS 216

        .text
        .globl enter_probe
enter_probe:
        pushq %rbx
        pushq %rbp
        pushq %r12
        pushq %r13
        pushq %r14
        pushq %r15
        movq %rsp, saved_rsp
        pushq SS(%rdi)
        pushq 32(%rdi)
        pushq RFLAGS(%rdi)
        pushq CS(%rdi)
        pushq RIP(%rdi)
        movl IN_DS(%rdi), %eax
        movl %eax, %ds
        movl IN_ES(%rdi), %eax
        movl %eax, %es
        movl IN_FS(%rdi), %eax
        testl %eax, %eax    /* loading a null selector would clear a base that a case has set */
        jz 1f
        movl %eax, %fs
1:      movl IN_GS(%rdi), %eax
        testl %eax, %eax
        jz 2f
        movl %eax, %gs
2:      movq 0(%rdi), %rax
        movq 8(%rdi), %rcx
        movq 16(%rdi), %rdx
        movq 24(%rdi), %rbx
        movq 40(%rdi), %rbp
        movq 48(%rdi), %rsi
        movq 64(%rdi), %r8
        movq 72(%rdi), %r9
        movq 80(%rdi), %r10
        movq 88(%rdi), %r11
        movq 96(%rdi), %r12
        movq 104(%rdi), %r13
        movq 112(%rdi), %r14
        movq 120(%rdi), %r15
        movq 56(%rdi), %rdi
        movl $1, probe_active
        iretq

/* ---- Exceptions ---- */

        .macro stub vector, has_error
        .align 16
stub_\vector:
        .if !\has_error
        pushq $0
        .endif
        pushq $\vector
        jmp common
        .endm
        .altmacro
        .macro stub_for n
        .if (\n == 8) || ((\n >= 10) && (\n <= 14)) || (\n == 17) || (\n == 21)
        stub \n, 1
        .else
        stub \n, 0
        .endif
        .endm
        .set i, 0
        .rept 256
        stub_for %i
        .set i, i + 1
        .endr

/* stack: vector, error, RIP, CS, RFLAGS, RSP, SS. Everything goes to `captured`. */
common: movq %rax, captured
        movq %rcx, captured + 8
        movq %rdx, captured + 16
        movq %rbx, captured + 24
        movq %rbp, captured + 40
        movq %rsi, captured + 48
        movq %rdi, captured + 56
        movq %r8, captured + 64
        movq %r9, captured + 72
        movq %r10, captured + 80
        movq %r11, captured + 88
        movq %r12, captured + 96
        movq %r13, captured + 104
        movq %r14, captured + 112
        movq %r15, captured + 120
        popq captured + VECTOR
        popq captured + ERROR
        movq (%rsp), %rax
        movq %rax, captured + RIP
        movq 8(%rsp), %rax
        movq %rax, captured + CS
        movq 16(%rsp), %rax
        movq %rax, captured + RFLAGS
        movq 24(%rsp), %rax
        movq %rax, captured + 32
        movq 32(%rsp), %rax
        movq %rax, captured + SS
        movq %rsp, captured + FRAME
        movq %cr2, %rax
        movq %rax, captured + CR2
        movl %ds, %eax
        movq %rax, captured + IN_DS
        movl %es, %eax
        movq %rax, captured + IN_ES
        movl %fs, %eax
        movq %rax, captured + IN_FS
        movl %gs, %eax
        movq %rax, captured + IN_GS
        cld
        movq captured + VECTOR, %rax
        cmpq $0, handlers(, %rax, 8)
        jne handled
        cmpl $0, probe_active
        je unexpected
        movl $0, probe_active
        movl $0x10, %eax
        movl %eax, %ss
        movq saved_rsp, %rsp
        pushq $2
        popfq
        movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        popq %r15
        popq %r14
        popq %r13
        popq %r12
        popq %rbp
        popq %rbx
        ret

/* A handler works on a copy, so that events may nest. */
handled:
        leaq -256(%rsp), %rsp
        movl $32, %ecx
        movl $captured, %esi
        movq %rsp, %rdi
        rep movsq
        movq %rsp, %rbx
        movq %rsp, %rdi
        andq $-16, %rsp
        call *handlers(, %rax, 8)
        movq %rbx, %rsp
        movq RIP(%rsp), %rax
        movq %rax, 256(%rsp)
        movq CS(%rsp), %rax
        movq %rax, 264(%rsp)
        movq RFLAGS(%rsp), %rax
        movq %rax, 272(%rsp)
        movq 32(%rsp), %rax
        movq %rax, 280(%rsp)
        movq SS(%rsp), %rax
        movq %rax, 288(%rsp)
        movq 0(%rsp), %rax
        movq 8(%rsp), %rcx
        movq 16(%rsp), %rdx
        movq 24(%rsp), %rbx
        movq 40(%rsp), %rbp
        movq 48(%rsp), %rsi
        movq 56(%rsp), %rdi
        movq 64(%rsp), %r8
        movq 72(%rsp), %r9
        movq 80(%rsp), %r10
        movq 88(%rsp), %r11
        movq 96(%rsp), %r12
        movq 104(%rsp), %r13
        movq 112(%rsp), %r14
        movq 120(%rsp), %r15
        leaq 256(%rsp), %rsp
        iretq

unexpected:
        movl $stack_top, %esp
        movl $captured, %edi
        call unexpected_event

        .section .rodata
        .globl exception_stubs
        .align 8
exception_stubs:
        .macro address_for n
        .quad stub_\n
        .endm
        .set i, 0
        .rept 256
        address_for %i
        .set i, i + 1
        .endr

        .bss
        .align 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4096
        .skip 32768
        .globl stack_top
stack_top:
        .skip 16
        .globl probe_active, captured
        .align 8
captured: .skip 256
saved_rsp: .skip 8
boot_info: .skip 4
probe_active: .skip 4
        .section .note.GNU-stack, "", @progbits
