/* virtio-serial: control messages, data both ways, throttling both ways, several ports, hostile drivers, state. The test is the
 * driver; real sockets are at the other end. */
#include "chardev_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

enum { READY = 0, ADD = 1, REMOVE = 2, PORT_READY = 3, CONSOLE = 4, RESIZE = 5, OPEN = 6, NAME = 7 };
enum { CONTROL_IN = 2, CONTROL_OUT = 3, PORT1_IN = 4, PORT1_OUT = 5, PORT2_IN = 6, PORT2_OUT = 7 };
#define MULTIPORT BIT(1)
#define VERSION_1 BIT(32)

static struct clock guest_clock;
static struct device_env env;
static struct driver driver;
static struct device *controller, *console, *port;
static struct error err;
static int peer = -1;
static gpa_t scratch;

static struct device *create(const char *name, const char *id, const char *text)
{
    struct option_list options;
    struct device *made;

    cr_assert_eq(options_parse(&options, text, NULL, &err), 0);
    made = device_create(&env, device_type_find(name), id, &options, &err);
    if (made)
        cr_assert_eq(options_check_all_used(&options, name, &err), 0, "%s", err.text);
    options_free(&options);
    return made;
}

static void start(void)
{
    rig_start();
    guest_clock = (struct clock){ .tsc_khz = 1000000, .ns_base = clock_host_ns() };
    env.clock = &guest_clock;
    env.loop = loop;
    env.chardevs = registry;
    env.mem = physmem_create(DRIVER_RAM, event_loop_mutex(loop), &err);
    cr_assert_not_null(physmem_add_ram(env.mem, 0, DRIVER_RAM, 0, "ram", &err));
    env.ports = port_space_create(event_loop_mutex(loop));
    env.pci_bus = driver_bus(&env);
    add("socket,id=s,path=%s,server=on,wait=off", rig_path("sock"));
    add("ringbuf,id=c");
    controller = create("virtio-serial", NULL, "max_ports=3");
    cr_assert_not_null(controller, "%s", err.text);
    port = create("virtserialport", "p", "chardev=s,name=org.test");
    cr_assert_not_null(port, "%s", err.text);
    console = create("virtconsole", "c", "chardev=c,bus=virtio-serial-bus.0");
    cr_assert_not_null(console, "%s", err.text);
    driver_bind(&driver, &env, controller, true);
}

static void stop(void)
{
    device_destroy(console);
    device_destroy(port);
    device_destroy(controller);
    pci_bus_destroy(env.pci_bus);
    physmem_destroy(env.mem);
    port_space_destroy(env.ports);
    rig_stop();
}

TestSuite(serial, .init = start, .fini = stop, .timeout = 60);

/* ---- The driver ---- */

static uint8_t *get(unsigned queue)
{
    uint32_t length;

    return driver_get(&driver.queues[queue], &length);
}

static void add_buffer(unsigned queue, gpa_t gpa, uint32_t size, bool writable)
{
    struct driver_buffer buffer = { gpa, size, writable };

    cr_assert(driver_add(&driver.queues[queue], &buffer, 1, driver_memory(&driver, gpa)));
    driver_kick(&driver.queues[queue], false);
}

static void give_control_buffers(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        add_buffer(CONTROL_IN, driver_allocate(&driver, 64, 8), 64, true);
}

static void say(uint32_t id, uint16_t event, uint16_t value)
{
    gpa_t gpa = driver_allocate(&driver, 8, 8);
    uint8_t *bytes = driver_memory(&driver, gpa);

    memcpy(bytes, &id, 4);
    memcpy(bytes + 4, &event, 2);
    memcpy(bytes + 6, &value, 2);
    add_buffer(CONTROL_OUT, gpa, 8, false);
    run_for(5);
    cr_assert_not_null(get(CONTROL_OUT));
}

/* The next message of the device. */
static void expect(uint32_t id, uint16_t event, uint16_t value, const char *text)
{
    uint8_t *bytes = NULL;
    uint32_t length = 0, got_id;
    uint16_t got_event, got_value;

    for (unsigned i = 0; i < 100 && !bytes; i++) {
        bytes = driver_get(&driver.queues[CONTROL_IN], &length);
        if (!bytes)
            run_for(5);
    }
    cr_assert_not_null(bytes, "no message; waited for %u", event);
    memcpy(&got_id, bytes, 4);
    memcpy(&got_event, bytes + 4, 2);
    memcpy(&got_value, bytes + 6, 2);
    cr_assert(got_id == id && got_event == event && got_value == value, "id %u event %u value %u", got_id, got_event,
              got_value);
    cr_assert_eq(length, 8 + (text ? strlen(text) : 0));
    if (text)
        cr_assert_arr_eq(bytes + 8, text, strlen(text));
}

static void expect_nothing(void)
{
    run_for(20);
    cr_assert_null(get(CONTROL_IN));
}

