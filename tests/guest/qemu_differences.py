"""Where QEMU 7.2's TCG does not do what the manuals (and processors) do, in the cases of this folder. A row has a
reason with the section that decides, the cases (IMAGE/NAME, with wildcards), and `skip` where QEMU does not survive
the case. The first row that matches counts."""

from typing import NamedTuple


class Row(NamedTuple):
    reason: str
    cases: list[str]
    skip: bool = False


ROWS = [
    # ---- What QEMU does not survive ----
    Row(
        "CR0 and CR4 are not checked: PG without PE, PG cleared in 64-bit code, PAE cleared in long mode, "
        "reserved bits of CR3 and CR4 (SDM Vol. 2B MOV to control registers)",
        ["system/cr0-paging-off-in-64-bit-code", "system/cr0-pg-without-pe", "system/cr0-pg-off-with-pcide",
         "system/cr3-bit-51", "system/cr3-bit-63-without-pcide", "system/cr4-reserved-bit-*",
         "system/cr4-pae-off-in-long-mode", "segments/cr0-pg-without-pe", "paging32/paging-mode-changed-while-on"],
        skip=True,
    ),
    Row(
        "bases of descriptor tables and of the TSS may be non-canonical (SDM Vol. 2A LGDT/LIDT; Vol. 2A LTR; Vol. "
        "3A 3.5.2)",
        ["system/lgdt-noncanonical-base", "system/lidt-noncanonical-base", "system/ltr-noncanonical-base"],
        skip=True,
    ),
    Row(
        "LTR of a null selector, and of a 16-bit TSS in long mode, is accepted (SDM Vol. 2A LTR)",
        ["system/ltr-null", "system/ltr-16-bit-tss-in-long-mode"],
        skip=True,
    ),
    Row(
        "a contributory exception while #GP is delivered ends in an endless loop, not in #DF or #PF (SDM Vol. 3A "
        "table 6-5)",
        ["delivery/fault-gp-then-np", "delivery/fault-gp-then-pf", "segments/fault-gp-then-np"],
        skip=True,
    ),
    Row(
        "EIP is not checked against the limit of CS (SDM Vol. 2A JMP, CALL; Vol. 2B RET; Vol. 3A 5.3)",
        ["segments/code-jmp-over-limit", "segments/code-call-over-limit", "segments/code-ret-over-limit"],
        skip=True,
    ),
    Row(
        "aborts: an instruction that begins in RAM and goes on where nothing is",
        ["paging/nowhere-execute-across"],
        skip=True,
    ),
    Row(
        "IA32_APIC_BASE cannot enable the APIC again after disabling it (SDM Vol. 3A 11.4.3: on processors "
        "without the 3-wire APIC bus it can)",
        ["apic/apic-disabled-by-msr"],
        skip=True,
    ),
    Row(
        "IPIs with vectors below 16 are sent, not noted in the ESR (SDM Vol. 3A 11.5.3)",
        ["apic/ipi-illegal-vector", "apic/ipi-error-interrupt"],
        skip=True,
    ),
    # ---- Control registers and MSRs ----
    Row(
        "an MSR that is not there reads as 0 and ignores writes (SDM Vol. 2B RDMSR, WRMSR: #GP)",
        ["system/msr-unknown-*", "system/msr-mtrrcap-is-read-only"],
    ),
    Row(
        "values of MSRs are not checked: canonical addresses, reserved bits and types (SDM Vol. 2B WRMSR; Vol. 3A "
        "2.2.1, 11.11, 11.12; Vol. 4)",
        ["system/msr-*-noncanonical", "system/msr-efer-*", "system/msr-pat-reserved-*", "system/msr-mtrr-*",
         "system/msr-apic-base-*", "system/msr-mcg-ctl-not-all-ones", "system/msr-mc0-status-not-zero",
         "system/msr-debugctl-reserved", "system/msr-tsc-aux-upper-half"],
    ),
    Row(
        "x2APIC registers read as 0 in xAPIC mode (SDM Vol. 3A 11.12.1.2)",
        ["system/msr-x2apic-while-xapic"],
    ),
    Row(
        "CR0 and CR8 are not checked (SDM Vol. 2B MOV to control registers; Vol. 3A 2.5)",
        ["system/cr0-upper-half", "system/cr0-nw-without-cd", "system/cr0-undefined-bits-read-zero",
         "system/cr8-too-large", "system/cr8-upper-half", "segments/cr0-*", "segments/cr4-pcide-outside-long-mode"],
    ),
    Row(
        "the base of an LDT may be non-canonical (SDM Vol. 2A LLDT; Vol. 3A 3.5.2)",
        ["system/lldt-noncanonical-base"],
    ),
    Row(
        "reserved bits of DR6 and DR7 can be set; there is no general detection (SDM Vol. 3B 18.2.3, 18.2.4)",
        ["system/dr6-all-ones", "system/dr7-reserved-bits", "system/dr7-general-detect"],
    ),
    Row(
        "RDPMC is #UD (SDM Vol. 2B RDPMC: #GP for a counter that is not there)",
        ["system/kernel-rdpmc-absent-counter"],
    ),
    Row(
        "CPL is looked at before OSXSAVE (SDM Vol. 2D XSETBV: without OSXSAVE the opcode is undefined)",
        ["system/xsetbv-without-osxsave-user"],
    ),
    Row(
        "WRGSBASE takes a non-canonical address (SDM Vol. 2D WRFSBASE/WRGSBASE)",
        ["system/fsgsbase-noncanonical"],
    ),
    # ---- Decoding ----
    Row(
        "reserved extensions of 8F and C7 are decoded as /0 (SDM Vol. 2D appendix A, table A-6; XOP is AMD's)",
        ["system/ud-pop-group1a-1", "system/ud-mov-c7-1"],
    ),
    Row(
        "LOCK is ignored where it is not allowed (SDM Vol. 2A LOCK: #UD)",
        ["system/lock-mov-*", "system/lock-test-memory", "system/lock-bt-memory", "system/lock-shl-memory",
         "system/lock-mul-memory", "system/lock-push", "system/lock-jmp", "system/lock-movs", "system/lock-x87",
         "system/lock-int3", "system/lock-hlt-user-ud-before-gp", "system/lock-illegal-before-page-fault"],
    ),
    Row(
        "the byte behind the fifteenth is fetched (SDM Vol. 3A 6.15, #GP: instruction length over 15 bytes)",
        ["system/length-16-before-absent-page"],
    ),
    Row(
        "a REX prefix counts though another prefix follows it (SDM Vol. 2A 2.2.1)",
        ["system/rex-before-legacy-prefix-is-ignored"],
    ),
    Row(
        "66h truncates near branches on Intel models too (SDM Vol. 2A JMP, CALL, RET: the operand size is 64 "
        "bits)",
        ["control/near-66h-*-intel", "soundness_operands/soundness-20-66h-near-branches-intel"],
    ),
    Row(
        "INT1 is not there (SDM Vol. 2A INT n/INTO/INT3/INT1)",
        ["delivery/int1-user", "delivery/int1-ignores-gate-dpl", "debug/step-int1"],
    ),
    Row(
        "instructions that CPUID does not offer are not all undefined: WAITPKG, RTM, XOP, TBM, LWP, SVM; RDSEED is "
        "offered and undefined (SDM Vol. 2, each instruction's page: #UD if the CPUID bit is 0; APM Vol. 3 likewise)",
        ["soundness_host/soundness-15-offered-or-undefined-*"],
    ),
    # ---- Error codes and delivery ----
    Row(
        "in long mode the error code for a gate is its offset, not its number (SDM Vol. 3A 6.13: the index is of "
        "the vector)",
        ["delivery/int-*", "delivery/int3-user-gate-dpl-0", "delivery/fault-ud-then-np",
         "delivery/fault-nm-then-np", "delivery/fault-bp-then-np"],
    ),
    Row(
        "EXT is missing in the error code when an exception is delivered through a bad gate (SDM Vol. 3A 6.13)",
        ["segments/fault-ud-then-np"],
    ),
    Row(
        "faults do not push RF = 1, nor does an event in the middle of a repeated instruction (SDM Vol. 3B "
        "18.3.1.1)",
        ["delivery/frame-rf-of-*fault-is-1", "debug/rf-step-mid-rep", "apic/apic-timer-interrupts-rep-stos"],
    ),
    Row(
        "a non-canonical stack address is #GP, not #SS (SDM Vol. 1 6.2.5; Vol. 3A 6.15, interrupt 12)",
        ["delivery/stack-frame-noncanonical-kernel", "delivery/stack-frame-below-high-half",
         "delivery/stack-ud-with-noncanonical-stack", "delivery/iret-stack-noncanonical",
         "paging/canonical-read-across-low-end-stack", "paging/canonical-push-*",
         "paging/canonical-pop-noncanonical", "paging/canonical-rbp-base-is-ss",
         "paging/canonical-rsp-index-none-is-ss", "paging/canonical-rbp-with-ds-prefix",
         "paging/canonical-enter-noncanonical", "paging/canonical-vector-stack", "debug/popf-noncanonical-stack",
         "soundness_access/soundness-01-bad-stacks-*", "soundness_access/soundness-03-edge-*-low-end-stack",
         "soundness_access/soundness-03-edge-*-high-start-stack"],
    ),
    Row(
        "loading a code segment through a gate does not set its accessed bit (SDM Vol. 3A 3.4.5.1)",
        ["delivery/gate-code-accessed-bit"],
    ),
    # ---- Control transfers ----
    Row(
        "a branch to a non-canonical address is taken, and the fetch faults (SDM Vol. 2A JMP, CALL; Vol. 2B RET, "
        "SYSRET, SYSEXIT; Vol. 2A INT n, IRET: #GP before anything changes)",
        ["delivery/gate-offset-noncanonical", "delivery/iret-rip-noncanonical*", "control/near-*-noncanonical*",
         "control/near-relative-jmp-past-low-end", "control/far-jmp-64-noncanonical-intel",
         "control/gate-call-noncanonical", "control/retf-noncanonical", "control/sysret-noncanonical-intel",
         "control/sysexit-noncanonical-*-intel",
         "soundness_access/soundness-01-bad-targets-*", "soundness_operands/soundness-20-sysret-noncanonical-intel",
         "soundness_confinement/soundness-05-*"],
    ),
    Row(
        "SYSCALL clears arithmetic flags that FMASK does not name (SDM Vol. 2B SYSCALL: RFLAGS AND NOT IA32_FMASK)",
        ["soundness_confinement/soundness-07-fmask-*"],
    ),
    Row(
        "the instruction pointer of #SS for a call gate's non-canonical stack is not that of the CALL (SDM Vol. "
        "2A CALL)",
        ["control/gate-call-stack-noncanonical"],
    ),
    Row(
        "code segments with L and D both set are accepted (SDM Vol. 3A 5.2.1)",
        ["delivery/iret-cs-l-and-d", "control/far-jmp-l-and-d"],
    ),
    Row(
        "a null SS is accepted whatever its RPL (SDM Vol. 2A IRET, MOV: 64-bit mode exceptions)",
        ["delivery/iret-kernel-null-ss-wrong-rpl", "control/seg-load-ss-null-kernel-rpl"],
    ),
    Row(
        "an SS that is not present is #NP or #TS (SDM Vol. 2A IRET; Vol. 3A 6.15, interrupts 10 and 12: #SS)",
        ["delivery/iret-ss-not-present", "segments/inner-stack-not-present-*"],
    ),
    Row(
        "SYSCALL loses arithmetic flags (SDM Vol. 2B SYSCALL: RFLAGS AND NOT IA32_FMASK)",
        ["control/syscall-state"],
    ),
    Row(
        "SYSCALL and SYSRET work in compatibility and protected mode on Intel models (SDM Vol. 2B SYSCALL, "
        "SYSRET: #UD)",
        ["control/syscall-from-compat-intel", "control/sysret-from-compat-intel",
         "segments/syscall-in-32-bit-mode-intel"],
    ),
    Row(
        "SYSRET sets VM (SDM Vol. 2B SYSRET: R11 AND 3C7FD7H)",
        ["control/sysret-to-64"],
    ),
    Row(
        "SYSENTER_CS with RPL bits only is not null (SDM Vol. 2B SYSENTER: bits 15:2 are 0)",
        ["control/sysenter-null-cs-intel"],
    ),
    Row(
        "SYSEXIT to compatibility mode keeps the upper half of RSP (SDM Vol. 2B SYSEXIT)",
        ["control/sysexit-to-compat-upper-halves-intel"],
    ),
    # ---- Segmentation ----
    Row(
        "in long mode LAR and LSL accept what only the legacy modes have (SDM Vol. 2A tables 3-53, 3-54)",
        ["control/lar-16-bit-*", "control/lar-task-gate", "control/lsl-16-bit-tss"],
    ),
    Row(
        "limits and types of segments are not checked (SDM Vol. 3A 5.3, 5.5)",
        ["control/compat-data-limit*", "control/compat-ss-limit-is-ss-fault", "control/compat-read-only-data",
         "control/compat-expand-down", "control/compat-null-ds", "control/compat-execute-only-code",
         "control/compat-code-limit*", "segments/limit-*", "segments/expand-down-*", "segments/stack-limit-*",
         "segments/stack-expand-down", "segments/type-read-only-*", "segments/type-execute-only-read",
         "segments/type-null-*", "segments/bound-limit-fault", "segments/code-instruction-over-limit",
         "segments/code-run-over-limit", "segments/gate-offset-beyond-limit",
         "segments/gate-parameters-beyond-caller-stack", "segments/inner-stack-too-small-*",
         "segments/iret-offset-beyond-limit", "segments/verr-memory-limit"],
    ),
    # ---- Paging ----
    Row(
        "read-modify-writes fault as reads (SDM Vol. 3A 4.7: W/R is set for an access that writes; processors do "
        "the read with the intent to write)",
        ["system/lock-legal-page-fault", "control/compat-far-jmp-to-64", "paging/kernel-*absent",
         "paging/user-*absent", "paging/user-*kernel-r?", "paging/kernel-smap-*user-r?", "paging/key-*",
         "paging/ad-fetch", "paging/cross-xchg-second-absent", "paging32/*-absent", "paging32/*-user-kernel-r?",
         "paging32/*-directory-supervisor",
         "soundness_access/soundness-03-edge-*-absent-rmw", "soundness_access/soundness-03-edge-user-*-supervisor-rmw",
         "soundness_groups/soundness-04-random-groups-*-absent",
         "soundness_groups/soundness-04-random-groups-user-second-supervisor",
         "soundness_groups/soundness-02-random-groups-compatibility",
         "soundness_loops/soundness-04-loops-*-absent-*", "soundness_loops/soundness-04-loops-second-supervisor-*",
         "soundness_loops_events/soundness-04-loops-remapped-read-modify-write-kernel"],
    ),
    Row(
        "faults by reserved bits have P = 0 (SDM Vol. 3A 4.7: RSVD implies P)",
        ["paging/level-*reserved*", "paging/large-*-reserved-*", "paging/nx-bit-without-nxe-is-reserved",
         "paging32/pse-reserved-bit-21", "paging32/pae-*reserved-bit-52", "paging32/pae-*reserved-bit-6?",
         "paging32/pae-2m-reserved-bit-14"],
    ),
    Row(
        "accessed bits of a walk that is then refused: either is allowed (SDM Vol. 3A 4.8 says when they must be "
        "set, not when they must not)",
        ["paging/ad-denied-*"],
    ),
    Row(
        "#GP for a non-canonical end comes after #PF for the beginning (SDM Vol. 3A table 6-2; Vol. 1 3.3.7.1)",
        ["paging/canonical-gp-before-pf"],
    ),
    Row(
        "CLFLUSH does not check its address (SDM Vol. 2A CLFLUSH)",
        ["paging/canonical-clflush"],
    ),
    Row(
        "SGDT writes the limit before it finds that the base cannot be written (SDM Vol. 3A 6.5: faults are "
        "restartable)",
        ["paging/cross-sgdt-second-read-only"],
    ),
    Row(
        "returns from CPL 3 pop with supervisor accesses (SDM Vol. 3A 4.6, 4.7: U/S follows CPL)",
        ["paging/multi-iretq-partly-absent", "paging/multi-retf-partly-absent"],
    ),
    Row(
        "REPE SCAS and CMPS leave the flags of the last comparison when they fault (SDM Vol. 2B REP: restored to "
        "before the instruction)",
        ["paging/string-cmps-keeps-flags", "paging/string-scas-keeps-flags"],
    ),
    Row(
        "what is not there reads as 0 (ICH9 data sheet 5.1: master abort, reads return ones)",
        ["paging/nowhere-*",
         "soundness_groups/soundness-04-random-groups-*-no-memory"],
    ),
    Row(
        "PDPTEs are read from memory at each walk and not checked when they are loaded (SDM Vol. 3A 4.4.1)",
        ["paging32/pae-accessed-dirty", "paging32/pae-pdpte-*"],
    ),
    # ---- Debugging ----
    Row(
        "DR6 notes what matches the next instruction too (SDM Vol. 3B 18.2.3: conditions met when the exception "
        "is generated)",
        ["debug/break-code-and-step"],
    ),
    Row(
        "with TF a data breakpoint is reported an instruction late (SDM Vol. 3B 18.3.1.2: a trap after the "
        "access)",
        ["debug/break-and-step"],
    ),
    Row(
        "MOV SS does not hold off breakpoints (SDM Vol. 3A 6.8.3)",
        ["debug/break-code-after-mov-ss-is-lost", "debug/break-on-mov-ss-*"],
    ),
    Row(
        "breakpoint ranges are not aligned to their length, and only the first that matches is reported (SDM Vol. "
        "3B 18.2.5)",
        ["debug/break-write-?-unaligned-address", "debug/break-write-1-before-dword",
         "debug/break-two-by-one-write"],
    ),
    Row(
        "an I/O breakpoint in a repeated OUTS comes before the count is updated (SDM Vol. 3B 18.3.1.2)",
        ["debug/break-io-rep-outsb"],
    ),
    Row(
        "RF outlives its instruction (SDM Vol. 3B 18.3.1.1)",
        ["debug/rf-cleared-after-one-instruction"],
    ),
    Row(
        "LSS and STI hold off the single-step trap (SDM Vol. 3A 6.8.3: only MOV SS and POP SS do)",
        ["debug/step-lss-no-shadow", "debug/step-sti-no-debug-shadow", "apic/recognition-step-trap-first"],
    ),
    # ---- Floating point and vectors ----
    Row(
        "MMX instructions do not look at TS, EM, or pending x87 exceptions in the same order as processors, EMMS "
        "and the conversions from and to MMX not at all (SDM Vol. 3A 12.1, 12.5; Vol. 2A tables 2-26, 2-27)",
        ["vector/*-emms", "vector/*-cvt-mmx", "vector/em-ts-mmx", "vector/mf-at-*mmx", "vector/mf-at-cvtpi2ps"],
    ),
    Row(
        "#NM before #UD: EM is looked at after TS (SDM Vol. 3A 2.5: with EM, SSE instructions are undefined)",
        ["vector/em-ts-sse*"],
    ),
    Row(
        "XSAVE does not look at TS (SDM Vol. 2D XSAVE)",
        ["vector/*-xsave"],
    ),
    Row(
        "VEX instructions look at EM (SDM Vol. 2A table 2-14)",
        ["vector/avx-em",
         "soundness_vector/soundness-16-controls-avx*"],
    ),
    Row(
        "x87 exceptions are reported at FWAIT and after unmasking at best, not by the next waiting instruction "
        "(SDM Vol. 1 8.7)",
        ["vector/mf-*"],
    ),
    Row(
        "an unmasked x87 exception of the operands does not keep the stack as it was (SDM Vol. 1 8.5.3)",
        ["soundness_vector/soundness-16-x87-exception-in-turns"],
    ),
    Row(
        "VMASKMOV and VPMASKMOV with an empty mask load something, and a store that faults has written the elements "
        "before (SDM Vol. 2C VMASKMOV, VPMASKMOV; Vol. 3A 6.5: faults are restartable)",
        ["soundness_operands/soundness-18-v*-load", "soundness_operands/soundness-18-v*-store"],
    ),
    Row(
        "a store of more than 8 bytes that crosses a page end has written its first part when the second faults (SDM "
        "Vol. 3A 6.5: faults are restartable)",
        ["soundness_access/soundness-03-edge-*-second-absent-wide",
         "soundness_access/soundness-03-edge-*-second-read-only-wide",
         "soundness_access/soundness-03-edge-user-second-supervisor-wide",
         "soundness_access/soundness-03-edge-*-low-end-wide", "soundness_access/soundness-03-edge-*-absent-avx",
         "soundness_access/soundness-03-edge-*-second-read-only-avx",
         "soundness_access/soundness-03-edge-user-second-supervisor-avx",
         "soundness_access/soundness-03-edge-*-low-end-avx"],
    ),
    Row(
        "unmasked SIMD exceptions are never raised (SDM Vol. 1 11.5)",
        ["vector/xm-*", "vector/avx-mxcsr-exception",
         "soundness_vector/soundness-16-simd-exception-in-turns"],
    ),
    Row(
        "reserved bits of MXCSR are ignored (SDM Vol. 1 10.2.3, 10.5.1.2, 13.8)",
        ["vector/mxcsr-reserved-bit", "vector/fxrstor-mxcsr-reserved", "vector/xrstor-mxcsr-reserved"],
    ),
    Row(
        "FXSAVE and FXRSTOR touch the first byte first (not specified; processors probe the last byte)",
        ["vector/fxsave-absent", "vector/fxrstor-read-is-not-a-write"],
    ),
    Row(
        "alignment is never checked (SDM Vol. 3A 6.15, interrupt 17)",
        ["vector/ac-*",
         "soundness_flags/soundness-16-ac-in-turns", "soundness_flags/soundness-16-ac-set-in-the-middle"],
    ),
    Row(
        "WRFSBASE and WRGSBASE take addresses that are not canonical (SDM Vol. 2B WRFSBASE)",
        ["soundness_system/soundness-15-wr?sbase-*"],
    ),
    Row(
        "bit strings that are modified are read first: faults say that they were reads (SDM Vol. 3A 4.7: W/R is set if "
        "the access was a write)",
        ["soundness_system/soundness-04-bits-after-clac", "soundness_system/soundness-03-bit-string-absent",
         "soundness_system/soundness-03-bit-string-before-the-page"],
    ),
    # ---- Devices ----
    Row(
        "software-disabling the APIC does not mask its LVT (SDM Vol. 3A 11.4.7.2)",
        ["apic/apic-software-disable-masks-lvt"],
    ),
    Row(
        "reserved bits of redirection entries can be written (82093AA 3.2.4)",
        ["devices/ioapic-registers"],
    ),
    Row(
        "PF of the RTC's register C only moves with PIE set (MC146818A: the flag is independent of the enable)",
        ["devices/rtc-flags-clear-on-read"],
    ),
    Row(
        "the TSC cannot be written (SDM Vol. 3B 18.17.3)",
        ["apic/tsc-write-and-adjust"],
    ),
    Row(
        "reads of more than one byte that are not aligned are refused where nothing is, and give 0 (ICH9 data "
        "sheet 5.1: ones)",
        ["io/io-bitmap-word-across-byte", "io/io-bitmap-dword-across-byte"],
    ),
]
