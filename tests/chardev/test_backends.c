/* file, pipe, pty, ringbuf, null, serial lines, passed descriptors; the registry; logs; and what floods and absent readers do. */
#include "chardev_rig.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct front a, b;
static struct error err;

TestSuite(backends, .init = rig_start, .fini = rig_stop, .timeout = 60);

static const char *contents(const char *path)
{
    static char text[70000];
    FILE *file = fopen(path, "r");

    cr_assert_not_null(file, "%s", path);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void put_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    fputs(text, file);
    fclose(file);
}

Test(backends, file_append_and_input)
{
    const char *out = rig_path("out"), *in = rig_path("in");

    put_file(out, "before\n");
    put_file(in, "input");
    add("file,id=f,path=%s,append=on,input-path=%s", out, in);
    front_claim(&a, "f", "x");
    cr_assert_eq(a.opened, 1);
    cr_assert_eq(send_text(&a, "after\n"), 6);
    RUN_UNTIL(a.count == 5 && a.closed == 1);
    cr_assert_str_eq(a.got, "input");
    cr_assert_str_eq(contents(out), "before\nafter\n");
}

Test(backends, file_truncates_and_logs)
{
    put_file(rig_path("out"), "a long line from before");
    put_file(rig_path("log"), "log ");
    add("file,id=f,path=%s,logfile=%s,logappend=on", rig_path("out"), rig_path("log"));
    add("null,id=n,logfile=%s", rig_path("log2"));
    front_claim(&a, "f", "x");
    front_claim(&b, "n", "y");
    send_text(&a, "text");
    send_text(&b, "nothing");
    run_for(10);
    cr_assert_str_eq(contents(rig_path("out")), "text");
    cr_assert_str_eq(contents(rig_path("log")), "log text");
    cr_assert_str_eq(contents(rig_path("log2")), "nothing");
    cr_assert_eq(b.opened, 0, "null: nobody is there");
}

Test(backends, one_user)
{
    add("null,id=n");
    front_claim(&a, "n", "serial0");
    cr_assert_null(chardev_claim(registry, "n", "debugcon", &err));
    cr_assert(strstr(err.text, "'serial0'") && strstr(err.text, "'debugcon'"), "%s", err.text);
    chardev_release(a.chardev);
    cr_assert_not_null(chardev_claim(registry, "n", "debugcon", &err));
    cr_assert_null(chardev_claim(registry, "m", "debugcon", &err));
    cr_assert(strstr(err.text, "'m'"));
}

Test(backends, mistakes)
{
    static const struct {
        const char *option, *says;
    } table[] = {
        { "null", "id= is missing" },
        { "null,id=", "id" },
        { "null,id=a/b", "a/b" },
        { "nul,id=x", "did you mean 'null'" },
        { "vc,id=x", "window" },
        { "websocket,id=x", "WebSocket" },
        { "file,id=x", "path=" },
        { "file,id=x,path=/no/such/y", "No such file" },
        { "file,id=x,path=/dev/fd/999", "no such descriptor" },
        { "null,id=x,colour=red", "colour" },
        { "null,id=x,mux=perhaps", "perhaps" },
        { "ringbuf,id=x,size=100", "power of two" },
        { "ringbuf,id=x,size=1T", "power of two" },
        { "pipe,id=x,path=/no/such/y", "/no/such/y.in" },
        { "serial,id=x,path=/dev/null", "not a terminal" },
        { "socket,id=x", "path=, port= or fd=" },
        { "socket,id=x,path=/a,port=1", "exclude" },
        { "socket,id=x,path=/no/such/y", "No such file" },
        { "socket,id=x,path=/tmp/y,wait=on", "server=on" },
        { "socket,id=x,path=/tmp/y,server=on,reconnect=1", "reconnect" },
        { "socket,id=x,host=127.0.0.1,port=1,server=on,wait=off,telnet=on", "telnet" },
        { "socket,id=x,port=1", "host=" },
        { "socket,id=x,fd=0", "" },
        { "udp,id=x,host=localhost", "port=" },
        { "null,id=x,logfile=/no/such/y", "logfile" },
    };

    add("null,id=taken");
    cr_assert(strstr(add_fails("null,id=taken"), "already"));
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        const char *text = add_fails("%s", table[i].option);

        cr_assert(*text && strstr(text, table[i].says), "%s: %s", table[i].option, text);
    }
    cr_assert_null(chardev_find(registry, "x"));
}

