/* virtio-net driven as a driver does, over the modern PCI interface and split rings: negotiation, both directions with their
 * offloads, mergeable buffers, the control queue, several queue pairs, state, and rings full of nonsense. */
#include "devices/virtio/virtio_net_internal.h"
#include "tests/net/net_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { BAR = 0x80000000, DEVICE = 0x2000, NOTIFY = 0x3000 };
enum { RINGS = 0x10000, RING_SPACE = 0x4000, BUFFERS = 0x100000, QUEUE = 64 };
enum { DESC_NEXT = 1, DESC_WRITE = 2 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

static struct net_rig rig;
static struct virtio_net *net;
static uint8_t *ram;
static uint8_t frame[NET_MAX_PACKET];
static uint16_t next_descriptor[64], available[64];

static uint64_t get(unsigned offset, unsigned size)
{
    return physmem_mmio_read(rig.env.mem, BAR + offset, size);
}

static void set(unsigned offset, unsigned size, uint64_t value)
{
    physmem_mmio_write(rig.env.mem, BAR + offset, size, value);
}

static void setup_with(const char *options)
{
    net_rig_init(&rig);
    memset(&rig.end, 0, sizeof(rig.end));
    memset(next_descriptor, 0, sizeof(next_descriptor)), memset(available, 0, sizeof(available));
    rig_end_add(&rig.end, rig.env.nets, "n");
    net = (struct virtio_net *)net_rig_device(&rig, "virtio-net-pci", options);
    ram = physmem_ram_base(rig.env.mem);
    pci_device_config_write(&net->pci.pci, PCI_BAR0 + 16, 4, BAR);
    pci_device_config_write(&net->pci.pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void setup(void)
{
    setup_with("netdev=n");
}

static void teardown(void)
{
    device_destroy(&net->pci.pci.device);
    net_rig_destroy(&rig);
}

TestSuite(virtio_net, .init = setup, .fini = teardown);

/* ---- A small driver ---- */

static struct descriptor *descriptors(unsigned queue)
{
    return (struct descriptor *)(ram + RINGS + queue * RING_SPACE);
}
static uint16_t *avail_ring(unsigned queue)
{
    return (uint16_t *)(ram + RINGS + queue * RING_SPACE + 0x1000);
}
static uint16_t *used_ring(unsigned queue)
{
    return (uint16_t *)(ram + RINGS + queue * RING_SPACE + 0x2000);
}
static unsigned used_count(unsigned queue)
{
    return used_ring(queue)[1];
}
static uint32_t used_length(unsigned queue, unsigned number)
{
    uint32_t entry[2];

    memcpy(entry, (uint8_t *)used_ring(queue) + 4 + 8 * (number % QUEUE), 8);
    return entry[1];
}

static void notify(unsigned queue)
{
    set(NOTIFY + 4 * queue, 2, queue);
    net_rig_run(&rig);
}

/* A chain of `count` buffers; flags of each but NEXT. */
static void add(unsigned queue, const struct descriptor *buffers, unsigned count)
{
    uint16_t first = next_descriptor[queue];

    for (unsigned i = 0; i < count; i++) {
        uint16_t at = next_descriptor[queue]++ % QUEUE;

        descriptors(queue)[at] = buffers[i];
        if (i + 1 < count) {
            descriptors(queue)[at].flags |= DESC_NEXT;
            descriptors(queue)[at].next = (uint16_t)((at + 1) % QUEUE);
        }
    }
    avail_ring(queue)[2 + available[queue] % QUEUE] = first % QUEUE;
    avail_ring(queue)[1] = ++available[queue];
}

static void enable_queue(unsigned queue)
{
    uint64_t base = RINGS + queue * RING_SPACE;

    set(0x16, 2, queue);
    set(0x18, 2, QUEUE);
    set(0x20, 4, base), set(0x24, 4, 0), set(0x28, 4, base + 0x1000), set(0x2c, 4, 0), set(0x30, 4, base + 0x2000);
    set(0x34, 4, 0);
    set(0x1c, 2, 1);
}

static bool start(uint64_t features, unsigned queues)
{
    features |= BIT(VIRTIO_F_VERSION_1);
    set(0x14, 1, 0), set(0x14, 1, 1), set(0x14, 1, 3);
    set(8, 4, 0), set(12, 4, (uint32_t)features), set(8, 4, 1), set(12, 4, features >> 32);
    set(0x14, 1, 11);
    if (!(get(0x14, 1) & VIRTIO_STATUS_FEATURES_OK))
        return false;
    for (unsigned i = 0; i < queues; i++)
        enable_queue(i);
    set(0x14, 1, 15);
    net_rig_run(&rig);
    return true;
}

static struct virtio_net_hdr_mrg_rxbuf *buffer_header(unsigned number)
{
    return (struct virtio_net_hdr_mrg_rxbuf *)(ram + BUFFERS + number * 2048);
}

static void add_receive_buffers(unsigned queue, unsigned count, unsigned size)
{
    for (unsigned i = 0; i < count; i++)
        add(queue, &(struct descriptor){ BUFFERS + 2048 * i, size, DESC_WRITE, 0 }, 1);
    notify(queue);
}

static void transmit(const struct virtio_net_hdr *header, const uint8_t *data, size_t size)
{
    struct virtio_net_hdr_mrg_rxbuf full = { .hdr = *header };

    memcpy(ram + BUFFERS + 0x80000, &full, sizeof(full));
    memcpy(ram + BUFFERS + 0x80100, data, size);
    add(1,
        (struct descriptor[2]){ { BUFFERS + 0x80000, sizeof(full), 0, 0 },
                                { BUFFERS + 0x80100, (uint32_t)size, 0, 0 } },
        2);
    notify(1);
}

static uint8_t control(unsigned queue, uint8_t class, uint8_t command, const void *data, uint32_t size)
{
    uint8_t *at = ram + BUFFERS + 0xc0000;

    at[0] = class, at[1] = command, at[0x1000] = 0x77;
    memcpy(at + 2, data, size);
    add(queue,
        (struct descriptor[3]){ { BUFFERS + 0xc0000, 2, 0, 0 },
                                { BUFFERS + 0xc0002, size, 0, 0 },
                                { BUFFERS + 0xc1000, 1, DESC_WRITE, 0 } },
        3);
    notify(queue);
    return at[0x1000];
}

#define CONTROLS                                                                                                       \
    (BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_VLAN) |                             \
     BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA))

/* ---- Negotiation ---- */

Test(virtio_net, identity)
{
    uint8_t mac[6];

    cr_assert_eq(pci_device_config_read(&net->pci.pci, 0, 4), 0x10001af4u);
    cr_assert_eq(get(0x12, 2), 3u);
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)get(DEVICE + i, 1);
    cr_assert_eq(memcmp(mac, "\x52\x54\x00\x12\x34\x56", 6), 0);
    cr_assert_eq(get(DEVICE + 6, 2), 1u, "link");
    cr_assert_not(start(BIT(VIRTIO_NET_F_HOST_TSO4), 2), "segmentation needs checksums");
    cr_assert_not(start(BIT(VIRTIO_NET_F_GUEST_TSO6), 2));
    cr_assert_not(start(BIT(VIRTIO_NET_F_CTRL_RX), 2));
    cr_assert(start(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4), 2));
}

