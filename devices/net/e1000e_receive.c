/* e1000e: reception (82574 datasheet 7.1). Three kinds of descriptor, in 32-bit words; all begin as addresses of buffers:
 *
 *     legacy         2 length 15:0, checksum 31:16 | 3 status 7:0, errors 15:8, VLAN 31:16
 *     extended       0 type of hash | 1 hash | 2 status 19:0, errors 31:24 | 3 length 15:0, VLAN 31:16
 *     packet split   (32 bytes, four buffers) 0 to 2 as extended | 3 length 0, VLAN | 4 header, length 1 | 5 lengths 2, 3
 *
 * Headers are not split off: buffers are filled one after the other, which the datasheet allows for packets that it does not
 * recognise. There is no hash (type 0), and all goes to queue 0, as the drivers' redirection tables say anyway.
 *
 * A packet for which there are no descriptors waits with its sender until the driver moves RDT. Loop's thread, device lock held. */
#include <string.h>
#include <zlib.h>

#include "base/log.h"
#include "devices/net/e1000e_internal.h"

enum kind { LEGACY, EXTENDED, SPLIT };

struct layout {
    enum kind kind;
    unsigned descriptor_size, buffers;
    uint32_t sizes[4], total; /* of the buffers of one descriptor */
};

static uint32_t plain_buffer_size(uint32_t control)
{
    static const uint16_t sizes[2][4] = { { 2048, 1024, 512, 256 }, { 0, 16384, 8192, 4096 } };
    unsigned flexible = control >> 27 & 15;

    return flexible ? flexible * 1024 : sizes[!!(control & RCTL_BSEX)][control >> 16 & 3];
}

static struct layout get_layout(const struct e1000e *nic)
{
    uint32_t control = e1000e_get(nic, RCTL), split = e1000e_get(nic, PSRCTL);
    struct layout layout = { .kind = LEGACY, .descriptor_size = 16, .buffers = 1 };

    layout.sizes[0] = plain_buffer_size(control);
    if (e1000e_get(nic, RFCTL) & RFCTL_EXSTEN)
        layout.kind = EXTENDED;
    if (layout.kind == EXTENDED && (control >> 10 & 3) == 1) {
        layout = (struct layout){ .kind = SPLIT, .descriptor_size = 32, .buffers = 4 };
        layout.sizes[0] = (split & 0x7f) * 128;
        for (unsigned i = 1; i < 4; i++)
            layout.sizes[i] = (split >> 8 * i & 0x3f) * 1024;
    }
    for (unsigned i = 0; i < layout.buffers; i++)
        layout.total += layout.sizes[i];
    return layout;
}

/* The ring and how many descriptors the driver has put there. */
static bool get_ring(const struct e1000e *nic, const struct layout *layout, struct e1000e_ring *ring, uint32_t *free)
{
    if (!e1000e_ring(nic, RDBAL, 0, ring))
        return false;
    if (layout->kind == SPLIT) {
        ring->count /= 2;
        if (ring->head >= ring->count || ring->tail >= ring->count)
            return false;
    }
    *free = ring->tail >= ring->head ? ring->tail - ring->head : ring->count - ring->head + ring->tail;
    return true;
}

static bool is_on(const struct e1000e *nic)
{
    return (e1000e_get(nic, RCTL) & RCTL_EN) && (e1000e_get(nic, STATUS) & STATUS_LU) &&
           (nic->pci.config[PCI_COMMAND] & PCI_COMMAND_MASTER);
}

bool e1000e_can_receive(struct net_client *client)
{
    const struct e1000e *nic = container_of(client, struct e1000e, nic.client);
    struct layout layout = get_layout(nic);
    struct e1000e_ring ring;
    uint32_t free;

    return is_on(nic) && get_ring(nic, &layout, &ring, &free) && free;
}

/* ---- The frame ---- */

