/* The e1000e driven by its registers, as a driver does: EEPROM, PHY, filters, transmission with offloads, reception in three kinds of
 * descriptors, interrupts of three kinds with their brakes, state, and nonsense. */
#include "devices/net/e1000e_internal.h"
#include "tests/net/net_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { BAR = 0x80000000, MSIX_BAR = 0x80100000 };
enum { TX_RING = 0x10000, RX_RING = 0x20000, TX_DATA = 0x40000, RX_DATA = 0x100000, RING = 64 };

static struct net_rig rig;
static struct e1000e *nic;
static uint8_t *ram;
static uint8_t frame[NET_MAX_PACKET];

static uint32_t get(unsigned offset)
{
    return (uint32_t)physmem_mmio_read(rig.env.mem, BAR + offset, 4);
}

static void set(unsigned offset, uint32_t value)
{
    physmem_mmio_write(rig.env.mem, BAR + offset, 4, value);
}

static void config(unsigned offset, unsigned size, uint32_t value)
{
    pci_device_config_write(&nic->pci, offset, size, value);
}

static void setup(void)
{
    net_rig_init(&rig);
    memset(&rig.end, 0, sizeof(rig.end));
    rig_end_add(&rig.end, rig.env.nets, "n");
    nic = (struct e1000e *)net_rig_device(&rig, "e1000e", "netdev=n");
    ram = physmem_ram_base(rig.env.mem);
    config(PCI_BAR0, 4, BAR);
    config(PCI_BAR0 + 12, 4, MSIX_BAR);
    config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_IO);
}

static void teardown(void)
{
    device_destroy(&nic->pci.device);
    net_rig_destroy(&rig);
}

TestSuite(e1000e, .init = setup, .fini = teardown);

/* ---- Rings ---- */

static void start_transmit(void)
{
    set(TDBAL, TX_RING), set(TDBAH, 0), set(TDLEN, RING * 16), set(TDH, 0), set(TDT, 0);
    set(TCTL, TCTL_EN | TCTL_PSP);
}

static uint32_t *descriptor(unsigned ring, unsigned number)
{
    return (uint32_t *)(ram + ring) + 4 * number;
}

static void put(unsigned number, uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3)
{
    memcpy(descriptor(TX_RING, number), (uint32_t[4]){ w0, w1, w2, w3 }, 16);
}

static void start_receive(uint32_t control, bool extended)
{
    set(RFCTL, extended ? RFCTL_EXSTEN : 0);
    set(RDBAL, RX_RING), set(RDBAH, 0), set(RDLEN, RING * 16), set(RDH, 0);
    for (unsigned i = 0; i < RING; i++)
        memcpy(descriptor(RX_RING, i), (uint32_t[4]){ RX_DATA + i * 2048, 0, 0, 0 }, 16);
    set(RCTL, RCTL_EN | RCTL_BAM | RCTL_SECRC | control);
    set(RDT, RING - 1);
    net_rig_run(&rig);
}

static void receive(const uint8_t *data, size_t size)
{
    net_send_buffer(&rig.end.client, data, size);
}

static void address_to_us(uint8_t *data)
{
    memcpy(data, "\x52\x54\x00\x12\x34\x56", 6);
}

/* ---- EEPROM, PHY, link ---- */

Test(e1000e, eeprom)
{
    uint16_t sum = 0;

    for (unsigned i = 0; i < 64; i++) {
        set(EERD, i << 2 | EERD_START);
        cr_assert(get(EERD) & EERD_DONE);
        sum = (uint16_t)(sum + (get(EERD) >> 16));
        if (i == 0)
            cr_assert_eq(get(EERD) >> 16, 0x5452u);
    }
    cr_assert_eq(sum, 0xbaba);
    set(EERD, 0x3fff << 2 | EERD_START);
    cr_assert_eq(get(EERD) >> 16, 0xffffu);
    cr_assert_eq(get(RAL), 0x12005452u);
    cr_assert_eq(get(RAH), 0x80005634u);
}

static uint32_t phy(unsigned number)
{
    set(MDIC, 2 << 26 | 1 << 21 | number << 16);
    cr_assert(get(MDIC) & MDIC_READY);
    return get(MDIC) & 0xffff;
}