Test(virtio_net, link)
{
    cr_assert(start(BIT(VIRTIO_NET_F_STATUS), 2));
    net_client_set_link(&rig.end.client, false);
    cr_assert_eq(get(DEVICE + 6, 2), 0u);
    cr_assert(rig.pirq[0]);
    cr_assert_eq(get(0x1000, 1), 2u, "configuration interrupt");
    net_client_set_link(&rig.end.client, true);
    cr_assert_eq(get(DEVICE + 6, 2), 1u);
}

/* ---- Transmission ---- */

Test(virtio_net, transmit)
{
    struct virtio_net_hdr header = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM };
    size_t size = rig_build_frame(frame, false, true, 700, false, false);

    cr_assert(start(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4), 2));
    header.csum_start = 34, header.csum_offset = 16;
    transmit(&header, frame, size);
    cr_assert_eq(rig.end.received, 1u);
    cr_assert(rig_frame_is_right(rig_end_last(&rig.end)->data, size));
    cr_assert_eq(used_count(1), 1u);
    cr_assert_eq(used_length(1, 0), 0u);
    cr_assert(rig.pirq[0]);
    size = rig_build_frame(frame, false, true, 20000, false, false);
    header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, header.gso_size = 1400;
    transmit(&header, frame, size);
    cr_assert_eq(rig.end.received, 1u + 15);
    for (unsigned i = 1; i < 16; i++)
        cr_assert(rig_frame_is_right(rig.end.packets[i].data, rig.end.packets[i].size));
    /* Malformed: gone, but the buffer comes back. */
    header.csum_start = 60000;
    transmit(&header, frame, 100);
    header.csum_start = 34, header.gso_size = 0;
    transmit(&header, frame, 100);
    cr_assert_eq(rig.end.received, 16u);
    cr_assert_eq(used_count(1), 4u);
    cr_assert_not(get(0x14, 1) & VIRTIO_STATUS_NEEDS_RESET);
}

