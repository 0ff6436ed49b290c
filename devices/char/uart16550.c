/* 16550A UART (National Semiconductor PC16550D data sheet, chapter 8).
 *
 * Bytes go out as fast as the chardev takes them: the transmitter is only busy while that is slow (back-pressure).
 * Reception is paced by the guest: the chardev offers bytes as the FIFO has room, so there is no overrun except in
 * loop-back.
 *
 * Invariants: the interrupt line follows the registers (update). The transmit FIFO is empty, or the chardev was
 * short and will call writable(). Threads: any, device lock held. */
#include "devices/char/uart16550.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

enum {
    REG_DATA = 0,
    REG_IER = 1,
    REG_IIR_FCR = 2,
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCRATCH = 7,
    REG_COUNT = 8
};
enum { IER_RECEIVE = 1 << 0, IER_TRANSMIT = 1 << 1, IER_LINE = 1 << 2, IER_MODEM = 1 << 3 };
enum {
    IIR_NONE = 0x01,
    IIR_MODEM = 0x00,
    IIR_TRANSMIT = 0x02,
    IIR_RECEIVE = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFOS = 0xc0
};
enum { FCR_ENABLE = 1 << 0, FCR_CLEAR_RECEIVE = 1 << 1, FCR_CLEAR_TRANSMIT = 1 << 2, FCR_TRIGGER_SHIFT = 6 };
enum { LCR_BREAK = 1 << 6, LCR_DLAB = 1 << 7 };
enum { MCR_DTR = 1 << 0, MCR_RTS = 1 << 1, MCR_OUT1 = 1 << 2, MCR_OUT2 = 1 << 3, MCR_LOOP = 1 << 4 };
enum {
    LSR_DATA = 1 << 0,
    LSR_OVERRUN = 1 << 1,
    LSR_BREAK = 1 << 4,
    LSR_THRE = 1 << 5,
    LSR_TEMT = 1 << 6,
    LSR_ERRORS = 0x1e
};
enum { MSR_CTS = 1 << 4, MSR_DSR = 1 << 5, MSR_RI = 1 << 6, MSR_DCD = 1 << 7 };

#define CLOCK_HZ       1843200u
#define MAX_TIMEOUT_NS 50000000ull

static const struct {
    uint16_t port;
    uint8_t irq;
} com_ports[4] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };

static const uint8_t trigger_levels[4] = { 1, 4, 8, 14 };

/* ---- FIFOs ---- */

static void fifo_put(struct uart_fifo *fifo, uint8_t byte)
{
    fifo->data[(fifo->head + fifo->count) % UART_FIFO_SIZE] = byte;
    fifo->count++;
}

static uint8_t fifo_take(struct uart_fifo *fifo)
{
    uint8_t byte = fifo->data[fifo->head];

    fifo->head = (fifo->head + 1) % UART_FIFO_SIZE;
    fifo->count--;
    return byte;
}

static unsigned fifo_capacity(const struct uart16550 *uart)
{
    return uart->fcr & FCR_ENABLE ? UART_FIFO_SIZE : 1; /* without FIFOs: the holding register */
}

static unsigned trigger_level(const struct uart16550 *uart)
{
    return uart->fcr & FCR_ENABLE ? trigger_levels[uart->fcr >> FCR_TRIGGER_SHIFT] : 1;
}

/* ---- Interrupts ---- */

/* By priority (table III of the data sheet). */
static uint8_t interrupt_id(const struct uart16550 *uart)
{
    if ((uart->ier & IER_LINE) && (uart->lsr & LSR_ERRORS))
        return IIR_LINE;
    if ((uart->ier & IER_RECEIVE) && uart->receive.count >= trigger_level(uart))
        return IIR_RECEIVE;
    if ((uart->ier & IER_RECEIVE) && uart->timeout_pending)
        return IIR_TIMEOUT;
    if ((uart->ier & IER_TRANSMIT) && uart->thre_pending)
        return IIR_TRANSMIT;
    if ((uart->ier & IER_MODEM) && (uart->msr & 0x0f))
        return IIR_MODEM;
    return IIR_NONE;
}

