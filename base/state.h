/* State tables: a device or CPU describes what has to be saved as a const table of
 * fields; save and restore walk it. The encoding is little-endian, versioned and
 * self-checking (name, version, size of every field). */
#ifndef EIDOLON_BASE_STATE_H
#define EIDOLON_BASE_STATE_H

#include "base/error.h"
#include "base/types.h"

struct state_field {
    const char *name;
    size_t offset; /* in the owner's structure */
    size_t size;   /* of one element: 1, 2, 4, 8 (integers, saved little-endian) or any (bytes) */
    size_t count;
};

struct state_table {
    const char *name;
    uint32_t version;
    const struct state_field *fields;                 /* ends with name == NULL */
    int (*post_load)(void *owner, struct error *err); /* may be NULL; re-arms timers ... */
    void (*pre_save)(void *owner);                    /* may be NULL */
};

#define STATE_FIELD(type, member)                                                                                      \
    {                                                                                                                  \
#member, offsetof(type, member), sizeof(((type *)0)->member), 1                                                \
    }
#define STATE_ARRAY(type, member)                                                                                      \
    {                                                                                                                  \
#member, offsetof(type, member), sizeof(((type *)0)->member[0]),                                               \
            sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0])                                               \
    }
#define STATE_END                                                                                                      \
    {                                                                                                                  \
        NULL, 0, 0, 0                                                                                                  \
    }

struct state_buffer {
    uint8_t *data;
    size_t size, capacity, position; /* position: read cursor */
};

int state_save(struct state_buffer *buffer, const struct state_table *table, void *owner, struct error *err);
int state_load(struct state_buffer *buffer, const struct state_table *table, void *owner, struct error *err);
void state_buffer_free(struct state_buffer *buffer);

#endif