static void set_phy(unsigned number, unsigned value)
{
    set(MDIC, 1 << 26 | 1 << 21 | number << 16 | value);
}

Test(e1000e, phy_and_link)
{
    cr_assert_eq(phy(2), 0x141u);
    cr_assert_eq(phy(3), 0xcb1u);
    set_phy(2, 0);
    cr_assert_eq(phy(2), 0x141u, "read-only");
    cr_assert(phy(1) & 4);
    cr_assert(get(STATUS) & STATUS_LU);
    set(MDIC, 2 << 26 | 5 << 21);
    cr_assert(get(MDIC) & MDIC_ERROR, "another PHY");
    /* Pages. */
    set_phy(22, 2), set_phy(20, 0xaaaa), set_phy(22, 3), set_phy(20, 0x5555);
    set_phy(22, 2);
    cr_assert_eq(phy(20), 0xaaaau);
    set_phy(22, 0xffff), set_phy(31, 1); /* a page that is not there */
    /* The cable. */
    set(IMS, INT_LSC);
    get(ICR);
    net_client_set_link(&rig.end.client, false);
    cr_assert_not(get(STATUS) & STATUS_LU);
    cr_assert(rig.pirq[0]);
    cr_assert_eq(get(ICR), INT_LSC | INT_OTHER | INT_ASSERTED);
    cr_assert_not(rig.pirq[0]);
    set_phy(22, 0);
    cr_assert_not(phy(1) & 4);
    net_client_set_link(&rig.end.client, true);
    cr_assert(get(ICR) & INT_LSC);
    set_phy(0, 0x1340); /* negotiate again */
    cr_assert(get(ICR) & INT_LSC);
    set(CTRL, get(CTRL) | CTRL_GIO_MASTER_DISABLE);
    cr_assert_not(get(STATUS) & STATUS_GIO_MASTER_ENABLE);
    set(IMS, 1), set(CTRL, CTRL_RST);
    cr_assert_eq(get(IMS), 0u);
    cr_assert(get(STATUS) & STATUS_LU);
}

/* ---- Transmission ---- */

Test(e1000e, transmit_legacy)
{
    start_transmit();
    for (unsigned i = 0; i < 100; i++)
        ram[TX_DATA + i] = (uint8_t)i;
    put(0, TX_DATA, 0, 40, 0);
    put(1, TX_DATA + 40, 0, 60 | TXD_EOP | TXD_RS, 0);
    put(2, TX_DATA, 0, 20 | TXD_EOP, 0);
    set(TDT, 3);
    cr_assert_eq(rig.end.received, 0u, "not while the vCPU writes");
    net_rig_run(&rig);
    cr_assert_eq(rig.end.received, 2u);
    cr_assert_eq(rig.end.packets[0].size, 100u);
    cr_assert_eq(memcmp(rig.end.packets[0].data, ram + TX_DATA, 100), 0);
    cr_assert_eq(rig.end.packets[1].size, 60u, "padded");
    cr_assert_eq(get(TDH), 3u);
    cr_assert_eq(descriptor(TX_RING, 1)[3], 1u, "DD");
    cr_assert_eq(descriptor(TX_RING, 0)[3], 0u);
    cr_assert_eq(get(ICR) & (INT_TXDW | INT_TXQE), (uint32_t)(INT_TXDW | INT_TXQE));
    cr_assert_eq(get(GPTC), 2u);
    cr_assert_eq(get(GPTC), 0u, "cleared by reading");
    cr_assert_eq(get(GOTCL), 168u);
}

/* Context for a frame of rig_build_frame(). */
static void put_context(unsigned number, bool ipv6, bool tcp, size_t size, unsigned mss, unsigned header)
{
    unsigned l4 = 14 + (ipv6 ? 40 : 20);

    put(number, 14 | 24u << 8 | (l4 - 1) << 16, l4 | (l4 + (tcp ? 16 : 6)) << 8,
        (uint32_t)(size - header) | TXD_DEXT | (tcp ? TXD_CONTEXT_TCP : 0) | (ipv6 ? 0 : TXD_CONTEXT_IP),
        header << 8 | mss << 16);
}

