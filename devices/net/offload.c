/* Software offloads: see offload.h.
 *
 * Nothing of a packet is trusted, and its pieces may lie in guest memory, where another CPU changes them while we look:
 * headers are copied out once, and everything is decided by the copy. Payload is summed and handed on where it is; if
 * it changes in between, the guest has spoilt its own checksum.
 *
 * RFC 1071 (checksum), 791, 8200 (IP), 9293 (TCP), 768 (UDP); virtio 1.2 section 5.1.6.2 (the header). */
#include "devices/net/offload.h"

#include <errno.h>
#include <string.h>

/* A TCP segment of a large packet carries at least some bytes; a gso_size of 1 would make 65,000 packets of one. */
#define MAX_SEGMENTS 2048

enum { ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_IPV6 = 0x86dd, ETHERTYPE_VLAN = 0x8100, ETHERTYPE_QINQ = 0x88a8 };
enum { PROTOCOL_HOPOPTS = 0, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_ROUTING = 43, PROTOCOL_FRAGMENT = 44 };
enum { PROTOCOL_DSTOPTS = 60 };
enum { TCP_FIN = 1 << 0, TCP_PSH = 1 << 3, TCP_CWR = 1 << 7 };

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put32(uint8_t *p, uint32_t value)
{
    put16(p, (uint16_t)(value >> 16));
    put16(p + 2, (uint16_t)value);
}

/* ---- Checksums ---- */

/* Sums little-endian words, eight bytes at a time: a ones' complement sum of swapped words is the swapped sum (RFC 1071, 2 B). */
uint64_t net_sum(const void *data, size_t size, uint64_t sum)
{
    const uint8_t *p = data;
    uint64_t low = 0, high = 0, swapped;

    for (; size >= 8; size -= 8, p += 8) {
        uint64_t word;

        memcpy(&word, p, sizeof(word));
        low += (uint32_t)word;
        high += word >> 32;
    }
    low += high; /* 64 KiB of 32-bit words: far from overflow */
    for (; size >= 2; size -= 2, p += 2)
        low += (uint64_t)p[0] | (uint64_t)p[1] << 8;
    if (size)
        low += p[0];
    swapped = net_sum_fold(low);
    return sum + (uint16_t)(swapped << 8 | swapped >> 8);
}

uint16_t net_sum_fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint64_t net_sum_iov(const struct iovec *iov, unsigned count, size_t offset, size_t size, uint64_t sum)
{
    bool odd = false;

    for (unsigned i = 0; i < count && size; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t part = MIN(size, iov[i].iov_len - offset);
        uint16_t piece = net_sum_fold(net_sum((const uint8_t *)iov[i].iov_base + offset, part, 0));

        sum += odd ? (uint16_t)(piece << 8 | piece >> 8) : piece;
        odd ^= part & 1;
        size -= part;
        offset = 0;
    }
    return sum;
}

/* ---- Headers ---- */

static bool parse_transport(const uint8_t *data, size_t size, unsigned at, struct net_headers *headers)
{
    unsigned length = 0;

    if (headers->protocol == PROTOCOL_TCP && at + 20 <= size) {
        length = (data[at + 12] >> 4) * 4u;
        if (length < 20 || at + length > size)
            return false;
    } else if (headers->protocol == PROTOCOL_UDP && at + 8 <= size) {
        length = 8;
    }
    if (length && at + length <= headers->end) {
        headers->transport = at;
        headers->payload = at + length;
    }
    return true;
}

static bool parse_ipv4(const uint8_t *data, size_t size, size_t packet_size, struct net_headers *headers)
{
    unsigned at = headers->network, length, total;

    if (at + 20 > size || data[at] >> 4 != 4)
        return false;
    length = (data[at] & 15) * 4u;
    total = get16(data + at + 2);
    if (length < 20 || at + length > size || (total && total < length) || at + total > packet_size)
        return false;
    headers->ipv4 = true;
    headers->end = total ? at + total : packet_size; /* 0: a large packet of e1000e's kind, or of BIG TCP */
    headers->protocol = data[at + 9];
    headers->fragment = get16(data + at + 6) & 0x3fff;
    if (get16(data + at + 6) & 0x1fff)
        return true; /* not the first fragment */
    return parse_transport(data, size, at + length, headers);
}

