/* Clients, queues, hubs, captures, options; stream and datagram back ends over real sockets, with the test at the other end. */
#include "tests/net/net_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct net_rig rig;
static struct rig_end a, b, c;

static void setup(void)
{
    net_rig_init(&rig);
    memset(&a, 0, sizeof(a)), memset(&b, 0, sizeof(b)), memset(&c, 0, sizeof(c));
}

static void teardown(void)
{
    net_rig_destroy(&rig);
}

TestSuite(net, .init = setup, .fini = teardown);

static void send_pattern(struct rig_end *from, size_t size, uint8_t value)
{
    static uint8_t data[NET_MAX_PACKET + 100];

    memset(data, value, size);
    net_send_buffer(&from->client, data, size);
}

/* `other` is connected to the back end of these options. */
static struct net_client *backend(struct rig_end *other, const char *option)
{
    struct error err = { "" };
    struct net_client *client;

    cr_assert_eq(net_add_netdev(rig.env.nets, option, &err), 0, "%s: %s", option, err.text);
    client = net_find(rig.env.nets, "n");
    cr_assert_not_null(client);
    rig_end_add(other, rig.env.nets, "test");
    net_client_connect(&other->client, client);
    return client;
}

/* ---- Clients ---- */

Test(net, sends_in_order_and_waits)
{
    rig_end_add(&a, rig.env.nets, "a");
    rig_end_add(&b, rig.env.nets, "b");
    send_pattern(&a, 60, 1); /* nobody there: dropped, no crash */
    net_client_connect(&a.client, &b.client);
    cr_assert(net_can_send(&a.client));
    send_pattern(&a, 60, 1);
    b.full = true;
    cr_assert_not(net_can_send(&a.client));
    send_pattern(&a, 61, 2), send_pattern(&a, 62, 3);
    cr_assert_eq(b.received, 1u);
    b.full = false;
    send_pattern(&a, 63, 4); /* waits behind the others */
    cr_assert_eq(b.received, 1u);
    cr_assert_eq(a.ready, 0u);
    net_client_resume(&b.client);
    cr_assert_eq(b.received, 4u);
    cr_assert_eq(a.ready, 1u);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(b.packets[i].data[20], i + 1);
    cr_assert(net_can_send(&a.client));
}

Test(net, floods_have_a_bound)
{
    rig_end_add(&a, rig.env.nets, "a");
    rig_end_add(&b, rig.env.nets, "b");
    net_client_connect(&a.client, &b.client);
    b.full = true;
    for (unsigned i = 0; i < 5000; i++)
        send_pattern(&a, 60, 0);
    cr_assert_eq(b.client.queue_count, (unsigned)NET_QUEUE_PACKETS);
    cr_assert_eq(b.client.dropped, 5000u - NET_QUEUE_PACKETS);
    net_client_purge(&b.client);
    for (unsigned i = 0; i < 500; i++)
        send_pattern(&a, 60000, 0);
    cr_assert_leq(b.client.queue_bytes, (size_t)NET_QUEUE_BYTES);
    net_client_remove(&a.client);
    cr_assert_null(b.client.queue, "the sender's packets go with it");
}

Test(net, runts_giants_and_a_dead_link)
{
    rig_end_add(&a, rig.env.nets, "a");
    rig_end_add(&b, rig.env.nets, "b");
    net_client_connect(&a.client, &b.client);
    for (size_t size = 0; size < NET_ETHERNET_SIZE; size++)
        send_pattern(&a, size, 0);
    send_pattern(&a, NET_MAX_PACKET + 1, 0);
    cr_assert_eq(b.received, 0u);
    send_pattern(&a, NET_ETHERNET_SIZE, 0), send_pattern(&a, NET_MAX_PACKET, 0);
    cr_assert_eq(b.received, 2u);
    net_client_set_link(&b.client, false);
    send_pattern(&a, 60, 0);
    cr_assert_eq(b.received, 2u);
    net_client_set_link(&b.client, true);
    send_pattern(&a, 60, 0);
    cr_assert_eq(b.received, 3u);
}

