/* Clients, peers, and the way of a packet from one to the other: checks, filters, offloads, the queue.
 *
 * A queue holds what its client had no room for; it is bounded in packets and bytes, and only overflows when a sender does not
 * ask net_can_send(). While something waits, later packets wait behind it, so order is kept.
 *
 * Threads: net.h. */
#include "devices/net/net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/net/net_internal.h"
#include "devices/net/offload.h"

#define MAX_DEPTH 8 /* of hubs that lead to hubs */

size_t net_iov_size(const struct iovec *iov, unsigned count)
{
    size_t size = 0;

    for (unsigned i = 0; i < count; i++)
        size += iov[i].iov_len;
    return size;
}

size_t net_iov_read(const struct iovec *iov, unsigned count, size_t offset, void *buffer, size_t size)
{
    size_t done = 0;

    for (unsigned i = 0; i < count && done < size; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t part = MIN(size - done, iov[i].iov_len - offset);

        memcpy((uint8_t *)buffer + done, (const uint8_t *)iov[i].iov_base + offset, part);
        done += part;
        offset = 0;
    }
    return done;
}

/* ---- The queue ---- */

static void enqueue(struct net_client *client, const struct net_packet *packet)
{
    struct net_queued *queued;

    if (client->queue_count == NET_QUEUE_PACKETS || client->queue_bytes + packet->size > NET_QUEUE_BYTES ||
        !(queued = malloc(sizeof(*queued) + packet->size))) {
        client->dropped++;
        return;
    }
    *queued = (struct net_queued){ .offload = packet->offload, .size = packet->size };
    net_iov_read(packet->iov, packet->iov_count, 0, queued->data, packet->size);
    *client->queue_end = queued;
    client->queue_end = &queued->next;
    client->queue_count++;
    client->queue_bytes += packet->size;
}

/* The first is taken out before it is delivered: whoever receives it may purge the queue. */
static struct net_queued *dequeue(struct net_client *client)
{
    struct net_queued *queued = client->queue;

    client->queue = queued->next;
    if (!client->queue)
        client->queue_end = &client->queue;
    client->queue_count--;
    client->queue_bytes -= queued->size;
    return queued;
}

static void requeue(struct net_client *client, struct net_queued *queued)
{
    queued->next = client->queue;
    if (!client->queue)
        client->queue_end = &queued->next;
    client->queue = queued;
    client->queue_count++;
    client->queue_bytes += queued->size;
}

void net_client_purge(struct net_client *client)
{
    while (client->queue)
        free(dequeue(client));
}

static bool has_room(struct net_client *client)
{
    return !client->ops->can_receive || client->ops->can_receive(client);
}

static bool receive(struct net_client *client, const struct net_packet *packet)
{
    struct net_registry *registry = client->registry;
    bool taken;

    registry->depth++;
    taken = client->ops->receive(client, packet);
    registry->depth--;
    return taken;
}

void net_client_resume(struct net_client *client)
{
    struct net_client *peer;

    if (client->resuming)
        return;
    client->resuming = true;
    while (client->queue && has_room(client)) {
        struct net_queued *queued = dequeue(client);
        struct iovec iov = { queued->data, queued->size };
        struct net_packet packet = { .iov = &iov, .iov_count = 1, .size = queued->size, .offload = queued->offload };

        if (!receive(client, &packet)) {
            requeue(client, queued);
            break;
        }
        free(queued);
    }
    client->resuming = false;
    peer = client->peer;
    if (client->sender_waits && !client->queue && peer && has_room(client)) {
        client->sender_waits = false;
        if (peer->ops->peer_ready)
            peer->ops->peer_ready(peer);
    }
}

/* ---- Sending ---- */

static bool deliver(void *opaque, const struct net_packet *packet)
{
    struct net_client *to = opaque;

    if (to->queue || to->resuming || !has_room(to) || !receive(to, packet))
        enqueue(to, packet);
    return true;
}

void net_filters_run(struct net_client *backend, const struct net_packet *packet)
{
    for (struct net_filter *filter = backend->filters; filter; filter = filter->next)
        filter->packet(filter, packet);
}