/* OUT2 is what connects the UART's interrupt to the bus on a PC. */
static void update(struct uart16550 *uart)
{
    uart->iir = interrupt_id(uart);
    irq_line_set(&uart->irq, uart->iir != IIR_NONE && (uart->mcr & MCR_OUT2));
}

/* Four characters' time at the line's speed. */
static uint64_t timeout_ns(const struct uart16550 *uart)
{
    uint64_t bits = 1 + 5 + (uart->lcr & 3) + 1 + (uart->lcr >> 3 & 1) + (uart->lcr >> 2 & 1);
    uint64_t ns = 4 * bits * 16 * MAX(uart->divisor, 1) * 1000000000ull / CLOCK_HZ;

    return MIN(ns, MAX_TIMEOUT_NS);
}

/* The character time-out runs from the last byte that came or was read, while there are bytes below the trigger
 * level. */
static void restart_timeout(struct uart16550 *uart)
{
    uart->timeout_pending = false;
    if ((uart->fcr & FCR_ENABLE) && uart->receive.count && uart->receive.count < trigger_level(uart))
        timer_arm(&uart->timeout, clock_now_ns(uart->device.env->clock) + timeout_ns(uart));
    else
        timer_disarm(&uart->timeout);
}

static void timeout_expired(void *opaque)
{
    struct uart16550 *uart = opaque;

    uart->timeout_pending = uart->receive.count != 0;
    update(uart);
}

/* ---- Receiving ---- */

static void receive_byte(struct uart16550 *uart, uint8_t byte)
{
    if (uart->receive.count >= fifo_capacity(uart)) {
        uart->lsr |= LSR_OVERRUN;
        if (uart->fcr & FCR_ENABLE)
            return; /* the FIFO is kept, the new byte is lost */
        uart->receive.count = 0;
    }
    fifo_put(&uart->receive, byte);
    uart->lsr |= LSR_DATA;
}

static size_t can_receive(void *opaque)
{
    struct uart16550 *uart = opaque;
    unsigned capacity = fifo_capacity(uart);

    if (uart->mcr & MCR_LOOP)
        return 0; /* the line is cut off; what comes waits in the chardev */
    return uart->receive.count < capacity ? capacity - uart->receive.count : 0;
}

static void receive(void *opaque, const uint8_t *data, size_t size)
{
    struct uart16550 *uart = opaque;

    for (size_t i = 0; i < size; i++)
        receive_byte(uart, data[i]);
    restart_timeout(uart);
    update(uart);
}

static void break_received(void *opaque)
{
    struct uart16550 *uart = opaque;

    receive_byte(uart, 0);
    uart->lsr |= LSR_BREAK;
    restart_timeout(uart);
    update(uart);
}

static uint8_t read_data(struct uart16550 *uart)
{
    uint8_t byte = 0;

    if (uart->receive.count) {
        byte = fifo_take(&uart->receive);
        if (!uart->receive.count)
            uart->lsr &= (uint8_t)~LSR_DATA;
        restart_timeout(uart);
        update(uart);
        chardev_accept_input(uart->chardev);
    }
    return byte;
}

static void clear_receiver(struct uart16550 *uart)
{
    uart->receive.count = 0;
    uart->lsr &= (uint8_t) ~(LSR_DATA | LSR_BREAK);
    restart_timeout(uart);
}

/* ---- Sending ---- */

static void transmitter_empty(struct uart16550 *uart)
{
    uart->transmit.count = 0;
    uart->lsr |= LSR_THRE | LSR_TEMT;
    uart->thre_pending = true;
}

static void send_out(struct uart16550 *uart)
{
    while (uart->transmit.count) {
        if (!chardev_write(uart->chardev, &uart->transmit.data[uart->transmit.head], 1))
            return; /* writable() comes when there is room */
        fifo_take(&uart->transmit);
    }
    transmitter_empty(uart);
}

static void writable(void *opaque)
{
    struct uart16550 *uart = opaque;

    if (uart->transmit.count) {
        send_out(uart);
        update(uart);
    }
}

