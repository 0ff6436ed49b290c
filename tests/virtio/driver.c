/* See driver.h. Virtio 1.2: 4.1 for the registers, 2.7 and 2.8 for what a driver does with its rings. */
#include "driver.h"

#include <criterion/criterion.h>
#include <string.h>

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, FLAG_AVAIL = 1 << 7, FLAG_USED = 1 << 15 };
enum {
    COMMON_FEATURE_SELECT = 0x00,
    COMMON_FEATURE = 0x04,
    COMMON_DRIVER_SELECT = 0x08,
    COMMON_DRIVER_FEATURE = 0x0c,
    COMMON_CONFIG_VECTOR = 0x10,
    COMMON_STATUS = 0x14,
    COMMON_QUEUE_SELECT = 0x16,
    COMMON_QUEUE_SIZE = 0x18,
    COMMON_QUEUE_VECTOR = 0x1a,
    COMMON_QUEUE_ENABLE = 0x1c,
    COMMON_QUEUE_NOTIFY_OFF = 0x1e,
    COMMON_QUEUE_DESC = 0x20,
};

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t a, b; /* split: flags, next; packed: id, flags */
};

/* ---- Bus ---- */

unsigned driver_messages[64];
bool driver_intx;

static void on_pirq(void *opaque, unsigned n, bool level)
{
    (void)opaque;
    (void)n;
    driver_intx = level;
}

static unsigned map_pirq(void *opaque, uint8_t devfn, unsigned pin)
{
    (void)opaque;
    (void)devfn;
    return pin;
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque;
    if (address == 0xfee00000)
        __atomic_fetch_add(&driver_messages[(data - 0x40) % 64], 1, __ATOMIC_SEQ_CST);
}

struct pci_bus *driver_bus(struct device_env *env)
{
    static const struct pci_bus_ops ops = { .pirq_set = on_pirq, .pirq_map = map_pirq, .msi = on_msi };

    return pci_bus_create(env, &ops, NULL);
}

/* ---- Registers ---- */

uint64_t driver_read(struct driver *driver, gpa_t address, unsigned size)
{
    return physmem_mmio_read(driver->env->mem, address, size);
}

void driver_write(struct driver *driver, gpa_t address, unsigned size, uint64_t value)
{
    physmem_mmio_write(driver->env->mem, address, size, value);
}

static uint32_t config_read(struct driver *driver, unsigned offset, unsigned size)
{
    return pci_device_config_read(driver->pci, offset, size);
}

static void find_structures(struct driver *driver)
{
    for (unsigned at = config_read(driver, PCI_CAPABILITIES, 1); at; at = config_read(driver, at + 1, 1)) {
        gpa_t place = DRIVER_BAR + config_read(driver, at + 8, 4);

        if (config_read(driver, at, 1) == PCI_CAP_MSIX)
            continue;
        cr_assert_eq(config_read(driver, at, 1), PCI_CAP_VENDOR);
        switch (config_read(driver, at + 3, 1)) {
        case 1:
            driver->common = place;
            break;
        case 2:
            driver->notify = place;
            driver->multiplier = config_read(driver, at + 16, 4);
            break;
        case 3:
            driver->isr = place;
            break;
        case 4:
            driver->device = place;
            break;
        default:
            break;
        }
    }
}

static unsigned find_msix(struct driver *driver)
{
    for (unsigned at = config_read(driver, PCI_CAPABILITIES, 1); at; at = config_read(driver, at + 1, 1)) {
        if (config_read(driver, at, 1) == PCI_CAP_MSIX)
            return at;
    }
    return 0;
}

