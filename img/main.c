/* eidolon-img: makes, copies, checks and describes disk images. Commands, options, output and exit status are qemu-img's. A mistake
 * is one line on stderr. */
#include "img/img.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct img_command img_commands[] = {
    { "check", "[-q] [-f FMT] [--output=human|json] [-r leaks|all] [-U] FILE", "look for lost and doubly used clusters",
      img_check_main },
    { "compare", "[-q] [-s] [-p] [-f FMT] [-F FMT] [-U] FILE1 FILE2", "do two images have the same content?",
      img_compare_main },
    { "convert", "[-c] [-p] [-q] [-n] [-W] [-U] [-f FMT] [-O FMT] [-o OPTIONS] [-S SIZE] [-m N] [-t CACHE] FILE OUTPUT",
      "copy an image into another format", img_convert_main },
    { "create", "[-q] [-f FMT] [-b BACKING [-F FMT]] [-u] [-o OPTIONS] FILE [SIZE]", "make an image", img_create_main },
    { "info", "[-f FMT] [--output=human|json] [--backing-chain] [-U] FILE", "describe an image", img_info_main },
    { "map", "[-f FMT] [--output=human|json] [-s OFFSET] [-l LENGTH] [-U] FILE",
      "list where the content of an image is", img_map_main },
    { "rebase", "-u [-q] [-f FMT] -b BACKING [-F FMT] FILE", "change the name of the backing file, nothing else",
      img_rebase_main },
    { "resize", "[-q] [-f FMT] [--shrink] [--preallocation=MODE] FILE [+|-]SIZE", "change the size of the disk",
      img_resize_main },
    { NULL, NULL, NULL, NULL },
};

int img_fail(const struct error *err)
{
    fprintf(stderr, "eidolon-img: %s\n", err->text);
    return 1;
}

int img_usage(const char *command, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "eidolon-img: %s: ", command);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (eidolon-img --help)\n");
    return 1;
}

static void print_help(void)
{
    printf("usage: eidolon-img COMMAND OPTIONS\n\n");
    for (const struct img_command *command = img_commands; command->name; command++)
        printf("  %s %s\n        %s\n", command->name, command->arguments, command->help);
    printf("\nFormats: raw, qcow2. Sizes: bytes, or with K, M, G, T, P, E. `-o help` lists what can be chosen for a "
           "format.\n");
}

int main(int argc, char **argv)
{
    const char *names[ARRAY_SIZE(img_commands)] = { NULL };
    const char *name = argc > 1 ? argv[1] : "", *near;
    int status = -1;

    if (!*name || !strcmp(name, "-h") || !strcmp(name, "--help") || !strcmp(name, "help")) {
        print_help();
        return *name ? 0 : 1;
    }
    if (!strcmp(name, "-V") || !strcmp(name, "--version")) {
        printf("eidolon-img version %s\n", EIDOLON_VERSION);
        return 0;
    }
    for (size_t i = 0; img_commands[i].name; i++) {
        names[i] = img_commands[i].name;
        if (!strcmp(name, img_commands[i].name))
            status = img_commands[i].run(argc - 1, argv + 1);
    }
    if (status < 0) {
        near = nearest_word(name, names);
        fprintf(stderr, "eidolon-img: no such command: %s%s%s%s\n", name, near ? " (did you mean '" : "",
                near ? near : "", near ? "'?)" : "");
        return 1;
    }
    if (fflush(stdout)) {
        perror("eidolon-img: standard output");
        return status ? status : 1;
    }
    return status;
}
