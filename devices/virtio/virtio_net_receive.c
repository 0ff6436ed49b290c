/* virtio-net: what comes from the network goes into the driver's buffers (virtio 1.2 5.1.6.3, 5.1.6.4).
 *
 *     without MRG_RXBUF   one chain holds header and packet; a packet that is too large for it is dropped
 *     with MRG_RXBUF      as many chains as it takes; the header in the first says how many
 *
 * When there are not enough buffers, those taken are put back, the packet waits with its sender (net.c), and the next kick lets
 * it go on. Loop's thread, device lock held. */
#include <string.h>

#include "devices/net/offload.h"
#include "devices/virtio/virtio_net_internal.h"

bool virtio_net_can_receive(struct net_client *client)
{
    struct virtio_net *net = container_of(client, struct virtio_net, nic.client);
    struct virtqueue *queue = virtio_queue(&net->pci.vdev, 0);

    return net->filtering && virtqueue_ready(queue);
}

/* ---- Filters ---- */

static bool address_wanted(const struct virtio_net *net, const uint8_t *address)
{
    static const uint8_t broadcast[NET_MAC_SIZE] = { 255, 255, 255, 255, 255, 255 };
    bool multicast = address[0] & 1;

    if (net->promiscuous)
        return true;
    if (!memcmp(address, broadcast, NET_MAC_SIZE))
        return !net->no_broadcast;
    if (multicast ? net->no_multicast : net->no_unicast)
        return false;
    if (multicast ? net->all_multicast || net->multicast_overflow : net->all_unicast || net->unicast_overflow)
        return true;
    if (!multicast && !memcmp(address, net->mac, NET_MAC_SIZE))
        return true;
    for (unsigned i = multicast ? net->first_multicast : 0; i < (multicast ? net->mac_count : net->first_multicast);
         i++) {
        if (!memcmp(address, net->macs[i], NET_MAC_SIZE))
            return true;
    }
    return false;
}

static bool frame_wanted(const struct virtio_net *net, const uint8_t *frame, size_t size)
{
    if (virtio_has(&net->pci.vdev, VIRTIO_NET_F_CTRL_VLAN) && size >= 16 && frame[12] == 0x81 && !frame[13]) {
        unsigned vlan = (frame[14] & 15u) << 8 | frame[15];

        if (!(net->vlans[vlan / 32] >> vlan % 32 & 1))
            return false;
    }
    return address_wanted(net, frame);
}

/* Packets of one connection take one queue, so that they stay in order. */
static unsigned choose_pair(const struct virtio_net *net, const uint8_t *frame, size_t size, size_t packet_size)
{
    struct net_headers headers;
    uint64_t sum;

    if (net->pairs < 2 || !net_parse_headers(frame, size, packet_size, &headers))
        return 0;
    sum = headers.ipv4 ? net_sum(frame + headers.network + 12, 8, 0) : net_sum(frame + headers.network + 8, 32, 0);
    if (headers.transport && !headers.fragment)
        sum = net_sum(frame + headers.transport, 4, sum);
    return net_sum_fold(sum) % net->pairs;
}

/* ---- Buffers ---- */

static void put_back(struct virtqueue *queue, struct virtqueue_element *elements, unsigned count)
{
    while (count--)
        virtqueue_unpop(queue, &elements[count]);
}

enum taken { TAKEN, NO_BUFFERS, TOO_LARGE };

/* Chains for `size` bytes. */
static enum taken take_buffers(struct virtio_net *net, struct virtqueue *queue, uint64_t size, unsigned *count)
{
    bool mergeable = virtio_has(&net->pci.vdev, VIRTIO_NET_F_MRG_RXBUF);
    unsigned limit = mergeable ? VIRTIO_NET_CHAIN_MAX : 1;
    uint64_t room = 0;

    for (*count = 0; *count < limit && room < size;) {
        if (!virtqueue_pop(queue, &net->receive_elements[*count])) {
            put_back(queue, net->receive_elements, *count);
            return NO_BUFFERS;
        }
        room += net->receive_elements[(*count)++].writable.size;
    }
    if (room >= size && net->receive_elements[0].writable.size >= virtio_net_header_size(net))
        return TAKEN;
    put_back(queue, net->receive_elements, *count);
    return TOO_LARGE;
}

/* The same, and waits (asks for kicks) if there are none: false. A kick may have been missed until the driver sees that. */
static enum taken take_or_wait(struct virtio_net *net, struct virtqueue *queue, uint64_t size, unsigned *count)
{
    enum taken result = take_buffers(net, queue, size, count);

    if (result != NO_BUFFERS)
        return result;
    virtqueue_set_notification(queue, true);
    result = take_buffers(net, queue, size, count);
    if (result != NO_BUFFERS)
        virtqueue_set_notification(queue, false);
    return result;
}

struct cursor {
    const struct net_packet *packet;
    unsigned piece;
    size_t offset;
};

/* The next bytes of the packet into guest memory. */
static uint64_t copy_packet(struct cursor *cursor, const struct dma_list *list, uint64_t at)
{
    uint64_t done = at;

    while (cursor->piece < cursor->packet->iov_count && done < list->size) {
        const struct iovec *iov = &cursor->packet->iov[cursor->piece];
        uint64_t part =
            dma_list_copy_to(list, done, (uint8_t *)iov->iov_base + cursor->offset, iov->iov_len - cursor->offset);

        done += part;
        cursor->offset += part;
        if (cursor->offset == iov->iov_len) {
            cursor->piece++;
            cursor->offset = 0;
        }
    }
    return done;
}

bool virtio_net_receive(struct net_client *client, const struct net_packet *packet)
{
    struct virtio_net *net = container_of(client, struct virtio_net, nic.client);
    unsigned header_size = virtio_net_header_size(net), count;
    struct virtio_net_hdr_mrg_rxbuf header = { .hdr = packet->offload };
    uint8_t frame[NET_HEADERS_MAX];
    size_t known = net_iov_read(packet->iov, packet->iov_count, 0, frame, sizeof(frame));
    struct cursor cursor = { .packet = packet };
    struct virtqueue *queue;

    if (!frame_wanted(net, frame, known))
        return true;
    queue = virtio_queue(&net->pci.vdev, 2 * choose_pair(net, frame, known, packet->size));
    switch (take_or_wait(net, queue, header_size + packet->size, &count)) {
    case NO_BUFFERS:
        return !virtqueue_ready(queue); /* nothing will ever come: drop */
    case TOO_LARGE:
        client->dropped++;
        return true;
    case TAKEN:
        break;
    }
    if (!(client->accepts & NET_CSUM))
        header.hdr = (struct virtio_net_hdr){ 0 };
    header.num_buffers = (uint16_t)count;
    for (unsigned i = 0; i < count; i++) {
        const struct dma_list *list = &net->receive_elements[i].writable;
        uint64_t at = i ? 0 : dma_list_copy_to(list, 0, &header, header_size);

        virtqueue_fill(queue, &net->receive_elements[i], (uint32_t)copy_packet(&cursor, list, at), i);
    }
    virtqueue_flush(queue, count);
    virtqueue_notify(queue);
    return true;
}

void virtio_net_receive_kicked(struct virtqueue *queue)
{
    struct virtio_net *net = virtio_net_of(queue);

    virtqueue_set_notification(queue, false);
    net_client_resume(&net->nic.client);
}