static void begin(void)
{
    driver_start(&driver, MULTIPORT | VERSION_1, 8, 0);
    scratch = driver_allocate(&driver, 4 * MIB, 4096);
    give_control_buffers(16);
    say(0xffffffff, READY, 1);
    expect(0, ADD, 1, NULL);
    expect(1, ADD, 1, NULL);
    say(0, PORT_READY, 1);
    expect(0, CONSOLE, 1, NULL);
    expect(0, OPEN, 1, NULL);
    say(1, PORT_READY, 1);
    expect(1, NAME, 1, "org.test");
    expect_nothing();
}

static void connect_peer(void)
{
    peer = peer_unix(rig_path("sock"));
    expect(1, OPEN, 1, NULL);
}

Test(serial, handshake_and_data)
{
    uint8_t data[100];
    uint32_t length;

    begin();
    connect_peer();
    add_buffer(PORT1_IN, scratch, 4096, true);
    cr_assert_eq(write(peer, "early", 5), 5);
    run_for(20);
    cr_assert_null(driver_get(&driver.queues[PORT1_IN], &length), "the guest has not opened it");
    say(1, OPEN, 1);
    run_for(20);
    cr_assert_not_null(driver_get(&driver.queues[PORT1_IN], &length));
    cr_assert_eq(length, 5);
    cr_assert_arr_eq(driver_memory(&driver, scratch), "early", 5);

    memcpy(driver_memory(&driver, scratch + 8192), "from the guest", 14);
    add_buffer(PORT1_OUT, scratch + 8192, 14, false);
    cr_assert_str_eq(peer_read(peer, 14), "from the guest");
    cr_assert_not_null(get(PORT1_OUT));
    add_buffer(1, scratch + 8192, 4, false); /* port 0: the console */
    run_for(20);
    cr_assert_eq(chardev_ringbuf_read(chardev_find(registry, "c"), data, 100), 4);
    close(peer);
    expect(1, OPEN, 0, NULL);
    add_buffer(PORT1_OUT, scratch + 8192, 14, false);
    run_for(20);
    cr_assert_not_null(get(PORT1_OUT), "dropped: nobody is there");
    connect_peer();
    cr_assert_str_eq(peer_read(peer, 0), "", "and not kept");
    cr_assert_gt(driver_messages[0] + driver_messages[1] + driver_messages[2], 0u, "interrupts come");
}

/* More than everybody's buffers hold, to a peer that reads late; then the other way, to a guest that has no buffers. */
Test(serial, throttling)
{
    uint8_t *ram;
    unsigned given = 0, back = 0;
    size_t got = 0, sent = 0;
    static uint8_t block[100000];

    begin();
    connect_peer();
    say(1, OPEN, 1);
    ram = driver_memory(&driver, scratch);
    for (unsigned i = 0; i < 2 * MIB; i++)
        ram[i] = (uint8_t)(i * 31 >> 3);
    while (given < 32) {
        add_buffer(PORT1_OUT, scratch + given * 65536, 65536, false);
        given++;
    }
    run_for(50);
    while (get(PORT1_OUT))
        back++;
    cr_assert_lt(back, 20u, "the guest waits");
    while (got < 2 * MIB) {
        static uint8_t data[65536];
        ssize_t size = read(peer, data, sizeof(data));

        if (size > 0) {
            cr_assert_arr_eq(data, ram + got, (size_t)size, "at %zu", got);
            got += (size_t)size;
        } else {
            run_for(2);
        }
    }
    run_for(20);
    while (get(PORT1_OUT))
        back++;
    cr_assert_eq(back, 32);

    for (unsigned i = 0; i < 50; i++) {
        for (size_t j = 0; j < sizeof(block); j++)
            block[j] = (uint8_t)((sent + j) % 253);
        ssize_t size = write(peer, block, sizeof(block));
        sent += size > 0 ? (size_t)size : 0;
        run_for(2);
    }
    cr_assert_lt(sent, 1000000u, "the peer waits");
    got = 0;
    while (got < sent) {
        uint32_t length;
        uint8_t *data = driver_get(&driver.queues[PORT1_IN], &length);

        if (!data) {
            add_buffer(PORT1_IN, scratch, 1000, true);
            run_for(1);
            continue;
        }
        for (uint32_t j = 0; j < length; j++, got++)
            cr_assert_eq(data[j], got % 253);
    }
}

/* Messages wait for buffers; each is there once. */
Test(serial, few_control_buffers)
{
    driver_start(&driver, MULTIPORT | VERSION_1, 8, 0);
    for (unsigned i = 0; i < 10; i++)
        say(0, READY, 1);
    give_control_buffers(1);
    expect(0, ADD, 1, NULL);
    expect_nothing();
    give_control_buffers(5);
    expect(1, ADD, 1, NULL);
    expect_nothing();
    for (unsigned i = 0; i < 4; i++) {
        close(peer_unix(rig_path("sock")));
        run_for(20);
    }
    say(1, PORT_READY, 1);
    device_destroy(port);
    port = NULL;
    give_control_buffers(8);
    bool removed = false;
    for (uint8_t *bytes; (run_for(5), bytes = get(CONTROL_IN));)
        removed |= bytes[4] == REMOVE && bytes[0] == 1;
    cr_assert(removed);
}

