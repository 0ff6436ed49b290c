/* Checksums and segmentation beside plain models, and headers that are not what they say. */
#include "tests/net/net_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static uint8_t frame[NET_MAX_PACKET], joined[NET_MAX_PACKET];

Test(offload, sums_as_the_model_does)
{
    uint64_t seed = 1;

    for (unsigned round = 0; round < 3000; round++) {
        size_t size = rig_random64(&seed) % 1600, at = 0;
        struct iovec iov[8];
        unsigned count = 0;

        for (size_t i = 0; i < size; i++)
            frame[i] = (uint8_t)rig_random64(&seed);
        cr_assert_eq(net_sum_fold(net_sum(frame, size, 0)), rig_sum(frame, size, 0), "size %zu", size);
        while (count < 7 && at < size) { /* odd pieces, empty pieces */
            size_t part = rig_random64(&seed) % (size - at + 1);

            iov[count++] = (struct iovec){ frame + at, part };
            at += part;
        }
        iov[count++] = (struct iovec){ frame + at, size - at };
        size_t from = size ? rig_random64(&seed) % size : 0, length = rig_random64(&seed) % (size - from + 1);
        cr_assert_eq(net_sum_fold(net_sum_iov(iov, count, from, length, 0)), rig_sum(frame + from, length, 0));
    }
}

struct result {
    unsigned packets;
    size_t payload, biggest;
    uint32_t next_sequence;
    unsigned headers;
    uint8_t flags_first, flags_middle, flags_last;
    uint16_t id;
};

/* Takes one segment: it must be right, and go on where the last ended. */
static bool take_segment(void *opaque, const struct net_packet *packet)
{
    static uint8_t segment[NET_MAX_PACKET];
    struct result *result = opaque;
    size_t size = net_iov_read(packet->iov, packet->iov_count, 0, segment, packet->size);
    const uint8_t *tcp = segment + result->headers - 20, *ip = segment + result->headers - 40;
    uint32_t sequence = rig_get16(tcp + 4) << 16 | rig_get16(tcp + 6);

    cr_assert_eq(size, packet->size);
    cr_assert(rig_frame_is_right(segment, size), "segment %u", result->packets);
    cr_assert_eq(net_offload_needs(packet), 0u);
    if (result->packets) {
        cr_assert_eq(sequence, result->next_sequence);
    }
    if (ip[0] == 0x45)
        cr_assert_eq(rig_get16(ip + 4), 0x1234u + result->packets);
    if (!result->packets)
        result->flags_first = tcp[13];
    else
        result->flags_middle |= result->flags_last; /* what was last was not the last */
    result->flags_last = tcp[13];
    memcpy(joined + result->payload, segment + result->headers, size - result->headers);
    result->payload += size - result->headers;
    result->next_sequence = sequence + (uint32_t)(size - result->headers);
    result->biggest = MAX(result->biggest, size - result->headers);
    result->packets++;
    return true;
}

static struct net_packet packet_of(struct iovec *iov, size_t size, bool ipv6, bool tcp, bool vlan)
{
    struct net_packet packet = { .iov = iov, .iov_count = 1, .size = size };

    *iov = (struct iovec){ frame, size };
    packet.offload.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    packet.offload.csum_start = (uint16_t)(14 + 4 * vlan + (ipv6 ? 40 : 20));
    packet.offload.csum_offset = tcp ? 16 : 6;
    return packet;
}

Test(offload, tcp_segments)
{
    static const size_t sizes[] = { 1, 1448, 1449, 2896, 4000, 60000 };

    for (unsigned variant = 0; variant < 4 * ARRAY_SIZE(sizes); variant++) {
        bool ipv6 = variant & 1, vlan = variant & 2;
        size_t payload = sizes[variant / 4], size = rig_build_frame(frame, ipv6, true, payload, vlan, false);
        struct iovec iov[3];
        struct net_packet packet = packet_of(iov, size, ipv6, true, vlan);
        struct result result = { .headers = (unsigned)(size - payload) };

        packet.offload.gso_type = ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
        packet.offload.gso_size = 1448;
        /* In three odd pieces, the first cut inside of the headers. */
        iov[0] = (struct iovec){ frame, 31 };
        iov[1] = (struct iovec){ frame + 31, size / 2 - 31 };
        iov[2] = (struct iovec){ frame + size / 2, size - size / 2 };
        packet.iov_count = size / 2 > 31 ? 3 : 1;
        if (packet.iov_count == 1)
            iov[0].iov_len = size;
        cr_assert_eq(net_offload_check(&packet), 0);
        cr_assert_eq(net_offload_finish(&packet, 0, take_segment, &result), 0);
        cr_assert_eq(result.packets, (payload + 1447) / 1448);
        cr_assert_eq(result.payload, payload);
        cr_assert_leq(result.biggest, 1448u);
        cr_assert_eq(memcmp(joined, frame + size - payload, payload), 0);
        if (result.packets > 2) {
            cr_assert_eq(result.flags_first, 0x90, "CWR in the first only: 0x%x", result.flags_first);
            cr_assert_eq(result.flags_last, 0x19, "PSH and FIN in the last only");
            cr_assert_eq(result.flags_middle, 0x10 | (result.packets > 1 ? 0x80 : 0), "0x%x", result.flags_middle);
        }
    }
}

