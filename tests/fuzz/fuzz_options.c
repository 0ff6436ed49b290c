/* What people and scripts write: option strings, sizes, CPU models, whole command lines. Nothing may crash, leak, or
 * fail without a message; parsing succeeds or says why.
 *
 * Input: a byte that says what the rest is. Texts end at a zero byte. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/options.h"
#include "cpu/cpu.h"
#include "devices/core/device.h"
#include "frontend/command_line.h"
#include "tests/fuzz/fuzz.h"

#define MAX_WORDS 64

static struct clock fuzz_clock;

void fuzz_setup(void)
{
    clock_init(&fuzz_clock);
}

/* Allocated in its exact size, for the address sanitizer. */
static char *take_text(struct fuzz_input *input)
{
    size_t length = strnlen((const char *)input->data, input->size);
    struct fuzz_input part = fuzz_bytes(input, length);
    char *text = malloc(length + 1);

    if (length)
        memcpy(text, part.data, length);
    text[length] = 0;
    fuzz_u8(input);
    return text;
}

/* Each result is 0, or negative with a message. */
static void check_result(int result, const struct error *err)
{
    FUZZ_CHECK(result <= 0);
    FUZZ_CHECK(memchr(err->text, 0, sizeof(err->text)) != NULL);
    if (result < 0)
        FUZZ_CHECK(err->text[0]);
}
#define CHECKED(call)                                                                                                  \
    do {                                                                                                               \
        struct error err = { "" };                                                                                     \
        int result_ = (call);                                                                                          \
        check_result(result_, &err);                                                                                   \
    } while (0)

static void try_options(struct fuzz_input *input)
{
    char *text = take_text(input), *key = take_text(input);
    struct option_list list;
    struct error failure = { "" };
    uint64_t value;
    bool flag;
    int result = options_parse(&list, text, fuzz_u8(input) & 1 ? "first" : NULL, &failure);

    check_result(result, &failure);
    if (!result) {
        CHECKED(options_get_bool(&list, "flag", true, &flag, &err));
        CHECKED(options_get_u64(&list, "number", 7, &value, &err));
        CHECKED(options_get_size(&list, "size", MIB, 7, &value, &err));
        CHECKED(options_get_u64(&list, key, 7, &value, &err));
        CHECKED(options_get_bool(&list, key, false, &flag, &err));
        options_get(&list, "first");
        CHECKED(options_check_all_used(&list, "-option", &err));
        for (size_t i = 0; i < list.count; i++)
            FUZZ_CHECK(options_get(&list, list.pairs[i].key) != NULL);
        FUZZ_CHECK(options_check_all_used(&list, "-option", &failure) == 0);
        options_free(&list);
    }
    free(key);
    free(text);
}

static void try_numbers(struct fuzz_input *input)
{
    static const char *const words[] = { "kernel", "initrd", "append", "m", "smp", "", NULL };
    char *text = take_text(input);
    uint64_t value, again;
    uint32_t mask;

    CHECKED(parse_size(text, MIB, &value, &err));
    CHECKED(parse_size(text, 1, &value, &err));
    CHECKED(parse_u64(text, &value, &err));
    /* A leading zero is octal for one and decimal for the other, as it is for QEMU. */
    if (!parse_u64(text, &value, NULL) && !parse_size(text, 1, &again, NULL) && (text[0] != '0' || text[1] == 'x'))
        FUZZ_CHECK(value == again);
    CHECKED(log_parse_mask(text, &mask, &err));
    nearest_word(text, words);
    if (device_type_find(text))
        device_print_properties(device_type_find(text));
    free(text);
}

static void try_cpu_model(struct fuzz_input *input)
{
    char *text = take_text(input);
    struct error err = { "" };
    struct cpuid_model *model = cpuid_model_create(text, &fuzz_clock, 40, 1, &err);

    if (!model)
        FUZZ_CHECK(err.text[0]);
    cpuid_model_destroy(model);
    free(text);
}

