/* Multiboot entry of a 32-bit image (Multiboot 0.6.96, 3.2), the way into a probe and the exception stubs. There is
 * no IST here: exceptions at CPL 0 use the probe's own stack. */
#define MAGIC 0x1badb002

        .section .multiboot, "a"
        .align 4
        .long MAGIC, 0, -MAGIC

        .text
        .globl _start
_start: cli
        cld
        movl $stack_top, %esp
        pushl $0
        popfl
        pushl %ebx
        call start_image
1:      hlt
        jmp 1b

/* offsets in struct regs */
#define RIP 32
#define CS 36
#define RFLAGS 40
#define SS 44
#define VECTOR 48
#define ERROR 52
#define CR2 56
#define FRAME 60
#define R_DS 64
#define R_ES 68
#define R_FS 72
#define R_GS 76

/* void enter_probe(void): enters with the registers in `entering`; returns when the probe is over. The data segments
 * are loaded before the general registers, which are then read through CS. */
        .globl enter_probe
enter_probe:
        pushl %ebx
        pushl %ebp
        pushl %esi
        pushl %edi
        movl %esp, saved_esp
        testl $3, entering + CS
        jz 1f
        pushl entering + SS
        pushl entering + 16
        jmp 2f
1:      movw entering + SS, %ss     /* and ESP in its shadow */
        movl entering + 16, %esp
2:      pushl entering + RFLAGS
        pushl entering + CS
        pushl entering + RIP
        movl $1, probe_active
        movw entering + R_ES, %es
        movw entering + R_FS, %fs
        movw entering + R_GS, %gs
        movw entering + R_DS, %ds
        movl %cs:entering, %eax
        movl %cs:entering + 4, %ecx
        movl %cs:entering + 8, %edx
        movl %cs:entering + 12, %ebx
        movl %cs:entering + 20, %ebp
        movl %cs:entering + 24, %esi
        movl %cs:entering + 28, %edi
        iretl

        .macro stub vector, has_error
        .align 16
stub_\vector:
        .if !\has_error
        pushl $0
        .endif
        pushl $\vector
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

/* stack: [DS, EAX,] vector, error, EIP, CS, EFLAGS [, ESP, SS] */
common: pushl %eax
        movl %ds, %eax
        pushl %eax
        movl $0x10, %eax
        movl %eax, %ds
        movl %ecx, captured + 4
        movl %edx, captured + 8
        movl %ebx, captured + 12
        movl %ebp, captured + 20
        movl %esi, captured + 24
        movl %edi, captured + 28
        popl captured + R_DS
        popl captured
        popl captured + VECTOR
        popl captured + ERROR
        movl (%esp), %eax
        movl %eax, captured + RIP
        movl 4(%esp), %eax
        movl %eax, captured + CS
        movl 8(%esp), %eax
        movl %eax, captured + RFLAGS
        leal 12(%esp), %eax
        movl %eax, captured + 16
        movw %ss, captured + SS
        testl $3, captured + CS
        jz 1f
        movl 12(%esp), %eax
        movl %eax, captured + 16
        movl 16(%esp), %eax
        movl %eax, captured + SS
1:      movl %esp, captured + FRAME
        movl %cr2, %eax
        movl %eax, captured + CR2
        movw %es, captured + R_ES
        movw %fs, captured + R_FS
        movw %gs, captured + R_GS
        cld
        movl captured + VECTOR, %eax
        cmpl $0, handlers(, %eax, 4)
        jne handled
        cmpl $0, probe_active
        je unexpected
        movl $0, probe_active
        movl $0x10, %eax
        movl %eax, %ss
        movl saved_esp, %esp
        movl %eax, %es
        pushl $2
        popfl
        popl %edi
        popl %esi
        popl %ebp
        popl %ebx
        ret

handled:
        subl $96, %esp
        movl $0x10, %ecx
        movl %ecx, %es
        movl $24, %ecx
        movl $captured, %esi
        movl %esp, %edi
        rep movsl
        movl %esp, %ebx
        pushl %ebx
        call *handlers(, %eax, 4)
        movl %ebx, %esp
        movl RIP(%esp), %eax
        movl %eax, 96(%esp)
        movl RFLAGS(%esp), %eax
        movl %eax, 104(%esp)
        movw R_ES(%esp), %es
        movl 0(%esp), %eax
        movl 4(%esp), %ecx
        movl 8(%esp), %edx
        movl 12(%esp), %ebx
        movl 20(%esp), %ebp
        movl 24(%esp), %esi
        movl 28(%esp), %edi
        movw R_DS(%esp), %ds
        leal 96(%esp), %esp
        iretl

unexpected:
        movl $stack_top, %esp
        pushl $captured
        call unexpected_event

        .section .rodata
        .globl exception_stubs
        .align 4
exception_stubs:
        .macro address_for n
        .long stub_\n
        .endm
        .set i, 0
        .rept 256
        address_for %i
        .set i, i + 1
        .endr

        .bss
        .align 16
        .skip 32768
        .globl stack_top
stack_top:
        .skip 16
        .globl probe_active, captured, entering
captured: .skip 96
entering: .skip 96
saved_esp: .skip 4
probe_active: .skip 4
        .section .note.GNU-stack, "", @progbits
