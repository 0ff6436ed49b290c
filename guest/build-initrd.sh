#!/bin/bash
# build/guest/initrd.img: busybox, for the shell that ./dev run ends at.
. "$(dirname "$0")/lib.sh"
if [ "$out/initrd.img" -nt "$guest_dir/init" ] && [ "$out/initrd.img" -nt "$0" ] && [ "$out/initrd.img" -nt "$guest_dir/lib.sh" ]; then
    exit 0
fi
tree=$build_dir/tmp-initrd
rm -rf "$tree"
make_base "$tree"
pack "$tree" "$out/initrd.img"
rm -rf "$tree"
