/* See elf_maker.h. */
#include "elf_maker.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char section_names[] = "\0.text\0.data\0.symtab\0.strtab\0.shstrtab";

static Elf_Scn *add_section(Elf *elf, unsigned name, unsigned type, uint64_t flags, gva_t address, void *data,
                            size_t size, Elf_Type data_type, unsigned link)
{
    Elf_Scn *section = elf_newscn(elf);
    Elf_Data *content = elf_newdata(section);
    GElf_Shdr header;

    cr_assert(section && content && gelf_getshdr(section, &header));
    content->d_buf = data;
    content->d_size = size;
    content->d_type = data_type;
    content->d_align = 8;
    content->d_version = EV_CURRENT;
    header.sh_name = name;
    header.sh_type = type;
    header.sh_flags = flags;
    header.sh_addr = address;
    header.sh_link = link;
    header.sh_entsize = data_type == ELF_T_SYM ? gelf_fsize(elf, ELF_T_SYM, 1, EV_CURRENT) : 0;
    cr_assert(gelf_update_shdr(section, &header));
    return section;
}

static unsigned section_index(enum elf_place place)
{
    static const unsigned indices[] = {
        [IN_TEXT] = 1, [IN_DATA] = 2, [IN_NOTHING] = SHN_UNDEF, [IN_ABSOLUTE] = SHN_ABS, [IN_WILD] = 0x1234
    };

    return indices[place];
}

static void add_symbols(Elf *elf, unsigned bits, const struct elf_maker_symbol *symbols, size_t count, char *strings,
                        size_t *strings_size, void *table, size_t table_size)
{
    Elf_Scn *section = add_section(elf, 13, SHT_SYMTAB, 0, 0, table, table_size, ELF_T_SYM, 4);
    Elf_Data *data = elf_getdata(section, NULL);

    for (size_t i = 0; i < count; i++) {
        GElf_Sym symbol = {
            .st_name = (GElf_Word)*strings_size,
            .st_info = (unsigned char)GELF_ST_INFO(symbols[i].bind, symbols[i].type),
            .st_shndx = (GElf_Section)section_index(symbols[i].place),
            .st_value = bits == 64 ? symbols[i].address : (uint32_t)symbols[i].address,
            .st_size = symbols[i].size,
        };

        *strings_size += (size_t)sprintf(strings + *strings_size, "%s", symbols[i].name) + 1;
        cr_assert(gelf_update_sym(data, (int)i + 1, &symbol), "%s", elf_errmsg(-1));
    }
}

void elf_make(const char *path, unsigned bits, unsigned machine, unsigned type, const struct elf_maker_symbol *symbols,
              size_t count)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    size_t strings_size = 1, symbol_size = bits == 64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
    char *strings = calloc(count + 1, 300);
    void *table = calloc(count + 1, symbol_size);
    gva_t mask = bits == 64 ? ~0ull : 0xffffffffull;
    GElf_Ehdr header;
    Elf *elf;

    cr_assert(fd >= 0 && strings && table && elf_version(EV_CURRENT));
    elf = elf_begin(fd, ELF_C_WRITE, NULL);
    cr_assert(elf && gelf_newehdr(elf, bits == 64 ? ELFCLASS64 : ELFCLASS32) && gelf_getehdr(elf, &header));
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_machine = (GElf_Half)machine;
    header.e_type = (GElf_Half)type;
    header.e_version = EV_CURRENT;
    header.e_shstrndx = 5;
    cr_assert(gelf_update_ehdr(elf, &header));
    add_section(elf, 1, SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, ELF_TEXT & mask, NULL, ELF_TEXT_SIZE, ELF_T_BYTE, 0);
    add_section(elf, 7, SHT_NOBITS, SHF_ALLOC | SHF_WRITE, ELF_DATA & mask, NULL, ELF_DATA_SIZE, ELF_T_BYTE, 0);
    add_symbols(elf, bits, symbols, count, strings, &strings_size, table, (count + 1) * symbol_size);
    add_section(elf, 21, SHT_STRTAB, 0, 0, strings, strings_size, ELF_T_BYTE, 0);
    add_section(elf, 29, SHT_STRTAB, 0, 0, (void *)section_names, sizeof(section_names), ELF_T_BYTE, 0);
    cr_assert(elf_update(elf, ELF_C_WRITE) > 0, "%s", elf_errmsg(-1));
    elf_end(elf);
    close(fd);
    free(strings);
    free(table);
}

char *temp_file(char *path, const void *data, size_t size)
{
    int fd;

    snprintf(path, TEMP_PATH, "/tmp/eidolon-test-XXXXXX");
    fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
    return path;
}

char *file_contents(const char *path, size_t *size)
{
    FILE *file = fopen(path, "r");
    size_t used = 0, room = 4096;
    char *text = malloc(room + 1);

    cr_assert(file && text, "%s", path);
    while ((used += fread(text + used, 1, room - used, file)) == room) {
        room *= 2;
        text = realloc(text, room + 1);
        cr_assert(text);
    }
    fclose(file);
    text[used] = '\0';
    if (size)
        *size = used;
    return text;
}
