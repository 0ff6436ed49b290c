/* What the files of virtio-net share: virtio_net.c (life, transmission), virtio_net_receive.c, virtio_net_control.c. */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_NET_INTERNAL_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_NET_INTERNAL_H

#include "devices/net/net.h"
#include "devices/virtio/virtio_pci.h"

#define VIRTIO_NET_PAIRS_MAX   16
#define VIRTIO_NET_MACS        64  /* in the filter; more: everything passes */
#define VIRTIO_NET_CHAIN_MAX   128 /* mergeable buffers for one packet */
#define VIRTIO_NET_CONFIG_SIZE 12

/* Feature bits, 5.1.3 */
enum {
    VIRTIO_NET_F_CSUM = 0,
    VIRTIO_NET_F_GUEST_CSUM = 1,
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2,
    VIRTIO_NET_F_MTU = 3,
    VIRTIO_NET_F_MAC = 5,
    VIRTIO_NET_F_GUEST_TSO4 = 7,
    VIRTIO_NET_F_GUEST_TSO6 = 8,
    VIRTIO_NET_F_GUEST_ECN = 9,
    VIRTIO_NET_F_GUEST_UFO = 10,
    VIRTIO_NET_F_HOST_TSO4 = 11,
    VIRTIO_NET_F_HOST_TSO6 = 12,
    VIRTIO_NET_F_HOST_ECN = 13,
    VIRTIO_NET_F_HOST_UFO = 14,
    VIRTIO_NET_F_MRG_RXBUF = 15,
    VIRTIO_NET_F_STATUS = 16,
    VIRTIO_NET_F_CTRL_VQ = 17,
    VIRTIO_NET_F_CTRL_RX = 18,
    VIRTIO_NET_F_CTRL_VLAN = 19,
    VIRTIO_NET_F_CTRL_RX_EXTRA = 20,
    VIRTIO_NET_F_GUEST_ANNOUNCE = 21,
    VIRTIO_NET_F_MQ = 22,
    VIRTIO_NET_F_CTRL_MAC_ADDR = 23,
};

/* Device configuration, 5.1.4 */
struct virtio_net_config {
    uint8_t mac[NET_MAC_SIZE];
    uint16_t status, max_virtqueue_pairs, mtu;
};
static_assert(sizeof(struct virtio_net_config) == VIRTIO_NET_CONFIG_SIZE, "an ABI");
enum { VIRTIO_NET_S_LINK_UP = 1, VIRTIO_NET_S_ANNOUNCE = 2 };

/* Control commands, 5.1.6.5 */
struct virtio_net_ctrl_hdr {
    uint8_t class, cmd;
};
enum { VIRTIO_NET_OK = 0, VIRTIO_NET_ERR = 1 };
enum {
    VIRTIO_NET_CTRL_RX = 0,
    VIRTIO_NET_CTRL_MAC = 1,
    VIRTIO_NET_CTRL_VLAN = 2,
    VIRTIO_NET_CTRL_ANNOUNCE = 3,
    VIRTIO_NET_CTRL_MQ = 4,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5,
};
enum { VIRTIO_NET_CTRL_MAC_TABLE_SET = 0, VIRTIO_NET_CTRL_MAC_ADDR_SET = 1 };
enum { VIRTIO_NET_CTRL_VLAN_ADD = 0, VIRTIO_NET_CTRL_VLAN_DEL = 1 };
enum { VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0 };

struct virtio_net {
    struct virtio_pci pci; /* first */
    struct net_nic nic;
    unsigned pairs_max; /* pairs of queues that there are */
    bool filtering;     /* DRIVER_OK: the card is in use */

    /* As the driver set them through the control queue. */
    uint16_t pairs; /* in use */
    uint8_t mac[NET_MAC_SIZE];
    bool promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast;
    bool unicast_overflow, multicast_overflow;
    uint16_t mac_count, first_multicast;
    uint8_t macs[VIRTIO_NET_MACS][NET_MAC_SIZE];
    uint32_t vlans[128];
    uint64_t guest_offloads;
    bool announce;

    struct virtqueue_element send_element;
    struct virtqueue_element *receive_elements; /* VIRTIO_NET_CHAIN_MAX */
    uint8_t *linear;                            /* NET_MAX_PACKET: a packet in too many pieces */
    struct virtqueue_element control_element;
};

static inline struct virtio_net *virtio_net_of(const struct virtqueue *queue)
{
    return container_of(virtqueue_device(queue), struct virtio_net, pci.vdev);
}
/* Bytes of struct virtio_net_hdr in front of each packet: with num_buffers or without (virtio 1.2 5.1.6.1). */
static inline unsigned virtio_net_header_size(const struct virtio_net *net)
{
    return virtio_has(&net->pci.vdev, VIRTIO_NET_F_MRG_RXBUF) || virtio_has(&net->pci.vdev, VIRTIO_F_VERSION_1)
               ? sizeof(struct virtio_net_hdr_mrg_rxbuf)
               : sizeof(struct virtio_net_hdr);
}

bool virtio_net_can_receive(struct net_client *client);
bool virtio_net_receive(struct net_client *client, const struct net_packet *packet);
void virtio_net_receive_kicked(struct virtqueue *queue);

void virtio_net_control(struct virtio_net *net, struct virtqueue *queue);
void virtio_net_filter_reset(struct virtio_net *net);
/* What the card takes undone from others, by features and VIRTIO_NET_CTRL_GUEST_OFFLOADS. */
void virtio_net_update_offloads(struct virtio_net *net);

#endif