Test(virtio_net, transmit_in_many_pieces)
{
    struct descriptor pieces[QUEUE];

    cr_assert(start(0, 2));
    memset(ram + BUFFERS, 0, 12);
    for (unsigned i = 0; i < 4000; i++)
        ram[BUFFERS + 12 + i] = (uint8_t)(i * 5);
    /* The header cut in two, and every piece apart from the next, so that they are not joined. */
    for (unsigned i = 0; i < QUEUE; i++) {
        pieces[i] = (struct descriptor){ BUFFERS + 0x10000 + i * 100, i ? 20 : 5, 0, 0 };
        memcpy(ram + pieces[i].address, ram + BUFFERS + (i ? 5 + (i - 1) * 20 : 0), pieces[i].length);
    }
    add(1, pieces, QUEUE);
    notify(1);
    cr_assert_eq(rig.end.received, 1u);
    struct rig_packet *sent = rig_end_last(&rig.end);
    cr_assert_eq(sent->size, 5u + 63 * 20 - 12);
    cr_assert_eq(memcmp(sent->data, ram + BUFFERS + 12, sent->size), 0);
}

Test(virtio_net, transmit_waits)
{
    struct virtio_net_hdr header = { 0 };

    cr_assert(start(0, 2));
    rig.end.full = true;
    for (unsigned i = 0; i < 5; i++)
        transmit(&header, frame, 60);
    cr_assert_eq(used_count(1), 0u);
    rig.end.full = false;
    net_client_resume(&rig.end.client);
    net_rig_run(&rig);
    cr_assert_eq(rig.end.received, 5u);
    cr_assert_eq(used_count(1), 5u);
}

Test(virtio_net, broken_chains)
{
    static const struct descriptor bad[] = { { BUFFERS, 11, 0, 0 },
                                             { BUFFERS, 100, DESC_WRITE, 0 },
                                             { 0x90000000, 100, 0, 0 } };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        memset(ram + RINGS, 0, 2 * RING_SPACE);
        memset(next_descriptor, 0, sizeof(next_descriptor)), memset(available, 0, sizeof(available));
        cr_assert(start(0, 2));
        add(1, &bad[i], 1);
        notify(1);
        cr_assert(get(0x14, 1) & VIRTIO_STATUS_NEEDS_RESET, "%zu", i);
        net_send_buffer(&rig.end.client, frame, 60);
        cr_assert_eq(rig.end.received, 0u);
    }
}

/* ---- Reception ---- */

Test(virtio_net, receive)
{
    cr_assert(start(0, 2));
    for (unsigned i = 0; i < 3; i++)
        net_send_buffer(&rig.end.client, frame, 60 + i);
    cr_assert_eq(used_count(0), 0u);
    add_receive_buffers(0, 2, 2048);
    cr_assert_eq(used_count(0), 2u, "those that waited");
    cr_assert_eq(used_length(0, 1), 61u + 12);
    cr_assert_eq(buffer_header(0)->num_buffers, 1);
    add(0, &(struct descriptor){ BUFFERS, 100, DESC_WRITE, 0 }, 1);
    notify(0);
    cr_assert_eq(used_count(0), 3u);
    add(0, &(struct descriptor){ BUFFERS, 100, DESC_WRITE, 0 }, 1);
    notify(0);
    net_send_buffer(&rig.end.client, frame, 1514);
    cr_assert_eq(used_count(0), 3u, "too large: dropped, and the buffer kept");
    net_send_buffer(&rig.end.client, frame, 88);
    cr_assert_eq(used_count(0), 4u);
}

