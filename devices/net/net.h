/* Networks: clients (a card of the guest, or a back end on the host), each with one peer that gets what it sends.
 *
 *     e1000e ── net_send ──> [software offloads] ──> [queue, if the peer is full] ──> user, tap, stream, dgram, hub port
 *        ^                                                                              │
 *        └──────────────── [queue] <── [software offloads] <── net_send ────────────────┘
 *
 * A packet is an Ethernet frame without checksum (FCS) in pieces, with a virtio_net_hdr beside it that says what the
 * sender left to others: a checksum, cutting a large TCP segment up. What the receiver does not take is done on the way
 * (offload.h).
 *
 * Threads: the device lock held, and packets only on the thread of the event loop, so that a device's own access
 * (a vCPU's exit) never runs a back end: a card asks for a turn with struct net_work. */
#ifndef EIDOLON_DEVICES_NET_NET_H
#define EIDOLON_DEVICES_NET_NET_H

#include <sys/uio.h>

#include "base/error.h"
#include "base/event_loop.h"
#include "base/options.h"
#include "base/types.h"
#include "devices/net/virtio_net_header.h"

struct device_env;
struct net_client;
struct net_registry;
struct net_filter;

#define NET_MAC_SIZE      6
#define NET_ETHERNET_SIZE 14
#define NET_MIN_FRAME     60    /* without FCS */
#define NET_MAX_PACKET    65550 /* IPv4 of 64 KiB behind an Ethernet header; more is dropped */
#define NET_QUEUE_PACKETS 1024  /* what waits for one client at most; more is dropped */
#define NET_QUEUE_BYTES   (4u << 20)
#define NET_MAX_PIECES    64

/* What a client takes without it having been done: bits of net_client.accepts. */
enum {
    NET_CSUM = 1 << 0, /* VIRTIO_NET_HDR_F_NEEDS_CSUM */
    NET_TSO4 = 1 << 1,
    NET_TSO6 = 1 << 2,
    NET_ECN = 1 << 3, /* with TSO4, TSO6: VIRTIO_NET_HDR_GSO_ECN */
    NET_UFO = 1 << 4,
};

/* A frame, or a large packet that offload.gso_type says how to cut. offload is in host byte order (little-endian);
 * all zero: nothing left to do. Every field is untrusted until net_send() has looked at it. */
struct net_packet {
    const struct iovec *iov;
    unsigned iov_count;
    size_t size; /* of all pieces */
    struct virtio_net_hdr offload;
};

struct net_client_ops {
    const char *kind; /* "nic", "user", "tap" ... */
    /* NULL: always. False: packets wait until net_client_resume(). */
    bool (*can_receive)(struct net_client *client);
    /* The pieces are only valid during the call. False: no room after all, nothing was taken; as above. */
    bool (*receive)(struct net_client *client, const struct net_packet *packet);
    void (*peer_ready)(struct net_client *client);   /* may be NULL: net_can_send() has become true */
    void (*peer_changed)(struct net_client *client); /* may be NULL: peer came, went, or accepts something else */
    void (*link_changed)(struct net_client *client); /* may be NULL */
    void (*destroy)(struct net_client *client);      /* of back ends, by the registry: frees the structure */
};

struct net_queued {
    struct net_queued *next;
    struct virtio_net_hdr offload;
    size_t size;
    uint8_t data[];
};

struct net_client {
    const struct net_client_ops *ops;
    struct net_registry *registry;
    struct net_client *next, *peer;
    struct net_filter *filters; /* on back ends */
    char id[64];
    char info[160]; /* for people: what it is connected to */
    unsigned accepts;
    bool is_nic, hidden; /* hidden: made by another option, not what netdev= may name */
    bool link_down;
    bool resuming;     /* its queue is being delivered */
    bool sender_waits; /* the peer found this one full and wants peer_ready() */
    struct net_queued *queue, **queue_end;
    unsigned queue_count;
    size_t queue_bytes;
    uint64_t dropped; /* packets for it */
};

/* ---- The registry: what -netdev, -nic and -net made ---- */

