/* Folders of the host that guests may see: -fsdev. The registry is the frontend's; a file server (p9.h) uses an export. */
#ifndef EIDOLON_DEVICES_FS_FSDEV_H
#define EIDOLON_DEVICES_FS_FSDEV_H

#include "base/error.h"
#include "base/types.h"

struct fsdev;
struct fsdev_registry;

struct fsdev_registry *fsdev_registry_create(struct error *err);
void fsdev_registry_destroy(struct fsdev_registry *registry);
/* A -fsdev value: local,id=ID,path=PATH,security_model=MODEL[,...]. Messages do not repeat it. */
int fsdev_add(struct fsdev_registry *registry, const char *option, struct error *err);
/* NULL: there is none of that name. */
struct fsdev *fsdev_find(struct fsdev_registry *registry, const char *id);

#endif
