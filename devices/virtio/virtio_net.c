/* virtio-net: the network card of virtio (virtio 1.2 section 5.1), over PCI.
 *
 *     queue 0, 2, 4 ...   receive     (virtio_net_receive.c)
 *     queue 1, 3, 5 ...   transmit
 *     the last            control     (virtio_net_control.c); queue 2 for a driver that did not take MQ
 *
 * Every offload is offered whatever the back end can do, because what it cannot is done on the way (devices/net/offload.c).
 * All queues are handled on the main loop, where the back ends are; a kick does not stop the vCPU. Device lock held. */
#include "devices/virtio/virtio_net_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/net/offload.h"

#define MQ_DEFAULT_PAIRS 4
#define DEFAULT_QUEUE    256

/* ---- Transmission ---- */

/* The packet of a chain, behind its header. False: the driver has broken the rules. */
static bool take_packet(struct virtio_net *net, const struct dma_list *list, struct iovec *iov,
                        struct net_packet *packet)
{
    unsigned header_size = virtio_net_header_size(net), count = 0;
    size_t skip = header_size;

    if (dma_list_copy_from(list, 0, &packet->offload, sizeof(packet->offload)) != sizeof(packet->offload) ||
        list->size < header_size)
        return false;
    packet->size = list->size - header_size;
    packet->iov = iov;
    if (packet->size > NET_MAX_PACKET)
        return true; /* net_send() drops it */
    for (unsigned i = 0; i < list->count; i++) {
        if (skip >= list->iov[i].iov_len) {
            skip -= list->iov[i].iov_len;
            continue;
        }
        if (count == NET_MAX_PIECES) {
            dma_list_copy_from(list, header_size, net->linear, packet->size);
            iov[0] = (struct iovec){ net->linear, packet->size };
            count = 1;
            break;
        }
        iov[count++] = (struct iovec){ (uint8_t *)list->iov[i].iov_base + skip, list->iov[i].iov_len - skip };
        skip = 0;
    }
    packet->iov_count = count;
    return true;
}

static void transmit(struct virtio_net *net, struct virtqueue *queue)
{
    struct virtqueue_element *element = &net->send_element;
    struct iovec iov[NET_MAX_PIECES];

    while (net_can_send(&net->nic.client) && virtqueue_pop(queue, element)) {
        struct net_packet packet = { 0 };

        if (element->writable.count || !take_packet(net, &element->readable, iov, &packet)) {
            virtqueue_fail(queue, "transmit chain without a header, or to write to");
            return;
        }
        if (virtio_has(&net->pci.vdev, VIRTIO_NET_F_CSUM))
            packet.offload.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
        else
            packet.offload = (struct virtio_net_hdr){ 0 };
        net_send(&net->nic.client, &packet);
        virtqueue_push(queue, element, 0);
    }
    virtqueue_notify(queue);
}

/* Which queue is the control queue depends on what the driver took. */
static bool is_control(const struct virtio_net *net, unsigned number)
{
    return number == (virtio_has(&net->pci.vdev, VIRTIO_NET_F_MQ) ? 2 * net->pairs_max : 2);
}

static void kicked(struct virtqueue *queue)
{
    struct virtio_net *net = virtio_net_of(queue);
    unsigned number = virtqueue_number(queue);

    if (is_control(net, number))
        virtio_net_control(net, queue);
    else if (number % 2)
        transmit(net, queue);
    else
        virtio_net_receive_kicked(queue);
}

/* ---- The network's side ---- */

static void peer_ready(struct net_client *client)
{
    struct virtio_net *net = container_of(client, struct virtio_net, nic.client);

    for (unsigned i = 0; i < net->pairs; i++)
        virtqueue_kick(virtio_queue(&net->pci.vdev, 2 * i + 1));
}

static uint16_t config_status(const struct virtio_net *net)
{
    return (net_nic_link_up(&net->nic) ? VIRTIO_NET_S_LINK_UP : 0) | (net->announce ? VIRTIO_NET_S_ANNOUNCE : 0);
}

static void link_changed(struct net_client *client)
{
    struct virtio_net *net = container_of(client, struct virtio_net, nic.client);

    virtio_config_set(&net->pci.vdev, offsetof(struct virtio_net_config, status), 2, config_status(net));
    if (net->filtering && virtio_has(&net->pci.vdev, VIRTIO_NET_F_STATUS))
        virtio_config_changed(&net->pci.vdev);
}