struct frame {
    uint8_t *data;
    size_t size;
    uint32_t status, errors; /* as in legacy descriptors */
    uint16_t vlan;
};

static void judge_checksums(struct e1000e *nic, const struct net_packet *packet, struct frame *frame)
{
    uint32_t wanted = e1000e_get(nic, RXCSUM);
    struct net_headers headers;
    unsigned verdict = 0;

    if ((wanted & (RXCSUM_IPOFL | RXCSUM_TUOFL)) &&
        net_parse_headers(frame->data, frame->size, frame->size, &headers)) {
        struct iovec iov = { frame->data, frame->size };
        struct net_packet linear = { .iov = &iov, .iov_count = 1, .size = frame->size, .offload = packet->offload };

        verdict = net_verify_checksums(&linear, &headers);
    }
    if ((verdict & NET_CHECKED_IP) && (wanted & RXCSUM_IPOFL)) {
        frame->status |= RXD_IPCS;
        frame->errors |= verdict & NET_BAD_IP ? RXD_ERROR_IPE : 0;
    }
    if ((verdict & NET_CHECKED_L4) && (wanted & RXCSUM_TUOFL)) {
        frame->status |= RXD_TCPCS | (headers.protocol == 17 ? RXD_UDPCS : 0);
        frame->errors |= verdict & NET_BAD_L4 ? RXD_ERROR_TCPE : 0;
    }
    if (!(frame->status & (RXD_IPCS | RXD_TCPCS)))
        frame->status |= RXD_IXSM;
}

static void strip_vlan(struct e1000e *nic, struct frame *frame)
{
    uint8_t *data = frame->data;

    if (!(e1000e_get(nic, CTRL) & CTRL_VME) || frame->size < 18 ||
        (unsigned)(data[12] << 8 | data[13]) != (e1000e_get(nic, VET) & 0xffff))
        return;
    frame->vlan = (uint16_t)(data[14] << 8 | data[15]);
    frame->status |= RXD_VP;
    memmove(data + 12, data + 16, frame->size - 16);
    frame->size -= 4;
}

static void count_received(struct e1000e *nic, size_t size)
{
    e1000e_count(nic, TPR, 1);
    e1000e_count(nic, GPRC, 1);
    e1000e_count_64(nic, GORCL, (uint32_t)size + 4);
    e1000e_count_64(nic, TORL, (uint32_t)size + 4);
    e1000e_count_size(nic, PRC64, size + 4);
}

/* False: not for us, or too large. */
static bool build_frame(struct e1000e *nic, const struct net_packet *packet, struct frame *frame)
{
    size_t limit = e1000e_get(nic, RCTL) & RCTL_LPE ? E1000E_FRAME_MAX : 1518;

    if (packet->size > limit) {
        e1000e_count(nic, ROC, 1);
        return false;
    }
    frame->size = net_iov_read(packet->iov, packet->iov_count, 0, frame->data, packet->size);
    if (!e1000e_wants(nic, frame->data, frame->size))
        return false;
    if (frame->size < NET_MIN_FRAME) { /* on a wire it would have been padded */
        memset(frame->data + frame->size, 0, NET_MIN_FRAME - frame->size);
        frame->size = NET_MIN_FRAME;
    }
    count_received(nic, frame->size);
    judge_checksums(nic, packet, frame);
    strip_vlan(nic, frame);
    if (!(e1000e_get(nic, RCTL) & RCTL_SECRC)) {
        uint32_t crc = (uint32_t)crc32(0, frame->data, (uInt)frame->size);

        memcpy(frame->data + frame->size, &crc, sizeof(crc));
        frame->size += sizeof(crc);
    }
    return true;
}

/* ---- Descriptors ---- */

