/* virtconsole and virtserialport: a port of a virtio-serial controller, with a chardev behind it (virtio 1.2 section 5.3.6).
 *
 * Throttling. Towards the host: when the chardev comes back short, the chain goes back to the queue, `out_done` says how much of
 * it has been written, and the queue rests until the chardev is writable. Towards the guest: the chardev offers no more
 * than the next buffer has room for; when there is none, the driver's next kick asks for more. So neither side can make us
 * keep anything.
 *
 * A console always seems connected; a port is connected while somebody is at the other end of its chardev, and what
 * the guest writes meanwhile is dropped. Device lock held. */
#include "devices/virtio/virtio_serial.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

/* ---- From the guest ---- */

/* Writes the chain from byte `done` on; how far it got. */
static uint64_t write_chain(struct virtio_serial_port *port, const struct dma_list *list, uint64_t done)
{
    uint64_t offset = done;

    for (unsigned i = 0; i < list->count; i++) {
        const uint8_t *data = list->iov[i].iov_base;
        uint64_t size = list->iov[i].iov_len;

        if (offset >= size) {
            offset -= size;
            continue;
        }
        uint64_t written = chardev_write(port->chardev, data + offset, size - offset);
        done += written;
        if (written < size - offset)
            break;
        offset = 0;
    }
    return done;
}

static void guest_to_host(struct virtio_serial_port *port)
{
    struct virtqueue_element element;

    virtqueue_element_init(&element, port->out);
    while (virtqueue_pop(port->out, &element)) {
        uint64_t size = element.readable.size, done = size;

        if (port->chardev && port->host_connected)
            done = write_chain(port, &element.readable, port->out_done);
        if (done < size) {
            port->out_done = (uint32_t)done;
            virtqueue_unpop(port->out, &element);
            break;
        }
        port->out_done = 0;
        virtqueue_push(port->out, &element, 0);
    }
    virtqueue_element_free(&element);
    virtqueue_notify(port->out);
}

static void chardev_writable(void *opaque)
{
    struct virtio_serial_port *port = opaque;

    if (virtio_serial_running(port->serial))
        guest_to_host(port);
}

void virtio_serial_port_emergency(struct virtio_serial_port *port, uint8_t byte)
{
    if (port->chardev)
        chardev_write(port->chardev, &byte, 1);
}

/* ---- To the guest ---- */

static bool guest_ready(const struct virtio_serial_port *port)
{
    if (!virtio_serial_running(port->serial) || !virtqueue_ready(port->in))
        return false;
    return port->guest_connected || !virtio_serial_multiport(port->serial);
}

/* The room in the next buffer. Buffers without any go back at once. */
static size_t next_buffer(struct virtio_serial_port *port)
{
    struct virtqueue_element element;
    size_t size = 0;

    virtqueue_element_init(&element, port->in);
    while (!size && virtqueue_pop(port->in, &element)) {
        size = element.writable.size;
        if (size)
            virtqueue_unpop(port->in, &element);
        else
            virtqueue_push(port->in, &element, 0);
    }
    virtqueue_element_free(&element);
    return size;
}

static size_t can_receive(void *opaque)
{
    struct virtio_serial_port *port = opaque;
    size_t size;

    if (!guest_ready(port))
        return 0;
    size = next_buffer(port);
    if (size)
        return size;
    virtqueue_set_notification(port->in, true);
    return next_buffer(port); /* one that came before the driver saw that */
}

static void receive(void *opaque, const uint8_t *data, size_t size)
{
    struct virtio_serial_port *port = opaque;
    struct virtqueue_element element;

    virtqueue_element_init(&element, port->in);
    while (size && virtqueue_pop(port->in, &element)) {
        uint64_t part = dma_list_copy_to(&element.writable, 0, data, size);

        virtqueue_push(port->in, &element, (uint32_t)part);
        data += part;
        size -= part;
    }
    virtqueue_element_free(&element);
    virtqueue_notify(port->in);
    if (size)
        log_event(guest_errors, "%s: a buffer shrank: %zu bytes lost\n", port->device.id, size);
}

void virtio_serial_port_kicked(struct virtio_serial_port *port, bool out)
{
    if (out) {
        guest_to_host(port);
        return;
    }
    virtqueue_set_notification(port->in, false);
    if (port->chardev)
        chardev_accept_input(port->chardev);
}

void virtio_serial_port_guest_open(struct virtio_serial_port *port, bool open)
{
    port->guest_connected = open;
    if (open && port->chardev)
        chardev_accept_input(port->chardev);
}

/* ---- The other end ---- */

static void chardev_changed(void *opaque, enum chardev_event event)
{
    struct virtio_serial_port *port = opaque;

    if (port->console || (event != CHARDEV_OPENED && event != CHARDEV_CLOSED))
        return;
    port->host_connected = event == CHARDEV_OPENED;
    if (!port->host_connected)
        port->out_done = 0;
    virtio_serial_send(port, SERIAL_SEND_OPEN);
}

static const struct chardev_handlers port_handlers = {
    .can_receive = can_receive,
    .receive = receive,
    .writable = chardev_writable,
    .event = chardev_changed,
};

/* ---- Life ---- */

