"""Checks the code that runs while the guest's vector state is in the host's registers (docs/design.md 9.4).

Two things must not be in it: calls of code that may use vector registers, and vector or x87 instructions of its own
(inline assembly; the compiler is told not to make any). So all its object files are linked with each other (ld -r);
what is then still undefined is called from outside and has to be in the list of allowances, with the files that may
call it and the reason why that is safe. And everything is disassembled.

The list, general_registers.allow: one allowance per line, `#` begins a comment.

    NAMES   FILES   WHY
    A name is a symbol; `file:PATH`, any symbol that this source file defines; `insn:MNEMONIC`, an instruction
    (`insn:*`: all of them). Both lists are separated by commas; FILES may have wildcards. WHY begins with one of the
    words of REASONS.
"""

import argparse
import fnmatch
import os
import re
import subprocess
import sys

REASONS = {
    'parked': 'the caller has parked the vector registers',
    'setup': 'creation, destruction, options, saved state: no guest code is running on the thread',
    'devices': 'only devices and set-up come here: a vCPU thread has parked before it called a device',
    'verified': 'it uses general registers only, for the reason given',
}
# Operands, and mnemonics of what has none of them or has them in memory.
VECTOR_CODE = re.compile(r'%([xyzt]?mm|st|k)\d*\b|^(f|emms|v?ldmxcsr|v?stmxcsr|xsave|xrstor|vzero|ldtilecfg|sttilecfg|tile)')
SUSPECT_LINE = re.compile(r'^\s*[0-9a-f]+:\s+(?:(?:lock|rep|repz|repnz|data16|cs|ds|es|ss|fs|gs|bnd|notrack)\s+)*(\S.*)')


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def read_files(path):
    """The three lists that general_registers.cmake writes: source files of this code, others of the same layers, and the
    object files of both."""
    lists, current = {}, None
    with open(path, encoding='utf-8') as stream:
        for line in stream.read().split('\n'):
            if line in ('clean', 'other', 'objects'):
                current = lists[line] = []
            elif line:
                current.extend(line.split(';'))
    return lists


def read_allowances(path, only=tuple(REASONS)):
    """{name: [(files, line number)]}; `only`: for these reasons."""
    allowances = {}
    with open(path, encoding='utf-8') as stream:
        for number, line in enumerate(stream, 1):
            words = line.split('#')[0].split(None, 2)
            if not words:
                continue
            reason = words[2].split()[0].rstrip(':') if len(words) == 3 else None
            if reason not in REASONS:
                sys.exit(f'{path}:{number}: a line is NAMES FILES WHY, where WHY begins with one of {", ".join(REASONS)}')
            for name in words[0].split(',') if reason in only else []:
                allowances.setdefault(name, []).append((words[1].split(','), number))
    return allowances


class Checker:
    def __init__(self, args):
        self.args = args
        lists = read_files(args.files)
        self.source_of = {}  # object file: source file, relative to the root
        self.clean, self.other = [], []
        sources = {os.path.relpath(s, args.root): s in lists['clean'] for s in lists['clean'] + lists['other']}
        for obj in lists['objects']:
            # CMakeFiles/LAYER.dir/PATH.o
            source = os.path.normpath(obj.split('.dir/', 1)[1].removesuffix('.o'))
            self.source_of[obj] = source
            (self.clean if sources[source] else self.other).append(obj)
        self.allowances = read_allowances(args.allowed)
        self.used = set()
        self.problems = []

    def allowed(self, name, source):
        for patterns, number in self.allowances.get(name, []) + self.allowances.get(name.split(':')[0] + ':*', []):
            if any(fnmatch.fnmatch(source, pattern) for pattern in patterns):
                self.used.add(number)
                return True
        return False

    def symbols(self, objects, *options):
        """(object file, symbol) pairs."""
        for line in run(self.args.nm, '-A', *options, *objects).splitlines() if objects else []:
            obj, rest = line.split(':', 1)
            yield obj, rest.split()[-1]

    def check_calls(self):
        run(self.args.linker, '-r', '-S', '-o', self.args.output, *self.clean)
        outside = {line.split()[-1] for line in run(self.args.nm, '-u', self.args.output).splitlines()}
        outside.discard('_GLOBAL_OFFSET_TABLE_')
        definer = {symbol: self.source_of[obj] for obj, symbol in self.symbols(self.other, '--defined-only', '-g')}
        for obj, symbol in self.symbols(self.clean, '-u'):
            source = self.source_of[obj]
            if symbol not in outside or self.allowed(symbol, source):
                continue
            if symbol in definer and self.allowed(f'file:{definer[symbol]}', source):
                continue
            self.problems.append(f'{source}: calls {symbol}')

    def check_instructions(self):
        """The suspicious lines of a disassembly of all object files, each with where it is."""
        obj = function = None
        for line in run(self.args.objdump, '-d', '--no-show-raw-insn', *self.clean).splitlines():
            match = SUSPECT_LINE.match(line)
            if match:
                if VECTOR_CODE.search(match[1]) and not self.allowed('insn:' + match[1].split()[0], self.source_of[obj]):
                    self.problems.append(f'{self.source_of[obj]}: {function}: {match[1]}')
            elif line.endswith('>:'):
                function = line.split('<', 1)[1][:-2]
            elif ':     file format' in line:
                obj = line.split(':     file format')[0]

    def report(self):
        numbers = {number for lines in self.allowances.values() for _, number in lines}
        for number in sorted(numbers - self.used):
            print(f'{self.args.allowed}:{number}: note: nothing needs this allowance in this build')
        for problem in sorted(set(self.problems)):
            print(f'error: {problem}', file=sys.stderr)
        if self.problems:
            sys.exit('Code beneath the translator must park the vector registers before it leaves that code: see '
                     f'docs/design.md 9.4 and {self.args.allowed}')


def main():
    parser = argparse.ArgumentParser(description='Checks code that may use general registers only.')
    for name in ('root', 'files', 'allowed', 'linker', 'nm', 'objdump', 'output'):
        parser.add_argument('--' + name, required=True)
    checker = Checker(parser.parse_args())
    checker.check_calls()
    checker.check_instructions()
    checker.report()


if __name__ == '__main__':
    main()
