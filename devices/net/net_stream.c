/* -netdev stream, and -netdev socket,listen=|connect=|fd=: frames over a stream socket, each behind its length (4 bytes, big-endian),
 * which is what passt and QEMU speak. One connection at a time; a server goes back to waiting when it ends, a client tries again
 * after reconnect= seconds, or never.
 *
 * While nobody is connected, packets are dropped: the cable leads nowhere. Frames to the socket are collected and leave at the
 * end of the turn; when the socket is full, the collection fills, and then the card waits. Frames from the socket are only taken
 * while the card has room. A length that no frame has ends the connection, because there is no way to find the next frame.
 *
 * Threads: all on the loop's, device lock held. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "devices/net/net_internal.h"

#define OUT_SIZE   (512u << 10)
#define IN_SIZE    (256u << 10)
#define MAX_LENGTH (NET_MAX_PACKET + 4096u) /* of a frame that is skipped, not taken for nonsense */

struct net_stream {
    struct net_client client; /* first */
    struct event_loop *loop;
    struct net_address address;
    bool server, connecting;
    uint64_t reconnect_ns; /* 0: never */
    int listener, fd;
    struct fd_watch *listen_watch, *watch;
    struct timer retry;
    struct net_work flush;
    uint8_t *out, *in;
    size_t out_start, out_size, in_start, in_size;
};

static void connection_ready(void *opaque, unsigned ready);

static bool is_connected(const struct net_stream *stream)
{
    return stream->fd >= 0 && !stream->connecting;
}

static void update_watch(struct net_stream *stream)
{
    unsigned events = 0;

    if (!stream->watch)
        return;
    if (stream->connecting || stream->out_size)
        events |= FD_WRITABLE;
    if (!stream->connecting && net_can_send(&stream->client))
        events |= FD_READABLE;
    fd_watch_change(stream->watch, events);
}

static void disconnect(struct net_stream *stream)
{
    if (stream->fd < 0)
        return;
    if (stream->watch)
        fd_watch_remove(stream->watch);
    stream->watch = NULL;
    close(stream->fd);
    stream->fd = -1;
    stream->connecting = false;
    stream->out_start = stream->out_size = stream->in_start = stream->in_size = 0;
    net_client_purge(&stream->client);
    if (stream->listen_watch)
        fd_watch_change(stream->listen_watch, FD_READABLE);
    else if (stream->reconnect_ns)
        timer_arm(&stream->retry, clock_now_ns(event_loop_clock(stream->loop)) + stream->reconnect_ns);
    net_client_resume(&stream->client);
}

static int adopt(struct net_stream *stream, int fd, bool connecting, struct error *err)
{
    int one = 1;

    stream->fd = fd;
    stream->connecting = connecting;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* fails on others, which do not delay */
    stream->watch =
        fd_watch_add(stream->loop, fd, connecting ? FD_WRITABLE : FD_READABLE, connection_ready, stream, err);
    return stream->watch ? 0 : -EIO;
}

/* ---- To the socket ---- */

static void flush_out(struct net_stream *stream)
{
    while (stream->out_size) {
        ssize_t sent = send(stream->fd, stream->out + stream->out_start, stream->out_size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            disconnect(stream);
            return;
        }
        stream->out_start += (size_t)sent;
        stream->out_size -= (size_t)sent;
    }
    if (!stream->out_size)
        stream->out_start = 0;
    update_watch(stream);
}

static void flush_work(void *opaque)
{
    struct net_stream *stream = opaque;

    if (is_connected(stream))
        flush_out(stream);
    net_client_resume(&stream->client);
}

static bool has_room(const struct net_stream *stream, size_t size)
{
    return stream->out_size + size + 4 <= OUT_SIZE;
}

static bool stream_can_receive(struct net_client *client)
{
    struct net_stream *stream = container_of(client, struct net_stream, client);

    return !is_connected(stream) || has_room(stream, NET_MAX_PACKET);
}

static bool stream_receive(struct net_client *client, const struct net_packet *packet)
{
    struct net_stream *stream = container_of(client, struct net_stream, client);
    uint8_t *out;

    if (!is_connected(stream))
        return true;
    if (!has_room(stream, packet->size))
        return false;
    if (stream->out_start + stream->out_size + packet->size + 4 > OUT_SIZE) {
        memmove(stream->out, stream->out + stream->out_start, stream->out_size);
        stream->out_start = 0;
    }
    out = stream->out + stream->out_start + stream->out_size;
    out[0] = (uint8_t)(packet->size >> 24);
    out[1] = (uint8_t)(packet->size >> 16);
    out[2] = (uint8_t)(packet->size >> 8);
    out[3] = (uint8_t)packet->size;
    net_iov_read(packet->iov, packet->iov_count, 0, out + 4, packet->size);
    stream->out_size += packet->size + 4;
    net_work_schedule(&stream->flush);
    return true;
}

