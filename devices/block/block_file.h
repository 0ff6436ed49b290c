/* A file or block device of the host: block_file_open.c (opening, alignment), block_file.c (work), block_file_lock.c. */
#ifndef EIDOLON_DEVICES_BLOCK_BLOCK_FILE_H
#define EIDOLON_DEVICES_BLOCK_BLOCK_FILE_H

#include <stdatomic.h>

#include "devices/block/block_internal.h"

struct file_node {
    struct block_node node;
    int fd;             /* O_DIRECT if the node's flags say so */
    int buffered_fd;    /* without O_DIRECT; -1 if fd is that */
    uint32_t alignment; /* of all that goes through fd; 1: none is needed */
    bool is_device;
    atomic_bool can_punch, can_zero; /* until the host says otherwise */
    atomic_bool flush_failed;
};

int block_file_open(struct block_node *node, struct block_open *open, struct error *err);
void block_file_close(struct block_node *node);

#endif
