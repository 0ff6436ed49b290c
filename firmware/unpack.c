/* The payload of a bzImage, unpacked by the libraries of its format: doing it here at host speed
 * saves the guest from decompressing itself. What comes out goes on piece by piece, from a buffer that is used again and
 * again: most of what it costs to fill fresh memory is the host's zeroing it.
 *
 * The kernel's build appends the unpacked size (u32) to all but gzip, which ends in it anyway; it is not looked at. */
#include "firmware/unpack.h"

#include "base/host_memory.h"

#include <endian.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <pthread.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_CHUNK (8u << 20)
#define STREAM_CHUNK     MIB /* all but lz4 */
#define HEAD             MIB
#define ENOUGH           1 /* of a head: not an error */
#define XZ_MEMORY_LIMIT  (512ull << 20)

/* A piece goes from the thread that unpacks to the one that takes it. */
struct handover {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const uint8_t *data; /* NULL: nothing is on its way */
    size_t size;
    bool finished; /* nothing will come any more */
    int refused;   /* what the sink said last; not 0: stop */
};

struct output {
    struct host_region buffer; /* two halves, in turns: one is filled while the other is taken */
    uint8_t *data;             /* the half that is filled, `capacity` bytes; `size` are there */
    size_t size, capacity;
    struct handover *handover; /* NULL: the sink is called where unpacking is done */
    uint64_t taken, limit;     /* bytes that the sink has got, and may get */
    bool head_only;            /* the first piece is enough */
    unpack_sink_fn sink;
    void *opaque;
};

static int no_memory(struct error *err)
{
    return error_set(err, ENOMEM, "no memory to unpack the kernel");
}

static int output_create(struct output *out, size_t capacity, struct error *err)
{
    /* Not from malloc, which would keep it for later. */
    size_t size = out->handover ? 2 * capacity : capacity;
    if (host_memory_anonymous(&out->buffer, size, err))
        return no_memory(err);
    host_memory_prefer_huge(out->buffer.base, size);
    out->data = out->buffer.base;
    out->capacity = capacity;
    return 0;
}

/* Waits until the piece before was taken. */
static int hand_over(struct handover *h, const uint8_t *data, size_t size)
{
    pthread_mutex_lock(&h->lock);
    while (h->data)
        pthread_cond_wait(&h->changed, &h->lock);
    int result = h->refused;
    if (!result) {
        h->data = data;
        h->size = size;
        pthread_cond_signal(&h->changed);
    }
    pthread_mutex_unlock(&h->lock);
    return result;
}

static int output_give(struct output *out, const uint8_t *data, size_t size, struct error *err)
{
    if (size > out->limit - out->taken)
        return error_set(err, EFBIG, "the unpacked kernel is bigger than %llu MiB",
                         (unsigned long long)(out->limit / MIB));
    out->taken += size;
    if (!size)
        return 0;
    int result = out->handover ? hand_over(out->handover, data, size) : out->sink(out->opaque, data, size, err);
    return result || !out->head_only ? result : ENOUGH;
}

/* What is there goes to the sink; the buffer is empty again. */
static int output_flush(struct output *out, struct error *err)
{
    uint8_t *full = out->data, *first = out->buffer.base;
    size_t size = out->size;

    out->size = 0;
    if (out->handover)
        out->data = full == first ? first + out->capacity : first;
    return output_give(out, full, size, err);
}

static int damaged(const char *format, struct error *err)
{
    return error_set(err, EINVAL, "its %s data is damaged or truncated", format);
}

/* The end of a format's loop: what is left goes to the sink if all went well. */
static int finish(struct output *out, int result, bool complete, const char *format, struct error *err)
{
    if (result)
        return result;
    result = output_flush(out, err);
    return result || complete ? result : damaged(format, err);
}

static int unpack_gzip(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    z_stream stream = { .next_in = (Bytef *)in, .avail_in = in_size };
    int status = Z_OK, result = output_create(out, STREAM_CHUNK, err);

    if (result)
        return result;
    if (inflateInit2(&stream, 15 + 16) != Z_OK)
        return no_memory(err);
    while (status == Z_OK && !result) {
        stream.next_out = out->data + out->size;
        stream.avail_out = out->capacity - out->size;
        status = inflate(&stream, Z_NO_FLUSH);
        out->size = out->capacity - stream.avail_out;
        if (status == Z_OK && out->size == out->capacity)
            result = output_flush(out, err);
    }
    inflateEnd(&stream);
    return finish(out, result, status == Z_STREAM_END, "gzip", err);
}

static int unpack_xz(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    lzma_ret status = LZMA_OK;
    int result = output_create(out, STREAM_CHUNK, err);

    if (result)
        return result;
    if (lzma_stream_decoder(&stream, XZ_MEMORY_LIMIT, 0) != LZMA_OK)
        return no_memory(err);
    stream.next_in = in;
    stream.avail_in = in_size;
    while (status == LZMA_OK && !result) {
        stream.next_out = out->data + out->size;
        stream.avail_out = out->capacity - out->size;
        status = lzma_code(&stream, LZMA_FINISH);
        out->size = out->capacity - stream.avail_out;
        if (status == LZMA_OK && out->size == out->capacity)
            result = output_flush(out, err);
    }
    lzma_end(&stream);
    return finish(out, result, status == LZMA_STREAM_END, "xz", err);
}