static bool parse_ipv6(const uint8_t *data, size_t size, size_t packet_size, struct net_headers *headers)
{
    unsigned at = headers->network, length;

    if (at + 40 > size || data[at] >> 4 != 6)
        return false;
    length = get16(data + at + 4);
    if (at + 40 + length > packet_size)
        return false;
    headers->ipv6 = true;
    headers->end = length ? at + 40 + length : packet_size;
    headers->protocol = data[at + 6];
    at += 40;
    for (unsigned i = 0; i < 8; i++) {
        uint8_t protocol = headers->protocol;

        if (protocol != PROTOCOL_HOPOPTS && protocol != PROTOCOL_ROUTING && protocol != PROTOCOL_DSTOPTS &&
            protocol != PROTOCOL_FRAGMENT)
            return parse_transport(data, size, at, headers);
        if (at + 8 > size)
            return true;
        headers->protocol = data[at];
        if (protocol == PROTOCOL_FRAGMENT) {
            headers->fragment = true;
            if (get16(data + at + 2) & 0xfff8)
                return true;
            at += 8;
        } else {
            at += 8 + data[at + 1] * 8u;
        }
    }
    return true;
}

bool net_parse_headers(const uint8_t *data, size_t size, size_t packet_size, struct net_headers *headers)
{
    unsigned at = 12;

    *headers = (struct net_headers){ 0 };
    if (size < NET_ETHERNET_SIZE)
        return false;
    headers->ethertype = get16(data + at);
    for (unsigned tags = 0; tags < 2; tags++) {
        if (headers->ethertype != ETHERTYPE_VLAN && headers->ethertype != ETHERTYPE_QINQ)
            break;
        if (at + 6 > size)
            return false;
        at += 4;
        headers->vlan = true;
        headers->ethertype = get16(data + at);
    }
    headers->network = at + 2;
    if (headers->ethertype == ETHERTYPE_IPV4)
        return parse_ipv4(data, size, packet_size, headers);
    if (headers->ethertype == ETHERTYPE_IPV6)
        return parse_ipv6(data, size, packet_size, headers);
    return false;
}

/* Of addresses, protocol and length, as TCP and UDP sum them. */
static uint64_t pseudo_header(const uint8_t *frame, const struct net_headers *headers, size_t length)
{
    const uint8_t *ip = frame + headers->network;
    uint64_t sum = headers->ipv4 ? net_sum(ip + 12, 8, 0) : net_sum(ip + 8, 32, 0);

    return sum + headers->protocol + (length >> 16) + (length & 0xffff);
}

unsigned net_verify_checksums(const struct net_packet *packet, const struct net_headers *headers)
{
    uint8_t head[NET_HEADERS_MAX];
    size_t size = net_iov_read(packet->iov, packet->iov_count, 0, head, sizeof(head));
    unsigned result = 0, checksum_at;

    if (headers->ipv4) {
        unsigned length = (head[headers->network] & 15) * 4u;

        if (headers->network + length > size)
            return 0;
        result |= NET_CHECKED_IP;
        if (net_sum_fold(net_sum(head + headers->network, length, 0)) != 0xffff)
            result |= NET_BAD_IP;
    }
    if (!headers->transport || headers->fragment || headers->payload > size || headers->end < headers->transport)
        return result;
    checksum_at = headers->transport + (headers->protocol == PROTOCOL_TCP ? 16 : 6);
    if (headers->protocol == PROTOCOL_UDP && !get16(head + checksum_at))
        return result; /* none was computed (IPv4), or not allowed (IPv6): software's business */
    size = headers->end - headers->transport;
    result |= NET_CHECKED_L4;
    if (packet->offload.flags & (VIRTIO_NET_HDR_F_DATA_VALID | VIRTIO_NET_HDR_F_NEEDS_CSUM))
        return result; /* by somebody whom we trust: a back end, or ourselves */
    if (net_sum_fold(net_sum_iov(packet->iov, packet->iov_count, headers->transport, size,
                                 pseudo_header(head, headers, size))) != 0xffff)
        result |= NET_BAD_L4;
    return result;
}

