/* What the user writes: the names of back ends, and the short strings of -serial, -debugcon and -monitor, which become the
 * options of -chardev. Pure functions; any thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/char/chardev_internal.h"

#define BACKENDS(X) X(file) X(null) X(pipe) X(pty) X(ringbuf) X(serial) X(socket) X(stdio) X(udp)

#define DECLARE(name) extern const struct chardev_backend chardev_backend_##name;
BACKENDS(DECLARE)
#undef DECLARE

static const struct chardev_backend *const backends[] = {
#define ROW(name) &chardev_backend_##name,
    BACKENDS(ROW)
#undef ROW
};

/* QEMU's, which are not here, and why. */
static const struct {
    const char *name, *why;
} refused[] = {
    { "vc", "there is no window that could show it" },
    { "console", "that is for Windows hosts" },
    { "con", "that is for Windows hosts" },
    { "telnet", "the telnet protocol is not supported; use tcp" },
    { "websocket", "the WebSocket protocol is not supported; use tcp" },
    { "tn3270", "the TN3270 protocol is not supported; use tcp" },
    { "parallel", "there is no parallel port" },
    { "parport", "there is no parallel port" },
    { "msmouse", "there is no serial mouse" },
    { "wctablet", "there is no serial tablet" },
    { "testdev", "not supported" },
    { "braille", "there is no braille device" },
    { "spicevmc", "there is no SPICE server" },
    { "spiceport", "there is no SPICE server" },
    { "qemu-vdagent", "there is no clipboard to share" },
    { "dbus", "there is no D-Bus display" },
    { "mux", "write mux=on behind another back end" },
};

static int refuse(const char *name, size_t length, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        if (strlen(refused[i].name) == length && !strncmp(refused[i].name, name, length))
            return error_set(err, ENOTSUP, "character device '%.*s': %s", (int)length, name, refused[i].why);
    }
    return 0;
}

static bool is_backend(const struct chardev_backend *backend, const char *name)
{
    return !strcmp(backend->name, name) || (backend->alias && !strcmp(backend->alias, name));
}

const struct chardev_backend *chardev_backend_find(const char *name, struct error *err)
{
    const char *names[ARRAY_SIZE(backends) + 1] = { NULL };

    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        if (is_backend(backends[i], name))
            return backends[i];
        names[i] = backends[i]->name;
    }
    if (refuse(name, strlen(name), err))
        return NULL;
    const char *near = nearest_word(name, names);
    if (near)
        error_set(err, EINVAL, "unknown character device '%s'; did you mean '%s'?", name, near);
    else
        error_set(err, EINVAL, "unknown character device '%s' (-chardev help lists them)", name);
    return NULL;
}

void chardev_list_backends(void)
{
    puts("Available chardev backend types: ");
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
        printf("  %s\n", backends[i]->name);
}

/* ---- Short strings ---- */

/* Text under construction in the syntax of -chardev. */
struct builder {
    char *text;
    size_t length, capacity;
};

static void append_bytes(struct builder *out, const char *text, size_t size)
{
    size = MIN(size, out->capacity - out->length);
    memcpy(out->text + out->length, text, size);
    out->length += size;
    out->text[out->length] = '\0';
}

static void append(struct builder *out, const char *text)
{
    append_bytes(out, text, strlen(text));
}

/* A value, in which commas are doubled. */
static void append_value(struct builder *out, const char *key, const char *value, size_t size)
{
    append(out, ",");
    append(out, key);
    append(out, "=");
    for (size_t i = 0; i < size; i++)
        append_bytes(out, value[i] == ',' ? ",," : &value[i], value[i] == ',' ? 2 : 1);
}

/* HOST:PORT, [HOST]:PORT, :PORT at `text`; returns where it ended, or NULL. */
static const char *append_host_port(struct builder *out, const char *host_key, const char *port_key, const char *text,
                                    const char *end_at)
{
    const char *host = text, *end;

    if (*text == '[') {
        host++;
        end = strchr(host, ']');
        if (!end || end[1] != ':')
            return NULL;
        text = end + 1;
    } else {
        end = text = strchr(text, ':');
        if (!end)
            return NULL;
    }
    append_value(out, host_key, host, (size_t)(end - host));
    size_t length = strcspn(++text, end_at);
    if (!length)
        return NULL;
    append_value(out, port_key, text, length);
    return text + length;
}

