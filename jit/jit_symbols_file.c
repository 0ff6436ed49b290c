/* Reads symbol tables from files: ELF through libelf, and text in the form of nm, System.map and /proc/kallsyms.
 *
 * Nothing in a file is trusted. libelf checks that sections lie inside the file and converts them; indices into
 * strings and sections are checked here. ELF files are read through their descriptor and not mapped: one that is
 * truncated meanwhile is a read error, not a signal.
 *
 * Threads: set-up only. (System V ABI chapter 4, "Symbol Table"; nm(1).) */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jit/jit_symbols.h"

#define LINE_SIZE_MAX 1024 /* names have up to 512 characters */

/* ---- ELF ---- */

/* Where the symbol's section ends, if that holds code; 0 if not. */
static uint64_t code_section_end(Elf *elf, const GElf_Sym *symbol)
{
    GElf_Shdr header;
    Elf_Scn *section;

    /* Above SHN_LORESERVE: absolute, common; SHN_XINDEX only occurs with 65280 sections, which no executable has. */
    if (symbol->st_shndx == SHN_UNDEF || symbol->st_shndx >= SHN_LORESERVE)
        return 0;
    section = elf_getscn(elf, symbol->st_shndx);
    if (!section || !gelf_getshdr(section, &header) || !(header.sh_flags & SHF_EXECINSTR))
        return 0;
    if (symbol->st_value < header.sh_addr || symbol->st_value - header.sh_addr >= header.sh_size)
        return 0;
    return header.sh_addr + header.sh_size;
}

static int add_elf_symbol(struct jit_symbols *symbols, Elf *elf, const GElf_Sym *symbol, const Elf_Data *strings)
{
    struct jit_symbol_source source = { .address = symbol->st_value };
    unsigned type = GELF_ST_TYPE(symbol->st_info);
    uint64_t end;

    if ((type != STT_FUNC && type != STT_NOTYPE && type != STT_GNU_IFUNC) || symbol->st_name >= strings->d_size)
        return 0;
    source.name = (const char *)strings->d_buf + symbol->st_name;
    source.name_length = strnlen(source.name, strings->d_size - symbol->st_name);
    end = code_section_end(elf, symbol);
    if (!end || !source.name_length || (source.name[0] == '.' && source.name[1] == 'L'))
        return 0;
    source.open = symbol->st_size == 0;
    source.size = end - source.address;
    if (!source.open)
        source.size = MIN(symbol->st_size, source.size);
    if (type == STT_NOTYPE)
        source.rank = JIT_SYMBOL_LABEL;
    else
        source.rank = GELF_ST_BIND(symbol->st_info) == STB_GLOBAL ? JIT_SYMBOL_GLOBAL : JIT_SYMBOL_LOCAL;
    return jit_symbols_add(symbols, &source);
}

/* The symbol table proper, or, in a stripped file, the one for dynamic linking. */
static Elf_Scn *find_symbol_table(Elf *elf, GElf_Shdr *header)
{
    Elf_Scn *dynamic = NULL;

    for (Elf_Scn *section = elf_nextscn(elf, NULL); section; section = elf_nextscn(elf, section)) {
        if (!gelf_getshdr(section, header))
            return NULL;
        if (header->sh_type == SHT_SYMTAB)
            return section;
        if (header->sh_type == SHT_DYNSYM && !dynamic)
            dynamic = section;
    }
    return dynamic && gelf_getshdr(dynamic, header) ? dynamic : NULL;
}

static int read_elf(struct jit_symbols *symbols, Elf *elf, struct error *err)
{
    Elf_Data *data, *strings;
    GElf_Shdr header, strings_header;
    GElf_Ehdr ehdr;
    Elf_Scn *table, *strings_section;
    GElf_Sym symbol;

    if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &ehdr))
        return error_set(err, EINVAL, "the ELF header is damaged (%s)", elf_errmsg(-1));
    if (ehdr.e_ident[EI_DATA] != ELFDATA2LSB || (ehdr.e_machine != EM_386 && ehdr.e_machine != EM_X86_64))
        return error_set(err, EINVAL, "it is an ELF file for another architecture than x86");
    if (ehdr.e_type != ET_EXEC && ehdr.e_type != ET_DYN)
        return error_set(err, EINVAL, "the ELF file is not an executable");
    table = find_symbol_table(elf, &header);
    if (!table)
        return error_set(err, ENODATA, "the ELF file has no symbol table: it is stripped");
    strings_section = elf_getscn(elf, header.sh_link);
    if (!strings_section || !gelf_getshdr(strings_section, &strings_header) || strings_header.sh_type != SHT_STRTAB)
        return error_set(err, EINVAL, "the ELF symbol table is damaged: its names are not there");
    data = elf_getdata(table, NULL);
    strings = elf_getdata(strings_section, NULL);
    if (!data || !strings || !strings->d_buf)
        return error_set(err, EINVAL, "the ELF symbol table is damaged (%s)", elf_errmsg(-1));
    for (int i = 1; gelf_getsym(data, i, &symbol); i++) { /* 0 is the undefined symbol */
        int ret = add_elf_symbol(symbols, elf, &symbol, strings);

        if (ret)
            return error_set(err, -ret, "too many symbols");
    }
    return 0;
}

static int load_elf(struct jit_symbols *symbols, int fd, struct error *err)
{
    Elf *elf;
    int ret;

    elf_version(EV_CURRENT);
    elf = elf_begin(fd, ELF_C_READ, NULL);
    if (!elf)
        return error_set(err, EINVAL, "libelf cannot read it (%s)", elf_errmsg(-1));
    ret = read_elf(symbols, elf, err);
    elf_end(elf);
    return ret;
}

