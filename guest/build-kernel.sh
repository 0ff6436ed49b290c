#!/bin/bash
# build/guest/vmlinuz: Debian's cloud kernel, as it is in the package.
. "$(dirname "$0")/lib.sh"
if [ -f "$out/vmlinuz" ]; then
    exit 0
fi
name=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
if [ -z "$name" ]; then # no package lists yet: the metapackage itself knows
    name=$(dpkg-deb -f "$(package_file linux-image-cloud-amd64)" Depends | sed 's/[ (].*//')
fi
[ -n "$name" ] || die "cannot tell which kernel linux-image-cloud-amd64 depends on"
tree=$build_dir/tmp-kernel
rm -rf "$tree"
unpack "$name" "$tree"
cp "$tree"/boot/vmlinuz-* "$out/vmlinuz.new"
mv "$out/vmlinuz.new" "$out/vmlinuz"
rm -rf "$tree"
say "$out/vmlinuz: $name"