Test(serial, hostile)
{
    uint64_t seed = 1;

    begin();
    connect_peer();
    add_buffer(CONTROL_OUT, scratch, 5, false);  /* too short */
    add_buffer(PORT2_OUT, scratch, 1000, false); /* nobody's */
    add_buffer(PORT1_OUT, scratch, 10, true);    /* nothing to read in it */
    add_buffer(PORT1_IN, scratch, 10, false);    /* nothing to write to */
    say(1, OPEN, 1);
    cr_assert_eq(write(peer, "x", 1), 1);
    run_for(20);
    cr_assert_not_null(get(CONTROL_OUT));
    cr_assert_not_null(get(PORT2_OUT));
    cr_assert_not_null(get(PORT1_OUT));
    cr_assert_not_null(get(PORT1_IN));
    for (unsigned i = 0; i < 500; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        say((uint32_t)(seed >> 60 & 7 ? seed >> 33 & 3 : seed >> 32), (uint16_t)(seed >> 20 & 15),
            (uint16_t)(seed >> 10 & 1));
        if (i % 10 == 0)
            run_for(1);
        if (i % 3 == 0)
            while (get(CONTROL_IN))
                give_control_buffers(1);
    }
    driver_write(&driver, driver.device + 8, 4, 'E'); /* emergency write */
    uint8_t byte;
    cr_assert_eq(chardev_ringbuf_read(chardev_find(registry, "c"), &byte, 1), 1);
    cr_assert_eq(byte, 'E');
    cr_assert_eq(driver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET, 0);
}

/* Reset while a chain is half written: it begins anew. */
Test(serial, reset_while_throttled)
{
    begin();
    connect_peer();
    say(1, OPEN, 1);
    for (unsigned i = 0; i < 16; i++)
        add_buffer(PORT1_OUT, scratch + i * 65536, 65536, false);
    run_for(20);
    driver_set_status(&driver, 0);
    peer_read(peer, 65536);
    close(peer);
    run_for(50);
    begin();
    connect_peer();
    memcpy(driver_memory(&driver, scratch), "anew", 4);
    add_buffer(PORT1_OUT, scratch, 4, false);
    cr_assert_str_eq(peer_read(peer, 4), "anew");
}

Test(serial, without_multiport)
{
    uint32_t length;

    driver_start(&driver, VERSION_1, 2, 0);
    scratch = driver_allocate(&driver, 8192, 4096);
    memcpy(driver_memory(&driver, scratch), "plain", 5);
    add_buffer(1, scratch, 5, false);
    run_for(20);
    uint8_t data[10];
    cr_assert_eq(chardev_ringbuf_read(chardev_find(registry, "c"), data, 10), 5);
    cr_assert_arr_eq(data, "plain", 5);
    cr_assert_null(driver_get(&driver.queues[0], &length));
}

static void round_trip(struct device *device)
{
    const struct state_table *table = device->type->state;
    struct state_buffer first = { 0 }, second = { 0 };

    cr_assert_eq(state_save(&first, table, device, &err), 0, "%s", err.text);
    cr_assert_eq(state_load(&first, table, device, &err), 0, "%s", err.text);
    cr_assert_eq(state_save(&second, table, device, &err), 0, "%s", err.text);
    cr_assert(first.size == second.size && !memcmp(first.data, second.data, first.size), "%s", table->name);
    state_buffer_free(&first);
    state_buffer_free(&second);
}

Test(serial, state)
{
    begin();
    connect_peer();
    say(1, OPEN, 1);
    round_trip(controller);
    round_trip(port);
    round_trip(console);
    memcpy(driver_memory(&driver, scratch), "still there", 11);
    add_buffer(PORT1_OUT, scratch, 11, false);
    cr_assert_str_eq(peer_read(peer, 11), "still there");
}

Test(serial, mistakes)
{
    static const struct {
        const char *type, *options, *says;
    } table[] = {
        { "virtserialport", "nr=9", "0 to 2" },
        { "virtserialport", "nr=0", "'c' has" },
        { "virtserialport", "nr=1", "'p' has" },
        { "virtserialport", "bus=none", "no such bus" },
        { "virtserialport", "chardev=none", "no chardev 'none'" },
        { "virtserialport", "chardev=s", "'p' already" },
        { "virtio-serial", "max_ports=32", "max_ports" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        err.text[0] = '\0';
        cr_assert_null(create(table[i].type, "x", table[i].options), "%s", table[i].options);
        cr_assert(strstr(err.text, table[i].says), "%s: %s", table[i].options, err.text);
    }
}
