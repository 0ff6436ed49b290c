/* Parts of scatter lists: slices, copies. Plain functions of their arguments; any thread. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What of [skip, skip + size) is still to be seen. */
struct pieces {
    const struct iovec *iov;
    unsigned count;
    uint64_t skip, size;
};

static bool next_piece(struct pieces *pieces, struct iovec *piece)
{
    while (pieces->count && pieces->skip >= pieces->iov->iov_len) {
        pieces->skip -= pieces->iov->iov_len;
        pieces->iov++;
        pieces->count--;
    }
    if (!pieces->count || !pieces->size)
        return false;
    piece->iov_base = (uint8_t *)pieces->iov->iov_base + pieces->skip;
    piece->iov_len = MIN(pieces->iov->iov_len - pieces->skip, pieces->size);
    pieces->skip += piece->iov_len;
    pieces->size -= piece->iov_len;
    return true;
}

int block_slice_init(struct block_slice *slice, const struct iovec *iov, unsigned count, uint64_t skip, uint64_t size)
{
    struct pieces pieces = { iov, count, skip, size };
    struct iovec piece;

    slice->iov = slice->local;
    slice->count = 0;
    if (count > ARRAY_SIZE(slice->local)) {
        slice->iov = calloc(count, sizeof(*slice->iov));
        if (!slice->iov)
            return -ENOMEM;
    }
    while (next_piece(&pieces, &piece))
        slice->iov[slice->count++] = piece;
    return 0;
}

void block_slice_free(struct block_slice *slice)
{
    if (slice->iov != slice->local)
        free(slice->iov);
}

void block_iov_copy_from(const struct iovec *iov, unsigned count, uint64_t skip, void *buffer, uint64_t size)
{
    struct pieces pieces = { iov, count, skip, size };
    struct iovec piece;

    for (uint8_t *out = buffer; next_piece(&pieces, &piece); out += piece.iov_len)
        memcpy(out, piece.iov_base, piece.iov_len);
}

void block_iov_copy_to(const struct iovec *iov, unsigned count, uint64_t skip, const void *buffer, uint64_t size)
{
    struct pieces pieces = { iov, count, skip, size };
    struct iovec piece;

    for (const uint8_t *in = buffer; next_piece(&pieces, &piece); in += piece.iov_len)
        memcpy(piece.iov_base, in, piece.iov_len);
}

void block_iov_zero(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t size)
{
    struct pieces pieces = { iov, count, skip, size };
    struct iovec piece;

    while (next_piece(&pieces, &piece))
        memset(piece.iov_base, 0, piece.iov_len);
}
