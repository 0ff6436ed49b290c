/* Addresses of socket back ends: names to addresses, listening, connecting to a path. Loop thread; looking up a name may
 * block, so that only happens at the start. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/char/chardev_internal.h"

int chardev_address_family(struct option_list *options, int *family, struct error *err)
{
    const char *v4 = options_get(options, "ipv4"), *v6 = options_get(options, "ipv6");
    bool want4, want6;
    int result = options_get_bool(options, "ipv4", false, &want4, err);

    result = result ?: options_get_bool(options, "ipv6", false, &want6, err);
    if (result)
        return result;
    if (v4 && v6 && !want4 && !want6)
        return error_set(err, EINVAL, "ipv4=off and ipv6=off leave nothing");
    *family = AF_UNSPEC;
    if ((want4 && !want6) || (v6 && !want6))
        *family = AF_INET;
    else if ((want6 && !want4) || (v4 && !want4))
        *family = AF_INET6;
    return 0;
}

int chardev_resolve(const char *host, const char *port, int family, int type, bool passive, struct addrinfo **out,
                    struct error *err)
{
    struct addrinfo hints = { .ai_family = family, .ai_socktype = type, .ai_flags = passive ? AI_PASSIVE : 0 };
    int result;

    if (host && !*host)
        host = NULL;
    if (!host && !passive)
        return error_set(err, EINVAL, "host= is missing");
    result = getaddrinfo(host, port, &hints, out);
    if (result)
        return error_set(err, EINVAL, "cannot find the address of %s:%s: %s", host ? host : "", port,
                         result == EAI_SYSTEM ? strerror(errno) : gai_strerror(result));
    return 0;
}

/* ---- Unix ---- */

static int fill_unix(struct sockaddr_un *address, socklen_t *length, const char *path, bool abstract, bool tight,
                     struct error *err)
{
    size_t size = strlen(path);
    char *to = address->sun_path;

    *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (size + 1 > sizeof(address->sun_path))
        return error_set(err, ENAMETOOLONG, "path '%s' is too long for a socket (at most %zu bytes)", path,
                         sizeof(address->sun_path) - 1);
    memcpy(abstract ? to + 1 : to, path, size);
    *length = sizeof(*address);
    if (abstract && tight)
        *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + size);
    return 0;
}

/* A socket, and the address to bind or connect it to. */
static int open_unix(struct sockaddr_un *address, socklen_t *length, const char *path, bool abstract, bool tight,
                     struct error *err)
{
    int result = fill_unix(address, length, path, abstract, tight, err), fd;

    if (result)
        return result;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? error_set(err, errno, "socket: %s", strerror(errno)) : fd;
}

int chardev_bind_unix(const char *path, bool abstract, bool tight, struct error *err)
{
    struct sockaddr_un address;
    socklen_t length;
    struct stat st;
    int result, fd = open_unix(&address, &length, path, abstract, tight, err);

    if (fd < 0)
        return fd;
    /* What an earlier run has left behind; never anything but a socket. */
    if (!abstract && !lstat(path, &st) && S_ISSOCK(st.st_mode))
        unlink(path);
    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 1)) {
        result = error_set(err, errno, "cannot listen on '%s': %s", path, strerror(errno));
        close(fd);
        return result;
    }
    return fd;
}

int chardev_connect_unix(const char *path, bool abstract, bool tight, struct error *err)
{
    struct sockaddr_un address;
    socklen_t length;
    int result, fd = open_unix(&address, &length, path, abstract, tight, err);

    if (fd < 0)
        return fd;
    /* Either at once or not at all: EAGAIN means that the listener's queue is full. */
    if (connect(fd, (struct sockaddr *)&address, length)) {
        result =
            error_set(err, errno, "cannot connect to '%s': %s", path, errno == EAGAIN ? "it is busy" : strerror(errno));
        close(fd);
        return result;
    }
    return fd;
}

/* ---- Internet ---- */

static uint16_t *port_of(struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)address)->sin6_port
                                          : &((struct sockaddr_in *)address)->sin_port;
}

static int listen_on(const struct addrinfo *info, const struct sockaddr_storage *address)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, error;

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (!bind(fd, (const struct sockaddr *)address, info->ai_addrlen) && !listen(fd, 1))
        return fd;
    error = errno;
    close(fd);
    return -error;
}

static void name_of(int fd, char *name, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    char host[64], port[16];

    if (!getsockname(fd, (struct sockaddr *)&address, &length) &&
        !getnameinfo((struct sockaddr *)&address, length, host, sizeof(host), port, sizeof(port),
                     NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(name, size, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* The first of `ports` port numbers (to=) and the addresses that is free. */
int chardev_listen_inet(const struct addrinfo *addresses, unsigned ports, char *name, size_t name_size,
                        struct error *err)
{
    int fd = -EADDRNOTAVAIL;

    for (unsigned i = 0; i < ports; i++) {
        for (const struct addrinfo *info = addresses; info; info = info->ai_next) {
            struct sockaddr_storage address = { 0 };

            memcpy(&address, info->ai_addr, MIN(info->ai_addrlen, sizeof(address)));
            *port_of(&address) = htons((uint16_t)(ntohs(*port_of(&address)) + i));
            fd = listen_on(info, &address);
            if (fd >= 0) {
                name_of(fd, name, name_size);
                return fd;
            }
        }
    }
    return error_set(err, -fd, "cannot listen on %s: %s", name, strerror(-fd));
}
