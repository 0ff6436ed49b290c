/* UART, debug console and character back ends. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/char/debugcon.h"
#include "devices/char/uart16550.h"
#include "rig.h"

static struct rig rig;
static struct chardev_registry *registry;
static struct chardev *chardev;
static struct uart16550 *uart;
static int to_stdin = -1, from_stdout = -1;
static unsigned quits, raws, cooked;
static bool raw_signals;

static void enter_raw(bool signals)
{
    raws++, raw_signals = signals;
}
static void leave_raw(void)
{
    cooked++;
}
static void quit(void *opaque)
{
    (void)opaque;
    quits++;
}
static const struct chardev_terminal terminal = { .enter_raw = enter_raw, .leave_raw = leave_raw, .quit = quit };

/* Standard input and output become pipes whose other ends we hold. */
static void start(const char *spec)
{
    int in[2], out[2];
    struct error err = { "" };

    rig_init(&rig);
    cr_assert(pipe(in) == 0 && pipe(out) == 0);
    dup2(in[0], 0), close(in[0]);
    dup2(out[1], 1), close(out[1]);
    to_stdin = in[1];
    from_stdout = out[0];
    fcntl(from_stdout, F_SETFL, O_NONBLOCK);
    registry = chardev_registry_create(rig.env.loop, &terminal, &err);
    chardev = chardev_open_legacy(registry, "serial0", spec, &err);
    cr_assert_not_null(chardev, "%s", err.text);
    uart = uart16550_create(&rig.env, 0, chardev, &err);
    cr_assert_not_null(uart, "%s", err.text);
}

static void stop(void)
{
    uart16550_destroy(uart);
    if (registry)
        chardev_registry_destroy(registry);
    else
        chardev_destroy(chardev);
    rig_destroy(&rig);
}

static void type(const char *text, size_t size)
{
    cr_assert_eq(write(to_stdin, text, size), (ssize_t)size);
    while (fake_loop_poll(0)) {
    }
}

static const char *output(void)
{
    static char text[100000];
    ssize_t size;

    fake_time_advance(2000000);
    size = read(from_stdout, text, sizeof(text) - 1);
    text[size > 0 ? size : 0] = 0;
    return text;
}

enum { RBR = 0x3f8, IER, IIR, LCR, MCR, LSR, MSR, SCR };

/* ---- UART ---- */

Test(uart, output)
{
    start("stdio");
    cr_assert_eq(in8(&rig, LSR), 0x60);
    for (const char *p = "hello\n"; *p; p++)
        out8(&rig, RBR, *p);
    cr_assert_eq(in8(&rig, LSR), 0x60);
    cr_assert_str_eq(output(), "hello\n");
    stop();
    cr_assert(raws == 1 && cooked == 1 && raw_signals);
}

Test(uart, transmit_interrupt)
{
    start("stdio");
    out8(&rig, IER, 2);
    cr_assert_not(rig.isa[4].level, "OUT2 is off");
    out8(&rig, MCR, 8);
    cr_assert(rig.isa[4].level);
    cr_assert_eq(in8(&rig, IIR), 2);
    cr_assert_not(rig.isa[4].level, "reading IIR acknowledges it");
    cr_assert_eq(in8(&rig, IIR), 1);
    out8(&rig, IER, 0), out8(&rig, IER, 2);
    cr_assert(rig.isa[4].level, "enabling it again asks again");
    out8(&rig, RBR, 'x');
    cr_assert(rig.isa[4].level);
    stop();
}

Test(uart, receive_with_fifo)
{
    start("stdio");
    out8(&rig, MCR, 8), out8(&rig, IER, 1), out8(&rig, IIR, 0x81); /* trigger at 8 */
    cr_assert_eq(in8(&rig, IIR), 0xc1);
    type("abc", 3);
    cr_assert_eq(in8(&rig, LSR) & 1, 1);
    cr_assert_not(rig.isa[4].level);
    fake_time_advance(10000000);
    cr_assert(rig.isa[4].level);
    cr_assert_eq(in8(&rig, IIR), 0xcc, "time-out");
    cr_assert_eq(in8(&rig, RBR), 'a');
    cr_assert_not(rig.isa[4].level);
    type("defghijklmnopqrstuvwxyz", 23); /* more than the FIFO holds */
    cr_assert_eq(in8(&rig, IIR), 0xc4);
    for (int c = 'b'; c <= 'z'; c++)
        cr_assert_eq(in8(&rig, RBR), (unsigned)c);
    cr_assert_eq(in8(&rig, LSR), 0x60);
    cr_assert_not(rig.isa[4].level);
    stop();
}

