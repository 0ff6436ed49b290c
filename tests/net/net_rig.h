/* A machine with memory, a PCI bus that records messages, a registry of networks, and a client that stands for the other end of
 * the cable. Time and descriptors are those of fake_loop.h. */
#ifndef EIDOLON_TESTS_NET_NET_RIG_H
#define EIDOLON_TESTS_NET_NET_RIG_H

#include "devices/net/net.h"
#include "devices/net/net_internal.h"
#include "devices/net/offload.h"
#include "devices/pci/pci.h"
#include "tests/devices/fake_loop.h"

#define RIG_RAM (4 * MIB)

struct rig_packet {
    struct virtio_net_hdr offload;
    size_t size;
    uint8_t data[NET_MAX_PACKET];
};

/* Keeps what it receives; `full`: takes nothing. */
struct rig_end {
    struct net_client client;
    bool full;
    unsigned received, ready;      /* packets; calls of peer_ready */
    struct rig_packet packets[64]; /* the last ones, by number modulo 64 */
};

struct net_rig {
    struct clock clock;
    struct device_env env;
    bool pirq[PCI_PIRQ_COUNT];
    unsigned messages;
    uint32_t message_data[256];
    struct rig_end end;
};

void net_rig_init(struct net_rig *rig);
void net_rig_destroy(struct net_rig *rig);
void net_rig_run(struct net_rig *rig); /* until no descriptor is ready */
/* The other end, as back end `id`. */
void rig_end_add(struct rig_end *end, struct net_registry *registry, const char *id);
struct rig_packet *rig_end_last(struct rig_end *end);
struct device *net_rig_device(struct net_rig *rig, const char *type, const char *options);

uint64_t rig_random64(uint64_t *state);

/* A frame: Ethernet, IPv4 or IPv6, TCP or UDP, payload of a pattern; the checksum field holds the pseudo header's sum (as drivers
 * leave it) or, if `whole`, the right one. Its size. */
size_t rig_build_frame(uint8_t *frame, bool ipv6, bool tcp, size_t payload, bool vlan, bool whole);
/* The plainest way to sum; the model that the code is compared with. */
uint16_t rig_sum(const uint8_t *data, size_t size, uint32_t sum);
/* Whether IP, TCP and UDP checksums of a frame are right. */
bool rig_frame_is_right(const uint8_t *frame, size_t size);

static inline void rig_put16(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}
static inline unsigned rig_get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

#endif
