/* ELF kernels (System V ABI, chapter 5), read with libelf from memory.
 *
 * Nothing in the file is trusted: every segment is checked against the size of the file and against wrap-around
 * before it is kept, so that placing needs no further checks but those of guest memory. */
#include "firmware/boot_internal.h"
#include "firmware/elf_image.h"

#include <errno.h>
#include <gelf.h>
#include <libelf.h>
#include <string.h>

#define XEN_ELFNOTE_PHYS32_ENTRY 18

bool elf_image_is_elf(const uint8_t *data, size_t size)
{
    return size >= EI_NIDENT && !memcmp(data, ELFMAG, SELFMAG);
}

static int add_segment(struct elf_image *elf, const GElf_Phdr *phdr, uint64_t file_size, struct error *err)
{
    struct elf_segment *segment;

    if (phdr->p_memsz == 0)
        return 0;
    if (phdr->p_filesz > phdr->p_memsz)
        return error_set(err, EINVAL, "an ELF segment is larger in the file than in memory");
    if (phdr->p_offset > file_size || phdr->p_filesz > file_size - phdr->p_offset)
        return error_set(err, EINVAL, "the ELF file is truncated: a segment ends at byte %llu, the file at %llu",
                         (unsigned long long)(phdr->p_offset + phdr->p_filesz), (unsigned long long)file_size);
    if (phdr->p_paddr + phdr->p_memsz < phdr->p_paddr)
        return error_set(err, EINVAL, "an ELF segment wraps around the end of memory");
    if (elf->segment_count == ELF_SEGMENTS_MAX)
        return error_set(err, EINVAL, "the ELF file has more than %d segments", ELF_SEGMENTS_MAX);

    segment = &elf->segments[elf->segment_count++];
    segment->offset = phdr->p_offset;
    segment->file_size = phdr->p_filesz;
    segment->address = phdr->p_paddr;
    segment->virtual_address = phdr->p_vaddr;
    segment->memory_size = phdr->p_memsz;
    elf->low = MIN(elf->low, phdr->p_paddr);
    elf->high = MAX(elf->high, phdr->p_paddr + phdr->p_memsz);
    return 0;
}

/* Looks for the note that says where a PVH kernel is entered (xen/include/public/elfnote.h). */
static void read_notes(struct elf_image *elf, Elf *handle, const GElf_Phdr *phdr)
{
    Elf_Data *data =
        elf_getdata_rawchunk(handle, phdr->p_offset, phdr->p_filesz, phdr->p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR);
    size_t offset = 0, name, desc;
    GElf_Nhdr note;

    if (!data)
        return;
    while ((offset = gelf_getnote(data, offset, &note, &name, &desc)) > 0) {
        const uint8_t *bytes = data->d_buf;
        uint64_t entry = 0;

        if (note.n_type != XEN_ELFNOTE_PHYS32_ENTRY || note.n_namesz != 4 || memcmp(bytes + name, "Xen", 4))
            continue;
        if (note.n_descsz != 4 && note.n_descsz != 8)
            continue;
        memcpy(&entry, bytes + desc, note.n_descsz);
        elf->has_pvh_entry = true;
        elf->pvh_entry = entry;
    }
}

/* `size` bytes are there, of `file_size`. */
static int parse(struct elf_image *elf, Elf *handle, size_t size, uint64_t file_size, struct error *err)
{
    GElf_Ehdr header;
    size_t count;
    int result;

    if (!gelf_getehdr(handle, &header) || elf_getphdrnum(handle, &count))
        return error_set(err, EINVAL, "the ELF header is damaged (%s)", elf_errmsg(-1));
    if (header.e_ident[EI_DATA] != ELFDATA2LSB || (header.e_machine != EM_386 && header.e_machine != EM_X86_64))
        return error_set(err, EINVAL, "it is an ELF file for another architecture than x86");
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
        return error_set(err, EINVAL, "the ELF file is not an executable");
    elf->is_64 = header.e_ident[EI_CLASS] == ELFCLASS64;
    elf->machine = header.e_machine;
    elf->entry = header.e_entry;
    for (size_t i = 0; i < count; i++) {
        GElf_Phdr phdr;

        if (!gelf_getphdr(handle, i, &phdr))
            return error_set(err, EINVAL, "the ELF program headers are damaged (%s)", elf_errmsg(-1));
        if (phdr.p_type == PT_LOAD) {
            result = add_segment(elf, &phdr, file_size, err);
            if (result)
                return result;
        } else if (phdr.p_type == PT_NOTE && phdr.p_offset <= size && phdr.p_filesz <= size - phdr.p_offset) {
            read_notes(elf, handle, &phdr);
        }
    }
    if (!elf->segment_count)
        return error_set(err, EINVAL, "the ELF file has nothing to load");
    return 0;
}

static int parse_memory(struct elf_image *elf, const uint8_t *data, size_t size, uint64_t file_size, struct error *err)
{
    Elf *handle;
    int result;

    memset(elf, 0, sizeof(*elf));
    elf->low = UINT64_MAX;
    elf_version(EV_CURRENT);
    /* libelf takes a char * but reads only, as long as nobody asks it to update. */
    handle = elf_memory((char *)data, size);
    if (!handle)
        return error_set(err, EINVAL, "not an ELF file that libelf can read (%s)", elf_errmsg(-1));
    result = elf_kind(handle) == ELF_K_ELF ? parse(elf, handle, size, file_size, err)
                                           : error_set(err, EINVAL, "not an ELF file");
    elf_end(handle);
    return result;
}

int elf_image_parse(struct elf_image *elf, const uint8_t *data, size_t size, struct error *err)
{
    return parse_memory(elf, data, size, size, err);
}

int elf_image_parse_head(struct elf_image *elf, const uint8_t *data, size_t size, struct error *err)
{
    return parse_memory(elf, data, size, INT64_MAX, err);
}

bool elf_image_place_zeros(const struct elf_image *elf, struct physmem *mem)
{
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *segment = &elf->segments[i];

        if (!physmem_zero(mem, segment->address + segment->file_size, segment->memory_size - segment->file_size))
            return false;
    }
    return true;
}

bool elf_image_place_piece(const struct elf_image *elf, uint64_t position, const uint8_t *data, size_t size,
                           struct physmem *mem)
{
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *segment = &elf->segments[i];
        uint64_t start = MAX(segment->offset, position);
        uint64_t end = MIN(segment->offset + segment->file_size, position + size);

        if (start < end &&
            !boot_write(mem, segment->address + (start - segment->offset), data + (start - position), end - start))
            return false;
    }
    return true;
}

uint64_t elf_image_file_end(const struct elf_image *elf)
{
    uint64_t end = 0;

    for (unsigned i = 0; i < elf->segment_count; i++)
        end = MAX(end, elf->segments[i].offset + elf->segments[i].file_size);
    return end;
}

bool elf_image_place(const struct elf_image *elf, const uint8_t *data, struct physmem *mem)
{
    return elf_image_place_zeros(elf, mem) && elf_image_place_piece(elf, 0, data, elf_image_file_end(elf), mem);
}

uint64_t elf_image_physical_entry(const struct elf_image *elf)
{
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *segment = &elf->segments[i];

        if (elf->entry - segment->virtual_address < segment->memory_size)
            return segment->address + (elf->entry - segment->virtual_address);
    }
    return elf->entry;
}
