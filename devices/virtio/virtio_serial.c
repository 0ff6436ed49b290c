/* virtio-serial-pci: the console device (virtio 1.2 section 5.3), a controller for up to 31 ports.
 *
 * Queues 0 and 1 belong to port 0, 2 and 3 carry control messages, the others follow in pairs. Messages to the driver are
 * kept as bits until it provides buffers, so that none is lost and they take no memory: see enum virtio_serial_message.
 * A driver without MULTIPORT sees port 0 alone and no messages.
 *
 * Invariant: control_in is empty, or nothing is pending. Everything is on the main loop, device lock held. */
#include "devices/virtio/virtio_serial.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define QUEUE_SIZE         128
#define CONTROL_QUEUE_SIZE 32
#define MESSAGE_MAX        256u /* longer ones from the driver are cut off: the header is all that we look at */

enum { FEATURE_SIZE = 0, FEATURE_MULTIPORT = 1, FEATURE_EMERGENCY_WRITE = 2 };
enum { CONFIG_COLUMNS = 0, CONFIG_ROWS = 2, CONFIG_MAX_PORTS = 4, CONFIG_EMERGENCY_WRITE = 8, CONFIG_SIZE = 12 };
enum {
    EVENT_DEVICE_READY = 0,
    EVENT_PORT_ADD = 1,
    EVENT_PORT_REMOVE = 2,
    EVENT_PORT_READY = 3,
    EVENT_CONSOLE_PORT = 4,
    EVENT_RESIZE = 5,
    EVENT_PORT_OPEN = 6,
    EVENT_PORT_NAME = 7,
};

/* struct virtio_console_control, little-endian as the host */
struct control {
    uint32_t id;
    uint16_t event, value;
};
static_assert(sizeof(struct control) == 8, "virtio 1.2 section 5.3.6.2");

bool virtio_serial_multiport(const struct virtio_serial *serial)
{
    return virtio_has(&serial->pci.vdev, FEATURE_MULTIPORT);
}

bool virtio_serial_running(const struct virtio_serial *serial)
{
    return (serial->pci.vdev.status & VIRTIO_STATUS_DRIVER_OK) != 0;
}

/* ---- Messages to the driver ---- */

/* False: there is no buffer. */
static bool send_message(struct virtio_serial *serial, struct control control, const char *text)
{
    struct virtqueue_element element;
    size_t size = text ? strlen(text) : 0;
    uint64_t written;
    bool sent;

    virtqueue_element_init(&element, serial->control_in);
    sent = virtqueue_pop(serial->control_in, &element);
    if (sent) {
        written = dma_list_copy_to(&element.writable, 0, &control, sizeof(control));
        written += dma_list_copy_to(&element.writable, sizeof(control), text, size);
        if (written < sizeof(control) + size)
            log_event(guest_errors, "%s: buffer for a control message too short\n", serial->pci.vdev.device->id);
        virtqueue_push(serial->control_in, &element, (uint32_t)written);
    }
    virtqueue_element_free(&element);
    return sent;
}

/* The lowest message of `port`. False: no buffer. */
static bool send_next(struct virtio_serial *serial, struct virtio_serial_port *port)
{
    unsigned message = port->pending & -port->pending;
    struct control control = { .id = port->number, .value = 1 };
    const char *text = NULL;

    switch (message) {
    case SERIAL_SEND_ADD:
        control.event = EVENT_PORT_ADD;
        break;
    case SERIAL_SEND_CONSOLE:
        control.event = EVENT_CONSOLE_PORT;
        break;
    case SERIAL_SEND_NAME:
        control.event = EVENT_PORT_NAME;
        text = port->name;
        break;
    default:
        control.event = EVENT_PORT_OPEN;
        control.value = port->host_connected;
        break;
    }
    if (!send_message(serial, control, text))
        return false;
    port->pending &= (uint8_t)~message;
    return true;
}

static bool send_removals(struct virtio_serial *serial)
{
    while (serial->removed) {
        unsigned number = (unsigned)__builtin_ctz(serial->removed);

        if (!send_message(serial, (struct control){ .id = number, .event = EVENT_PORT_REMOVE, .value = 1 }, NULL))
            return false;
        serial->removed &= ~(1u << number);
    }
    return true;
}

static void send_all(struct virtio_serial *serial)
{
    bool room;

    if (!virtio_serial_multiport(serial) || !virtio_serial_running(serial))
        return;
    room = send_removals(serial);
    for (unsigned i = 0; i < serial->max_ports && room; i++) {
        struct virtio_serial_port *port = serial->ports[i];

        while (port && port->pending && room)
            room = send_next(serial, port);
    }
    virtqueue_notify(serial->control_in);
}

void virtio_serial_send(struct virtio_serial_port *port, unsigned messages)
{
    struct virtio_serial *serial = port->serial;

    if (!virtio_serial_multiport(serial) || !virtio_serial_running(serial))
        return;
    port->pending |= (uint8_t)messages;
    send_all(serial);
}

static void control_in_kicked(struct virtqueue *queue)
{
    send_all(container_of(virtqueue_device(queue), struct virtio_serial, pci.vdev));
}

