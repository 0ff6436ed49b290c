/* -netdev dgram, and -netdev socket,mcast=|udp=|fd=: a frame in each datagram, over UDP, UDP multicast, or unix sockets.
 *
 * A datagram that the socket has no room for is lost, as datagrams are. Loop's thread, device lock held. */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/net/net_internal.h"

#define PACKETS_PER_TURN 64

struct net_dgram {
    struct net_client client; /* first */
    int fd;
    struct fd_watch *watch;
    struct net_address local, remote; /* remote.size 0: the socket is connected */
    uint8_t *buffer;                  /* NET_MAX_PACKET bytes */
};

static void update_watch(struct net_dgram *dgram)
{
    fd_watch_change(dgram->watch, net_can_send(&dgram->client) ? FD_READABLE : 0);
}

static void dgram_ready(void *opaque, unsigned ready)
{
    struct net_dgram *dgram = opaque;

    (void)ready;
    for (unsigned i = 0; i < PACKETS_PER_TURN && net_can_send(&dgram->client); i++) {
        ssize_t size = recv(dgram->fd, dgram->buffer, NET_MAX_PACKET, MSG_DONTWAIT | MSG_TRUNC);

        if (size < 0)
            break;
        if (size <= NET_MAX_PACKET)
            net_send_buffer(&dgram->client, dgram->buffer, (size_t)size);
    }
    update_watch(dgram);
}