Test(e1000e, transmit_checksums)
{
    start_transmit();
    for (unsigned variant = 0; variant < 4; variant++) {
        bool ipv6 = variant & 1, tcp = variant & 2;
        size_t size = rig_build_frame(frame, ipv6, tcp, 333, false, false);
        unsigned at = variant * 2;

        if (!ipv6)
            rig_put16(frame + 24, 0);
        memcpy(ram + TX_DATA, frame, size);
        put_context(at, ipv6, tcp, size, 0, 0);
        put(at + 1, TX_DATA, 0, (uint32_t)size | TXD_EOP | TXD_DEXT | TXD_TYPE_DATA | TXD_RS,
            (TXD_POPTS_TXSM | (ipv6 ? 0 : TXD_POPTS_IXSM)) << 8);
        set(TDT, at + 2);
        net_rig_run(&rig);
        cr_assert_eq(rig.end.received, variant + 1);
        cr_assert(rig_frame_is_right(rig_end_last(&rig.end)->data, size), "variant %u", variant);
    }
}

Test(e1000e, transmit_segments)
{
    start_transmit();
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        size_t size = rig_build_frame(frame, ipv6, true, 10000, false, false);
        unsigned header = 14 + (ipv6 ? 40 : 20) + 20, at = get(TDT);
        uint8_t *ip = frame + 14, *field = frame + header - 4;

        /* As Linux leaves it: no lengths, pseudo header without length. */
        uint32_t sum = rig_get16(field) + 0xffffu - (uint32_t)(size - header + 20);
        rig_put16(field, (sum & 0xffff) + (sum >> 16));
        if (ipv6)
            rig_put16(ip + 4, 0);
        else
            rig_put16(ip + 2, 0), rig_put16(ip + 10, 0);
        memcpy(ram + TX_DATA, frame, size);
        put_context(at, ipv6, true, size, 1440, header);
        put(at + 1, TX_DATA, 0, header | TXD_DEXT | TXD_TYPE_DATA | TXD_TSE,
            (TXD_POPTS_TXSM | (ipv6 ? 0 : TXD_POPTS_IXSM)) << 8);
        put(at + 2, TX_DATA + header, 0,
            (uint32_t)(size - header) | TXD_EOP | TXD_RS | TXD_DEXT | TXD_TYPE_DATA | TXD_TSE,
            (TXD_POPTS_TXSM | (ipv6 ? 0 : TXD_POPTS_IXSM)) << 8);
        rig.end.received = 0;
        set(TDT, at + 3);
        net_rig_run(&rig);
        cr_assert_eq(rig.end.received, 7u);
        for (unsigned i = 0; i < 7; i++)
            cr_assert(rig_frame_is_right(rig.end.packets[i].data, rig.end.packets[i].size), "segment %u", i);
        /* Whole, for an end that takes it so. */
        net_client_set_accepts(&rig.end.client, NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN);
        rig.end.received = 0;
        at = get(TDT);
        put_context(at, ipv6, true, size, 1440, header);
        put(at + 1, TX_DATA, 0, (uint32_t)size | TXD_EOP | TXD_DEXT | TXD_TYPE_DATA | TXD_TSE,
            (TXD_POPTS_TXSM | (ipv6 ? 0 : TXD_POPTS_IXSM)) << 8);
        set(TDT, at + 2);
        net_rig_run(&rig);
        cr_assert_eq(rig.end.received, 1u);
        cr_assert_eq(rig.end.packets[0].offload.gso_size, 1440);
        net_client_set_accepts(&rig.end.client, 0);
    }
}

Test(e1000e, transmit_waits_for_the_peer)
{
    start_transmit();
    for (unsigned i = 0; i < 10; i++)
        put(i, TX_DATA, 0, 60 | TXD_EOP | TXD_RS, 0);
    rig.end.full = true;
    set(TDT, 10);
    net_rig_run(&rig);
    cr_assert_eq(get(TDH), 0u);
    rig.end.full = false;
    net_client_resume(&rig.end.client);
    net_rig_run(&rig);
    cr_assert_eq(rig.end.received, 10u);
}

