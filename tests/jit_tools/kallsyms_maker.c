/* See kallsyms_maker.h. */
#include "kallsyms_maker.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(struct kallsyms_image *image, const void *data, size_t size)
{
    cr_assert(image->used + size <= KALLSYMS_IMAGE_SIZE);
    memcpy(image->bytes + image->used, data, size);
    image->used += size;
}

static void align(struct kallsyms_image *image)
{
    image->used = ALIGN_UP(image->used, 8);
}

gva_t kallsyms_address(unsigned i)
{
    return i ? KALLSYMS_BASE + 0x1000 + i * 16 : KALLSYMS_BASE;
}

static void put_offsets(struct kallsyms_image *image, enum kallsyms_layout layout)
{
    gva_t base = KALLSYMS_BASE;

    for (unsigned i = 0; i < KALLSYMS_COUNT; i++) {
        uint32_t offset = (uint32_t)(kallsyms_address(i) - KALLSYMS_BASE);

        if (layout != KALLSYMS_NEW_RELATIVE)
            offset = i >= 2 && i <= 6 ? i * 8 : (uint32_t)(-1 - (int64_t)offset);
        put(image, &offset, 4);
    }
    align(image);
    put(image, &base, 8);
}

/* Token 1 is "tfunc_", 2 is "Dvar_"; digits and letters are themselves. One name is longer than 127 tokens. */
static void put_name(struct kallsyms_image *image, unsigned i)
{
    char text[200] = "", tokens[202];
    size_t length;

    if (i == 0)
        strcpy(text, "T_text");
    else if (i == 1)
        strcpy(text, "Tentry_SYSCALL_64");
    else if (i == 77)
        memset(strcpy(text, "t") + 1, 'q', 150);
    else
        sprintf(text, "%c%u", i % 10 == 9 ? 2 : 1, i);
    length = strlen(text);
    tokens[0] = (char)(length & 0x7f);
    if (length > 0x7f) {
        tokens[0] = (char)(tokens[0] | 0x80);
        tokens[1] = (char)(length >> 7);
    }
    memcpy(tokens + (length > 0x7f ? 2 : 1), text, length);
    put(image, tokens, length + (length > 0x7f ? 2 : 1));
}

static void put_names(struct kallsyms_image *image)
{
    uint32_t markers[KALLSYMS_COUNT / 256 + 1], count[2] = { KALLSYMS_COUNT, 0 };
    size_t start;

    put(image, count, 8);
    start = image->used;
    for (unsigned i = 0; i < KALLSYMS_COUNT; i++) {
        if (i % 256 == 0)
            markers[i / 256] = (uint32_t)(image->used - start);
        put_name(image, i);
    }
    align(image);
    put(image, markers, sizeof(markers));
    align(image);
}

static void put_tokens(struct kallsyms_image *image)
{
    uint16_t index[256];

    image->tokens = image->used;
    for (unsigned i = 0; i < 256; i++) {
        char text[16] = "";

        if (i == 1 || i == 2)
            strcpy(text, i == 1 ? "tfunc_" : "Dvar_");
        else if (strchr("0123456789_abcdefghijklmnopqrstuvwxyzTtDSYCAL", (int)i) && i)
            text[0] = (char)i;
        index[i] = (uint16_t)(image->used - image->tokens);
        put(image, text, strlen(text) + 1);
    }
    align(image);
    put(image, index, sizeof(index));
}

struct kallsyms_image *kallsyms_make(enum kallsyms_layout layout)
{
    struct kallsyms_image *image = calloc(1, sizeof(*image));

    cr_assert(image);
    memset(image->bytes, 0xcc, 0x1000);
    image->used = 0x1000;
    /* What comes before has digits too, but no tables around them. */
    put(image,
        "\0"
        "0\0"
        "1\0"
        "2\0"
        "3\0"
        "4\0"
        "5\0"
        "6\0"
        "7\0"
        "8\0"
        "9",
        21);
    image->used = 0x2000;
    if (layout == KALLSYMS_OLD || layout == KALLSYMS_OLD_SEQS)
        put_offsets(image, layout);
    put_names(image);
    if (layout == KALLSYMS_OLD_SEQS) {
        for (unsigned i = 0; i < KALLSYMS_COUNT; i++)
            put(image, (uint8_t[]){ 0, (uint8_t)(i >> 8), (uint8_t)i }, 3);
        align(image);
    }
    put_tokens(image);
    if (layout == KALLSYMS_NEW || layout == KALLSYMS_NEW_RELATIVE)
        put_offsets(image, layout);
    return image;
}
