/* What the files of the back end "user" share: net_user.c (the stack and its events), net_user_options.c, net_user_forward.c. */
#ifndef EIDOLON_DEVICES_NET_NET_USER_INTERNAL_H
#define EIDOLON_DEVICES_NET_NET_USER_INTERNAL_H

#include <poll.h>
#include <libslirp.h>

#include "devices/net/net_internal.h"

struct net_user;

/* guestfwd=tcp:...-tcp:HOST:PORT: one connection to a host, relayed. */
struct net_user_relay {
    struct net_user_relay *next;
    struct net_user *user;
    struct in_addr guest;
    int port, fd;
    struct fd_watch *watch;
    uint8_t *waiting; /* what the host has not taken yet */
    size_t waiting_size;
};

struct net_user {
    struct net_client client; /* first */
    Slirp *slirp;
    struct event_loop *loop;
    struct timer timer;   /* what slirp_pollfds_fill() asked for */
    struct net_work pass; /* the guest sent something: look again at what to wait for */
    int epoll;            /* all of slirp's descriptors, so that the loop watches one */
    struct fd_watch *watch;
    struct pollfd *polls; /* as of the last fill */
    unsigned poll_count, poll_capacity;
    uint8_t *watched; /* by descriptor: EPOLL* events that epoll has, 0: none */
    unsigned watched_size;
    struct net_user_relay *relays;
    uint8_t *frame; /* NET_MAX_PACKET bytes: packets in one piece for slirp */
};

/* What the options say; strings belong to the options. */
struct net_user_config {
    SlirpConfig slirp;
    const char **search; /* freed by the caller */
    const char *hostname;
};

int net_user_parse(struct option_list *options, struct net_user_config *config, struct error *err);
/* All hostfwd= and guestfwd= of the options. */
int net_user_add_forwards(struct net_user *user, struct option_list *options, struct error *err);
void net_user_wake_relays(struct net_user *user); /* slirp may have room for them */
void net_user_remove_relays(struct net_user *user);
/* slirp may want other descriptors or times now. */
void net_user_changed(struct net_user *user);

#endif