static void write_data(struct uart16550 *uart, uint8_t byte)
{
    uart->thre_pending = false;
    if (uart->mcr & MCR_LOOP) {
        receive_byte(uart, byte);
        restart_timeout(uart);
        transmitter_empty(uart);
    } else {
        if (uart->transmit.count >= fifo_capacity(uart)) {
            log_event(guest_errors, "UART %s: byte written to a full transmitter\n", uart->device.id);
            fifo_take(&uart->transmit);
        }
        fifo_put(&uart->transmit, byte);
        uart->lsr &= (uint8_t) ~(LSR_THRE | LSR_TEMT);
        send_out(uart);
    }
    update(uart);
}

/* ---- Registers ---- */

static void write_ier(struct uart16550 *uart, uint8_t value)
{
    bool enabled = (value & IER_TRANSMIT) && !(uart->ier & IER_TRANSMIT);

    uart->ier = value & 0x0f;
    if (enabled && (uart->lsr & LSR_THRE))
        uart->thre_pending = true; /* drivers start sending that way */
    update(uart);
}

static void write_fcr(struct uart16550 *uart, uint8_t value)
{
    bool toggled = (value ^ uart->fcr) & FCR_ENABLE;

    /* The other bits only count together with the enable bit. */
    uart->fcr = value & FCR_ENABLE ? value & (uint8_t) ~(FCR_CLEAR_RECEIVE | FCR_CLEAR_TRANSMIT) : 0;
    if (toggled || (value & FCR_CLEAR_RECEIVE))
        clear_receiver(uart);
    if ((toggled || (value & FCR_CLEAR_TRANSMIT)) && uart->transmit.count)
        transmitter_empty(uart);
    restart_timeout(uart);
    update(uart);
    chardev_accept_input(uart->chardev);
}

