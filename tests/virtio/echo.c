/* See echo.h. */
#include "echo.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct echo *echo_of(struct virtqueue *queue)
{
    return container_of(virtqueue_device(queue), struct echo, virtio.vdev);
}

static uint32_t work(struct virtqueue_element *element)
{
    uint64_t size = MIN(element->readable.size, element->writable.size), done = 0;
    uint8_t buffer[4096];

    while (done < size && done < MIB) {
        uint64_t part = MIN(size - done, sizeof(buffer));
        dma_list_copy_from(&element->readable, done, buffer, part);
        for (uint64_t i = 0; i < part; i++)
            buffer[i]++;
        dma_list_copy_to(&element->writable, done, buffer, part);
        done += part;
    }
    return (uint32_t)done;
}

void echo_answer(struct echo *echo, unsigned index)
{
    struct virtqueue_element *element = echo->held[index];

    virtqueue_push(echo->held_queue[index], element, work(element));
    virtqueue_notify(echo->held_queue[index]);
    virtqueue_element_free(element);
    free(element);
    echo->held_count--;
    echo->held[index] = echo->held[echo->held_count];
    echo->held_queue[index] = echo->held_queue[echo->held_count];
    if (echo->answered)
        echo->answered();
}

void echo_forget(struct echo *echo)
{
    while (echo->held_count) {
        struct virtqueue_element *element = echo->held[--echo->held_count];
        virtqueue_element_free(element);
        free(element);
    }
}

static void kicked(struct virtqueue *queue)
{
    struct echo *echo = echo_of(queue);

    while (echo->held_count < ECHO_HELD) {
        struct virtqueue_element *element = calloc(1, sizeof(*element));

        virtqueue_element_init(element, queue);
        if (!virtqueue_pop(queue, element)) {
            virtqueue_element_free(element);
            free(element);
            break;
        }
        cr_assert(element->readable.size || element->writable.size);
        echo->popped++;
        echo->held_queue[echo->held_count] = queue;
        echo->held[echo->held_count++] = element;
        if (!echo->hold)
            echo_answer(echo, echo->held_count - 1);
    }
}

static void reset(struct virtio_device *vdev)
{
    container_of(vdev, struct echo, virtio.vdev)->resets++;
}

static void started(struct virtio_device *vdev)
{
    container_of(vdev, struct echo, virtio.vdev)->starts++;
}

static void config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint32_t value)
{
    virtio_config_set(vdev, offset, size, value);
}

static const struct virtio_class echo_class = {
    .name = "echo",
    .device_id = 9,
    .reset = reset,
    .started = started,
    .config_write = config_write,
};
static const struct virtio_pci_config echo_pci = { .class_code = 0x00ff00, .transitional_id = 0x1009, .vectors = 3 };

static int init(struct device *device, struct option_list *options, struct error *err)
{
    struct echo *echo = (struct echo *)device;
    int ret = virtio_pci_begin(&echo->virtio, &echo_class, options, err);

    for (unsigned i = 0; !ret && i < ECHO_QUEUES; i++) {
        echo->queues[i] = virtio_add_queue(&echo->virtio.vdev, 128, kicked, 0, err);
        ret = echo->queues[i] ? 0 : -1;
    }
    echo->virtio.vdev.config_size = 16;
    ret = ret ?: virtio_pci_attach(&echo->virtio, &echo_pci, options, err);
    if (ret)
        virtio_pci_destroy(device);
    return ret;
}

static void destroy(struct device *device)
{
    virtio_pci_destroy(device);
    echo_forget((struct echo *)device);
}

static const struct state_field fields[] = { VIRTIO_PCI_STATE(struct echo, virtio), STATE_END };
static const struct state_table state = {
    .name = "echo",
    .version = 1,
    .fields = fields,
    .pre_save = virtio_pci_pre_save,
    .post_load = virtio_pci_post_load,
};

VIRTIO_PCI_TYPES(echo, "echo", .size = sizeof(struct echo), .init = init, .reset = virtio_pci_reset, .destroy = destroy,
                 .state = &state);

struct echo *echo_create(struct device_env *env, const char *text)
{
    struct option_list options;
    struct error err = { "" };
    struct device *device;

    cr_assert_eq(options_parse(&options, text, NULL, &err), 0);
    device = device_create(env, &echo_pci_type, "echo0", &options, &err);
    cr_assert_not_null(device, "%s", err.text);
    cr_assert_eq(options_check_all_used(&options, "echo", &err), 0, "%s", err.text);
    options_free(&options);
    return (struct echo *)device;
}