struct net_registry *net_registry_create(struct event_loop *loop, struct error *err);
void net_registry_destroy(struct net_registry *registry); /* all cards are gone before */
struct event_loop *net_registry_loop(const struct net_registry *registry);
struct net_client *net_find(struct net_registry *registry, const char *id); /* back ends; NULL: none of that name */

/* The values of the options; messages do not repeat them. */
int net_add_netdev(struct net_registry *registry, const char *option, struct error *err);
/* -nic and -net: make back ends, and cards that -device would make thus: net_next_device() tells. */
int net_add_nic(struct net_registry *registry, const char *option, const char *default_model, struct error *err);
int net_add_net(struct net_registry *registry, const char *option, const char *default_model, struct error *err);
/* The next value for -device that -nic and -net ask for; NULL: no more. The registry's. */
const char *net_next_device(struct net_registry *registry);
/* -object filter-dump,..., and -netdump FILE: every back end that exists. */
int net_add_filter_dump(struct net_registry *registry, struct option_list *options, struct error *err);
int net_add_netdump(struct net_registry *registry, const char *path, struct error *err);
/* After all options and devices: a line for each back end that nobody uses, as QEMU warns. */
void net_registry_check(struct net_registry *registry);
void net_print_help(bool models); /* -netdev help; -nic model=help */

/* ---- Clients ---- */

/* Puts a client that its owner has allocated into the registry; id NULL: one is made up. -EEXIST. */
int net_client_add(struct net_registry *registry, struct net_client *client, const struct net_client_ops *ops,
                   const char *id, struct error *err);
/* Takes it out; its peer stays, without one. Frees what waited, not the client. */
void net_client_remove(struct net_client *client);
void net_client_connect(struct net_client *a, struct net_client *b);
void net_client_set_accepts(struct net_client *client, unsigned accepts);
void net_client_set_link(struct net_client *client, bool up); /* "set_link": the cable */

/* From `from` to its peer. Always taken: sent, queued, or dropped (no peer, link down, malformed, full queue). */
void net_send(struct net_client *from, const struct net_packet *packet);
void net_send_buffer(struct net_client *from, const void *data, size_t size);
/* False: the peer has things waiting; the sender should stop until peer_ready(). */
bool net_can_send(struct net_client *from);
/* `client` has room again: what waits for it is delivered, then its sender goes on. */
void net_client_resume(struct net_client *client);
void net_client_purge(struct net_client *client); /* forgets what waits for it */

/* ---- Cards ---- */

/* The properties netdev= and mac= of a card, and its client. */
struct net_nic {
    struct net_client client;
    uint8_t mac[NET_MAC_SIZE];
};
/* netdev= (may be left out: a card without a cable), mac= (52:54:00:12:34:56 and up). */
int net_nic_init(struct net_nic *nic, struct device_env *env, const struct net_client_ops *ops, const char *id,
                 struct option_list *options, struct error *err);
void net_nic_remove(struct net_nic *nic);
bool net_nic_link_up(const struct net_nic *nic);
int net_parse_mac(const char *text, uint8_t mac[NET_MAC_SIZE], struct error *err);

/* ---- Work for the loop's thread ---- */

/* fn(opaque) runs on the loop's thread, with the lock, soon after net_work_schedule(); requests in between are one. Unlike a
 * post it can be taken back, and costs one system call at most. */
struct net_work {
    int fd; /* eventfd */
    bool scheduled;
    struct fd_watch *watch;
    void (*fn)(void *opaque);
    void *opaque;
};
int net_work_init(struct net_work *work, struct event_loop *loop, void (*fn)(void *opaque), void *opaque,
                  struct error *err);
void net_work_schedule(struct net_work *work); /* device lock held */
void net_work_destroy(struct net_work *work);

/* ---- Pieces ---- */

size_t net_iov_size(const struct iovec *iov, unsigned count);
/* Copies up to `size` bytes from `offset` on; how many there were. */
size_t net_iov_read(const struct iovec *iov, unsigned count, size_t offset, void *buffer, size_t size);

#endif
