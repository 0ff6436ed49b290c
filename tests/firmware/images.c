#include "tests/firmware/images.h"

#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

uint8_t pattern(unsigned i)
{
    return i * 7;
}

static struct image image_new(size_t size)
{
    return (struct image){ calloc(1, size), size };
}

void image_free(struct image *image)
{
    free(image->data);
    image->data = NULL;
}

static void fill_pattern(uint8_t *data)
{
    for (unsigned i = 0; i < TEST_KERNEL_BYTES; i++)
        data[i] = pattern(i);
}

struct image image_elf64(bool pvh_note)
{
    static const uint32_t note[] = { 4, 4, 18, 0x006e6558 /* "Xen" */, TEST_KERNEL_ADDRESS + 0x123 };
    struct image image = image_new(0x1000 + TEST_KERNEL_BYTES);
    Elf64_Ehdr *header = (Elf64_Ehdr *)image.data;
    Elf64_Phdr *segments = (Elf64_Phdr *)(image.data + sizeof(*header));

    memcpy(header->e_ident, ELFMAG, SELFMAG);
    header->e_ident[EI_CLASS] = ELFCLASS64;
    header->e_ident[EI_DATA] = ELFDATA2LSB;
    header->e_ident[EI_VERSION] = EV_CURRENT;
    header->e_type = ET_EXEC;
    header->e_machine = EM_X86_64;
    header->e_version = EV_CURRENT;
    header->e_entry = TEST_KERNEL_ADDRESS + 0x40;
    header->e_phoff = sizeof(*header);
    header->e_ehsize = sizeof(*header);
    header->e_phentsize = sizeof(*segments);
    header->e_phnum = pvh_note ? 2 : 1;
    segments[0] = (Elf64_Phdr){ .p_type = PT_LOAD,
                                .p_flags = PF_R | PF_X,
                                .p_offset = 0x1000,
                                .p_vaddr = 0xffffffff81000000,
                                .p_paddr = TEST_KERNEL_ADDRESS,
                                .p_filesz = TEST_KERNEL_BYTES,
                                .p_memsz = TEST_KERNEL_BYTES + TEST_KERNEL_BSS };
    if (pvh_note) {
        segments[1] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = sizeof(note), .p_align = 4 };
        memcpy(image.data + 0x800, note, sizeof(note));
    }
    fill_pattern(image.data + 0x1000);
    return image;
}

static void multiboot_header(uint8_t *at, uint32_t flags)
{
    uint32_t header[3] = { 0x1badb002, flags, -(0x1badb002 + flags) };

    memcpy(at, header, sizeof(header));
}

struct image image_elf32_multiboot(void)
{
    struct image image = image_new(0x1000 + TEST_KERNEL_BYTES);
    Elf32_Ehdr *header = (Elf32_Ehdr *)image.data;
    Elf32_Phdr *segment = (Elf32_Phdr *)(image.data + sizeof(*header));

    memcpy(header->e_ident, ELFMAG, SELFMAG);
    header->e_ident[EI_CLASS] = ELFCLASS32;
    header->e_ident[EI_DATA] = ELFDATA2LSB;
    header->e_ident[EI_VERSION] = EV_CURRENT;
    header->e_type = ET_EXEC;
    header->e_machine = EM_386;
    header->e_version = EV_CURRENT;
    header->e_entry = 0x100040;
    header->e_phoff = sizeof(*header);
    header->e_ehsize = sizeof(*header);
    header->e_phentsize = sizeof(*segment);
    header->e_phnum = 1;
    *segment = (Elf32_Phdr){ .p_type = PT_LOAD,
                             .p_offset = 0x1000,
                             .p_vaddr = 0x100000,
                             .p_paddr = 0x100000,
                             .p_filesz = TEST_KERNEL_BYTES,
                             .p_memsz = TEST_KERNEL_BYTES + TEST_KERNEL_BSS };
    multiboot_header(image.data + 0x200, 3);
    fill_pattern(image.data + 0x1000);
    return image;
}

struct image image_raw_multiboot(uint32_t load_address)
{
    struct image image = image_new(TEST_KERNEL_BYTES);
    uint32_t addresses[5] = { load_address + 0x100, load_address, 0, load_address + TEST_KERNEL_BYTES + TEST_KERNEL_BSS,
                              load_address + 0x80 };