static int unpack_zstd(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    ZSTD_inBuffer input = { .src = in, .size = in_size };
    size_t status = 1;
    int result = output_create(out, STREAM_CHUNK, err);
    ZSTD_DCtx *context = result ? NULL : ZSTD_createDCtx();

    if (result)
        return result;
    if (!context)
        return no_memory(err);
    /* 0: the frame is complete. No progress on either side: the input ended inside it. */
    while (status && !result) {
        ZSTD_outBuffer output = { .dst = out->data, .size = out->capacity, .pos = out->size };
        size_t consumed = input.pos;

        status = ZSTD_decompressStream(context, &output, &input);
        if (ZSTD_isError(status) || (status && input.pos == consumed && output.pos == out->size))
            break;
        out->size = output.pos;
        if (out->size == out->capacity)
            result = output_flush(out, err);
    }
    ZSTD_freeDCtx(context);
    return finish(out, result, status == 0, "zstd", err);
}

/* Magic, then chunks: u32 compressed size, data that unpacks to at most 8 MiB. No end mark: what is left when fewer
 * than a whole chunk's bytes remain is the size that the kernel's build appended. */
static int unpack_lz4(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    size_t position = 4;
    size_t room = out->head_only ? HEAD : LZ4_LEGACY_CHUNK;
    int result = output_create(out, room, err);

    while (!result && in_size - position > 4) {
        uint32_t chunk;
        int got;

        memcpy(&chunk, in + position, 4);
        chunk = le32toh(chunk);
        position += 4;
        if (chunk == LZ4_LEGACY_MAGIC)
            continue;
        if (chunk == 0 || chunk > in_size - position)
            return damaged("lz4", err);
        const char *source = (const char *)in + position;
        got = out->head_only ? LZ4_decompress_safe_partial(source, (char *)out->data, chunk, room, room)
                             : LZ4_decompress_safe(source, (char *)out->data, chunk, room);
        if (got < 0)
            return damaged("lz4", err);
        out->size = got;
        result = output_flush(out, err);
        position += chunk;
    }
    return result;
}

static int unpack_plain(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    return output_give(out, in, out->head_only ? MIN(in_size, (size_t)HEAD) : in_size, err);
}

static const struct {
    uint8_t magic[6], magic_size;
    int (*unpack)(const uint8_t *in, size_t in_size, struct output *out, struct error *err);
} formats[] = {
    { { 0x1f, 0x8b }, 2, unpack_gzip },
    { { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, unpack_xz },
    { { 0x28, 0xb5, 0x2f, 0xfd }, 4, unpack_zstd },
    { { 0x02, 0x21, 0x4c, 0x18 }, 4, unpack_lz4 },
    { { 0x7f, 'E', 'L', 'F' }, 4, unpack_plain },
};

struct job {
    const uint8_t *in;
    size_t in_size;
    struct output *out;
    struct error err;
    int result;
};

static void run(struct job *job)
{
    job->result = error_set(&job->err, ENOTSUP, "unknown compression");
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        if (job->in_size < 8 || memcmp(job->in, formats[i].magic, formats[i].magic_size))
            continue;
        job->result = formats[i].unpack(job->in, job->in_size, job->out, &job->err);
        return;
    }
}

static void *run_in_thread(void *opaque)
{
    struct job *job = opaque;
    struct handover *h = job->out->handover;

    run(job);
    pthread_mutex_lock(&h->lock);
    h->finished = true;
    pthread_cond_signal(&h->changed);
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* In the caller's thread: what the other one unpacks goes to the sink, until there is no more. */
static int take_pieces(struct handover *h, const struct output *out, struct error *err)
{
    int refused = 0;

    pthread_mutex_lock(&h->lock);
    for (;;) {
        while (!h->data && !h->finished)
            pthread_cond_wait(&h->changed, &h->lock);
        if (!h->data)
            break;
        pthread_mutex_unlock(&h->lock);
        if (!refused)
            refused = out->sink(out->opaque, h->data, h->size, err);
        pthread_mutex_lock(&h->lock);
        h->data = NULL;
        h->refused = refused;
        pthread_cond_signal(&h->changed);
    }
    pthread_mutex_unlock(&h->lock);
    return refused;
}

/* Half of the time goes into unpacking, half into filling guest memory: two threads. */
int unpack(const uint8_t *in, size_t in_size, uint64_t limit, unpack_sink_fn sink, void *opaque, struct error *err)
{
    struct handover handover = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    struct output output = { .buffer = { .fd = -1 }, .limit = limit, .sink = sink, .opaque = opaque };
    struct job job = { .in = in, .in_size = in_size, .out = &output };
    pthread_t thread;
    int refused = 0;

    output.handover = &handover;
    if (!pthread_create(&thread, NULL, run_in_thread, &job)) {
        refused = take_pieces(&handover, &output, err);
        pthread_join(thread, NULL);
    } else {
        output.handover = NULL;
        run(&job);
    }
    host_memory_free(&output.buffer);
    if (job.result && !refused)
        *err = job.err;
    return refused ? refused : job.result;
}

int unpack_head(const uint8_t *in, size_t in_size, unpack_sink_fn sink, void *opaque, struct error *err)
{
    struct output output = { .buffer = { .fd = -1 }, .limit = HEAD, .head_only = true, .sink = sink, .opaque = opaque };
    struct job job = { .in = in, .in_size = in_size, .out = &output };

    run(&job);
    host_memory_free(&output.buffer);
    if (job.result != ENOUGH)
        *err = job.err;
    return job.result == ENOUGH ? 0 : job.result;
}
