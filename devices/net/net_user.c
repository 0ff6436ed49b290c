/* -netdev user: a network of the guest's own whose gateway is this program: TCP and UDP become sockets of the host (libslirp).
 *
 * libslirp asks for descriptors and a time-out before each wait, as if it owned a poll loop. Here its descriptors are in an
 * epoll set of their own, which the event loop watches; a *pass* hands slirp what is ready, and takes down what it wants next.
 * A pass follows every event and, once per turn of the loop, what the guest sent.
 *
 * It takes large TCP packets whole: to slirp they are just long segments. Checksums it verifies, so those must be there.
 * What the guest has no room for is queued (net.c) and then dropped, as slirp has no way to wait.
 *
 * Threads: all on the loop's, device lock held. */
#include "devices/net/net_user_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"

#define NS_PER_MS      1000000ull
#define MAX_DESCRIPTOR 65536

/* ---- Passes ---- */

static int add_poll(int fd, int events, void *opaque)
{
    struct net_user *user = opaque;

    if (user->poll_count == user->poll_capacity) {
        unsigned capacity = user->poll_capacity ? user->poll_capacity * 2 : 16;
        struct pollfd *polls = realloc(user->polls, capacity * sizeof(*polls));

        if (!polls)
            return -1; /* slirp asks for this index later and gets 0 */
        user->polls = polls;
        user->poll_capacity = capacity;
    }
    struct pollfd *entry = &user->polls[user->poll_count];
    *entry = (struct pollfd){ .fd = fd };
    if (events & SLIRP_POLL_IN)
        entry->events |= POLLIN;
    if (events & SLIRP_POLL_OUT)
        entry->events |= POLLOUT;
    if (events & SLIRP_POLL_PRI)
        entry->events |= POLLPRI;
    return (int)user->poll_count++;
}

static int get_events(int index, void *opaque)
{
    struct net_user *user = opaque;
    int events = index >= 0 && (unsigned)index < user->poll_count ? user->polls[index].revents : 0, result = 0;

    if (events & POLLIN)
        result |= SLIRP_POLL_IN;
    if (events & POLLOUT)
        result |= SLIRP_POLL_OUT;
    if (events & POLLPRI)
        result |= SLIRP_POLL_PRI;
    if (events & POLLERR)
        result |= SLIRP_POLL_ERR;
    if (events & POLLHUP)
        result |= SLIRP_POLL_HUP;
    return result;
}

