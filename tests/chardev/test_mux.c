/* mux=on and mon:: keys, focus, sharing, breaks, events. */
#include "chardev_rig.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct front a, b;
static struct error err;
static int peer;

static void start(void)
{
    rig_start();
}

TestSuite(mux, .init = start, .fini = rig_stop, .timeout = 60);

static void connect_two(void)
{
    add("socket,id=s,path=%s,server=on,wait=off,mux=on", rig_path("sock"));
    front_claim(&a, "s", "serial0");
    front_claim(&b, "s", "console0");
    peer = peer_unix(rig_path("sock"));
    RUN_UNTIL(a.opened == 1 && b.opened == 1);
}

static void type(const char *text, size_t size)
{
    cr_assert_eq(write(peer, text, size), (ssize_t)size);
    run_for(20);
}

Test(mux, focus_moves)
{
    connect_two();
    type("1", 1);
    cr_assert(b.count == 1 && a.count == 0, "the last that came has the keys");
    type("\001c2", 3);
    cr_assert(b.count == 1 && a.count == 1);
    cr_assert(a.mux_in == 1 && b.mux_out == 1);
    type("\001", 1);
    type("C3", 2);
    cr_assert_str_eq(b.got, "13");
    send_text(&a, "from a, ");
    send_text(&b, "from b");
    cr_assert_str_eq(peer_read(peer, 14), "from a, from b");
    close(peer);
    RUN_UNTIL(a.closed == 1 && b.closed == 1);
}

Test(mux, keys)
{
    connect_two();
    type("\001b", 2);
    cr_assert(b.breaks == 1 && a.breaks == 0);
    type("\001\001\001q", 4);
    cr_assert_str_eq(b.got, "\001");
    type("\001h", 2);
    cr_assert(strstr(peer_read(peer, 100), "C-a x"));
    cr_assert_eq(quits, 0);
    type("\001x", 2);
    cr_assert_eq(quits, 1);
    cr_assert(strstr(peer_read(peer, 20), "Ctrl-A X"));
}

Test(mux, another_escape_key)
{
    chardev_registry_set_escape(registry, 0x14);
    connect_two();
    type("\001x", 2);
    cr_assert_eq(b.count, 2);
    type("\024h", 2);
    cr_assert(strstr(peer_read(peer, 100), "C-t x"));
    type("\024x", 2);
    cr_assert_eq(quits, 1);
}

Test(mux, no_escape_key)
{
    chardev_registry_set_escape(registry, 0);
    connect_two();
    type("\001x\000y", 4);
    cr_assert(b.count == 4 && quits == 0);
}

Test(mux, alone)
{
    add("socket,id=s,path=%s,server=on,wait=off,mux=on", rig_path("sock"));
    front_claim(&a, "s", "serial0");
    peer = peer_unix(rig_path("sock"));
    RUN_UNTIL(a.opened == 1);
    type("\001c", 2);
    cr_assert(strstr(peer_read(peer, 20), "nothing else"));
    type("k", 1);
    cr_assert_eq(a.count, 1);
}

Test(mux, leaving)
{
    struct chardev *more[4];

    connect_two();
    more[0] = chardev_claim(registry, "s", "third", &err);
    more[1] = chardev_claim(registry, "s", "fourth", &err);
    cr_assert(more[0] && more[1]);
    cr_assert_null(chardev_claim(registry, "s", "fifth", &err));
    cr_assert(strstr(err.text, "'serial0'") && strstr(err.text, "'fifth'"), "%s", err.text);
    chardev_release(more[1]);
    chardev_release(more[0]);
    chardev_release(b.chardev);
    type("x", 1);
    cr_assert_eq(a.count, 1, "who is left has the keys");
}

/* One that does not read holds up the reader of the socket, not more; nothing is lost. */
Test(mux, throttled)
{
    static char block[100000];
    size_t sent = 0;

    memset(block, 'k', sizeof(block));
    add("socket,id=s,path=%s,server=on,wait=off,mux=on", rig_path("sock"));
    a.limit = 1;
    front_claim(&a, "s", "serial0");
    peer = peer_unix(rig_path("sock"));
    RUN_UNTIL(a.opened == 1);
    for (unsigned i = 0; i < 30 && sent < sizeof(block); i++) {
        ssize_t part = write(peer, block + sent, sizeof(block) - sent);
        sent += part > 0 ? (size_t)part : 0;
        run_for(5);
    }
    cr_assert_eq(a.count, 1);
    a.limit = sizeof(a.got) - 1;
    for (unsigned i = 0; i < 500 && a.count < sent; i++) {
        chardev_accept_input(a.chardev);
        run_for(2);
    }
    cr_assert_eq(a.count, sent);
}

Test(mux, output_waits_for_the_reader)
{
    static uint8_t block[10000];
    unsigned refused = 0;

    connect_two();
    for (unsigned i = 0; i < 100; i++) {
        refused += chardev_write(a.chardev, block, sizeof(block)) < sizeof(block);
        refused += chardev_write(b.chardev, block, sizeof(block)) < sizeof(block);
    }
    cr_assert_gt(refused, 0u);
    while (a.writable == 0 || b.writable == 0)
        peer_read(peer, 20000);
}
