#!/bin/bash
# build/guest/multiboot.elf: a bare-metal test kernel; prints to COM1 and leaves through isa-debug-exit.
. "$(dirname "$0")/lib.sh"
gcc -m32 -march=i686 -O2 -ffreestanding -fno-stack-protector -fno-pic -fno-asynchronous-unwind-tables -mgeneral-regs-only \
    -nostdlib -static -Wall -Wextra -Wl,--build-id=none -Wl,-T,"$guest_dir/multiboot/kernel.ld" -Wl,-z,max-page-size=4096 \
    -Wl,--no-warn-rwx-segments -o "$out/multiboot.elf" "$guest_dir/multiboot/start.S" "$guest_dir/multiboot/kernel.c"
