/* What the files of devices/net share: back end types, filters, sockets. */
#ifndef EIDOLON_DEVICES_NET_NET_INTERNAL_H
#define EIDOLON_DEVICES_NET_NET_INTERNAL_H

#include <sys/socket.h>

#include "devices/net/net.h"

#define NET_MODEL_MAX 32

struct net_device_request {
    struct net_device_request *next;
    char *text;
};

struct net_registry {
    struct event_loop *loop;
    struct net_client *clients; /* oldest first */
    struct net_device_request *requests, **requests_end, *current;
    unsigned made_up; /* ids */
    unsigned depth;   /* of receive() inside of receive(): hubs */
    unsigned next_mac;
    bool explicit_none; /* -nic none or -net none */
};

/* A back end that -netdev can make. */
struct net_backend_type {
    const char *name;
    /* Reads its options; adds a client `id` (hidden if `hidden`). */
    int (*create)(struct net_registry *registry, const char *id, struct option_list *options, struct error *err);
};

int net_user_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err);
int net_tap_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err);
int net_bridge_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err);
int net_stream_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err);
int net_dgram_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err);
int net_socket_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err);
int net_hubport_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err);

/* A port of hub `hub` for `other`, which is connected to it; other NULL: only the port, named id. */
int net_hub_plug(struct net_registry *registry, unsigned hub, const char *id, struct net_client *other,
                 struct error *err);

/* Looks at packets that pass a back end, before offloads are done. */
struct net_filter {
    struct net_filter *next;
    void (*packet)(struct net_filter *filter, const struct net_packet *packet);
    void (*destroy)(struct net_filter *filter);
};
void net_filters_run(struct net_client *backend, const struct net_packet *packet);

/* ---- Sockets (net_address.c) ---- */

struct net_address {
    union {
        struct sockaddr any;
        struct sockaddr_storage storage;
    } u;
    socklen_t size;
    char text[140]; /* for people */
};
/* The properties prefix.type=inet|unix|fd and prefix.host=, prefix.port=, prefix.path=, prefix.str= ...; for type fd, *fd is
 * the descriptor and the address is empty. */
int net_address_of_options(struct option_list *options, const char *prefix, bool passive, int socktype,
                           struct net_address *address, int *fd, struct error *err);
/* "[HOST]:PORT"; an empty host is any (passive) or the local one. */
int net_address_parse(const char *text, bool passive, int socktype, struct net_address *address, struct error *err);
/* A number of an open descriptor, or of one that -add-fd or the parent gave; made non-blocking and close-on-exec. */
int net_fd_of_text(const char *text, int *fd, struct error *err);
void net_address_describe(struct net_address *address);

#endif