Test(e1000e, vlan_tags)
{
    size_t size = rig_build_frame(frame, false, true, 100, false, false);

    start_transmit();
    set(CTRL, get(CTRL) | CTRL_VME);
    memcpy(ram + TX_DATA, frame, size);
    put_context(0, false, true, size, 0, 0);
    put(1, TX_DATA, 0, (uint32_t)size | TXD_EOP | TXD_DEXT | TXD_TYPE_DATA | TXD_VLE, TXD_POPTS_TXSM << 8 | 77 << 16);
    set(TDT, 2);
    net_rig_run(&rig);
    struct rig_packet *sent = rig_end_last(&rig.end);
    cr_assert_eq(sent->size, size + 4);
    cr_assert_eq(rig_get16(sent->data + 14), 77u);
    cr_assert(rig_frame_is_right(sent->data, sent->size));
    /* And back: filtered by tag, stripped. */
    start_receive(RCTL_VFE | RCTL_UPE, true);
    receive(sent->data, sent->size);
    cr_assert_eq(get(RDH), 0u, "not in the table");
    set(VFTA + 77 / 32 * 4, 1u << 77 % 32);
    receive(sent->data, sent->size);
    cr_assert_eq(get(RDH), 1u);
    cr_assert(descriptor(RX_RING, 0)[2] & RXD_VP);
    cr_assert_eq(descriptor(RX_RING, 0)[3], (uint32_t)size | 77u << 16);
}

/* ---- Reception ---- */

Test(e1000e, receive_legacy_and_extended)
{
    for (unsigned extended = 0; extended < 2; extended++) {
        size_t size = rig_build_frame(frame, false, true, 500, false, true);

        start_receive(0, extended);
        address_to_us(frame);
        receive(frame, size);
        receive(frame, 42); /* a runt of ARP's size */
        frame[size - 1] ^= 1;
        receive(frame, size);
        cr_assert_eq(get(RDH), 3u);
        cr_assert_eq(memcmp(ram + RX_DATA, frame, size - 1), 0);
        uint32_t *d = descriptor(RX_RING, 0), good = RXD_DD | RXD_EOP | RXD_IPCS | RXD_TCPCS;
        if (extended) {
            cr_assert_eq(d[2], good);
            cr_assert_eq(d[3], size);
            cr_assert_eq(descriptor(RX_RING, 1)[3], 60u);
            cr_assert_eq(descriptor(RX_RING, 2)[2], good | RXD_ERROR_TCPE << 24);
        } else {
            cr_assert_eq(d[2], size);
            cr_assert_eq(d[3], good);
            cr_assert_eq(d[0], (uint32_t)RX_DATA, "the address stays");
            cr_assert_eq(descriptor(RX_RING, 1)[2], 60u);
            cr_assert_eq(descriptor(RX_RING, 2)[3], good | RXD_ERROR_TCPE << 8);
        }
        cr_assert(get(ICR) & INT_RXT0);
        cr_assert_eq(get(GPRC), 3u);
        set(RCTL, 0);
    }
}

Test(e1000e, receive_over_several_buffers)
{
    start_receive(RCTL_LPE | 3 << 16, false); /* 256 bytes */
    address_to_us(frame);
    for (unsigned i = 14; i < 1000; i++)
        frame[i] = (uint8_t)i;
    receive(frame, 1000);
    cr_assert_eq(get(RDH), 4u);
    cr_assert_eq(descriptor(RX_RING, 0)[2], 256u);
    cr_assert_eq(descriptor(RX_RING, 0)[3] & 3, (uint32_t)RXD_DD);
    cr_assert_eq(descriptor(RX_RING, 3)[2], 1000u - 768);
    cr_assert_eq(descriptor(RX_RING, 3)[3] & 3, (uint32_t)(RXD_DD | RXD_EOP));
    cr_assert_eq(memcmp(ram + RX_DATA + 3 * 2048, frame + 768, 232), 0);
    /* With the checksum of the wire. */
    set(RCTL, get(RCTL) & ~(uint32_t)RCTL_SECRC);
    receive(frame, 100);
    cr_assert_eq(descriptor(RX_RING, 4)[2], 104u);
}