/* The word with DD goes last: the driver may be looking. */
static bool write_back(struct e1000e *nic, gpa_t at, const uint32_t *words, unsigned size, unsigned status_word)
{
    unsigned before = status_word * 4, after = before + 4;

    return pci_dma_write(&nic->pci, at, words, before) &&
           (after >= size || pci_dma_write(&nic->pci, at + after, words + status_word + 1, size - after)) &&
           pci_dma_write(&nic->pci, at + before, words + status_word, 4);
}

/* Fills the buffers of the descriptor at `at` from *offset on. False: it, or its buffers, are not memory. */
static bool fill_descriptor(struct e1000e *nic, const struct layout *layout, gpa_t at, const struct frame *frame,
                            size_t *offset)
{
    uint32_t words[8] = { 0 }, lengths[4] = { 0 }, status = frame->status | RXD_DD;
    uint64_t addresses[4];
    bool fine = pci_dma_read(&nic->pci, at, addresses, layout->kind == SPLIT ? 32 : 8);

    for (unsigned i = 0; fine && i < layout->buffers; i++) {
        lengths[i] = (uint32_t)MIN((size_t)layout->sizes[i], frame->size - *offset);
        if (lengths[i])
            fine = pci_dma_write(&nic->pci, addresses[i], frame->data + *offset, lengths[i]);
        *offset += lengths[i];
    }
    if (!fine)
        return false;
    if (*offset == frame->size)
        status |= RXD_EOP;
    if (layout->kind == LEGACY) {
        if (!pci_dma_read(&nic->pci, at, words, 8))
            return false;
        words[2] = lengths[0];
        words[3] = (status & 0xff) | frame->errors << 8 | (uint32_t)frame->vlan << 16;
        return write_back(nic, at, words, 16, 3);
    }
    words[2] = status | frame->errors << 24;
    words[3] = lengths[0] | (uint32_t)frame->vlan << 16;
    words[4] = lengths[1] << 16;
    words[5] = lengths[2] | lengths[3] << 16;
    return write_back(nic, at, words, layout->descriptor_size, 2);
}

static void announce(struct e1000e *nic, uint32_t free, uint32_t count)
{
    uint32_t causes = INT_RXT0;
    unsigned threshold = e1000e_get(nic, RCTL) >> 8 & 3;

    if (pci_msix_enabled(&nic->pci))
        causes |= INT_RXQ0;
    if (threshold < 3 && free == count >> (threshold + 1))
        e1000e_interrupt_raise(nic, INT_RXDMT0);
    e1000e_interrupt_received(nic, causes);
}

bool e1000e_receive(struct net_client *client, const struct net_packet *packet)
{
    struct e1000e *nic = container_of(client, struct e1000e, nic.client);
    struct layout layout = get_layout(nic);
    struct frame frame = { .data = nic->receive_buffer };
    struct e1000e_ring ring;
    size_t offset = 0;
    uint32_t free, needed;

    if (!is_on(nic) || !get_ring(nic, &layout, &ring, &free))
        return false;
    if (!layout.total) {
        log_event(guest_errors, "e1000e: receive buffers of no size\n");
        return true;
    }
    needed = (uint32_t)((MAX(packet->size, (size_t)NET_MIN_FRAME) + 4 + layout.total - 1) / layout.total);
    if (needed > free && needed < ring.count && packet->size <= E1000E_FRAME_MAX) {
        e1000e_count(nic, RNBC, 1);
        return false;
    }
    if (needed > free || !build_frame(nic, packet, &frame))
        return true;
    do {
        if (!fill_descriptor(nic, &layout, ring.base + (uint64_t)ring.head * layout.descriptor_size, &frame, &offset)) {
            log_event(guest_errors, "e1000e: receive descriptor %u, or its buffer, is not memory\n", ring.head);
            e1000e_count(nic, MPC, 1);
            offset = frame.size;
        }
        ring.head = ring.head + 1 == ring.count ? 0 : ring.head + 1;
        free--;
    } while (offset < frame.size);
    *e1000e_register(nic, RDH) = ring.head;
    announce(nic, free, ring.count);
    return true;
}