static bool keep(void *opaque, const struct net_packet *packet)
{
    struct rig_packet *kept = opaque;

    kept->offload = packet->offload;
    kept->size = net_iov_read(packet->iov, packet->iov_count, 0, kept->data, sizeof(kept->data));
    return true;
}

Test(offload, checksum_only)
{
    static struct rig_packet kept;

    for (unsigned variant = 0; variant < 64; variant++) {
        bool ipv6 = variant & 1, tcp = variant & 2, vlan = variant & 4;
        size_t size = rig_build_frame(frame, ipv6, tcp, variant * 23, vlan, false);
        struct iovec iov;
        struct net_packet packet = packet_of(&iov, size, ipv6, tcp, vlan);

        cr_assert_not(rig_frame_is_right(frame, size), "the test can fail");
        cr_assert_eq(net_offload_finish(&packet, 0, keep, &kept), 0);
        cr_assert_eq(kept.size, size);
        cr_assert(rig_frame_is_right(kept.data, kept.size));
        cr_assert_eq(kept.offload.flags, VIRTIO_NET_HDR_F_DATA_VALID);
        /* Who takes it as it is gets it as it is. */
        cr_assert_eq(net_offload_finish(&packet, NET_CSUM, keep, &kept), 0);
        cr_assert_eq(memcmp(kept.data, frame, size), 0);
        cr_assert_eq(kept.offload.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    }
}

/* Large, but with its checksum: what the user network takes. */
Test(offload, large_with_checksum)
{
    static struct rig_packet kept;
    size_t size = rig_build_frame(frame, false, true, 40000, false, false);
    struct iovec iov;
    struct net_packet packet = packet_of(&iov, size, false, true, false);

    packet.offload.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
    packet.offload.gso_size = 1460;
    cr_assert_eq(net_offload_finish(&packet, NET_TSO4, keep, &kept), 0);
    cr_assert_eq(kept.size, size);
    cr_assert(rig_frame_is_right(kept.data, kept.size));
}

struct fragments {
    unsigned packets, header;
    size_t payload;
    bool more, ipv6;
};

static bool take_fragment(void *opaque, const struct net_packet *packet)
{
    static uint8_t data[NET_MAX_PACKET];
    struct fragments *result = opaque;
    size_t size = net_iov_read(packet->iov, packet->iov_count, 0, data, packet->size);
    const uint8_t *ip = data + 14;
    unsigned place = result->ipv6 ? rig_get16(ip + 42) & 0xfff8 : (rig_get16(ip + 6) & 0x1fff) * 8;

    result->more = result->ipv6 ? rig_get16(ip + 42) & 1 : rig_get16(ip + 6) & 0x2000;
    cr_assert_eq(place, result->payload);
    cr_assert_eq(size - 14, result->ipv6 ? rig_get16(ip + 4) + 40 : rig_get16(ip + 2));
    if (!result->ipv6)
        cr_assert_eq(rig_sum(ip, 20, 0), 0xffff);
    memcpy(joined + result->payload, data + result->header, size - result->header);
    result->payload += size - result->header;
    result->packets++;
    return true;
}

Test(offload, udp_fragments)
{
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        size_t size = rig_build_frame(frame, ipv6, false, 20000, false, false), l4 = 14 + (ipv6 ? 40 : 20);
        struct iovec iov;
        struct net_packet packet = packet_of(&iov, size, ipv6, false, false);
        struct fragments result = { .header = (unsigned)l4 + (ipv6 ? 8 : 0), .ipv6 = ipv6 };

        packet.offload.gso_type = VIRTIO_NET_HDR_GSO_UDP;
        packet.offload.gso_size = 1477; /* not a multiple of eight */
        cr_assert_eq(net_offload_finish(&packet, 0, take_fragment, &result), 0);
        cr_assert_eq(result.packets, (20008u + 1471) / 1472);
        cr_assert_eq(result.payload, 20008u);
        cr_assert_not(result.more);
        /* Put together again it is the datagram, with its checksum. */
        memcpy(frame + l4, joined, 8);
        cr_assert_eq(memcmp(frame + l4, joined, result.payload), 0);
        cr_assert(rig_frame_is_right(frame, size));
    }
}

