/* -drive, -blockdev and their short forms. Values are kept in order; the block layer reads them when the machine is
 * built, node by node first, so that drives may name nodes. */
#include "frontend/command_line.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/block.h"

int settings_add_blockdev(struct settings *settings, const char *value, struct error *err)
{
    return string_list_add(&settings->blockdevs, value) ? error_set(err, ENOMEM, "out of memory") : 0;
}

/* `shown` is what the user wrote: messages begin with it. */
static int add_drive(struct settings *settings, const char *value, const char *shown, struct error *err)
{
    if (string_list_add(&settings->drives, value) || string_list_add(&settings->drive_names, shown))
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

int settings_add_drive(struct settings *settings, const char *value, struct error *err)
{
    size_t size = strlen(value) + 16;
    char *shown = malloc(size);
    int ret;

    if (!shown)
        return error_set(err, ENOMEM, "out of memory");
    snprintf(shown, size, "-drive %s", value);
    ret = add_drive(settings, value, shown, err);
    free(shown);
    return ret;
}

/* A comma in a file name is doubled, as in -drive; here the user need not. */
int settings_add_disk(struct settings *settings, const char *option, unsigned index, const char *media,
                      const char *filename, struct error *err)
{
    size_t size = 2 * strlen(filename) + 64;
    char *value = malloc(size), *shown = malloc(size), *out;
    int ret = -ENOMEM;

    if (!value || !shown) {
        error_set(err, ENOMEM, "out of memory");
        goto out;
    }
    out = value + snprintf(value, size, "index=%u,media=%s,file=", index, media);
    for (const char *in = filename; *in; in++) {
        if (*in == ',')
            *out++ = ',';
        *out++ = *in;
    }
    *out = '\0';
    snprintf(shown, size, "%s%s%s", option, *option ? " " : "", filename);
    ret = add_drive(settings, value, shown, err);
out:
    free(value);
    free(shown);
    return ret;
}

/* Messages of the block layer often begin with the file's name, which is then in "-hda FILE" too. */
static int prefix_option(struct error *err, int ret, const char *shown)
{
    const char *filename = *shown == '-' ? strchr(shown, ' ') + 1 : shown;
    size_t length = strlen(filename);

    if (strncmp(err->text, filename, length) || err->text[length] != ':')
        return error_prefix(err, ret, "%s", shown);
    length += strspn(err->text + length, ": ");
    memmove(err->text, err->text + length, strlen(err->text + length) + 1);
    return error_prefix(err, ret, "%s", shown);
}

int settings_open_blocks(const struct settings *settings, struct block_registry *registry, struct error *err)
{
    block_registry_set_snapshot(registry, settings->snapshot);
    for (size_t i = 0; i < settings->blockdevs.count; i++) {
        const char *value = settings->blockdevs.items[i];
        int ret = block_add_blockdev(registry, value, err);

        if (ret)
            return error_prefix(err, ret, "-blockdev %s", value);
    }
    for (size_t i = 0; i < settings->drives.count; i++) {
        int ret = block_add_drive(registry, settings->drives.items[i], err);

        if (ret)
            return prefix_option(err, ret, settings->drive_names.items[i]);
    }
    return 0;
}
