/* Sockets: both sides, unix and tcp, coming and going, floods, peers that vanish; udp. */
#include "chardev_rig.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct front a;
static struct error err;

TestSuite(sockets, .init = rig_start, .fini = rig_stop, .timeout = 60);

/* The port in "tcp:127.0.0.1:PORT,server=on". */
static unsigned port_of(const char *id)
{
    const char *name = chardev_filename(chardev_find(registry, id));

    cr_assert(!strncmp(name, "tcp:127.0.0.1:", 14), "%s", name);
    return (unsigned)atoi(name + 14);
}

Test(sockets, unix_server_and_its_clients)
{
    struct stat st;

    add("socket,id=s,path=%s,server=on,wait=off", rig_path("sock"));
    front_claim(&a, "s", "x");
    cr_assert_eq(a.opened, 0);
    cr_assert_eq(send_text(&a, "lost"), 4);
    for (unsigned round = 1; round <= 3; round++) {
        int fd = peer_unix(rig_path("sock")), second = peer_unix(rig_path("sock"));

        RUN_UNTIL(a.opened == 2 * round - 1);
        send_text(&a, "hello");
        cr_assert_str_eq(peer_read(fd, 5), "hello");
        cr_assert_eq(write(fd, "abc", 3), 3);
        cr_assert_eq(write(second, "de", 2), 2);
        run_for(20);
        cr_assert_eq(a.count, 3, "the second waits");
        close(fd);
        RUN_UNTIL(a.closed == 2 * round - 1 && a.opened == 2 * round);
        RUN_UNTIL(a.count == 5);
        a.count = 0;
        close(second);
        RUN_UNTIL(a.closed == 2 * round);
    }
    chardev_registry_destroy(registry);
    cr_assert_neq(stat(rig_path("sock"), &st), 0, "removed at the end");
    registry = chardev_registry_create(loop, NULL, &err);
}

Test(sockets, short_message_and_gone)
{
    add("socket,id=s,path=%s,server=on,wait=off", rig_path("sock"));
    a.limit = 2;
    front_claim(&a, "s", "x");
    int fd = peer_unix(rig_path("sock"));
    cr_assert_eq(write(fd, "message", 7), 7);
    close(fd);
    run_for(50);
    cr_assert(a.count == 2 && a.closed == 0, "the rest comes first");
    a.limit = 100;
    chardev_accept_input(a.chardev);
    RUN_UNTIL(a.closed == 1);
    cr_assert_str_eq(a.got, "message");
}

/* The guest never reads: a client that floods and leaves must not keep the next one out. */
Test(sockets, flood_without_a_reader)
{
    static char block[65536];
    size_t sent = 0;

    add("socket,id=s,path=%s,server=on,wait=off", rig_path("sock"));
    a.limit = 1;
    front_claim(&a, "s", "x");
    int fd = peer_unix(rig_path("sock"));
    for (unsigned i = 0; i < 50; i++) {
        ssize_t part = write(fd, block, sizeof(block));
        sent += part > 0 ? (size_t)part : 0;
        run_for(2);
    }
    cr_assert_lt(sent, 1000000u, "bounded");
    close(fd);
    fd = peer_unix(rig_path("sock"));
    RUN_UNTIL(a.opened == 2);
    send_text(&a, "hi");
    cr_assert_str_eq(peer_read(fd, 2), "hi");
}

Test(sockets, client_does_not_read_then_vanishes)
{
    static uint8_t block[10000];
    unsigned refused = 0;

    add("socket,id=s,path=%s,server=on,wait=off", rig_path("sock"));
    front_claim(&a, "s", "x");
    int fd = peer_unix(rig_path("sock"));
    RUN_UNTIL(a.opened == 1);
    for (unsigned i = 0; i < 100; i++)
        refused += chardev_write(a.chardev, block, sizeof(block)) < sizeof(block);
    cr_assert_gt(refused, 0u);
    cr_assert_eq(a.writable, 0);
    close(fd);
    RUN_UNTIL(a.closed == 1 && a.writable == 1);
    cr_assert_eq(chardev_write(a.chardev, block, sizeof(block)), sizeof(block));
}

