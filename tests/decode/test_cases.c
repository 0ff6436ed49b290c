/* Cases that are worth their own line: prefix rules, modes, limits, truncation, and insn_format's text.
 *
 * EIDOLON_SEED, EIDOLON_DECODE_CASES (percent). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "generate.h"

struct text_case {
    enum code_size code_size;
    const char *bytes, *text; /* text NULL: invalid */
};

static size_t parse(const char *hex, uint8_t *bytes)
{
    size_t count = 0;
    unsigned value;
    int used;

    for (; sscanf(hex, "%x%n", &value, &used) == 1; hex += used)
        bytes[count++] = (uint8_t)value;
    return count;
}

/* clang-format off */
static const struct text_case text_cases[] = {
    /* REX: only directly before the opcode (SDM Vol. 2A 2.2.1) */
    { CODE64, "48 89 e5", "mov rbp, rsp" },
    { CODE64, "48 66 89 e5", "mov bp, sp" },
    { CODE64, "66 48 89 e5", "mov rbp, rsp" },
    { CODE64, "40 8a e0", "mov spl, al" },
    { CODE64, "8a e0", "mov ah, al" },
    { CODE64, "44 8a e0", "mov r12b, al" },
    { CODE32, "48", "dec eax" },
    { CODE16, "40", "inc ax" },
    /* operand size: 66, D64, F64 */
    { CODE64, "50", "push rax" },
    { CODE64, "66 50", "push ax" },
    { CODE64, "41 50", "push r8" },
    { CODE64, "e8 00 00 00 00", "call $+0x5" },
    { CODE64, "66 e8 00 00 00 00", "call $+0x6" },
    { CODE32, "66 e8 00 00", "call $+0x4" },
    { CODE16, "e8 00 00", "call $+0x3" },
    { CODE16, "66 e8 00 00 00 00", "call $+0x6" },
    { CODE64, "48 b8 01 02 03 04 05 06 07 08", "mov rax, 0x807060504030201" },
    { CODE64, "48 c7 c0 ff ff ff ff", "mov rax, -0x1" },
    { CODE64, "6a 80", "push -0x80" },
    { CODE64, "48 63 c1", "movsxd rax, ecx" },
    { CODE32, "63 c1", "arpl cx, ax" },
    /* addresses */
    { CODE64, "8b 05 10 00 00 00", "mov eax, dword ptr [rip+0x10]" },
    { CODE64, "67 8b 05 10 00 00 00", "mov eax, dword ptr [eip+0x10]" },
    { CODE32, "8b 05 10 00 00 00", "mov eax, dword ptr [0x10]" },
    { CODE64, "8b 04 25 10 00 00 00", "mov eax, dword ptr [0x10]" },
    { CODE64, "41 8b 04 25 10 00 00 00", "mov eax, dword ptr [0x10]" }, /* no base, whatever REX.B is */
    { CODE64, "41 8b 45 00", "mov eax, dword ptr [r13]" },
    { CODE64, "43 8b 04 24", "mov eax, dword ptr [r12+r12]" },
    { CODE64, "8b 04 24", "mov eax, dword ptr [rsp]" },
    { CODE16, "8b 42 fe", "mov ax, word ptr [bp+si-0x2]" },
    { CODE16, "8b 06 34 12", "mov ax, word ptr [0x1234]" },
    { CODE16, "67 8b 04 88", "mov ax, word ptr [eax+ecx*4]" },
    { CODE64, "48 a1 11 22 33 44 55 66 77 88", "mov rax, qword ptr [-0x778899aabbccddef]" },
    { CODE64, "67 a0 ff ff ff ff", "mov al, byte ptr [0xffffffff]" },
    { CODE32, "a0 ff ff ff ff", "mov al, byte ptr [0xffffffff]" },
    /* segments: in 64-bit mode only FS and GS count, also before one that does not */
    { CODE64, "64 8b 00", "mov eax, dword ptr fs:[rax]" },
    { CODE64, "64 2e 8b 00", "mov eax, dword ptr fs:[rax]" },
    { CODE64, "2e 8b 00", "mov eax, dword ptr [rax]" },
    { CODE32, "2e 8b 00", "mov eax, dword ptr cs:[eax]" },
    { CODE32, "64 26 8b 00", "mov eax, dword ptr es:[eax]" },
    /* mandatory prefixes: F3 and F2 before 66, the last of the two */
    { CODE64, "f3 0f b8 c1", "popcnt eax, ecx" },
    { CODE64, "66 f3 0f b8 c1", "popcnt ax, cx" },
    { CODE64, "f2 0f 38 f1 c1", "crc32 eax, ecx" },
    { CODE64, "66 f2 0f 38 f1 c1", "crc32 eax, cx" },
    { CODE64, "66 0f 38 f1 01", "movbe word ptr [rcx], ax" },
    { CODE64, "f2 f3 0f 10 c1", "movss xmm0, xmm1" },
    { CODE64, "f3 f2 0f 10 c1", "movsd xmm0, xmm1" },
    { CODE64, "66 0f 6e c1", "movd xmm0, ecx" },
    { CODE64, "66 48 0f 6e c1", "movq xmm0, rcx" },
    { CODE64, "f3 0f 1e fa", "endbr64" },
    { CODE64, "0f 1e fa", "nop edx" },
    { CODE64, "f3 0f bc c1", "tzcnt eax, ecx" },
    { CODE64, "0f bc c1", "bsf eax, ecx" },
    { CODE64, "f3 0f 60 c1", NULL },
    { CODE64, "66 0f c3 01", NULL },
    /* 90 */
    { CODE64, "90", "nop" },
    { CODE64, "41 90", "xchg r8d, eax" },
    { CODE64, "48 90", "nop" },
    { CODE64, "f3 90", "pause" },
    { CODE64, "f3 41 90", "pause" }, /* as processors do */
    { CODE64, "91", "xchg ecx, eax" },
    /* LOCK */
    { CODE64, "f0 48 0f b1 0a", "lock cmpxchg qword ptr [rdx], rcx" },
    { CODE64, "f0 01 00", "lock add dword ptr [rax], eax" },
    { CODE64, "f0 01 c0", NULL },
    { CODE64, "f0 03 00", NULL },
    { CODE64, "f0 89 00", NULL },
    { CODE64, "f0 0f 0b", NULL },
    /* control registers: mod is ignored; CR1, 5, 6, 7, 9 to 15 are not there */
    { CODE64, "0f 20 c0", "mov rax, cr0" },
    { CODE64, "0f 20 00", "mov rax, cr0" },
    { CODE32, "0f 22 d8", "mov cr3, eax" },
    { CODE64, "44 0f 20 c0", "mov rax, cr8" },
    { CODE64, "0f 20 c8", NULL },
    { CODE64, "44 0f 20 c8", NULL },
    { CODE64, "44 0f 21 c0", NULL },
    { CODE64, "8e c8", NULL }, /* mov cs */
    { CODE64, "8e f0", NULL },
    { CODE64, "8e d0", "mov ss, ax" },
    /* not in 64-bit mode */
    { CODE64, "06", NULL }, { CODE64, "27", NULL }, { CODE64, "60", NULL }, { CODE64, "82 c0 01", NULL },
    { CODE64, "9a 00 00 00 00 00 00", NULL }, { CODE64, "d4 0a", NULL }, { CODE64, "d6", NULL },
    { CODE32, "82 c0 01", "add al, 0x1" },
    { CODE32, "d6", "salc" },
    { CODE32, "9a 78 56 34 12 08 00", "call 0x8:0x12345678" },
    { CODE16, "ea 34 12 00 f0", "jmp 0xf000:0x1234" },
    { CODE32, "0f 01 f8", NULL },
    { CODE64, "0f 01 f8", "swapgs" },
    /* C4, C5, 62 outside 64-bit mode */
    { CODE32, "c5 01", "lds eax, fword ptr [ecx]" },
    { CODE32, "c4 01", "les eax, fword ptr [ecx]" },
    { CODE32, "62 01", "bound eax, qword ptr [ecx]" },
    { CODE32, "c5 f8 28 c1", "vmovaps xmm0, xmm1" },
    { CODE64, "c5 f8 28 c1", "vmovaps xmm0, xmm1" },
    { CODE64, "c4 41 7c 28 ff", "vmovaps ymm15, ymm15" },
    { CODE64, "66 c5 f8 28 c1", NULL },
    { CODE64, "48 c5 f8 28 c1", NULL },
    { CODE64, "f0 c5 f8 28 c1", NULL },
    { CODE64, "c5 f0 28 c1", NULL }, /* vvvv not 1111b */
    { CODE64, "c4 e0 78 28 c1", NULL }, /* map 0 */
    { CODE64, "c4 e2 e9 92 04 0d 00 00 00 00", "vgatherdpd xmm0, qword ptr [xmm1], xmm2" },
    { CODE64, "c4 e2 f9 92 04 0d 00 00 00 00", NULL }, /* destination and mask the same */
    /* EVEX */
    { CODE64, "62 f1 7c 48 58 c1", "vaddps zmm0, zmm0, zmm1" },
    { CODE64, "62 f1 7c 18 58 c1", "vaddps zmm0, zmm0, zmm1" }, /* rounding: always 512 bits */
    { CODE64, "62 f1 7c 4a 58 40 01", "vaddps zmm0{k2}, zmm0, zmmword ptr [rax+0x40]" }, /* disp8 * 64 */
    { CODE64, "62 f1 7c 58 58 40 01", "vaddps zmm0, zmm0, dword ptr [rax+0x4]" },
    { CODE64, "62 a1 7c 40 58 c1", "vaddps zmm16, zmm16, zmm17" },
    { CODE64, "62 f1 7c c8 58 c1", NULL }, /* {z} without a mask */
    { CODE64, "62 f1 7c 68 58 c1", NULL }, /* L'L = 3 */
    { CODE64, "62 f2 7d 48 92 04 05 00 00 00 00", NULL }, /* gather without a mask */
    { CODE32, "62 f1 7c 40 58 c1", NULL }, /* V' */
    /* x87 */
    { CODE64, "d8 c1", "fadd st(0), st(1)" },
    { CODE64, "dc c1", "fadd st(1), st(0)" },
    { CODE64, "dd 00", "fld qword ptr [rax]" },
    { CODE64, "db 28", "fld tbyte ptr [rax]" },
    { CODE64, "df e0", "fnstsw ax" },
    { CODE64, "d9 d1", NULL },
    { CODE64, "db e5", NULL },
    /* XOP, 3DNow! and other empty places */
    { CODE64, "8f e9 78 c2 c1", NULL }, { CODE64, "0f 0f c1 9e", NULL }, { CODE64, "0f 0e", NULL }, { CODE64, "0f 24 c0", NULL },
    { CODE64, "8f c8", NULL }, { CODE64, "8f c0", "pop rax" }, { CODE64, "c6 c8 00", NULL }, { CODE64, "ff f8", NULL },
    { CODE64, "ff 28", "jmp fword ptr [rax]" }, { CODE64, "48 ff 28", "jmp tbyte ptr [rax]" }, { CODE64, "ff e8", NULL },
    { CODE64, "0f 0b", "ud2" }, { CODE64, "0f b9 c1", "ud1 eax, ecx" }, { CODE64, "0f ff c1", "ud0 eax, ecx" },
    /* strings */
    { CODE64, "f3 48 a5", "rep movsd" },
    { CODE64, "f2 ae", "repne scasb" },
};
/* clang-format on */