/* ---- What a packet asks for ---- */

static unsigned gso_type(const struct net_packet *packet)
{
    return packet->offload.gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
}

int net_offload_check(const struct net_packet *packet)
{
    const struct virtio_net_hdr *offload = &packet->offload;

    if (offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        if ((size_t)offload->csum_start + offload->csum_offset + 2 > packet->size ||
            offload->csum_start < NET_ETHERNET_SIZE ||
            offload->csum_start + offload->csum_offset + 2u > NET_HEADERS_MAX)
            return -EINVAL;
    }
    if (offload->gso_type == VIRTIO_NET_HDR_GSO_NONE)
        return 0;
    switch (gso_type(packet)) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
    case VIRTIO_NET_HDR_GSO_TCPV6:
        /* virtio 1.2 5.1.6.2: TCP segmentation goes with a checksum to be done. */
        if (!(offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
            return -EINVAL;
        break;
    case VIRTIO_NET_HDR_GSO_UDP:
        if (offload->gso_type & VIRTIO_NET_HDR_GSO_ECN)
            return -EINVAL;
        break;
    default:
        return -EINVAL;
    }
    if (!offload->gso_size || packet->size / offload->gso_size > MAX_SEGMENTS)
        return -EINVAL;
    return 0;
}

unsigned net_offload_needs(const struct net_packet *packet)
{
    unsigned needs = packet->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? NET_CSUM : 0;

    if (packet->offload.gso_type & VIRTIO_NET_HDR_GSO_ECN)
        needs |= NET_ECN;
    switch (gso_type(packet)) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
        return needs | NET_TSO4;
    case VIRTIO_NET_HDR_GSO_TCPV6:
        return needs | NET_TSO6;
    case VIRTIO_NET_HDR_GSO_UDP:
        return needs | NET_UFO;
    default:
        return needs;
    }
}

/* ---- Doing it ---- */

/* Pieces of [offset, offset + size) of a packet behind what `out` has; how many there are then. 0: too many. */
static unsigned slice(const struct iovec *iov, unsigned count, size_t offset, size_t size, struct iovec *out,
                      unsigned used)
{
    for (unsigned i = 0; i < count && size; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        if (used == NET_MAX_PIECES + 2)
            return 0;
        out[used] = (struct iovec){ (uint8_t *)iov[i].iov_base + offset, MIN(size, iov[i].iov_len - offset) };
        size -= out[used++].iov_len;
        offset = 0;
    }
    return used;
}

struct output {
    bool (*emit)(void *opaque, const struct net_packet *packet);
    void *opaque;
};

static bool emit(const struct output *output, const struct iovec *iov, unsigned count,
                 const struct virtio_net_hdr *offload)
{
    struct net_packet packet = { .iov = iov, .iov_count = count, .size = net_iov_size(iov, count) };

    packet.offload = *offload;
    return output->emit(output->opaque, &packet);
}

/* The checksum of a packet that stays in one piece, large or not. */
static int finish_checksum(const struct net_packet *packet, const struct output *output)
{
    struct virtio_net_hdr offload = packet->offload;
    unsigned start = offload.csum_start, field = start + offload.csum_offset, size = field + 2;
    uint8_t head[NET_HEADERS_MAX];
    struct iovec iov[NET_MAX_PIECES + 2];
    unsigned count;
    uint16_t sum;

    net_iov_read(packet->iov, packet->iov_count, 0, head, size);
    iov[0] = (struct iovec){ head, size };
    count = slice(packet->iov, packet->iov_count, size, packet->size - size, iov, 1);
    if (!count)
        return -EINVAL;
    sum = (uint16_t)~net_sum_fold(net_sum_iov(iov, count, start, packet->size - start, 0));
    put16(head + field, sum ? sum : 0xffff); /* 0 is "none" to UDP, and the same number to TCP */
    offload.flags = VIRTIO_NET_HDR_F_DATA_VALID;
    offload.csum_start = offload.csum_offset = 0;
    emit(output, iov, count, &offload);
    return 0;
}

