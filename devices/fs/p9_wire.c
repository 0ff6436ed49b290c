/* Reading and writing 9P messages. A message that ends too early, or has a string that cannot be, reads as zeroes and leaves
 * an error; an answer that does not fit is marked. So handlers need to look once, at the end. Pure functions. */
#include <errno.h>
#include <string.h>

#include "devices/fs/p9_internal.h"

enum { QID_FOLDER = 0x80, QID_LINK = 0x02 };

const uint8_t *p9_get_bytes(struct p9_in *in, uint32_t size)
{
    const uint8_t *data = in->data + in->at;

    if (in->error)
        return NULL;
    if (size > in->size - in->at) {
        in->error = -EINVAL;
        return NULL;
    }
    in->at += size;
    return data;
}

uint64_t p9_get(struct p9_in *in, unsigned bytes)
{
    const uint8_t *data = p9_get_bytes(in, bytes);
    uint64_t value = 0;

    if (data)
        memcpy(&value, data, bytes);
    return value;
}

void p9_get_string(struct p9_in *in, char *text, uint32_t capacity)
{
    uint32_t size = (uint32_t)p9_get(in, 2);
    const uint8_t *data = p9_get_bytes(in, size);

    text[0] = '\0';
    if (!data)
        return;
    if (size >= capacity) {
        in->error = -ENAMETOOLONG;
    } else if (memchr(data, 0, size)) {
        in->error = -EINVAL;
    } else {
        memcpy(text, data, size);
        text[size] = '\0';
    }
}

void p9_get_name(struct p9_in *in, const struct fsdev *fsdev, char name[FS_NAME_MAX + 1])
{
    p9_get_string(in, name, FS_NAME_MAX + 1);
    if (!in->error)
        in->error = fs_check_name(fsdev, name);
}

void p9_put_bytes(struct p9_out *out, const void *data, uint32_t size)
{
    if (out->full || size > out->capacity - out->size) {
        out->full = true;
        return;
    }
    memcpy(out->data + out->size, data, size);
    out->size += size;
}

void p9_put(struct p9_out *out, uint64_t value, unsigned bytes)
{
    p9_put_bytes(out, &value, bytes);
}

void p9_put_string(struct p9_out *out, const char *text, size_t size)
{
    p9_put(out, size, 2);
    p9_put_bytes(out, text, (uint32_t)size);
}

int p9_put_qid(struct p9_out *out, struct fsdev *fsdev, const struct stat *st)
{
    uint64_t number;
    int result = fs_inode_number(fsdev, st->st_dev, st->st_ino, &number);
    /* Something that changes with the contents. */
    uint32_t version = (uint32_t)st->st_mtim.tv_sec ^ (uint32_t)st->st_mtim.tv_nsec ^ (uint32_t)st->st_size << 8;

    if (result)
        return result;
    p9_put(out, S_ISDIR(st->st_mode) ? QID_FOLDER : S_ISLNK(st->st_mode) ? QID_LINK : 0, 1);
    p9_put(out, version, 4);
    p9_put(out, number, 8);
    return 0;
}
