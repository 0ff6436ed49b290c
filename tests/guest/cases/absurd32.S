/* The way into real mode and back (SDM Vol. 3A 9.9) for absurd32.c, which copies real_entry to 7000 and real_exit to
 * 7800, and puts the selectors 48 and 50 (16-bit code and data at 0) into the GDT. */
        .text
        .globl enter_real_mode
enter_real_mode:
        pushal
        movl %esp, protected_esp
        lidt real_idt
        ljmp $0x48, $0x7000
protected_again:
        movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl protected_esp, %esp
        xorl %eax, %eax
        movl %eax, %fs
        movl %eax, %gs
        popal
        ret

        .section .rodata
        .code16
        .globl real_entry, real_entry_end, real_exit, real_exit_end
real_entry:
        movw $0x50, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw %ax, %fs
        movw %ax, %gs
        movl %cr0, %eax
        andb $0xfe, %al
        movl %eax, %cr0
        ljmp $0, $0x7000 + 1f - real_entry
1:      xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $0x6000, %esp      /* flags and registers for the random instructions */
        popfl
        popal
        movl $0x6f00, %esp
        ljmp $0, $0x8000
real_entry_end:

real_exit:
        cli
        lgdtl %cs:0x7900
        movl $0x11, %eax
        movl %eax, %cr0
        ljmpl $8, $protected_again
real_exit_end:

        .data
        .align 4
protected_esp: .long 0
real_idt: .word 0x3ff
        .long 0
        .section .note.GNU-stack, "", @progbits