/* ---- Messages from the driver ---- */

static struct virtio_serial_port *port_of(struct virtio_serial *serial, uint32_t number)
{
    return number < serial->max_ports ? serial->ports[number] : NULL;
}

static void port_message(struct virtio_serial *serial, const struct control *control)
{
    struct virtio_serial_port *port = port_of(serial, control->id);

    if (!port) {
        log_event(guest_errors, "%s: message %u for port %u, which does not exist\n", serial->pci.vdev.device->id,
                  control->event, control->id);
        return;
    }
    switch (control->event) {
    case EVENT_PORT_READY:
        if (control->value)
            virtio_serial_send(port, (port->console ? SERIAL_SEND_CONSOLE : 0) |
                                         (port->name[0] ? SERIAL_SEND_NAME : 0) |
                                         (port->host_connected ? SERIAL_SEND_OPEN : 0));
        else
            log_event(guest_errors, "%s: the driver failed to add port %u\n", serial->pci.vdev.device->id, control->id);
        break;
    case EVENT_PORT_OPEN:
        virtio_serial_port_guest_open(port, control->value != 0);
        break;
    default:
        log_event(guest_errors, "%s: unknown message %u\n", serial->pci.vdev.device->id, control->event);
        break;
    }
}

static void control_message(struct virtio_serial *serial, const struct control *control)
{
    if (control->event != EVENT_DEVICE_READY) {
        port_message(serial, control);
        return;
    }
    if (!control->value) {
        log_event(guest_errors, "%s: the driver failed to start\n", serial->pci.vdev.device->id);
        return;
    }
    for (unsigned i = 0; i < serial->max_ports; i++) {
        if (serial->ports[i])
            virtio_serial_send(serial->ports[i], SERIAL_SEND_ADD);
    }
}

static void control_out_kicked(struct virtqueue *queue)
{
    struct virtio_serial *serial = container_of(virtqueue_device(queue), struct virtio_serial, pci.vdev);
    struct virtqueue_element element;

    virtqueue_element_init(&element, queue);
    while (virtqueue_pop(queue, &element)) {
        struct control control;

        if (dma_list_copy_from(&element.readable, 0, &control, sizeof(control)) == sizeof(control))
            control_message(serial, &control);
        else
            log_event(guest_errors, "%s: control message too short\n", serial->pci.vdev.device->id);
        virtqueue_push(queue, &element, 0);
    }
    virtqueue_element_free(&element);
    virtqueue_notify(queue);
}

/* ---- The ports' queues ---- */

static void data_kicked(struct virtqueue *queue)
{
    struct virtio_serial *serial = container_of(virtqueue_device(queue), struct virtio_serial, pci.vdev);
    unsigned number = virtqueue_number(queue);
    struct virtio_serial_port *port = port_of(serial, number < 2 ? 0 : number / 2 - 1);
    bool out = number & 1;
    struct virtqueue_element element;

    if (port) {
        virtio_serial_port_kicked(port, out);
        return;
    }
    if (!out)
        return;
    virtqueue_element_init(&element, queue); /* nobody is there: given back */
    while (virtqueue_pop(queue, &element))
        virtqueue_push(queue, &element, 0);
    virtqueue_element_free(&element);
    virtqueue_notify(queue);
}

/* ---- The device ---- */

static void reset(struct virtio_device *vdev)
{
    struct virtio_serial *serial = container_of(vdev, struct virtio_serial, pci.vdev);

    serial->removed = 0;
    for (unsigned i = 0; i < serial->max_ports; i++) {
        struct virtio_serial_port *port = serial->ports[i];

        if (port)
            port->guest_connected = port->pending = 0, port->out_done = 0;
    }
}

static void queue_reset(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_serial *serial = container_of(vdev, struct virtio_serial, pci.vdev);

    for (unsigned i = 0; i < serial->max_ports; i++) {
        if (serial->ports[i] && serial->ports[i]->out == queue)
            serial->ports[i]->out_done = 0;
    }
}

/* Without MULTIPORT there are no messages: what port 0 has received waits for the driver to run. */
static void started(struct virtio_device *vdev)
{
    struct virtio_serial *serial = container_of(vdev, struct virtio_serial, pci.vdev);

    if (!virtio_serial_multiport(serial) && serial->ports[0])
        virtio_serial_port_kicked(serial->ports[0], false);
}

/* A character for the console before queues exist (5.3.4.1). */
static void config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_serial *serial = container_of(vdev, struct virtio_serial, pci.vdev);

    (void)size;
    if (offset != CONFIG_EMERGENCY_WRITE)
        return;
    for (unsigned i = 0; i < serial->max_ports; i++) {
        if (serial->ports[i] && serial->ports[i]->console) {
            virtio_serial_port_emergency(serial->ports[i], (uint8_t)value);
            return;
        }
    }
}

static const struct virtio_class serial_class = {
    .name = "virtio-serial",
    .device_id = 3,
    .started = started,
    .reset = reset,
    .queue_reset = queue_reset,
    .config_write = config_write,
};