Test(e1000e, receive_split)
{
    start_receive(0, true);
    set(RCTL, 0);
    set(PSRCTL, 1 | 1 << 8 | 1 << 16 | 1 << 24); /* 128, 1024 each */
    for (unsigned i = 0; i < RING / 2; i++) {
        uint64_t *addresses = (uint64_t *)(ram + RX_RING + 32 * i);

        for (unsigned j = 0; j < 4; j++)
            addresses[j] = RX_DATA + i * 4096 + j * 1024;
    }
    set(RDT, 20);
    set(RCTL, RCTL_EN | RCTL_LPE | RCTL_SECRC | RCTL_UPE | 1 << 10);
    for (unsigned i = 0; i < 2000; i++)
        frame[i] = (uint8_t)(i * 3);
    frame[0] = 2;
    receive(frame, 2000);
    cr_assert_eq(get(RDH), 1u);
    uint32_t *d = (uint32_t *)(ram + RX_RING);
    cr_assert_eq(d[2] & 3, (uint32_t)(RXD_DD | RXD_EOP));
    cr_assert_eq(d[3], 128u);
    cr_assert_eq(d[4], 1024u << 16);
    cr_assert_eq(d[5], 2000u - 1152);
    cr_assert_eq(memcmp(ram + RX_DATA + 2048, frame + 1152, 848), 0);
}

Test(e1000e, filters)
{
    static const uint8_t multicast[6] = { 1, 0, 0x5e, 1, 2, 3 };
    unsigned hash = (0x0302 >> 4) & 0xfff;

    start_receive(0, false);
    memset(frame, 0xff, 60);
    receive(frame, 60);
    cr_assert_eq(get(RDH), 1u, "broadcast");
    memcpy(frame, "\x52\x54\x00\x00\x00\x01", 6);
    receive(frame, 60);
    cr_assert_eq(get(RDH), 1u, "somebody else's");
    set(RAL + 8, 0x00005452), set(RAH + 8, 0x0100 | RAH_VALID);
    receive(frame, 60);
    cr_assert_eq(get(RDH), 2u, "second address");
    memcpy(frame, multicast, 6);
    receive(frame, 60);
    cr_assert_eq(get(RDH), 2u);
    set(MTA + hash / 32 * 4, 1u << hash % 32);
    receive(frame, 60);
    cr_assert_eq(get(RDH), 3u, "hash");
    set(MTA + hash / 32 * 4, 0);
    set(RCTL, get(RCTL) | RCTL_MPE);
    receive(frame, 60);
    cr_assert_eq(get(RDH), 4u);
    frame[0] = 2;
    set(RCTL, get(RCTL) | RCTL_UPE);
    receive(frame, 60);
    cr_assert_eq(get(RDH), 5u);
    receive(frame, 1519);
    cr_assert_eq(get(RDH), 5u, "a giant");
    cr_assert_eq(get(ROC), 1u);
    set(RCTL, get(RCTL) | RCTL_LPE);
    receive(frame, 1519), receive(frame, 40000);
    cr_assert_eq(get(RDH), 6u);
}

Test(e1000e, no_descriptors)
{
    start_receive(RCTL_UPE, false);
    set(RDT, 2);
    net_rig_run(&rig);
    for (unsigned i = 0; i < 5; i++)
        receive(frame, 60);
    cr_assert_eq(get(RDH), 2u);
    cr_assert_not(net_can_send(&rig.end.client));
    set(RDT, 10);
    net_rig_run(&rig);
    cr_assert_eq(get(RDH), 5u, "the others had waited");
    cr_assert_eq(rig.end.ready, 1u);
}

Test(e1000e, loopback)
{
    start_receive(RCTL_UPE | 3 << 6, false);
    start_transmit();
    put(0, TX_DATA, 0, 60 | TXD_EOP, 0);
    set(TDT, 1);
    net_rig_run(&rig);
    cr_assert_eq(rig.end.received, 0u);
    cr_assert_eq(get(RDH), 1u);
}