Test(virtio_net, mergeable_buffers)
{
    for (unsigned i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + (i >> 8));
    cr_assert(start(BIT(VIRTIO_NET_F_MRG_RXBUF), 2));
    add_receive_buffers(0, 3, 500);
    net_send_buffer(&rig.end.client, frame, 1514); /* needs four */
    cr_assert_eq(used_count(0), 0u);
    add(0, &(struct descriptor){ BUFFERS + 3 * 2048, 500, DESC_WRITE, 0 }, 1);
    notify(0);
    cr_assert_eq(used_count(0), 4u);
    cr_assert_eq(buffer_header(0)->num_buffers, 4);
    cr_assert_eq(used_length(0, 0), 500u);
    cr_assert_eq(used_length(0, 3), 1514u + 12 - 1500);
    cr_assert_eq(memcmp(ram + BUFFERS + 12, frame, 488), 0);
    cr_assert_eq(memcmp(ram + BUFFERS + 3 * 2048, frame + 488 + 1000, 26), 0);
}

Test(virtio_net, guest_offloads)
{
    size_t size = rig_build_frame(frame, false, true, 4000, false, false);
    struct iovec iov = { frame, size };
    struct net_packet packet = { .iov = &iov, .iov_count = 1, .size = size };

    packet.offload = (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                              .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                              .gso_size = 1448,
                                              .csum_start = 34,
                                              .csum_offset = 16 };
    cr_assert(start(BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
                        BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS),
                    3));
    add_receive_buffers(0, 20, 2048);
    net_send(&rig.end.client, &packet);
    cr_assert_eq(used_count(0), 2u, "whole, in two buffers");
    cr_assert_eq(buffer_header(0)->hdr.gso_size, 1448);
    cr_assert_eq(buffer_header(0)->hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    uint64_t offloads = BIT(VIRTIO_NET_F_GUEST_CSUM);
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &offloads, 8), VIRTIO_NET_OK);
    net_send(&rig.end.client, &packet);
    cr_assert_eq(used_count(0), 2u + 3, "cut");
    cr_assert_eq(buffer_header(2)->hdr.gso_type, 0);
    cr_assert(rig_frame_is_right(ram + BUFFERS + 2 * 2048 + 12, 1514));
    offloads = BIT(VIRTIO_NET_F_GUEST_TSO6);
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &offloads, 8), VIRTIO_NET_ERR, "not negotiated");
}

/* ---- The control queue ---- */

static bool arrives(const char *address)
{
    unsigned before = used_count(0);

    memcpy(frame, address, 6);
    rig_put16(frame + 12, 0x800);
    net_send_buffer(&rig.end.client, frame, 60);
    return used_count(0) != before;
}

Test(virtio_net, filters)
{
    uint8_t on = 1, off = 0, table[4 + 6 + 4 + 6] = { 1, 0, 0, 0, 2, 0, 0, 0, 0, 9, 1, 0, 0, 0, 1, 0, 0, 0, 0, 9 };
    uint16_t vlan = 5;

    cr_assert(start(CONTROLS, 3));
    add_receive_buffers(0, 60, 2048);
    cr_assert(arrives("\2\0\0\0\0\1"), "everything, until told otherwise");
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_RX, 0, &off, 1), VIRTIO_NET_OK);
    cr_assert_not(arrives("\2\0\0\0\0\1"));
    cr_assert(arrives("\x52\x54\x00\x12\x34\x56"));
    cr_assert(arrives("\xff\xff\xff\xff\xff\xff"));
    cr_assert_not(arrives("\1\0\0\0\0\x9"));
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_MAC, 0, table, sizeof(table)), VIRTIO_NET_OK);
    cr_assert(arrives("\1\0\0\0\0\x9"));
    cr_assert(arrives("\2\0\0\0\0\x9"));
    cr_assert_not(arrives("\2\0\0\0\0\x8"));
    control(2, VIRTIO_NET_CTRL_RX, 1, &on, 1);
    cr_assert(arrives("\1\0\0\0\0\1"));
    control(2, VIRTIO_NET_CTRL_RX, 5, &on, 1);
    cr_assert_not(arrives("\xff\xff\xff\xff\xff\xff"));
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_MAC, 1, "\2\1\1\1\1\1", 6), VIRTIO_NET_OK);
    cr_assert(arrives("\2\1\1\1\1\1"));
    cr_assert_eq(get(DEVICE + 1, 1), 1u);
    /* Tags. */
    control(2, VIRTIO_NET_CTRL_RX, 0, &on, 1);
    unsigned before = used_count(0);
    rig_build_frame(frame, false, true, 50, true, true);
    net_send_buffer(&rig.end.client, frame, 100);
    cr_assert_eq(used_count(0), before);
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_VLAN, 0, &vlan, 2), VIRTIO_NET_OK);
    net_send_buffer(&rig.end.client, frame, 100);
    cr_assert_eq(used_count(0), before + 1);
}