static const struct net_client_ops nic_ops = {
    .kind = "nic",
    .can_receive = virtio_net_can_receive,
    .receive = virtio_net_receive,
    .peer_ready = peer_ready,
    .peer_changed = link_changed,
    .link_changed = link_changed,
};

/* ---- virtio's side ---- */

/* Which features need which (5.1.3.1); a driver that takes one without the other gets neither. */
static bool features_accepted(struct virtio_device *vdev)
{
    static const struct {
        uint8_t feature, needs;
    } rules[] = {
        { VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM },
        { VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_CSUM },
        { VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_CSUM },
        { VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_CSUM },
        { VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_CSUM },
        { VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_CSUM },
        { VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VQ },
        { VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ },
        { VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ },
        { VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VQ },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (virtio_has(vdev, rules[i].feature) && !virtio_has(vdev, rules[i].needs))
            return false;
    }
    return true;
}

static void started(struct virtio_device *vdev)
{
    struct virtio_net *net = container_of(vdev, struct virtio_net, pci.vdev);

    net->filtering = true;
    virtio_net_update_offloads(net);
    net_client_resume(&net->nic.client);
}

static void reset_queues(struct virtio_device *vdev)
{
    struct virtio_net *net = container_of(vdev, struct virtio_net, pci.vdev);

    net->filtering = false;
    virtio_net_filter_reset(net);
    memcpy(vdev->config, net->nic.mac, NET_MAC_SIZE);
    virtio_config_set(vdev, offsetof(struct virtio_net_config, status), 2, config_status(net));
    net_client_purge(&net->nic.client);
    net_client_set_accepts(&net->nic.client, 0);
}

/* Before version 1 and the control queue's command, drivers set the address here. */
static void config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_net *net = container_of(vdev, struct virtio_net, pci.vdev);

    if (virtio_has(vdev, VIRTIO_F_VERSION_1) || offset + size > NET_MAC_SIZE)
        return;
    for (unsigned i = 0; i < size; i++)
        net->mac[offset + i] = vdev->config[offset + i] = (uint8_t)(value >> 8 * i);
}

static const struct virtio_class net_class = {
    .name = "virtio-net",
    .device_id = 1,
    .features_accepted = features_accepted,
    .started = started,
    .reset = reset_queues,
    .config_write = config_write,
};

/* ---- Life ---- */

struct feature_option {
    const char *name;
    uint8_t bit;
    bool initially;
};
static const struct feature_option feature_options[] = {
    { "csum", VIRTIO_NET_F_CSUM, true },
    { "guest_csum", VIRTIO_NET_F_GUEST_CSUM, true },
    { "guest_tso4", VIRTIO_NET_F_GUEST_TSO4, true },
    { "guest_tso6", VIRTIO_NET_F_GUEST_TSO6, true },
    { "guest_ecn", VIRTIO_NET_F_GUEST_ECN, true },
    { "guest_ufo", VIRTIO_NET_F_GUEST_UFO, true },
    { "host_tso4", VIRTIO_NET_F_HOST_TSO4, true },
    { "host_tso6", VIRTIO_NET_F_HOST_TSO6, true },
    { "host_ecn", VIRTIO_NET_F_HOST_ECN, true },
    { "host_ufo", VIRTIO_NET_F_HOST_UFO, true },
    { "mrg_rxbuf", VIRTIO_NET_F_MRG_RXBUF, true },
    { "status", VIRTIO_NET_F_STATUS, true },
    { "ctrl_vq", VIRTIO_NET_F_CTRL_VQ, true },
    { "ctrl_rx", VIRTIO_NET_F_CTRL_RX, true },
    { "ctrl_rx_extra", VIRTIO_NET_F_CTRL_RX_EXTRA, true },
    { "ctrl_vlan", VIRTIO_NET_F_CTRL_VLAN, true },
    { "ctrl_mac_addr", VIRTIO_NET_F_CTRL_MAC_ADDR, true },
    { "ctrl_guest_offloads", VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, true },
    { "guest_announce", VIRTIO_NET_F_GUEST_ANNOUNCE, true },
    { "mq", VIRTIO_NET_F_MQ, false },
};

