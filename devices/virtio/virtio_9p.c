/* virtio-9p-pci: carries 9P messages between the driver and a file server (virtio 1.2 section 5.9: device 9; the layout of
 * messages is that of 9P).
 *
 * File systems block, so requests are executed by up to WORKERS threads of the device. The queue's handler, on the main loop,
 * takes a chain and puts it on the `waiting` list; a worker copies the message out of guest memory, so that the guest cannot
 * change it any more, executes it and copies the answer in; an eventfd brings the main loop to push what is done. A
 * Tflush is held until the request that it names has been answered.
 *
 * Locks: requests, lists and counters are guarded by `lock`, which is below the device lock and never held while executing.
 * Workers take no other lock. The chains are touched by workers only while a request is `active`: drain() takes the waiting ones
 * off and waits for the active. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "devices/fs/p9.h"
#include "devices/virtio/virtio_pci.h"

#define QUEUE_SIZE   128
#define WORKERS      4
#define TAG_MAX      32
#define FEATURE_TAG  0
#define MESSAGE_TYPE 4
#define MESSAGE_TAG  5

enum request_state { REQUEST_HELD, REQUEST_WAITING, REQUEST_ACTIVE, REQUEST_DONE };

struct p9_request {
    struct virtqueue_element element;
    enum request_state state;
    bool stale; /* of before a reset: not to be pushed */
    uint8_t type;
    uint16_t tag;
    uint32_t size, written;
    struct p9_request *flushes; /* HELD: waits for this one; else NULL */
    struct p9_request *next;    /* of all */
};

struct virtio_9p {
    struct virtio_pci pci;
    struct virtqueue *queue;
    struct p9_server *server;
    int done_event;
    struct fd_watch *done_watch;
    pthread_mutex_t lock;
    pthread_cond_t work;              /* something waits, or quitting */
    pthread_cond_t idle;              /* active has become 0 */
    struct p9_request *first, **last; /* oldest first; guarded by lock, like the rest */
    unsigned waiting, active, idle_workers, worker_count;
    bool quitting;
    pthread_t workers[WORKERS];
};

/* ---- Workers ---- */

static struct p9_request *find_state(struct virtio_9p *p9, enum request_state state)
{
    struct p9_request *request = p9->first;

    while (request && request->state != state)
        request = request->next;
    return request;
}

static void execute(struct virtio_9p *p9, struct p9_request *request, uint8_t *message, uint8_t *reply)
{
    uint64_t room = MIN(request->element.writable.size, P9_MSIZE_MAX);

    memset(message, 0, P9_HEADER_SIZE);
    dma_list_copy_from(&request->element.readable, 0, message, request->size);
    request->written = p9_server_execute(p9->server, message, request->size, reply, (uint32_t)room);
    dma_list_copy_to(&request->element.writable, 0, reply, request->written);
}

static void *worker(void *opaque)
{
    struct virtio_9p *p9 = opaque;
    uint8_t *message = malloc(P9_MSIZE_MAX), *reply = malloc(P9_MSIZE_MAX);

    if (!message || !reply)
        abort(); /* overcommitted memory: does not happen */
    pthread_mutex_lock(&p9->lock);
    for (;;) {
        while (!p9->waiting && !p9->quitting) {
            p9->idle_workers++;
            pthread_cond_wait(&p9->work, &p9->lock);
            p9->idle_workers--;
        }
        if (p9->quitting)
            break;
        struct p9_request *request = find_state(p9, REQUEST_WAITING);
        request->state = REQUEST_ACTIVE;
        p9->waiting--;
        p9->active++;
        pthread_mutex_unlock(&p9->lock);
        execute(p9, request, message, reply);
        pthread_mutex_lock(&p9->lock);
        request->state = REQUEST_DONE;
        eventfd_write(p9->done_event, 1);
        if (--p9->active == 0)
            pthread_cond_broadcast(&p9->idle);
    }
    pthread_mutex_unlock(&p9->lock);
    free(message);
    free(reply);
    return NULL;
}