Test(net, hub)
{
    struct rig_end *ends[] = { &a, &b, &c };
    struct error err = { "" };

    for (unsigned i = 0; i < 3; i++) {
        char option[64], id[8];

        snprintf(option, sizeof(option), "hubport,id=h%u,hubid=3", i);
        snprintf(id, sizeof(id), "h%u", i);
        cr_assert_eq(net_add_netdev(rig.env.nets, option, &err), 0, "%s", err.text);
        rig_end_add(ends[i], rig.env.nets, NULL);
        net_client_connect(&ends[i]->client, net_find(rig.env.nets, id));
    }
    send_pattern(&a, 60, 9);
    cr_assert_eq(a.received, 0u);
    cr_assert_eq(b.received + c.received, 2u);
    /* One that is full does not stop the other; both full stop the sender. */
    b.full = true;
    cr_assert(net_can_send(&a.client));
    send_pattern(&a, 60, 9);
    cr_assert_eq(c.received, 2u);
    c.full = true;
    cr_assert_not(net_can_send(&a.client));
    c.full = false;
    net_client_resume(&c.client);
    cr_assert_eq(a.ready, 1u);
}

/* Two hubs with two cables between them: packets would go round for ever. */
Test(net, ring_of_hubs)
{
    struct error err = { "" };

    for (unsigned i = 0; i < 3; i++) {
        char option[80];

        snprintf(option, sizeof(option), "hubport,id=x%u,hubid=1", i);
        cr_assert_eq(net_add_netdev(rig.env.nets, option, &err), 0);
        snprintf(option, sizeof(option), i < 2 ? "hubport,id=y%u,hubid=2,netdev=x%u" : "hubport,id=y%u,hubid=2", i, i);
        cr_assert_eq(net_add_netdev(rig.env.nets, option, &err), 0);
    }
    rig_end_add(&a, rig.env.nets, "a");
    net_client_connect(&a.client, net_find(rig.env.nets, "x2"));
    send_pattern(&a, 60, 1); /* ends */
    cr_assert_lt(a.received, 100u);
}

/* ---- Options ---- */

static void expect_error(int result, const struct error *err, const char *option, const char *message)
{
    cr_assert_lt(result, 0, "%s was taken", option);
    cr_assert_not_null(strstr(err->text, message), "%s: %s", option, err->text);
}

