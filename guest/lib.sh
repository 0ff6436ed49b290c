# What the guest build scripts share. Sourced; sets `set -eu`. Everything is made below build/: packages are
# downloaded to build/cache and unpacked, never installed.
set -eu
guest_dir=$(cd "$(dirname "$0")" && pwd)
build_dir=${EIDOLON_BUILD:-$(dirname "$guest_dir")/build}
cache=$build_dir/cache
out=$build_dir/guest
mkdir -p "$cache" "$out"

say() { printf '%s\n' "guest: $*" >&2; }
die() { say "$*"; exit 1; }

# Downloads the Debian package $1 into the cache (once) and prints the file's path.
package_file() {
    local name=$1 file
    file=$(find "$cache" -maxdepth 1 -name "${name}_*.deb" | head -n 1)
    if [ -z "$file" ]; then
        say "fetching $name"
        (cd "$cache" && apt-get -q -o APT::Sandbox::User=root download "$name" >"$cache/apt.log" 2>&1) ||
            update_and_download "$name"
        file=$(find "$cache" -maxdepth 1 -name "${name}_*.deb" | head -n 1)
        [ -n "$file" ] || die "no file for package $name"
    fi
    printf '%s\n' "$file"
}

# The package lists may be missing or too old for the archive.
update_and_download() {
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get -q update >"$cache/apt.log" 2>&1 || { cat "$cache/apt.log" >&2; die "apt-get update failed"; }
    (cd "$cache" && apt-get -q -o APT::Sandbox::User=root download "$1" >"$cache/apt.log" 2>&1) ||
        { cat "$cache/apt.log" >&2; die "cannot download package $1"; }
}

# unpack PACKAGE FOLDER
unpack() {
    local file
    file=$(package_file "$1") || exit 1
    dpkg-deb -x "$file" "$2"
}

# pack FOLDER FILE: an initramfs image, uncompressed: the guest unpacks it at the speed of a copy. Owned by root, with
# the same time stamps and order each time, so that the same packages give the same image.
pack() {
    find "$1" -exec touch -h -d @0 {} +
    (cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible) >"$2.new"
    mv "$2.new" "$2"
    say "$2: $(du -h "$2" | cut -f 1)"
}

# The part that every image has: busybox and init.
make_base() {
    mkdir -p "$1"/bin "$1"/dev "$1"/proc "$1"/sys "$1"/tmp "$1"/root "$1"/etc "$1"/usr/bin
    local temp=$build_dir/tmp-busybox
    rm -rf "$temp"
    unpack busybox-static "$temp"
    cp "$temp/bin/busybox" "$1/bin/busybox"
    rm -rf "$temp"
    ln -sf busybox "$1/bin/sh"
    cp "$guest_dir/init" "$1/init"
    chmod 755 "$1/init" "$1/bin/busybox"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$1/etc/passwd"
    printf 'root:x:0:\n' >"$1/etc/group"
}

# check_libraries TREE PROGRAM...: every dynamically linked program must find its libraries inside the tree.
check_libraries() {
    local tree=$1 program missing libs
    libs=$tree/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu
    shift
    for program in "$@"; do
        missing=$("$tree/lib64/ld-linux-x86-64.so.2" --library-path "$libs" --list "$tree/$program" 2>&1 |
            grep -E 'not found|=> /(usr/)?lib/' || true)
        [ -z "$missing" ] || die "$program lacks libraries in the tree: $missing"
    done
}
