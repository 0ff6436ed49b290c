/* Keyboard controller, reset ports, isa-debug-exit, device types. */
#include <criterion/criterion.h>
#include <string.h>

#include "devices/board/i8042.h"
#include "devices/board/reset_ports.h"
#include "rig.h"

static struct rig rig;
static struct i8042 *i8042;
static struct pit *pit;
static struct reset_ports *ports;

static void setup(void)
{
    rig_init(&rig);
    i8042 = i8042_create(&rig.env, NULL);
    pit = pit_create(&rig.env, &rig.env.isa_irq[0], NULL);
    ports = reset_ports_create(&rig.env, pit, NULL);
}

static void teardown(void)
{
    reset_ports_destroy(ports);
    pit_destroy(pit);
    i8042_destroy(i8042);
    rig_destroy(&rig);
}

TestSuite(i8042, .init = setup, .fini = teardown);
TestSuite(ports, .init = setup, .fini = teardown);

/* Reads what is in the output buffer; -1 if nothing is. The mouse's bytes have bit 8 set. */
static int get(void)
{
    uint32_t status = in8(&rig, 0x64);

    return status & 1 ? (int)(in8(&rig, 0x60) | (status & 0x20 ? 0x100 : 0)) : -1;
}

static void controller(uint8_t command)
{
    out8(&rig, 0x64, command);
}
static void data(uint8_t value)
{
    out8(&rig, 0x60, value);
}

static void mouse(uint8_t value)
{
    controller(0xd4);
    data(value);
}

/* What Linux's i8042 driver does while it probes. */
Test(i8042, probing)
{
    cr_assert_eq(get(), -1);
    cr_assert(in8(&rig, 0x64) & 0x10, "not locked");
    controller(0x20);
    cr_assert_eq(get(), 0x47);
    controller(0xaa);
    cr_assert_eq(get(), 0x55);
    controller(0xab);
    cr_assert_eq(get(), 0);
    controller(0xa9);
    cr_assert_eq(get(), 0);
    controller(0xd3), data(0x5a); /* aux loop */
    cr_assert_eq(get(), 0x15a);
    controller(0xd3), data(0xf0);
    cr_assert_eq(get(), 0x1f0, "no multiplexer");
    controller(0xa7);
    controller(0x20);
    cr_assert_eq(get() & 0x20, 0x20, "mouse off");
    controller(0xa8);
    controller(0x20);
    cr_assert_eq(get() & 0x20, 0);
    controller(0x60), data(0x30);
    controller(0x20);
    cr_assert_eq(get(), 0x30);
    controller(0x65), data(0x99);
    controller(0x25);
    cr_assert_eq(get(), 0x99);
}

Test(i8042, keyboard)
{
    data(0xff);
    cr_assert(rig.isa[1].level);
    cr_assert_eq(get(), 0xfa);
    cr_assert(rig.isa[1].rises == 2, "an edge for each byte");
    cr_assert_eq(get(), 0xaa);
    cr_assert_not(rig.isa[1].level);
    data(0xf2);
    cr_assert(get() == 0xfa && get() == 0xab && get() == 0x41 && get() == -1, "translated");
    controller(0x60), data(0x05); /* no translation */
    data(0xf2);
    cr_assert(get() == 0xfa && get() == 0xab && get() == 0x83);
    data(0xed);
    cr_assert_eq(get(), 0xfa);
    data(0x02);
    cr_assert(get() == 0xfa && get() == -1);
    cr_assert_eq(i8042->keyboard.leds, 2);
    data(0xf0);
    cr_assert_eq(get(), 0xfa);
    data(0x00);
    cr_assert(get() == 0xfa && get() == 2);
    data(0xee);
    cr_assert_eq(get(), 0xee);
    data(0x55);
    cr_assert_eq(get(), 0xfe);
    controller(0xad);
    data(0xf4);
    cr_assert_eq(get(), 0xfa, "a write switches the keyboard on");
}

