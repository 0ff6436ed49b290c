/* -drive and -blockdev: ids, places, defaults, spellings; and mistakes, each with a message that helps. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE (256 * KIB)

TestSuite(block_options, .init = rig_start, .fini = rig_stop, .timeout = 60);

static const char *disk(const char *name)
{
    return rig_file(name, SIZE);
}

static void set_one_unit(void *opaque)
{
    (void)opaque;
    block_registry_set_bus_units(rig_registry, BLOCK_IF_IDE, 1);
}

Test(block_options, default_ids_and_places)
{
    static const struct {
        const char *options, *id;
        unsigned bus, unit;
    } cases[] = {
        { "media=disk", "ide0-hd0", 0, 0 },
        { "index=3,media=cdrom", "ide1-cd1", 1, 1 },
        { "media=disk", "ide0-hd1", 0, 1 },
        { "media=cdrom", "ide1-cd0", 1, 0 },
        { "if=virtio", "virtio0", 0, 0 },
        { "if=virtio", "virtio1", 0, 1 },
        { "if=virtio,index=5", "virtio5", 0, 5 },
        { "if=scsi", "scsi0-hd0", 0, 0 },
        { "if=scsi,bus=2,unit=3", "scsi2-hd3", 2, 3 },
        { "if=none", "none0", 0, 0 },
        { "if=none,id=named", "named", 0, 1 },
        { "if=pflash,unit=1", "pflash1", 0, 1 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char name[16];
        struct block *block;

        snprintf(name, sizeof(name), "d%zu", i);
        block = rig_drive("format=raw,file=%s,%s", disk(name), cases[i].options);
        cr_expect_str_eq(block_info(block)->id, cases[i].id);
        cr_expect_eq(block_info(block)->bus, cases[i].bus, "%s", cases[i].options);
        cr_expect_eq(block_info(block)->unit, cases[i].unit, "%s", cases[i].options);
        cr_expect_eq(block_find(rig_registry, cases[i].id), block);
    }
    rig_on_loop(set_one_unit, NULL); /* q35 */
    struct block *block = rig_drive("media=cdrom,index=2");
    cr_expect_str_eq(block_info(block)->id, "ide2-cd0");
}

Test(block_options, unclaimed_in_order)
{
    rig_drive("if=ide,index=2,format=raw,file=%s", disk("c"));
    rig_drive("if=none,id=n,format=raw,file=%s", disk("n"));
    rig_drive("if=ide,index=0,format=raw,file=%s", disk("a"));
    rig_blockdev("driver=file,node-name=node,filename=%s", disk("b"));
    struct block *block = block_next_unclaimed(rig_registry, BLOCK_IF_IDE);
    cr_assert_eq(block, block_find(rig_registry, "ide0-hd0"));
    cr_assert_eq(block_claim(block, "disk", rig_loop, &rig_err), 0);
    block = block_next_unclaimed(rig_registry, BLOCK_IF_IDE);
    cr_assert_eq(block, block_find(rig_registry, "ide1-hd0"));
    cr_assert_eq(block_claim(block, "disk2", rig_loop, &rig_err), 0);
    cr_assert_null(block_next_unclaimed(rig_registry, BLOCK_IF_IDE));
    cr_assert_eq(block_next_unclaimed(rig_registry, BLOCK_IF_NONE), block_find(rig_registry, "n"));
}

Test(block_options, what_the_info_says)
{
    struct block *block = rig_drive("if=none,id=a,format=raw,serial=abc,cache=writethrough,discard=unmap,werror=stop,"
                                    "rerror=stop,file=%s",
                                    disk("a"));
    const struct block_info *info = block_info(block);

    cr_expect_str_eq(info->serial, "abc");
    cr_expect(!info->write_cache && info->can_discard && !info->read_only && !info->cdrom);
    cr_expect_eq(info->on_write_error, BLOCK_ERROR_STOP);
    cr_expect_eq(info->on_read_error, BLOCK_ERROR_STOP);
    cr_expect_eq(info->size, SIZE);
    info = block_info(rig_drive("if=none,id=b,format=raw,media=cdrom,file=%s", disk("b")));
    cr_expect(info->cdrom && info->removable && info->read_only && !info->can_discard);
    info = block_info(rig_drive("if=none,id=c,format=raw,cache=none,cache.writeback=off,file=%s", disk("c")));
    cr_expect(!info->write_cache);
}

Test(block_options, spellings_of_one_thing)
{
    static const char *const options[] = {
        "file=%s,format=raw",
        "file=%s,driver=raw",
        "file=file:%s,format=raw",
        "file.filename=%s,format=raw",
        "file.driver=file,file.filename=%s,driver=raw",
        "driver=file,filename=%s",
        "file=json:{\"driver\":\"raw\",,\"file\":{\"driver\":\"file\",,\"filename\":\"%s\"}}",
    };
    const char *path = disk("a");
    uint8_t data[1024], expected[1024];

    rig_pattern(expected, 512, sizeof(expected));
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        char option[512];

        snprintf(option, sizeof(option), options[i], path);
        struct block *block = rig_drive("if=none,id=a,%s", option);
        cr_expect_eq(rig_do(block, BLOCK_READ, 512, data, sizeof(data), 0), 0);
        cr_expect_eq(memcmp(data, expected, sizeof(data)), 0, "%s", option);
        rig_restart_registry();
    }
}

