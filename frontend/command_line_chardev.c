/* Character devices and shared folders on the command line. Values are only collected here: what is in them is checked by
 * devices/char and devices/fs when the machine is made. Runs before any thread exists. */
#include "frontend/command_line.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"

static int add(struct string_list *list, const char *text, struct error *err)
{
    return string_list_add(list, text) ? error_set(err, ENOMEM, "out of memory") : 0;
}

int settings_add_chardev(struct settings *settings, const char *text, struct error *err)
{
    return add(&settings->chardevs, text, err);
}

int settings_add_fsdev(struct settings *settings, const char *text, struct error *err)
{
    return add(&settings->fsdevs, text, err);
}

/* Values go into other options: commas are doubled again. */
static void append_pair(char *out, const char *key, const char *value)
{
    out += strlen(out);
    out += sprintf(out, ",%s=", key);
    for (; *value; value++) {
        if (*value == ',')
            *out++ = ',';
        *out++ = *value;
    }
    *out = '\0';
}

/* The options but for mount_tag are those of -fsdev; the id is the tag unless it is given. */
static int split_virtfs(struct settings *settings, struct option_list *list, char *fsdev, char *device,
                        struct error *err)
{
    const char *driver = options_get(list, "fsdriver"), *tag = options_get(list, "mount_tag");
    char id[40];

    if (!driver || !tag)
        return error_set(err, EINVAL, "%s is missing", driver ? "mount_tag=" : "the driver (local)");
    snprintf(id, sizeof(id), "virtfs%zu", settings->fsdevs.count);
    sprintf(fsdev, "%s", driver);
    for (size_t i = 0; i < list->count; i++) {
        const char *key = list->pairs[i].key;

        if (strcmp(key, "fsdriver") && strcmp(key, "mount_tag") && strcmp(key, "id"))
            append_pair(fsdev, key, list->pairs[i].value);
    }
    sprintf(device, "virtio-9p-pci");
    append_pair(fsdev, "id", options_get(list, "id") ?: id);
    append_pair(device, "fsdev", options_get(list, "id") ?: id);
    append_pair(device, "mount_tag", tag);
    return add(&settings->fsdevs, fsdev, err) ?: add(&settings->devices, device, err);
}

int settings_add_virtfs(struct settings *settings, const char *text, struct error *err)
{
    struct option_list list;
    size_t size = 3 * strlen(text) + 200; /* doubled commas, and keys */
    char *fsdev = malloc(size), *device = malloc(size);
    int ret = fsdev && device ? options_parse(&list, text, "fsdriver", err) : error_set(err, ENOMEM, "out of memory");

    if (!ret) {
        ret = split_virtfs(settings, &list, fsdev, device, err);
        options_free(&list);
    }
    free(fsdev);
    free(device);
    return ret;
}

/* A character code; C and older shells write them with 0 or 0x in front. */
int settings_parse_echr(struct settings *settings, const char *text, struct error *err)
{
    char *end;
    unsigned long key = strtoul(text, &end, 0);

    if (*end || end == text || key > 255)
        return error_set(err, EINVAL, "a character code from 0 to 255 is needed");
    settings->escape_key = (uint8_t)key;
    return 0;
}

/* ---- After all options ---- */

static bool uses_stdio(const char *spec)
{
    return spec && (!strcmp(spec, "stdio") || !strcmp(spec, "mon:stdio"));
}

static bool is_stdio_chardev(const char *text)
{
    return !strncmp(text, "stdio", 5) && (text[5] == ',' || !text[5]);
}

/* Which back end each serial port has, with QEMU's defaults. */
int settings_resolve_serials(struct settings *settings, struct error *err)
{
    unsigned stdio_users = uses_stdio(settings->debugcon);

    for (size_t i = 0; i < settings->serials.count; i++) {
        const char *spec = settings->serials.items[i];

        settings->serial_ports[i] = strcmp(spec, "none") ? spec : NULL;
        stdio_users += uses_stdio(settings->serial_ports[i]);
    }
    if (stdio_users > 1)
        return error_set(err, EINVAL, "-serial stdio: the terminal is already in use by another -serial or -debugcon");
    for (size_t i = 0; i < settings->chardevs.count; i++)
        stdio_users += is_stdio_chardev(settings->chardevs.items[i]);
    if (!settings->serials.count && !settings->nodefaults) {
        /* There is no window yet, so without -display none the terminal is where the user looks. */
        bool terminal = !stdio_users && (settings->nographic || !settings->display_none);

        settings->serial_ports[0] = terminal ? "mon:stdio" : "null";
    }
    return 0;
}
