/* main() for targets that are built without libFuzzer:
 *
 *   fuzz_TARGET [-runs=N] [-seed=N] [-seconds=N] [FILE or FOLDER]...
 *
 * runs each file, then the target's own seeds, then up to N inputs made from a random generator: seeds with damage,
 * and plain noise. An input that crashes is left in ./crash-TARGET-SEED-NUMBER; -only=NUMBER runs just that one. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_SEEDS 256
#define MAX_NOISE 512
#define MAX_FILE  (64 * MIB)

struct options {
    uint64_t runs, seed, seconds, only;
    const char *name;
};

static struct fuzz_seed seeds[MAX_SEEDS];
static unsigned seed_count;

/* ---- The input that is running, for the one that crashes ---- */

static struct fuzz_seed current;
static char crash_path[256];

static void on_crash(int signum)
{
    FILE *file = fopen(crash_path, "wb"); /* not async-signal-safe, but there is nothing left to lose */

    if (file) {
        fwrite(current.data, 1, current.size, file);
        fclose(file);
        fprintf(stderr, "input left in %s\n", crash_path);
    }
    signal(signum, SIG_DFL);
    raise(signum);
}

static void run_bytes(const uint8_t *data, size_t size)
{
    /* An allocation of exactly this size, so that the address sanitizer sees reads beyond its end. */
    current.data = malloc(size ? size : 1);
    current.size = size;
    if (size)
        memcpy(current.data, data, size);
    LLVMFuzzerTestOneInput(current.data, size);
    free(current.data);
    current = (struct fuzz_seed){ 0 };
}

/* ---- Files ---- */

static void run_file(const char *path)
{
    static uint8_t buffer[1 << 20];
    struct fuzz_seed file_data = { 0 };
    FILE *file = fopen(path, "rb");
    size_t size;

    if (!file)
        FUZZ_FAIL("%s: %s", path, strerror(errno));
    while ((size = fread(buffer, 1, sizeof(buffer), file)) > 0 && file_data.size < MAX_FILE)
        fuzz_add(&file_data, buffer, size);
    fclose(file);
    fprintf(stderr, "%s\n", path);
    run_bytes(file_data.data, file_data.size);
    free(file_data.data);
}

static void run_path(const char *path)
{
    struct stat status;
    struct dirent **entries;
    int count;

    if (stat(path, &status) || !S_ISDIR(status.st_mode)) {
        run_file(path);
        return;
    }
    count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char name[1024];

        snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            run_path(name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* ---- Random inputs ---- */

static void damage(struct fuzz_seed *input, uint64_t *random)
{
    unsigned changes = 1u << fuzz_random(random) % 6;

    if (fuzz_random(random) % 8 == 0 && input->size)
        input->size = 1 + fuzz_random(random) % input->size;
    while (changes-- && input->size) {
        size_t at = fuzz_random(random) % input->size;
        uint64_t r = fuzz_random(random);

        switch (r >> 61) {
        case 0:
            input->data[at] ^= (uint8_t)(1u << (r & 7));
            break;
        case 1:
            input->data[at] = (uint8_t)(r & 1 ? 0xff : 0);
            break;
        case 2:
            input->data[at] = (uint8_t)(input->data[at] + (r & 1 ? 1 : -1));
            break;
        case 3: { /* some bytes of itself elsewhere */
            size_t from = (r >> 8) % input->size, size = MIN(r >> 40 & 15, input->size - MAX(at, from));

            memmove(input->data + at, input->data + from, size);
            break;
        }
        default:
            input->data[at] = (uint8_t)r;
            break;
        }
    }
}

static void noise(struct fuzz_seed *input, uint64_t *random)
{
    size_t size = fuzz_random(random) % MAX_NOISE;

    while (input->size < size)
        fuzz_add_u64(input, fuzz_random(random));
    input->size = size;
}

static void run_random(const struct options *options, uint64_t number)
{
    uint64_t random = options->seed * 0x100000001b3ull + number;
    struct fuzz_seed input = { 0 };

    if (seed_count && fuzz_random(&random) % 4) {
        const struct fuzz_seed *seed = &seeds[fuzz_random(&random) % seed_count];

        fuzz_add(&input, seed->data, seed->size);
        damage(&input, &random);
    } else {
        noise(&input, &random);
    }
    snprintf(crash_path, sizeof(crash_path), "crash-%s-%llu-%llu", options->name, (unsigned long long)options->seed,
             (unsigned long long)number);
    run_bytes(input.data, input.size);
    free(input.data);
}

/* ---- Program ---- */

static bool parse(const char *argument, const char *name, uint64_t *value)
{
    size_t length = strlen(name);

    if (strncmp(argument, name, length))
        return false;
    *value = strtoull(argument + length, NULL, 0);
    return true;
}

static uint64_t run_all_random(const struct options *options)
{
    time_t end = time(NULL) + (time_t)options->seconds;
    uint64_t number;

    for (number = 0; number < options->runs; number++) {
        if (options->seconds && number % 16 == 0 && time(NULL) >= end)
            break;
        run_random(options, number);
    }
    return number;
}

int main(int argc, char **argv)
{
    static const int signals[] = { SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGTERM };
    struct options options = { .runs = 1000, .seed = 1, .only = UINT64_MAX, .name = strrchr(argv[0], '/') };
    uint64_t done;

    options.name = options.name ? options.name + 1 : argv[0];
    snprintf(crash_path, sizeof(crash_path), "crash-%s", options.name);
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++) /* before the target's own handlers, which pass on */
        signal(signals[i], on_crash);
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        if (!parse(argv[i], "-runs=", &options.runs) && !parse(argv[i], "-seed=", &options.seed) &&
            !parse(argv[i], "-seconds=", &options.seconds) && !parse(argv[i], "-only=", &options.only))
            run_path(argv[i]);
    }
    while (seed_count < MAX_SEEDS && fuzz_make_seed(seed_count, &seeds[seed_count]))
        seed_count++;
    if (options.only != UINT64_MAX) {
        run_random(&options, options.only);
        return 0;
    }
    for (unsigned i = 0; i < seed_count; i++)
        run_bytes(seeds[i].data, seeds[i].size);
    done = run_all_random(&options);
    fprintf(stderr, "%s: %u seeds, %llu random inputs from seed %llu\n", options.name, seed_count,
            (unsigned long long)done, (unsigned long long)options.seed);
    for (unsigned i = 0; i < seed_count; i++)
        free(seeds[i].data);
    return 0;
}
