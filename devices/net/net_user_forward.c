/* hostfwd= and guestfwd= of -netdev user.
 *
 *     hostfwd=[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT   the host's port leads to the guest's
 *     guestfwd=[tcp]:ADDRESS:PORT-cmd:COMMAND                       a command for each connection that the guest makes there
 *     guestfwd=[tcp]:ADDRESS:PORT-tcp:HOST:PORT                     one connection to a host, made now, shared by all
 *
 * Loop's thread, device lock held. */
#include "devices/net/net_user_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define RELAY_WAITING_MAX (1u << 20)

/* Copies up to `separator`; NULL: it is not there, or the piece is too long. */
static const char *take_piece(const char *text, char separator, char *out, size_t size)
{
    const char *end = strchr(text, separator);

    if (!end || (size_t)(end - text) >= size)
        return NULL;
    memcpy(out, text, (size_t)(end - text));
    out[end - text] = '\0';
    return end + 1;
}

static bool take_port(const char *text, unsigned lowest, int *port)
{
    uint64_t value;

    if (parse_u64(text, &value, NULL) || value < lowest || value > 65535)
        return false;
    *port = (int)value;
    return true;
}

static int add_hostfwd(struct net_user *user, const char *rule, struct error *err)
{
    char protocol[8], host[64], host_port_text[16], guest[64];
    struct in_addr host_address = { .s_addr = INADDR_ANY }, guest_address = { 0 };
    int host_port, guest_port, is_udp;
    const char *rest = take_piece(rule, ':', protocol, sizeof(protocol));

    rest = rest ? take_piece(rest, ':', host, sizeof(host)) : NULL;
    rest = rest ? take_piece(rest, '-', host_port_text, sizeof(host_port_text)) : NULL;
    rest = rest ? take_piece(rest, ':', guest, sizeof(guest)) : NULL;
    if (!rest)
        return error_set(err, EINVAL, "hostfwd=%s: [tcp|udp]:[ADDRESS]:PORT-[ADDRESS]:PORT expected", rule);
    is_udp = !strcmp(protocol, "udp");
    if (*protocol && !is_udp && strcmp(protocol, "tcp"))
        return error_set(err, EINVAL, "hostfwd=%s: tcp or udp expected, not '%s'", rule, protocol);
    if (*host && !inet_aton(host, &host_address))
        return error_set(err, EINVAL, "hostfwd=%s: '%s' is not an IPv4 address", rule, host);
    if (*guest && !inet_aton(guest, &guest_address))
        return error_set(err, EINVAL, "hostfwd=%s: '%s' is not an IPv4 address", rule, guest);
    if (!take_port(host_port_text, 0, &host_port) || !take_port(rest, 1, &guest_port))
        return error_set(err, EINVAL, "hostfwd=%s: ports are 1 to 65535", rule);
    errno = 0;
    if (slirp_add_hostfwd(user->slirp, is_udp, host_address, host_port, guest_address, guest_port) < 0)
        return error_set(err, errno ? errno : EINVAL, "hostfwd=%s: cannot listen on port %d of the host: %s", rule,
                         host_port, errno ? strerror(errno) : "no free socket");
    return 0;
}

/* ---- Relays ---- */

static void relay_stop(struct net_user_relay *relay)
{
    if (relay->watch)
        fd_watch_remove(relay->watch);
    relay->watch = NULL;
    if (relay->fd >= 0)
        close(relay->fd);
    relay->fd = -1;
    free(relay->waiting);
    relay->waiting = NULL;
    relay->waiting_size = 0;
}

