/* The registry: what -netdev, -nic and -net make, by name, and the devices that -nic and -net ask for.
 *
 * Clients are listed oldest first. Back ends belong to the registry, cards to their devices, which are gone first. Before
 * the machine runs, or with the device lock held. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/core/device.h"
#include "devices/net/net_internal.h"

static void destroy_nothing(struct net_client *client)
{
    free(client);
}

static int create_nothing(struct net_registry *registry, const char *id, struct option_list *options, struct error *err)
{
    static const struct net_client_ops ops = { .kind = "none", .destroy = destroy_nothing };
    struct net_client *client = calloc(1, sizeof(*client));

    (void)options;
    if (!client)
        return error_set(err, ENOMEM, "out of memory");
    int result = net_client_add(registry, client, &ops, id, err);
    if (result)
        free(client);
    return result;
}

static const struct net_backend_type backend_types[] = {
    { "socket", net_socket_create },   { "stream", net_stream_create }, { "dgram", net_dgram_create },
    { "hubport", net_hubport_create }, { "tap", net_tap_create },       { "user", net_user_create },
    { "bridge", net_bridge_create },   { "none", create_nothing },
};

/* What QEMU has and we have not: a better answer than "unknown". */
static const char *const absent_types[] = { "l2tpv3", "vde", "netmap", "vhost-user", "vhost-vdpa", "af-xdp", "passt" };

static const char *const models[] = { "e1000e", "virtio-net-pci", "virtio" };

void net_print_help(bool print_models)
{
    if (print_models) {
        puts("Available NIC models:\ne1000e\nvirtio-net-pci");
        return;
    }
    puts("Available netdev types:");
    for (size_t i = 0; i < ARRAY_SIZE(backend_types); i++) {
        if (backend_types[i].create != net_bridge_create && backend_types[i].create != create_nothing)
            puts(backend_types[i].name);
    }
}

/* ---- Life ---- */

struct net_registry *net_registry_create(struct event_loop *loop, struct error *err)
{
    struct net_registry *registry = calloc(1, sizeof(*registry));

    if (!registry) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    registry->loop = loop;
    registry->requests_end = &registry->requests;
    return registry;
}

static void destroy_client(struct net_client *client)
{
    net_client_remove(client);
    if (client->ops->destroy)
        client->ops->destroy(client);
}

static void free_request(struct net_device_request *request)
{
    if (request)
        free(request->text);
    free(request);
}

void net_registry_destroy(struct net_registry *registry)
{
    if (!registry)
        return;
    while (registry->clients)
        destroy_client(registry->clients);
    while (registry->requests) {
        struct net_device_request *request = registry->requests;

        registry->requests = request->next;
        free_request(request);
    }
    free_request(registry->current);
    free(registry);
}

struct event_loop *net_registry_loop(const struct net_registry *registry)
{
    return registry->loop;
}

struct net_client *net_find(struct net_registry *registry, const char *id)
{
    for (struct net_client *client = registry ? registry->clients : NULL; client; client = client->next) {
        if (!client->is_nic && !strcmp(client->id, id))
            return client;
    }
    return NULL;
}

void net_registry_check(struct net_registry *registry)
{
    for (struct net_client *client = registry->clients; client; client = client->next) {
        if (!client->is_nic && !client->peer)
            log_warn("netdev %s has no peer", client->id);
        else if (client->is_nic && !client->peer)
            log_warn("nic %s has no peer", client->id);
    }
}

/* ---- Options ---- */

