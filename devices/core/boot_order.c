/* The list of boot entries, sorted. Before the machine runs. */
#include "devices/core/boot_order.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct boot_order {
    struct boot_order *next; /* higher indices */
    int64_t index;
    char path[];
};

int boot_order_option(struct option_list *options, int64_t *index, struct error *err)
{
    uint64_t value;
    int result;

    *index = -1;
    if (!options || !options_get(options, "bootindex"))
        return 0;
    if (!strcmp(options_get(options, "bootindex"), "-1"))
        return 0;
    result = options_get_u64(options, "bootindex", 0, &value, err);
    if (!result && value > INT32_MAX)
        result = error_set(err, EINVAL, "bootindex=%llu is too large", (unsigned long long)value);
    if (!result)
        *index = (int64_t)value;
    return result;
}

int boot_order_add(struct device_env *env, int64_t index, const char *path, struct error *err)
{
    struct boot_order **link = &env->boot_order, *entry;
    size_t length = strlen(path) + 1;

    if (index < 0)
        return 0;
    while (*link && (*link)->index < index)
        link = &(*link)->next;
    if (*link && (*link)->index == index)
        return error_set(err, EEXIST, "bootindex=%lld: another device has it", (long long)index);
    entry = malloc(sizeof(*entry) + length);
    if (!entry)
        return error_set(err, ENOMEM, "out of memory");
    entry->index = index;
    entry->next = *link;
    memcpy(entry->path, path, length);
    *link = entry;
    return 0;
}

int boot_order_text(const struct device_env *env, bool halt, char **text, size_t *size, struct error *err)
{
    size_t length = 0;
    char *end;

    *text = NULL;
    *size = 0;
    for (const struct boot_order *entry = env->boot_order; entry; entry = entry->next)
        length += strlen(entry->path) + 1;
    if (!length)
        return 0;
    end = *text = malloc(length + sizeof("HALT"));
    if (!end)
        return error_set(err, ENOMEM, "out of memory");
    for (const struct boot_order *entry = env->boot_order; entry; entry = entry->next) {
        end = stpcpy(end, entry->path);
        *end++ = '\n';
    }
    if (halt)
        end = stpcpy(end, "HALT") + 1;
    end[-1] = '\0';
    *size = (size_t)(end - *text);
    return 0;
}

void boot_order_free(struct device_env *env)
{
    while (env->boot_order) {
        struct boot_order *entry = env->boot_order;

        env->boot_order = entry->next;
        free(entry);
    }
}
