/* The header that virtio-net, tap interfaces and ourselves put beside a packet (virtio 1.2 section 5.1.6): our own words for
 * it, because <linux/virtio_net.h> has macros with the names of devices/virtio's enumerations. */
#ifndef EIDOLON_DEVICES_NET_VIRTIO_NET_HEADER_H
#define EIDOLON_DEVICES_NET_VIRTIO_NET_HEADER_H

#include <assert.h>

#include "base/types.h"

struct virtio_net_hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len;     /* a hint */
    uint16_t gso_size;    /* payload of each segment */
    uint16_t csum_start;  /* sum from here to the end ... */
    uint16_t csum_offset; /* ... and put it so much behind the start */
};
static_assert(sizeof(struct virtio_net_hdr) == 10, "an ABI");

struct virtio_net_hdr_mrg_rxbuf {
    struct virtio_net_hdr hdr;
    uint16_t num_buffers;
};
static_assert(sizeof(struct virtio_net_hdr_mrg_rxbuf) == 12, "an ABI");

enum { VIRTIO_NET_HDR_F_NEEDS_CSUM = 1, VIRTIO_NET_HDR_F_DATA_VALID = 2 };
enum {
    VIRTIO_NET_HDR_GSO_NONE = 0,
    VIRTIO_NET_HDR_GSO_TCPV4 = 1,
    VIRTIO_NET_HDR_GSO_UDP = 3,
    VIRTIO_NET_HDR_GSO_TCPV6 = 4,
    VIRTIO_NET_HDR_GSO_ECN = 0x80,
};

#endif
