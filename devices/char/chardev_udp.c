/* The udp back end: each piece of output is a datagram to host:port; what comes to localaddr:localport is input, as
 * far as it fits into the input ring. Somebody is always there. Loop thread. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/char/chardev_internal.h"

#define DATAGRAM_BYTES 1400 /* one frame of Ethernet */

static int bind_local(struct option_list *options, int family, struct error *err)
{
    const char *host = options_get(options, "localaddr"), *port = options_get(options, "localport");
    struct addrinfo *local;
    int result = chardev_resolve(host, port ? port : "0", family, SOCK_DGRAM, true, &local, err), fd, one = 1;

    if (result)
        return result;
    fd = socket(local->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        result = error_set(err, errno, "socket: %s", strerror(errno));
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, local->ai_addr, local->ai_addrlen)) {
            result =
                error_set(err, errno, "cannot bind to %s:%s: %s", host ? host : "", port ? port : "0", strerror(errno));
            close(fd);
        }
    }
    freeaddrinfo(local);
    return result ? result : fd;
}

static int open_udp(struct chardev *chardev, struct option_list *options, struct error *err)
{
    const char *host = options_get(options, "host"), *port = options_get(options, "port");
    struct addrinfo *remote;
    int family, fd, out_fd, result = chardev_address_family(options, &family, err);

    if (result)
        return result;
    if (!port)
        return error_set(err, EINVAL, "port= is missing");
    result = chardev_resolve(host && *host ? host : "localhost", port, family, SOCK_DGRAM, false, &remote, err);
    if (result)
        return result;
    fd = bind_local(options, remote->ai_family, err);
    if (fd >= 0 && connect(fd, remote->ai_addr, remote->ai_addrlen)) {
        result = error_set(err, errno, "cannot send to %s:%s: %s", host ? host : "", port, strerror(errno));
        close(fd);
        fd = result;
    }
    freeaddrinfo(remote);
    if (fd < 0)
        return fd;
    out_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    chardev->out_datagrams = chardev->out_socket = true;
    chardev->out_chunk = DATAGRAM_BYTES;
    return chardev_stream_start(chardev, fd, out_fd, err);
}

extern const struct chardev_backend chardev_backend_udp;
const struct chardev_backend chardev_backend_udp = { .name = "udp", .open = open_udp };