Test(backends, ringbuf)
{
    uint8_t data[64];

    add("ringbuf,id=r,size=16");
    add("null,id=n");
    front_claim(&a, "r", "x");
    cr_assert_eq(a.opened, 1);
    send_text(&a, "hello");
    cr_assert_eq(chardev_ringbuf_read(chardev_find(registry, "r"), data, 3), 3);
    cr_assert_arr_eq(data, "hel", 3);
    send_text(&a, "0123456789abcdefXY");
    cr_assert_eq(chardev_ringbuf_read(a.chardev, data, 64), 16);
    cr_assert_arr_eq(data, "23456789abcdefXY", 16);
    cr_assert_eq(chardev_ringbuf_read(a.chardev, data, 64), 0);
    cr_assert_eq(chardev_ringbuf_read(chardev_find(registry, "n"), data, 1), -22);
}

Test(backends, pipe_pair)
{
    mkfifo(rig_path("p.in"), 0600);
    mkfifo(rig_path("p.out"), 0600);
    add("pipe,id=p,path=%s", rig_path("p"));
    front_claim(&a, "p", "x");
    int to = open(rig_path("p.in"), O_WRONLY), from = open(rig_path("p.out"), O_RDONLY | O_NONBLOCK);
    cr_assert_eq(write(to, "in", 2), 2);
    send_text(&a, "out");
    cr_assert_str_eq(peer_read(from, 3), "out");
    RUN_UNTIL(a.count == 2);
    close(to);
    run_for(20);
    cr_assert_eq(a.closed, 0, "other writers may come");
    to = open(rig_path("p.in"), O_WRONLY);
    cr_assert_eq(write(to, "!", 1), 1);
    RUN_UNTIL(a.count == 3);
}

Test(backends, one_pipe_by_the_short_string)
{
    char spec[200];

    mkfifo(rig_path("with,comma"), 0600);
    snprintf(spec, sizeof(spec), "pipe:%s", rig_path("with,comma"));
    struct chardev *chardev = chardev_open_legacy(registry, "serial0", spec, &err);
    cr_assert_not_null(chardev, "%s", err.text);
    front_listen(&a, chardev);
    int to = open(rig_path("with,comma"), O_WRONLY);
    cr_assert_eq(write(to, "in", 2), 2);
    RUN_UNTIL(a.count == 2);
}

/* As virtme-ng passes them: two back ends on one descriptor, which keeps its offset. */
Test(backends, passed_descriptors)
{
    int fd = open(rig_path("out"), O_CREAT | O_WRONLY, 0600), both[2];

    cr_assert_eq(write(fd, "head ", 5), 5);
    add("file,id=one,path=/proc/self/fd/%d", fd);
    add("file,id=two,path=/dev/fd/%d", fd);
    front_claim(&a, "one", "x");
    front_claim(&b, "two", "y");
    send_text(&a, "one ");
    run_for(10);
    send_text(&b, "two");
    run_for(10);
    cr_assert_str_eq(contents(rig_path("out")), "head one two");
    cr_assert(strstr(add_fails("file,id=three,path=%s,input-path=/proc/self/fd/%d", rig_path("x"), fd), "reading"));

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, both), 0);
    add("file,id=sock,path=/proc/self/fd/%d", both[0]); /* cannot be opened by that path */
    struct front c = { 0 };
    front_claim(&c, "sock", "z");
    fcntl(both[1], F_SETFL, O_NONBLOCK);
    send_text(&c, "socket");
    cr_assert_str_eq(peer_read(both[1], 6), "socket");
}

