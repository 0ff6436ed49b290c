/* Network block devices, through libnbd: file=nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, nbds://, and
 * QEMU's older nbd:HOST:PORT[:exportname=NAME], nbd:unix:PATH[:exportname=NAME].
 *
 * Worker threads start commands and wait; one thread of the node moves bytes in and out of the socket (poll, then
 * libnbd's notify functions) and is woken when a new command may have something to send. libnbd locks its handle for
 * each call. A connection that is lost stays lost: what is under way and all that follows is -EIO.
 *
 * The protocol: doc/proto.md of the NBD project. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAX_TRANSFER (2 * MIB) /* of one command */

struct nbd_node {
    struct block_node node;
    struct nbd_handle *handle;
    int wake_fd;
    bool thread_runs;
    atomic_bool stopping;
    pthread_t thread;
    bool can_flush, can_fua, can_trim, can_zero;
    uint64_t max_transfer;
};

struct command {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool finished;
    int error;
};

/* ---- Commands ---- */

static int command_finished(void *opaque, int *error)
{
    struct command *command = opaque;

    pthread_mutex_lock(&command->lock);
    command->finished = true;
    command->error = *error;
    pthread_cond_signal(&command->cond);
    pthread_mutex_unlock(&command->lock);
    return 1; /* no one asks libnbd again */
}

static void wake(struct nbd_node *nbd)
{
    uint64_t one = 1;
    ssize_t ignored = write(nbd->wake_fd, &one, sizeof(one));

    (void)ignored;
}

/* What a server says may be anything: only what the layers above act upon is passed on. */
static int command_result(int error)
{
    switch (error) {
    case 0:
        return 0;
    case ENOSPC:
    case EDQUOT:
        return -ENOSPC;
    case ENOMEM:
        return -ENOMEM;
    default:
        return -EIO;
    }
}

/* One command on at most max_transfer bytes. */
static int run_command(struct nbd_node *nbd, enum block_op op, unsigned flags, uint64_t offset, void *buffer,
                       uint64_t size)
{
    struct command command = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
    nbd_completion_callback callback = { .callback = command_finished, .user_data = &command };
    uint32_t fua = flags & BLOCK_FUA && nbd->can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
    uint32_t no_hole = flags & BLOCK_MAY_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
    int64_t cookie = -1;

    switch (op) {
    case BLOCK_READ:
        cookie = nbd_aio_pread(nbd->handle, buffer, size, offset, callback, 0);
        break;
    case BLOCK_WRITE:
        cookie = nbd_aio_pwrite(nbd->handle, buffer, size, offset, callback, fua);
        break;
    case BLOCK_FLUSH:
        cookie = nbd_aio_flush(nbd->handle, callback, 0);
        break;
    case BLOCK_DISCARD:
        cookie = nbd_aio_trim(nbd->handle, size, offset, callback, fua);
        break;
    case BLOCK_WRITE_ZEROES:
        cookie = nbd_aio_zero(nbd->handle, size, offset, callback, fua | no_hole);
        break;
    }
    if (cookie < 0)
        return command_result(nbd_get_errno() ? nbd_get_errno() : EIO);
    wake(nbd);
    pthread_mutex_lock(&command.lock);
    while (!command.finished)
        pthread_cond_wait(&command.cond, &command.lock);
    pthread_mutex_unlock(&command.lock);
    return command_result(command.error);
}

/* libnbd takes one buffer: the list's only piece, or a copy. */
static int transfer_data(struct nbd_node *nbd, const struct block_transfer *transfer, bool write)
{
    uint64_t room = MIN(transfer->size, nbd->max_transfer);
    uint8_t *buffer = NULL;
    int ret = 0;

    if (transfer->iov_count != 1) {
        buffer = malloc(room);
        if (!buffer)
            return -ENOMEM;
    }
    for (uint64_t done = 0, size; !ret && done < transfer->size; done += size) {
        uint8_t *data = buffer ? buffer : (uint8_t *)transfer->iov->iov_base + done;

        size = MIN(transfer->size - done, room);
        if (buffer && write)
            block_iov_copy_from(transfer->iov, transfer->iov_count, done, buffer, size);
        ret = run_command(nbd, transfer->op, transfer->flags, transfer->offset + done, data, size);
        if (!ret && buffer && !write)
            block_iov_copy_to(transfer->iov, transfer->iov_count, done, buffer, size);
    }
    free(buffer);
    return ret;
}

/* Lengths have 32 bits; a gigabyte at a time leaves servers time for others. */
static int run_range(struct nbd_node *nbd, const struct block_transfer *transfer)
{
    int ret = 0;

    for (uint64_t done = 0, size; !ret && done < transfer->size; done += size) {
        size = MIN(transfer->size - done, GIB);
        ret = run_command(nbd, transfer->op, transfer->flags, transfer->offset + done, NULL, size);
    }
    return ret;
}