Test(cases, texts)
{
    unsigned failed = 0;

    for (size_t i = 0; i < ARRAY_SIZE(text_cases); i++) {
        const struct text_case *c = &text_cases[i];
        uint8_t bytes[INSN_MAX_LENGTH];
        struct insn insn;
        char text[160] = "(invalid)";
        size_t count = parse(c->bytes, bytes);
        enum decode_status status = insn_decode(bytes, count, c->code_size, &insn);
        bool right = status == (c->text ? DECODE_OK : DECODE_INVALID);
        if (status == DECODE_OK)
            right = right && !strcmp(insn_format(&insn, text, sizeof(text)), c->text) && insn.length == count;
        if (!right) {
            fprintf(stderr, "%u-bit %s: status %u, %u of %zu bytes, '%s', expected '%s'\n", 16u << c->code_size,
                    c->bytes, status, insn.length, count, text, c->text ? c->text : "(invalid)");
            failed++;
        }
    }
    cr_assert_eq(failed, 0);
}

/* #GP beyond 15 bytes (SDM Vol. 3A 6.15, #GP), however many there are. */
Test(cases, fifteen_bytes)
{
    uint8_t bytes[32];
    struct insn insn;

    memset(bytes, 0x66, sizeof(bytes));
    for (unsigned prefixes = 0; prefixes <= 16; prefixes++) {
        bytes[prefixes] = 0x90;
        cr_assert_eq(insn_decode(bytes, sizeof(bytes), CODE64, &insn), prefixes <= 14 ? DECODE_OK : DECODE_TOO_LONG);
        cr_assert_eq(insn.length, prefixes <= 14 ? prefixes + 1 : 15);
        bytes[prefixes] = 0x66;
    }
    /* Ten prefixes and a five-byte instruction fit, eleven do not. */
    memcpy(bytes + 10, (const uint8_t[]){ 0xe8, 0, 0, 0, 0 }, 5);
    cr_assert_eq(insn_decode(bytes, sizeof(bytes), CODE64, &insn), DECODE_OK);
    memset(bytes, 0x66, sizeof(bytes));
    memcpy(bytes + 11, (const uint8_t[]){ 0xe8, 0, 0, 0, 0 }, 5);
    cr_assert_eq(insn_decode(bytes, sizeof(bytes), CODE64, &insn), DECODE_TOO_LONG);
}