Test(uart, receive_without_fifo)
{
    start("stdio");
    out8(&rig, MCR, 8), out8(&rig, IER, 1);
    type("ab", 2);
    cr_assert_eq(in8(&rig, IIR), 4);
    cr_assert_eq(in8(&rig, RBR), 'a');
    cr_assert_eq(in8(&rig, RBR), 'b');
    cr_assert_eq(in8(&rig, LSR) & 1, 0);
    stop();
}

Test(uart, loop_back)
{
    start("null");
    cr_assert_eq(in8(&rig, MSR), 0xb0);
    out8(&rig, MCR, 0x1a); /* loop, RTS, OUT2 */
    cr_assert_eq(in8(&rig, MSR) & 0xf0, 0x90);
    out8(&rig, RBR, 0x5a);
    cr_assert_eq(in8(&rig, LSR) & 1, 1);
    out8(&rig, RBR, 0xa5);
    cr_assert_eq(in8(&rig, LSR) & 2, 2, "overrun");
    cr_assert_eq(in8(&rig, LSR) & 2, 0);
    cr_assert_eq(in8(&rig, RBR), 0xa5);
    out8(&rig, IER, 8);
    in8(&rig, MSR);
    out8(&rig, MCR, 0x18);
    cr_assert_eq(in8(&rig, IIR), 0, "modem status");
    cr_assert_eq(in8(&rig, MSR), 0x81);
    cr_assert_eq(in8(&rig, IIR), 1);
    stop();
}

Test(uart, divisor_and_scratch)
{
    start("null");
    out8(&rig, LCR, 0x83);
    out8(&rig, RBR, 0x34), out8(&rig, IER, 0x12);
    cr_assert_eq(in8(&rig, RBR), 0x34);
    cr_assert_eq(in8(&rig, IER), 0x12);
    out8(&rig, LCR, 3);
    cr_assert_eq(in8(&rig, IER), 0);
    out8(&rig, IER, 0xff);
    cr_assert_eq(in8(&rig, IER), 0x0f);
    out8(&rig, SCR, 0x77);
    cr_assert_eq(in8(&rig, SCR), 0x77);
    out8(&rig, LSR, 0), out8(&rig, MSR, 0xff);
    cr_assert_eq(in8(&rig, LSR), 0x60);
    cr_assert_eq(uart->divisor, 0x1234);
    stop();
}

Test(uart, break_and_line_status)
{
    start("mon:stdio");
    out8(&rig, MCR, 8), out8(&rig, IER, 4);
    type("\001b", 2);
    cr_assert_eq(in8(&rig, IIR), 6);
    cr_assert_eq(in8(&rig, LSR) & 0x11, 0x11);
    cr_assert_eq(in8(&rig, IIR), 1);
    cr_assert_eq(in8(&rig, RBR), 0);
    stop();
}

/* A reader that does not read: the guest sees a busy transmitter, and goes on when the reader does. */
Test(uart, back_pressure)
{
    uint64_t seed = 42;
    unsigned sent = 0, received = 0;
    uint64_t check = 42;

    start("stdio");
    out8(&rig, MCR, 8), out8(&rig, IER, 2), out8(&rig, IIR, 1);
    while ((in8(&rig, LSR) & 0x20) && sent < 1000000)
        out8(&rig, RBR, (uint8_t)rig_random(&seed)), sent++;
    cr_assert_lt(sent, 300000, "a pipe and our buffer");
    in8(&rig, IIR);
    while (received < sent) {
        uint8_t buffer[4096];
        ssize_t size = read(from_stdout, buffer, sizeof(buffer));

        for (ssize_t i = 0; i < size; i++, received++)
            cr_assert_eq(buffer[i], (uint8_t)rig_random(&check), "byte %u", received);
        fake_time_advance(1000000);
        fake_loop_poll(0);
    }
    cr_assert(in8(&rig, LSR) & 0x20);
    cr_assert(rig.isa[4].level, "and is told so by an interrupt");
    stop();
}

Test(uart, reader_goes_away)
{
    start("stdio");
    close(from_stdout);
    for (unsigned i = 0; i < 10000; i++)
        out8(&rig, RBR, 'x');
    fake_time_advance(10000000);
    fake_loop_poll(0);
    for (unsigned i = 0; i < 10000; i++)
        out8(&rig, RBR, 'x');
    cr_assert_eq(in8(&rig, LSR), 0x60);
    stop();
}

