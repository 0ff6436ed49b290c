/* What the files of the e1000e share: e1000e.c (type, registers), e1000e_interrupt.c, e1000e_link.c (PHY, EEPROM), e1000e_transmit.c,
 * e1000e_receive.c, e1000e_filter.c. */
#ifndef EIDOLON_DEVICES_NET_E1000E_INTERNAL_H
#define EIDOLON_DEVICES_NET_E1000E_INTERNAL_H

#include "devices/net/e1000e_registers.h"
#include "devices/net/net.h"
#include "devices/net/offload.h"
#include "devices/pci/pci.h"

#define E1000E_QUEUES    2
#define E1000E_VECTORS   5
#define E1000E_NVM_WORDS 64
#define E1000E_PHY_PAGES 8
#define E1000E_FRAME_MAX 9230 /* jumbo, without FCS */

/* An interrupt that is not sent more often than its interval allows. 0: all (ITR), 1 ..: MSI-X vectors (EITR). */
struct e1000e_throttle {
    struct timer timer;
    struct e1000e *nic;
    bool pending; /* wanted while the timer ran */
};

/* A context descriptor's words, and the packet that is being put together. */
struct e1000e_transmit {
    uint32_t context[4];
    uint8_t *data; /* NET_MAX_PACKET bytes */
    uint32_t size;
    bool skip;         /* this packet is too large or unreadable: drop it at its end */
    uint32_t first[4]; /* the first data descriptor: options of the whole packet */
    bool started;
};

struct e1000e {
    struct pci_device pci; /* first */
    struct net_nic nic;
    uint32_t registers[REGISTERS_END / 4];
    uint32_t time[(TIME_END - TIME_BASE) / 4];
    uint64_t time_base, time_started_ns;
    uint16_t phy[E1000E_PHY_PAGES * 32];
    uint16_t nvm[E1000E_NVM_WORDS];
    uint32_t io_address;
    uint32_t notified; /* causes that a message was sent for, and that are still set */
    struct e1000e_throttle throttles[1 + E1000E_VECTORS];
    struct timer receive_delay, receive_limit, transmit_delay, transmit_limit;
    uint32_t delayed; /* causes for those timers */
    struct net_work work;
    uint8_t *receive_buffer; /* E1000E_FRAME_MAX + 8 bytes: the frame as it goes to the guest */
    struct e1000e_transmit transmit[E1000E_QUEUES];
    struct pci_msix_entry saved_msix[E1000E_VECTORS];
    uint64_t saved_pending;
};

static inline uint32_t *e1000e_register(struct e1000e *nic, unsigned offset)
{
    return &nic->registers[offset / 4];
}
static inline uint32_t e1000e_get(const struct e1000e *nic, unsigned offset)
{
    return nic->registers[offset / 4];
}
static inline uint64_t e1000e_now(const struct e1000e *nic)
{
    return clock_now_ns(nic->pci.device.env->clock);
}

/* One of the four rings. */
struct e1000e_ring {
    gpa_t base;
    uint32_t count, head, tail;
};
/* False: not set up, or nonsense (a head or tail outside of it). base_register: RDBAL or TDBAL. */
bool e1000e_ring(const struct e1000e *nic, unsigned base_register, unsigned queue, struct e1000e_ring *ring);

void e1000e_count(struct e1000e *nic, unsigned low, uint32_t amount);    /* sticks at its maximum */
void e1000e_count_64(struct e1000e *nic, unsigned low, uint32_t amount); /* low, high */
void e1000e_count_size(struct e1000e *nic, unsigned first, size_t size); /* one of six, by size with FCS */

void e1000e_interrupt_init(struct e1000e *nic);
void e1000e_interrupt_stop(struct e1000e *nic);
void e1000e_interrupt_raise(struct e1000e *nic, uint32_t causes);
void e1000e_interrupt_update(struct e1000e *nic);
void e1000e_interrupt_received(struct e1000e *nic, uint32_t causes);
void e1000e_interrupt_transmitted(struct e1000e *nic, uint32_t causes, bool delay);
uint32_t e1000e_read_icr(struct e1000e *nic);
void e1000e_write_icr(struct e1000e *nic, uint32_t value);
void e1000e_write_imc(struct e1000e *nic, uint32_t value);

void e1000e_link_reset(struct e1000e *nic);
void e1000e_link_update(struct e1000e *nic, bool signal);
void e1000e_write_mdic(struct e1000e *nic, uint32_t value);
void e1000e_write_eerd(struct e1000e *nic, uint32_t value);
void e1000e_nvm_init(struct e1000e *nic);
uint32_t e1000e_read_status(const struct e1000e *nic);

void e1000e_transmit_all(struct e1000e *nic);
void e1000e_transmit_reset(struct e1000e *nic);
void e1000e_transmit_reset_packets(struct e1000e *nic); /* forgets unfinished packets, keeps contexts */
bool e1000e_wants(struct e1000e *nic, const uint8_t *frame, size_t size);
bool e1000e_can_receive(struct net_client *client);
bool e1000e_receive(struct net_client *client, const struct net_packet *packet);

#endif
