/* e1000e: which frames are received (82574 datasheet 7.1.1): VLAN, broadcast, multicast by hash, 16 addresses. Device lock held. */
#include <string.h>

#include "devices/net/e1000e_internal.h"

static bool vlan_wanted(const struct e1000e *nic, const uint8_t *frame, size_t size)
{
    unsigned tag;

    if (!(e1000e_get(nic, RCTL) & RCTL_VFE) || size < 16 ||
        (unsigned)(frame[12] << 8 | frame[13]) != (e1000e_get(nic, VET) & 0xffff))
        return true;
    tag = (frame[14] & 15u) << 8 | frame[15];
    return e1000e_get(nic, VFTA + tag / 32 * 4) >> tag % 32 & 1;
}

static bool is_own_address(const struct e1000e *nic, const uint8_t *address)
{
    for (unsigned i = 0; i < 16; i++) {
        uint32_t low = e1000e_get(nic, RAL + 8 * i), high = e1000e_get(nic, RAH + 8 * i);
        uint8_t mac[8];

        memcpy(mac, &low, 4);
        memcpy(mac + 4, &high, 4);
        if ((high & RAH_VALID) && !memcmp(mac, address, NET_MAC_SIZE))
            return true;
    }
    return false;
}

/* Twelve bits of the last two bytes; which, RCTL.MO says. */
static bool in_multicast_table(const struct e1000e *nic, const uint8_t *address)
{
    static const uint8_t shifts[] = { 4, 3, 2, 0 };
    unsigned hash = (unsigned)(address[5] << 8 | address[4]) >> shifts[e1000e_get(nic, RCTL) >> 12 & 3] & 0xfff;

    return e1000e_get(nic, MTA + hash / 32 * 4) >> hash % 32 & 1;
}

bool e1000e_wants(struct e1000e *nic, const uint8_t *frame, size_t size)
{
    static const uint8_t broadcast[NET_MAC_SIZE] = { 255, 255, 255, 255, 255, 255 };
    uint32_t control = e1000e_get(nic, RCTL);

    if (!vlan_wanted(nic, frame, size))
        return false;
    if (!memcmp(frame, broadcast, NET_MAC_SIZE)) {
        if (!(control & (RCTL_BAM | RCTL_MPE | RCTL_UPE)))
            return false;
        e1000e_count(nic, BPRC, 1);
        return true;
    }
    if (frame[0] & 1) {
        if (!(control & RCTL_MPE) && !in_multicast_table(nic, frame) && !is_own_address(nic, frame))
            return false;
        e1000e_count(nic, MPRC, 1);
        return true;
    }
    return (control & RCTL_UPE) || is_own_address(nic, frame);
}
