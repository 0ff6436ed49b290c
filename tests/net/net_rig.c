/* See net_rig.h. */
#include "tests/net/net_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void on_pirq(void *opaque, unsigned n, bool level)
{
    ((struct net_rig *)opaque)->pirq[n] = level;
}

static unsigned map_pirq(void *opaque, uint8_t devfn, unsigned pin)
{
    (void)opaque, (void)devfn;
    return pin;
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct net_rig *rig = opaque;

    (void)address;
    rig->message_data[rig->messages++ % 256] = data;
}

static const struct pci_bus_ops bus_ops = { .pirq_set = on_pirq, .pirq_map = map_pirq, .msi = on_msi };

void net_rig_init(struct net_rig *rig)
{
    struct error err = { "" };

    memset(rig, 0, sizeof(*rig));
    clock_init(&rig->clock);
    rig->env.loop = event_loop_create(&rig->clock, &err);
    rig->env.clock = &rig->clock;
    rig->env.ports = port_space_create(event_loop_mutex(rig->env.loop));
    rig->env.mem = physmem_create(RIG_RAM, event_loop_mutex(rig->env.loop), &err);
    cr_assert_not_null(rig->env.mem);
    cr_assert_not_null(physmem_add_ram(rig->env.mem, 0, RIG_RAM, 0, "ram", &err));
    rig->env.pci_bus = pci_bus_create(&rig->env, &bus_ops, rig);
    rig->env.nets = net_registry_create(rig->env.loop, &err);
    cr_assert_not_null(rig->env.nets);
}

void net_rig_destroy(struct net_rig *rig)
{
    net_registry_destroy(rig->env.nets);
    pci_bus_destroy(rig->env.pci_bus);
    physmem_destroy(rig->env.mem);
    port_space_destroy(rig->env.ports);
}

void net_rig_run(struct net_rig *rig)
{
    (void)rig;
    for (unsigned i = 0; i < 10000 && fake_loop_poll(0); i++)
        ;
}

static bool end_can_receive(struct net_client *client)
{
    return !container_of(client, struct rig_end, client)->full;
}

static bool end_receive(struct net_client *client, const struct net_packet *packet)
{
    struct rig_end *end = container_of(client, struct rig_end, client);
    struct rig_packet *kept = &end->packets[end->received % ARRAY_SIZE(end->packets)];

    if (end->full)
        return false;
    end->received++;
    cr_assert_leq(packet->size, sizeof(kept->data));
    kept->offload = packet->offload;
    kept->size = net_iov_read(packet->iov, packet->iov_count, 0, kept->data, packet->size);
    cr_assert_eq(kept->size, packet->size);
    return true;
}

static void end_peer_ready(struct net_client *client)
{
    container_of(client, struct rig_end, client)->ready++;
}

static void end_destroy(struct net_client *client)
{
    (void)client;
}

static const struct net_client_ops end_ops = {
    .kind = "test",
    .can_receive = end_can_receive,
    .receive = end_receive,
    .peer_ready = end_peer_ready,
    .destroy = end_destroy,
};

void rig_end_add(struct rig_end *end, struct net_registry *registry, const char *id)
{
    struct error err = { "" };

    cr_assert_eq(net_client_add(registry, &end->client, &end_ops, id, &err), 0, "%s", err.text);
}

struct rig_packet *rig_end_last(struct rig_end *end)
{
    cr_assert_gt(end->received, 0u);
    return &end->packets[(end->received - 1) % ARRAY_SIZE(end->packets)];
}

struct device *net_rig_device(struct net_rig *rig, const char *type, const char *text)
{
    struct option_list options;
    struct error err = { "" };

    cr_assert_eq(options_parse(&options, text, NULL, &err), 0);
    struct device *device = device_create(&rig->env, device_type_find(type), type, &options, &err);
    cr_assert_not_null(device, "%s: %s", type, err.text);
    cr_assert_eq(options_check_all_used(&options, type, &err), 0, "%s", err.text);
    options_free(&options);
    return device;
}