Test(net, mistakes)
{
    static const char *const mistakes[][2] = {
        { "user", "id= is missing" },
        { "id=n", "no type given" },
        { "usr,id=n", "did you mean 'user'" },
        { "vde,id=n", "is not there" },
        { "user,id=7", "id=7" },
        { "user,id=n,hostfwd=tcp:80", "hostfwd=tcp:80" },
        { "user,id=n,hostfwd=sctp::1-:2", "tcp or udp" },
        { "user,id=n,hostfwd=tcp::1-:70000", "65535" },
        { "user,id=n,net=1.2.3.4/32", "must differ" },
        { "user,id=n,net=10.0.0.0/33", "mask" },
        { "user,id=n,net=x", "IPv4" },
        { "user,id=n,host=1.2.3.4", "not in the network" },
        { "user,id=n,dns=10.0.2.2", "must differ" },
        { "user,id=n,smb=/tmp", "smb=" },
        { "user,id=n,tftp=/does/not/exist", "tftp=" },
        { "user,id=n,ipv4=off,ipv6=off", "nothing" },
        { "user,id=n,colour=red", "unknown property 'colour'" },
        { "user,id=n,guestfwd=tcp:10.0.2.9:80-exec:ls", "cmd:COMMAND" },
        { "user,id=n,ipv6-net=zz/64", "IPv6" },
        { "tap,id=n,br=br0", "br= is not there" },
        { "tap,id=n,vhost=on", "vhost" },
        { "tap,id=n,fd=77777", "fd=77777" },
        { "bridge,id=n", "helper" },
        { "stream,id=n", "addr.type= is missing" },
        { "stream,id=n,addr.type=inet,addr.host=127.0.0.1", "addr.port= is missing" },
        { "stream,id=n,addr.type=unix,addr.path=/nowhere/x", "cannot connect" },
        { "stream,id=n,server=on,addr.type=unix,addr.path=/nowhere/x", "cannot listen" },
        { "stream,id=n,addr.type=fd,addr.str=x", "descriptor" },
        { "dgram,id=n,remote.type=inet,remote.host=127.0.0.1,remote.port=9", "local address" },
        { "socket,id=n", "one of listen=" },
        { "socket,id=n,listen=:1,connect=:2", "only one" },
        { "socket,id=n,mcast=127.0.0.1:1", "not a multicast" },
        { "socket,id=n,udp=127.0.0.1:1", "localaddr= is missing" },
        { "hubport,id=n", "hubid= is missing" },
        { "hubport,id=n,hubid=0,netdev=z", "no such back end" },
        { "{\"type\": \"user\"", "JSON" },
        { "{\"type\": \"user\", \"id\": \"n\", \"hostfwd\": [null]}", "hostfwd" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
        struct error err = { "" };

        expect_error(net_add_netdev(rig.env.nets, mistakes[i][0], &err), &err, mistakes[i][0], mistakes[i][1]);
        cr_assert_null(net_find(rig.env.nets, "n"), "%s: left behind", mistakes[i][0]);
    }
}

/* Not tftp-server-name=: libslirp 4.7 leaks it. */
Test(net, accepted_options)
{
    static const char *const good[] = {
        "user,id=n,net=192.168.76.0/"
        "24,host=192.168.76.9,dhcpstart=192.168.76.20,dns=192.168.76.10,dnssearch=a.b,dnssearch=c,"
        "domainname=d,hostname=h,restrict=on,tftp=/tmp,bootfile=x,ipv6=off",
        "user,id=n,ipv6-net=fd00::/64,ipv6-host=fd00::9,ipv6-dns=fd00::a",
        "user,id=n,ipv4=off",
        "user,id=n,guestfwd=tcp:10.0.2.100:80-cmd:cat",
        "{\"type\": \"user\", \"id\": \"n\", \"restrict\": false, \"hostfwd\": [{\"str\": \"udp:127.0.0.1:0-:7\"}]}",
        "none,id=n",
        "hubport,id=n,hubid=0",
    };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct error err = { "" };

        cr_assert_eq(net_add_netdev(rig.env.nets, good[i], &err), 0, "%s: %s", good[i], err.text);
        cr_assert_lt(net_add_netdev(rig.env.nets, good[i], &err), 0, "twice");
        net_registry_destroy(rig.env.nets);
        rig.env.nets = net_registry_create(rig.env.loop, &err);
    }
}

Test(net, nic_and_net)
{
    struct error err = { "" };
    struct net_registry *nets = rig.env.nets;

    cr_assert_eq(net_add_nic(nets, "none", "e1000e", &err), 0);
    cr_assert_null(net_next_device(nets));
    cr_assert_eq(net_add_nic(nets, "user,id=u,model=virtio,mac=52:54:00:00:00:01", "e1000e", &err), 0, "%s", err.text);
    cr_assert_str_eq(net_next_device(nets), "virtio-net-pci,netdev=u,mac=52:54:00:00:00:01");
    cr_assert_eq(net_add_net(nets, "nic,macaddr=52:54:00:00:00:02", "e1000e", &err), 0, "%s", err.text);
    cr_assert_eq(net_add_net(nets, "user", "e1000e", &err), 0, "%s", err.text);
    const char *device = net_next_device(nets);
    cr_assert_not_null(strstr(device, "e1000e,netdev=#net"), "%s", device);
    cr_assert_not_null(strstr(device, ",mac=52:54:00:00:00:02"), "%s", device);
    cr_assert_null(net_next_device(nets));
    expect_error(net_add_nic(nets, "user,model=e100e", "e1000e", &err), &err, "model", "did you mean 'e1000e'");
    uint8_t mac[6];
    cr_assert_lt(net_parse_mac("52:54:00:00:00", mac, &err), 0);
    cr_assert_lt(net_parse_mac("53:54:00:00:00:01", mac, &err), 0, "multicast");
    cr_assert_lt(net_parse_mac("52:54:00:00:00:01:02", mac, &err), 0);
    cr_assert_eq(net_parse_mac("52:54:0:AB:00:01", mac, &err), 0, "%s", err.text);
    cr_assert_eq(mac[3], 0xab);
}