Test(uart, state)
{
    start("stdio");
    out8(&rig, MCR, 8), out8(&rig, IER, 1), out8(&rig, IIR, 0xc1), out8(&rig, SCR, 0x42), out8(&rig, LCR, 3);
    type("abc", 3);
    rig_round_trip(&uart->device, NULL);
    fake_time_advance(100000000);
    cr_assert(rig.isa[4].level, "the time-out still comes");
    cr_assert_eq(in8(&rig, RBR), 'a');
    rig_load_garbage(&uart->device, 10, 300);
    stop();
}

/* ---- Back ends ---- */

Test(chardev, escape_keys)
{
    start("mon:stdio");
    cr_assert_not(raw_signals, "Ctrl-C goes to the guest");
    out8(&rig, IIR, 1);
    type("a\001\001b\001", 5);
    type("h", 1);
    cr_assert(strstr(output(), "C-a x"));
    type("\001c", 2);
    cr_assert(strstr(output(), "nothing else here"));
    cr_assert_eq(in8(&rig, RBR), 'a');
    cr_assert_eq(in8(&rig, RBR), 1);
    cr_assert_eq(in8(&rig, RBR), 'b');
    cr_assert_eq(quits, 0);
    type("\001x", 2);
    cr_assert_eq(quits, 1);
    stop();
}

Test(chardev, plain_stdio_has_no_escapes)
{
    start("stdio");
    out8(&rig, IIR, 1);
    type("\001x", 2);
    cr_assert_eq(quits, 0);
    cr_assert_eq(in8(&rig, RBR), 1);
    stop();
}

/* A pipe is throttled: nothing of a long script is lost, however slowly the guest reads. */
Test(chardev, long_input)
{
    char line[1000];
    unsigned written = 0, read = 0;

    start("mon:stdio");
    fcntl(to_stdin, F_SETFL, O_NONBLOCK);
    memset(line, 'q', sizeof(line));
    for (ssize_t size; (size = write(to_stdin, line, sizeof(line))) > 0;)
        written += (unsigned)size;
    close(to_stdin);
    for (unsigned i = 0; i < 200; i++)
        fake_loop_poll(0);
    for (unsigned i = 0; i < 10 * written && read < written; i++) {
        if (in8(&rig, LSR) & 1)
            read += in8(&rig, RBR) == 'q';
        if (i % 64 == 0)
            fake_time_advance(1000000), fake_loop_poll(0);
    }
    cr_assert_eq(read, written);
    stop();
}

Test(chardev, quit_works_though_the_guest_does_not_read)
{
    char line[1000];

    start("mon:stdio");
    memset(line, 'q', sizeof(line));
    type(line, 1000);
    type("\001x", 2);
    cr_assert_eq(quits, 1);
    stop();
}

Test(chardev, file_and_debugcon)
{
    char path[] = "/tmp/eidolon-test-XXXXXX", spec[64], text[16] = { 0 };
    int fd = mkstemp(path);
    struct error err = { "" };
    struct debugcon *debugcon;

    rig_init(&rig);
    snprintf(spec, sizeof(spec), "file:%s", path);
    chardev = chardev_create(rig.env.loop, spec, NULL, &err);
    cr_assert_not_null(chardev, "%s", err.text);
    debugcon = debugcon_create(&rig.env, DEBUGCON_DEFAULT_PORT, chardev, &err);
    cr_assert_eq(in8(&rig, 0xe9), 0xe9);
    for (const char *p = "debug"; *p; p++)
        out8(&rig, 0xe9, *p);
    debugcon_destroy(debugcon);
    chardev_destroy(chardev);
    cr_assert_eq(read(fd, text, sizeof(text)), 5, "written at the end at the latest");
    cr_assert_str_eq(text, "debug");
    unlink(path);
    rig_destroy(&rig);
}

Test(chardev, input_from_a_file)
{
    char path[] = "/tmp/eidolon-test-XXXXXX";
    int fd = mkstemp(path);
    struct error err = { "" };

    rig_init(&rig);
    cr_assert_eq(write(fd, "from a file", 11), 11);
    lseek(fd, 0, SEEK_SET);
    dup2(fd, 0);
    chardev = chardev_create(rig.env.loop, "stdio", NULL, &err);
    uart = uart16550_create(&rig.env, 0, chardev, &err);
    out8(&rig, IIR, 1);
    fake_time_advance(100000000);
    for (const char *p = "from a file"; *p; p++)
        cr_assert_eq(in8(&rig, RBR), (uint8_t)*p);
    cr_assert_eq(in8(&rig, LSR) & 1, 0);
    fake_time_advance(100000000);
    cr_assert_eq(fake_timers_armed(), 0, "nothing polls after the end");
    unlink(path);
    stop();
}

