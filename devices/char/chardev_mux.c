/* One back end for several front ends (mux=on, mon:). Each front end has a share, a chardev of its own. What they write goes
 * to the base as it comes; what is typed goes to the share that has the focus: the one that was claimed last, until
 * the escape key (Ctrl-A) and C move it on.
 *
 * The mux is the base's front end. Keys wait in the ring of the share they are for. Device lock held; the escape keys are
 * looked for where input arrives, on the loop's thread or that of a vCPU that asked for more input. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/char/chardev_internal.h"

struct chardev_mux {
    struct chardev *base;
    struct chardev *shares[CHARDEV_MUX_SHARES];
    unsigned focus;
    uint8_t escape_key; /* 0: none */
    bool escape_seen;
};

static struct chardev *focused(struct chardev_mux *mux)
{
    return mux->shares[mux->focus];
}

/* ---- The shares' side ---- */

static size_t share_write(struct chardev *share, const uint8_t *data, size_t size)
{
    size_t done = chardev_write(share->mux->base, data, size);

    if (done < size)
        share->short_write = true;
    return done;
}

static void share_accept_input(struct chardev *share)
{
    chardev_accept_input(share->mux->base);
}

static const struct chardev_backend share_backend = {
    .name = "mux",
    .write = share_write,
    .accept_input = share_accept_input,
};

/* ---- Keys ---- */

static void event(struct chardev *share, enum chardev_event what)
{
    if (share && share->handlers.event)
        share->handlers.event(share->opaque, what);
}

static void set_focus(struct chardev_mux *mux, unsigned focus)
{
    if (focus == mux->focus)
        return;
    event(focused(mux), CHARDEV_MUX_OUT);
    mux->focus = focus;
    event(focused(mux), CHARDEV_MUX_IN);
}

static void switch_focus(struct chardev_mux *mux)
{
    for (unsigned i = 1; i < CHARDEV_MUX_SHARES; i++) {
        unsigned next = (mux->focus + i) % CHARDEV_MUX_SHARES;

        if (mux->shares[next]) {
            set_focus(mux, next);
            return;
        }
    }
    chardev_print(mux->base, "\r\neidolon: there is nothing else here (no monitor yet)\r\n");
}

static void key_name(uint8_t key, char *out, size_t size)
{
    if (key <= 26)
        snprintf(out, size, "C-%c", key + 'a' - 1);
    else
        snprintf(out, size, "<0x%02x>", key);
}

static void print_help(struct chardev_mux *mux)
{
    char key[8], text[512];

    key_name(mux->escape_key, key, sizeof(key));
    snprintf(text, sizeof(text),
             "\r\n"
             "%s h    print this help\r\n"
             "%s x    exit emulator\r\n"
             "%s b    send break (magic sysrq)\r\n"
             "%s c    switch between consoles\r\n"
             "%s %s  sends %s\r\n",
             key, key, key, key, key, key, key);
    chardev_print(mux->base, text);
}

static void quit(struct chardev_mux *mux)
{
    char key[8], text[64];

    key_name(mux->escape_key, key, sizeof(key));
    if (mux->escape_key == 1)
        snprintf(key, sizeof(key), "Ctrl-A");
    snprintf(text, sizeof(text), "\r\neidolon: terminated by %s X\r\n", key);
    chardev_print(mux->base, text);
    if (mux->base->terminal.quit)
        mux->base->terminal.quit(mux->base->terminal.opaque);
}

static void send_break(struct chardev_mux *mux)
{
    struct chardev *share = focused(mux);

    if (share && share->handlers.break_received)
        share->handlers.break_received(share->opaque);
}

static void key_to_focus(struct chardev_mux *mux, uint8_t key)
{
    if (focused(mux))
        chardev_input_put(focused(mux), &key, 1);
}

/* The key after the escape key. */
static void escape_command(struct chardev_mux *mux, uint8_t key)
{
    if (key == mux->escape_key) {
        key_to_focus(mux, key);
        return;
    }
    switch (key) {
    case 'x':
    case 'X':
        quit(mux);
        break;
    case 'h':
    case 'H':
    case '?':
        print_help(mux);
        break;
    case 'c':
    case 'C':
        switch_focus(mux);
        break;
    case 'b':
    case 'B':
        send_break(mux);
        break;
    default:
        break; /* unknown: swallowed, as QEMU does */
    }
}