/* What its name is, as a program that starts us reads it. */
static const char *pty_name(const char *id)
{
    const char *name = chardev_filename(chardev_find(registry, id));

    cr_assert(!strncmp(name, "pty:/dev/pts/", 13), "%s", name);
    return name + 4;
}

Test(backends, pty)
{
    int fd;

    add("pty,id=t");
    front_claim(&a, "t", "x");
    cr_assert_eq(a.opened, 0);
    cr_assert_eq(send_text(&a, "nobody reads this"), 17);
    for (unsigned round = 1; round <= 3; round++) {
        fd = open(pty_name("t"), O_RDWR | O_NOCTTY | O_NONBLOCK);
        cr_assert_geq(fd, 0);
        RUN_UNTIL(a.opened == round);
        send_text(&a, "hello\n");
        cr_assert_str_eq(peer_read(fd, 6), "hello\n", "raw: no carriage return");
        cr_assert_eq(write(fd, "keys\r", 5), 5);
        RUN_UNTIL(a.count == 5 * round);
        close(fd);
        RUN_UNTIL(a.closed == round);
    }
    cr_assert_str_eq(a.got, "keys\rkeys\rkeys\r");
}

Test(backends, serial_line)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);

    cr_assert(grantpt(master) == 0 && unlockpt(master) == 0);
    fcntl(master, F_SETFL, O_NONBLOCK);
    add("tty,id=s,path=%s", ptsname(master));
    front_claim(&a, "s", "x");
    send_text(&a, "out\n");
    cr_assert_str_eq(peer_read(master, 4), "out\n");
    cr_assert_eq(write(master, "\003in", 3), 3);
    RUN_UNTIL(a.count == 3);
    cr_assert_str_eq(a.got, "\003in", "no signals: raw");
    close(master);
    RUN_UNTIL(a.closed == 1);
    cr_assert_eq(send_text(&a, "gone"), 4);
    run_for(20);
}

/* Memory is bounded, nothing blocks, everything arrives. */
Test(backends, slow_reader)
{
    static uint8_t block[1000];
    size_t sent = 0, got = 0;
    uint64_t start = clock_host_ns();
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    add("file,id=p,path=/proc/self/fd/%d", fds[1]);
    front_claim(&a, "p", "x");
    for (unsigned i = 0; i < 1000; i++) {
        for (size_t j = 0; j < sizeof(block); j++)
            block[j] = (uint8_t)((sent + j) % 251);
        size_t part = chardev_write(a.chardev, block, sizeof(block));
        sent += part;
        if (part < sizeof(block))
            break;
    }
    cr_assert_lt(sent, 200000u, "a pipe and the ring");
    cr_assert_lt(clock_host_ns() - start, 1000000000ull);
    while (got < sent) {
        uint8_t data[3000];
        ssize_t size = read(fds[0], data, sizeof(data));

        for (ssize_t j = 0; j < size; j++, got++)
            cr_assert_eq(data[j], got % 251);
        if (size <= 0)
            run_for(5);
    }
    RUN_UNTIL(a.writable >= 1);
    close(fds[0]);
    close(fds[1]);
    for (unsigned i = 0; i < 300; i++)
        cr_assert_eq(chardev_write(a.chardev, block, sizeof(block)), sizeof(block), "a dead reader takes all");
    run_for(20);
}

/* End of input comes after the input. */
Test(backends, stdin_ends)
{
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    dup2(fds[0], 0);
    close(fds[0]);
    add("stdio,id=s,signal=on");
    cr_assert(strstr(add_fails("stdio,id=t"), "'s'"));
    a.limit = 3;
    front_claim(&a, "s", "x");
    cr_assert_eq(write(fds[1], "hello", 5), 5);
    close(fds[1]);
    run_for(50);
    cr_assert_eq(a.count, 3);
    cr_assert_eq(a.closed, 0, "two bytes are still to come");
    a.limit = 100;
    chardev_accept_input(a.chardev);
    RUN_UNTIL(a.closed == 1);
    cr_assert_str_eq(a.got, "hello");
}