Test(block_options, blockdev_nodes)
{
    uint8_t data[1024], expected[1024];
    struct block *block;

    rig_blockdev("{\"driver\":\"file\",\"node-name\":\"below\",\"filename\":\"%s\",\"cache\":{\"direct\":false}}",
                 disk("a"));
    block = rig_blockdev("driver=raw,node-name=top,file=below,offset=4096,size=8192");
    cr_expect_eq(block_info(block)->size, 8192);
    cr_expect_eq(rig_do(block, BLOCK_READ, 512, data, sizeof(data), 0), 0);
    rig_pattern(expected, 4096 + 512, sizeof(expected));
    cr_expect_eq(memcmp(data, expected, sizeof(data)), 0);
    cr_expect_eq(rig_do(block, BLOCK_READ, 8192, data, 512, 0), -EIO);
    rig_blockdev_error("driver=raw,node-name=third,file=below"); /* taken */
    cr_expect_eq(block_claim(block_find(rig_registry, "below"), "disk", rig_loop, &rig_err), -EBUSY);
    block = rig_blockdev("driver=raw,node-name=whole,read-only=on,file.driver=file,file.filename=%s", disk("b"));
    cr_expect(block_info(block)->read_only);
    cr_expect(block_info(block)->write_cache);
}

Test(block_options, commas_in_names)
{
    cr_expect_eq(block_info(rig_drive("if=none,format=raw,file=%s", ""))->size, 0);
    rig_file("a,b", SIZE);
    cr_expect_eq(block_info(rig_drive("if=none,id=c,format=raw,file=%s/a,,b", rig_folder))->size, SIZE);
}

/* ---- Probing ---- */

Test(block_options, a_probed_raw_image_stays_raw)
{
    const char *path = disk("a");
    struct block *block = rig_drive("if=none,id=a,file=%s", path);
    uint8_t data[2048], expected[2048];
    struct iovec iov[3] = { { data, 100 }, { data + 100, 1000 }, { data + 1100, 948 } };
    struct rig_request request = { .request = { .op = BLOCK_WRITE, .size = 2048, .iov = iov, .iov_count = 3 } };

    rig_pattern(expected, 0, sizeof(expected));
    memset(data, 0, sizeof(data));
    memcpy(data, "QFI\xfb", 4);
    rig_submit(block, &request);
    cr_expect_eq(rig_wait(&request), -EPERM);
    cr_expect_eq(rig_do(block, BLOCK_READ, 0, data, sizeof(data), 0), 0);
    cr_expect_eq(memcmp(data, expected, sizeof(data)), 0); /* nothing of it was written */
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 3);
    memcpy(expected, data, sizeof(data));
    rig_submit(block, &request); /* anything else may be */
    cr_expect_eq(rig_wait(&request), 0);
    memset(data, 0, sizeof(data));
    cr_expect_eq(rig_do(block, BLOCK_READ, 0, data, sizeof(data), 0), 0);
    cr_expect_eq(memcmp(data, expected, sizeof(data)), 0);
    rig_restart_registry();
    block = rig_drive("if=none,id=a,format=raw,file=%s", path); /* said to be raw: all is allowed */
    memcpy(data, "QFI\xfb", 4);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, 0, data, 512, 0), 0);
}