static bool is_sound(const struct net_packet *packet)
{
    return packet->size >= NET_ETHERNET_SIZE && packet->size <= NET_MAX_PACKET && packet->iov_count <= NET_MAX_PIECES &&
           !net_offload_check(packet);
}

void net_send(struct net_client *from, const struct net_packet *packet)
{
    struct net_client *to = from->peer;

    if (!to || from->link_down || to->link_down || from->registry->depth >= MAX_DEPTH)
        return;
    if (!is_sound(packet)) {
        log_event(guest_errors, "net: %s: malformed packet of %zu bytes dropped\n", from->id, packet->size);
        to->dropped++;
        return;
    }
    net_filters_run(from, packet);
    net_filters_run(to, packet);
    if (!(net_offload_needs(packet) & ~to->accepts)) {
        deliver(to, packet);
    } else if (net_offload_finish(packet, to->accepts, deliver, to)) {
        log_event(guest_errors, "net: %s: headers do not fit the offload that was asked for, dropped\n", from->id);
        to->dropped++;
    }
}

void net_send_buffer(struct net_client *from, const void *data, size_t size)
{
    struct iovec iov = { (void *)data, size };

    net_send(from, &(struct net_packet){ .iov = &iov, .iov_count = 1, .size = size });
}

bool net_can_send(struct net_client *from)
{
    struct net_client *to = from->peer;

    if (!to || from->link_down || to->link_down || (!to->queue && !to->resuming && has_room(to)))
        return true;
    to->sender_waits = true;
    return false;
}

/* ---- Clients ---- */

int net_client_add(struct net_registry *registry, struct net_client *client, const struct net_client_ops *ops,
                   const char *id, struct error *err)
{
    struct net_client **link = &registry->clients;

    client->ops = ops;
    client->registry = registry;
    client->queue_end = &client->queue;
    if (id)
        snprintf(client->id, sizeof(client->id), "%s", id);
    else
        snprintf(client->id, sizeof(client->id), "#net%03u", registry->made_up++);
    for (; *link; link = &(*link)->next) {
        if (!client->is_nic && !(*link)->is_nic && !strcmp((*link)->id, client->id))
            return error_set(err, EEXIST, "there is a network back end '%s' already", client->id);
    }
    client->next = NULL;
    *link = client;
    return 0;
}

void net_client_remove(struct net_client *client)
{
    struct net_client *peer = client->peer;

    if (!client->registry)
        return;
    for (struct net_client **link = &client->registry->clients; *link; link = &(*link)->next) {
        if (*link == client) {
            *link = client->next;
            break;
        }
    }
    net_client_purge(client);
    while (client->filters) {
        struct net_filter *filter = client->filters;

        client->filters = filter->next;
        filter->destroy(filter);
    }
    client->peer = NULL;
    client->registry = NULL;
    if (!peer)
        return;
    peer->peer = NULL;
    net_client_purge(peer); /* it came from here */
    peer->sender_waits = false;
    if (peer->ops->peer_changed)
        peer->ops->peer_changed(peer);
}

void net_client_connect(struct net_client *a, struct net_client *b)
{
    a->peer = b;
    b->peer = a;
    if (a->ops->peer_changed)
        a->ops->peer_changed(a);
    if (b->ops->peer_changed)
        b->ops->peer_changed(b);
}

void net_client_set_accepts(struct net_client *client, unsigned accepts)
{
    if (client->accepts == accepts)
        return;
    client->accepts = accepts;
    /* What waits was made for what was accepted then. */
    net_client_purge(client);
    if (client->peer && client->peer->ops->peer_changed)
        client->peer->ops->peer_changed(client->peer);
}

void net_client_set_link(struct net_client *client, bool up)
{
    if (client->link_down == !up)
        return;
    client->link_down = !up;
    net_client_purge(client);
    if (client->ops->link_changed)
        client->ops->link_changed(client);
    if (client->peer && client->peer->ops->link_changed)
        client->peer->ops->link_changed(client->peer);
}
