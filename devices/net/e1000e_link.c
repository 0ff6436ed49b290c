/* e1000e: PHY (BM, the one of the 82574: IEEE 802.3 clause 22 registers and pages of its own), link state, EEPROM.
 *
 * Negotiation takes no time: a link that is there is up with 1000 Mb/s, full duplex, as soon as anybody asks. Device lock held. */
#include <string.h>

#include "base/log.h"
#include "devices/net/e1000e_internal.h"

enum {
    PHY_CONTROL = 0,
    PHY_STATUS = 1,
    PHY_ID1 = 2,
    PHY_ID2 = 3,
    PHY_ADVERTISE = 4,
    PHY_PARTNER = 5,
    PHY_EXPANSION = 6,
    PHY_1000_CONTROL = 9,
    PHY_1000_STATUS = 10,
    PHY_EXTENDED_STATUS = 15,
    PHY_COPPER_CONTROL = 16,
    PHY_COPPER_STATUS = 17,
    PHY_PAGE = 22,
    PHY_OTHER_PAGE = 29,
};
enum { CONTROL_RESET = 1 << 15, CONTROL_RESTART = 1 << 9, CONTROL_LOOPBACK = 1 << 14 };
enum { STATUS_LINK = 1 << 2, STATUS_NEGOTIATED = 1 << 5 };
#define PHY_ADDRESS 1

static const struct {
    uint8_t number;
    uint16_t value;
} phy_initial[] = {
    { PHY_CONTROL, 0x1140 }, /* negotiate, full duplex, 1000 Mb/s */
    { PHY_STATUS, 0x7949 },  /* what it can do; link bits are added */
    { PHY_ID1, 0x0141 },
    { PHY_ID2, 0x0cb1 }, /* BME1000, revision 1 */
    { PHY_ADVERTISE, 0x0de1 },
    { PHY_PARTNER, 0x4de1 },
    { PHY_EXPANSION, 0x0007 },
    { PHY_1000_CONTROL, 0x0e00 },
    { PHY_1000_STATUS, 0x3c00 },
    { PHY_EXTENDED_STATUS, 0x3000 },
    { PHY_COPPER_CONTROL, 0x0060 },
    { PHY_COPPER_STATUS, 0xac08 }, /* 1000 Mb/s, full duplex, resolved, link */
};

static bool is_read_only(unsigned number)
{
    return number == PHY_STATUS || number == PHY_ID1 || number == PHY_ID2 || number == PHY_PARTNER ||
           number == PHY_EXPANSION || number == PHY_1000_STATUS || number == PHY_EXTENDED_STATUS ||
           number == PHY_COPPER_STATUS;
}

static void phy_reset(struct e1000e *nic)
{
    memset(nic->phy, 0, sizeof(nic->phy));
    for (size_t i = 0; i < ARRAY_SIZE(phy_initial); i++)
        nic->phy[phy_initial[i].number] = phy_initial[i].value;
}

void e1000e_link_reset(struct e1000e *nic)
{
    phy_reset(nic);
    e1000e_link_update(nic, false);
}

static bool is_up(const struct e1000e *nic)
{
    return net_nic_link_up(&nic->nic) || (nic->phy[PHY_CONTROL] & CONTROL_LOOPBACK);
}

/* signal: raise LSC if it has changed. */
void e1000e_link_update(struct e1000e *nic, bool signal)
{
    uint32_t *status = e1000e_register(nic, STATUS);
    bool was_up = *status & STATUS_LU;

    if (is_up(nic)) {
        *status |= STATUS_LU;
        nic->phy[PHY_STATUS] |= STATUS_LINK | STATUS_NEGOTIATED;
        nic->phy[PHY_COPPER_STATUS] = 0xac08;
    } else {
        *status &= ~(uint32_t)STATUS_LU;
        nic->phy[PHY_STATUS] &= (uint16_t) ~(STATUS_LINK | STATUS_NEGOTIATED);
        nic->phy[PHY_COPPER_STATUS] = 0x8000;
    }
    if (signal && was_up != is_up(nic))
        e1000e_interrupt_raise(nic, INT_LSC);
}