static bool dgram_receive(struct net_client *client, const struct net_packet *packet)
{
    struct net_dgram *dgram = container_of(client, struct net_dgram, client);
    struct msghdr message = {
        .msg_name = dgram->remote.size ? &dgram->remote.u : NULL,
        .msg_namelen = dgram->remote.size,
        .msg_iov = (struct iovec *)packet->iov,
        .msg_iovlen = packet->iov_count,
    };

    if (sendmsg(dgram->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        dgram->client.dropped++;
    return true;
}

static void dgram_peer_ready(struct net_client *client)
{
    update_watch(container_of(client, struct net_dgram, client));
}

static void dgram_destroy(struct net_client *client)
{
    struct net_dgram *dgram = container_of(client, struct net_dgram, client);
    const char *path = ((struct sockaddr_un *)&dgram->local.u.any)->sun_path;

    if (dgram->watch)
        fd_watch_remove(dgram->watch);
    if (dgram->fd >= 0)
        close(dgram->fd);
    if (dgram->local.size && dgram->local.u.any.sa_family == AF_UNIX && *path)
        unlink(path);
    free(dgram->buffer);
    free(dgram);
}

static const struct net_client_ops dgram_ops = {
    .kind = "dgram",
    .receive = dgram_receive,
    .peer_ready = dgram_peer_ready,
    .destroy = dgram_destroy,
};

/* ---- Sockets ---- */

static bool is_multicast(const struct net_address *address)
{
    return address->u.any.sa_family == AF_INET &&
           IN_MULTICAST(ntohl(((const struct sockaddr_in *)&address->u.any)->sin_addr.s_addr));
}

/* All members of the group share the port; what one sends, all others see (and itself: that is filtered by no one, as in QEMU). */
static int join_group(struct net_dgram *dgram, struct error *err)
{
    const struct sockaddr_in *group = (const struct sockaddr_in *)&dgram->remote.u.any;
    const struct sockaddr_in *local = (const struct sockaddr_in *)&dgram->local.u.any;
    struct ip_mreq request = { .imr_multiaddr = group->sin_addr };
    int one = 1;
    uint8_t loop = 1;

    if (dgram->local.size)
        request.imr_interface = local->sin_addr;
    if (setsockopt(dgram->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
        bind(dgram->fd, &dgram->remote.u.any, dgram->remote.size) ||
        setsockopt(dgram->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof(request)) ||
        setsockopt(dgram->fd, IPPROTO_IP, IP_MULTICAST_LOOP, &loop, sizeof(loop)))
        return error_set(err, errno, "cannot join %s: %s", dgram->remote.text, strerror(errno));
    if (dgram->local.size &&
        setsockopt(dgram->fd, IPPROTO_IP, IP_MULTICAST_IF, &request.imr_interface, sizeof(request.imr_interface)))
        return error_set(err, errno, "multicast from %s: %s", dgram->local.text, strerror(errno));
    return 0;
}

static int open_socket(struct net_dgram *dgram, struct error *err)
{
    const char *path = ((struct sockaddr_un *)&dgram->local.u.any)->sun_path;
    int one = 1;

    dgram->fd = socket(dgram->remote.u.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (dgram->fd < 0)
        return error_set(err, errno, "%s: %s", dgram->remote.text, strerror(errno));
    if (is_multicast(&dgram->remote))
        return join_group(dgram, err);
    if (!dgram->local.size)
        return error_set(err, EINVAL, "a local address is needed: nobody could answer");
    if (dgram->local.u.any.sa_family != dgram->remote.u.any.sa_family)
        return error_set(err, EINVAL, "%s and %s are of different kinds", dgram->local.text, dgram->remote.text);
    if (dgram->local.u.any.sa_family == AF_UNIX && *path)
        unlink(path);
    setsockopt(dgram->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(dgram->fd, &dgram->local.u.any, dgram->local.size))
        return error_set(err, errno, "cannot bind %s: %s", dgram->local.text, strerror(errno));
    return 0;
}

/* -netdev socket's spelling. */
static int parse_old(struct net_dgram *dgram, struct option_list *options, struct error *err)
{
    const char *group = options_get(options, "mcast"), *udp = options_get(options, "udp");
    const char *fd = options_get(options, "fd"), *local = options_get(options, "localaddr");
    char text[300];
    int result;

    if (fd) {
        if (local)
            return error_set(err, EINVAL, "socket: localaddr= goes with mcast= and udp=");
        return net_fd_of_text(fd, &dgram->fd, err);
    }
    result = net_address_parse(group ? group : udp, false, SOCK_DGRAM, &dgram->remote, err);
    if (result)
        return result;
    if (group && !is_multicast(&dgram->remote))
        return error_set(err, EINVAL, "mcast=%s: not a multicast address", group);
    if (udp && !local)
        return error_set(err, EINVAL, "udp=: localaddr= is missing");
    if (!local)
        return 0;
    snprintf(text, sizeof(text), group ? "%.250s:0" : "%.250s", local);
    return net_address_parse(text, true, SOCK_DGRAM, &dgram->local, err);
}

static int parse_new(struct net_dgram *dgram, struct option_list *options, struct error *err)
{
    int unused = -1, result = 0;

    if (options_get(options, "local.type"))
        result = net_address_of_options(options, "local", true, SOCK_DGRAM, &dgram->local, &dgram->fd, err);
    if (result)
        return result;
    if (dgram->fd >= 0) {
        if (options_get(options, "remote.type"))
            return error_set(err, EINVAL, "dgram: remote= does not go with local.type=fd");
        dgram->local.size = 0;
        return 0;
    }
    result = net_address_of_options(options, "remote", false, SOCK_DGRAM, &dgram->remote, &unused, err);
    if (!result && unused >= 0)
        result = error_set(err, EINVAL, "dgram: remote.type=fd: inet or unix expected");
    return result;
}

int net_dgram_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err)
{
    struct net_dgram *dgram = calloc(1, sizeof(*dgram));
    bool old = options_get(options, "mcast") || options_get(options, "udp") || options_get(options, "fd");
    int result;

    if (!dgram)
        return error_set(err, ENOMEM, "out of memory");
    dgram->fd = -1;
    result = old ? parse_old(dgram, options, err) : parse_new(dgram, options, err);
    if (!result && dgram->fd < 0)
        result = open_socket(dgram, err);
    dgram->buffer = malloc(NET_MAX_PACKET);
    if (!result && !dgram->buffer)
        result = error_set(err, ENOMEM, "out of memory");
    if (!result)
        result = net_client_add(registry, &dgram->client, &dgram_ops, id, err);
    if (!result) {
        dgram->watch = fd_watch_add(registry->loop, dgram->fd, FD_READABLE, dgram_ready, dgram, err);
        result = dgram->watch ? 0 : -EIO;
    }
    if (result) {
        net_client_remove(&dgram->client);
        dgram_destroy(&dgram->client);
    }
    return result;
}