/* What the socket took of the data; -1: the connection is gone. */
static ssize_t relay_send(struct net_user_relay *relay, const uint8_t *data, size_t size)
{
    ssize_t sent = send(relay->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent >= 0)
        return sent;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

/* From the guest. slirp takes it for granted that all is taken. */
static ssize_t relay_write(const void *data, size_t size, void *opaque)
{
    struct net_user_relay *relay = opaque;
    ssize_t sent = 0;
    uint8_t *waiting;
    size_t rest;

    if (relay->fd < 0)
        return (ssize_t)size;
    if (!relay->waiting_size)
        sent = relay_send(relay, data, size);
    if (sent < 0) {
        relay_stop(relay);
        return (ssize_t)size;
    }
    rest = size - (size_t)sent;
    if (!rest)
        return (ssize_t)size;
    if (relay->waiting_size + rest > RELAY_WAITING_MAX ||
        !(waiting = realloc(relay->waiting, relay->waiting_size + rest))) {
        log_warn("guestfwd: the host does not read, data of the guest are lost");
        return (ssize_t)size;
    }
    memcpy(waiting + relay->waiting_size, (const uint8_t *)data + sent, rest);
    relay->waiting = waiting;
    relay->waiting_size += rest;
    fd_watch_change(relay->watch, FD_READABLE | FD_WRITABLE);
    return (ssize_t)size;
}

static void relay_ready(void *opaque, unsigned ready)
{
    struct net_user_relay *relay = opaque;
    uint8_t buffer[16384];
    size_t room;
    ssize_t size;

    if ((ready & FD_WRITABLE) && relay->waiting_size) {
        size = relay_send(relay, relay->waiting, relay->waiting_size);
        if (size < 0) {
            relay_stop(relay);
            return;
        }
        relay->waiting_size -= (size_t)size;
        memmove(relay->waiting, relay->waiting + size, relay->waiting_size);
        if (!relay->waiting_size)
            fd_watch_change(relay->watch, FD_READABLE);
    }
    if (!(ready & FD_READABLE))
        return;
    room = slirp_socket_can_recv(relay->user->slirp, relay->guest, relay->port);
    if (!room) { /* slirp tells (notify) when there is some again, but not for which socket */
        fd_watch_change(relay->watch, relay->waiting_size ? FD_WRITABLE : 0);
        net_user_changed(relay->user);
        return;
    }
    size = recv(relay->fd, buffer, MIN(room, sizeof(buffer)), MSG_DONTWAIT);
    if (size > 0) {
        slirp_socket_recv(relay->user->slirp, relay->guest, relay->port, buffer, (int)size);
        net_user_changed(relay->user);
    } else if (!size || (errno != EAGAIN && errno != EINTR)) {
        relay_stop(relay);
    }
}

void net_user_wake_relays(struct net_user *user)
{
    for (struct net_user_relay *relay = user->relays; relay; relay = relay->next) {
        if (relay->watch && slirp_socket_can_recv(user->slirp, relay->guest, relay->port))
            fd_watch_change(relay->watch, FD_READABLE | (relay->waiting_size ? FD_WRITABLE : 0));
    }
}

void net_user_remove_relays(struct net_user *user)
{
    while (user->relays) {
        struct net_user_relay *relay = user->relays;

        user->relays = relay->next;
        relay_stop(relay);
        free(relay);
    }
}

static int add_relay(struct net_user *user, const char *rule, const char *target, struct in_addr guest, int port,
                     struct error *err)
{
    struct net_user_relay *relay = calloc(1, sizeof(*relay));
    struct net_address address;
    int result;

    if (!relay)
        return error_set(err, ENOMEM, "out of memory");
    *relay = (struct net_user_relay){ .user = user, .guest = guest, .port = port, .fd = -1, .next = user->relays };
    user->relays = relay; /* freed with the others from here on */
    result = net_address_parse(target, false, SOCK_STREAM, &address, err);
    if (result)
        return error_prefix(err, result, "guestfwd=%s", rule);
    relay->fd = socket(address.u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (relay->fd < 0 || connect(relay->fd, &address.u.any, address.size))
        return error_set(err, errno, "guestfwd=%s: %s: %s", rule, target, strerror(errno));
    fcntl(relay->fd, F_SETFL, fcntl(relay->fd, F_GETFL) | O_NONBLOCK);
    relay->watch = fd_watch_add(user->loop, relay->fd, FD_READABLE, relay_ready, relay, err);
    if (!relay->watch)
        return -EIO;
    if (slirp_add_guestfwd(user->slirp, relay_write, relay, &relay->guest, port) < 0)
        return error_set(err, EINVAL, "guestfwd=%s: that address and port cannot be had", rule);
    return 0;
}

static int add_guestfwd(struct net_user *user, const char *rule, struct error *err)
{
    char protocol[8], server[64], port_text[16];
    struct in_addr address;
    int port;
    const char *rest = take_piece(rule, ':', protocol, sizeof(protocol));

    rest = rest ? take_piece(rest, ':', server, sizeof(server)) : NULL;
    rest = rest ? take_piece(rest, '-', port_text, sizeof(port_text)) : NULL;
    if (!rest || (*protocol && strcmp(protocol, "tcp")))
        return error_set(err, EINVAL, "guestfwd=%s: tcp:ADDRESS:PORT-TARGET expected", rule);
    if (!inet_aton(server, &address))
        return error_set(err, EINVAL, "guestfwd=%s: '%s' is not an IPv4 address", rule, server);
    if (!take_port(port_text, 1, &port))
        return error_set(err, EINVAL, "guestfwd=%s: ports are 1 to 65535", rule);
    if (!strncmp(rest, "cmd:", 4) && rest[4]) {
        if (slirp_add_exec(user->slirp, rest + 4, &address, port) < 0)
            return error_set(err, EINVAL, "guestfwd=%s: that address and port cannot be had", rule);
        return 0;
    }
    if (!strncmp(rest, "tcp:", 4))
        return add_relay(user, rule, rest + 4, address, port, err);
    return error_set(err, ENOTSUP, "guestfwd=%s: targets are cmd:COMMAND and tcp:HOST:PORT", rule);
}

int net_user_add_forwards(struct net_user *user, struct option_list *options, struct error *err)
{
    for (size_t i = 0; i < options->count; i++) {
        struct option_pair *pair = &options->pairs[i];
        int result = 0;

        if (!strcmp(pair->key, "hostfwd"))
            result = add_hostfwd(user, pair->value, err);
        else if (!strcmp(pair->key, "guestfwd"))
            result = add_guestfwd(user, pair->value, err);
        else
            continue;
        if (result)
            return result;
        pair->used = true;
    }
    return 0;
}