/* With the lock held. Signals are for the main thread. */
static void start_worker(struct virtio_9p *p9)
{
    sigset_t all, old;
    char name[16];

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (!pthread_create(&p9->workers[p9->worker_count], NULL, worker, p9)) {
        snprintf(name, sizeof(name), "9p/%u", p9->worker_count);
        pthread_setname_np(p9->workers[p9->worker_count++], name);
    } else if (!p9->worker_count) {
        log_warn("%s: no thread can be started: requests will not be answered", p9->pci.pci.device.id);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* With the lock held. */
static void make_waiting(struct virtio_9p *p9, struct p9_request *request)
{
    request->state = REQUEST_WAITING;
    if (++p9->waiting > p9->idle_workers && p9->worker_count < WORKERS)
        start_worker(p9);
    pthread_cond_signal(&p9->work);
}

/* ---- The main loop ---- */

static void unlink_request(struct virtio_9p *p9, struct p9_request *request)
{
    struct p9_request **link = &p9->first;

    while (*link != request)
        link = &(*link)->next;
    *link = request->next;
    if (p9->last == &request->next)
        p9->last = link;
}

/* With the lock held. */
static void release_flushes(struct virtio_9p *p9, const struct p9_request *done)
{
    for (struct p9_request *request = p9->first; request; request = request->next) {
        if (request->state == REQUEST_HELD && request->flushes == done) {
            request->flushes = NULL;
            make_waiting(p9, request);
        }
    }
}

static void push_done(void *opaque, unsigned ready)
{
    struct virtio_9p *p9 = opaque;
    struct p9_request *request;
    eventfd_t count;

    (void)ready;
    eventfd_read(p9->done_event, &count);
    pthread_mutex_lock(&p9->lock);
    while ((request = find_state(p9, REQUEST_DONE))) {
        unlink_request(p9, request);
        release_flushes(p9, request);
        pthread_mutex_unlock(&p9->lock);
        if (!request->stale)
            virtqueue_push(p9->queue, &request->element, request->written);
        virtqueue_element_free(&request->element);
        free(request);
        pthread_mutex_lock(&p9->lock);
    }
    pthread_mutex_unlock(&p9->lock);
    virtqueue_notify(p9->queue);
}

/* The request that a Tflush names. With the lock held. */
static struct p9_request *flushed_request(struct virtio_9p *p9, const struct p9_request *flush)
{
    uint16_t tag = 0;
    struct p9_request *request = p9->first;

    dma_list_copy_from(&flush->element.readable, P9_HEADER_SIZE, &tag, sizeof(tag));
    while (request &&
           (request == flush || request->type == P9_TFLUSH || request->tag != tag || request->state == REQUEST_DONE))
        request = request->next;
    return request;
}

static void enqueue(struct virtio_9p *p9, struct p9_request *request)
{
    pthread_mutex_lock(&p9->lock);
    request->next = NULL;
    *p9->last = request;
    p9->last = &request->next;
    request->flushes = request->type == P9_TFLUSH ? flushed_request(p9, request) : NULL;
    if (request->flushes)
        request->state = REQUEST_HELD;
    else
        make_waiting(p9, request);
    pthread_mutex_unlock(&p9->lock);
}

/* False: there is no way to answer. */
static bool read_header(struct p9_request *request)
{
    const struct dma_list *list = &request->element.readable;
    uint8_t header[P9_HEADER_SIZE];
    uint32_t size;

    if (dma_list_copy_from(list, 0, header, sizeof(header)) < sizeof(header) ||
        request->element.writable.size < P9_ERROR_SIZE)
        return false;
    memcpy(&size, header, sizeof(size));
    request->type = header[MESSAGE_TYPE];
    memcpy(&request->tag, header + MESSAGE_TAG, sizeof(request->tag));
    /* A size that is not that of the message is answered with an error by the server. */
    request->size = (uint32_t)MIN(MIN(MAX(size, P9_HEADER_SIZE), list->size), P9_MSIZE_MAX);
    return true;
}

static void kicked(struct virtqueue *queue)
{
    struct virtio_9p *p9 = container_of(virtqueue_device(queue), struct virtio_9p, pci.vdev);

    for (;;) {
        struct p9_request *request = calloc(1, sizeof(*request));

        if (!request)
            return;
        virtqueue_element_init(&request->element, queue);
        if (!virtqueue_pop(queue, &request->element)) {
            virtqueue_element_free(&request->element);
            free(request);
            return;
        }
        if (read_header(request)) {
            enqueue(p9, request);
            continue;
        }
        virtqueue_fail(queue, "a message of %llu bytes with %llu for the answer",
                       (unsigned long long)request->element.readable.size,
                       (unsigned long long)request->element.writable.size);
        virtqueue_element_free(&request->element);
        free(request);
        return;
    }
}

/* ---- Reset ---- */

static void drain(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_9p *p9 = container_of(vdev, struct virtio_9p, pci.vdev);

    (void)queue;
    pthread_mutex_lock(&p9->lock);
    for (struct p9_request *request = p9->first; request; request = request->next) {
        if (request->state == REQUEST_WAITING)
            p9->waiting--;
        if (request->state != REQUEST_ACTIVE)
            request->state = REQUEST_DONE;
        request->stale = true;
        request->flushes = NULL;
    }
    while (p9->active)
        pthread_cond_wait(&p9->idle, &p9->lock);
    pthread_mutex_unlock(&p9->lock);
}

/* After drain(): nobody works on them any more. */
static void forget_requests(struct virtio_9p *p9)
{
    struct p9_request *request = p9->first, *next;

    for (; request; request = next) {
        next = request->next;
        virtqueue_element_free(&request->element);
        free(request);
    }
    p9->first = NULL;
    p9->last = &p9->first;
}

static void reset(struct virtio_device *vdev)
{
    struct virtio_9p *p9 = container_of(vdev, struct virtio_9p, pci.vdev);

    drain(vdev, NULL);
    forget_requests(p9);
    if (p9->server)
        p9_server_reset(p9->server);
}

static void queue_reset(struct virtio_device *vdev, struct virtqueue *queue)
{
    drain(vdev, queue);
    forget_requests(container_of(vdev, struct virtio_9p, pci.vdev));
}

static const struct virtio_class p9_class = {
    .name = "virtio-9p",
    .device_id = 9,
    .reset = reset,
    .queue_reset = queue_reset,
    .drain = drain,
};

/* ---- Life ---- */

static const struct virtio_pci_config p9_pci_config = {
    .class_code = 0x000200,
    .transitional_id = 0x1009,
    .vectors = 2,
};

static void stop(struct virtio_9p *p9)
{
    pthread_mutex_lock(&p9->lock);
    p9->quitting = true;
    pthread_cond_broadcast(&p9->work);
    pthread_mutex_unlock(&p9->lock);
    for (unsigned i = 0; i < p9->worker_count; i++)
        pthread_join(p9->workers[i], NULL);
    if (p9->done_watch)
        fd_watch_remove(p9->done_watch);
    if (p9->done_event >= 0)
        close(p9->done_event);
    forget_requests(p9);
    p9_server_destroy(p9->server);
    pthread_cond_destroy(&p9->work);
    pthread_cond_destroy(&p9->idle);
    pthread_mutex_destroy(&p9->lock);
}

static int start(struct virtio_9p *p9, struct fsdev *fsdev, struct error *err)
{
    pthread_mutex_init(&p9->lock, NULL);
    pthread_cond_init(&p9->work, NULL);
    pthread_cond_init(&p9->idle, NULL);
    p9->last = &p9->first;
    p9->server = p9_server_create(fsdev, err);
    p9->done_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!p9->server || p9->done_event < 0)
        return error_set(err, ENOMEM, "out of memory or descriptors");
    p9->done_watch = fd_watch_add(p9->pci.pci.device.env->loop, p9->done_event, FD_READABLE, push_done, p9, err);
    return p9->done_watch ? 0 : -EIO;
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct virtio_9p *p9 = container_of(device, struct virtio_9p, pci.pci.device);
    struct virtio_device *vdev = &p9->pci.vdev;
    const char *id = options_get(options, "fsdev"), *tag = options_get(options, "mount_tag");
    struct fsdev *fsdev = id ? fsdev_find(device->env->fsdevs, id) : NULL;
    int result;

    if (!fsdev)
        return error_set(err, ENODEV, id ? "there is no fsdev '%s' (-fsdev adds one)" : "fsdev= is missing", id);
    if (!tag || !*tag || strlen(tag) > TAG_MAX)
        return error_set(err, EINVAL, "mount_tag=: 1 to %d characters are needed", TAG_MAX);
    result = virtio_pci_begin(&p9->pci, &p9_class, options, err);
    if (result)
        return result;
    result = start(p9, fsdev, err);
    p9->queue = result ? NULL : virtio_add_queue(vdev, QUEUE_SIZE, kicked, 0, err);
    if (!p9->queue)
        result = -ENOMEM;
    vdev->host_features |= BIT(FEATURE_TAG);
    vdev->config_size = (unsigned)(2 + strlen(tag));
    virtio_config_set(vdev, 0, 2, strlen(tag));
    memcpy(vdev->config + 2, tag, strlen(tag));
    result = result ?: virtio_pci_attach(&p9->pci, &p9_pci_config, options, err);
    if (result) {
        virtio_pci_destroy(device);
        stop(p9);
    }
    return result;
}

static void destroy_device(struct device *device)
{
    struct virtio_9p *p9 = container_of(device, struct virtio_9p, pci.pci.device);

    virtio_pci_destroy(device);
    stop(p9);
}

/* The session is not part of it: after loading, the driver's fids are unknown and it has to mount again. */
static const struct state_field p9_fields[] = {
    VIRTIO_PCI_STATE(struct virtio_9p, pci),
    STATE_END,
};
static const struct state_table p9_state = {
    .name = "virtio-9p",
    .version = 1,
    .fields = p9_fields,
    .pre_save = virtio_pci_pre_save,
    .post_load = virtio_pci_post_load,
};

VIRTIO_PCI_TYPES(virtio_9p, "virtio-9p", .description = "folder of the host over 9P", .size = sizeof(struct virtio_9p),
                 .init = init_device, .reset = virtio_pci_reset, .destroy = destroy_device, .state = &p9_state,
                 .properties = "fsdev=<str>,mount_tag=<str>," VIRTIO_PCI_PROPERTIES);