static void mux_receive(void *opaque, const uint8_t *data, size_t size)
{
    struct chardev_mux *mux = opaque;

    for (size_t i = 0; i < size; i++) {
        if (mux->escape_key && mux->escape_seen) {
            mux->escape_seen = false;
            escape_command(mux, data[i]);
        } else if (mux->escape_key && data[i] == mux->escape_key) {
            mux->escape_seen = true;
        } else {
            key_to_focus(mux, data[i]);
        }
    }
    for (unsigned i = 0; i < CHARDEV_MUX_SHARES; i++) {
        if (mux->shares[i])
            chardev_deliver(mux->shares[i]);
    }
}

/* At a terminal with a person, a guest that does not read must not keep the escape keys from working. */
static size_t mux_can_receive(void *opaque)
{
    struct chardev_mux *mux = opaque;

    if (mux->base->in_keep_reading || !focused(mux))
        return CHARDEV_INPUT_SIZE;
    return chardev_input_room(focused(mux));
}

/* ---- The base's other news ---- */

static void mux_break(void *opaque)
{
    send_break(opaque);
}

static void mux_writable(void *opaque)
{
    struct chardev_mux *mux = opaque;

    for (unsigned i = 0; i < CHARDEV_MUX_SHARES; i++) {
        struct chardev *share = mux->shares[i];

        if (share && share->short_write) {
            share->short_write = false;
            if (share->handlers.writable)
                share->handlers.writable(share->opaque);
        }
    }
}

static void mux_event(void *opaque, enum chardev_event what)
{
    struct chardev_mux *mux = opaque;

    for (unsigned i = 0; i < CHARDEV_MUX_SHARES; i++) {
        if (mux->shares[i])
            chardev_set_open(mux->shares[i], what == CHARDEV_OPENED);
    }
}

static const struct chardev_handlers mux_handlers = {
    .can_receive = mux_can_receive,
    .receive = mux_receive,
    .break_received = mux_break,
    .writable = mux_writable,
    .event = mux_event,
};

/* ---- Life ---- */

int chardev_mux_create(struct chardev *base, uint8_t escape_key, struct error *err)
{
    struct chardev_mux *mux = calloc(1, sizeof(*mux));

    if (!mux)
        return error_set(err, ENOMEM, "out of memory");
    mux->base = base;
    mux->escape_key = escape_key;
    base->mux = mux;
    base->in_keep_reading = base->in_fd >= 0 && isatty(base->in_fd);
    snprintf(base->user, sizeof(base->user), "mux");
    chardev_set_handlers(base, &mux_handlers, mux);
    return 0;
}

static void free_share(struct chardev *share)
{
    share->mux = NULL;
    chardev_destroy(share);
}

void chardev_mux_destroy(struct chardev_mux *mux)
{
    mux->base->mux = NULL;
    for (unsigned i = 0; i < CHARDEV_MUX_SHARES; i++) {
        if (mux->shares[i])
            free_share(mux->shares[i]);
    }
    free(mux);
}

struct chardev *chardev_mux_share(struct chardev_mux *mux, const char *user, struct error *err)
{
    unsigned i = 0;

    while (i < CHARDEV_MUX_SHARES && mux->shares[i])
        i++;
    if (i == CHARDEV_MUX_SHARES) {
        error_set(err, EBUSY, "chardev '%s' is shared by %u already ('%s' is the first), '%s' is one too many",
                  mux->base->id, CHARDEV_MUX_SHARES, mux->shares[0]->user, user);
        return NULL;
    }
    struct chardev *share = chardev_allocate(mux->base->loop, mux->base->id, err);
    if (!share)
        return NULL;
    share->backend = &share_backend;
    share->mux = mux;
    share->open = mux->base->open;
    snprintf(share->filename, sizeof(share->filename), "mux");
    snprintf(share->user, sizeof(share->user), "%s", user);
    mux->shares[i] = share;
    set_focus(mux, i);
    chardev_accept_input(mux->base);
    return share;
}

void chardev_mux_unshare(struct chardev *share)
{
    struct chardev_mux *mux = share->mux;

    for (unsigned i = 0; i < CHARDEV_MUX_SHARES; i++) {
        if (mux->shares[i] != share)
            continue;
        mux->shares[i] = NULL;
        for (unsigned j = 0; j < CHARDEV_MUX_SHARES && mux->focus == i; j++) {
            if (mux->shares[j])
                set_focus(mux, j);
        }
    }
    free_share(share);
}

struct chardev *chardev_mux_base(struct chardev_mux *mux)
{
    return mux->base;
}