/* Makes the epoll set hold `events` of fd. Entries vanish by themselves when a descriptor is closed, so both ways are tried. */
static void watch_descriptor(struct net_user *user, int fd, uint8_t events)
{
    struct epoll_event event = { .events = events, .data.fd = fd };

    if (user->watched[fd] == events)
        return;
    if (!events)
        epoll_ctl(user->epoll, EPOLL_CTL_DEL, fd, NULL);
    else if (epoll_ctl(user->epoll, user->watched[fd] ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event))
        epoll_ctl(user->epoll, user->watched[fd] ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
    user->watched[fd] = events;
}

static bool make_room_for(struct net_user *user, int fd)
{
    unsigned size = MAX(user->watched_size, 64u);
    uint8_t *watched;

    if (fd < 0 || fd >= MAX_DESCRIPTOR)
        return false;
    if ((unsigned)fd < user->watched_size)
        return true;
    while (size <= (unsigned)fd)
        size *= 2;
    watched = realloc(user->watched, size);
    if (!watched)
        return false;
    memset(watched + user->watched_size, 0, size - user->watched_size);
    user->watched = watched;
    user->watched_size = size;
    return true;
}

/* Takes down what slirp wants to wait for. */
static void fill(struct net_user *user)
{
    uint32_t timeout = UINT32_MAX;
    uint8_t seen[MAX_DESCRIPTOR / 8];
    unsigned seen_size;

    user->poll_count = 0;
    slirp_pollfds_fill(user->slirp, &timeout, add_poll, user);
    seen_size = (user->watched_size + 7) / 8;
    memset(seen, 0, sizeof(seen));
    for (unsigned i = 0; i < user->poll_count; i++) {
        int fd = user->polls[i].fd;

        if (!make_room_for(user, fd))
            continue;
        /* A TCP and a UDP socket never share a descriptor; what is asked for twice adds up. */
        watch_descriptor(user, fd,
                         (uint8_t)(user->polls[i].events | (seen[fd / 8] >> (fd % 8) & 1 ? user->watched[fd] : 0)));
        seen[fd / 8] |= (uint8_t)(1 << fd % 8);
    }
    for (unsigned i = 0; i < seen_size * 8 && i < user->watched_size; i++) {
        if (user->watched[i] && !(seen[i / 8] >> (i % 8) & 1))
            watch_descriptor(user, (int)i, 0);
    }
    if (timeout == UINT32_MAX)
        timer_disarm(&user->timer);
    else
        timer_arm(&user->timer, clock_now_ns(event_loop_clock(user->loop)) + MAX(timeout, 1u) * NS_PER_MS);
}

static void pass(void *opaque)
{
    struct net_user *user = opaque;
    int ready = poll(user->polls, user->poll_count, 0);

    slirp_pollfds_poll(user->slirp, ready < 0, get_events, user);
    net_user_wake_relays(user);
    fill(user);
}

static void epoll_ready(void *opaque, unsigned ready)
{
    (void)ready;
    pass(opaque);
}

void net_user_changed(struct net_user *user)
{
    net_work_schedule(&user->pass);
}

/* ---- What slirp calls ---- */

static ssize_t send_packet(const void *data, size_t size, void *opaque)
{
    struct net_user *user = opaque;
    struct iovec iov = { (void *)data, size };
    struct net_packet packet = { .iov = &iov, .iov_count = 1, .size = size };

    packet.offload.flags = VIRTIO_NET_HDR_F_DATA_VALID; /* it never left this program */
    net_send(&user->client, &packet);
    return (ssize_t)size;
}

static void guest_error(const char *message, void *opaque)
{
    struct net_user *user = opaque;

    log_event(guest_errors, "net: %s: %s\n", user->client.id, message);
}

static int64_t clock_get_ns(void *opaque)
{
    struct net_user *user = opaque;

    return (int64_t)clock_now_ns(event_loop_clock(user->loop));
}

struct user_timer {
    struct timer timer;
    struct net_user *user;
    SlirpTimerId id;
    void *slirp_opaque;
};

static void timer_due(void *opaque)
{
    struct user_timer *timer = opaque;

    slirp_handle_timer(timer->user->slirp, timer->id, timer->slirp_opaque);
}

static void *timer_new(SlirpTimerId id, void *slirp_opaque, void *opaque)
{
    struct net_user *user = opaque;
    struct user_timer *timer = calloc(1, sizeof(*timer));

    if (!timer)
        abort(); /* slirp does not look; a few bytes at start */
    timer->user = user;
    timer->id = id;
    timer->slirp_opaque = slirp_opaque;
    timer_init(&timer->timer, user->loop, timer_due, timer);
    return timer;
}

static void timer_free(void *opaque, void *user)
{
    struct user_timer *timer = opaque;

    (void)user;
    if (timer)
        timer_disarm(&timer->timer);
    free(timer);
}

static void timer_mod(void *opaque, int64_t expire_ms, void *user)
{
    struct user_timer *timer = opaque;

    (void)user;
    timer_arm(&timer->timer, (uint64_t)MAX(expire_ms, 0) * NS_PER_MS);
}

static void register_fd(int fd, void *opaque)
{
    (void)fd, (void)opaque; /* the next fill sees it */
}

/* It is about to be closed. */
static void unregister_fd(int fd, void *opaque)
{
    struct net_user *user = opaque;

    if (fd >= 0 && (unsigned)fd < user->watched_size)
        watch_descriptor(user, fd, 0);
}

static void notify(void *opaque)
{
    net_user_changed(opaque);
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = clock_get_ns,
    .timer_new_opaque = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = register_fd,
    .unregister_poll_fd = unregister_fd,
    .notify = notify,
};

/* ---- The client ---- */

static bool user_receive(struct net_client *client, const struct net_packet *packet)
{
    struct net_user *user = container_of(client, struct net_user, client);
    size_t size = net_iov_read(packet->iov, packet->iov_count, 0, user->frame, NET_MAX_PACKET);

    slirp_input(user->slirp, user->frame, (int)size);
    net_user_changed(user);
    return true;
}

static void user_destroy(struct net_client *client)
{
    struct net_user *user = container_of(client, struct net_user, client);

    timer_disarm(&user->timer);
    net_user_remove_relays(user);
    if (user->slirp)
        slirp_cleanup(user->slirp);
    net_work_destroy(&user->pass);
    if (user->watch)
        fd_watch_remove(user->watch);
    if (user->epoll >= 0)
        close(user->epoll);
    free(user->polls);
    free(user->watched);
    free(user->frame);
    free(user);
}

static const struct net_client_ops user_ops = {
    .kind = "user",
    .receive = user_receive,
    .destroy = user_destroy,
};

static int set_up(struct net_user *user, struct net_registry *registry, const char *id,
                  const struct net_user_config *config, struct option_list *options, struct error *err)
{
    int result;

    user->frame = malloc(NET_MAX_PACKET);
    if (!user->frame)
        return error_set(err, ENOMEM, "out of memory");
    user->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (user->epoll < 0)
        return error_set(err, errno, "epoll: %s", strerror(errno));
    user->watch = fd_watch_add(user->loop, user->epoll, FD_READABLE, epoll_ready, user, err);
    if (!user->watch)
        return -EIO;
    result = net_work_init(&user->pass, user->loop, pass, user, err);
    if (result)
        return result;
    user->client.accepts = NET_TSO4 | NET_TSO6 | NET_ECN;
    result = net_client_add(registry, &user->client, &user_ops, id, err);
    if (result)
        return result;
    user->slirp = slirp_new(&config->slirp, &callbacks, user);
    if (!user->slirp)
        return error_set(err, EINVAL, "user: the network cannot be set up");
    result = net_user_add_forwards(user, options, err);
    if (!result)
        fill(user);
    return result;
}

int net_user_create(struct net_registry *registry, const char *id, struct option_list *options, struct error *err)
{
    struct net_user_config config = { 0 };
    int result = net_user_parse(options, &config, err);
    struct net_user *user = result ? NULL : calloc(1, sizeof(*user));

    if (!result && !user)
        result = error_set(err, ENOMEM, "out of memory");
    if (!result) {
        user->loop = registry->loop;
        user->epoll = -1;
        timer_init(&user->timer, user->loop, pass, user);
        result = set_up(user, registry, id, &config, options, err);
        if (result) {
            net_client_remove(&user->client);
            user_destroy(&user->client);
        }
    }
    free(config.search);
    return result;
}