static const struct virtio_pci_config serial_pci_config = {
    .class_code = 0x078000,
    .transitional_id = 0x1003,
    .vectors = VIRTIO_SERIAL_PORTS_MAX + 1,
};

static bool has_room(const struct device_bus *bus)
{
    const struct virtio_serial *serial = bus->owner;

    for (unsigned i = 0; i < serial->max_ports; i++) {
        if (!serial->ports[i])
            return true;
    }
    return false;
}

/* "ID.0", or "virtio-serial-bus.N" with the first N that is free. */
static int add_bus(struct virtio_serial *serial, struct device *device, bool named, struct error *err)
{
    struct device_bus *bus = &serial->bus;
    int result = -EEXIST;

    bus->kind = VIRTIO_SERIAL_BUS;
    bus->owner = serial;
    bus->has_room = has_room;
    if (named) {
        snprintf(bus->id, sizeof(bus->id), "%.60s.0", device->id);
        return device_bus_add(device->env, bus, err);
    }
    for (unsigned n = 0; result == -EEXIST && n < 1000; n++) {
        snprintf(bus->id, sizeof(bus->id), VIRTIO_SERIAL_BUS ".%u", n);
        result = device_bus_add(device->env, bus, err);
    }
    return result;
}

static int add_queues(struct virtio_serial *serial, struct error *err)
{
    struct virtio_device *vdev = &serial->pci.vdev;
    unsigned pairs = serial->max_ports > 1 ? serial->max_ports + 1 : 1;

    for (unsigned i = 0; i < pairs; i++) {
        bool control = i == 1;
        unsigned size = control ? CONTROL_QUEUE_SIZE : QUEUE_SIZE;
        struct virtqueue *in, *out;

        in = virtio_add_queue(vdev, size, control ? control_in_kicked : data_kicked, control ? 0 : VIRTQUEUE_MANUAL,
                              err);
        out = in ? virtio_add_queue(vdev, size, control ? control_out_kicked : data_kicked, 0, err) : NULL;
        if (!out)
            return -ENOMEM;
        if (control)
            serial->control_in = in, serial->control_out = out;
    }
    return 0;
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct virtio_serial *serial = container_of(device, struct virtio_serial, pci.pci.device);
    struct virtio_device *vdev = &serial->pci.vdev;
    bool emergency, named = options_get(options, "id") != NULL;
    uint64_t max_ports;
    int result = options_get_u64(options, "max_ports", VIRTIO_SERIAL_PORTS_MAX, &max_ports, err);

    result = result ?: options_get_bool(options, "emergency-write", true, &emergency, err);
    if (result)
        return result;
    if (!max_ports || max_ports > VIRTIO_SERIAL_PORTS_MAX)
        return error_set(err, EINVAL, "max_ports=: 1 to %u", VIRTIO_SERIAL_PORTS_MAX);
    serial->max_ports = (unsigned)max_ports;
    result = virtio_pci_begin(&serial->pci, &serial_class, options, err);
    if (result)
        return result;
    vdev->config_size = CONFIG_SIZE;
    virtio_config_set(vdev, CONFIG_MAX_PORTS, 4, max_ports);
    vdev->host_features |=
        (max_ports > 1 ? BIT(FEATURE_MULTIPORT) : 0) | (emergency ? BIT(FEATURE_EMERGENCY_WRITE) : 0);
    result = add_queues(serial, err);
    result = result ?: add_bus(serial, device, named, err);
    result = result ?: virtio_pci_attach(&serial->pci, &serial_pci_config, options, err);
    if (result) {
        device_bus_remove(device->env, &serial->bus);
        virtio_pci_destroy(device);
    }
    return result;
}

static void destroy_device(struct device *device)
{
    struct virtio_serial *serial = container_of(device, struct virtio_serial, pci.pci.device);

    for (unsigned i = 0; i < serial->max_ports; i++) {
        if (serial->ports[i])
            serial->ports[i]->serial = NULL; /* the port goes next */
    }
    device_bus_remove(device->env, &serial->bus);
    virtio_pci_destroy(device);
}

static const struct state_field serial_fields[] = {
    VIRTIO_PCI_STATE(struct virtio_serial, pci),
    STATE_FIELD(struct virtio_serial, removed),
    STATE_END,
};

static int post_load(void *owner, struct error *err)
{
    struct virtio_serial *serial = owner;

    serial->removed &= (uint32_t)(BIT(serial->max_ports) - 1);
    return virtio_pci_post_load(owner, err);
}

static const struct state_table serial_state = {
    .name = "virtio-serial",
    .version = 1,
    .fields = serial_fields,
    .pre_save = virtio_pci_pre_save,
    .post_load = post_load,
};

VIRTIO_PCI_TYPES(virtio_serial, "virtio-serial", .description = "serial ports over virtio",
                 .size = sizeof(struct virtio_serial), .init = init_device, .reset = virtio_pci_reset,
                 .destroy = destroy_device, .state = &serial_state,
                 .properties = "max_ports=<uint32>,emergency-write=<bool>," VIRTIO_PCI_PROPERTIES);
