/* Save and restore of state tables.
 *
 *   section:  u32 magic "EST1" | u32 version | u32 name length, name | u32 body length | body
 *   body:     for each field: u32 name length, name | u32 size | u32 count | data
 *
 * All integers are little-endian, which the host (x86) is too, so fields are copied. Loading trusts
 * nothing: every length is checked against the buffer, every field against the table. A structure is only written
 * once the whole section has been checked, so a bad stream leaves the owner as it was. */
#include "base/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x31545345u /* "EST1" */

static int append(struct state_buffer *buffer, const void *data, size_t size, struct error *err)
{
    if (buffer->capacity - buffer->size < size) {
        size_t capacity = MAX(buffer->capacity * 2, buffer->size + size + 4096);
        uint8_t *bytes = realloc(buffer->data, capacity);

        if (!bytes)
            return error_set(err, ENOMEM, "no memory for the saved state");
        buffer->data = bytes;
        buffer->capacity = capacity;
    }
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    return 0;
}

static int append_u32(struct state_buffer *buffer, uint32_t value, struct error *err)
{
    return append(buffer, &value, sizeof(value), err);
}

static int append_name(struct state_buffer *buffer, const char *name, struct error *err)
{
    int ret = append_u32(buffer, (uint32_t)strlen(name), err);

    return ret ? ret : append(buffer, name, strlen(name), err);
}

static int save_fields(struct state_buffer *buffer, const struct state_table *table, const void *owner,
                       struct error *err)
{
    for (const struct state_field *field = table->fields; field->name; field++) {
        int ret = append_name(buffer, field->name, err);

        if (!ret)
            ret = append_u32(buffer, (uint32_t)field->size, err);
        if (!ret)
            ret = append_u32(buffer, (uint32_t)field->count, err);
        if (!ret)
            ret = append(buffer, (const uint8_t *)owner + field->offset, field->size * field->count, err);
        if (ret)
            return ret;
    }
    return 0;
}

int state_save(struct state_buffer *buffer, const struct state_table *table, void *owner, struct error *err)
{
    size_t start = buffer->size, body;
    uint32_t length;
    int ret;

    if (table->pre_save)
        table->pre_save(owner);
    ret = append_u32(buffer, MAGIC, err);
    if (!ret)
        ret = append_u32(buffer, table->version, err);
    if (!ret)
        ret = append_name(buffer, table->name, err);
    if (!ret)
        ret = append_u32(buffer, 0, err); /* patched below */
    body = buffer->size;
    if (!ret)
        ret = save_fields(buffer, table, owner, err);
    if (ret) {
        buffer->size = start;
        return ret;
    }
    length = (uint32_t)(buffer->size - body);
    memcpy(buffer->data + body - sizeof(length), &length, sizeof(length));
    return 0;
}

/* ---- Loading ---- */

static int truncated(const struct state_table *table, struct error *err)
{
    return error_set(err, EINVAL, "saved state of '%s' is truncated", table->name);
}

/* Points *data at the next size bytes and moves past them. */
static int take(struct state_buffer *buffer, size_t size, const uint8_t **data)
{
    if (buffer->size - buffer->position < size)
        return -EINVAL;
    *data = buffer->data + buffer->position;
    buffer->position += size;
    return 0;
}

static int take_u32(struct state_buffer *buffer, uint32_t *value)
{
    const uint8_t *data;

    if (take(buffer, sizeof(*value), &data))
        return -EINVAL;
    memcpy(value, data, sizeof(*value));
    return 0;
}

/* 0 if the next name is `name`, 1 if it is another one, -EINVAL if there is none. */
static int take_name(struct state_buffer *buffer, const char *name)
{
    const uint8_t *data;
    uint32_t length;

    if (take_u32(buffer, &length) || take(buffer, length, &data))
        return -EINVAL;
    return length == strlen(name) && !memcmp(data, name, length) ? 0 : 1;
}

/* Walks the fields; copies into owner if `commit`. */
static int load_fields(struct state_buffer *buffer, const struct state_table *table, void *owner, bool commit,
                       struct error *err)
{
    for (const struct state_field *field = table->fields; field->name; field++) {
        int same = take_name(buffer, field->name);
        uint32_t size, count;
        const uint8_t *data;

        if (same < 0 || take_u32(buffer, &size) || take_u32(buffer, &count))
            return truncated(table, err);
        if (same != 0 || size != field->size || count != field->count)
            return error_set(err, EINVAL, "saved state of '%s' does not fit at field '%s'", table->name, field->name);
        if (take(buffer, field->size * field->count, &data))
            return truncated(table, err);
        if (commit)
            memcpy((uint8_t *)owner + field->offset, data, field->size * field->count);
    }
    return 0;
}

static int load_header(struct state_buffer *buffer, const struct state_table *table, uint32_t *body, struct error *err)
{
    uint32_t magic, version;
    int same;

    if (take_u32(buffer, &magic) || take_u32(buffer, &version))
        return truncated(table, err);
    if (magic != MAGIC)
        return error_set(err, EINVAL, "no saved state where that of '%s' should be", table->name);
    same = take_name(buffer, table->name);
    if (same < 0 || take_u32(buffer, body) || buffer->size - buffer->position < *body)
        return truncated(table, err);
    if (same)
        return error_set(err, EINVAL, "saved state of something else where that of '%s' should be", table->name);
    if (version != table->version)
        return error_set(err, EINVAL, "saved state of '%s' has version %u; this program reads version %u", table->name,
                         version, table->version);
    return 0;
}

int state_load(struct state_buffer *buffer, const struct state_table *table, void *owner, struct error *err)
{
    size_t start = buffer->position, fields;
    uint32_t body = 0;
    int ret = load_header(buffer, table, &body, err);

    fields = buffer->position;
    if (!ret)
        ret = load_fields(buffer, table, owner, false, err);
    if (!ret && buffer->position - fields != body)
        ret = error_set(err, EINVAL, "saved state of '%s' has left-over fields", table->name);
    if (ret) {
        buffer->position = start;
        return ret;
    }
    buffer->position = fields;
    load_fields(buffer, table, owner, true, err);
    return table->post_load ? table->post_load(owner, err) : 0;
}

void state_buffer_free(struct state_buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct state_buffer){ 0 };
}