/* ---- Interrupts ---- */

Test(e1000e, auto_mask)
{
    set(CTRL_EXT, CTRL_EXT_IAME);
    set(IAM, 0xffffffff);
    set(IMS, INT_RXT0 | INT_LSC);
    set(ICS, INT_RXT0);
    cr_assert(rig.pirq[0]);
    cr_assert_eq(get(ICR), INT_RXT0 | INT_ASSERTED);
    cr_assert_not(rig.pirq[0]);
    cr_assert_eq(get(IMS), 0u);
    set(ICS, INT_RXT0);
    cr_assert_not(rig.pirq[0]);
    set(IMS, INT_RXT0);
    cr_assert(rig.pirq[0], "it was kept");
    set(IMC, INT_RXT0);
    cr_assert_not(rig.pirq[0]);
    cr_assert_eq(get(ICS) & INT_RXT0, (uint32_t)INT_RXT0, "reading ICS does not clear");
    set(ICR, INT_RXT0);
    cr_assert_eq(get(ICS) & INT_RXT0, 0u);
}

static void enable_msi(void)
{
    config(nic->pci.msi + 4, 4, 0xfee00000);
    config(nic->pci.msi + 12, 2, 0x41);
    config(nic->pci.msi + 2, 2, 1);
}

Test(e1000e, msi_and_throttle)
{
    enable_msi();
    set(IMS, INT_RXT0);
    set(ICS, INT_RXT0);
    cr_assert_eq(rig.messages, 1u);
    cr_assert_eq(rig.message_data[0], 0x41u);
    set(ICS, INT_RXT0);
    cr_assert_eq(rig.messages, 1u, "still set");
    get(ICR);
    set(ICS, INT_RXT0);
    cr_assert_eq(rig.messages, 2u);
    get(ICR);
    set(ITR, 400); /* 102.4 us */
    set(ICS, INT_RXT0);
    cr_assert_eq(rig.messages, 3u);
    get(ICR);
    set(ICS, INT_RXT0);
    cr_assert_eq(rig.messages, 3u);
    fake_time_advance(102000);
    cr_assert_eq(rig.messages, 3u);
    fake_time_advance(500);
    cr_assert_eq(rig.messages, 4u);
    cr_assert_not(rig.pirq[0]);
}

Test(e1000e, delays)
{
    start_receive(RCTL_UPE, false);
    set(RDTR, 10), set(RADV, 25), set(IMS, INT_RXT0);
    get(ICR);
    for (unsigned i = 0; i < 5; i++) { /* each begins the delay again, until the limit */
        receive(frame, 60);
        fake_time_advance(6000);
    }
    cr_assert(get(ICR) & INT_RXT0, "after 25.6 us");
    receive(frame, 60);
    fake_time_advance(10000);
    cr_assert_not(get(ICS) & INT_RXT0);
    fake_time_advance(1000);
    cr_assert(get(ICR) & INT_RXT0);
    receive(frame, 60);
    set(RDTR, RDTR_FPD | 10);
    cr_assert(get(ICR) & INT_RXT0, "at once");
    fake_time_advance(100000);
    start_transmit();
    set(TIDV, 20);
    get(ICR);
    put(0, TX_DATA, 0, 60 | TXD_EOP | TXD_RS | TXD_IDE, 0);
    set(TDT, 1);
    net_rig_run(&rig);
    cr_assert_not(get(ICS) & INT_TXDW);
    fake_time_advance(21000);
    cr_assert(get(ICS) & INT_TXDW);
}