    fill_pattern(image.data);
    multiboot_header(image.data + 0x100, 1 << 16 | 3);
    memcpy(image.data + 0x10c, addresses, sizeof(addresses));
    return image;
}

/* The legacy frame: pieces of 8 MiB. */
static size_t pack_lz4(const struct image *in, uint8_t *out, size_t capacity)
{
    uint32_t magic = 0x184c2102;
    size_t used = 4;

    memcpy(out, &magic, 4);
    for (size_t at = 0; at < in->size; at += 8 * MIB) {
        size_t piece = MIN(in->size - at, (size_t)8 * MIB);
        uint32_t size = LZ4_compress_default((char *)in->data + at, (char *)out + used + 4, piece, capacity - used - 4);

        memcpy(out + used, &size, 4);
        used += 4 + size;
    }
    return used;
}

static size_t pack_xz(const struct image *in, uint8_t *out, size_t capacity)
{
    /* The kernel's build uses the x86 filter. */
    lzma_options_lzma options;
    lzma_filter filters[] = { { LZMA_FILTER_X86, NULL }, { LZMA_FILTER_LZMA2, &options }, { LZMA_VLI_UNKNOWN, NULL } };
    size_t used = 0;

    lzma_lzma_preset(&options, 1);
    if (lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, in->data, in->size, out, &used, capacity) != LZMA_OK)
        abort();
    return used;
}

static size_t pack_gzip(const struct image *in, uint8_t *out, size_t capacity)
{
    z_stream stream = { .next_in = in->data, .avail_in = in->size, .next_out = out, .avail_out = capacity };

    deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    if (deflate(&stream, Z_FINISH) != Z_STREAM_END)
        abort();
    deflateEnd(&stream);
    return stream.total_out;
}

/* With the unpacked size appended, as the kernel's build does it. */
struct image image_pack(const struct image *in, enum packing packing)
{
    size_t capacity = in->size * 2 + 65536;
    struct image out = image_new(capacity);
    uint32_t unpacked = in->size;

    switch (packing) {
    case PACK_GZIP:
        out.size = pack_gzip(in, out.data, capacity);
        return out;
    case PACK_XZ:
        out.size = pack_xz(in, out.data, capacity - 4);
        break;
    case PACK_ZSTD:
        out.size = ZSTD_compress(out.data, capacity - 4, in->data, in->size, 3);
        break;
    case PACK_LZ4:
        out.size = pack_lz4(in, out.data, capacity - 4);
        break;
    case PACK_UNKNOWN:
        memcpy(out.data, "BZh9", 4);
        out.size = 4096;
        return out;
    default:
        memcpy(out.data, in->data, in->size);
        out.size = in->size;
        return out;
    }
    memcpy(out.data + out.size, &unpacked, 4);
    out.size += 4;
    return out;
}

struct image image_bzimage(enum packing packing)
{
    enum { SETUP = 5 * 512, PAYLOAD = 0x400 };
    struct image elf = image_elf64(false), payload = image_pack(&elf, packing);
    size_t code = ALIGN_UP(PAYLOAD + payload.size, 16);
    struct image image = image_new(SETUP + code);
    uint8_t *h = image.data;
    uint32_t values[][2] = {
        { 0x1f4, code / 16 }, { 0x214, 0x100000 }, { 0x22c, 0x7fffffff },   { 0x230, 0x200000 },
        { 0x238, 255 },       { 0x248, PAYLOAD },  { 0x24c, payload.size }, { 0x258, TEST_KERNEL_ADDRESS },
        { 0x260, 0x800000 },
    };

    h[0x1f1] = SETUP / 512 - 1;
    h[0x1fe] = 0x55;
    h[0x1ff] = 0xaa;
    h[0x200] = 0xeb;
    h[0x201] = 0x6a;
    memcpy(h + 0x202, "HdrS", 4);
    h[0x206] = 0x0f;
    h[0x207] = 0x02;
    h[0x211] = 1;    /* LOADED_HIGH */
    h[0x234] = 1;    /* relocatable */
    h[0x236] = 0x03; /* XLF_KERNEL_64 */
    for (size_t i = 0; i < ARRAY_SIZE(values); i++)
        memcpy(h + values[i][0], &values[i][1], 4);
    memcpy(h + SETUP + PAYLOAD, payload.data, payload.size);
    image_free(&elf);
    image_free(&payload);
    return image;
}