uint64_t rig_random64(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* ---- Frames ---- */

uint16_t rig_sum(const uint8_t *data, size_t size, uint32_t sum)
{
    for (size_t i = 0; i < size; i++) {
        sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

static uint16_t pseudo_sum(const uint8_t *ip, bool ipv6, unsigned protocol, size_t size)
{
    uint8_t tail[4];

    rig_put16(tail, (unsigned)size);
    rig_put16(tail + 2, protocol);
    return rig_sum(tail, 4, ipv6 ? rig_sum(ip + 8, 32, 0) : rig_sum(ip + 12, 8, 0));
}

size_t rig_build_frame(uint8_t *frame, bool ipv6, bool tcp, size_t payload, bool vlan, bool whole)
{
    static const uint8_t addresses[12] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x52, 0x55, 10, 0, 2, 2 };
    unsigned at = 12, ip_size = ipv6 ? 40 : 20, l4_size = tcp ? 20 : 8;
    size_t l4_total = l4_size + payload;

    memcpy(frame, addresses, sizeof(addresses));
    if (vlan) {
        rig_put16(frame + at, 0x8100);
        rig_put16(frame + at + 2, 5);
        at += 4;
    }
    rig_put16(frame + at, ipv6 ? 0x86dd : 0x0800);
    uint8_t *ip = frame + at + 2, *l4 = ip + ip_size;
    memset(ip, 0, ip_size + l4_size);
    if (ipv6) {
        ip[0] = 0x60;
        rig_put16(ip + 4, (unsigned)l4_total);
        ip[6] = tcp ? 6 : 17;
        ip[7] = 64;
        for (unsigned i = 0; i < 32; i++)
            ip[8 + i] = (uint8_t)(i * 7 + 1);
    } else {
        ip[0] = 0x45;
        rig_put16(ip + 2, (unsigned)(20 + l4_total));
        rig_put16(ip + 4, 0x1234);
        ip[8] = 64;
        ip[9] = tcp ? 6 : 17;
        memcpy(ip + 12, "\x0a\x00\x02\x0f\x0a\x00\x02\x02", 8);
        rig_put16(ip + 10, (uint16_t)~rig_sum(ip, 20, 0));
    }
    rig_put16(l4, 1000);
    rig_put16(l4 + 2, 2000);
    if (tcp) {
        rig_put16(l4 + 4, 0xffff), rig_put16(l4 + 6, 0xf000); /* sequence numbers that wrap */
        l4[12] = 0x50;
        l4[13] = 0x80 | 0x10 | 0x08 | 0x01; /* CWR ACK PSH FIN */
    } else {
        rig_put16(l4 + 4, (unsigned)l4_total);
    }
    for (size_t i = 0; i < payload; i++)
        l4[l4_size + i] = (uint8_t)(i * 31 + (i >> 8));
    uint8_t *field = l4 + (tcp ? 16 : 6);
    rig_put16(field, pseudo_sum(ip, ipv6, tcp ? 6 : 17, l4_total));
    if (whole) {
        uint16_t sum = (uint16_t)~rig_sum(l4, l4_total, 0);

        rig_put16(field, sum ? sum : 0xffff);
    }
    return (size_t)(l4 - frame) + l4_total;
}

bool rig_frame_is_right(const uint8_t *frame, size_t size)
{
    unsigned at = rig_get16(frame + 12) == 0x8100 ? 18 : 14;
    const uint8_t *ip = frame + at;
    bool ipv6 = ip[0] >> 4 == 6;
    size_t l4_size = ipv6 ? rig_get16(ip + 4) : rig_get16(ip + 2) - 20u;
    unsigned protocol = ipv6 ? ip[6] : ip[9];

    if (at + (ipv6 ? 40 : 20) + l4_size > size || (!ipv6 && rig_sum(ip, 20, 0) != 0xffff))
        return false;
    const uint8_t *l4 = ip + (ipv6 ? 40 : 20);
    return rig_sum(l4, l4_size, pseudo_sum(ip, ipv6, protocol, l4_size)) == 0xffff;
}
