/* What network cards do in hardware, in software: checksums, and cutting large TCP and UDP packets up (TSO, UFO), for receivers
 * that do not take them whole. Pure functions over packets; any thread. */
#ifndef EIDOLON_DEVICES_NET_OFFLOAD_H
#define EIDOLON_DEVICES_NET_OFFLOAD_H

#include "devices/net/net.h"

/* Ones' complement sum (RFC 1071) of big-endian words, as a number that can be added to; `size` may be odd only at the end. */
uint64_t net_sum(const void *data, size_t size, uint64_t sum);
uint16_t net_sum_fold(uint64_t sum); /* not complemented */
/* Sum of `size` bytes from `offset` on. */
uint64_t net_sum_iov(const struct iovec *iov, unsigned count, size_t offset, size_t size, uint64_t sum);

/* Where things are in a frame, as far as `size` bytes of it tell. */
struct net_headers {
    unsigned network;   /* offset of the IP header, behind VLAN tags */
    unsigned transport; /* offset of TCP or UDP; 0: none that we know, or a later fragment */
    unsigned payload;   /* offset behind TCP or UDP header; 0 as above */
    size_t end;         /* of the IP packet (padding follows) */
    uint16_t ethertype; /* behind tags */
    uint8_t protocol;   /* of the transport */
    bool vlan, ipv4, ipv6, fragment;
};
/* False: not IP, or malformed. packet_size: of the whole frame, of which `data` may be the beginning. */
bool net_parse_headers(const uint8_t *data, size_t size, size_t packet_size, struct net_headers *headers);
#define NET_HEADERS_MAX 320 /* bytes from the beginning that hold all headers of anything that we cut */

/* 0 if the packet's offload header can be followed: all it names lies inside of the packet. */
int net_offload_check(const struct net_packet *packet);
/* Which NET_* a receiver must have to take the packet as it is. */
unsigned net_offload_needs(const struct net_packet *packet);
/* Does what `accepts` lacks; calls emit() for each packet that comes of it, until it says false. -errno: malformed. */
int net_offload_finish(const struct net_packet *packet, unsigned accepts,
                       bool (*emit)(void *opaque, const struct net_packet *packet), void *opaque);

enum { NET_CHECKED_IP = 1, NET_BAD_IP = 2, NET_CHECKED_L4 = 4, NET_BAD_L4 = 8 };
/* Checks the checksums of a whole frame: NET_* above. */
unsigned net_verify_checksums(const struct net_packet *packet, const struct net_headers *headers);

#endif
