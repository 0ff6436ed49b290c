/* virtio-net's control queue: reception modes, address and VLAN filters, number of queue pairs, offloads (virtio 1.2 5.1.6.5).
 * A command is { class, command, data }, answered by one byte. Device lock held. */
#include <string.h>

#include "base/log.h"
#include "devices/virtio/virtio_net_internal.h"

#define GUEST_OFFLOADS                                                                                                 \
    (BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |                      \
     BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_GUEST_UFO))

void virtio_net_update_offloads(struct virtio_net *net)
{
    uint64_t offloads = net->guest_offloads & net->pci.vdev.guest_features;
    unsigned accepts = 0;

    if (offloads & BIT(VIRTIO_NET_F_GUEST_CSUM)) { /* the others need it (5.1.3.1) */
        accepts |= NET_CSUM;
        accepts |= offloads & BIT(VIRTIO_NET_F_GUEST_TSO4) ? NET_TSO4 : 0;
        accepts |= offloads & BIT(VIRTIO_NET_F_GUEST_TSO6) ? NET_TSO6 : 0;
        accepts |= offloads & BIT(VIRTIO_NET_F_GUEST_ECN) ? NET_ECN : 0;
        accepts |= offloads & BIT(VIRTIO_NET_F_GUEST_UFO) ? NET_UFO : 0;
    }
    net_client_set_accepts(&net->nic.client, accepts);
}

void virtio_net_filter_reset(struct virtio_net *net)
{
    net->promiscuous = true; /* until the driver says what it wants */
    net->all_multicast = net->all_unicast = net->no_multicast = net->no_unicast = net->no_broadcast = false;
    net->unicast_overflow = net->multicast_overflow = false;
    net->mac_count = net->first_multicast = 0;
    memset(net->macs, 0, sizeof(net->macs));
    memset(net->vlans, 0, sizeof(net->vlans));
    memcpy(net->mac, net->nic.mac, NET_MAC_SIZE);
    net->guest_offloads = GUEST_OFFLOADS;
    net->pairs = 1;
    net->announce = false;
}

/* The data behind the header; false: too short. */
static bool get(const struct dma_list *list, uint64_t offset, void *out, uint64_t size)
{
    return dma_list_copy_from(list, sizeof(struct virtio_net_ctrl_hdr) + offset, out, size) == size;
}

static bool set_mode(struct virtio_net *net, uint8_t command, const struct dma_list *list)
{
    bool *const modes[] = { &net->promiscuous,  &net->all_multicast, &net->all_unicast,
                            &net->no_multicast, &net->no_unicast,    &net->no_broadcast };
    uint8_t on;

    if (command >= ARRAY_SIZE(modes) || !get(list, 0, &on, 1))
        return false;
    *modes[command] = on != 0;
    return true;
}

/* One of the two tables { le32 entries; u8 macs[entries][6]; } at *offset. */
static bool take_table(struct virtio_net *net, const struct dma_list *list, uint64_t *offset, bool *overflow)
{
    uint32_t entries;

    if (!get(list, *offset, &entries, sizeof(entries)))
        return false;
    *offset += sizeof(entries);
    if (entries > list->size / NET_MAC_SIZE)
        return false;
    *overflow = entries > (uint32_t)(VIRTIO_NET_MACS - net->mac_count);
    if (!*overflow) {
        if (!get(list, *offset, net->macs[net->mac_count], (uint64_t)entries * NET_MAC_SIZE))
            return false;
        net->mac_count = (uint16_t)(net->mac_count + entries);
    }
    *offset += (uint64_t)entries * NET_MAC_SIZE;
    return true;
}

static bool set_mac(struct virtio_net *net, uint8_t command, const struct dma_list *list)
{
    uint64_t offset = 0;

    if (command == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
        if (!get(list, 0, net->mac, NET_MAC_SIZE))
            return false;
        memcpy(net->pci.vdev.config, net->mac, NET_MAC_SIZE);
        return true;
    }
    if (command != VIRTIO_NET_CTRL_MAC_TABLE_SET)
        return false;
    net->mac_count = net->first_multicast = 0;
    if (!take_table(net, list, &offset, &net->unicast_overflow))
        return false;
    net->first_multicast = net->mac_count;
    return take_table(net, list, &offset, &net->multicast_overflow);
}

static bool set_vlan(struct virtio_net *net, uint8_t command, const struct dma_list *list)
{
    uint16_t vlan;

    if (command > VIRTIO_NET_CTRL_VLAN_DEL || !get(list, 0, &vlan, sizeof(vlan)) || vlan >= 4096)
        return false;
    if (command == VIRTIO_NET_CTRL_VLAN_ADD)
        net->vlans[vlan / 32] |= 1u << vlan % 32;
    else
        net->vlans[vlan / 32] &= ~(1u << vlan % 32);
    return true;
}

static bool set_pairs(struct virtio_net *net, uint8_t command, const struct dma_list *list)
{
    uint16_t pairs;

    if (command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !virtio_has(&net->pci.vdev, VIRTIO_NET_F_MQ) ||
        !get(list, 0, &pairs, sizeof(pairs)) || pairs < 1 || pairs > net->pairs_max)
        return false;
    net->pairs = pairs;
    return true;
}

static bool set_offloads(struct virtio_net *net, uint8_t command, const struct dma_list *list)
{
    uint64_t offloads;

    if (command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
        !virtio_has(&net->pci.vdev, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || !get(list, 0, &offloads, sizeof(offloads)) ||
        (offloads & ~(GUEST_OFFLOADS & net->pci.vdev.guest_features)))
        return false;
    net->guest_offloads = offloads;
    virtio_net_update_offloads(net);
    return true;
}

static bool execute(struct virtio_net *net, const struct dma_list *list)
{
    struct virtio_net_ctrl_hdr header;

    if (dma_list_copy_from(list, 0, &header, sizeof(header)) != sizeof(header))
        return false;
    switch (header.class) {
    case VIRTIO_NET_CTRL_RX:
        return set_mode(net, header.cmd, list);
    case VIRTIO_NET_CTRL_MAC:
        return set_mac(net, header.cmd, list);
    case VIRTIO_NET_CTRL_VLAN:
        return set_vlan(net, header.cmd, list);
    case VIRTIO_NET_CTRL_ANNOUNCE:
        if (header.cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK)
            return false;
        net->announce = false;
        net->pci.vdev.config[NET_MAC_SIZE] &= (uint8_t)~VIRTIO_NET_S_ANNOUNCE;
        return true;
    case VIRTIO_NET_CTRL_MQ:
        return set_pairs(net, header.cmd, list);
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return set_offloads(net, header.cmd, list);
    default:
        log_event(unimp, "virtio-net: control class %u\n", header.class);
        return false;
    }
}

void virtio_net_control(struct virtio_net *net, struct virtqueue *queue)
{
    struct virtqueue_element *element = &net->control_element;

    while (virtqueue_pop(queue, element)) {
        uint8_t ack;

        if (element->writable.size < sizeof(ack)) {
            virtqueue_fail(queue, "no room for the answer to a control command");
            return;
        }
        ack = execute(net, &element->readable) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
        dma_list_copy_to(&element->writable, 0, &ack, sizeof(ack));
        virtqueue_push(queue, element, sizeof(ack));
    }
    virtqueue_notify(queue);
}