Test(e1000e, msix)
{
    for (unsigned i = 0; i < E1000E_VECTORS; i++) {
        physmem_mmio_write(rig.env.mem, MSIX_BAR + 16 * i, 4, 0xfee00000);
        physmem_mmio_write(rig.env.mem, MSIX_BAR + 16 * i + 8, 4, 0x50 + i);
        physmem_mmio_write(rig.env.mem, MSIX_BAR + 16 * i + 12, 4, 0);
    }
    config(nic->pci.msix.capability + 2, 2, 0x8000);
    set(IVAR, 8 | (9 << 8) | (10 << 16)); /* receive 0, transmit 1, other 2 */
    set(EIAC, INT_RXQ0 | INT_TXQ0 | INT_OTHER);
    set(IMS, INT_RXQ0 | INT_TXQ0 | INT_OTHER | INT_LSC);
    start_receive(RCTL_UPE, true);
    receive(frame, 60);
    cr_assert_eq(rig.messages, 1u);
    cr_assert_eq(rig.message_data[0], 0x50u);
    cr_assert_not(get(IMS) & INT_RXQ0, "masked with the message");
    receive(frame, 60);
    cr_assert_eq(rig.messages, 1u);
    set(IMS, INT_RXQ0);
    cr_assert_eq(rig.messages, 2u, "the second had waited");
    start_transmit();
    put(0, TX_DATA, 0, 60 | TXD_EOP | TXD_RS, 0);
    set(TDT, 1);
    net_rig_run(&rig);
    cr_assert_eq(rig.message_data[2], 0x51u);
    net_client_set_link(&rig.end.client, false);
    cr_assert_eq(rig.message_data[3], 0x52u);
    cr_assert(get(ICR) & INT_LSC);
    cr_assert_not(rig.pirq[0]);
}

/* ---- Nonsense ---- */

Test(e1000e, rings_that_are_none)
{
    start_transmit();
    set(TDT, 0xffff);
    net_rig_run(&rig); /* a tail outside of the ring */
    set(TDH, 1000), set(TDT, 5);
    net_rig_run(&rig);
    set(TDBAL, 0xfffffff0), set(TDBAH, 0xffffffff), set(TDH, 0), set(TDT, 5);
    net_rig_run(&rig);
    set(TDBAL, BAR), set(TDBAH, 0), set(TDH, 0), set(TDT, 5); /* its own registers */
    net_rig_run(&rig);
    cr_assert_eq(rig.end.received, 0u);
    set(TDLEN, 0), set(TDT, 7);
    net_rig_run(&rig);
    /* Never an end of packet, round and round. */
    start_transmit();
    for (unsigned i = 0; i < RING; i++)
        put(i, TX_DATA, 0, 0xfff0, 0);
    for (unsigned i = 0; i < 1000; i++) {
        set(TDT, (i * 63 + 63) % RING);
        net_rig_run(&rig);
    }
    cr_assert_leq(nic->transmit[0].size, (uint32_t)NET_MAX_PACKET);
    start_receive(RCTL_UPE, false);
    set(RDBAL, 0xfffffff0), set(RDBAH, 0xffff);
    receive(frame, 60);
    set(RDH, 0xffff);
    receive(frame, 60);
    for (unsigned i = 0; i < RING; i++)
        memset(descriptor(RX_RING, i), 0xff, 16);
    set(RDBAL, RX_RING), set(RDBAH, 0), set(RDH, 0);
    receive(frame, 60); /* buffers nowhere */
}