static int read_features(struct virtio_net *net, struct option_list *options, struct error *err)
{
    struct virtio_device *vdev = &net->pci.vdev;
    bool gso, on;
    uint64_t mtu;
    int result = options_get_bool(options, "gso", true, &gso, err);

    for (size_t i = 0; !result && i < ARRAY_SIZE(feature_options); i++) {
        result = options_get_bool(options, feature_options[i].name, feature_options[i].initially, &on, err);
        if (on)
            vdev->host_features |= BIT(feature_options[i].bit);
    }
    if (result || (result = options_get_u64(options, "host_mtu", 0, &mtu, err)))
        return result;
    if (mtu && (mtu < 68 || mtu > 65535))
        return error_set(err, EINVAL, "host_mtu=%llu: 68 to 65535 expected", (unsigned long long)mtu);
    if (!gso)
        vdev->host_features &= ~(BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
                                 BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_HOST_UFO));
    vdev->host_features |= BIT(VIRTIO_NET_F_MAC) | (mtu ? BIT(VIRTIO_NET_F_MTU) : 0);
    virtio_config_set(vdev, offsetof(struct virtio_net_config, mtu), 2, mtu);
    return 0;
}

/* A queue's size: a power of two. */
static int read_size(struct option_list *options, const char *name, unsigned *size, struct error *err)
{
    uint64_t value;
    int result = options_get_u64(options, name, DEFAULT_QUEUE, &value, err);

    if (!result && (value < 64 || value > VIRTQUEUE_SIZE_MAX || (value & (value - 1))))
        result = error_set(err, EINVAL, "%s=%llu: a power of two from 64 to %u expected", name,
                           (unsigned long long)value, VIRTQUEUE_SIZE_MAX);
    *size = (unsigned)value;
    return result;
}

/* mq=on: as many pairs as the vectors are for (two each, one for the configuration, one for the control queue). */
static int read_pairs(struct virtio_net *net, struct option_list *options, unsigned *vectors, struct error *err)
{
    uint64_t value;
    int result = options_get_u64(options, "vectors", 0, &value, err);

    if (result)
        return result;
    net->pairs_max = 1;
    if (net->pci.vdev.host_features & BIT(VIRTIO_NET_F_MQ)) {
        net->pairs_max = MQ_DEFAULT_PAIRS;
        if (value)
            net->pairs_max = (unsigned)MIN(value > 4 ? (value - 2) / 2 : 1, VIRTIO_NET_PAIRS_MAX);
    }
    if (net->pairs_max == 1)
        net->pci.vdev.host_features &= ~BIT(VIRTIO_NET_F_MQ);
    virtio_config_set(&net->pci.vdev, offsetof(struct virtio_net_config, max_virtqueue_pairs), 2, net->pairs_max);
    *vectors = net->pairs_max == 1 ? 3 : 2 * net->pairs_max + 2;
    return 0;
}

static int add_queues(struct virtio_net *net, struct option_list *options, struct error *err)
{
    unsigned receive_size, transmit_size;
    int result;

    if ((result = read_size(options, "rx_queue_size", &receive_size, err)) ||
        (result = read_size(options, "tx_queue_size", &transmit_size, err)))
        return result;
    for (unsigned i = 0; i < 2 * net->pairs_max + 1; i++) {
        bool control = i == 2 * net->pairs_max, receive = i % 2 == 0 && !control;
        unsigned size = control ? 64 : receive ? receive_size : transmit_size;

        if (!virtio_add_queue(&net->pci.vdev, size, kicked, receive ? VIRTQUEUE_MANUAL : 0, err))
            return -ENOMEM;
    }
    net->receive_elements = calloc(VIRTIO_NET_CHAIN_MAX, sizeof(*net->receive_elements));
    net->linear = malloc(NET_MAX_PACKET);
    if (!net->receive_elements || !net->linear)
        return error_set(err, ENOMEM, "out of memory");
    for (unsigned i = 0; i < VIRTIO_NET_CHAIN_MAX; i++)
        virtqueue_element_init(&net->receive_elements[i], virtio_queue(&net->pci.vdev, 0));
    virtqueue_element_init(&net->send_element, virtio_queue(&net->pci.vdev, 1));
    virtqueue_element_init(&net->control_element, virtio_queue(&net->pci.vdev, 2));
    return 0;
}

static void destroy_net(struct device *device)
{
    struct virtio_net *net = container_of(device, struct virtio_net, pci.pci.device);

    virtio_pci_destroy(device); /* no handler runs any more */
    net_nic_remove(&net->nic);
    for (unsigned i = 0; net->receive_elements && i < VIRTIO_NET_CHAIN_MAX; i++)
        virtqueue_element_free(&net->receive_elements[i]);
    virtqueue_element_free(&net->send_element);
    virtqueue_element_free(&net->control_element);
    free(net->receive_elements);
    free(net->linear);
}