Test(offload, malformed_headers_are_refused)
{
    size_t size = rig_build_frame(frame, false, true, 3000, false, false);
    struct iovec iov;
    const struct net_packet good = packet_of(&iov, size, false, true, false);
    struct net_packet packet = good;

    packet.offload.csum_start = 65535;
    cr_assert_neq(net_offload_check(&packet), 0);
    packet = good, packet.offload.csum_offset = 65535;
    cr_assert_neq(net_offload_check(&packet), 0);
    packet = good, packet.offload.csum_start = 0;
    cr_assert_neq(net_offload_check(&packet), 0);
    packet = good, packet.offload.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
    cr_assert_neq(net_offload_check(&packet), 0, "gso_size 0");
    packet.offload.gso_size = 1;
    cr_assert_neq(net_offload_check(&packet), 0, "thousands of segments");
    packet.offload.gso_size = 1460;
    cr_assert_eq(net_offload_check(&packet), 0);
    packet.offload.flags = 0;
    cr_assert_neq(net_offload_check(&packet), 0, "without a checksum");
    packet = good, packet.offload.gso_type = 2, packet.offload.gso_size = 1460;
    cr_assert_neq(net_offload_check(&packet), 0, "no such type");
    packet.offload.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
    cr_assert_eq(net_offload_check(&packet), 0);
    cr_assert_neq(net_offload_finish(&packet, 0, keep, joined), 0, "it is IPv4");
}

static bool ignore(void *opaque, const struct net_packet *packet)
{
    ++*(unsigned *)opaque;
    cr_assert_leq(packet->size, (size_t)NET_MAX_PACKET + 100);
    return true;
}

/* Frames with bytes and header fields at random: never outside of the packet (the sanitizers watch), never many packets. */
Test(offload, random_frames)
{
    uint64_t seed = 7;

    for (unsigned round = 0; round < 20000; round++) {
        size_t size = rig_build_frame(frame, round & 1, round & 2, rig_random64(&seed) % 3000, round & 4, round & 8);
        unsigned changes = rig_random64(&seed) % 6, packets = 0;
        struct net_headers headers;

        for (unsigned i = 0; i < changes; i++)
            frame[rig_random64(&seed) % MIN(size, 80)] = (uint8_t)rig_random64(&seed);
        size = rig_random64(&seed) % 4 ? size : rig_random64(&seed) % (size + 1);
        uint8_t *copy = malloc(size + 1); /* exactly so large, for asan */
        memcpy(copy, frame, size);
        struct iovec iov = { copy, size };
        struct net_packet packet = { .iov = &iov, .iov_count = 1, .size = size };
        packet.offload = (struct virtio_net_hdr){ .flags = (uint8_t)(rig_random64(&seed) & 1),
                                                  .gso_type = (uint8_t)(rig_random64(&seed) % 6),
                                                  .gso_size = (uint16_t)rig_random64(&seed),
                                                  .csum_start = (uint16_t)(rig_random64(&seed) % 100),
                                                  .csum_offset = (uint16_t)(rig_random64(&seed) % 40) };
        if (!net_offload_check(&packet))
            net_offload_finish(&packet, 0, ignore, &packets);
        cr_assert_leq(packets, 2100u);
        if (net_parse_headers(copy, size, size, &headers))
            net_verify_checksums(&packet, &headers);
        free(copy);
    }
}

Test(offload, verification)
{
    for (unsigned variant = 0; variant < 8; variant++) {
        size_t size = rig_build_frame(frame, variant & 1, variant & 2, 100, variant & 4, true);
        struct iovec iov = { frame, size };
        struct net_packet packet = { .iov = &iov, .iov_count = 1, .size = size };
        struct net_headers headers;

        cr_assert(net_parse_headers(frame, size, size, &headers));
        cr_assert_eq(net_verify_checksums(&packet, &headers), (variant & 1 ? 0u : NET_CHECKED_IP) | NET_CHECKED_L4);
        frame[size - 1] ^= 1;
        cr_assert(net_verify_checksums(&packet, &headers) & NET_BAD_L4);
        frame[size - 1] ^= 1;
        if (!(variant & 1)) {
            frame[headers.network + 8] ^= 1; /* time to live */
            cr_assert(net_verify_checksums(&packet, &headers) & NET_BAD_IP);
        }
    }
}
