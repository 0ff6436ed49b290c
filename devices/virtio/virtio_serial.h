/* Serial ports over virtio: the controller (virtio-serial-pci, in virtio_serial.c) and its ports (virtconsole, virtserialport, in
 * virtio_serial_port.c). Device lock held. */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_SERIAL_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_SERIAL_H

#include "devices/char/chardev.h"
#include "devices/core/bus.h"
#include "devices/virtio/virtio_pci.h"

#define VIRTIO_SERIAL_PORTS_MAX 31u
#define VIRTIO_SERIAL_BUS       "virtio-serial-bus"
#define VIRTIO_SERIAL_NAME_MAX  128u

/* Messages to the driver that wait for a buffer; a bit each, sent lowest first. So there is one of each kind and port at
 * most, whatever the driver does. */
enum virtio_serial_message {
    SERIAL_SEND_ADD = 1 << 0,
    SERIAL_SEND_CONSOLE = 1 << 1,
    SERIAL_SEND_NAME = 1 << 2,
    SERIAL_SEND_OPEN = 1 << 3, /* with the state at the time of sending */
};

struct virtio_serial_port {
    struct device device;
    struct virtio_serial *serial;
    struct chardev *chardev; /* or NULL: what is written vanishes */
    struct virtqueue *in, *out;
    unsigned number;
    char name[VIRTIO_SERIAL_NAME_MAX];
    bool console;
    bool host_connected;
    uint8_t guest_connected; /* the driver has it open; bool */
    uint8_t pending;         /* enum virtio_serial_message */
    uint32_t out_done;       /* bytes of the next chain that have been written already */
};

struct virtio_serial {
    struct virtio_pci pci;
    struct device_bus bus;
    unsigned max_ports;
    struct virtqueue *control_in, *control_out;
    struct virtio_serial_port *ports[VIRTIO_SERIAL_PORTS_MAX];
    uint32_t removed; /* bit per port: the driver is still to be told */
};

/* Queues another message of the port, and sends what there are buffers for. */
void virtio_serial_send(struct virtio_serial_port *port, unsigned messages);
bool virtio_serial_multiport(const struct virtio_serial *serial);
bool virtio_serial_running(const struct virtio_serial *serial);

/* The port's: its queues were kicked; the driver opened or closed it. */
void virtio_serial_port_kicked(struct virtio_serial_port *port, bool out);
void virtio_serial_port_guest_open(struct virtio_serial_port *port, bool open);
void virtio_serial_port_emergency(struct virtio_serial_port *port, uint8_t byte);

#endif