Test(block_options, other_formats_are_not_taken_for_raw)
{
    static const struct {
        const char *format, *bytes;
        unsigned length, offset;
    } cases[] = {
        { "vmdk", "KDMV", 4, 0 },
        { "vhdx", "vhdxfile", 8, 0 },
        { "vpc", "conectix", 8, 0 },
        { "vdi", "\x7f\x10\xda\xbe", 4, 64 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *path = rig_file("image", 4096), *text;
        FILE *file = fopen(path, "r+");

        fseek(file, cases[i].offset, SEEK_SET);
        fwrite(cases[i].bytes, 1, cases[i].length, file);
        fclose(file);
        text = rig_drive_error("if=none,file=%s", path);
        cr_expect_not_null(strstr(text, cases[i].format), "%s", text);
        cr_expect_not_null(strstr(text, "qemu-nbd"), "%s", text);
        rig_drive("if=none,format=raw,file=%s", path);
        rig_restart_registry();
    }
}

/* ---- Mistakes ---- */

Test(block_options, mistakes)
{
    const char *path = disk("a");
    const struct {
        const char *option, *part;
    } cases[] = {
        { "if=none,file=/nonexistent/disk", "/nonexistent/disk: No such file" },
        { "if=none,file=/", "/: is a directory" },
        { "if=none,file=/dev/null", "/dev/null: neither" },
        { "if=none,file=/dev/zero,format=raw", "/dev/zero: neither" },
        { "if=none,file=ftp://host/disk", "unknown protocol 'ftp'" },
        { "if=ide2,file=a", "if=ide2" },
        { "if=none,format=vdi,file=PATH", "qemu-nbd" },
        { "if=none,format=qcow9,file=PATH", "unknown format 'qcow9'" },
        { "if=none,format=raw,colour=red,file=PATH", "unknown property 'colour'" },
        { "if=none,format=raw,file.colour=red,file=PATH", "unknown property 'file.colour'" },
        { "if=none,format=raw,cache=lots,file=PATH", "cache=lots" },
        { "if=none,format=raw,aio=native,file=PATH", "cache.direct=on" },
        { "if=none,format=raw,aio=fast,file=PATH", "aio=fast" },
        { "if=none,format=raw,readonly=perhaps,file=PATH", "perhaps" },
        { "if=none,format=raw,discard=some,file=PATH", "discard=some" },
        { "if=none,format=raw,detect-zeroes=unmap,file=PATH", "discard=unmap" },
        { "if=none,format=raw,rerror=enospc,file=PATH", "rerror=enospc" },
        { "if=none,format=raw,werror=x,file=PATH", "werror=x" },
        { "if=none,format=raw,media=tape,file=PATH", "media=tape" },
        { "if=none,format=raw,id=1a,file=PATH", "id=1a" },
        { "if=none,format=raw,file.locking=maybe,file=PATH", "locking=maybe" },
        { "if=none,format=raw,serial=0123456789012345678901234567890123456789,file=PATH", "serial" },
        { "if=none,format=raw,offset=1,file=PATH", "offset=1" },
        { "if=none,format=raw,offset=1T,file=PATH", "offset" },
        { "if=none,format=raw,size=1T,file=PATH", "size" },
        { "if=none,format=raw,driver=raw,file=PATH", "driver and format" },
        { "if=ide,index=1,unit=0,format=raw,file=PATH", "index" },
        { "if=ide,bus=0,unit=2,format=raw,file=PATH", "unit=2" },
        { "if=ide,index=99999999,format=raw,file=PATH", "index" },
        { "if=none,file.driver=host_device,format=raw,file=PATH", "not a block device" },
        { "if=none,file.driver=curl,file=PATH", "file.driver=curl" },
        { "if=none,file=json:{", "JSON" },
        { "if=none,file=json:[1]", "an object" },
        { "if=none,file=json:{\"driver\":null}", "driver" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *at = strstr(cases[i].option, "PATH"), *text;
        char option[1024];

        if (at)
            snprintf(option, sizeof(option), "%.*s%s", (int)(at - cases[i].option), cases[i].option, path);
        else
            snprintf(option, sizeof(option), "%s", cases[i].option);
        text = rig_drive_error("%s", option);
        cr_expect_not_null(strstr(text, cases[i].part), "%s: '%s' lacks '%s'", option, text, cases[i].part);
    }
    rig_drive("if=none,id=a,format=raw,file=%s", path); /* none of them has left anything open or locked */
    cr_expect_not_null(strstr(rig_drive_error("if=none,id=a,format=raw,file=%s", disk("b")), "id=a"));
    rig_drive("if=ide,index=1,format=raw,file=%s", disk("b"));
    cr_expect_not_null(strstr(rig_drive_error("if=ide,bus=0,unit=1,format=raw,file=%s", disk("c")), "already"));
}

Test(block_options, blockdev_mistakes)
{
    const char *path = disk("a");

    cr_expect_not_null(strstr(rig_blockdev_error("driver=file,filename=%s", path), "node-name"));
    cr_expect_not_null(strstr(rig_blockdev_error("node-name=a,filename=%s", path), "driver"));
    cr_expect_not_null(strstr(rig_blockdev_error("driver=file,node-name=a"), "filename"));
    cr_expect_not_null(strstr(rig_blockdev_error("driver=raw,node-name=a,file=nobody"), "nobody"));
    cr_expect_not_null(strstr(rig_blockdev_error("driver=raw,node-name=a"), "file.driver"));
    cr_expect_not_null(strstr(rig_blockdev_error("{\"driver\":\"file\","), "JSON"));
    cr_expect_not_null(
        strstr(rig_blockdev_error("driver=file,node-name=a,force-share=on,filename=%s", path), "read-only"));
    cr_expect_not_null(strstr(rig_blockdev_error("driver=file,node-name=a,if=ide,filename=%s", path), "'if'"));
}

Test(block_options, no_permission)
{
    const char *path = disk("a");

    chmod(path, 0400);
    chmod(rig_folder, 0755);
    if (!geteuid())
        cr_assert_eq(seteuid(65534), 0);
    /* The drive is opened by this thread, so that the loop's keeps its rights. */
    cr_assert_lt(block_add_drive(rig_registry, "if=none,id=a,format=raw,file=/etc/shadow", &rig_err), 0);
    cr_expect_not_null(strstr(rig_err.text, "/etc/shadow: Permission denied"), "%s", rig_err.text);
    if (!getuid())
        cr_assert_eq(seteuid(0), 0);
}