static int init_net(struct device *device, struct option_list *options, struct error *err)
{
    struct virtio_net *net = container_of(device, struct virtio_net, pci.pci.device);
    struct virtio_pci_config config = { .class_code = 0x020000, .transitional_id = 0x1000 };
    int result = virtio_pci_begin(&net->pci, &net_class, options, err);

    if (!result)
        result = read_features(net, options, err);
    if (!result)
        result = read_pairs(net, options, &config.vectors, err);
    if (!result)
        result = add_queues(net, options, err);
    net->pci.vdev.config_size = VIRTIO_NET_CONFIG_SIZE;
    if (!result)
        result = net_nic_init(&net->nic, device->env, &nic_ops, device->id, options, err);
    if (!result)
        result = virtio_pci_attach(&net->pci, &config, options, err);
    if (result)
        destroy_net(device);
    return result;
}

/* ---- State ---- */

static int post_load(void *owner, struct error *err)
{
    struct virtio_net *net = owner;
    bool *const bools[] = { &net->promiscuous, &net->all_multicast, &net->all_unicast,      &net->no_multicast,
                            &net->no_unicast,  &net->no_broadcast,  &net->unicast_overflow, &net->multicast_overflow,
                            &net->announce,    &net->filtering };
    int result;

    for (size_t i = 0; i < ARRAY_SIZE(bools); i++)
        device_load_bool(bools[i]);
    net->mac_count = MIN(net->mac_count, VIRTIO_NET_MACS);
    net->first_multicast = MIN(net->first_multicast, net->mac_count);
    net->pairs = MAX(MIN(net->pairs, net->pairs_max), 1);
    result = virtio_pci_post_load(owner, err);
    if (result)
        return result;
    memcpy(net->pci.vdev.config, net->mac, NET_MAC_SIZE);
    virtio_config_set(&net->pci.vdev, offsetof(struct virtio_net_config, status), 2, config_status(net));
    virtio_net_update_offloads(net);
    return 0;
}

static const struct state_field net_fields[] = {
    VIRTIO_PCI_STATE(struct virtio_net, pci),
    STATE_FIELD(struct virtio_net, filtering),
    STATE_FIELD(struct virtio_net, pairs),
    STATE_ARRAY(struct virtio_net, mac),
    STATE_FIELD(struct virtio_net, promiscuous),
    STATE_FIELD(struct virtio_net, all_multicast),
    STATE_FIELD(struct virtio_net, all_unicast),
    STATE_FIELD(struct virtio_net, no_multicast),
    STATE_FIELD(struct virtio_net, no_unicast),
    STATE_FIELD(struct virtio_net, no_broadcast),
    STATE_FIELD(struct virtio_net, unicast_overflow),
    STATE_FIELD(struct virtio_net, multicast_overflow),
    STATE_FIELD(struct virtio_net, mac_count),
    STATE_FIELD(struct virtio_net, first_multicast),
    { "macs", offsetof(struct virtio_net, macs), 1, VIRTIO_NET_MACS *NET_MAC_SIZE },
    STATE_ARRAY(struct virtio_net, vlans),
    STATE_FIELD(struct virtio_net, guest_offloads),
    STATE_FIELD(struct virtio_net, announce),
    STATE_END,
};
static const struct state_table net_state = {
    .name = "virtio-net",
    .version = 1,
    .fields = net_fields,
    .pre_save = virtio_pci_pre_save,
    .post_load = post_load,
};

VIRTIO_PCI_TYPES(virtio_net, "virtio-net", .description = "network card", .size = sizeof(struct virtio_net),
                 .init = init_net, .reset = virtio_pci_reset, .destroy = destroy_net, .state = &net_state,
                 .properties = "netdev=<id>,mac=<address>,csum=<bool>,guest_csum=<bool>,gso=<bool>,guest_tso4=<bool>,"
                               "guest_tso6=<bool>,guest_ecn=<bool>,guest_ufo=<bool>,host_tso4=<bool>,host_tso6=<bool>,"
                               "host_ecn=<bool>,host_ufo=<bool>,mrg_rxbuf=<bool>,status=<bool>,ctrl_vq=<bool>,"
                               "ctrl_rx=<bool>,ctrl_rx_extra=<bool>,ctrl_vlan=<bool>,ctrl_mac_addr=<bool>,"
                               "ctrl_guest_offloads=<bool>,guest_announce=<bool>,mq=<bool>,host_mtu=<uint16>,"
                               "rx_queue_size=<uint16>,tx_queue_size=<uint16>," VIRTIO_PCI_PROPERTIES);