static int write_zeroes_in_full(struct nbd_node *nbd, const struct block_transfer *transfer)
{
    uint64_t room = MIN(transfer->size, nbd->max_transfer);
    uint8_t *zeroes = calloc(1, room);
    int ret = zeroes ? 0 : -ENOMEM;

    for (uint64_t done = 0, size; !ret && done < transfer->size; done += size) {
        size = MIN(transfer->size - done, room);
        ret = run_command(nbd, BLOCK_WRITE, transfer->flags, transfer->offset + done, zeroes, size);
    }
    free(zeroes);
    return ret;
}

static int nbd_run(struct block_node *node, const struct block_transfer *transfer)
{
    struct nbd_node *nbd = container_of(node, struct nbd_node, node);
    int ret;

    switch (transfer->op) {
    case BLOCK_READ:
        return transfer_data(nbd, transfer, false);
    case BLOCK_WRITE:
        ret = transfer_data(nbd, transfer, true);
        break;
    case BLOCK_WRITE_ZEROES:
        ret = nbd->can_zero ? run_range(nbd, transfer) : write_zeroes_in_full(nbd, transfer);
        break;
    case BLOCK_DISCARD:
        return nbd->can_trim ? run_range(nbd, transfer) : 0;
    case BLOCK_FLUSH:
        return nbd->can_flush ? run_command(nbd, BLOCK_FLUSH, 0, 0, NULL, 0) : 0;
    default:
        return -EINVAL;
    }
    if (!ret && transfer->flags & BLOCK_FUA && !nbd->can_fua && nbd->can_flush)
        ret = run_command(nbd, BLOCK_FLUSH, 0, 0, NULL, 0);
    return ret;
}

/* ---- The thread that moves bytes ---- */

static void *mover(void *opaque)
{
    struct nbd_node *nbd = opaque;

    while (!atomic_load_explicit(&nbd->stopping, memory_order_acquire)) { /* pairs with close_connection */
        unsigned direction = nbd_aio_get_direction(nbd->handle);
        bool over = nbd_aio_is_dead(nbd->handle) || nbd_aio_is_closed(nbd->handle);
        struct pollfd fds[2] = { { .fd = nbd->wake_fd, .events = POLLIN },
                                 { .fd = over ? -1 : nbd_aio_get_fd(nbd->handle) } };
        uint64_t count;

        fds[1].events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                                (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[0].revents) {
            ssize_t ignored = read(nbd->wake_fd, &count, sizeof(count));

            (void)ignored;
        }
        /* The direction may have changed since; libnbd then takes the wrong notice for an error. */
        direction = nbd_aio_get_direction(nbd->handle);
        if (fds[1].revents & (POLLIN | POLLHUP | POLLERR) && direction & LIBNBD_AIO_DIRECTION_READ)
            nbd_aio_notify_read(nbd->handle);
        else if (fds[1].revents & (POLLOUT | POLLHUP | POLLERR) && direction & LIBNBD_AIO_DIRECTION_WRITE)
            nbd_aio_notify_write(nbd->handle);
    }
    return NULL;
}

static int start_thread(struct nbd_node *nbd, struct error *err)
{
    sigset_t all, old;
    int ret;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&nbd->thread, NULL, mover, nbd);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (ret)
        return error_set(err, ret, "nbd: thread: %s", strerror(ret));
    pthread_setname_np(nbd->thread, "nbd");
    nbd->thread_runs = true;
    return 0;
}

/* ---- Opening ---- */

/* nbd:HOST:PORT[:exportname=NAME] or nbd:unix:PATH[:exportname=NAME] into options below. */
static int parse_old_syntax(struct block_open *open, const char *filename, struct error *err)
{
    static const char export_key[] = ":exportname=";
    char *text = strdup(filename + 4), *export, *port, key[128];
    int ret = 0;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    export = strstr(text, export_key);
    if (export) {
        *export = '\0';
        snprintf(key, sizeof(key), "%sexport", open->prefix);
        ret = block_options_add(open->options, key, export + strlen(export_key), err);
    }
    if (!ret && !strncmp(text, "unix:", 5)) {
        snprintf(key, sizeof(key), "%spath", open->prefix);
        ret = block_options_add(open->options, key, text + 5, err);
    } else if (!ret) {
        port = strrchr(text, ':');
        if (!port || port == text) {
            ret = error_set(err, EINVAL, "%s: nbd:HOST:PORT or nbd:unix:PATH expected", filename);
            goto out;
        }
        *port++ = '\0';
        snprintf(key, sizeof(key), "%shost", open->prefix);
        ret = block_options_add(open->options, key, text, err);
        snprintf(key, sizeof(key), "%sport", open->prefix);
        if (!ret)
            ret = block_options_add(open->options, key, port, err);
    }
out:
    free(text);
    return ret;
}

static const char *either(const struct block_open *open, const char *key, const char *server_key)
{
    const char *value = block_open_get(open, key);
    const char *other = block_open_get(open, server_key);

    return value ? value : other;
}