/* ---- From the socket ---- */

/* Hands over the frames that are there whole, while the card has room. */
static void deliver_frames(struct net_stream *stream)
{
    while (stream->in_size >= 4 && stream->fd >= 0) {
        const uint8_t *in = stream->in + stream->in_start;
        size_t length = (size_t)in[0] << 24 | (size_t)in[1] << 16 | (size_t)in[2] << 8 | in[3];

        if (length > MAX_LENGTH) {
            log_warn("netdev %s: a frame of %zu bytes: the connection ends", stream->client.id, length);
            disconnect(stream);
            return;
        }
        if (stream->in_size < 4 + length || !net_can_send(&stream->client))
            break;
        stream->in_start += 4 + length;
        stream->in_size -= 4 + length;
        net_send_buffer(&stream->client, in + 4, length);
    }
}

static void receive_more(struct net_stream *stream)
{
    ssize_t size;

    memmove(stream->in, stream->in + stream->in_start, stream->in_size);
    stream->in_start = 0;
    if (stream->in_size < IN_SIZE) {
        size = recv(stream->fd, stream->in + stream->in_size, IN_SIZE - stream->in_size, MSG_DONTWAIT);
        if (!size || (size < 0 && errno != EAGAIN && errno != EINTR)) {
            disconnect(stream);
            return;
        }
        if (size > 0)
            stream->in_size += (size_t)size;
    }
    deliver_frames(stream);
}

static void connection_ready(void *opaque, unsigned ready)
{
    struct net_stream *stream = opaque;
    int problem = 0;
    socklen_t size = sizeof(problem);

    if (stream->connecting) {
        getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
        if (problem) {
            disconnect(stream);
            return;
        }
        stream->connecting = false;
    }
    if (ready & FD_WRITABLE)
        flush_out(stream);
    if (stream->fd >= 0 && (ready & FD_READABLE))
        receive_more(stream);
    update_watch(stream);
    net_client_resume(&stream->client);
}

static void stream_peer_ready(struct net_client *client)
{
    struct net_stream *stream = container_of(client, struct net_stream, client);

    deliver_frames(stream);
    update_watch(stream);
}

/* ---- Connections ---- */

static void accept_one(void *opaque, unsigned ready)
{
    struct net_stream *stream = opaque;
    int fd = accept4(stream->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)ready;
    if (fd < 0)
        return;
    if (stream->fd >= 0 || adopt(stream, fd, false, NULL)) {
        stream->fd = -1;
        close(fd);
        return;
    }
    fd_watch_change(stream->listen_watch, 0); /* others wait in the backlog */
}

