/* -netdev, -nic, -net, -netdump and -object filter-dump: taken down while parsing, made when the machine is.
 *
 * Without any of the first three (and without -nodefaults) there is a card on a network of its own, as in QEMU. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/options.h"
#include "devices/net/net.h"
#include "frontend/command_line.h"

#define DEFAULT_MODEL "e1000e" /* of q35 */

static bool is_help(const char *value)
{
    return !strcmp(value, "help") || !strcmp(value, "?");
}

/* 1: help was printed. */
int settings_take_net(struct settings *settings, struct string_list *list, const char *value, struct error *err)
{
    if (is_help(value)) {
        net_print_help(false);
        return 1;
    }
    if (strstr(value, "model=help") || strstr(value, "model=?")) {
        net_print_help(true);
        return 1;
    }
    settings->net_given = true;
    return string_list_add(list, value) ? error_set(err, ENOMEM, "out of memory") : 0;
}

static int each(const struct string_list *list, const char *option, struct net_registry *nets,
                int (*add)(struct net_registry *nets, const char *value, struct error *err), struct error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        int result = add(nets, list->items[i], err);

        if (result)
            return error_prefix(err, result, "%s %s", option, list->items[i]);
    }
    return 0;
}

static int add_nic(struct net_registry *nets, const char *value, struct error *err)
{
    return net_add_nic(nets, value, DEFAULT_MODEL, err);
}

static int add_net(struct net_registry *nets, const char *value, struct error *err)
{
    return net_add_net(nets, value, DEFAULT_MODEL, err);
}

static const char *object_type(struct option_list *options)
{
    const char *type = options_get(options, "qom-type");

    return type ? type : "";
}

bool settings_is_filter(const char *object)
{
    struct option_list options;
    struct error ignored = { 0 };

    if (options_parse(&options, object, "qom-type", &ignored))
        return false;
    bool result = !strcmp(object_type(&options), "filter-dump");
    options_free(&options);
    return result;
}

static int add_filter(struct net_registry *nets, const char *value, struct error *err)
{
    struct option_list options;
    int result = options_parse(&options, value, "qom-type", err);

    if (result)
        return result;
    object_type(&options); /* used */
    result = net_add_filter_dump(nets, &options, err);
    options_free(&options);
    return result;
}

int settings_create_networks(const struct settings *settings, struct net_registry *nets, struct error *err)
{
    int result = 0;

    if (!settings->net_given && !settings->nodefaults)
        result = add_nic(nets, "user", err);
    if (result || (result = each(&settings->netdevs, "-netdev", nets, net_add_netdev, err)) ||
        (result = each(&settings->nics, "-nic", nets, add_nic, err)) ||
        (result = each(&settings->nets, "-net", nets, add_net, err)) ||
        (result = each(&settings->filters, "-object", nets, add_filter, err)))
        return result;
    return each(&settings->netdumps, "-netdump", nets, net_add_netdump, err);
}
