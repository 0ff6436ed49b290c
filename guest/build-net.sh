#!/bin/bash
# For the network tests: build/guest/initrd-net.img (the base image and the virtio-net driver of the kernel in build/guest/vmlinuz), and
# vmlinuz-generic with initrd-net-generic.img, because the cloud kernel has no e1000e driver.
. "$(dirname "$0")/lib.sh"
if [ "$out/initrd-net.img" -nt "$guest_dir/init" ] && [ "$out/initrd-net.img" -nt "$0" ] &&
    [ "$out/initrd-net.img" -nt "$out/vmlinuz" ] && [ -f "$out/initrd-net-generic.img" ]; then
    exit 0
fi

# The boot protocol's header has the offset of the version string, less 512, at 0x20e.
offset=$(od -An -tu2 -j $((0x20e)) -N 2 "$out/vmlinuz" | tr -d ' ')
version=$(dd if="$out/vmlinuz" bs=1 skip=$((offset + 512)) count=64 2>/dev/null | tr '\0' ' ' | cut -d ' ' -f 1)
[ -n "$version" ] || die "$out/vmlinuz: no version in its header"

# image PACKAGE FILE MODULE...: modules in the order in which they are loaded
image() {
    local package=$1 file=$2 kernel=$build_dir/tmp-net-kernel tree=$build_dir/tmp-net module number=10
    shift 2
    rm -rf "$kernel" "$tree"
    make_base "$tree"
    unpack "$package" "$kernel"
    mkdir -p "$tree/net"
    for module in "$@"; do
        cp "$(find "$kernel/lib/modules" -name "$module.ko")" "$tree/net/$number-$module.ko"
        number=$((number + 1))
    done
    cp "$guest_dir/net/up" "$guest_dir/net/lease" "$tree/net/"
    chmod 755 "$tree/net/lease"
    pack "$tree" "$file"
    [ "$package" = "linux-image-$version" ] || cp "$kernel"/boot/vmlinuz-* "$out/vmlinuz-generic"
    rm -rf "$kernel" "$tree"
}

virtio="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net"
# shellcheck disable=SC2086
image "linux-image-${version/-cloud/}" "$out/initrd-net-generic.img" $virtio e1000e
# shellcheck disable=SC2086
image "linux-image-$version" "$out/initrd-net.img" $virtio
