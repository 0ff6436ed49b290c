/* -netdev tap: a network interface of the host (Linux tun/tap), ifname= or one that fd= brings. With vnet_hdr (default), checksums
 * and segmentation are left to the host's kernel in both directions; what the card takes is what the kernel is told to leave.
 *
 * script= runs when the interface is there, downscript= before it goes, with its name as the argument.
 * Loop's thread, device lock held. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "devices/net/net_internal.h"

#define PACKETS_PER_TURN 64
#define DEFAULT_SCRIPT   "/etc/qemu-ifup"
#define DEFAULT_DOWN     "/etc/qemu-ifdown"

struct net_tap {
    struct net_client client; /* first */
    int fd;
    struct fd_watch *watch;
    bool vnet_hdr, writable_wanted;
    char name[IFNAMSIZ];
    char *down_script; /* NULL: none */
    uint8_t *buffer;   /* virtio_net_hdr and NET_MAX_PACKET bytes */
};

static void update_watch(struct net_tap *tap)
{
    fd_watch_change(tap->watch,
                    (net_can_send(&tap->client) ? FD_READABLE : 0) | (tap->writable_wanted ? FD_WRITABLE : 0));
}

static void tap_ready(void *opaque, unsigned ready)
{
    struct net_tap *tap = opaque;
    size_t header = tap->vnet_hdr ? sizeof(struct virtio_net_hdr) : 0;

    if (ready & FD_WRITABLE) {
        tap->writable_wanted = false;
        net_client_resume(&tap->client);
    }
    for (unsigned i = 0; i < PACKETS_PER_TURN && net_can_send(&tap->client); i++) {
        ssize_t size = read(tap->fd, tap->buffer, header + NET_MAX_PACKET);
        struct iovec iov = { tap->buffer + header, (size_t)size - header };
        struct net_packet packet = { .iov = &iov, .iov_count = 1, .size = iov.iov_len };

        if (size < (ssize_t)header || size < 0)
            break;
        memcpy(&packet.offload, tap->buffer, header);
        net_send(&tap->client, &packet);
    }
    update_watch(tap);
}

static bool tap_receive(struct net_client *client, const struct net_packet *packet)
{
    struct net_tap *tap = container_of(client, struct net_tap, client);
    struct virtio_net_hdr offload = packet->offload;
    struct iovec iov[NET_MAX_PIECES + 4] = { { &offload, sizeof(offload) } };
    unsigned skip = !tap->vnet_hdr;

    if (packet->iov_count > NET_MAX_PIECES + 2)
        return true;
    memcpy(iov + 1, packet->iov, packet->iov_count * sizeof(*iov));
    if (writev(tap->fd, iov + skip, (int)(packet->iov_count + 1 - skip)) >= 0)
        return true;
    if (errno == EAGAIN) {
        tap->writable_wanted = true;
        update_watch(tap);
        return false;
    }
    tap->client.dropped++; /* EIO: the interface is down; EINVAL: the kernel does not like it */
    return true;
}

static bool tap_can_receive(struct net_client *client)
{
    return !container_of(client, struct net_tap, client)->writable_wanted;
}

static void tap_peer_ready(struct net_client *client)
{
    update_watch(container_of(client, struct net_tap, client));
}

/* The kernel may leave undone what the card takes. */
static void tap_peer_changed(struct net_client *client)
{
    static const struct {
        unsigned ours, theirs;
    } flags[] = { { NET_CSUM, TUN_F_CSUM },
                  { NET_TSO4, TUN_F_TSO4 },
                  { NET_TSO6, TUN_F_TSO6 },
                  { NET_ECN, TUN_F_TSO_ECN },
                  { NET_UFO, TUN_F_UFO } };
    struct net_tap *tap = container_of(client, struct net_tap, client);
    unsigned accepts = client->peer ? client->peer->accepts : 0;
    unsigned long offload = 0;

    if (!tap->vnet_hdr)
        return;
    for (size_t i = 0; accepts & NET_CSUM && i < ARRAY_SIZE(flags); i++) {
        if (accepts & flags[i].ours)
            offload |= flags[i].theirs;
    }
    if (ioctl(tap->fd, TUNSETOFFLOAD, offload)) /* newer kernels have no UFO */
        ioctl(tap->fd, TUNSETOFFLOAD, offload & ~(unsigned long)TUN_F_UFO);
}

/* ---- Scripts ---- */

