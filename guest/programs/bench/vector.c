/* Floating point and vectors: SSE2 as compilers use it for plain C, AVX2, x87, and the C library's memcpy.
 * Static, -O2 for any x86-64; only matmul_avx2 needs more, and says so when it is missing. (No FMA: QEMU 7.2 takes a thousand
 * times as long as a CPU for one, and would make any mean look good.) */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 96 };

struct matrices {
    double a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
};

static void *matmul_setup(void)
{
    struct matrices *m = bench_alloc(sizeof(*m));
    uint32_t x = 5;

    for (unsigned i = 0; i < SIDE * SIDE; i++) {
        m->a[i / SIDE][i % SIDE] = bench_random(&x) / 4294967296.0;
        m->b[i / SIDE][i % SIDE] = bench_random(&x) / 4294967296.0 - 0.5;
    }
    return m;
}

/* Inner loops over rows, so that the compiler vectorizes without reordering sums. */
#define MATMUL_BODY(m)                                                                                                 \
    memset((m)->c, 0, sizeof((m)->c));                                                                                 \
    for (unsigned i = 0; i < SIDE; i++) {                                                                              \
        for (unsigned k = 0; k < SIDE; k++) {                                                                          \
            double factor = (m)->a[i][k];                                                                              \
                                                                                                                       \
            for (unsigned j = 0; j < SIDE; j++)                                                                        \
                (m)->c[i][j] += factor * (m)->b[k][j];                                                                 \
        }                                                                                                              \
    }

__attribute__((optimize("O3"))) static uint64_t matmul_unit(void *data)
{
    struct matrices *m = data;

    for (unsigned turn = 0; turn < 4; turn++) {
        MATMUL_BODY(m)
    }
    return bench_hash(BENCH_HASH, m->c, sizeof(m->c) / 8);
}

__attribute__((optimize("O3"), target("avx2"))) static void matmul_avx2(struct matrices *m)
{
    MATMUL_BODY(m)
}

static uint64_t matmul_avx2_unit(void *data)
{
    struct matrices *m = data;

    if (!__builtin_cpu_supports("avx2")) {
        fprintf(stderr, "bench: this CPU has no AVX2\n");
        exit(4);
    }
    for (unsigned turn = 0; turn < 8; turn++)
        matmul_avx2(m);
    return bench_hash(BENCH_HASH, m->c, sizeof(m->c) / 8);
}

/* Five bodies, scalar doubles: additions, multiplications, a square root and a division for each pair. */
enum { BODIES = 5 };

struct body {
    double position[3], velocity[3], mass;
};

static void nbody_step(struct body *bodies, double dt)
{
    for (unsigned i = 0; i < BODIES; i++) {
        for (unsigned j = i + 1; j < BODIES; j++) {
            double d[3], distance = 0, magnitude;

            for (unsigned k = 0; k < 3; k++) {
                d[k] = bodies[i].position[k] - bodies[j].position[k];
                distance += d[k] * d[k];
            }
            magnitude = dt / (distance * __builtin_sqrt(distance));
            for (unsigned k = 0; k < 3; k++) {
                bodies[i].velocity[k] -= d[k] * bodies[j].mass * magnitude;
                bodies[j].velocity[k] += d[k] * bodies[i].mass * magnitude;
            }
        }
    }
    for (unsigned i = 0; i < BODIES; i++) {
        for (unsigned k = 0; k < 3; k++)
            bodies[i].position[k] += dt * bodies[i].velocity[k];
    }
}

static uint64_t nbody_unit(void *data)
{
    struct body bodies[BODIES];

    (void)data;
    for (unsigned i = 0; i < BODIES; i++) {
        bodies[i] = (struct body){ .position = { i * 3.1, 1.5 * (i % 3), 0.7 * (double)i * i - 2 },
                                   .velocity = { 0.1 * i, 0.3 - 0.1 * i, 0.05 },
                                   .mass = 1.0 / (1 + i) };
    }
    for (unsigned i = 0; i < 20000; i++)
        nbody_step(bodies, 0.001);
    return bench_hash(BENCH_HASH, bodies, sizeof(bodies));
}

/* x87: a continued logistic map and a polynomial in 80 bits. */
static uint64_t long_double_unit(void *data)
{
    long double x = 0.3L, sum = 0;
    uint64_t mantissa;

    (void)data;
    for (unsigned i = 0; i < 200000; i++) {
        x = 3.9L * x * (1 - x);
        sum += ((x * 0.25L + 1.5L) * x - 0.75L) * x + 1 / (1 + x);
    }
    memcpy(&mantissa, &sum, 8); /* the other bytes are padding and exponent */
    return mantissa;
}

/* Single precision, 4 pixels at a time as the compiler can: compares, masks, conversions. */
__attribute__((optimize("O3"))) static uint64_t mandelbrot_unit(void *data)
{
    uint64_t total = 0;

    (void)data;
    for (unsigned row = 0; row < 64; row++) {
        float ci = (float)row / 32 - 1;
        float zr[64] = { 0 }, zi[64] = { 0 };
        int32_t count[64] = { 0 };

        for (unsigned step = 0; step < 50; step++) {
            for (unsigned i = 0; i < 64; i++) {
                float cr = (float)i / 24 - 2, rr = zr[i] * zr[i], ii = zi[i] * zi[i];
                int inside = rr + ii < 4;

                count[i] += inside;
                zi[i] = inside ? 2 * zr[i] * zi[i] + ci : zi[i];
                zr[i] = inside ? rr - ii + cr : zr[i];
            }
        }
        for (unsigned i = 0; i < 64; i++)
            total = total * 3 + (uint64_t)count[i];
    }
    return total;
}

/* Sizes as programs have them: mostly short, some long, all alignments; the C library picks its best variant for the CPU. */
enum { COPY_BUFFER = 1 << 18 };

static void *memcpy_setup(void)
{
    char *buffer = bench_alloc(2 * COPY_BUFFER);

    for (unsigned i = 0; i < COPY_BUFFER; i++)
        buffer[i] = (char)(i * 7);
    return buffer;
}

static uint64_t memcpy_unit(void *data)
{
    static const uint32_t sizes[] = { 8, 15, 32, 48, 64, 100, 128, 256, 777, 1500, 4096, 20000, 65536, 200000 };
    char *from = data, *to = from + COPY_BUFFER;
    uint32_t x = 3;
    uint64_t sum = 0;

    for (unsigned turn = 0; turn < 40; turn++) {
        for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            unsigned repeat = sizes[i] < 1000 ? 100 : sizes[i] < 10000 ? 10 : 1;

            for (unsigned j = 0; j < repeat; j++) {
                uint32_t at = bench_random(&x) % (COPY_BUFFER - sizes[i]),
                         shift = bench_random(&x) % (COPY_BUFFER - sizes[i]);

                memcpy(to + at, from + shift, sizes[i]);
                sum += (unsigned char)to[at + sizes[i] / 2];
            }
        }
    }
    return sum;
}

int main(int argc, char **argv)
{
    static const struct bench_workload table[] = {
        { "matmul", matmul_unit, matmul_setup }, { "matmul_avx2", matmul_avx2_unit, matmul_setup },
        { "nbody", nbody_unit, NULL },           { "long_double", long_double_unit, NULL },
        { "mandelbrot", mandelbrot_unit, NULL }, { "memcpy", memcpy_unit, memcpy_setup },
    };

    return bench_main(argc, argv, table, sizeof(table) / sizeof(table[0]));
}
