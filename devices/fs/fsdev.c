/* -fsdev: exported folders by id, and their options. Before the machine runs, but for fsdev_find(). */
#include "devices/fs/fsdev.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/options.h"
#include "devices/fs/fs_internal.h"

#define MAX_FIDS         65536u
#define DESCRIPTORS_LEFT 256u /* for the rest of the program */

struct fsdev_registry {
    struct fsdev *first;
};

struct fsdev_registry *fsdev_registry_create(struct error *err)
{
    struct fsdev_registry *registry = calloc(1, sizeof(*registry));

    if (!registry)
        error_set(err, ENOMEM, "out of memory");
    return registry;
}

static void free_fsdev(struct fsdev *fsdev)
{
    if (fsdev->root)
        fs_node_put(fsdev->root);
    pthread_mutex_destroy(&fsdev->lock);
    free(fsdev->path);
    free(fsdev);
}

void fsdev_registry_destroy(struct fsdev_registry *registry)
{
    struct fsdev *next;

    if (!registry)
        return;
    for (struct fsdev *fsdev = registry->first; fsdev; fsdev = next) {
        next = fsdev->next;
        free_fsdev(fsdev);
    }
    free(registry);
}

struct fsdev *fsdev_find(struct fsdev_registry *registry, const char *id)
{
    struct fsdev *fsdev = registry ? registry->first : NULL;

    while (fsdev && strcmp(fsdev->id, id))
        fsdev = fsdev->next;
    return fsdev;
}

/* ---- Options ---- */

static int choose(struct option_list *options, const char *key, const char *const *words, unsigned fallback,
                  unsigned *choice, struct error *err)
{
    const char *value = options_get(options, key);

    *choice = fallback;
    if (!value)
        return 0;
    for (unsigned i = 0; words[i]; i++) {
        if (!strcmp(words[i], value)) {
            *choice = i;
            return 0;
        }
    }
    const char *near = nearest_word(value, words);
    if (near)
        return error_set(err, EINVAL, "%s=%s: unknown; did you mean '%s'?", key, value, near);
    return error_set(err, EINVAL, "%s=%s: unknown", key, value);
}

/* As in chmod: octal. */
static int parse_mode(struct option_list *options, const char *key, mode_t fallback, mode_t *mode, struct error *err)
{
    const char *text = options_get(options, key);
    char *end;

    *mode = fallback;
    if (!text)
        return 0;
    unsigned long value = strtoul(text, &end, 8);
    if (*end || end == text || value > 0777)
        return error_set(err, EINVAL, "%s=%s: an octal number up to 777 is needed", key, text);
    *mode = (mode_t)value;
    return 0;
}

static int refuse(struct option_list *options, struct error *err)
{
    static const char *const keys[] = { "writeout", "socket", "sock_fd" };

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (options_get(options, keys[i]))
            return error_set(err, ENOTSUP, "%s= is not supported", keys[i]);
    }
    for (size_t i = 0; i < options->count; i++) {
        if (!strncmp(options->pairs[i].key, "throttling.", 11))
            return error_set(err, ENOTSUP, "%s= is not supported", options->pairs[i].key);
    }
    return 0;
}

static int parse(struct fsdev *fsdev, struct option_list *options, struct error *err)
{
    static const char *const models[] = { "none", "passthrough", "mapped-xattr", "mapped-file", "mapped", NULL };
    static const char *const multidevs[] = { "warn", "remap", "forbid", NULL };
    const char *driver = options_get(options, "fsdriver"), *id = options_get(options, "id"),
               *path = options_get(options, "path");
    unsigned model, devices;
    bool has_modes = options_get(options, "fmode") || options_get(options, "dmode");
    int result = refuse(options, err);

    if (result)
        return result;
    if (!driver || strcmp(driver, "local"))
        return error_set(err, ENOTSUP, "file system driver '%s': only 'local' is supported", driver ? driver : "");
    if (!id || !*id || strlen(id) >= sizeof(fsdev->id))
        return error_set(err, EINVAL, "id=: %s", id ? "1 to 63 characters are needed" : "missing");
    if (!path || !*path)
        return error_set(err, EINVAL, "path= is missing");
    if (!options_get(options, "security_model"))
        return error_set(err, EINVAL, "security_model= is missing: none, passthrough, mapped-xattr or mapped-file");
    result = choose(options, "security_model", models, FS_NONE, &model, err);
    result = result ?: choose(options, "multidevs", multidevs, FS_MULTIDEVS_WARN, &devices, err);
    result = result ?: options_get_bool(options, "readonly", false, &fsdev->read_only, err);
    result = result ?: parse_mode(options, "fmode", 0600, &fsdev->file_mode, err);
    result = result ?: parse_mode(options, "dmode", 0700, &fsdev->folder_mode, err);
    if (result)
        return result;
    fsdev->model = model == 4 ? FS_MAPPED_XATTR : (enum fs_model)model;
    fsdev->multidevs = (enum fs_multidevs)devices;
    if (has_modes && !fs_is_mapped(fsdev))
        return error_set(err, EINVAL, "fmode= and dmode= are for the mapped security models");
    snprintf(fsdev->id, sizeof(fsdev->id), "%s", id);
    fsdev->path = strdup(path);
    if (!fsdev->path)
        return error_set(err, ENOMEM, "out of memory");
    return options_check_all_used(options, "", err);
}

/* Every file that a guest knows of costs a descriptor: we take as many as we may have. */
static unsigned raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit))
        return 1024 - DESCRIPTORS_LEFT;
    if (limit.rlim_cur < limit.rlim_max && limit.rlim_cur < 4 * MAX_FIDS) {
        limit.rlim_cur = MIN(limit.rlim_max, 4 * MAX_FIDS);
        setrlimit(RLIMIT_NOFILE, &limit);
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur <= 2 * DESCRIPTORS_LEFT)
        return DESCRIPTORS_LEFT / 2;
    return (unsigned)MIN((limit.rlim_cur - DESCRIPTORS_LEFT) / 2, MAX_FIDS); /* an open one has two */
}

static int open_root(struct fsdev *fsdev, struct error *err)
{
    char path[FS_PROC_PATH];
    int error;

    if (access("/proc/self/fd", X_OK))
        return error_set(err, errno, "/proc/self/fd is needed: %s", strerror(errno));
    fsdev->max_fids = raise_descriptor_limit();
    fsdev->root = fs_node_root(fsdev, &error);
    if (!fsdev->root)
        return error_set(err, -error, "path=%s: %s", fsdev->path, strerror(-error));
    fs_node_proc_path(fsdev->root, path);
    if (access(path, R_OK | X_OK))
        return error_set(err, errno, "path=%s: %s", fsdev->path, strerror(errno));
    return 0;
}

int fsdev_add(struct fsdev_registry *registry, const char *option, struct error *err)
{
    struct option_list options;
    struct fsdev *fsdev;
    int result = options_parse(&options, option, "fsdriver", err);

    if (result)
        return result;
    fsdev = calloc(1, sizeof(*fsdev));
    if (!fsdev) {
        options_free(&options);
        return error_set(err, ENOMEM, "out of memory");
    }
    pthread_mutex_init(&fsdev->lock, NULL);
    result = parse(fsdev, &options, err);
    if (!result && fsdev_find(registry, fsdev->id))
        result = error_set(err, EEXIST, "there is an fsdev '%s' already", fsdev->id);
    result = result ?: open_root(fsdev, err);
    options_free(&options);
    if (result) {
        free_fsdev(fsdev);
        return result;
    }
    fsdev->next = registry->first;
    registry->first = fsdev;
    return 0;
}