static void try_command_line(struct fuzz_input *input)
{
    char *words[MAX_WORDS + 1];
    int count = 1;
    struct settings settings;
    const struct engine *engine = NULL;
    struct error failure = { "" };
    enum command_line_result result;

    words[0] = strdup("eidolon");
    while (input->size && count < MAX_WORDS)
        words[count++] = take_text(input);
    words[count] = NULL;
    result = command_line_parse(&settings, count, words, &failure);
    FUZZ_CHECK(result == COMMAND_LINE_RUN || result == COMMAND_LINE_DONE || result == COMMAND_LINE_ERROR);
    if (result == COMMAND_LINE_ERROR)
        FUZZ_CHECK(failure.text[0]);
    if (result == COMMAND_LINE_RUN) {
        FUZZ_CHECK(settings.ram_size >= MIB && settings.cpu_count >= 1);
        CHECKED(settings_choose_engine(&settings, &engine, &err));
    }
    settings_free(&settings);
    while (count)
        free(words[--count]);
}

void fuzz_one(struct fuzz_input input)
{
    switch (fuzz_u8(&input) % 4) {
    case 0:
        try_options(&input);
        break;
    case 1:
        try_numbers(&input);
        break;
    case 2:
        try_cpu_model(&input);
        break;
    default:
        try_command_line(&input);
        break;
    }
}

/* Newlines stand for the ends of texts. */
static const struct {
    uint8_t kind;
    const char *text;
} seeds[] = {
    { 0, "512M,slots=4,maxmem=8G\nslots\n\1" },
    { 0, "isa-debug-exit,iobase=0xf4,iosize=4\niobase\n" },
    { 0, "flag,noflag,flag=off,path=a,,b,number=12,size=3G\npath\n" },
    { 0, "=,==,,,a=,=b\n\n" },
    { 1, "512M" },
    { 1, "0x1000" },
    { 1, "18446744073709551615" },
    { 1, "16777215T" },
    { 1, "1.5G" },
    { 1, "kernle" },
    { 1, "int,guest_errors,unimp,cpu_reset" },
    { 1, "isa-debug-exit" },
    { 2, "max" },
    { 2, "max,-avx2,+pcid" },
    { 2, "qemu64,family=6,model=1,stepping=3" },
    { 2, "x86-64-v2,+avx" },
    { 2, "host,-sse2,phys-bits=39,model_id=name" },
    { 3, "-m\n512M\n-nographic\n-kernel\nvmlinuz\n-initrd\ninitrd.img\n-append\nconsole=ttyS0" },
    { 3, "-smp\ncpus=1,cores=1,threads=1\n-cpu\nmax\n-accel\ninterp\n-machine\nq35,accel=tcg:interp\n-kernel\nk" },
    { 3, "-accel\ntcg,thread=single\n-accel\nkvm\n-M\nq35\n-kernel\nk\n--display\nnone\n-no-reboot\n-no-shutdown" },
    { 3, "-serial\nmon:stdio\n-serial\nfile:log\n-debugcon\nnull\n-global\nisa-debugcon.iobase=0x402\n-kernel\nk" },
    { 3, "-device\nisa-debug-exit,iobase=0xf4\n-nodefaults\n-no-user-config\n-monitor\nnone\n-vga\nnone\n-kernel\nk" },
    { 3, "-rtc\nbase=2024-01-02T03:04:05,clock=vm\n-name\nguest,process=x\n-d\nint,unimp\n-D\nlog\n-kernel\nk" },
    { 3, "-rtc\nbase=localtime,driftfix=slew\n-net\nnone\n-nic\nnone\n-parallel\nnone\n-kernel\nk" },
    { 3, "-cpu\nhelp" },
    { 3, "-machine\nhelp" },
    { 3, "-device\nisa-debug-exit,help" },
    { 3, "-version" },
    { 3, "-help" },
    { 3, "-kernle\nx" },
    { 3, "disk.img" },
    { 3, "-machine\nnone" },
    { 3, "-bios\nx" },
};

bool fuzz_make_seed(unsigned n, struct fuzz_seed *seed)
{
    if (n >= ARRAY_SIZE(seeds))
        return false;
    fuzz_add_u8(seed, seeds[n].kind);
    for (const char *at = seeds[n].text; *at; at++)
        fuzz_add_u8(seed, *at == '\n' ? 0 : (uint8_t)*at);
    return true;
}
