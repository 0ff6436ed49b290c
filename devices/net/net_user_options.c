/* The options of -netdev user, in QEMU's spelling and with its defaults: 10.0.2.0/24, gateway .2, name server .3, leases from .15
 * on; fec0::/64 with ::2 and ::3. Pure functions. */
#include "devices/net/net_user_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int parse_ipv4(const char *key, const char *text, uint32_t *out, struct error *err)
{
    struct in_addr address;

    if (!inet_aton(text, &address))
        return error_set(err, EINVAL, "%s=%s: an IPv4 address expected", key, text);
    *out = ntohl(address.s_addr);
    return 0;
}

/* What a network without a mask is taken for: the classes of RFC 791, and the private ranges of RFC 1918 and 2544. */
static uint32_t default_mask(uint32_t net)
{
    if (!(net & 0x80000000))
        return 0xff000000;
    if ((net & 0xfff00000) == 0xac100000)
        return 0xfff00000;
    if ((net & 0xc0000000) == 0x80000000 || (net & 0xffff0000) == 0xc0a80000)
        return 0xffff0000;
    if ((net & 0xfffe0000) == 0xc6120000)
        return 0xfffe0000;
    return (net & 0xe0000000) == 0xc0000000 ? 0xffffff00 : 0xfffffff0;
}

static int parse_network(const char *text, uint32_t *net, uint32_t *mask, struct error *err)
{
    char address[64];
    const char *slash = strchr(text, '/');
    uint64_t length;
    int result;

    snprintf(address, sizeof(address), "%.*s", (int)(slash ? slash - text : (int)strlen(text)), text);
    result = parse_ipv4("net", address, net, err);
    if (result)
        return result;
    *mask = default_mask(*net);
    if (slash && strchr(slash, '.')) {
        result = parse_ipv4("net", slash + 1, mask, err);
    } else if (slash) {
        result = parse_u64(slash + 1, &length, NULL);
        if (result || length < 4 || length > 32)
            return error_set(err, EINVAL, "net=%s: a mask of 4 to 32 bits expected", text);
        *mask = ~0u << (32 - length);
    }
    if (~*mask & (~*mask + 1))
        return error_set(err, EINVAL, "net=%s: the mask has holes", text);
    *net &= *mask;
    return result;
}

/* An address in the network, by option or by number. */
static int host_of(struct option_list *options, const char *key, uint32_t number, uint32_t net, uint32_t mask,
                   struct in_addr *out, struct error *err)
{
    const char *text = options_get(options, key);
    uint32_t address = net | (number & ~mask);
    int result = text ? parse_ipv4(key, text, &address, err) : 0;

    if (result)
        return result;
    if ((address & mask) != net)
        return error_set(err, EINVAL, "%s=%s: not in the network of net=", key, text ? text : "");
    out->s_addr = htonl(address);
    return 0;
}

static int parse_v4(struct option_list *options, SlirpConfig *slirp, struct error *err)
{
    const char *text = options_get(options, "net");
    uint32_t net = 0x0a000200, mask = 0xffffff00;
    int result;

    if (!text)
        text = options_get(options, "ip"); /* the old name */
    if (text && (result = parse_network(text, &net, &mask, err)))
        return result;
    slirp->vnetwork.s_addr = htonl(net);
    slirp->vnetmask.s_addr = htonl(mask);
    if ((result = host_of(options, "host", 2, net, mask, &slirp->vhost, err)) ||
        (result = host_of(options, "dns", 3, net, mask, &slirp->vnameserver, err)) ||
        (result = host_of(options, "dhcpstart", 15, net, mask, &slirp->vdhcp_start, err)))
        return result;
    if (slirp->vnameserver.s_addr == slirp->vhost.s_addr)
        return error_set(err, EINVAL, "dns= and host= must differ");
    if (slirp->vdhcp_start.s_addr == slirp->vhost.s_addr || slirp->vdhcp_start.s_addr == slirp->vnameserver.s_addr)
        return error_set(err, EINVAL, "dhcpstart= is the address of the %s",
                         slirp->vdhcp_start.s_addr == slirp->vhost.s_addr ? "host" : "name server");
    return 0;
}

static int parse_v6_address(struct option_list *options, const char *key, const char *fallback, struct in6_addr *out,
                            struct error *err)
{
    const char *text = options_get(options, key);

    if (inet_pton(AF_INET6, text ? text : fallback, out) != 1)
        return error_set(err, EINVAL, "%s=%s: an IPv6 address expected", key, text);
    return 0;
}