/* nr=, or the first free one; port 0 is for a console. */
static int choose_number(struct virtio_serial_port *port, struct option_list *options, struct error *err)
{
    struct virtio_serial *serial = port->serial;
    uint64_t number = port->console || serial->max_ports == 1 ? 0 : 1;

    while (number < serial->max_ports && serial->ports[number])
        number++;
    if (number == serial->max_ports && !options_get(options, "nr"))
        return error_set(err, ENOSPC, "no port is free on bus %s", serial->bus.id);
    int result = options_get_u64(options, "nr", number, &number, err);
    if (result)
        return result;
    if (number >= serial->max_ports)
        return error_set(err, EINVAL, "nr=: bus %s has ports 0 to %u", serial->bus.id, serial->max_ports - 1);
    if (serial->ports[number])
        return error_set(err, EBUSY, "nr=%u: '%s' has that port already", (unsigned)number,
                         serial->ports[number]->device.id);
    if (!number && !port->console && serial->max_ports > 1)
        return error_set(err, EINVAL, "nr=0: that port is for a virtconsole");
    port->number = (unsigned)number;
    return 0;
}

static int init_port(struct device *device, struct option_list *options, bool console, struct error *err)
{
    struct virtio_serial_port *port = container_of(device, struct virtio_serial_port, device);
    struct device_bus *bus = device_bus_of_option(device->env, VIRTIO_SERIAL_BUS, options, err);
    const char *name = options_get(options, "name"), *id = options_get(options, "chardev");
    unsigned queue;

    if (!bus)
        return -ENODEV;
    port->serial = bus->owner;
    port->console = port->host_connected = console;
    int result = choose_number(port, options, err);
    if (result)
        return result;
    if (name && strlen(name) >= sizeof(port->name))
        return error_set(err, EINVAL, "name=: at most %zu characters", sizeof(port->name) - 1);
    snprintf(port->name, sizeof(port->name), "%s", name ? name : "");
    queue = port->number ? 2 * port->number + 2 : 0;
    port->in = virtio_queue(&port->serial->pci.vdev, queue);
    port->out = virtio_queue(&port->serial->pci.vdev, queue + 1);
    if (id) {
        port->chardev = chardev_claim(device->env->chardevs, id, device->id, err);
        if (!port->chardev)
            return -EINVAL;
    }
    port->serial->ports[port->number] = port;
    if (port->chardev)
        chardev_set_handlers(port->chardev, &port_handlers, port);
    virtio_serial_send(port, SERIAL_SEND_ADD); /* plugged into a running machine */
    return 0;
}

static int init_console(struct device *device, struct option_list *options, struct error *err)
{
    return init_port(device, options, true, err);
}

static int init_serial_port(struct device *device, struct option_list *options, struct error *err)
{
    return init_port(device, options, false, err);
}

static void destroy_port(struct device *device)
{
    struct virtio_serial_port *port = container_of(device, struct virtio_serial_port, device);
    struct virtio_serial *serial = port->serial;

    chardev_release(port->chardev);
    if (!serial)
        return;
    serial->ports[port->number] = NULL;
    if (virtio_serial_running(serial) && virtio_serial_multiport(serial))
        serial->removed |= 1u << port->number;
}

static const struct state_field port_fields[] = {
    STATE_FIELD(struct virtio_serial_port, guest_connected),
    STATE_FIELD(struct virtio_serial_port, pending),
    STATE_FIELD(struct virtio_serial_port, out_done),
    STATE_FIELD(struct virtio_serial_port, host_connected),
    STATE_END,
};

static int post_load(void *owner, struct error *err)
{
    struct virtio_serial_port *port = owner;

    (void)err;
    port->guest_connected = port->guest_connected != 0;
    port->pending &= SERIAL_SEND_ADD | SERIAL_SEND_CONSOLE | SERIAL_SEND_NAME | SERIAL_SEND_OPEN;
    device_load_bool(&port->host_connected);
    bool connected = port->console || (port->chardev && chardev_is_open(port->chardev));
    if (port->host_connected != connected) { /* somebody has come or gone meanwhile */
        port->host_connected = connected;
        virtio_serial_send(port, SERIAL_SEND_OPEN);
    }
    if (port->chardev)
        chardev_accept_input(port->chardev);
    return 0;
}

static const struct state_table port_state = {
    .name = "virtio-serial-port",
    .version = 1,
    .fields = port_fields,
    .post_load = post_load,
};

extern const struct device_type virtconsole_type, virtserialport_type;
const struct device_type virtconsole_type = {
    .name = "virtconsole",
    .bus = VIRTIO_SERIAL_BUS,
    .description = "console port of a virtio-serial controller",
    .size = sizeof(struct virtio_serial_port),
    .user_creatable = true,
    .properties = "chardev=<str>,name=<str>,nr=<uint32>,bus=<id>",
    .init = init_console,
    .destroy = destroy_port,
    .state = &port_state,
};
const struct device_type virtserialport_type = {
    .name = "virtserialport",
    .bus = VIRTIO_SERIAL_BUS,
    .description = "named port of a virtio-serial controller",
    .size = sizeof(struct virtio_serial_port),
    .user_creatable = true,
    .properties = "chardev=<str>,name=<str>,nr=<uint32>,bus=<id>",
    .init = init_serial_port,
    .destroy = destroy_port,
    .state = &port_state,
};