Test(sockets, tcp_server)
{
    add("socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,nodelay=on");
    front_claim(&a, "s", "x");
    int fd = peer_tcp(port_of("s"));
    RUN_UNTIL(a.opened == 1);
    send_text(&a, "hello");
    cr_assert_str_eq(peer_read(fd, 5), "hello");
    cr_assert_eq(write(fd, "abc", 3), 3);
    RUN_UNTIL(a.count == 3);
    shutdown(fd, SHUT_WR);
    RUN_UNTIL(a.closed == 1);
}

Test(sockets, port_range_and_host_default)
{
    char spec[100];

    add("socket,id=s,host=127.0.0.1,port=0,server=on,wait=off");
    unsigned port = port_of("s");
    cr_assert(strstr(add_fails("socket,id=t,host=127.0.0.1,port=%u,server=on,wait=off", port), "in use"));
    add("socket,id=u,host=127.0.0.1,port=%u,to=%u,server=on,wait=off", port, port + 50);
    cr_assert_gt(port_of("u"), port);
    snprintf(spec, sizeof(spec), "tcp::%u,server,nowait", port_of("u") + 100);
    struct chardev *chardev = chardev_open_legacy(registry, "serial0", spec, &err);
    cr_assert_not_null(chardev, "%s", err.text);
    front_listen(&a, chardev);
    int fd = peer_tcp(port_of("u") + 100);
    RUN_UNTIL(a.opened == 1);
    close(fd);
}

static void *connect_later(void *opaque)
{
    usleep(100000);
    *(int *)opaque = peer_unix(rig_path("sock"));
    return NULL;
}

Test(sockets, waits_for_the_first_client)
{
    pthread_t thread;
    int fd;

    pthread_create(&thread, NULL, connect_later, &fd);
    add("socket,id=s,path=%s,server=on", rig_path("sock"));
    pthread_join(thread, NULL);
    front_claim(&a, "s", "x");
    cr_assert_eq(a.opened, 1);
    close(fd);
    RUN_UNTIL(a.closed == 1);
    fd = peer_unix(rig_path("sock"));
    RUN_UNTIL(a.opened == 2);
}

Test(sockets, client)
{
    int listener = listen_unix(rig_path("sock")), fd;
    char spec[200];

    snprintf(spec, sizeof(spec), "unix:%s", rig_path("sock"));
    struct chardev *chardev = chardev_open_legacy(registry, "serial0", spec, &err);
    cr_assert_not_null(chardev, "%s", err.text);
    front_listen(&a, chardev);
    cr_assert_eq(a.opened, 1);
    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    send_text(&a, "hello");
    cr_assert_str_eq(peer_read(fd, 5), "hello");
    close(fd);
    RUN_UNTIL(a.closed == 1);
    cr_assert_eq(send_text(&a, "into the void"), 13);
}

Test(sockets, client_reconnects)
{
    int listener, fd;

    add("socket,id=s,path=%s,reconnect=1", rig_path("sock")); /* nobody there yet */
    front_claim(&a, "s", "x");
    run_for(50);
    listener = listen_unix(rig_path("sock"));
    RUN_UNTIL(a.opened == 1);
    fd = accept(listener, NULL, NULL);
    close(fd);
    RUN_UNTIL(a.closed == 1 && a.opened == 2);
}

Test(sockets, tcp_client_reconnects)
{
    add("socket,id=s,host=127.0.0.1,port=0,server=on,wait=off");
    unsigned port = port_of("s");
    add("socket,id=c,host=localhost,port=%u,reconnect=1,ipv4=on", port);
    struct front c = { 0 };
    front_claim(&a, "s", "x");
    front_claim(&c, "c", "y");
    RUN_UNTIL(a.opened == 1 && c.opened == 1);
    send_text(&a, "ping");
    send_text(&c, "pong");
    RUN_UNTIL(a.count == 4 && c.count == 4);
    cr_assert_str_eq(c.got, "ping");
    cr_assert_str_eq(a.got, "pong");
}

Test(sockets, client_refused)
{
    add("socket,id=s,host=127.0.0.1,port=0,server=on,wait=off");
    unsigned port = port_of("s");
    chardev_registry_destroy(registry);
    registry = chardev_registry_create(loop, NULL, &err);
    cr_assert(strstr(add_fails("socket,id=c,host=127.0.0.1,port=%u", port), "refused"));
    cr_assert(strstr(add_fails("socket,id=c,host=no-such-host.invalid,port=1"), "no-such-host"));
}

