/* 16550A UART (National PC16550D data sheet): a COM port. */
#ifndef EIDOLON_DEVICES_CHAR_UART16550_H
#define EIDOLON_DEVICES_CHAR_UART16550_H

#include "devices/char/chardev.h"
#include "devices/core/device.h"

#define UART_FIFO_SIZE 16

struct uart_fifo {
    uint8_t data[UART_FIFO_SIZE];
    uint8_t head, count;
};

struct uart16550 {
    struct device device;
    struct chardev *chardev;
    bool owns_chardev; /* claimed by -device isa-serial; else the caller's */
    struct irq_line irq;
    uint16_t port;
    uint8_t index; /* COM1 is 0 */
    uint8_t ier, iir, fcr, lcr, mcr, lsr, msr, scratch;
    uint16_t divisor;
    struct uart_fifo receive, transmit;
    bool thre_pending;    /* THRE interrupt not yet acknowledged */
    bool timeout_pending; /* character time-out */
    struct timer timeout;
};

/* index 0..3: COM1 0x3f8 irq 4, COM2 0x2f8 irq 3, COM3 0x3e8 irq 4, COM4 0x2e8 irq 3. The chardev stays the
 * caller's. */
struct uart16550 *uart16550_create(struct device_env *env, unsigned index, struct chardev *chardev, struct error *err);
void uart16550_destroy(struct uart16550 *uart);

#endif