Test(virtio_net, malformed_commands)
{
    uint32_t huge[2] = { 0xffffffff, 0 };
    uint16_t vlan = 5000, pairs = 2;

    cr_assert(start(CONTROLS, 3));
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_RX, 9, "\1", 1), VIRTIO_NET_ERR);
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_MAC, 0, huge, 8), VIRTIO_NET_ERR);
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_MAC, 0, huge, 3), VIRTIO_NET_ERR);
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_MAC, 1, huge, 5), VIRTIO_NET_ERR);
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_VLAN, 0, &vlan, 2), VIRTIO_NET_ERR);
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), VIRTIO_NET_ERR);
    cr_assert_eq(control(2, 99, 0, huge, 8), VIRTIO_NET_ERR);
    cr_assert_not(get(0x14, 1) & VIRTIO_STATUS_NEEDS_RESET);
    add(2, &(struct descriptor){ BUFFERS, 8, 0, 0 }, 1); /* nowhere to answer */
    notify(2);
    cr_assert(get(0x14, 1) & VIRTIO_STATUS_NEEDS_RESET);
}

Test(virtio_net, many_addresses)
{
    static uint8_t table[8 + 100 * 6];
    uint8_t off = 0;

    cr_assert(start(CONTROLS, 3));
    add_receive_buffers(0, 20, 2048);
    control(2, VIRTIO_NET_CTRL_RX, 0, &off, 1);
    table[0] = 100;
    cr_assert_eq(control(2, VIRTIO_NET_CTRL_MAC, 0, table, sizeof(table)), VIRTIO_NET_OK);
    cr_assert(arrives("\2\0\0\0\0\1"), "more than fit: all unicast passes");
    cr_assert_not(arrives("\1\0\0\0\0\1"));
}

Test(virtio_net, queue_pairs)
{
    uint16_t pairs = 2;
    unsigned used = 0;

    teardown();
    setup_with("netdev=n,mq=on,vectors=6");
    cr_assert_eq(get(0x12, 2), 5u);
    cr_assert_eq(get(DEVICE + 8, 2), 2u);
    cr_assert(start(CONTROLS | BIT(VIRTIO_NET_F_MQ), 5));
    add_receive_buffers(0, 60, 2048), add_receive_buffers(2, 60, 2048);
    for (unsigned i = 0; i < 40; i++) {
        rig_build_frame(frame, false, true, 100, false, true);
        rig_put16(frame + 34, i * 77);
        net_send_buffer(&rig.end.client, frame, 154);
    }
    cr_assert_eq(used_count(0), 40u, "one pair until told otherwise");
    cr_assert_eq(control(4, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), VIRTIO_NET_OK);
    uint8_t on = 1;
    cr_assert_eq(control(4, VIRTIO_NET_CTRL_RX, 0, &on, 1), VIRTIO_NET_OK);
    for (unsigned i = 0; i < 40; i++) {
        rig_put16(frame + 34, i * 77);
        if (used_count(0) < 58)
            net_send_buffer(&rig.end.client, frame, 154);
    }
    used = used_count(2);
    cr_assert_gt(used, 5u);
    for (unsigned i = 0; i < 5; i++) /* one connection, one queue */
        net_send_buffer(&rig.end.client, frame, 154);
    cr_assert(used_count(2) == used || used_count(2) == used + 5);
}

