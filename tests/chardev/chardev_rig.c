/* See chardev_rig.h. */
#include "chardev_rig.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct chardev_registry *registry;
struct event_loop *loop;
unsigned quits;
char folder[64];
static struct clock guest_clock;
static struct error err;

static void quit(void *opaque)
{
    (void)opaque;
    quits++;
}

void rig_start(void)
{
    static const struct chardev_terminal terminal = { .quit = quit };

    strcpy(folder, "/tmp/eidolon-chardev-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    guest_clock = (struct clock){ .tsc_khz = 1000000, .ns_base = clock_host_ns() };
    loop = event_loop_create(&guest_clock, &err);
    cr_assert_not_null(loop, "%s", err.text);
    registry = chardev_registry_create(loop, &terminal, &err);
    cr_assert_not_null(registry, "%s", err.text);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

void rig_stop(void)
{
    chardev_registry_destroy(registry);
    event_loop_destroy(loop);
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *rig_path(const char *name)
{
    static char paths[4][200];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, 200, "%s/%s", folder, name);
    return path;
}

void add(const char *format, ...)
{
    char option[400];
    va_list args;

    va_start(args, format);
    vsnprintf(option, sizeof(option), format, args);
    va_end(args);
    cr_assert_eq(chardev_add(registry, option, &err), 0, "%s: %s", option, err.text);
}

const char *add_fails(const char *format, ...)
{
    char option[400];
    va_list args;

    va_start(args, format);
    vsnprintf(option, sizeof(option), format, args);
    va_end(args);
    err.text[0] = '\0';
    cr_assert_lt(chardev_add(registry, option, &err), 0, "%s", option);
    return err.text;
}

/* ---- The front end ---- */

static size_t can_receive(void *opaque)
{
    struct front *front = opaque;

    return front->limit > front->count ? front->limit - front->count : 0;
}

static void receive(void *opaque, const uint8_t *data, size_t size)
{
    struct front *front = opaque;

    cr_assert_leq(front->count + size, front->limit, "no more than it can take");
    memcpy(front->got + front->count, data, size);
    front->count += size;
}

static void got_break(void *opaque)
{
    ((struct front *)opaque)->breaks++;
}

static void writable(void *opaque)
{
    ((struct front *)opaque)->writable++;
}

static void event(void *opaque, enum chardev_event what)
{
    struct front *front = opaque;

    front->opened += what == CHARDEV_OPENED;
    front->closed += what == CHARDEV_CLOSED;
    front->mux_in += what == CHARDEV_MUX_IN;
    front->mux_out += what == CHARDEV_MUX_OUT;
}

void front_listen(struct front *front, struct chardev *chardev)
{
    static const struct chardev_handlers handlers = {
        .can_receive = can_receive,
        .receive = receive,
        .break_received = got_break,
        .writable = writable,
        .event = event,
    };

    front->chardev = chardev;
    if (!front->limit)
        front->limit = sizeof(front->got) - 1;
    chardev_set_handlers(chardev, &handlers, front);
}

void front_claim(struct front *front, const char *id, const char *user)
{
    struct chardev *chardev = chardev_claim(registry, id, user, &err);

    cr_assert_not_null(chardev, "%s", err.text);
    front_listen(front, chardev);
}

size_t send_text(struct front *front, const char *text)
{
    return chardev_write(front->chardev, (const uint8_t *)text, strlen(text));
}

/* ---- The loop ---- */

static void stop_loop(void *opaque)
{
    (void)opaque;
    event_loop_stop(loop);
}

void run_for(unsigned ms)
{
    struct timer timer;

    timer_init(&timer, loop, stop_loop, NULL);
    timer_arm(&timer, clock_now_ns(&guest_clock) + ms * 1000000ull);
    event_loop_run(loop);
    timer_disarm(&timer);
}

/* ---- Peers ---- */

static struct sockaddr_un unix_address(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    return address;
}

int peer_unix(const char *path)
{
    struct sockaddr_un address = unix_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0, "%s: %m", path);
    return fd;
}

int listen_unix(const char *path)
{
    struct sockaddr_un address = unix_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0, "%s: %m", path);
    cr_assert_eq(listen(fd, 4), 0);
    return fd;
}

int peer_tcp(unsigned port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0, "%m");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

const char *peer_read(int fd, size_t size)
{
    static char text[300000];
    size_t done = 0;

    for (unsigned i = 0; i < 500 && done < size; i++) {
        ssize_t part = read(fd, text + done, sizeof(text) - 1 - done);

        if (part > 0)
            done += (size_t)part;
        else
            run_for(5);
    }
    text[done] = '\0';
    return text;
}
