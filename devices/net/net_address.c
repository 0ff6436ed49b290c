/* Addresses of sockets as options spell them. Before the machine runs: names are looked up, which may take its time. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "devices/net/net_internal.h"

void net_address_describe(struct net_address *address)
{
    char host[64], port[16];

    if (address->u.any.sa_family == AF_UNIX) {
        const struct sockaddr_un *unix_address = (const struct sockaddr_un *)&address->u.any;

        snprintf(address->text, sizeof(address->text), "unix:%s%s", unix_address->sun_path[0] ? "" : "@",
                 unix_address->sun_path + !unix_address->sun_path[0]);
        return;
    }
    if (getnameinfo(&address->u.any, address->size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(address->text, sizeof(address->text), "?");
    else
        snprintf(address->text, sizeof(address->text), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static int resolve(const char *host, const char *port, bool passive, int socktype, int family,
                   struct net_address *address, struct error *err)
{
    struct addrinfo hints = { .ai_family = family, .ai_socktype = socktype }, *found;
    int result;

    hints.ai_flags = passive ? AI_PASSIVE : 0;
    result = getaddrinfo(host && *host ? host : NULL, port, &hints, &found);
    if (result)
        return error_set(err, EINVAL, "%s:%s: %s", host ? host : "", port, gai_strerror(result));
    *address = (struct net_address){ .size = found->ai_addrlen };
    memcpy(&address->u, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    net_address_describe(address);
    return 0;
}

int net_address_parse(const char *text, bool passive, int socktype, struct net_address *address, struct error *err)
{
    const char *colon = strrchr(text, ':');
    char host[256];
    size_t length;

    if (!colon || !colon[1] || (size_t)(colon - text) >= sizeof(host))
        return error_set(err, EINVAL, "'%s': HOST:PORT expected", text);
    length = (size_t)(colon - text);
    if (length >= 2 && text[0] == '[' && colon[-1] == ']')
        text++, length -= 2;
    memcpy(host, text, length);
    host[length] = '\0';
    /* An empty host is IPv4, as the peers of such options expect. */
    return resolve(host, colon + 1, passive, socktype, *host ? AF_UNSPEC : AF_INET, address, err);
}

int net_fd_of_text(const char *text, int *fd, struct error *err)
{
    uint64_t number;

    if (parse_u64(text, &number, NULL) || number > 1 << 20)
        return error_set(err, EINVAL, "fd=%s: the number of an open file descriptor expected", text);
    *fd = (int)number;
    if (fcntl(*fd, F_GETFD) < 0)
        return error_set(err, errno, "fd=%s: %s", text, strerror(errno));
    fcntl(*fd, F_SETFD, FD_CLOEXEC);
    fcntl(*fd, F_SETFL, fcntl(*fd, F_GETFL) | O_NONBLOCK);
    return 0;
}

static const char *get(struct option_list *options, const char *prefix, const char *key)
{
    char name[64];

    snprintf(name, sizeof(name), "%s.%s", prefix, key);
    return options_get(options, name);
}

static int parse_unix(struct option_list *options, const char *prefix, struct net_address *address, struct error *err)
{
    struct sockaddr_un *unix_address = (struct sockaddr_un *)&address->u.any;
    const char *path = get(options, prefix, "path"), *abstract = get(options, prefix, "abstract");
    const char *tight = get(options, prefix, "tight");
    bool is_abstract = abstract && !strcmp(abstract, "on"), is_tight = !tight || !strcmp(tight, "on");

    if (!path)
        return error_set(err, EINVAL, "%s.path= is missing", prefix);
    if (strlen(path) + is_abstract >= sizeof(unix_address->sun_path))
        return error_set(err, ENAMETOOLONG, "%s.path=%s: longer than %zu bytes", prefix, path,
                         sizeof(unix_address->sun_path) - 1);
    *address = (struct net_address){ 0 };
    unix_address->sun_family = AF_UNIX;
    strcpy(unix_address->sun_path + is_abstract, path);
    address->size = is_abstract && is_tight ? (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(path))
                                            : (socklen_t)sizeof(*unix_address);
    net_address_describe(address);
    return 0;
}

static int parse_inet(struct option_list *options, const char *prefix, bool passive, int socktype,
                      struct net_address *address, struct error *err)
{
    static const char *const refused[] = { "to", "mptcp" };
    const char *host = get(options, prefix, "host"), *port = get(options, prefix, "port");
    const char *ipv4 = get(options, prefix, "ipv4"), *ipv6 = get(options, prefix, "ipv6");
    int family = AF_UNSPEC;

    get(options, prefix, "numeric"), get(options, prefix, "keep-alive"); /* hints */
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        if (get(options, prefix, refused[i]))
            return error_set(err, ENOTSUP, "%s.%s= is not there", prefix, refused[i]);
    }
    if (!port)
        return error_set(err, EINVAL, "%s.port= is missing", prefix);
    if ((ipv4 && !strcmp(ipv4, "on") && !(ipv6 && !strcmp(ipv6, "on"))) || (ipv6 && !strcmp(ipv6, "off")))
        family = AF_INET;
    else if ((ipv6 && !strcmp(ipv6, "on")) || (ipv4 && !strcmp(ipv4, "off")))
        family = AF_INET6;
    return resolve(host, port, passive, socktype, family, address, err);
}

int net_address_of_options(struct option_list *options, const char *prefix, bool passive, int socktype,
                           struct net_address *address, int *fd, struct error *err)
{
    const char *type = get(options, prefix, "type"), *text;

    *fd = -1;
    *address = (struct net_address){ 0 };
    if (!type)
        return error_set(err, EINVAL, "%s.type= is missing: inet, unix or fd", prefix);
    if (!strcmp(type, "inet"))
        return parse_inet(options, prefix, passive, socktype, address, err);
    if (!strcmp(type, "unix"))
        return parse_unix(options, prefix, address, err);
    if (strcmp(type, "fd"))
        return error_set(err, EINVAL, "%s.type=%s: inet, unix or fd expected", prefix, type);
    text = get(options, prefix, "str");
    if (!text)
        return error_set(err, EINVAL, "%s.str= is missing: the number of the descriptor", prefix);
    snprintf(address->text, sizeof(address->text), "fd:%s", text);
    return net_fd_of_text(text, fd, err);
}