/* ---- Capture ---- */

Test(net, capture)
{
    char path[] = "/tmp/eidolon-capture-XXXXXX", option[200];
    struct option_list options;
    struct error err = { "" };
    uint32_t file[64];
    int fd = mkstemp(path);

    rig_end_add(&a, rig.env.nets, "a");
    rig_end_add(&b, rig.env.nets, "b");
    net_client_connect(&a.client, &b.client);
    snprintf(option, sizeof(option), "filter-dump,id=f,netdev=a,file=%s,maxlen=64", path);
    cr_assert_eq(options_parse(&options, option, "qom-type", &err), 0);
    cr_assert_eq(net_add_filter_dump(rig.env.nets, &options, &err), 0, "%s", err.text);
    options_free(&options);
    fake_time_skip(5000000000);
    send_pattern(&a, 60, 7);
    send_pattern(&b, 1000, 8);
    cr_assert_eq(read(fd, file, sizeof(file)), 24 + 16 + 60 + 16 + 64);
    cr_assert_eq(file[0], 0xa1b2c3d4u);
    cr_assert_eq(file[5], 1u);
    cr_assert_eq(file[6], 1700000005u);
    cr_assert_eq(file[8], 60u);
    cr_assert_eq(file[25 + 2], 64u, "cut at maxlen");
    cr_assert_eq(file[25 + 3], 1000u);
    close(fd);
    unlink(path);
}

/* ---- Streams ---- */

static size_t read_frame(int fd, uint8_t *frame, size_t limit)
{
    uint8_t length[4];

    cr_assert_eq(recv(fd, length, 4, MSG_WAITALL), 4);
    size_t size = (size_t)length[0] << 24 | (size_t)length[1] << 16 | (size_t)length[2] << 8 | length[3];
    cr_assert_leq(size, limit);
    cr_assert_eq(recv(fd, frame, size, MSG_WAITALL), (ssize_t)size);
    return size;
}

Test(net, stream_over_a_descriptor)
{
    static uint8_t frame[2000], bytes[4000];
    char option[100];
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    snprintf(option, sizeof(option), "stream,id=n,addr.type=fd,addr.str=%d", pair[0]);
    backend(&a, option);
    send_pattern(&a, 60, 1), send_pattern(&a, 1514, 2);
    net_rig_run(&rig);
    cr_assert_eq(read_frame(pair[1], frame, sizeof(frame)), 60u);
    cr_assert_eq(read_frame(pair[1], frame, sizeof(frame)), 1514u);
    cr_assert_eq(frame[1513], 2);
    /* Frames that arrive in pieces. */
    memset(bytes, 5, sizeof(bytes));
    memcpy(bytes, "\0\0\0\x64", 4), memcpy(bytes + 104, "\0\0\5\xdc", 4);
    for (size_t at = 0; at < 104 + 4 + 1500; at += 67) {
        size_t part = MIN(67, 104 + 4 + 1500 - at);

        cr_assert_eq(write(pair[1], bytes + at, part), (ssize_t)part);
        net_rig_run(&rig);
    }
    cr_assert_eq(a.received, 2u);
    cr_assert_eq(a.packets[0].size, 100u);
    cr_assert_eq(a.packets[1].size, 1500u);
    /* While the card is full, the socket is not read. */
    a.full = true;
    for (unsigned i = 0; i < 2000; i++) {
        if (send(pair[1], bytes, 104, MSG_DONTWAIT) != 104)
            break;
        net_rig_run(&rig);
    }
    cr_assert_eq(a.received, 2u);
    cr_assert_leq(a.client.queue_count, 1u);
    /* A length that nothing has ends the connection. */
    a.full = false;
    net_client_resume(&a.client);
    net_rig_run(&rig);
    cr_assert_gt(a.received, 100u);
    while (send(pair[1], "\xff\xff\xff\xff", 4, MSG_DONTWAIT) < 0)
        net_rig_run(&rig);
    net_rig_run(&rig);
    while (recv(pair[1], bytes, sizeof(bytes), 0) > 0)
        ;
    send_pattern(&a, 60, 1); /* into the void */
    close(pair[1]);
}

