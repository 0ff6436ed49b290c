/* -kernel, -initrd and -append: files of any content are loaded and placed, or refused with a message, in little
 * time and memory. The states in which a CPU would start are plausible.
 *
 * Input: u8 flags, u8 CPUs, u8 length of the command line, u16 length of the initrd, command line, initrd, kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "firmware/boot.h"
#include "tests/firmware/images.h"
#include "tests/fuzz/fuzz.h"

enum { FLAG_INITRD = 1, FLAG_NO_UNPACK = 2, FLAG_SMALL = 4, FLAG_HIGH = 8, FLAG_MODULES = 16, FLAG_TWICE = 32 };

#define LOW_RAM   (48 * MIB)
#define SMALL_RAM (2 * MIB)
#define HIGH_RAM  (4 * MIB)

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static struct physmem *mem;
static int kernel_fd, initrd_fd;
static char kernel_path[64], initrd_path[64];

void fuzz_setup(void)
{
    struct error err;

    mem = physmem_create(LOW_RAM + HIGH_RAM, &lock, &err);
    fuzz_need(mem != NULL, &err);
    fuzz_need(physmem_add_ram(mem, 0, 0xa0000, 0, "low", &err) != NULL, &err);
    fuzz_need(physmem_add_ram(mem, 0xc0000, LOW_RAM - 0xc0000, 0xc0000, "ram", &err) != NULL, &err);
    fuzz_need(physmem_add_ram(mem, 4 * GIB, HIGH_RAM, LOW_RAM, "high", &err) != NULL, &err);
    kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
    initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
    FUZZ_CHECK(kernel_fd >= 0 && initrd_fd >= 0);
    snprintf(kernel_path, sizeof(kernel_path), "/proc/self/fd/%d", kernel_fd);
    snprintf(initrd_path, sizeof(initrd_path), "/proc/self/fd/%d", initrd_fd);
}

static void set_file(int fd, struct fuzz_input content)
{
    FUZZ_CHECK(ftruncate(fd, 0) == 0);
    FUZZ_CHECK(pwrite(fd, content.data, content.size, 0) == (ssize_t)content.size);
}

static char *text_of(struct fuzz_input input)
{
    char *text = malloc(input.size + 1);

    if (input.size)
        memcpy(text, input.data, input.size);
    text[input.size] = 0;
    return text;
}

static void check_state(const struct boot_cpu_state *state)
{
    switch (state->mode) {
    case BOOT_MODE_LONG64:
        FUZZ_CHECK((state->cr0 >> 31 & 1) && (state->cr0 & 1) && (state->cr4 >> 5 & 1) && (state->efer >> 8 & 1));
        break;
    case BOOT_MODE_PROTECTED32:
        FUZZ_CHECK((state->cr0 & 1) && !(state->cr0 >> 31 & 1) && state->rip <= UINT32_MAX);
        break;
    default:
        FUZZ_CHECK(state->mode == BOOT_MODE_REAL && !(state->cr0 & 1));
    }
}

static void place(const struct boot_config *config, bool twice)
{
    struct error err = { "" };
    struct boot_image *image = boot_image_load(config, &err);

    if (!image) {
        FUZZ_CHECK(err.text[0]);
        return;
    }
    for (unsigned i = 0; i < 1u + twice; i++) {
        struct boot_cpu_state state;

        memset(&state, 0x5a, sizeof(state));
        if (boot_image_place(image, mem, &state, &err))
            FUZZ_CHECK(err.text[0]);
        else
            check_state(&state);
    }
    boot_image_destroy(image);
}

void fuzz_one(struct fuzz_input input)
{
    uint8_t flags = fuzz_u8(&input), cpus = fuzz_u8(&input), append_size = fuzz_u8(&input);
    uint16_t initrd_size = fuzz_u16(&input);
    char *append = text_of(fuzz_bytes(&input, append_size)), modules[256];
    struct boot_config config = {
        .kernel = kernel_path,
        .initrd = flags & FLAG_INITRD ? initrd_path : NULL,
        .append = append,
        .low_ram = flags & FLAG_SMALL ? SMALL_RAM : LOW_RAM,
        .high_ram = flags & FLAG_HIGH ? HIGH_RAM : 0,
        .cpu_count = 1u + cpus,
        .no_unpack = flags & FLAG_NO_UNPACK,
    };

    set_file(initrd_fd, fuzz_bytes(&input, initrd_size));
    set_file(kernel_fd, input);
    if (flags & FLAG_MODULES) {
        snprintf(modules, sizeof(modules), "%s one two,%s,,%s x", initrd_path, initrd_path, initrd_path);
        config.initrd = modules;
    }
    place(&config, flags & FLAG_TWICE);
    free(append);
}

/* ---- Seeds ---- */

static struct image kernel_image(unsigned n)
{
    switch (n) {
    case 0:
        return image_elf64(true);
    case 1:
        return image_elf32_multiboot();
    case 2:
        return image_raw_multiboot(0x200000);
    default:
        return image_bzimage((enum packing)(n - 3));
    }
}

bool fuzz_make_seed(unsigned n, struct fuzz_seed *seed)
{
    static const uint8_t variants[] = { 0, FLAG_INITRD, FLAG_INITRD | FLAG_NO_UNPACK | FLAG_HIGH,
                                        FLAG_MODULES | FLAG_TWICE };
    static const char append[] = "console=ttyS0 root=/dev/ram0 quiet";
    static const char initrd[] = "070701000000000000000000000000000000000000000000000000000000000000000000000000"
                                 "000000000000000000000000000000000b00000000TRAILER!!!\0\0\0";
    const unsigned kernels = 3 + PACK_COUNT;
    struct image image;

    if (n >= kernels * ARRAY_SIZE(variants))
        return false;
    image = kernel_image(n % kernels);
    fuzz_add_u8(seed, variants[n / kernels]);
    fuzz_add_u8(seed, (uint8_t)(n / kernels));
    fuzz_add_u8(seed, sizeof(append) - 1);
    fuzz_add_u16(seed, sizeof(initrd));
    fuzz_add(seed, append, sizeof(append) - 1);
    fuzz_add(seed, initrd, sizeof(initrd));
    fuzz_add(seed, image.data, image.size);
    image_free(&image);
    return true;
}