/* For every number of bytes given: TRUNCATED until enough are there; once INVALID, more bytes do not help; nothing
 * is read behind the end (the bytes lie before an unmapped page). */
static void check_truncation(uint8_t *page_end, const uint8_t *bytes, enum code_size code_size)
{
    struct insn whole, part;
    enum decode_status status = insn_decode(bytes, INSN_MAX_LENGTH, code_size, &whole);
    bool invalid = false;

    for (unsigned count = 0; count <= INSN_MAX_LENGTH; count++) {
        uint8_t *start = page_end - count;
        enum decode_status partial;
        memcpy(start, bytes, count);
        partial = insn_decode(start, count, code_size, &part);
        if (status == DECODE_OK)
            cr_assert_eq(partial, count < whole.length ? DECODE_TRUNCATED : DECODE_OK,
                         "%u of %u bytes of %s, seed %#llx", count, whole.length, whole.row->mnemonic,
                         (unsigned long long)case_seed());
        else if (status == DECODE_INVALID)
            cr_assert(partial == DECODE_INVALID || (partial == DECODE_TRUNCATED && !invalid),
                      "opcode %02x, %u bytes, seed %#llx", whole.opcode, count, (unsigned long long)case_seed());
        invalid |= partial == DECODE_INVALID;
        cr_assert_leq(part.length, count);
    }
}

