/* qcow2 images behind the block layer: how they and their backing files are named and opened, and what is refused. The data
 * paths are in test_random.c. */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE (1 * MIB)

static void set_up(void)
{
    rig_start();
    if (!block_driver_find("qcow2") || !rig_have("qemu-img"))
        rig_skip("no qcow2 or no qemu-utils here");
    rig_file("base", SIZE);
}

TestSuite(block_qcow2, .init = set_up, .fini = rig_stop, .timeout = 60);

static void create(const char *arguments)
{
    char output[4096];

    cr_assert_eq(rig_shell(output, "cd '%s' && qemu-img create -q -f qcow2 %s", rig_folder, arguments), 0, "%s",
                 output);
}

static void expect_base(struct block *block)
{
    uint8_t data[8192], expected[8192];

    rig_pattern(expected, 65536 - 4096, sizeof(expected));
    cr_expect_eq(rig_do(block, BLOCK_READ, 65536 - 4096, data, sizeof(data), 0), 0);
    cr_expect_eq(memcmp(data, expected, sizeof(data)), 0);
}

Test(block_qcow2, probed_and_named)
{
    create("a 3M");
    cr_expect_eq(block_info(rig_drive("if=none,file=%s", rig_path("a")))->size, 3 * MIB);
    rig_restart_registry();
    rig_drive("if=none,format=qcow2,file=%s", rig_path("a"));
    rig_restart_registry();
    rig_blockdev("driver=qcow2,node-name=a,file.driver=file,file.filename=%s", rig_path("a"));
    rig_restart_registry();
    rig_blockdev("driver=file,node-name=f,filename=%s", rig_path("a"));
    rig_blockdev("{\"driver\":\"qcow2\",\"node-name\":\"a\",\"file\":\"f\",\"backing\":null}");
    cr_expect_not_null(strstr(rig_drive_error("if=none,format=qcow2,file=%s", rig_path("base")), rig_path("base")));
}

Test(block_qcow2, backing_files)
{
    create("-b base -F raw a");
    create("-b a -F qcow2 b");
    expect_base(rig_drive("if=none,id=x,file=%s", rig_path("b")));
    rig_restart_registry();
    create("-u -b nowhere -F raw c 1M"); /* the header's name does not count where options give another */
    expect_base(
        rig_drive("if=none,id=x,file=%s,backing.file.filename=%s,backing.driver=raw", rig_path("c"), rig_path("base")));
    rig_restart_registry();
    rig_blockdev("driver=raw,node-name=b,read-only=on,file.driver=file,file.filename=%s", rig_path("base"));
    expect_base(rig_blockdev("driver=qcow2,node-name=x,backing=b,file.driver=file,file.filename=%s", rig_path("c")));
}

Test(block_qcow2, backing_files_that_cannot_be)
{
    create("-u -b nowhere -F raw a 1M");
    cr_expect_not_null(strstr(rig_drive_error("if=none,file=%s", rig_path("a")), "nowhere: No such file"));
    create("-u -b c -F qcow2 b 1M");
    create("-u -b b -F qcow2 c 1M");
    cr_expect_not_null(strstr(rig_drive_error("if=none,file=%s", rig_path("b")), "loop"));
    create("-u -b ./d -F qcow2 d 1M");
    cr_expect_not_null(strstr(rig_drive_error("if=none,file=%s", rig_path("d")), "loop"));
    create("-u -b http://host/disk -F raw e 1M");
    rig_drive_error("if=none,file=%s", rig_path("e"));
}

Test(block_qcow2, a_long_chain)
{
    rig_shell(NULL,
              "cd '%s' && qemu-img create -q -f qcow2 -b base -F raw i0 && for i in $(seq 60); do "
              "qemu-img create -q -u -f qcow2 -b i$((i - 1)) -F qcow2 i$i 1M; done",
              rig_folder);
    expect_base(rig_drive("if=none,id=x,file=%s", rig_path("i60")));
}