void driver_bind(struct driver *driver, struct device_env *env, struct device *device, bool msix)
{
    unsigned capability;

    memset(driver, 0, sizeof(*driver));
    memset(driver_messages, 0, sizeof(driver_messages));
    driver->env = env;
    driver->pci = (struct pci_device *)device;
    driver->heap = 0x10000;
    pci_device_config_write(driver->pci, PCI_BAR0, 4, DRIVER_IO_BAR);
    pci_device_config_write(driver->pci, PCI_BAR0 + 4, 4, DRIVER_MSIX);
    pci_device_config_write(driver->pci, PCI_BAR0 + 16, 4, DRIVER_BAR);
    pci_device_config_write(driver->pci, PCI_BAR0 + 20, 4, 0);
    pci_device_config_write(driver->pci, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    find_structures(driver);
    capability = find_msix(driver);
    if (!msix || !capability)
        return;
    for (unsigned i = 0; i < driver->pci->msix.count; i++) {
        driver_write(driver, DRIVER_MSIX + 16 * i, 4, 0xfee00000);
        driver_write(driver, DRIVER_MSIX + 16 * i + 8, 4, 0x40 + i);
        driver_write(driver, DRIVER_MSIX + 16 * i + 12, 4, 0);
    }
    pci_device_config_write(driver->pci, capability + 2, 2, 0x8000);
}

uint8_t driver_status(struct driver *driver)
{
    return (uint8_t)driver_read(driver, driver->common + COMMON_STATUS, 1);
}

void driver_set_status(struct driver *driver, uint8_t value)
{
    driver_write(driver, driver->common + COMMON_STATUS, 1, value);
}

gpa_t driver_allocate(struct driver *driver, uint64_t size, uint64_t alignment)
{
    gpa_t gpa = ALIGN_UP(driver->heap, alignment);

    driver->heap = gpa + size;
    cr_assert_leq(driver->heap, DRIVER_RAM);
    return gpa;
}

void *driver_memory(struct driver *driver, gpa_t gpa)
{
    return physmem_ram_base(driver->env->mem) + gpa;
}

static void set_up_queue(struct driver *driver, unsigned number, unsigned size)
{
    struct driver_queue *queue = &driver->queues[number];
    unsigned most;

    memset(queue, 0, sizeof(*queue));
    driver_write(driver, driver->common + COMMON_QUEUE_SELECT, 2, number);
    most = (unsigned)driver_read(driver, driver->common + COMMON_QUEUE_SIZE, 2);
    cr_assert_gt(most, 0, "queue %u is there", number);
    queue->driver = driver;
    queue->number = number;
    queue->size = size ? size : most;
    queue->packed = driver->features >> VIRTIO_F_RING_PACKED & 1;
    queue->event_idx = driver->features >> VIRTIO_F_EVENT_IDX & 1;
    queue->indirect = driver->features >> VIRTIO_F_INDIRECT_DESC & 1;
    queue->desc = driver_allocate(driver, 16ull * queue->size + DRIVER_BEHIND_RING, 16);
    queue->avail = driver_allocate(driver, 6 + 2ull * queue->size, 4);
    queue->used = driver_allocate(driver, 6 + 8ull * queue->size, 4);
    memset(driver_memory(driver, queue->desc), 0, 16ull * queue->size);
    memset(driver_memory(driver, queue->avail), 0, 6 + 2ull * queue->size);
    memset(driver_memory(driver, queue->used), 0, 6 + 8ull * queue->size);
    queue->next_wrap = queue->used_wrap = true;
    queue->free_slots = queue->size;
    for (unsigned i = 0; i < queue->size; i++) {
        queue->free_ids[queue->free_id_count++] = (uint16_t)(queue->size - 1 - i);
        queue->chain_next[i] = (uint16_t)(i + 1);
    }
    driver_write(driver, driver->common + COMMON_QUEUE_SIZE, 2, queue->size);
    driver_write(driver, driver->common + COMMON_QUEUE_VECTOR, 2, number + 1);
    for (unsigned i = 0; i < 3; i++) {
        gpa_t part = i == 0 ? queue->desc : i == 1 ? queue->avail : queue->used;
        driver_write(driver, driver->common + COMMON_QUEUE_DESC + 8 * i, 4, (uint32_t)part);
        driver_write(driver, driver->common + COMMON_QUEUE_DESC + 8 * i + 4, 4, part >> 32);
    }
    driver_write(driver, driver->common + COMMON_QUEUE_ENABLE, 2, 1);
    cr_assert_eq(driver_read(driver, driver->common + COMMON_QUEUE_ENABLE, 2), 1);
}

void driver_start(struct driver *driver, uint64_t wanted, unsigned queues, unsigned size)
{
    uint64_t offered = 0;

    driver->heap = 0x10000;
    driver_set_status(driver, 0);
    cr_assert_eq(driver_status(driver), 0);
    driver_set_status(driver, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    for (unsigned word = 0; word < 2; word++) {
        driver_write(driver, driver->common + COMMON_FEATURE_SELECT, 4, word);
        offered |= driver_read(driver, driver->common + COMMON_FEATURE, 4) << 32 * word;
    }
    driver->features = offered & (wanted | BIT(VIRTIO_F_VERSION_1));
    cr_assert(driver->features >> VIRTIO_F_VERSION_1 & 1);
    for (unsigned word = 0; word < 2; word++) {
        driver_write(driver, driver->common + COMMON_DRIVER_SELECT, 4, word);
        driver_write(driver, driver->common + COMMON_DRIVER_FEATURE, 4, (uint32_t)(driver->features >> 32 * word));
    }
    driver_set_status(driver, 11);
    cr_assert_eq(driver_status(driver), 11, "FEATURES_OK stays");
    driver_write(driver, driver->common + COMMON_CONFIG_VECTOR, 2, 0);
    for (unsigned i = 0; i < queues; i++)
        set_up_queue(driver, i, size);
    driver_set_status(driver, 15);
}

/* ---- Rings ---- */

static struct descriptor *desc_at(struct driver_queue *queue, gpa_t table, unsigned index)
{
    return (struct descriptor *)driver_memory(queue->driver, table) + index;
}

static uint16_t *word_at(struct driver_queue *queue, gpa_t gpa)
{
    return driver_memory(queue->driver, gpa);
}

/* An indirect table for the buffers. */
static gpa_t make_table(struct driver_queue *queue, const struct driver_buffer *buffers, unsigned count)
{
    gpa_t table = driver_allocate(queue->driver, 16ull * count, 16);

    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (buffers[i].writable ? DESC_WRITE : 0) | (!queue->packed && i + 1 < count ? DESC_NEXT : 0);
        *desc_at(queue, table, i) = (struct descriptor){ buffers[i].gpa, buffers[i].length, queue->packed ? 0 : flags,
                                                         queue->packed ? flags : (uint16_t)(i + 1) };
    }
    return table;
}

static uint16_t flags_of(const struct driver_buffer *buffer, bool more)
{
    return (buffer->writable ? DESC_WRITE : 0) | (buffer->table ? DESC_INDIRECT : 0) | (more ? DESC_NEXT : 0);
}

static bool add_split(struct driver_queue *queue, const struct driver_buffer *buffers, unsigned count, void *token)
{
    uint16_t head = queue->free_head, index = head, *avail = word_at(queue, queue->avail);

    for (unsigned i = 0; i < count; i++) {
        uint16_t next = queue->chain_next[index];
        uint16_t flags = flags_of(&buffers[i], i + 1 < count);

        *desc_at(queue, queue->desc, index) = (struct descriptor){ buffers[i].gpa, buffers[i].length, flags, next };
        if (i + 1 == count)
            queue->free_head = next;
        else
            index = next;
    }
    queue->pending[head].token = token;
    queue->pending[head].slots = count;
    avail[2 + queue->next % queue->size] = head;
    __atomic_store_n(&avail[1], ++queue->next, __ATOMIC_RELEASE);
    return true;
}

static bool add_packed(struct driver_queue *queue, const struct driver_buffer *buffers, unsigned count, void *token)
{
    uint16_t id = queue->free_ids[--queue->free_id_count], head_flags = 0;
    unsigned head = queue->next, place = head;
    bool wrap = queue->next_wrap;

    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = flags_of(&buffers[i], i + 1 < count) | (wrap ? FLAG_AVAIL : FLAG_USED);
        struct descriptor *desc = desc_at(queue, queue->desc, place);

        desc->address = buffers[i].gpa;
        desc->length = buffers[i].length;
        desc->a = id;
        if (i == 0)
            head_flags = flags;
        else
            desc->b = flags;
        if (++place == queue->size) {
            place = 0;
            wrap = !wrap;
        }
    }
    __atomic_store_n(&desc_at(queue, queue->desc, head)->b, head_flags, __ATOMIC_RELEASE);
    queue->next = (uint16_t)place;
    queue->next_wrap = wrap;
    queue->pending[id].token = token;
    queue->pending[id].slots = count;
    return true;
}

