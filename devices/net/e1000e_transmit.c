/* e1000e: transmission (82574 datasheet 7.2). Three kinds of descriptor, 16 bytes each, in 32-bit words:
 *
 *     legacy    0, 1 address | 2 length 15:0, CSO 23:16, command 31:24   | 3 status 7:0, CSS 15:8, VLAN 31:16
 *     context   0 IPCSS, IPCSO, IPCSE | 1 TUCSS, TUCSO, TUCSE | 2 PAYLEN, type 0, TUCMD | 3 status, HDRLEN 15:8, MSS 31:16
 *     data      0, 1 address | 2 length 19:0, type 1, command 31:24      | 3 status, POPTS 15:8, VLAN 31:16
 *
 * A packet's data are copied together until EOP, so that nothing changes under what is decided by them. Checksums and segmentation
 * become a virtio_net_hdr, which the receiver or net_send() carries out. Nothing here trusts a ring: a head or tail outside of
 * it is an empty ring, work per turn is bounded, a packet that is too large or not in memory is dropped at its end.
 * Loop's thread, device lock held. */
#include <string.h>

#include "base/log.h"
#include "devices/net/e1000e_internal.h"

#define DESCRIPTORS_PER_TURN 256
#define DESCRIPTOR_SIZE      16

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void restart(struct e1000e_transmit *transmit)
{
    transmit->size = 0;
    transmit->skip = transmit->started = false;
}

void e1000e_transmit_reset_packets(struct e1000e *nic)
{
    for (unsigned queue = 0; queue < E1000E_QUEUES; queue++)
        restart(&nic->transmit[queue]);
}

void e1000e_transmit_reset(struct e1000e *nic)
{
    e1000e_transmit_reset_packets(nic);
    for (unsigned queue = 0; queue < E1000E_QUEUES; queue++)
        memset(nic->transmit[queue].context, 0, sizeof(nic->transmit[queue].context));
}

/* ---- Offloads ---- */

struct context {
    unsigned ip_start, ip_field, ip_end, start, field, end, mss, header_length;
    bool tcp, ipv4;
};

static struct context parse_context(const uint32_t *words)
{
    return (struct context){
        .ip_start = words[0] & 0xff,
        .ip_field = words[0] >> 8 & 0xff,
        .ip_end = words[0] >> 16,
        .start = words[1] & 0xff,
        .field = words[1] >> 8 & 0xff,
        .end = words[1] >> 16,
        .tcp = words[2] & TXD_CONTEXT_TCP,
        .ipv4 = words[2] & TXD_CONTEXT_IP,
        .header_length = words[3] >> 8 & 0xff,
        .mss = words[3] >> 16,
    };
}

/* Sums [start, end) and stores the result at `field`; end 0: to the packet's end. */
static void checksum_now(uint8_t *data, size_t size, unsigned start, unsigned field, unsigned end)
{
    size_t stop = end && end + 1 < size ? end + 1 : size;

    if (start < stop && field + 2 <= size)
        put16(data + field, (uint16_t)~net_sum_fold(net_sum(data + start, stop - start, 0)));
}

static void checksum_later(struct net_packet *packet, uint8_t *data, unsigned start, unsigned field, unsigned end)
{
    if ((end && end + 1u < packet->size) || field < start || start < NET_ETHERNET_SIZE) {
        checksum_now(data, packet->size, start, field, end); /* what a virtio_net_hdr cannot say */
        return;
    }
    packet->offload.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    packet->offload.csum_start = (uint16_t)start;
    packet->offload.csum_offset = (uint16_t)(field - start);
}