static int parse_v6(struct option_list *options, SlirpConfig *slirp, struct error *err)
{
    const char *net = options_get(options, "ipv6-net"), *prefix = options_get(options, "ipv6-prefix");
    char text[INET6_ADDRSTRLEN + 8], fallback[INET6_ADDRSTRLEN];
    uint64_t length = 64;
    struct in6_addr host;
    int result;

    snprintf(text, sizeof(text), "%s", net ? net : prefix ? prefix : "fec0::");
    char *slash = strchr(text, '/');
    if (slash) {
        *slash = '\0';
        result = parse_u64(slash + 1, &length, NULL);
        if (result)
            return error_set(err, EINVAL, "ipv6-net=%s: PREFIX/LENGTH expected", net);
    } else if ((result = options_get_u64(options, "ipv6-prefixlen", 64, &length, err))) {
        return result;
    }
    if (length < 1 || length > 126)
        return error_set(err, EINVAL, "ipv6-net=: a prefix of 1 to 126 bits expected");
    if (inet_pton(AF_INET6, text, &slirp->vprefix_addr6) != 1)
        return error_set(err, EINVAL, "ipv6-net=%s: an IPv6 prefix expected", text);
    slirp->vprefix_len = (uint8_t)length;
    host = slirp->vprefix_addr6;
    host.s6_addr[15] |= 2;
    inet_ntop(AF_INET6, &host, fallback, sizeof(fallback));
    if ((result = parse_v6_address(options, "ipv6-host", fallback, &slirp->vhost6, err)))
        return result;
    host = slirp->vprefix_addr6;
    host.s6_addr[15] |= 3;
    inet_ntop(AF_INET6, &host, fallback, sizeof(fallback));
    return parse_v6_address(options, "ipv6-dns", fallback, &slirp->vnameserver6, err);
}

/* dnssearch= may be repeated. */
static int parse_search(struct option_list *options, struct net_user_config *config, struct error *err)
{
    size_t count = 0;

    for (size_t i = 0; i < options->count; i++)
        count += !strcmp(options->pairs[i].key, "dnssearch");
    if (!count)
        return 0;
    config->search = calloc(count + 1, sizeof(*config->search));
    if (!config->search)
        return error_set(err, ENOMEM, "out of memory");
    count = 0;
    for (size_t i = 0; i < options->count; i++) {
        struct option_pair *pair = &options->pairs[i];

        if (strcmp(pair->key, "dnssearch"))
            continue;
        pair->used = true;
        if (!*pair->value || strlen(pair->value) > 255)
            return error_set(err, EINVAL, "dnssearch=%s: a domain of up to 255 letters expected", pair->value);
        config->search[count++] = pair->value;
    }
    config->slirp.vdnssearch = config->search;
    return 0;
}

static int take_name(struct option_list *options, const char *key, size_t limit, const char **out, struct error *err)
{
    *out = options_get(options, key);
    if (*out && strlen(*out) > limit)
        return error_set(err, EINVAL, "%s= is too long: at most %zu bytes", key, limit);
    return 0;
}

static int parse_boot(struct option_list *options, SlirpConfig *slirp, struct error *err)
{
    struct stat status;
    int result;

    if ((result = take_name(options, "hostname", 255, &slirp->vhostname, err)) ||
        (result = take_name(options, "domainname", 255, &slirp->vdomainname, err)) ||
        (result = take_name(options, "tftp-server-name", 255, &slirp->tftp_server_name, err)) ||
        (result = take_name(options, "bootfile", 127, &slirp->bootfile, err)) ||
        (result = take_name(options, "tftp", 4000, &slirp->tftp_path, err)))
        return result;
    if (slirp->tftp_path && stat(slirp->tftp_path, &status))
        return error_set(err, errno, "tftp=%s: %s", slirp->tftp_path, strerror(errno));
    if (slirp->tftp_path && !S_ISDIR(status.st_mode))
        return error_set(err, ENOTDIR, "tftp=%s: a folder expected", slirp->tftp_path);
    return 0;
}

int net_user_parse(struct option_list *options, struct net_user_config *config, struct error *err)
{
    bool has4 = options_get(options, "ipv4"), has6 = options_get(options, "ipv6"), restricted;
    SlirpConfig *slirp = &config->slirp;
    int result;

    if (options_get(options, "smb") || options_get(options, "smbserver"))
        return error_set(err, ENOTSUP, "smb= is not there: share a folder with -virtfs or over ssh");
    slirp->version = 4;
    if ((result = options_get_bool(options, "ipv4", !has6, &slirp->in_enabled, err)) ||
        (result = options_get_bool(options, "ipv6", !has4, &slirp->in6_enabled, err)) ||
        (result = options_get_bool(options, "restrict", false, &restricted, err)))
        return result;
    /* ipv4=off alone means IPv6 only, and the other way round. */
    if (has4 && !has6)
        slirp->in6_enabled = !slirp->in_enabled;
    if (has6 && !has4)
        slirp->in_enabled = !slirp->in6_enabled;
    if (!slirp->in_enabled && !slirp->in6_enabled)
        return error_set(err, EINVAL, "ipv4=off and ipv6=off leave nothing");
    slirp->restricted = restricted;
    if ((result = parse_v4(options, slirp, err)) || (result = parse_v6(options, slirp, err)) ||
        (result = parse_search(options, config, err)))
        return result;
    return parse_boot(options, slirp, err);
}