/* ---- Nonsense ---- */

Test(virtio_net, random_rings)
{
    for (uint64_t seed_start = 1; seed_start <= 20; seed_start++) {
        uint64_t seed = seed_start;

        for (unsigned round = 0; round < 30; round++) {
            memset(next_descriptor, 0, sizeof(next_descriptor)), memset(available, 0, sizeof(available));
            for (unsigned i = 0; i < 3 * RING_SPACE; i += 8) {
                uint64_t value = rig_random64(&seed);

                memcpy(ram + RINGS + i, &value, 8);
            }
            for (unsigned queue = 0; queue < 3; queue++) { /* most of it believable */
                for (unsigned i = 0; i < QUEUE; i++) {
                    struct descriptor *d = &descriptors(queue)[i];

                    d->address &= rig_random64(&seed) % 40 ? 0x1fffff : ~0ull;
                    d->length &= rig_random64(&seed) % 10 ? 0x7ff : 0xfffff;
                    d->flags &= queue == 1 ? 1 : 3;
                    d->next %= rig_random64(&seed) % 20 ? QUEUE : 0xffff;
                }
                memset(avail_ring(queue), 0, 4);
                avail_ring(queue)[1] = (uint16_t)(rig_random64(&seed) % (round % 8 ? QUEUE : 0xffff));
                for (unsigned i = 0; i < QUEUE; i++)
                    avail_ring(queue)[2 + i] %= QUEUE;
                memset(used_ring(queue), 0, 4);
            }
            start(rig_random64(&seed) & net->pci.vdev.host_features & 0xffffff & ~(BIT(28) | BIT(29)), 3);
            for (unsigned i = 0; i < 20; i++) {
                notify((unsigned)rig_random64(&seed) % 3);
                size_t size = rig_build_frame(frame, i & 1, i & 2, rig_random64(&seed) % 3000, i & 4, true);
                net_send_buffer(&rig.end.client, frame, size);
                for (unsigned queue = 0; queue < 3; queue++)
                    avail_ring(queue)[1] = (uint16_t)(avail_ring(queue)[1] + rig_random64(&seed) % 4);
            }
        }
    }
    cr_assert_leq(net->nic.client.queue_count, (unsigned)NET_QUEUE_PACKETS);
}

/* ---- State ---- */

Test(virtio_net, state)
{
    const struct state_table *table = net->pci.pci.device.type->state;
    struct state_buffer first = { 0 }, second = { 0 };
    struct error err = { "" };
    uint64_t seed = 5;
    uint8_t off = 0;

    cr_assert(start(CONTROLS | BIT(VIRTIO_NET_F_MRG_RXBUF), 3));
    control(2, VIRTIO_NET_CTRL_RX, 0, &off, 1);
    control(2, VIRTIO_NET_CTRL_MAC, 1, "\2\1\1\1\1\1", 6);
    add_receive_buffers(0, 5, 2048);
    net_send_buffer(&rig.end.client, frame, 60);
    cr_assert_eq(state_save(&first, table, net, &err), 0, "%s", err.text);
    device_reset(&net->pci.pci.device);
    cr_assert(net->promiscuous);
    cr_assert_eq(state_load(&first, table, net, &err), 0, "%s", err.text);
    cr_assert_eq(state_save(&second, table, net, &err), 0, "%s", err.text);
    cr_assert_eq(first.size, second.size);
    for (size_t i = 0; i < first.size; i++)
        cr_assert_eq(first.data[i], second.data[i], "byte %zu", i);
    net_rig_run(&rig);
    cr_assert(arrives("\2\1\1\1\1\1"), "it goes on");
    for (unsigned round = 0; round < 300; round++) {
        for (const struct state_field *field = table->fields; field->name; field++) {
            uint8_t *bytes = (uint8_t *)net + field->offset;

            for (size_t i = 0; i < field->size * field->count; i++)
                bytes[i] = (uint8_t)rig_random64(&seed);
        }
        if (table->post_load(net, &err) < 0)
            device_reset(&net->pci.pci.device);
        net_send_buffer(&rig.end.client, frame, 200);
        net_rig_run(&rig);
    }
    state_buffer_free(&first);
    state_buffer_free(&second);
}