static int run_script(const char *script, const char *name, struct error *err)
{
    extern char **environ;
    char *arguments[] = { (char *)script, (char *)name, NULL };
    posix_spawnattr_t attributes;
    sigset_t none;
    pid_t child;
    int status, result;

    posix_spawnattr_init(&attributes);
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    result = posix_spawn(&child, script, NULL, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    if (result)
        return error_set(err, result, "script %s: %s (script=no: none)", script, strerror(result));
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return error_set(err, errno, "script %s: %s", script, strerror(errno));
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(err, EIO, "script %s failed", script);
    return 0;
}

static void tap_destroy(struct net_client *client)
{
    struct net_tap *tap = container_of(client, struct net_tap, client);
    struct error err;

    if (tap->down_script && run_script(tap->down_script, tap->name, &err))
        log_warn("netdev %s: %s", client->id, err.text);
    if (tap->watch)
        fd_watch_remove(tap->watch);
    if (tap->fd >= 0)
        close(tap->fd);
    free(tap->down_script);
    free(tap->buffer);
    free(tap);
}

static const struct net_client_ops tap_ops = {
    .kind = "tap",
    .can_receive = tap_can_receive,
    .receive = tap_receive,
    .peer_ready = tap_peer_ready,
    .peer_changed = tap_peer_changed,
    .destroy = tap_destroy,
};

/* ---- Opening ---- */

static int open_interface(struct net_tap *tap, const char *name, bool vnet_hdr, bool insist, struct error *err)
{
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };
    unsigned features = 0;

    if (strlen(name) >= IFNAMSIZ)
        return error_set(err, EINVAL, "ifname=%s: longer than %d bytes", name, IFNAMSIZ - 1);
    tap->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (tap->fd < 0)
        return error_set(err, errno, "/dev/net/tun: %s", strerror(errno));
    if (vnet_hdr && !ioctl(tap->fd, TUNGETFEATURES, &features) && (features & IFF_VNET_HDR)) {
        request.ifr_flags |= IFF_VNET_HDR;
        tap->vnet_hdr = true;
    } else if (insist) {
        return error_set(err, ENOTSUP, "vnet_hdr=on: not by this host");
    }
    strcpy(request.ifr_name, *name ? name : "tap%d");
    if (ioctl(tap->fd, TUNSETIFF, &request))
        return error_set(err, errno, "interface %s: %s", *name ? name : "tap%d", strerror(errno));
    strcpy(tap->name, request.ifr_name);
    return 0;
}

static int adopt_descriptor(struct net_tap *tap, const char *text, struct error *err)
{
    struct ifreq request = { 0 };
    int result = net_fd_of_text(text, &tap->fd, err);

    if (result)
        return result;
    if (ioctl(tap->fd, TUNGETIFF, &request))
        return error_set(err, errno, "fd=%s: not a tap interface: %s", text, strerror(errno));
    tap->vnet_hdr = request.ifr_flags & IFF_VNET_HDR;
    strcpy(tap->name, request.ifr_name);
    return 0;
}

static int refuse_absent(struct option_list *options, struct error *err)
{
    static const char *const absent[] = { "br", "helper", "fds", "vhostfd", "vhostfds", "poll-us", "sndbuf" };
    uint64_t queues;
    bool vhost, force;
    int result;

    for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
        if (options_get(options, absent[i]))
            return error_set(err, ENOTSUP, "tap: %s= is not there%s", absent[i],
                             i < 2 ? ": put the interface on the bridge yourself and give ifname= or fd=" : "");
    }
    if ((result = options_get_bool(options, "vhost", false, &vhost, err)) ||
        (result = options_get_bool(options, "vhostforce", false, &force, err)) ||
        (result = options_get_u64(options, "queues", 1, &queues, err)))
        return result;
    if (vhost || force)
        return error_set(err, ENOTSUP, "tap: vhost=on is not there");
    if (queues != 1)
        return error_set(err, ENOTSUP, "tap: queues=%llu is not there; one is", (unsigned long long)queues);
    return 0;
}

static int start(struct net_tap *tap, struct option_list *options, struct error *err)
{
    const char *name = options_get(options, "ifname"), *fd = options_get(options, "fd");
    const char *script = options_get(options, "script"), *down = options_get(options, "downscript");
    bool vnet_hdr;
    int result = options_get_bool(options, "vnet_hdr", true, &vnet_hdr, err), size = sizeof(struct virtio_net_hdr);

    if (result)
        return result;
    if (fd && (name || script || down || options_get(options, "vnet_hdr")))
        return error_set(err, EINVAL, "tap: fd= goes without ifname=, script=, downscript=, vnet_hdr=");
    if (fd)
        result = adopt_descriptor(tap, fd, err);
    else
        result = open_interface(tap, name ? name : "", vnet_hdr, vnet_hdr && options_get(options, "vnet_hdr"), err);
    if (!result && tap->vnet_hdr && ioctl(tap->fd, TUNSETVNETHDRSZ, &size))
        result = error_set(err, errno, "tap: header size: %s", strerror(errno));
    if (result || fd)
        return result;
    script = script ? script : DEFAULT_SCRIPT;
    if (strcmp(script, "no") && *script && (result = run_script(script, tap->name, err)))
        return result;
    down = down ? down : DEFAULT_DOWN;
    if (strcmp(down, "no") && *down)
        tap->down_script = strdup(down);
    return 0;
}

int net_tap_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err)
{
    struct net_tap *tap = calloc(1, sizeof(*tap));
    int result;

    if (!tap)
        return error_set(err, ENOMEM, "out of memory");
    tap->fd = -1;
    tap->buffer = malloc(sizeof(struct virtio_net_hdr) + NET_MAX_PACKET);
    result = tap->buffer ? refuse_absent(options, err) : error_set(err, ENOMEM, "out of memory");
    if (!result)
        result = start(tap, options, err);
    if (!result && tap->vnet_hdr)
        tap->client.accepts = NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN | NET_UFO;
    snprintf(tap->client.info, sizeof(tap->client.info), "ifname=%s", tap->name);
    if (!result)
        result = net_client_add(registry, &tap->client, &tap_ops, id, err);
    if (!result) {
        tap->watch = fd_watch_add(registry->loop, tap->fd, FD_READABLE, tap_ready, tap, err);
        result = tap->watch ? 0 : -EIO;
    }
    if (result) {
        net_client_remove(&tap->client);
        tap_destroy(&tap->client);
    }
    return result;
}

int net_bridge_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err)
{
    (void)registry, (void)id, (void)options;
    return error_set(err, ENOTSUP,
                     "bridge: the helper is not there: put a tap interface on the bridge yourself and give "
                     "-netdev tap,ifname=NAME,script=no");
}
