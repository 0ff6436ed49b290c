/* Hubs: what comes in at one port goes out at all others. -netdev hubport,id=,hubid=[,netdev=], and -net, which puts all it makes on
 * hub 0. Ports take every offload, because net_send() does for each receiver what that one lacks. Device lock held. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "devices/net/net_internal.h"

struct hub_port {
    struct net_client client; /* first */
    unsigned hub;
    bool asking; /* hub_can_receive() is under way: hubs may lead back to each other */
};

static const struct net_client_ops hub_port_ops;

/* The next port of the same hub after `client` in the registry, other than `port`. */
static struct hub_port *next_port(const struct hub_port *port, struct net_client *client)
{
    for (; client; client = client->next) {
        struct hub_port *other = container_of(client, struct hub_port, client);

        if (client->ops == &hub_port_ops && other != port && other->hub == port->hub)
            return other;
    }
    return NULL;
}

static bool hub_can_receive(struct net_client *client)
{
    struct hub_port *port = container_of(client, struct hub_port, client), *other;
    bool anyone = false, room = false;

    if (port->asking)
        return false;
    port->asking = true;
    for (other = next_port(port, client->registry->clients); other; other = next_port(port, other->client.next)) {
        anyone = true;
        room |= net_can_send(&other->client);
    }
    port->asking = false;
    return room || !anyone;
}

static bool hub_receive(struct net_client *client, const struct net_packet *packet)
{
    struct hub_port *port = container_of(client, struct hub_port, client), *other;

    for (other = next_port(port, client->registry->clients); other; other = next_port(port, other->client.next))
        net_send(&other->client, packet);
    return true;
}

/* Somebody behind this port has room: those behind the others may go on. */
static void hub_peer_ready(struct net_client *client)
{
    struct hub_port *port = container_of(client, struct hub_port, client), *other;

    for (other = next_port(port, client->registry->clients); other; other = next_port(port, other->client.next))
        net_client_resume(&other->client);
}

static void hub_destroy(struct net_client *client)
{
    free(container_of(client, struct hub_port, client));
}

static const struct net_client_ops hub_port_ops = {
    .kind = "hubport",
    .can_receive = hub_can_receive,
    .receive = hub_receive,
    .peer_ready = hub_peer_ready,
    .destroy = hub_destroy,
};

int net_hub_plug(struct net_registry *registry, unsigned hub, const char *id, struct net_client *other,
                 struct error *err)
{
    struct hub_port *port = calloc(1, sizeof(*port));
    int result;

    if (!port)
        return error_set(err, ENOMEM, "out of memory");
    port->hub = hub;
    port->client.accepts = NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN | NET_UFO;
    snprintf(port->client.info, sizeof(port->client.info), "hub %u", hub);
    result = net_client_add(registry, &port->client, &hub_port_ops, id, err);
    if (result)
        free(port);
    else if (other)
        net_client_connect(&port->client, other);
    return result;
}

int net_hubport_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err)
{
    const char *netdev = options_get(options, "netdev");
    struct net_client *other = NULL;
    uint64_t hub;
    int result;

    if (!options_get(options, "hubid"))
        return error_set(err, EINVAL, "hubport: hubid= is missing");
    result = options_get_u64(options, "hubid", 0, &hub, err);
    if (result)
        return result;
    if (hub > 1000)
        return error_set(err, EINVAL, "hubport: hubid=%llu: 0 to 1000 expected", (unsigned long long)hub);
    if (netdev) {
        other = net_find(registry, netdev);
        if (!other)
            return error_set(err, ENODEV, "hubport: netdev=%s: there is no such back end", netdev);
        if (other->peer)
            return error_set(err, EBUSY, "hubport: netdev=%s: in use by %s", netdev, other->peer->id);
    }
    return net_hub_plug(registry, (unsigned)hub, id, other, err);
}