static int build_tcp(struct builder *out, const char *text, struct error *err)
{
    append(out, "socket");
    text = append_host_port(out, "host", "port", text, ",");
    if (!text)
        return error_set(err, EINVAL, "tcp:HOST:PORT expected");
    append(out, text);
    return 0;
}

/* udp:[HOST]:PORT[@[LOCALHOST]:LOCALPORT] */
static int build_udp(struct builder *out, const char *text, struct error *err)
{
    append(out, "udp");
    text = append_host_port(out, "host", "port", text, "@,");
    if (text && *text == '@')
        text = append_host_port(out, "localaddr", "localport", text + 1, ",");
    if (!text)
        return error_set(err, EINVAL, "udp:HOST:PORT[@LOCALHOST:LOCALPORT] expected");
    append(out, text);
    return 0;
}

static int build_unix(struct builder *out, const char *text, struct error *err)
{
    if (!*text || *text == ',')
        return error_set(err, EINVAL, "'unix:' needs a path");
    append(out, "socket,path=");
    append(out, text); /* commas are as in options here */
    return 0;
}

static int build_path(struct builder *out, const char *backend, const char *path, struct error *err)
{
    if (!*path)
        return error_set(err, EINVAL, "'%s:' needs a path", backend);
    append(out, backend);
    append_value(out, "path", path, strlen(path)); /* the rest is the path, commas and all */
    return 0;
}

static int build_plain(struct builder *out, const char *spec, struct error *err)
{
    static const char *const words[] = { "stdio", "null", "pty" };
    static const char *const near_words[] = { "stdio", "mon:stdio", "file:", "null",  "none",     "pipe:",
                                              "pty",   "tcp:",      "udp:",  "unix:", "chardev:", NULL };
    size_t length = strcspn(spec, ":");

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (!strcmp(spec, words[i])) {
            append(out, words[i]);
            return 0;
        }
    }
    if (!strcmp(spec, "none")) {
        append(out, "null");
        return 0;
    }
    if (!strncmp(spec, "/dev/parport", 12))
        return error_set(err, ENOTSUP, "character device '%s': there is no parallel port", spec);
    if (!strncmp(spec, "/dev/", 5))
        return build_path(out, "serial", spec, err);
    int result = refuse(spec, length, err);
    if (result)
        return result;
    const char *near = nearest_word(spec, near_words);
    if (near)
        return error_set(err, EINVAL, "unknown character device '%s'; did you mean '%s'?", spec, near);
    return error_set(
        err, EINVAL,
        "unknown character device '%s' (there are stdio, mon:stdio, file:PATH, pipe:PATH, pty, tcp:, udp:, "
        "unix:, null, none, chardev:ID, /dev/...)",
        spec);
}

static int build(struct builder *out, const char *spec, struct error *err)
{
    if (!strncmp(spec, "file:", 5))
        return build_path(out, "file", spec + 5, err);
    if (!strncmp(spec, "pipe:", 5))
        return build_path(out, "pipe", spec + 5, err);
    if (!strncmp(spec, "tcp:", 4))
        return build_tcp(out, spec + 4, err);
    if (!strncmp(spec, "udp:", 4))
        return build_udp(out, spec + 4, err);
    if (!strncmp(spec, "unix:", 5))
        return build_unix(out, spec + 5, err);
    return build_plain(out, spec, err);
}

int chardev_legacy_parse(struct option_list *options, const char *spec, struct error *err)
{
    bool mon = !strncmp(spec, "mon:", 4);
    size_t capacity = 2 * strlen(spec) + 100; /* every comma may be doubled */
    struct builder out = { .text = malloc(capacity + 1), .capacity = capacity };

    if (!out.text)
        return error_set(err, ENOMEM, "out of memory");
    int result = build(&out, spec + (mon ? 4 : 0), err);
    if (!result && mon)
        append(&out, strcmp(spec, "mon:stdio") ? ",mux=on" : ",mux=on,signal=off");
    if (!result)
        result = options_parse(options, out.text, "backend", err);
    free(out.text);
    return result;
}