/* -device isa-serial and isa-debugcon: where they are, who has the chardev. */
Test(chardev, devices_by_option)
{
    static const struct {
        const char *type, *options, *says;
    } table[] = {
        { "isa-serial", "", "chardev=" },
        { "isa-serial", "chardev=b,index=0", "there already" },
        { "isa-serial", "chardev=b,index=4", "four" },
        { "isa-serial", "chardev=b,iobase=0xfffff", "not a port" },
        { "isa-serial", "chardev=b,irq=16", "irq" },
        { "isa-serial", "chardev=a", "'one'" },
        { "isa-debugcon", "chardev=none", "'none'" },
        { "isa-debugcon", "chardev=b,iobase=0x10000", "not a port" },
    };
    struct option_list options;
    struct error err = { "" };
    struct device *one, *two, *console;

    rig_init(&rig);
    rig.env.chardevs = registry = chardev_registry_create(rig.env.loop, NULL, &err);
    cr_assert(!chardev_add(registry, "ringbuf,id=a", &err) && !chardev_add(registry, "ringbuf,id=b", &err) &&
              !chardev_add(registry, "ringbuf,id=c", &err));
    options_parse(&options, "chardev=a", NULL, &err);
    one = device_create(&rig.env, device_type_find("isa-serial"), "one", &options, &err);
    cr_assert_not_null(one, "%s", err.text);
    options_free(&options);
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        err.text[0] = '\0';
        options_parse(&options, table[i].options, NULL, &err);
        cr_assert_null(device_create(&rig.env, device_type_find(table[i].type), "x", &options, &err));
        cr_assert(strstr(err.text, table[i].says), "%s: %s", table[i].options, err.text);
        options_free(&options);
    }
    options_parse(&options, "chardev=b,iobase=0x2e0,irq=7", NULL, &err);
    two = device_create(&rig.env, device_type_find("isa-serial"), "two", &options, &err);
    cr_assert_not_null(two, "%s", err.text);
    options_free(&options);
    options_parse(&options, "chardev=c,iobase=0x402,readback=0x55", NULL, &err);
    console = device_create(&rig.env, device_type_find("isa-debugcon"), "d", &options, &err);
    cr_assert_not_null(console, "%s", err.text);
    options_free(&options);
    out8(&rig, 0x3f8, '1'), out8(&rig, 0x2e0, '2'), out8(&rig, 0x402, '3');
    for (unsigned i = 0; i < 3; i++) {
        uint8_t byte = 0;
        cr_assert_eq(chardev_ringbuf_read(chardev_find(registry, i == 0 ? "a" : i == 1 ? "b" : "c"), &byte, 1), 1);
        cr_assert_eq(byte, '1' + i);
    }
    cr_assert_eq(in8(&rig, 0x402), 0x55);
    out8(&rig, 0x2e4, 8), out8(&rig, 0x2e1, 2);
    cr_assert(rig.isa[7].level, "interrupt 7");
    device_destroy(console);
    device_destroy(two);
    device_destroy(one);
    cr_assert_eq(rig.env.com_ports, 0);
    cr_assert_not_null(chardev_claim(registry, "a", "next", &err), "given back");
    chardev_registry_destroy(registry);
    rig_destroy(&rig);
}

Test(chardev, mistakes)
{
    static const struct {
        const char *spec, *says;
    } table[] = {
        { "stido", "stdio" },
        { "file:", "path" },
        { "file:/no/such/folder/x", "No such file" },
        { "vc", "no window" },
        { "telnet:localhost:1", "telnet" },
        { "tcp:localhost", "HOST:PORT" },
        { "unix:", "path" },
        { "unix:/no/such/socket", "No such file" },
        { "unix:x,server=maybe", "maybe" },
        { "", "unknown" },
        { "file:/tmp", "directory" },
    };

    rig_init(&rig);
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        struct error err = { "" };

        cr_assert_null(chardev_create(rig.env.loop, table[i].spec, NULL, &err), "%s", table[i].spec);
        cr_assert(strstr(err.text, table[i].says), "%s: %s", table[i].spec, err.text);
    }
    rig_destroy(&rig);
}