bool driver_add(struct driver_queue *queue, const struct driver_buffer *buffers, unsigned count, void *token)
{
    bool indirect = queue->indirect && count > 1;
    struct driver_buffer outer = { 0 };

    if (queue->free_slots < (indirect ? 1 : count))
        return false;
    if (indirect) {
        outer = (struct driver_buffer){ make_table(queue, buffers, count), 16 * count, false, true };
        buffers = &outer;
        count = 1;
    }
    queue->free_slots -= count;
    queue->added_since_kick++;
    if (queue->packed)
        add_packed(queue, buffers, count, token);
    else
        add_split(queue, buffers, count, token);
    return true;
}

static uint16_t load(struct driver_queue *queue, gpa_t gpa)
{
    return __atomic_load_n(word_at(queue, gpa), __ATOMIC_SEQ_CST);
}

static bool kick_wanted(struct driver_queue *queue)
{
    gpa_t used = queue->used;

    atomic_thread_fence(memory_order_seq_cst);
    if (queue->packed) {
        uint16_t flags = load(queue, used + 2) & 3, place = load(queue, used), event = place & 0x7fff;
        int distance;

        if (flags != 2)
            return flags == 0;
        distance = queue->next - event - 1 + (!!(place >> 15) != queue->next_wrap ? (int)queue->size : 0);
        return distance >= 0 && (unsigned)distance < queue->size; /* at or behind it; never kicks too rarely */
    }
    if (!queue->event_idx)
        return !(load(queue, used) & 1);
    return (uint16_t)(queue->next - load(queue, used + 4 + 8 * queue->size) - 1) <
           (uint16_t)(queue->next - queue->kicked_at);
}