/* The driver leaves out the lengths, which differ in each segment; others expect those of the whole packet. */
static bool prepare_segmentation(struct net_packet *packet, uint8_t *data, const struct context *context)
{
    size_t size = packet->size, ip_size = context->ipv4 ? 20 : 40;

    if (!context->tcp || !context->mss || context->ip_start + ip_size > size || context->field + 2u > size ||
        context->start >= size || size - context->ip_start > 65535)
        return false;
    if (context->ipv4)
        put16(data + context->ip_start + 2, (uint16_t)(size - context->ip_start));
    else
        put16(data + context->ip_start + 4, (uint16_t)(size - context->ip_start - 40));
    put16(data + context->field,
          net_sum_fold((uint64_t)get16(data + context->field) + (uint64_t)(size - context->start)));
    if (size > context->header_length + context->mss) {
        packet->offload.gso_type = context->ipv4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
        packet->offload.gso_size = (uint16_t)context->mss;
        packet->offload.hdr_len = (uint16_t)context->header_length;
    }
    return true;
}

/* False: the packet cannot be sent as the driver wants it. */
static bool prepare_offloads(struct e1000e_transmit *transmit, struct net_packet *packet)
{
    const uint32_t *first = transmit->first;
    struct context context = parse_context(transmit->context);
    unsigned options = first[3] >> 8 & 0xff;

    if (!(first[2] & TXD_DEXT)) {
        if (first[2] & TXD_IC)
            checksum_later(packet, transmit->data, options, first[2] >> 16 & 0xff, 0);
        return true;
    }
    if ((first[2] & TXD_TSE) && !prepare_segmentation(packet, transmit->data, &context))
        return false;
    if (options & TXD_POPTS_IXSM)
        checksum_now(transmit->data, packet->size, context.ip_start, context.ip_field, context.ip_end);
    if (options & TXD_POPTS_TXSM)
        checksum_later(packet, transmit->data, context.start, context.field, context.end);
    return true;
}

