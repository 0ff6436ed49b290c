/* Packet capture: pcap files (the format of libpcap 2.4, link type Ethernet, microseconds) of what passes a back end, in both
 * directions, as it was sent: before checksums are filled in and large packets cut.
 *
 * Each packet is one write, so that another program can follow the file. A full
 * disk ends the capture with one warning; the network goes on. Device lock held. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "devices/net/net_internal.h"

#define DEFAULT_MAX_LENGTH 65536

struct pcap_file {
    uint32_t magic;
    uint16_t major, minor;
    int32_t zone;
    uint32_t precision, snap_length, link_type;
};

struct pcap_record {
    uint32_t seconds, microseconds;
    uint32_t captured, length;
};

struct net_dump {
    struct net_filter filter; /* first */
    int fd;
    bool failed;
    uint32_t max_length;
    unsigned *users; /* of the descriptor: -netdump has one file for all back ends */
};

static void dump_packet(struct net_filter *filter, const struct net_packet *packet)
{
    struct net_dump *dump = container_of(filter, struct net_dump, filter);
    uint64_t now = clock_wall_ns();
    struct pcap_record record = {
        .seconds = (uint32_t)(now / 1000000000),
        .microseconds = (uint32_t)(now % 1000000000 / 1000),
        .captured = (uint32_t)MIN(packet->size, dump->max_length),
        .length = (uint32_t)packet->size,
    };
    struct iovec iov[NET_MAX_PIECES + 1] = { { &record, sizeof(record) } };
    size_t left = record.captured;
    unsigned count = 1;

    if (dump->failed)
        return;
    for (unsigned i = 0; i < packet->iov_count && left; i++) {
        iov[count] = packet->iov[i];
        iov[count].iov_len = MIN(iov[count].iov_len, left);
        left -= iov[count++].iov_len;
    }
    /* O_APPEND and one call: several captures may share the file. */
    ssize_t written = writev(dump->fd, iov, (int)count);
    if (written == (ssize_t)(sizeof(record) + record.captured))
        return;
    dump->failed = true;
    log_warn("packet capture ends here: %s", written < 0 ? strerror(errno) : "short write");
}

static void dump_destroy(struct net_filter *filter)
{
    struct net_dump *dump = container_of(filter, struct net_dump, filter);

    if (!--*dump->users) {
        close(dump->fd);
        free(dump->users);
    }
    free(dump);
}

static int open_file(const char *path, uint32_t max_length, struct error *err)
{
    struct pcap_file header = {
        .magic = 0xa1b2c3d4, .major = 2, .minor = 4, .snap_length = max_length, .link_type = 1
    };
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);

    if (fd < 0)
        return error_set(err, errno, "%s: %s", path, strerror(errno));
    if (write(fd, &header, sizeof(header)) != sizeof(header)) {
        int problem = errno;

        close(fd);
        return error_set(err, problem, "%s: %s", path, strerror(problem));
    }
    return fd;
}

static int attach(struct net_client *client, int fd, unsigned *users, uint32_t max_length, struct error *err)
{
    struct net_dump *dump = calloc(1, sizeof(*dump));
    struct net_filter **link = &client->filters;

    if (!dump)
        return error_set(err, ENOMEM, "out of memory");
    *dump = (struct net_dump){ .fd = fd, .users = users, .max_length = max_length };
    dump->filter.packet = dump_packet;
    dump->filter.destroy = dump_destroy;
    while (*link)
        link = &(*link)->next;
    *link = &dump->filter;
    ++*users;
    return 0;
}

static int start(struct net_registry *registry, struct net_client *only, const char *path, uint32_t max_length,
                 struct error *err)
{
    unsigned *users = calloc(1, sizeof(*users));
    int fd = users ? open_file(path, max_length, err) : error_set(err, ENOMEM, "out of memory"), result = 0;

    if (fd < 0) {
        free(users);
        return fd;
    }
    ++*users; /* ours, until all are attached */
    for (struct net_client *client = registry->clients; client && !result; client = client->next) {
        /* A hub's port sees what those behind it see. */
        bool wanted = only ? client == only : !client->is_nic && strcmp(client->ops->kind, "hubport");

        if (wanted)
            result = attach(client, fd, users, max_length, err);
    }
    if (!--*users) {
        close(fd);
        free(users);
    }
    return result;
}

int net_add_filter_dump(struct net_registry *registry, struct option_list *options, struct error *err)
{
    const char *netdev = options_get(options, "netdev"), *file = options_get(options, "file");
    const char *queue = options_get(options, "queue"), *status = options_get(options, "status");
    struct net_client *client;
    uint64_t max_length;
    int result;

    options_get(options, "id"), options_get(options, "qom-type");
    if (!options_get(options, "id"))
        return error_set(err, EINVAL, "filter-dump: id= is missing");
    if (!netdev || !file)
        return error_set(err, EINVAL, "filter-dump: %s= is missing", netdev ? "file" : "netdev");
    if (queue && strcmp(queue, "all"))
        return error_set(err, ENOTSUP, "filter-dump: queue=%s is not there; queue=all is", queue);
    if (status && strcmp(status, "on"))
        return error_set(err, ENOTSUP, "filter-dump: status=%s is not there; status=on is", status);
    result = options_get_size(options, "maxlen", 1, DEFAULT_MAX_LENGTH, &max_length, err);
    if (result)
        return result;
    if (!max_length || max_length > UINT32_MAX)
        return error_set(err, EINVAL, "filter-dump: maxlen=%llu: 1 to 4294967295 expected",
                         (unsigned long long)max_length);
    client = net_find(registry, netdev);
    if (!client)
        return error_set(err, ENODEV, "filter-dump: netdev=%s: there is no such back end", netdev);
    result = options_check_all_used(options, "filter-dump", err);
    return result ? result : start(registry, client, file, (uint32_t)max_length, err);
}

int net_add_netdump(struct net_registry *registry, const char *path, struct error *err)
{
    return start(registry, NULL, path, DEFAULT_MAX_LENGTH, err);
}