/* In loop-back the modem outputs are the modem inputs; otherwise a peer is always there and ready. */
static void update_modem(struct uart16550 *uart)
{
    uint8_t old = uart->msr & 0xf0, lines = MSR_CTS | MSR_DSR | MSR_DCD, changed;

    if (uart->mcr & MCR_LOOP) {
        lines = (uint8_t)((uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
                          (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0));
    }
    changed = (old ^ lines) >> 4;
    if ((changed & MSR_RI >> 4) && (lines & MSR_RI))
        changed &= (uint8_t) ~(MSR_RI >> 4); /* only the trailing edge of RI counts */
    uart->msr = lines | (uart->msr & 0x0f) | changed;
}

static void write_mcr(struct uart16550 *uart, uint8_t value)
{
    bool was_loop = uart->mcr & MCR_LOOP;

    uart->mcr = value & 0x1f;
    update_modem(uart);
    update(uart);
    if (was_loop && !(value & MCR_LOOP))
        chardev_accept_input(uart->chardev);
}

static uint8_t read_iir(struct uart16550 *uart)
{
    uint8_t iir = uart->iir;

    if (iir == IIR_TRANSMIT) {
        uart->thre_pending = false;
        update(uart);
    }
    return iir | (uart->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct uart16550 *uart)
{
    uint8_t lsr = uart->lsr;

    if (lsr & LSR_ERRORS) {
        uart->lsr &= (uint8_t)~LSR_ERRORS;
        update(uart);
    }
    return lsr;
}

static uint8_t read_msr(struct uart16550 *uart)
{
    uint8_t msr = uart->msr;

    if (msr & 0x0f) {
        uart->msr &= 0xf0;
        update(uart);
    }
    return msr;
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct uart16550 *uart = opaque;
    bool dlab = uart->lcr & LCR_DLAB;

    (void)size;
    switch (offset) {
    case REG_DATA:
        return dlab ? uart->divisor & 0xff : read_data(uart);
    case REG_IER:
        return dlab ? uart->divisor >> 8 : uart->ier;
    case REG_IIR_FCR:
        return read_iir(uart);
    case REG_LCR:
        return uart->lcr;
    case REG_MCR:
        return uart->mcr;
    case REG_LSR:
        return read_lsr(uart);
    case REG_MSR:
        return read_msr(uart);
    default:
        return uart->scratch;
    }
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t wide)
{
    struct uart16550 *uart = opaque;
    bool dlab = uart->lcr & LCR_DLAB;
    uint8_t value = (uint8_t)wide;

    (void)size;
    switch (offset) {
    case REG_DATA:
        if (dlab)
            uart->divisor = (uart->divisor & 0xff00) | value;
        else
            write_data(uart, value);
        break;
    case REG_IER:
        if (dlab)
            uart->divisor = (uint16_t)((uart->divisor & 0xff) | value << 8);
        else
            write_ier(uart, value);
        break;
    case REG_IIR_FCR:
        write_fcr(uart, value);
        break;
    case REG_LCR:
        uart->lcr = value;
        break;
    case REG_MCR:
        write_mcr(uart, value);
        break;
    case REG_SCRATCH:
        uart->scratch = value;
        break;
    default:
        break; /* LSR and MSR: factory test only */
    }
}

static const struct io_ops uart_ops = { .read = port_read, .write = port_write, .min_size = 1, .max_size = 1 };

/* ---- Life ---- */

static void reset_device(struct device *device)
{
    struct uart16550 *uart = container_of(device, struct uart16550, device);

    uart->ier = uart->fcr = uart->lcr = uart->mcr = uart->scratch = 0;
    uart->divisor = 12; /* 9600, as a BIOS leaves it */
    uart->receive = uart->transmit = (struct uart_fifo){ 0 };
    uart->lsr = LSR_THRE | LSR_TEMT;
    uart->msr = MSR_CTS | MSR_DSR | MSR_DCD;
    uart->thre_pending = uart->timeout_pending = false;
    timer_disarm(&uart->timeout);
    update(uart);
    chardev_accept_input(uart->chardev);
}

static void destroy_device(struct device *device)
{
    struct uart16550 *uart = container_of(device, struct uart16550, device);

    timer_disarm(&uart->timeout);
    if (uart->chardev)
        chardev_set_handlers(uart->chardev, NULL, NULL);
    if (uart->owns_chardev)
        chardev_release(uart->chardev);
    port_space_remove(device->env->ports, uart->port, REG_COUNT, uart);
    device->env->com_ports &= (uint8_t) ~(1u << uart->index);
}

static int post_load(void *owner, struct error *err)
{
    struct uart16550 *uart = owner;

    device_load_bool(&uart->thre_pending);
    device_load_bool(&uart->timeout_pending);
    if (uart->receive.count > fifo_capacity(uart) || uart->transmit.count > fifo_capacity(uart) ||
        uart->receive.head >= UART_FIFO_SIZE || uart->transmit.head >= UART_FIFO_SIZE) {
        device_reset(&uart->device);
        return error_set(err, EINVAL, "%s: impossible FIFO in the saved state", uart->device.id);
    }
    uart->lsr = (uart->lsr & (LSR_ERRORS | LSR_TEMT | LSR_THRE)) | (uart->receive.count ? LSR_DATA : 0);
    if (!uart->timeout_pending)
        restart_timeout(uart);
    if (uart->transmit.count)
        send_out(uart);
    update(uart);
    return 0;
}

static const struct state_field uart_fields[] = {
    STATE_FIELD(struct uart16550, ier),
    STATE_FIELD(struct uart16550, fcr),
    STATE_FIELD(struct uart16550, lcr),
    STATE_FIELD(struct uart16550, mcr),
    STATE_FIELD(struct uart16550, lsr),
    STATE_FIELD(struct uart16550, msr),
    STATE_FIELD(struct uart16550, scratch),
    STATE_FIELD(struct uart16550, divisor),
    STATE_FIELD(struct uart16550, receive),
    STATE_FIELD(struct uart16550, transmit),
    STATE_FIELD(struct uart16550, thre_pending),
    STATE_FIELD(struct uart16550, timeout_pending),
    STATE_END,
};
static const struct state_table uart_state = {
    .name = "serial",
    .version = 1,
    .fields = uart_fields,
    .post_load = post_load,
};

static const struct chardev_handlers uart_handlers = {
    .can_receive = can_receive,
    .receive = receive,
    .break_received = break_received,
    .writable = writable,
};

static int start(struct uart16550 *uart, unsigned index, uint16_t port, unsigned irq, struct chardev *chardev,
                 struct error *err)
{
    struct device_env *env = uart->device.env;

    uart->chardev = chardev;
    uart->index = (uint8_t)index;
    uart->port = port;
    uart->irq = env->isa_irq[irq];
    timer_init(&uart->timeout, env->loop, timeout_expired, uart);
    device_reset(&uart->device);
    if (port_space_add(env->ports, port, REG_COUNT, &uart_ops, uart, uart->device.id, err))
        return -ENOMEM;
    env->com_ports |= (uint8_t)(1u << index);
    chardev_set_handlers(chardev, &uart_handlers, uart);
    return 0;
}

/* index=: which COM port, by default the first that is not there yet; iobase= and irq= are those of that port. */
static int read_place(struct device *device, struct option_list *options, uint64_t *index, uint64_t *port,
                      uint64_t *irq, struct error *err)
{
    unsigned next = 0;
    int result;

    while (device->env->com_ports >> next & 1)
        next++;
    result = options_get_u64(options, "index", next, index, err);
    if (result)
        return result;
    if (*index >= ARRAY_SIZE(com_ports))
        return error_set(err, EINVAL, "a PC has four serial ports");
    if (device->env->com_ports >> *index & 1)
        return error_set(err, EBUSY, "index=%u: that serial port is there already", (unsigned)*index);
    result = options_get_u64(options, "iobase", com_ports[*index].port, port, err);
    result = result ?: options_get_u64(options, "irq", com_ports[*index].irq, irq, err);
    if (result)
        return result;
    if (*port > 0x10000 - REG_COUNT)
        return error_set(err, EINVAL, "iobase 0x%llx is not a port", (unsigned long long)*port);
    if (*irq > 15)
        return error_set(err, EINVAL, "irq=%llu: there are 16", (unsigned long long)*irq);
    return 0;
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct uart16550 *uart = container_of(device, struct uart16550, device);
    const char *id = options_get(options, "chardev");
    uint64_t index, port, irq;
    int result = read_place(device, options, &index, &port, &irq, err);

    if (result)
        return result;
    if (!id)
        return error_set(err, EINVAL, "chardev= is missing");
    if (!strcmp(device->id, device->type->name))
        snprintf(device->id, sizeof(device->id), "isa-serial%u", (unsigned)index);
    struct chardev *chardev = chardev_claim(device->env->chardevs, id, device->id, err);
    if (!chardev)
        return -EINVAL;
    uart->owns_chardev = true;
    result = start(uart, (unsigned)index, (uint16_t)port, (unsigned)irq, chardev, err);
    if (result)
        chardev_release(chardev);
    return result;
}

extern const struct device_type isa_serial_type;
const struct device_type isa_serial_type = {
    .name = "isa-serial",
    .bus = "ISA",
    .description = "16550A UART",
    .size = sizeof(struct uart16550),
    .user_creatable = true,
    .properties = "chardev=<str>,index=<uint32>,iobase=<uint32>,irq=<uint32>",
    .init = init_device,
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &uart_state,
};

struct uart16550 *uart16550_create(struct device_env *env, unsigned index, struct chardev *chardev, struct error *err)
{
    static const char *const names[4] = { "serial0", "serial1", "serial2", "serial3" };
    struct uart16550 *uart;

    if (index >= ARRAY_SIZE(com_ports)) {
        error_set(err, EINVAL, "a PC has four serial ports");
        return NULL;
    }
    uart = device_allocate(env, &isa_serial_type, names[index], err);
    if (!uart)
        return NULL;
    if (start(uart, index, com_ports[index].port, com_ports[index].irq, chardev, err)) {
        uart16550_destroy(uart);
        return NULL;
    }
    return uart;
}

void uart16550_destroy(struct uart16550 *uart)
{
    device_destroy(uart ? &uart->device : NULL);
}