/* A driver that has lost its mind: plausible registers and descriptors with random contents, traffic in between. */
Test(e1000e, random_programming)
{
    static const unsigned interesting[] = {
        CTRL,  CTRL_EXT, MDIC,        EERD,          ICR,           ICS,     IMS,     IMC,   EIAC,   IAM,   IVAR,
        ITR,   RCTL,     TCTL,        RDBAL,         RDBAH,         RDLEN,   RDH,     RDT,   RDTR,   RADV,  TDBAL,
        TDBAH, TDLEN,    TDH,         TDT,           TIDV,          TADV,    RXCSUM,  RFCTL, PSRCTL, MRQC,  VET,
        EITR,  EITR + 4, TDT + 0x100, TDBAL + 0x100, TDLEN + 0x100, SYSTIML, TIMINCA, SWSM,  EECD,   STATUS
    };

    for (uint64_t start = 1; start <= 6; start++) {
        uint64_t seed = start;

        for (unsigned round = 0; round < 20000; round++) {
            unsigned offset = interesting[rig_random64(&seed) % ARRAY_SIZE(interesting)];
            uint32_t value = (uint32_t)rig_random64(&seed);

            if (offset == TDBAL || offset == RDBAL || offset == TDBAL + 0x100)
                value &= 0xffff0;
            if (offset == TDLEN || offset == RDLEN || offset == TDLEN + 0x100)
                value &= 0xfff;
            if (offset == RDBAH || offset == TDBAH)
                value = round % 16 ? 0 : value;
            if (offset == RCTL || offset == TCTL)
                value |= 2;
            if (offset == TDT || offset == RDT || offset == TDH || offset == RDH)
                value &= 0xff;
            if (offset == CTRL && round % 50)
                value &= ~(uint32_t)CTRL_RST;
            if (rig_random64(&seed) % 4 == 0)
                get(offset);
            else if (rig_random64(&seed) % 16)
                set(offset, value);
            else
                set((unsigned)rig_random64(&seed) & 0x1fffc, value);
            if (round % 3 == 0) { /* descriptors whose bits mean something */
                uint32_t *words = (uint32_t *)(ram + (rig_random64(&seed) & 0xffff0));

                words[0] = (uint32_t)rig_random64(&seed) & 0x3fffff, words[1] = round % 32 ? 0 : value;
                words[2] = value & 0xff3fffff & (round % 2 ? ~0u : 0xff0007ff),
                words[3] = (uint32_t)rig_random64(&seed);
            }
            if (round % 7 == 0) {
                size_t size = rig_build_frame(frame, round & 1, round & 2, rig_random64(&seed) % 2000, round & 4, true);

                frame[rig_random64(&seed) % 60] ^= (uint8_t)rig_random64(&seed);
                receive(frame, rig_random64(&seed) % 5 ? size : rig_random64(&seed) % 12000);
            }
            if (round % 5 == 0)
                net_rig_run(&rig);
            if (round % 11 == 0)
                fake_time_advance(rig_random64(&seed) % 200000);
            if (round % 1000 == 0)
                config(PCI_COMMAND, 2, round % 3000 ? 7 : 3);
        }
        device_reset(&nic->pci.device);
        config(PCI_BAR0, 4, BAR);
        config(PCI_COMMAND, 2, 7);
    }
    cr_assert_leq(nic->nic.client.queue_count, (unsigned)NET_QUEUE_PACKETS);
}

/* ---- State ---- */

Test(e1000e, state)
{
    const struct state_table *table = nic->pci.device.type->state;
    struct state_buffer first = { 0 }, second = { 0 };
    struct error err = { "" };
    uint64_t seed = 5;

    start_transmit();
    put_context(0, false, true, 100, 0, 0);
    set(TDT, 1);
    start_receive(RCTL_UPE, true);
    receive(frame, 60);
    set(IMS, INT_RXT0);
    enable_msi();
    net_rig_run(&rig);
    cr_assert_eq(state_save(&first, table, nic, &err), 0, "%s", err.text);
    device_reset(&nic->pci.device);
    cr_assert_eq(nic->transmit[0].context[0], 0u);
    cr_assert_eq(state_load(&first, table, nic, &err), 0, "%s", err.text);
    cr_assert_eq(get(RDH), 1u, "the BAR is back too");
    cr_assert_eq(nic->transmit[0].context[0] & 0xff, 14u);
    cr_assert_eq(state_save(&second, table, nic, &err), 0, "%s", err.text);
    cr_assert_eq(first.size, second.size);
    for (size_t i = 0; i < first.size; i++)
        cr_assert_eq(first.data[i], second.data[i], "byte %zu", i);
    receive(frame, 60);
    cr_assert_eq(get(RDH), 2u, "it goes on");
    for (unsigned round = 0; round < 300; round++) { /* whatever a stream holds */
        for (const struct state_field *field = table->fields; field->name; field++) {
            uint8_t *bytes = (uint8_t *)nic + field->offset;

            for (size_t i = 0; i < field->size * field->count; i++)
                bytes[i] = (uint8_t)rig_random64(&seed);
        }
        if (table->post_load(nic, &err) < 0)
            device_reset(&nic->pci.device);
        receive(frame, 200);
        net_rig_run(&rig);
        fake_time_advance(1000000);
    }
    state_buffer_free(&first);
    state_buffer_free(&second);
}