void driver_kick(struct driver_queue *queue, bool always)
{
    struct driver *driver = queue->driver;

    if (!queue->added_since_kick && !always)
        return;
    if (always || kick_wanted(queue)) {
        queue->kicks++;
        driver_write(driver, driver->notify + queue->number * driver->multiplier, 2, queue->number);
    }
    queue->kicked_at = queue->next;
    queue->added_since_kick = 0;
}

/* The head or buffer id; -1: nothing was used. */
static int get_split(struct driver_queue *queue, uint32_t *length)
{
    uint16_t *used = word_at(queue, queue->used), last;
    uint32_t *entry = (uint32_t *)(used + 2) + 2 * (queue->last_used % queue->size), id;

    if (__atomic_load_n(&used[1], __ATOMIC_ACQUIRE) == queue->last_used)
        return -1;
    queue->last_used++;
    id = entry[0];
    *length = entry[1];
    cr_assert_lt(id, queue->size);
    cr_assert_not_null(queue->pending[id].token, "chain %u was not out", id);
    last = (uint16_t)id;
    for (unsigned i = 1; i < queue->pending[id].slots; i++)
        last = desc_at(queue, queue->desc, last)->b;
    queue->chain_next[last] = queue->free_head;
    queue->free_head = (uint16_t)id;
    if (queue->event_idx && !queue->no_interrupts)
        *word_at(queue, queue->avail + 4 + 2 * queue->size) = queue->last_used;
    return (int)id;
}

static int get_packed(struct driver_queue *queue, uint32_t *length)
{
    struct descriptor *desc = desc_at(queue, queue->desc, queue->last_used);
    uint16_t flags = __atomic_load_n(&desc->b, __ATOMIC_ACQUIRE);
    uint16_t id = desc->a;
    unsigned next;

    if (!!(flags & FLAG_AVAIL) != !!(flags & FLAG_USED) || !!(flags & FLAG_USED) != queue->used_wrap)
        return -1;
    *length = desc->length;
    cr_assert_lt(id, queue->size);
    cr_assert_not_null(queue->pending[id].token, "buffer %u was not out", id);
    next = queue->last_used + queue->pending[id].slots;
    if (next >= queue->size) {
        next -= queue->size;
        queue->used_wrap = !queue->used_wrap;
    }
    queue->last_used = (uint16_t)next;
    queue->free_ids[queue->free_id_count++] = id;
    if (!queue->no_interrupts)
        driver_want_interrupts(queue, true);
    return (int)id;
}

void *driver_get(struct driver_queue *queue, uint32_t *length)
{
    int id = queue->packed ? get_packed(queue, length) : get_split(queue, length);
    void *token;

    if (id < 0)
        return NULL;
    token = queue->pending[id].token;
    queue->pending[id].token = NULL;
    queue->free_slots += queue->pending[id].slots;
    return token;
}

void driver_want_interrupts(struct driver_queue *queue, bool wanted)
{
    uint16_t *avail = word_at(queue, queue->avail);

    queue->no_interrupts = !wanted;
    if (queue->packed) {
        avail[0] = queue->last_used | (queue->used_wrap ? 1 << 15 : 0);
        avail[1] = !wanted ? 1 : queue->event_idx ? 2 : 0;
    } else if (queue->event_idx) {
        avail[2 + queue->size] = wanted ? queue->last_used : (uint16_t)(queue->last_used - 1);
    } else {
        avail[0] = wanted ? 0 : 1;
    }
}