static int connect_options(struct nbd_node *nbd, struct block_open *open, struct error *err)
{
    const char *path = either(open, "path", "server.path"), *host = either(open, "host", "server.host");
    const char *port = either(open, "port", "server.port"), *export = block_open_get(open, "export");
    const char *type = block_open_get(open, "server.type");
    char name[512];

    if (type && strcmp(type, "inet") && strcmp(type, "unix"))
        return error_set(err, EINVAL, "%sserver.type=%s: inet or unix expected", open->prefix, type);
    if (!path == !host)
        return error_set(err, EINVAL, "nbd: either a path or a host is needed");
    port = port ? port : "10809";
    snprintf(name, sizeof(name), path ? "nbd:unix:%s" : "nbd:%s:%s", path ? path : host, port);
    nbd->node.filename = strdup(name);
    if (export && nbd_set_export_name(nbd->handle, export))
        return error_set(err, EINVAL, "%s", nbd_get_error());
    if (path ? nbd_connect_unix(nbd->handle, path) : nbd_connect_tcp(nbd->handle, host, port))
        return error_set(err, ECONNREFUSED, "%s: %s", name, nbd_get_error());
    return 0;
}

static int connect_server(struct nbd_node *nbd, struct block_open *open, struct error *err)
{
    const char *filename = open->filename;
    bool is_uri = filename && strstr(filename, "://");
    int ret;

    if (is_uri) {
        nbd->node.filename = strdup(filename);
        if (nbd_connect_uri(nbd->handle, filename))
            return error_set(err, ECONNREFUSED, "%s: %s", filename, nbd_get_error());
        return 0;
    }
    if (filename) {
        if (strncmp(filename, "nbd:", 4))
            return error_set(err, EINVAL, "%s: nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH expected", filename);
        ret = parse_old_syntax(open, filename, err);
        if (ret)
            return ret;
    }
    return connect_options(nbd, open, err);
}

/* What the server said it can, with every number checked. */
static int examine_export(struct nbd_node *nbd, struct error *err)
{
    struct block_node *node = &nbd->node;
    struct nbd_handle *handle = nbd->handle;
    int64_t size = nbd_get_size(handle), minimum = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
    int64_t maximum = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);

    if (size < 0)
        return error_set(err, EIO, "%s: %s", node->filename, nbd_get_error());
    if (minimum > 65536 || (minimum > 0 && minimum & (minimum - 1)))
        return error_set(err, EIO, "%s: the server's smallest block of %lld bytes cannot be used", node->filename,
                         (long long)minimum);
    if (minimum > SECTOR_SIZE)
        node->logical_block_size = node->physical_block_size = (uint32_t)minimum;
    node->size = ALIGN_DOWN((uint64_t)size, node->logical_block_size);
    nbd->max_transfer = MAX_TRANSFER;
    if (maximum >= node->logical_block_size && maximum < (int64_t)MAX_TRANSFER)
        nbd->max_transfer = ALIGN_DOWN((uint64_t)maximum, node->logical_block_size);
    if (nbd_is_read_only(handle) != 0 && !node->flags.read_only) {
        if (!node->flags.auto_read_only)
            return error_set(err, EROFS, "%s: the server offers it for reading only (readonly=on)", node->filename);
        node->flags.read_only = true;
    }
    nbd->can_flush = nbd_can_flush(handle) > 0;
    nbd->can_fua = nbd_can_fua(handle) > 0;
    nbd->can_trim = nbd_can_trim(handle) > 0;
    nbd->can_zero = nbd_can_zero(handle) > 0;
    node->can_discard = nbd->can_trim && node->flags.unmap && !node->flags.read_only;
    return 0;
}

/* Commands that are still under way are ended by libnbd. */
static void close_connection(struct nbd_node *nbd)
{
    atomic_store_explicit(&nbd->stopping, true, memory_order_release); /* pairs with mover */
    if (nbd->thread_runs) {
        wake(nbd);
        pthread_join(nbd->thread, NULL);
        nbd_aio_disconnect(nbd->handle, 0);
    }
    nbd_close(nbd->handle);
    if (nbd->wake_fd >= 0)
        close(nbd->wake_fd);
}

static int nbd_open_node(struct block_node *node, struct block_open *open, struct error *err)
{
    struct nbd_node *nbd = container_of(node, struct nbd_node, node);
    int ret = 0;

    nbd->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    nbd->handle = nbd_create();
    if (nbd->wake_fd < 0 || !nbd->handle)
        ret = error_set(err, ENOMEM, "nbd: %s", strerror(errno));
    if (!ret)
        ret = connect_server(nbd, open, err);
    if (!ret && !node->filename)
        ret = error_set(err, ENOMEM, "out of memory");
    if (!ret)
        ret = examine_export(nbd, err);
    if (!ret)
        ret = start_thread(nbd, err);
    if (ret)
        close_connection(nbd);
    return ret;
}

static void nbd_close_node(struct block_node *node)
{
    close_connection(container_of(node, struct nbd_node, node));
}

const struct block_driver block_nbd_driver = {
    .name = "nbd",
    .size = sizeof(struct nbd_node),
    .protocol = true,
    .open = nbd_open_node,
    .close = nbd_close_node,
    .run = nbd_run,
};