/* ---- Text ---- */

struct text_reader {
    struct jit_symbols *symbols;
    unsigned long line;
    bool nonzero; /* some address was */
};

static size_t skip(const char *text, size_t at, size_t length, bool blank)
{
    while (at < length && (isspace((unsigned char)text[at]) != 0) == blank)
        at++;
    return at;
}

/* "ffffffff81000000 T _text", "ffffffffc0001000 t virtnet_poll\t[virtio_net]" */
static int read_line(struct text_reader *reader, const char *text, size_t length, struct error *err)
{
    size_t digits = 0, at, name, name_end, module;
    char full[320];
    uint64_t address = 0;
    struct jit_symbol_source source;
    int ret;

    for (; digits < MIN(length, (size_t)17) && isxdigit((unsigned char)text[digits]); digits++)
        address = address << 4 | (uint64_t)(isdigit((unsigned char)text[digits]) ? text[digits] - '0'
                                                                                 : (text[digits] | 0x20) - 'a' + 10);
    at = skip(text, digits, length, true);
    if (at == length && !digits)
        return 0; /* empty */
    name = skip(text, at + 1, length, true);
    name_end = skip(text, name, length, false);
    if (digits > 16 || (digits && at == digits) || at + 1 >= length || !isalpha((unsigned char)text[at]) ||
        name == at + 1 || name == name_end)
        return error_set(err, EINVAL, "line %lu is not a symbol table's (address, type, name)", reader->line);
    if (!digits)
        return 0; /* nm's undefined symbols have no address */

    module = skip(text, name_end, length, true);
    source = (struct jit_symbol_source){
        .address = address,
        .size = JIT_SYMBOL_OPEN_SIZE,
        .open = true,
        .rank = jit_symbol_rank_of_letter(text[at]),
        .name = text + name,
        .name_length = name_end - name,
        .module = module < length && text[module] == '[',
    };
    if (source.module && source.rank != JIT_SYMBOL_END) {
        size_t module_length = strcspn(text + module + 1, "] \n");

        /* MODULE:NAME, as the kernel's kprobes spell it */
        snprintf(full, sizeof(full), "%.*s:%.*s", (int)MIN(module_length, (size_t)64), text + module + 1,
                 (int)MIN(source.name_length, (size_t)240), source.name);
        source.name = full;
        source.name_length = strlen(full);
    }
    reader->nonzero |= address != 0;
    ret = jit_symbols_add(reader->symbols, &source);
    return ret ? error_set(err, -ret, "too many symbols") : 0;
}

static int read_text(struct jit_symbols *symbols, FILE *file, struct error *err)
{
    struct text_reader reader = { .symbols = symbols };
    char line[LINE_SIZE_MAX];
    int ret = 0;

    while (!ret && fgets(line, sizeof(line), file)) {
        size_t length = strlen(line); /* less than was read if there are zeros in it: a bad line, then */

        reader.line++;
        if (line[length ? length - 1 : 0] != '\n' && !feof(file))
            ret = error_set(err, EINVAL, "line %lu is not text, or too long", reader.line);
        else
            ret = read_line(&reader, line, length, err);
    }
    if (!ret && ferror(file))
        ret = error_set(err, errno, "%s", strerror(errno));
    if (!ret && reader.line && !reader.nonzero)
        ret = error_set(err, ENODATA, "all addresses are zero: read /proc/kallsyms as root");
    return ret;
}

static int load_text(struct jit_symbols *symbols, int fd, struct error *err)
{
    int copy = dup(fd);
    FILE *file = copy < 0 ? NULL : fdopen(copy, "r");
    int ret;

    if (!file) {
        if (copy >= 0)
            close(copy);
        return error_set(err, errno, "%s", strerror(errno));
    }
    ret = read_text(symbols, file, err);
    fclose(file);
    return ret;
}

/* ---- Either ---- */

static int open_regular(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO would wait for a writer */
    struct stat status;

    if (fd < 0)
        return error_set(err, errno, "%s", strerror(errno));
    if (fstat(fd, &status) || !S_ISREG(status.st_mode)) {
        close(fd);
        return error_set(err, EINVAL, "not a file");
    }
    return fd;
}

static int load_descriptor(struct jit_symbols *symbols, int fd, bool elf_only, struct error *err)
{
    size_t before = jit_symbols_count(symbols);
    char magic[SELFMAG];
    int ret;

    if (pread(fd, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) && !memcmp(magic, ELFMAG, SELFMAG))
        ret = load_elf(symbols, fd, err);
    else
        ret = elf_only ? 0 : load_text(symbols, fd, err);
    if (!ret && jit_symbols_count(symbols) == before)
        ret = error_set(err, ENODATA, "there are no functions in it");
    jit_symbols_finish(symbols);
    return ret;
}

int jit_symbols_load_file(struct jit_symbols *symbols, const char *path, struct error *err)
{
    int fd = open_regular(path, err), ret;

    if (fd < 0)
        return fd;
    ret = load_descriptor(symbols, fd, false, err);
    close(fd);
    return ret;
}

void jit_symbols_load_kernel(struct jit_symbols *symbols, const char *path)
{
    int fd = open_regular(path, NULL);

    if (fd < 0)
        return;
    load_descriptor(symbols, fd, true, NULL);
    close(fd);
}
