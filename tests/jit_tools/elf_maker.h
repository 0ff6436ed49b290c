/* Small ELF files with a symbol table, made through libelf; temporary files; a log file to look into. */
#ifndef EIDOLON_TESTS_JIT_TOOLS_ELF_MAKER_H
#define EIDOLON_TESTS_JIT_TOOLS_ELF_MAKER_H

#include <libelf.h>

#include "base/types.h"

enum elf_place { IN_TEXT, IN_DATA, IN_NOTHING, IN_ABSOLUTE, IN_WILD }; /* a section, or an index that there is not */

struct elf_maker_symbol {
    const char *name;
    uint64_t address, size;
    unsigned type, bind; /* STT_*, STB_* */
    enum elf_place place;
};

#define ELF_TEXT      0xffffffff81000000ull
#define ELF_TEXT_SIZE 0x10000
#define ELF_DATA      0xffffffff82000000ull
#define ELF_DATA_SIZE 0x1000

/* .text and .data (without contents, as in files with debugging information only), .symtab, .strtab, .shstrtab. With
 * bits == 32 the addresses are cut to 32 bits. */
void elf_make(const char *path, unsigned bits, unsigned machine, unsigned type, const struct elf_maker_symbol *symbols,
              size_t count);

/* A new file in a folder for temporary ones; removed by the caller. Returns path, a buffer of TEMP_PATH. */
#define TEMP_PATH 64
char *temp_file(char *path, const void *data, size_t size);
/* The whole file as a string, malloc'ed; *size may be NULL. */
char *file_contents(const char *path, size_t *size);

#endif
