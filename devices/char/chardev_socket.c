/* The socket back end: tcp and unix, as the side that listens (server=on) or the one that connects.
 *
 * A listener has one client at a time; others wait in the queue until that one leaves. wait=on, the default, holds up the
 * start of the machine until the first has come. A client connects at the start; with reconnect=N it does so in the
 * background, and again N seconds after the connection was lost. Nothing here blocks once the machine runs: names are
 * looked up at the start.
 *
 * Invariants: of the listening watch, the connecting descriptor and the stream at most one is active; the stream is
 * (in_fd >= 0) of the chardev. Loop thread. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "devices/char/chardev_internal.h"

#define NS_PER_SECOND   1000000000ull
#define MAX_RECONNECT_S 86400
#define WAIT_STEP_MS    100
#define MAX_PORTS       65535u

struct socket_chardev {
    struct chardev *chardev;
    char *path;                 /* unix; NULL: tcp, or a descriptor that was passed */
    struct addrinfo *addresses; /* tcp */
    bool abstract, tight, server, wait, nodelay, unlink_path;
    uint64_t reconnect_s; /* 0: no */
    int listen_fd, connect_fd;
    const struct addrinfo *connecting; /* connect_fd goes there; reconnect only */
    struct fd_watch *listen_watch, *connect_watch;
    struct timer retry_timer;
    char name[120]; /* for messages: "unix:/run/x", "tcp:127.0.0.1:4444" */
};

/* ---- A connection ---- */

static int start_stream(struct socket_chardev *sock, int fd, struct error *err)
{
    struct chardev *chardev = sock->chardev;
    int out_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3), on = 1;

    if (out_fd < 0) {
        close(fd);
        return error_set(err, errno, "%s: %s", sock->name, strerror(errno));
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (sock->nodelay)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* of no effect on unix sockets */
    chardev->out_socket = true;
    chardev->out_chunk = CHARDEV_OUTPUT_SIZE;
    return chardev_stream_start(chardev, fd, out_fd, err);
}

static void accept_ready(void *opaque, unsigned ready)
{
    struct socket_chardev *sock = opaque;
    struct error err;
    int fd = accept4(sock->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)ready;
    if (fd < 0)
        return; /* it has left again */
    fd_watch_change(sock->listen_watch, 0);
    if (start_stream(sock, fd, &err)) {
        log_warn("chardev '%s': %s", sock->chardev->id, err.text);
        fd_watch_change(sock->listen_watch, FD_READABLE);
    }
}

static void retry_later(struct socket_chardev *sock)
{
    uint64_t now = clock_now_ns(event_loop_clock(sock->chardev->loop));

    timer_arm(&sock->retry_timer, now + sock->reconnect_s * NS_PER_SECOND);
}

static void socket_lost(struct chardev *chardev)
{
    struct socket_chardev *sock = chardev->private_data;

    chardev_stream_stop(chardev);
    if (sock->server)
        fd_watch_change(sock->listen_watch, FD_READABLE);
    else if (sock->reconnect_s)
        retry_later(sock);
}

/* ---- Connecting ---- */

/* A descriptor whose connection is under way, or -errno. */
static int begin_connect(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;

    if (fd < 0)
        return -errno;
    if (!connect(fd, info->ai_addr, info->ai_addrlen) || errno == EINPROGRESS)
        return fd;
    error = errno;
    close(fd);
    return -error;
}

/* 0: connected. */
static int connect_result(int fd)
{
    int error = 0;
    socklen_t size = sizeof(error);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) ? -errno : -error;
}

static bool interrupted(const struct chardev *chardev)
{
    return chardev->terminal.interrupted && chardev->terminal.interrupted(chardev->terminal.opaque);
}