Test(sockets, abstract_name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    socklen_t length;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "eidolon-%d", getpid());
    length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1));
    add("socket,id=s,path=%s,abstract=on,server=on,wait=off", address.sun_path + 1);
    front_claim(&a, "s", "x");
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, length), 0, "%m");
    RUN_UNTIL(a.opened == 1);
    close(fd);
}

Test(sockets, passed_descriptors)
{
    int pair[2], listener = listen_unix(rig_path("sock"));
    struct front c = { 0 };

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    fcntl(pair[1], F_SETFL, O_NONBLOCK);
    add("socket,id=s,fd=%d", pair[0]);
    front_claim(&a, "s", "x");
    send_text(&a, "hello");
    cr_assert_str_eq(peer_read(pair[1], 5), "hello");
    cr_assert(strstr(add_fails("socket,id=l,fd=%d", listener), "listens"));
    add("socket,id=l,fd=%d,server=on,wait=off", listener);
    front_claim(&c, "l", "y");
    int fd = peer_unix(rig_path("sock"));
    RUN_UNTIL(c.opened == 1);
    close(fd);
    close(pair[1]);
    shutdown(pair[0], SHUT_RDWR);
    RUN_UNTIL(a.closed == 1 && c.closed == 1);
}

Test(sockets, not_over_a_file)
{
    FILE *file = fopen(rig_path("precious"), "w");

    fputs("data", file);
    fclose(file);
    cr_assert(strstr(add_fails("socket,id=s,path=%s,server=on,wait=off", rig_path("precious")), "in use"));
    cr_assert_eq(access(rig_path("precious"), R_OK), 0);
    cr_assert(strstr(add_fails("socket,id=s,path=/tmp/%0120d,server=on,wait=off", 1), "too long"));
}

Test(sockets, udp)
{
    struct sockaddr_in address = { .sin_family = AF_INET }, from;
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    char spec[100], data[100] = { 0 };

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    getsockname(fd, (struct sockaddr *)&address, &length);
    snprintf(spec, sizeof(spec), "udp:127.0.0.1:%u@127.0.0.1:0", ntohs(address.sin_port));
    struct chardev *chardev = chardev_open_legacy(registry, "serial0", spec, &err);
    cr_assert_not_null(chardev, "%s", err.text);
    front_listen(&a, chardev);
    send_text(&a, "datagram");
    run_for(20);
    length = sizeof(from);
    cr_assert_eq(recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &length), 8, "one, whole");
    cr_assert_eq(sendto(fd, "", 0, 0, (struct sockaddr *)&from, length), 0);
    cr_assert_eq(sendto(fd, "answer", 6, 0, (struct sockaddr *)&from, length), 6);
    RUN_UNTIL(a.count == 6);
    close(fd);
    for (unsigned i = 0; i < 5; i++) {
        send_text(&a, "refused");
        run_for(5);
    }
    cr_assert_eq(a.closed, 0);
}

/* Many that come and go, some in the middle of a sentence: no descriptor is left behind. */
Test(sockets, churn)
{
    static uint8_t block[30000];
    int before = -1;
    unsigned seed = 1;

    add("socket,id=s,path=%s,server=on,wait=off", rig_path("sock"));
    front_claim(&a, "s", "x");
    for (unsigned round = 0; round < 200; round++) {
        int fd = peer_unix(rig_path("sock"));

        if (round == 20)
            before = fd;
        a.limit = rand_r(&seed) % 4 ? sizeof(a.got) - 1 : a.count;
        if (rand_r(&seed) % 2)
            cr_assert_geq(write(fd, block, rand_r(&seed) % sizeof(block)), 0);
        if (rand_r(&seed) % 2)
            run_for(rand_r(&seed) % 3);
        chardev_write(a.chardev, block, rand_r(&seed) % sizeof(block));
        if (rand_r(&seed) % 2)
            run_for(1);
        close(fd);
        a.limit = sizeof(a.got) - 1;
        a.count = 0;
        chardev_accept_input(a.chardev);
        RUN_UNTIL(a.opened == round + 1 && a.closed == round + 1);
        if (round > 20)
            cr_assert_leq(fd, before + 8);
    }
}