struct cut {
    const struct net_packet *packet;
    struct net_headers headers;
    uint8_t head[NET_HEADERS_MAX + 8]; /* as it came */
    uint8_t out[NET_HEADERS_MAX + 8];
    struct output output;
};

static void put_ip_length(uint8_t *frame, const struct net_headers *headers, size_t frame_size)
{
    uint8_t *ip = frame + headers->network;

    if (headers->ipv6) {
        put16(ip + 4, (uint16_t)(frame_size - headers->network - 40));
        return;
    }
    put16(ip + 2, (uint16_t)(frame_size - headers->network));
    put16(ip + 10, 0);
    put16(ip + 10, (uint16_t)~net_sum_fold(net_sum(ip, (ip[0] & 15) * 4u, 0)));
}

/* One segment: `size` bytes of payload from `offset` on. */
static bool emit_tcp(struct cut *cut, unsigned number, size_t offset, size_t size, bool last)
{
    static const struct virtio_net_hdr done = { .flags = VIRTIO_NET_HDR_F_DATA_VALID };
    const struct net_headers *headers = &cut->headers;
    uint8_t *ip = cut->out + headers->network, *tcp = cut->out + headers->transport;
    struct iovec iov[NET_MAX_PIECES + 2] = { { cut->out, headers->payload } };
    size_t tcp_size = headers->payload - headers->transport + size;
    unsigned count;

    memcpy(cut->out, cut->head, headers->payload);
    if (headers->ipv4)
        put16(ip + 4, (uint16_t)(get16(ip + 4) + number));
    put_ip_length(cut->out, headers, headers->payload + size);
    put32(tcp + 4, get32(tcp + 4) + (uint32_t)(offset - headers->payload));
    if (number)
        tcp[13] &= (uint8_t)~TCP_CWR;
    if (!last)
        tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    put16(tcp + 16, 0);
    count = slice(cut->packet->iov, cut->packet->iov_count, offset, size, iov, 1);
    if (!count)
        return false;
    put16(tcp + 16, (uint16_t)~net_sum_fold(net_sum_iov(iov, count, headers->transport, tcp_size,
                                                        pseudo_header(cut->out, headers, tcp_size))));
    return emit(&cut->output, iov, count, &done);
}

static int cut_tcp(struct cut *cut)
{
    size_t offset = cut->headers.payload, step = cut->packet->offload.gso_size;

    if (offset == cut->packet->size) /* nothing to cut, only the checksum */
        return emit_tcp(cut, 0, offset, 0, true), 0;
    for (unsigned number = 0; offset < cut->packet->size; number++, offset += step) {
        size_t part = MIN(step, cut->packet->size - offset);

        if (!emit_tcp(cut, number, offset, part, offset + part == cut->packet->size))
            break;
    }
    return 0;
}