Test(net, stream_peer_that_does_not_read)
{
    char option[100];
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    snprintf(option, sizeof(option), "stream,id=n,addr.type=fd,addr.str=%d", pair[0]);
    struct net_client *client = backend(&a, option);
    unsigned sent = 0;
    for (; sent < 5000 && net_can_send(&a.client); sent++) {
        send_pattern(&a, 1514, 2);
        net_rig_run(&rig);
    }
    cr_assert_lt(sent, 2000u, "it would have to hold %u packets", sent);
    cr_assert_eq(client->queue_count, 0u);
    /* It reads again: all arrives, and the sender is told. */
    for (unsigned i = 0; i < sent; i++) {
        uint8_t frame[2000];

        net_rig_run(&rig);
        cr_assert_eq(read_frame(pair[1], frame, sizeof(frame)), 1514u);
    }
    net_rig_run(&rig);
    cr_assert_eq(a.ready, 1u);
    close(pair[1]);
}

Test(net, stream_server_and_client)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char option[200];
    uint8_t frame[100];

    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/eidolon-net-%d", (int)getpid());
    snprintf(option, sizeof(option), "stream,id=n,server=on,addr.type=unix,addr.path=%s", address.sun_path);
    backend(&a, option);
    for (unsigned round = 0; round < 3; round++) { /* one after the other */
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        net_rig_run(&rig);
        send_pattern(&a, 60, 3);
        net_rig_run(&rig);
        cr_assert_eq(read_frame(fd, frame, sizeof(frame)), 60u);
        close(fd);
        net_rig_run(&rig);
    }
    /* A client that comes back. */
    struct error err = { "" };
    snprintf(option, sizeof(option), "stream,id=m,reconnect=2,addr.type=unix,addr.path=%s", address.sun_path);
    cr_assert_eq(net_add_netdev(rig.env.nets, option, &err), 0, "%s", err.text);
    rig_end_add(&b, rig.env.nets, "b");
    net_client_connect(&b.client, net_find(rig.env.nets, "m"));
    net_rig_run(&rig);
    send_pattern(&b, 70, 4);
    net_rig_run(&rig);
    cr_assert_eq(a.received, 1u);
    cr_assert_eq(a.packets[0].size, 70u);
    net_registry_destroy(rig.env.nets);
    rig.env.nets = NULL;
    cr_assert_neq(access(address.sun_path, F_OK), 0, "the socket's file goes with it");
}

Test(net, stream_reconnects)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char option[200];
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), fd;

    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/eidolon-again-%d", (int)getpid());
    unlink(address.sun_path);
    snprintf(option, sizeof(option), "stream,id=n,reconnect=2,addr.type=unix,addr.path=%s", address.sun_path);
    backend(&a, option); /* nobody there yet: no error */
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(listener, 1), 0);
    for (unsigned round = 0; round < 2; round++) {
        uint8_t frame[100];

        fake_time_advance(2100000000);
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        cr_assert_geq(fd, 0, "round %u: %s", round, strerror(errno));
        fcntl(fd, F_SETFL, 0);
        net_rig_run(&rig);
        send_pattern(&a, 60, 3);
        net_rig_run(&rig);
        cr_assert_eq(read_frame(fd, frame, sizeof(frame)), 60u);
        close(fd);
        net_rig_run(&rig);
    }
    close(listener);
    unlink(address.sun_path);
}

/* ---- Datagrams ---- */

Test(net, dgram_between_two)
{
    char option[300], path[2][100];
    struct error err = { "" };

    for (unsigned i = 0; i < 2; i++)
        snprintf(path[i], sizeof(path[i]), "/tmp/eidolon-dgram-%d-%u", (int)getpid(), i);
    snprintf(option, sizeof(option), "dgram,id=n,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s",
             path[0], path[1]);
    backend(&a, option);
    snprintf(option, sizeof(option), "dgram,id=m,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s",
             path[1], path[0]);
    cr_assert_eq(net_add_netdev(rig.env.nets, option, &err), 0, "%s", err.text);
    rig_end_add(&b, rig.env.nets, "b");
    net_client_connect(&b.client, net_find(rig.env.nets, "m"));
    send_pattern(&a, 60, 1), send_pattern(&b, 1514, 2);
    net_rig_run(&rig);
    cr_assert_eq(b.received, 1u);
    cr_assert_eq(a.received, 1u);
    cr_assert_eq(a.packets[0].size, 1514u);
}