static int start_listening(struct net_stream *stream, struct error *err)
{
    int one = 1;

    stream->listener = socket(stream->address.u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (stream->listener < 0)
        return error_set(err, errno, "%s: %s", stream->address.text, strerror(errno));
    if (stream->address.u.any.sa_family == AF_UNIX) {
        const char *path = ((struct sockaddr_un *)&stream->address.u.any)->sun_path;

        if (*path)
            unlink(path);
    }
    setsockopt(stream->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(stream->listener, &stream->address.u.any, stream->address.size) || listen(stream->listener, 1))
        return error_set(err, errno, "cannot listen on %s: %s", stream->address.text, strerror(errno));
    stream->listen_watch = fd_watch_add(stream->loop, stream->listener, FD_READABLE, accept_one, stream, err);
    return stream->listen_watch ? 0 : -EIO;
}

static int start_connecting(struct net_stream *stream, struct error *err)
{
    int fd = socket(stream->address.u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), result;

    if (fd < 0)
        return error_set(err, errno, "%s: %s", stream->address.text, strerror(errno));
    if (connect(fd, &stream->address.u.any, stream->address.size) && errno != EINPROGRESS) {
        result = error_set(err, errno, "cannot connect to %s: %s", stream->address.text, strerror(errno));
        close(fd);
        return result;
    }
    return adopt(stream, fd, true, err);
}

static void retry(void *opaque)
{
    struct net_stream *stream = opaque;

    if (stream->fd < 0 && start_connecting(stream, NULL))
        timer_arm(&stream->retry, clock_now_ns(event_loop_clock(stream->loop)) + stream->reconnect_ns);
}

/* ---- Life ---- */

static void stream_destroy(struct net_client *client)
{
    struct net_stream *stream = container_of(client, struct net_stream, client);

    timer_disarm(&stream->retry);
    net_work_destroy(&stream->flush);
    if (stream->watch)
        fd_watch_remove(stream->watch);
    if (stream->listen_watch)
        fd_watch_remove(stream->listen_watch);
    if (stream->fd >= 0)
        close(stream->fd);
    if (stream->listener >= 0) {
        const char *path = ((struct sockaddr_un *)&stream->address.u.any)->sun_path;

        close(stream->listener);
        if (stream->address.u.any.sa_family == AF_UNIX && *path)
            unlink(path);
    }
    free(stream->out);
    free(stream->in);
    free(stream);
}

static const struct net_client_ops stream_ops = {
    .kind = "stream",
    .can_receive = stream_can_receive,
    .receive = stream_receive,
    .peer_ready = stream_peer_ready,
    .destroy = stream_destroy,
};

static int start(struct net_stream *stream, int fd, struct error *err)
{
    int result;

    if (fd >= 0)
        return adopt(stream, fd, false, err);
    if (stream->server)
        return start_listening(stream, err);
    result = start_connecting(stream, err);
    /* With reconnect=, whoever is not there yet may still come. */
    if (result && stream->reconnect_ns) {
        timer_arm(&stream->retry, clock_now_ns(event_loop_clock(stream->loop)) + stream->reconnect_ns);
        result = 0;
    }
    return result;
}

/* fd: a connected socket, or -1. */
static int create(struct net_registry *registry, const char *id, const struct net_address *address, int fd, bool server,
                  uint64_t reconnect_ns, struct error *err)
{
    struct net_stream *stream = calloc(1, sizeof(*stream));
    int result;

    if (!stream)
        return error_set(err, ENOMEM, "out of memory");
    *stream = (struct net_stream){
        .loop = registry->loop,
        .address = *address,
        .server = server,
        .reconnect_ns = reconnect_ns,
        .fd = -1,
        .listener = -1,
        .out = malloc(OUT_SIZE),
        .in = malloc(IN_SIZE),
    };
    timer_init(&stream->retry, stream->loop, retry, stream);
    snprintf(stream->client.info, sizeof(stream->client.info), "%.150s", address->text);
    result = stream->out && stream->in ? 0 : error_set(err, ENOMEM, "out of memory");
    if (!result)
        result = net_work_init(&stream->flush, stream->loop, flush_work, stream, err);
    if (!result)
        result = net_client_add(registry, &stream->client, &stream_ops, id, err);
    if (!result)
        result = start(stream, fd, err);
    if (result) {
        net_client_remove(&stream->client);
        stream_destroy(&stream->client);
    }
    return result;
}

int net_stream_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err)
{
    struct net_address address;
    uint64_t reconnect, reconnect_ms;
    bool server;
    int fd, result;

    if ((result = options_get_bool(options, "server", false, &server, err)) ||
        (result = options_get_u64(options, "reconnect", 0, &reconnect, err)) ||
        (result = options_get_u64(options, "reconnect-ms", 0, &reconnect_ms, err)) ||
        (result = net_address_of_options(options, "addr", server, SOCK_STREAM, &address, &fd, err)))
        return result;
    if (server && (reconnect || reconnect_ms))
        return error_set(err, EINVAL, "reconnect=: a server waits for others to connect");
    if (reconnect > 86400 || reconnect_ms > 86400000)
        return error_set(err, EINVAL, "reconnect=: at most a day");
    return create(registry, id, &address, fd, server, reconnect * 1000000000 + reconnect_ms * 1000000, err);
}

int net_socket_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err)
{
    static const char *const ways[] = { "listen", "connect", "fd", "mcast", "udp" };
    const char *way = NULL, *value = NULL;
    struct net_address address = { 0 };
    int fd = -1, result, type = SOCK_STREAM;
    socklen_t size = sizeof(type);

    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        const char *text = options_get(options, ways[i]);

        if (text && way)
            return error_set(err, EINVAL, "socket: only one of listen=, connect=, mcast=, udp=, fd=");
        if (text)
            way = ways[i], value = text;
    }
    if (!way)
        return error_set(err, EINVAL, "socket: one of listen=, connect=, mcast=, udp=, fd= is needed");
    if (!strcmp(way, "mcast") || !strcmp(way, "udp"))
        return net_dgram_create(registry, id, options, err);
    if (options_get(options, "localaddr"))
        return error_set(err, EINVAL, "socket: localaddr= goes with mcast= and udp=");
    if (!strcmp(way, "fd")) {
        result = net_fd_of_text(value, &fd, err);
        if (!result && (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size)))
            result = error_set(err, errno, "fd=%s: %s", value, strerror(errno));
        if (!result && type == SOCK_DGRAM)
            return net_dgram_create(registry, id, options, err);
        snprintf(address.text, sizeof(address.text), "fd:%s", value);
    } else {
        result = net_address_parse(value, !strcmp(way, "listen"), SOCK_STREAM, &address, err);
    }
    return result ? result : create(registry, id, &address, fd, !strcmp(way, "listen"), 0, err);
}