/* Waits for `events` of fd at the start of the machine. -EINTR: the user wants to quit. */
static int wait_for(const struct chardev *chardev, int fd, short events)
{
    struct pollfd poll_fd = { .fd = fd, .events = events };

    while (poll(&poll_fd, 1, WAIT_STEP_MS) <= 0) {
        if (interrupted(chardev))
            return -EINTR;
    }
    return 0;
}

static int connect_now(struct socket_chardev *sock, struct error *err)
{
    int result = -EADDRNOTAVAIL;

    if (sock->path) {
        int fd = chardev_connect_unix(sock->path, sock->abstract, sock->tight, err);
        return fd < 0 ? fd : start_stream(sock, fd, err);
    }
    for (const struct addrinfo *info = sock->addresses; info && result != -EINTR; info = info->ai_next) {
        int fd = begin_connect(info);

        if (fd < 0) {
            result = fd;
            continue;
        }
        result = wait_for(sock->chardev, fd, POLLOUT);
        if (!result)
            result = connect_result(fd);
        if (!result)
            return start_stream(sock, fd, err);
        close(fd);
    }
    return error_set(err, -result, "cannot connect to %s: %s", sock->name, strerror(-result));
}

static void try_connect(struct socket_chardev *sock, const struct addrinfo *info);

static void stop_connecting(struct socket_chardev *sock)
{
    fd_watch_remove(sock->connect_watch);
    sock->connect_watch = NULL;
}

static void connect_ready(void *opaque, unsigned ready)
{
    struct socket_chardev *sock = opaque;
    int fd = sock->connect_fd, result = connect_result(fd);

    (void)ready;
    stop_connecting(sock);
    sock->connect_fd = -1;
    if (!result) {
        if (start_stream(sock, fd, NULL))
            retry_later(sock);
        return;
    }
    close(fd);
    try_connect(sock, sock->connecting->ai_next);
}

/* In the background, from this address on. */
static void try_connect(struct socket_chardev *sock, const struct addrinfo *info)
{
    for (; info; info = info->ai_next) {
        sock->connect_fd = begin_connect(info);
        if (sock->connect_fd < 0)
            continue;
        sock->connecting = info;
        sock->connect_watch =
            fd_watch_add(sock->chardev->loop, sock->connect_fd, FD_WRITABLE, connect_ready, sock, NULL);
        if (sock->connect_watch)
            return;
        close(sock->connect_fd);
        sock->connect_fd = -1;
    }
    retry_later(sock);
}

static void retry_due(void *opaque)
{
    struct socket_chardev *sock = opaque;
    int fd;

    if (!sock->path) {
        try_connect(sock, sock->addresses);
        return;
    }
    fd = chardev_connect_unix(sock->path, sock->abstract, sock->tight, NULL);
    if (fd < 0 || start_stream(sock, fd, NULL))
        retry_later(sock);
}

/* ---- Listening ---- */

