/* What all cards share: the properties netdev= and mac=, and work for the loop's thread. Device lock held. */
#include "devices/net/net.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/core/device.h"
#include "devices/net/net_internal.h"

int net_parse_mac(const char *text, uint8_t mac[NET_MAC_SIZE], struct error *err)
{
    const char *p = text;

    for (unsigned i = 0; i < NET_MAC_SIZE; i++) {
        unsigned value;
        int used = 0;

        if (sscanf(p, "%2x%n", &value, &used) != 1 || used < 1 || *p == '+' || *p == '-' || *p == ' ')
            return error_set(err, EINVAL, "mac=%s: six bytes, as 52:54:00:12:34:56, expected", text);
        p += used;
        mac[i] = (uint8_t)value;
        if (i < NET_MAC_SIZE - 1 && *p != ':' && *p != '-')
            return error_set(err, EINVAL, "mac=%s: six bytes, as 52:54:00:12:34:56, expected", text);
        p += i < NET_MAC_SIZE - 1;
    }
    if (*p)
        return error_set(err, EINVAL, "mac=%s: six bytes, as 52:54:00:12:34:56, expected", text);
    if (mac[0] & 1)
        return error_set(err, EINVAL, "mac=%s: that is a multicast address", text);
    return 0;
}

static bool mac_taken(struct net_registry *registry, const struct net_nic *asking, const uint8_t *mac)
{
    for (struct net_client *client = registry->clients; client; client = client->next) {
        if (client->is_nic && client != &asking->client &&
            !memcmp(container_of(client, struct net_nic, client)->mac, mac, NET_MAC_SIZE))
            return true;
    }
    return false;
}

static int choose_mac(struct net_registry *registry, struct net_nic *nic, struct error *err)
{
    static const uint8_t first[NET_MAC_SIZE] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 };

    for (unsigned i = 0; i < 256 - 0x56; i++) {
        memcpy(nic->mac, first, NET_MAC_SIZE);
        nic->mac[5] = (uint8_t)(first[5] + i);
        if (!mac_taken(registry, nic, nic->mac))
            return 0;
    }
    return error_set(err, ENOSPC, "too many network cards without mac=");
}

int net_nic_init(struct net_nic *nic, struct device_env *env, const struct net_client_ops *ops, const char *id,
                 struct option_list *options, struct error *err)
{
    const char *netdev = options_get(options, "netdev"), *mac = options_get(options, "mac");
    struct net_registry *registry = env->nets;
    struct net_client *backend = NULL;
    int result = 0;

    if (!registry)
        return error_set(err, ENODEV, "this machine has no networks");
    if (netdev) {
        backend = net_find(registry, netdev);
        if (!backend)
            return error_set(err, ENODEV, "netdev=%s: there is no such back end (-netdev TYPE,id=%s,...)", netdev,
                             netdev);
        if (backend->peer)
            return error_set(err, EBUSY, "netdev=%s: in use by %s", netdev, backend->peer->id);
    }
    nic->client.is_nic = true;
    if (mac)
        result = net_parse_mac(mac, nic->mac, err);
    else
        result = choose_mac(registry, nic, err);
    if (!result)
        result = net_client_add(registry, &nic->client, ops, id, err);
    if (!result && backend)
        net_client_connect(&nic->client, backend);
    return result;
}

void net_nic_remove(struct net_nic *nic)
{
    net_client_remove(&nic->client);
}

bool net_nic_link_up(const struct net_nic *nic)
{
    const struct net_client *peer = nic->client.peer;

    return !nic->client.link_down && peer && !peer->link_down;
}

/* ---- Work ---- */

static void work_ready(void *opaque, unsigned ready)
{
    struct net_work *work = opaque;
    uint64_t count;

    (void)ready;
    if (read(work->fd, &count, sizeof(count)) < 0)
        return;
    work->scheduled = false;
    work->fn(work->opaque);
}

int net_work_init(struct net_work *work, struct event_loop *loop, void (*fn)(void *opaque), void *opaque,
                  struct error *err)
{
    *work = (struct net_work){ .fn = fn, .opaque = opaque };
    work->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (work->fd < 0)
        return error_set(err, errno, "eventfd: %s", strerror(errno));
    work->watch = fd_watch_add(loop, work->fd, FD_READABLE, work_ready, work, err);
    if (!work->watch) {
        close(work->fd);
        return -EIO;
    }
    return 0;
}

void net_work_schedule(struct net_work *work)
{
    static const uint64_t one = 1;

    if (work->scheduled)
        return;
    work->scheduled = write(work->fd, &one, sizeof(one)) == sizeof(one);
}

void net_work_destroy(struct net_work *work)
{
    if (!work->watch)
        return;
    fd_watch_remove(work->watch);
    close(work->fd);
    work->watch = NULL;
}
