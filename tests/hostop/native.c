/* Runs one instruction on the host with its registers loaded from a struct. */
#include <stdlib.h>
#include <string.h>

#include "base/host_memory.h"
#include "tests/hostop/fixture.h"

#define LOAD(n)  "vmovups " #n "*32(%[vec]), %%ymm" #n "\n\t"
#define STORE(n) "vmovups %%ymm" #n ", " #n "*32(%[vec])\n\t"
#define ALL(x)   x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)

/* The callee is the instruction and a ret; r12 to r15 hold what must survive it. */
static void call_with_state(struct native_state *state, const void *code)
{
    register uint8_t *vec __asm__("r12") = state->vec[0];
    register struct native_state *s __asm__("r13") = state;
    register const void *target __asm__("r14") = code;
    uint32_t host_mxcsr = 0x1f80;
    __asm__ volatile(
        ALL(LOAD) "ldmxcsr %c[mxcsr](%[s])\n\t"
                  "pushq %c[flags](%[s])\n\t"
                  "popfq\n\t"
                  "movq %c[rax](%[s]), %%rax\n\t"
                  "movq %c[rcx](%[s]), %%rcx\n\t"
                  "movq %c[rdx](%[s]), %%rdx\n\t"
                  "movq %c[rbx](%[s]), %%rbx\n\t"
                  "call *%[target]\n\t"
                  "movq %%rax, %c[rax](%[s])\n\t"
                  "movq %%rcx, %c[rcx](%[s])\n\t"
                  "movq %%rdx, %c[rdx](%[s])\n\t"
                  "pushfq\n\t"
                  "popq %c[flags](%[s])\n\t"
                  "stmxcsr %c[mxcsr](%[s])\n\t" ALL(STORE) "ldmxcsr %[host]\n\t"
                                                           "vzeroupper\n\t"
        :
        : [vec] "r"(vec), [s] "r"(s), [target] "r"(target), [host] "m"(host_mxcsr),
          [mxcsr] "i"(offsetof(struct native_state, mxcsr)), [flags] "i"(offsetof(struct native_state, rflags)),
          [rax] "i"(offsetof(struct native_state, rax)), [rcx] "i"(offsetof(struct native_state, rcx)),
          [rdx] "i"(offsetof(struct native_state, rdx)), [rbx] "i"(offsetof(struct native_state, rbx))
        : "rax", "rcx", "rdx", "rbx", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
          "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

void native_run(struct native_state *state, const char *bytes, size_t length)
{
    /* [fxrstor64 [r13 + fx]] instruction [fxsave64 [r13 + fx]; fninit] ret */
    static const uint8_t load_fx[] = { 0x49, 0x0f, 0xae, 0x8d }, store_fx[] = { 0x49, 0x0f, 0xae, 0x85 };
    static const uint8_t fninit[] = { 0xdb, 0xe3 };
    uint32_t offset = offsetof(struct native_state, fx);
    struct host_code code;
    struct error err;
    uint8_t *p;
    if (host_code_create(&code, PAGE_SIZE, &err))
        abort();
    p = code.write;
    if (state->use_x87) {
        state->fx.mxcsr = state->mxcsr;
        memcpy(state->fx.xmm[0], state->vec[0], 16); /* only xmm0 is compared in x87 and MMX tests */
        memcpy(p, load_fx, 4), memcpy(p + 4, &offset, 4), p += 8;
    }
    memcpy(p, bytes, length), p += length;
    if (state->use_x87) {
        memcpy(p, store_fx, 4), memcpy(p + 4, &offset, 4), p += 8;
        memcpy(p, fninit, 2), p += 2;
    }
    *p = 0xc3;
    call_with_state(state, code.execute);
    host_code_destroy(&code);
}
