"""From the list of outside functions that code beneath the translator may call once it has parked the vector registers
(base/general_registers.allow): a piece of assembly and options for the linker that send every call of them through
live_leaving, which finds out whether it has.

    allowances.py LIST ASSEMBLY LINKER_OPTIONS
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '../../base'))
from general_registers import read_allowances  # noqa: E402 (the path comes first)

STUB = '''
    .globl __wrap_{name}
__wrap_{name}:
    lea 1f(%rip), %r11
    call live_wrap
    jmp __real_{name}@PLT
    .pushsection .rodata
1:  .asciz "{name}"
    .popsection
'''


def main():
    _, path, assembly, options = sys.argv
    names = sorted(name for name, lines in read_allowances(path, only=('parked', 'setup', 'devices')).items()
                   if ':' not in name and lines)
    with open(assembly, 'w', encoding='utf-8') as stream:
        stream.write('    .text\n' + ''.join(STUB.format(name=name) for name in names))
        stream.write('    .section .note.GNU-stack, "", @progbits\n')
    with open(options, 'w', encoding='utf-8') as stream:
        stream.write(''.join(f'-Wl,--wrap={name}\n' for name in names))


if __name__ == '__main__':
    main()