static int add_option(struct option_list *list, const char *key, const char *value, struct error *err)
{
    struct option_pair *pairs = realloc(list->pairs, (list->count + 1) * sizeof(*pairs));

    if (!pairs)
        return error_set(err, ENOMEM, "out of memory");
    list->pairs = pairs;
    pairs[list->count] = (struct option_pair){ .key = strdup(key), .value = strdup(value) };
    list->count++;
    if (!pairs[list->count - 1].key || !pairs[list->count - 1].value)
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

/* {"addr": {"type": "unix"}} is addr.type=unix; lists repeat their key; {"str": X} inside of a list is X. */
static int flatten(struct option_list *list, const char *prefix, json_t *value, unsigned depth, struct error *err)
{
    char text[64];
    const char *key;
    json_t *item;
    size_t index;
    int result = 0;

    if (depth > 4)
        return error_set(err, EINVAL, "%s: nested too deeply", prefix);
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        if (depth > 1 && json_object_size(value) == 1 && json_object_get(value, "str"))
            return flatten(list, prefix, json_object_get(value, "str"), depth + 1, err);
        json_object_foreach(value, key, item)
        {
            char name[128];

            snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
            if ((result = flatten(list, name, item, depth + 1, err)))
                return result;
        }
        return 0;
    case JSON_ARRAY:
        json_array_foreach(value, index, item)
        {
            if ((result = flatten(list, prefix, item, depth + 1, err)))
                return result;
        }
        return 0;
    case JSON_STRING:
        return add_option(list, prefix, json_string_value(value), err);
    case JSON_INTEGER:
        snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
        return add_option(list, prefix, text, err);
    case JSON_TRUE:
    case JSON_FALSE:
        return add_option(list, prefix, json_is_true(value) ? "on" : "off", err);
    default:
        return error_set(err, EINVAL, "%s: a string, number or boolean expected", prefix);
    }
}

static int parse_options(struct option_list *list, const char *text, struct error *err)
{
    json_error_t problem;
    json_t *json;
    int result;

    if (*text != '{')
        return options_parse(list, text, "type", err);
    *list = (struct option_list){ 0 };
    json = json_loads(text, JSON_REJECT_DUPLICATES, &problem);
    if (!json)
        return error_set(err, EINVAL, "JSON, line %d: %s", problem.line, problem.text);
    result = flatten(list, "", json, 0, err);
    json_decref(json);
    if (result)
        options_free(list);
    return result;
}

static int check_id(const char *id, struct error *err)
{
    if (!((*id >= 'a' && *id <= 'z') || (*id >= 'A' && *id <= 'Z')) || strlen(id) > 63)
        return error_set(err, EINVAL, "id=%s: a letter, then letters, digits, '-', '.', '_' expected", id);
    for (const char *c = id; *c; c++) {
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._", *c))
            return error_set(err, EINVAL, "id=%s: letters, digits, '-', '.', '_' expected", id);
    }
    return 0;
}

static int create_backend(struct net_registry *registry, const char *id, struct option_list *options, struct error *err)
{
    const char *type = options_get(options, "type"), *names[ARRAY_SIZE(backend_types) + 1] = { NULL };
    const char *near;

    if (!type)
        return error_set(err, EINVAL, "no type given; -netdev help lists them");
    for (size_t i = 0; i < ARRAY_SIZE(backend_types); i++) {
        if (!strcmp(type, backend_types[i].name)) {
            int result = backend_types[i].create(registry, id, options, err);

            if (!result && (result = options_check_all_used(options, type, err)))
                destroy_client(net_find(registry, id));
            return result;
        }
        names[i] = backend_types[i].name;
    }
    for (size_t i = 0; i < ARRAY_SIZE(absent_types); i++) {
        if (!strcmp(type, absent_types[i]))
            return error_set(err, ENOTSUP, "network back end '%s' is not there; -netdev help lists those that are",
                             type);
    }
    near = nearest_word(type, names);
    if (near)
        return error_set(err, EINVAL, "unknown network back end '%s'; did you mean '%s'?", type, near);
    return error_set(err, EINVAL, "unknown network back end '%s'; -netdev help lists them", type);
}

int net_add_netdev(struct net_registry *registry, const char *option, struct error *err)
{
    struct option_list options;
    const char *id;
    int result = parse_options(&options, option, err);

    if (result)
        return result;
    id = options_get(&options, "id");
    result = id ? check_id(id, err) : error_set(err, EINVAL, "id= is missing");
    if (!result)
        result = create_backend(registry, id, &options, err);
    options_free(&options);
    return result;
}

/* ---- Cards that options ask for ---- */

static int request_device(struct net_registry *registry, const char *model, const char *backend,
                          struct option_list *options, struct error *err)
{
    static const char *const passed[][2] = {
        { "mac", "mac" }, { "macaddr", "mac" }, { "addr", "addr" }, { "vectors", "vectors" }
    };
    struct net_device_request *request = calloc(1, sizeof(*request));
    char text[512];
    int length;