/* Behind the addresses; all places after it move. */
static void insert_vlan(struct e1000e *nic, struct e1000e_transmit *transmit, struct net_packet *packet)
{
    uint8_t *data = transmit->data;

    if (packet->size + 4 > NET_MAX_PACKET || packet->size < 12)
        return;
    memmove(data + 16, data + 12, packet->size - 12);
    put16(data + 12, (uint16_t)e1000e_get(nic, VET));
    put16(data + 14, (uint16_t)(transmit->first[3] >> 16));
    packet->size += 4;
    if (packet->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        packet->offload.csum_start = (uint16_t)(packet->offload.csum_start + 4);
}

/* ---- Packets ---- */

static void count_sent(struct e1000e *nic, const struct net_packet *packet)
{
    static const uint8_t broadcast[NET_MAC_SIZE] = { 255, 255, 255, 255, 255, 255 };
    const uint8_t *frame = packet->iov->iov_base;

    e1000e_count(nic, TPT, 1);
    e1000e_count(nic, GPTC, 1);
    e1000e_count_64(nic, GOTCL, (uint32_t)packet->size + 4);
    e1000e_count_64(nic, TOTL, (uint32_t)packet->size + 4);
    e1000e_count_size(nic, PTC64, packet->size + 4);
    if (packet->size >= NET_MAC_SIZE && (frame[0] & 1))
        e1000e_count(nic, memcmp(frame, broadcast, NET_MAC_SIZE) ? MPTC : BPTC, 1);
    if (packet->offload.gso_type)
        e1000e_count(nic, TSCTC, 1);
}

static bool loop_back(void *opaque, const struct net_packet *packet)
{
    struct e1000e *nic = opaque;

    if (e1000e_can_receive(&nic->nic.client))
        e1000e_receive(&nic->nic.client, packet);
    return true;
}

static void send_packet(struct e1000e *nic, struct e1000e_transmit *transmit)
{
    struct iovec iov;
    struct net_packet packet = { .iov = &iov, .iov_count = 1, .size = transmit->size };

    if (!transmit->skip && prepare_offloads(transmit, &packet)) {
        if ((transmit->first[2] & TXD_VLE) && (e1000e_get(nic, CTRL) & CTRL_VME))
            insert_vlan(nic, transmit, &packet);
        if (packet.size < NET_MIN_FRAME && (e1000e_get(nic, TCTL) & TCTL_PSP)) {
            memset(transmit->data + packet.size, 0, NET_MIN_FRAME - packet.size);
            packet.size = NET_MIN_FRAME;
        }
        iov = (struct iovec){ transmit->data, packet.size };
        count_sent(nic, &packet);
        if (!(e1000e_get(nic, RCTL) & RCTL_LBM))
            net_send(&nic->nic.client, &packet);
        else if (packet.size >= NET_ETHERNET_SIZE && !net_offload_check(&packet))
            net_offload_finish(&packet, 0, loop_back, nic);
    } else {
        log_event(guest_errors, "e1000e: packet that cannot be sent as wanted, dropped\n");
    }
    restart(transmit);
}

static void take_data(struct e1000e *nic, struct e1000e_transmit *transmit, const uint32_t *words)
{
    gpa_t address = words[0] | (uint64_t)words[1] << 32;
    uint32_t size = words[2] & (words[2] & TXD_DEXT ? 0xfffff : 0xffff);

    if (!transmit->started) {
        memcpy(transmit->first, words, sizeof(transmit->first));
        transmit->started = true;
    }
    if (transmit->skip || size > NET_MAX_PACKET - transmit->size) {
        transmit->skip = true;
    } else if (!pci_dma_read(&nic->pci, address, transmit->data + transmit->size, size)) {
        log_event(guest_errors, "e1000e: transmit buffer at 0x%llx is not memory\n", (unsigned long long)address);
        transmit->skip = true;
    } else {
        transmit->size += size;
    }
    if (words[2] & TXD_EOP)
        send_packet(nic, transmit);
}

/* ---- Rings ---- */

/* One descriptor; the causes that it asks for. False: it is not in memory. */
static bool take_descriptor(struct e1000e *nic, unsigned queue, gpa_t at, uint32_t *causes, bool *may_delay)
{
    struct e1000e_transmit *transmit = &nic->transmit[queue];
    uint32_t words[4];

    if (!pci_dma_read(&nic->pci, at, words, sizeof(words)))
        return false;
    if ((words[2] & TXD_DEXT) && (words[2] & TXD_TYPE) != TXD_TYPE_DATA) {
        memcpy(transmit->context, words, sizeof(words));
    } else {
        take_data(nic, transmit, words);
    }
    if (words[2] & TXD_RS) {
        words[3] |= TXD_STATUS_DD;
        pci_dma_write(&nic->pci, at + 12, &words[3], sizeof(words[3]));
        *causes |= INT_TXDW | (queue ? INT_TXQ1 : INT_TXQ0);
        *may_delay &= (words[2] & TXD_IDE) != 0;
    }
    return true;
}

static void transmit_queue(struct e1000e *nic, unsigned queue)
{
    struct e1000e_ring ring;
    uint32_t causes = 0;
    bool may_delay = true;
    unsigned budget = DESCRIPTORS_PER_TURN;

    if (!e1000e_ring(nic, TDBAL, queue, &ring) || ring.head == ring.tail)
        return;
    while (ring.head != ring.tail && budget--) {
        if (!nic->transmit[queue].started && !net_can_send(&nic->nic.client))
            break;
        if (!take_descriptor(nic, queue, ring.base + (uint64_t)ring.head * DESCRIPTOR_SIZE, &causes, &may_delay)) {
            log_event(guest_errors, "e1000e: transmit ring %u is not in memory\n", queue);
            ring.head = ring.tail; /* hardware would stop with an error; nothing of it is worth a try */
            break;
        }
        ring.head = ring.head + 1 == ring.count ? 0 : ring.head + 1;
    }
    *e1000e_register(nic, TDH + 0x100 * queue) = ring.head;
    if (ring.head == ring.tail)
        causes |= INT_TXQE;
    else if (net_can_send(&nic->nic.client))
        net_work_schedule(&nic->work); /* others have their turn first */
    if (!pci_msix_enabled(&nic->pci))
        causes &= ~INT_QUEUES;
    if (causes)
        e1000e_interrupt_transmitted(nic, causes, may_delay && (causes & INT_TXDW));
}

void e1000e_transmit_all(struct e1000e *nic)
{
    if (!(e1000e_get(nic, TCTL) & TCTL_EN))
        return;
    for (unsigned queue = 0; queue < E1000E_QUEUES; queue++)
        transmit_queue(nic, queue);
}
