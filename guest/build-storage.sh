#!/bin/bash
# What tests/storage boots: build/guest/storage-cloud.img, modules for the kernel of build-kernel.sh, and
# build/guest/vmlinuz-generic with storage-generic.img: Debian's other kernel, because the cloud kernel has no AHCI driver.
# The images are appended to initrd.img; `sh /storage/load` loads the modules.
. "$(dirname "$0")/lib.sh"
modules="sd_mod sr_mod isofs ext4 crc32c_generic"

# modules_image PACKAGE IMAGE KERNEL MODULE...: KERNEL: where the package's kernel goes, or ""
modules_image() {
    local package=$1 image=$2 kernel=$3 tree=$build_dir/tmp-storage initrd=$build_dir/tmp-storage-initrd file version
    shift 3
    rm -rf "$tree" "$initrd"
    unpack "$package" "$tree"
    version=$(ls "$tree/lib/modules")
    mkdir -p "$initrd/storage"
    python3 -B "$guest_dir/module_order.py" "$tree/lib/modules/$version" $modules "$@" >"$tree/order"
    while read -r file; do
        cp "$file" "$initrd/storage/"
        echo "insmod /storage/${file##*/}"
    done <"$tree/order" >"$initrd/storage/load"
    [ -z "$kernel" ] || cp "$tree/boot/vmlinuz-$version" "$kernel"
    pack "$initrd" "$image"
    rm -rf "$tree" "$initrd"
}

if [ -f "$out/storage-generic.img" ] && [ "$out/storage-generic.img" -nt "$0" ] && [ "$out/storage-generic.img" -nt "$guest_dir/module_order.py" ]; then
    exit 0
fi
cloud=$(find "$cache" -maxdepth 1 -name 'linux-image-[0-9]*-cloud-amd64_*.deb' | sort -V | tail -n 1)
[ -n "$cloud" ] || die "build-kernel.sh comes first"
cloud=${cloud##*/}
cloud=${cloud%%_*}
modules_image "$cloud" "$out/storage-cloud.img" "" ata_piix
modules_image "${cloud/-cloud/}" "$out/storage-generic.img" "$out/vmlinuz-generic" ahci ata_piix