uint32_t e1000e_read_status(const struct e1000e *nic)
{
    uint32_t value = e1000e_get(nic, STATUS) | STATUS_FD | STATUS_SPEED_1000;

    return e1000e_get(nic, CTRL) & CTRL_GIO_MASTER_DISABLE ? value : value | STATUS_GIO_MASTER_ENABLE;
}

/* Registers 0 to 15, 22 and 29 are the same in all pages. */
static uint16_t *phy_register(struct e1000e *nic, unsigned number)
{
    unsigned page = nic->phy[PHY_PAGE] % E1000E_PHY_PAGES;

    return &nic->phy[number < 16 || number == PHY_PAGE || number == PHY_OTHER_PAGE ? number : page * 32 + number];
}

static void phy_write(struct e1000e *nic, unsigned number, uint16_t value)
{
    if (is_read_only(number) && !(number > 15 && nic->phy[PHY_PAGE] % E1000E_PHY_PAGES))
        return;
    if (number != PHY_CONTROL) {
        *phy_register(nic, number) = value;
        return;
    }
    if (value & CONTROL_RESET) {
        phy_reset(nic);
        e1000e_link_update(nic, false);
    }
    nic->phy[PHY_CONTROL] = value & (uint16_t) ~(CONTROL_RESET | CONTROL_RESTART);
    e1000e_link_update(nic, true);
    if ((value & CONTROL_RESTART) && is_up(nic))
        e1000e_interrupt_raise(nic, INT_LSC); /* down and up */
}

/*  30 E  29 I  28 R  27:26 op (1 write, 2 read)  25:21 PHY  20:16 register  15:0 data */
void e1000e_write_mdic(struct e1000e *nic, uint32_t value)
{
    unsigned number = value >> 16 & 31, address = value >> 21 & 31, operation = value >> 26 & 3;
    uint32_t result = value & ~(uint32_t)(MDIC_ERROR | MDIC_READY);

    if (address != PHY_ADDRESS || operation == 0 || operation == 3)
        result |= MDIC_ERROR;
    else if (operation == 1)
        phy_write(nic, number, (uint16_t)value);
    else
        result = (result & 0xffff0000) | *phy_register(nic, number);
    *e1000e_register(nic, MDIC) = result | MDIC_READY;
    if (value & MDIC_INTERRUPT)
        e1000e_interrupt_raise(nic, INT_MDAC);
}

/* ---- EEPROM ---- */

/* 6.1: addresses, configuration words; the sum of the first 64 words is 0xbaba. */
void e1000e_nvm_init(struct e1000e *nic)
{
    uint16_t sum = 0;

    memset(nic->nvm, 0, sizeof(nic->nvm));
    for (unsigned i = 0; i < 3; i++)
        nic->nvm[i] = (uint16_t)(nic->nic.mac[2 * i] | nic->nic.mac[2 * i + 1] << 8);
    nic->nvm[0x03] = 0x0420;
    nic->nvm[0x05] = 0xf746;
    nic->nvm[0x06] = 0x2010;
    nic->nvm[0x07] = 0xffff;
    nic->nvm[0x0a] = 0x026b;
    nic->nvm[0x0b] = 0x0000; /* subsystem */
    nic->nvm[0x0c] = 0x8086;
    nic->nvm[0x0d] = 0x10d3;
    nic->nvm[0x0f] = 0x8058;
    nic->nvm[0x13] = 0x7e94;
    nic->nvm[0x37] = 0xffff; /* no alternate address */
    for (unsigned i = 0; i < E1000E_NVM_WORDS - 1; i++)
        sum = (uint16_t)(sum + nic->nvm[i]);
    nic->nvm[0x3f] = (uint16_t)(0xbaba - sum);
}

/* 31:16 data, 15:2 address, 1 done, 0 start */
void e1000e_write_eerd(struct e1000e *nic, uint32_t value)
{
    uint32_t address = value >> 2 & 0x3fff, result = value & 0xfffc;

    if (value & EERD_START)
        result |= EERD_DONE | (uint32_t)(address < E1000E_NVM_WORDS ? nic->nvm[address] : 0xffff) << 16;
    *e1000e_register(nic, EERD) = result;
}