    if (!request)
        return error_set(err, ENOMEM, "out of memory");
    if (!strcmp(model, "virtio"))
        model = "virtio-net-pci";
    length = snprintf(text, sizeof(text), "%.60s%s%.63s", model, backend ? ",netdev=" : "", backend ? backend : "");
    for (size_t i = 0; i < ARRAY_SIZE(passed); i++) {
        const char *value = options_get(options, passed[i][0]);

        if (value && strchr(value, ',')) {
            free(request);
            return error_set(err, EINVAL, "%s=%s: no comma expected", passed[i][0], value);
        }
        if (value && length < (int)sizeof(text))
            length += snprintf(text + length, sizeof(text) - (size_t)length, ",%s=%.64s", passed[i][1], value);
    }
    request->text = strdup(text);
    if (!request->text) {
        free(request);
        return error_set(err, ENOMEM, "out of memory");
    }
    *registry->requests_end = request;
    registry->requests_end = &request->next;
    return 0;
}

const char *net_next_device(struct net_registry *registry)
{
    free_request(registry->current);
    registry->current = registry->requests;
    if (!registry->current)
        return NULL;
    registry->requests = registry->current->next;
    if (!registry->requests)
        registry->requests_end = &registry->requests;
    return registry->current->text;
}

static const char *choose_model(struct option_list *options, const char *fallback, struct error *err)
{
    const char *model = options_get(options, "model"), *names[ARRAY_SIZE(models) + 1] = { NULL };

    if (!model)
        return fallback;
    for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
        if (!strcmp(model, models[i]))
            return model;
        names[i] = models[i];
    }
    /* -device's types may know more of them than we list; what is none is refused here, by its name. */
    if (device_type_find(model))
        return model;
    const char *near = nearest_word(model, names);
    error_set(err, EINVAL, "model=%s: no such network card%s%s%s; model=help lists them", model,
              near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return NULL;
}

static const char *make_up_id(struct net_registry *registry, char id[64])
{
    snprintf(id, 64, "#net%03u", registry->made_up++);
    return id;
}

int net_add_nic(struct net_registry *registry, const char *option, const char *default_model, struct error *err)
{
    struct option_list options;
    const char *type, *id, *model;
    char made_up[64];
    int result = parse_options(&options, option, err);

    if (result)
        return result;
    type = options_get(&options, "type");
    if (type && !strcmp(type, "none")) {
        result = options_check_all_used(&options, "none", err);
        goto out;
    }
    id = options_get(&options, "id");
    if (id && (result = check_id(id, err)))
        goto out;
    if (!id)
        id = make_up_id(registry, made_up);
    model = choose_model(&options, default_model, err);
    result = model ? request_device(registry, model, id, &options, err) : -EINVAL;
    if (!result)
        result = create_backend(registry, id, &options, err);
out:
    options_free(&options);
    return result;
}

/* -net: everything on hub 0, but for a card that names its back end. */
int net_add_net(struct net_registry *registry, const char *option, const char *default_model, struct error *err)
{
    struct option_list options;
    const char *type, *id, *model, *netdev;
    char made_up[64], port[64];
    int result = parse_options(&options, option, err);

    if (result)
        return result;
    type = options_get(&options, "type");
    if (type && !strcmp(type, "none")) {
        result = options_check_all_used(&options, "none", err);
        goto out;
    }
    if (type && !strcmp(type, "nic")) {
        netdev = options_get(&options, "netdev");
        options_get(&options, "name"), options_get(&options, "id");
        model = choose_model(&options, default_model, err);
        if (!netdev && model) {
            netdev = make_up_id(registry, port);
            result = net_hub_plug(registry, 0, netdev, NULL, err);
        }
        if (!result)
            result = model ? request_device(registry, model, netdev, &options, err) : -EINVAL;
        if (!result)
            result = options_check_all_used(&options, "nic", err);
        goto out;
    }
    id = options_get(&options, "id");
    if (!id)
        id = options_get(&options, "name");
    if (id && (result = check_id(id, err)))
        goto out;
    if (!id)
        id = make_up_id(registry, made_up);
    result = create_backend(registry, id, &options, err);
    if (!result)
        result = net_hub_plug(registry, 0, make_up_id(registry, port), net_find(registry, id), err);
out:
    options_free(&options);
    return result;
}