Test(i8042, mouse)
{
    static const uint8_t knock[] = { 200, 100, 80 };

    mouse(0xff);
    cr_assert(rig.isa[12].level && !rig.isa[1].level);
    cr_assert(get() == 0x1fa && get() == 0x1aa && get() == 0x100 && get() == -1);
    mouse(0xf2);
    cr_assert(get() == 0x1fa && get() == 0x100);
    for (unsigned i = 0; i < 3; i++) {
        mouse(0xf3);
        cr_assert_eq(get(), 0x1fa);
        mouse(knock[i]);
        cr_assert_eq(get(), 0x1fa);
    }
    mouse(0xf2);
    cr_assert(get() == 0x1fa && get() == 0x103, "a wheel");
    mouse(0xe9);
    cr_assert(get() == 0x1fa && get() == 0x100 && get() == 0x102 && get() == 0x100 + 80);
    mouse(0xf4), get();
    mouse(0xeb);
    cr_assert(get() == 0x1fa && get() == 0x108 && get() == 0x100 && get() == 0x100 && get() == 0x100 && get() == -1);
    mouse(0xee), get();
    mouse(0x12);
    cr_assert_eq(get(), 0x112, "wrap mode");
    mouse(0xec);
    cr_assert_eq(get(), 0x1fa);
    mouse(0x12);
    cr_assert_eq(get(), 0x1fe);
}

Test(i8042, reset_and_a20)
{
    controller(0xd0);
    cr_assert_eq(get() & 3, 3);
    controller(0xd1), data(0x01);
    cr_assert(rig.a20_changes && !rig.a20);
    controller(0xdf);
    cr_assert(rig.a20);
    cr_assert_eq(rig.resets, 0);
    controller(0xff);
    cr_assert_eq(rig.resets, 0);
    controller(0xfe);
    cr_assert_eq(rig.resets, 1);
    controller(0xd1), data(0x02);
    cr_assert_eq(rig.resets, 2);
}

Test(i8042, state)
{
    data(0xf2);
    mouse(0xf2);
    controller(0xd4);
    rig_round_trip(&i8042->device, NULL);
    cr_assert(rig.isa[1].level);
    data(0xf4); /* the pending command survived: it goes to the mouse */
    cr_assert(i8042->mouse.enabled);
    rig_load_garbage(&i8042->device, 9, 300);
}

Test(ports, resets)
{
    out8(&rig, 0xcf9, 2);
    cr_assert_eq(rig.resets, 0);
    out8(&rig, 0xcf9, 6);
    cr_assert_eq(rig.resets, 1);
    cr_assert_eq(in8(&rig, 0xcf9), 6);
    device_reset(&ports->device);
    out8(&rig, 0x92, 0);
    cr_assert_not(rig.a20);
    out8(&rig, 0x92, 3);
    cr_assert(rig.a20);
    cr_assert_eq(rig.resets, 2);
    out8(&rig, 0x80, 0xab);
    cr_assert_eq(in8(&rig, 0x80), 0xab);
}

static struct device *add(const char *text, struct error *err)
{
    struct option_list options;
    struct device *device;

    cr_assert_eq(options_parse(&options, text, "driver", err), 0);
    device = device_create(&rig.env, device_type_find(options_get(&options, "driver")), NULL, &options, err);
    options_free(&options);
    return device;
}

Test(ports, debug_exit)
{
    struct error err = { "" };
    struct device *device = add("isa-debug-exit", &err);

    cr_assert_not_null(device, "%s", err.text);
    out8(&rig, 0x501, 0x10);
    cr_assert(rig.exits == 1 && rig.exit_status == 0x21);
    in8(&rig, 0x501);
    device_destroy(device);
    out8(&rig, 0x501, 0x10);
    cr_assert_eq(rig.exits, 1);
    device = add("isa-debug-exit,iobase=0xf4,iosize=0x04", &err);
    cr_assert_not_null(device, "%s", err.text);
    out32(&rig, 0xf4, 0x100);
    cr_assert(rig.exits == 2 && rig.exit_status == 0x201);
    device_destroy(device);
    cr_assert_null(add("isa-debug-exit,iobase=0x10000", &err));
    cr_assert(strstr(err.text, "iobase"));
    cr_assert_null(add("isa-debug-exit,iosize=3", &err));
    cr_assert(strstr(err.text, "iosize"));
    cr_assert_null(add("isa-debug-exit,iobase=0xffff", &err));
    cr_assert_null(device_type_find("no-such-device"));
}
