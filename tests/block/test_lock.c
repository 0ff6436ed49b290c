/* Two virtual machines never write one image; QEMU's tools see our locks and we theirs. */
#include "rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE (1 * MIB)

TestSuite(block_lock, .init = rig_start, .fini = rig_stop, .timeout = 60);

static void expect_text(const char *text, const char *part)
{
    cr_expect_not_null(strstr(text, part), "'%s' lacks '%s'", text, part);
}

Test(block_lock, between_drives)
{
    const char *path = rig_file("disk", SIZE);
    const char *text;

    rig_drive("if=none,id=a,format=raw,file=%s", path);
    text = rig_drive_error("if=none,id=b,format=raw,file=%s", path);
    expect_text(text, path);
    expect_text(text, "file.locking=off");
    text = rig_drive_error("if=none,id=b,format=raw,readonly=on,file=%s", path);
    expect_text(text, "is writing it");
    rig_drive_error("if=none,id=b,format=raw,snapshot=on,file=%s", path);
    rig_drive_error("if=none,id=b,file=%s", path); /* probing is no way around */
    rig_blockdev_error("driver=file,node-name=b,filename=%s", path);
    rig_drive("if=none,id=c,format=raw,file.locking=off,file=%s", path);
    rig_blockdev("driver=raw,node-name=d,read-only=on,force-share=on,file.driver=file,file.filename=%s", path);
}

Test(block_lock, readers_share)
{
    const char *path = rig_file("disk", SIZE);
    const char *text;

    rig_drive("if=none,id=a,format=raw,readonly=on,file=%s", path);
    rig_drive("if=none,id=b,format=raw,snapshot=on,file=%s", path);
    text = rig_drive_error("if=none,id=c,format=raw,file=%s", path);
    expect_text(text, path);
    expect_text(text, "readonly=on");
    expect_text(text, "file.locking=off");
    rig_restart_registry();
    rig_drive("if=none,id=c,format=raw,file=%s", path); /* the locks went with the drives */
}

Test(block_lock, a_stranger_s_lock)
{
    const char *path = rig_file("disk", SIZE);
    int fd = open(path, O_RDWR);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    cr_assert_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
    expect_text(rig_drive_error("if=none,id=a,format=raw,file=%s", path), "file.locking=off");
    close(fd);
    rig_drive("if=none,id=a,format=raw,file.locking=on,file=%s", path);
}

/* QEMU shares what it opens as raw, as far as it only reads; not what has metadata of its own. */
static const char *qcow2_file(void)
{
    const char *path = rig_path("disk.qcow2");

    cr_assert_eq(rig_shell(NULL, "qemu-img create -q -f qcow2 '%s' 1M", path), 0);
    return path;
}

Test(block_lock, qemu_tools_see_ours)
{
    const char *path;
    char output[4096];

    if (!rig_have("qemu-img") || !rig_have("qemu-io"))
        rig_skip("no qemu-utils here");
    path = qcow2_file();
    cr_expect_eq(rig_shell(output, "qemu-img info '%s'", path), 0, "%s", output);
    rig_drive("if=none,id=a,format=raw,file=%s", path);
    cr_expect_neq(rig_shell(output, "qemu-img info '%s'", path), 0);
    expect_text(output, "lock");
    cr_expect_eq(rig_shell(output, "qemu-img info -U '%s'", path), 0, "%s", output);
    cr_expect_neq(rig_shell(output, "qemu-io -f raw -c 'write 0 512' '%s'", path), 0);
    expect_text(output, "lock");
    rig_restart_registry();
    rig_drive("if=none,id=a,format=raw,readonly=on,file=%s", path);
    cr_expect_eq(rig_shell(output, "qemu-io -r -f qcow2 -c 'read 0 512' '%s'", path), 0, "%s", output);
    cr_expect_neq(rig_shell(output, "qemu-io -f qcow2 -c 'write 0 512' '%s'", path), 0);
    expect_text(output, "lock");
    rig_restart_registry();
    cr_expect_eq(rig_shell(output, "qemu-io -f qcow2 -c 'write 0 512' '%s'", path), 0, "%s", output);
}

/* qemu-io waits for commands with the image open. */
static FILE *hold(const char *path, const char *options)
{
    const char *out = rig_path("out");
    char command[1024];
    FILE *pipe;

    unlink(out);
    snprintf(command, sizeof(command), "exec qemu-io %s -f qcow2 '%s' >'%s'", options, path, out);
    pipe = popen(command, "w");
    cr_assert_not_null(pipe);
    fputs("read 0 512\n", pipe);
    fflush(pipe);
    for (unsigned i = 0; i < 500 && rig_shell(NULL, "grep -q 'read 512' '%s'", out); i++)
        usleep(20000);
    return pipe;
}

Test(block_lock, we_see_qemu_s)
{
    const char *path;
    FILE *holder;

    if (!rig_have("qemu-img") || !rig_have("qemu-io"))
        rig_skip("no qemu-utils here");
    path = qcow2_file();
    holder = hold(path, "");
    expect_text(rig_drive_error("if=none,id=a,format=raw,file=%s", path), path);
    expect_text(rig_drive_error("if=none,id=a,format=raw,readonly=on,file=%s", path), "is writing it");
    pclose(holder);
    holder = hold(path, "-r");
    expect_text(rig_drive_error("if=none,id=a,format=raw,file=%s", path), "readonly=on");
    rig_drive("if=none,id=a,format=raw,readonly=on,file=%s", path);
    pclose(holder);
}