/* The UDP checksum is that of the whole datagram; it stands in the first fragment. */
static void finish_udp(struct cut *cut)
{
    const struct net_headers *headers = &cut->headers;
    uint8_t *udp = cut->head + headers->transport;
    size_t size = cut->packet->size - headers->transport;
    uint64_t sum = pseudo_header(cut->head, headers, size);

    put16(udp + 4, (uint16_t)size);
    if (!(cut->packet->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
        return;
    put16(udp + 6, 0);
    sum = net_sum(udp, 8, sum);
    sum = net_sum_iov(cut->packet->iov, cut->packet->iov_count, headers->payload, size - 8, sum);
    sum = (uint16_t)~net_sum_fold(sum);
    put16(udp + 6, sum ? (uint16_t)sum : 0xffff);
}

static bool emit_fragment(struct cut *cut, size_t offset, size_t size, bool last)
{
    static const struct virtio_net_hdr done = { 0 };
    const struct net_headers *headers = &cut->headers;
    unsigned header = headers->transport, payload_at = headers->payload, count = 1;
    uint8_t *ip = cut->out + headers->network;
    struct iovec iov[NET_MAX_PIECES + 2] = { { cut->out, header } };
    uint16_t place = (uint16_t)(offset - headers->transport);

    memcpy(cut->out, cut->head, header);
    if (headers->ipv4) {
        put16(ip + 6, (uint16_t)(place >> 3 | (last ? 0 : 0x2000)));
    } else {
        uint8_t *fragment = cut->out + header;

        fragment[0] = PROTOCOL_UDP;
        fragment[1] = 0;
        put16(fragment + 2, (uint16_t)(place | !last));
        /* Any number that neighbouring datagrams hardly share. */
        put32(fragment + 4, get32(cut->head + headers->transport + 4) ^ get32(cut->head + headers->transport));
        ip[6] = PROTOCOL_FRAGMENT;
        header += 8;
        iov[0].iov_len = header;
    }
    put_ip_length(cut->out, headers, header + size);
    if (offset < payload_at) {
        iov[count++] = (struct iovec){ cut->head + offset, payload_at - offset };
        size -= payload_at - offset;
        offset = payload_at;
    }
    count = slice(cut->packet->iov, cut->packet->iov_count, offset, size, iov, count);
    return count && emit(&cut->output, iov, count, &done);
}

static int cut_udp(struct cut *cut)
{
    size_t step = cut->packet->offload.gso_size & ~7u, offset = cut->headers.transport;

    if (step < 8 || cut->headers.fragment)
        return -EINVAL;
    /* Extension headers would have to go before the fragment header or behind it, by kind: nobody sends such. */
    if (cut->headers.ipv6 && cut->headers.transport != cut->headers.network + 40)
        return -EINVAL;
    finish_udp(cut);
    while (offset < cut->packet->size) {
        size_t part = MIN(step, cut->packet->size - offset);

        if (!emit_fragment(cut, offset, part, offset + part == cut->packet->size))
            break;
        offset += part;
    }
    return 0;
}

static int cut_packet(const struct net_packet *packet, const struct output *output)
{
    struct cut cut = { .packet = packet, .output = *output };
    size_t size = net_iov_read(packet->iov, packet->iov_count, 0, cut.head, NET_HEADERS_MAX);
    const struct net_headers *headers = &cut.headers;
    unsigned type = gso_type(packet);

    if (!net_parse_headers(cut.head, size, packet->size, &cut.headers) || !headers->transport ||
        headers->payload > size)
        return -EINVAL;
    if (type == VIRTIO_NET_HDR_GSO_UDP)
        return headers->protocol == PROTOCOL_UDP ? cut_udp(&cut) : -EINVAL;
    if (headers->protocol != PROTOCOL_TCP || headers->fragment || headers->ipv4 != (type == VIRTIO_NET_HDR_GSO_TCPV4))
        return -EINVAL;
    return cut_tcp(&cut);
}

int net_offload_finish(const struct net_packet *packet, unsigned accepts,
                       bool (*emit_packet)(void *opaque, const struct net_packet *packet), void *opaque)
{
    struct output output = { .emit = emit_packet, .opaque = opaque };
    unsigned missing = net_offload_needs(packet) & ~accepts;

    if (missing & (NET_TSO4 | NET_TSO6 | NET_UFO | NET_ECN))
        return cut_packet(packet, &output);
    if (missing & NET_CSUM)
        return finish_checksum(packet, &output);
    emit_packet(opaque, packet);
    return 0;
}