Test(cases, truncation)
{
    struct random random = { case_seed() + 4 };
    uint8_t bytes[GENERATED_BYTES], *page;

    page = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(page, MAP_FAILED);
    cr_assert_eq(mprotect(page + PAGE_SIZE, PAGE_SIZE, PROT_NONE), 0);
    for (unsigned k = case_count(100000); k > 0; k--) {
        generate_row(&random, &insn_rows[random_below(&random, insn_row_count)], (enum code_size)(k % 3), bytes);
        check_truncation(page + PAGE_SIZE, bytes, (enum code_size)(k % 3));
        generate_noise(&random, bytes);
        check_truncation(page + PAGE_SIZE, bytes, (enum code_size)(k % 3));
    }
    munmap(page, 2 * PAGE_SIZE);
}

/* Every first operand that the engines rely on is where they expect it. */
Test(cases, implicit_operands)
{
    static const struct {
        const char *bytes;
        unsigned count;
        uint8_t regs[INSN_MAX_OPERANDS];
    } cases[] = {
        { "48 f7 e1", 3, { REG_RCX, REG_RAX, REG_RDX } },                   /* mul rcx */
        { "48 0f b1 d1", 3, { REG_RCX, REG_RDX, REG_RAX } },                /* cmpxchg rcx, rdx */
        { "48 0f c7 08", 5, { 0, REG_RAX, REG_RDX, REG_RBX, REG_RCX } },    /* cmpxchg16b [rax] */
        { "66 0f 38 14 c1", 3, { 0, 1, 0 } },                               /* blendvps xmm0, xmm1, <xmm0> */
        { "66 0f 3a 61 c1 00", 6, { 0, 1, 0, REG_RAX, REG_RDX, REG_RCX } }, /* pcmpestri */
        { "0f a2", 4, { REG_RAX, REG_RCX, REG_RBX, REG_RDX } },             /* cpuid */
        { "a4", 2, { REG_RDI, REG_RSI } },                                  /* movsb */
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t bytes[INSN_MAX_LENGTH];
        struct insn insn;
        cr_assert_eq(insn_decode(bytes, parse(cases[i].bytes, bytes), CODE64, &insn), DECODE_OK);
        cr_assert_eq(insn.operand_count, cases[i].count, "%s", cases[i].bytes);
        for (unsigned n = 0; n < insn.operand_count; n++)
            cr_assert_eq(insn.operands[n].reg, cases[i].regs[n], "%s, operand %u", cases[i].bytes, n);
    }
}