static int wait_for_client(struct socket_chardev *sock, struct error *err)
{
    int fd;

    fprintf(stderr, "eidolon: waiting for a connection on: %s\n", sock->name);
    do {
        if (wait_for(sock->chardev, sock->listen_fd, POLLIN))
            return error_set(err, EINTR, "%s: interrupted while waiting for a connection", sock->name);
        fd = accept4(sock->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (fd < 0);
    return start_stream(sock, fd, err);
}

static int start_server(struct socket_chardev *sock, struct error *err)
{
    int result = sock->wait ? wait_for_client(sock, err) : 0;

    if (result)
        return result;
    sock->listen_watch =
        fd_watch_add(sock->chardev->loop, sock->listen_fd, sock->wait ? 0 : FD_READABLE, accept_ready, sock, err);
    return sock->listen_watch ? 0 : -EIO;
}

static int listen_now(struct socket_chardev *sock, unsigned ports, struct error *err)
{
    if (sock->path) {
        sock->listen_fd = chardev_bind_unix(sock->path, sock->abstract, sock->tight, err);
        sock->unlink_path = sock->listen_fd >= 0 && !sock->abstract;
    } else {
        char name[sizeof(sock->name)];

        snprintf(name, sizeof(name), "%s", sock->name);
        sock->listen_fd = chardev_listen_inet(sock->addresses, ports, name, sizeof(name), err);
        if (sock->listen_fd >= 0)
            snprintf(sock->name, sizeof(sock->name), "tcp:%.110s", name);
    }
    return sock->listen_fd < 0 ? sock->listen_fd : start_server(sock, err);
}

/* ---- Options ---- */

/* fd=N: a connected socket, or with server=on a listening one, that whoever started us has opened. */
static int take_descriptor(struct socket_chardev *sock, const char *text, struct error *err)
{
    int type, listening = 0, fd;
    socklen_t size = sizeof(type);
    uint64_t number;

    if (parse_u64(text, &number, NULL) || number > 1 << 20)
        return error_set(err, EINVAL, "fd=%s: the number of a descriptor is needed", text);
    if (getsockopt((int)number, SOL_SOCKET, SO_TYPE, &type, &size))
        return error_set(err, errno, "fd=%s: %s", text, strerror(errno));
    if (type != SOCK_STREAM)
        return error_set(err, EINVAL, "fd=%s: not a stream socket", text);
    getsockopt((int)number, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size);
    if (sock->server != (listening != 0))
        return error_set(err, EINVAL, "fd=%s: %s", text,
                         listening ? "that socket listens: server=on is needed" : "that socket does not listen");
    if (sock->reconnect_s)
        return error_set(err, EINVAL, "reconnect= is of no use with fd=");
    fd = fcntl((int)number, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return error_set(err, errno, "fd=%s: %s", text, strerror(errno));
    snprintf(sock->name, sizeof(sock->name), "fd:%s", text);
    if (!sock->server)
        return start_stream(sock, fd, err);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    sock->listen_fd = fd;
    return start_server(sock, err);
}

static int refuse_layers(struct option_list *options, struct error *err)
{
    static const char *const keys[] = { "telnet", "tn3270", "websocket" };
    bool on;

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        int result = options_get_bool(options, keys[i], false, &on, err);

        if (result)
            return result;
        if (on)
            return error_set(err, ENOTSUP, "%s=on: only plain sockets are supported", keys[i]);
    }
    if (options_get(options, "tls-creds") || options_get(options, "tls-authz"))
        return error_set(err, ENOTSUP, "tls-creds=: encryption is not supported");
    return 0;
}

static int parse_flags(struct socket_chardev *sock, struct option_list *options, struct error *err)
{
    bool no_wait, delay, has_wait = options_get(options, "wait") != NULL;
    int result = options_get_bool(options, "server", false, &sock->server, err);

    result = result ?: options_get_bool(options, "nowait", false, &no_wait, err);
    result = result ?: options_get_bool(options, "wait", sock->server && !no_wait, &sock->wait, err);
    result = result ?: options_get_bool(options, "delay", true, &delay, err);
    result = result ?: options_get_bool(options, "nodelay", !delay, &sock->nodelay, err);
    result = result ?: options_get_u64(options, "reconnect", 0, &sock->reconnect_s, err);
    result = result ?: options_get_bool(options, "abstract", false, &sock->abstract, err);
    result = result ?: options_get_bool(options, "tight", true, &sock->tight, err);
    if (result)
        return result;
    if (!sock->server && (has_wait || no_wait))
        return error_set(err, EINVAL, "wait= is only for server=on");
    if (sock->server && sock->reconnect_s)
        return error_set(err, EINVAL, "reconnect= is not for server=on");
    if (sock->reconnect_s > MAX_RECONNECT_S)
        return error_set(err, EINVAL, "reconnect= is at most %d seconds", MAX_RECONNECT_S);
    return refuse_layers(options, err);
}

/* to=N: the last port that a listener may try. */
static int parse_ports(const struct socket_chardev *sock, struct option_list *options, const char *port,
                       unsigned *ports, struct error *err)
{
    uint64_t first, last;

    *ports = 1;
    if (!options_get(options, "to"))
        return 0;
    int result = options_get_u64(options, "to", 0, &last, err);
    if (result)
        return result;
    if (!sock->server || parse_u64(port, &first, NULL) || last < first || last > MAX_PORTS)
        return error_set(err, EINVAL, "to= is the last of several ports that a listener may take");
    *ports = (unsigned)(last - first + 1);
    return 0;
}

static int open_inet(struct socket_chardev *sock, struct option_list *options, struct error *err)
{
    const char *host = options_get(options, "host"), *port = options_get(options, "port");
    unsigned ports;
    int family;

    if (!port)
        return error_set(err, EINVAL, "path=, port= or fd= is missing");
    int result = chardev_address_family(options, &family, err);
    result = result ?: parse_ports(sock, options, port, &ports, err);
    result = result ?: chardev_resolve(host, port, family, SOCK_STREAM, sock->server, &sock->addresses, err);
    if (result)
        return result;
    snprintf(sock->name, sizeof(sock->name), "tcp:%.80s:%.20s", host ? host : "", port);
    if (sock->server)
        return listen_now(sock, ports, err);
    if (!sock->reconnect_s)
        return connect_now(sock, err);
    try_connect(sock, sock->addresses);
    return 0;
}

static int open_unix(struct socket_chardev *sock, const char *path, struct error *err)
{
    if (!*path)
        return error_set(err, EINVAL, "path= is empty");
    sock->path = strdup(path);
    if (!sock->path)
        return error_set(err, ENOMEM, "out of memory");
    snprintf(sock->name, sizeof(sock->name), "unix:%s%.110s", sock->abstract ? "@" : "", path);
    if (sock->server)
        return listen_now(sock, 1, err);
    if (!sock->reconnect_s)
        return connect_now(sock, err);
    retry_due(sock);
    return 0;
}

static int open_socket(struct chardev *chardev, struct option_list *options, struct error *err)
{
    struct socket_chardev *sock = calloc(1, sizeof(*sock));
    const char *path = options_get(options, "path"), *fd = options_get(options, "fd");
    int result;

    if (!sock)
        return error_set(err, ENOMEM, "out of memory");
    sock->chardev = chardev;
    sock->listen_fd = sock->connect_fd = -1;
    timer_init(&sock->retry_timer, chardev->loop, retry_due, sock);
    chardev->private_data = sock;
    result = parse_flags(sock, options, err);
    if (result)
        return result;
    if ((path != NULL) + (fd != NULL) + (options_get(options, "port") != NULL) > 1)
        return error_set(err, EINVAL, "path=, port= and fd= exclude each other");
    if (fd)
        result = take_descriptor(sock, fd, err);
    else if (path)
        result = open_unix(sock, path, err);
    else
        result = open_inet(sock, options, err);
    snprintf(chardev->filename, sizeof(chardev->filename), "%s%s", sock->name, sock->server ? ",server=on" : "");
    return result;
}

static void close_socket(struct chardev *chardev)
{
    struct socket_chardev *sock = chardev->private_data;

    if (!sock)
        return;
    timer_disarm(&sock->retry_timer);
    if (sock->connect_watch)
        stop_connecting(sock);
    if (sock->connect_fd >= 0)
        close(sock->connect_fd);
    if (sock->listen_watch)
        fd_watch_remove(sock->listen_watch);
    if (sock->listen_fd >= 0)
        close(sock->listen_fd);
    if (sock->unlink_path)
        unlink(sock->path);
    if (sock->addresses)
        freeaddrinfo(sock->addresses);
    free(sock->path);
    free(sock);
}

extern const struct chardev_backend chardev_backend_socket;
const struct chardev_backend chardev_backend_socket = {
    .name = "socket",
    .open = open_socket,
    .close = close_socket,
    .lost = socket_lost,
};