Test(net, dgram_floods)
{
    static uint8_t bytes[66000];
    char option[100];
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    snprintf(option, sizeof(option), "dgram,id=n,local.type=fd,local.str=%d", pair[0]);
    backend(&a, option);
    send(pair[1], bytes, 5, 0), send(pair[1], bytes, sizeof(bytes), 0), send(pair[1], bytes, 0, 0);
    net_rig_run(&rig);
    cr_assert_eq(a.received, 0u, "a runt, a giant, and nothing");
    a.full = true;
    for (unsigned i = 0; i < 3000; i++) {
        send(pair[1], bytes, 200, MSG_DONTWAIT);
        net_rig_run(&rig);
    }
    cr_assert_leq(a.client.queue_count, 1u);
    for (unsigned i = 0; i < 3000; i++) /* nobody reads: lost, not kept */
        send_pattern(&a, 200, 1);
    close(pair[1]);
}

/* ---- The user network: ARP and DHCP by hand ---- */

static size_t build_dhcp(uint8_t *frame)
{
    static const uint8_t options[] = { 0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255 };
    size_t size = 14 + 20 + 8 + 240 + 60;
    uint8_t *ip = frame + 14, *udp = ip + 20, *dhcp = udp + 8;

    memset(frame, 0, size);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, "\x52\x54\x00\x12\x34\x56", 6);
    rig_put16(frame + 12, 0x800);
    ip[0] = 0x45, ip[8] = 64, ip[9] = 17;
    rig_put16(ip + 2, (unsigned)(size - 14));
    memset(ip + 16, 0xff, 4);
    rig_put16(ip + 10, (uint16_t)~rig_sum(ip, 20, 0));
    rig_put16(udp, 68), rig_put16(udp + 2, 67), rig_put16(udp + 4, (unsigned)(size - 34));
    dhcp[0] = 1, dhcp[1] = 1, dhcp[2] = 6;
    memcpy(dhcp + 28, frame + 6, 6);
    memcpy(dhcp + 236, options, sizeof(options));
    return size;
}

Test(net, user_offers_a_lease)
{
    uint8_t frame[1000];
    bool offered = false;

    backend(&a, "user,id=n,net=192.168.9.0/24,dhcpstart=192.168.9.30");
    net_send_buffer(&a.client, frame, build_dhcp(frame));
    net_rig_run(&rig);
    for (unsigned i = 0; i < a.received; i++) {
        const uint8_t *data = a.packets[i].data;

        if (rig_get16(data + 34) == 67 && !memcmp(data + 42 + 16, "\xc0\xa8\x09\x1e", 4)) {
            offered = true;
            cr_assert(rig_frame_is_right(data, a.packets[i].size) || rig_get16(data + 40) == 0);
        }
    }
    cr_assert(offered, "%u packets", a.received);
}

/* Whatever the guest sends to it. */
Test(net, user_random_frames)
{
    static uint8_t frame[NET_MAX_PACKET];
    uint64_t seed = 3;

    backend(&a, "user,id=n,restrict=on");
    for (unsigned round = 0; round < 5000; round++) {
        size_t size = rig_build_frame(frame, round & 1, round & 2, rig_random64(&seed) % 2000, false, true);

        if (round % 5 == 0)
            size = build_dhcp(frame);
        for (unsigned i = rig_random64(&seed) % 4; i; i--)
            frame[12 + rig_random64(&seed) % 60] = (uint8_t)rig_random64(&seed);
        net_send_buffer(&a.client, frame, rig_random64(&seed) % 8 ? size : 14 + rig_random64(&seed) % (size - 13));
        if (round % 64 == 0)
            fake_time_advance(100000000), net_rig_run(&rig);
    }
}
