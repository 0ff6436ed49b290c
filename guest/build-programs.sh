#!/bin/bash
# build/guest/initrd-programs.img: the base image plus programs from Debian's packages, our own small programs, and
# the scripts of guest/tests. The unpacked tree stays in build/guest/programs: tests run the same binaries on the host.
. "$(dirname "$0")/lib.sh"
image=$out/initrd-programs.img
tree=$out/programs
if [ -f "$image" ] && [ -z "$(find "$guest_dir" -newer "$image" -type f -print -quit)" ]; then
    exit 0
fi

# Programs, and the libraries that they need (checked below).
packages="libc6 openssl libssl3 zstd libzstd1 liblz4-1 zlib1g libstdc++6 libgcc-s1 xz-utils liblzma5 lua5.4
    libreadline8 libtinfo6 sqlite3 libsqlite3-0 perl-base libcrypt1 python3.11-minimal libpython3.11-minimal
    libpython3.11-stdlib libexpat1 libffi8 libbz2-1.0"

rm -rf "$tree"
make_base "$tree"
for package in $packages; do
    unpack "$package" "$tree"
done
# Not needed in a guest of ours, and most of the size.
rm -rf "$tree"/usr/share/{doc,man,locale,info,lintian,doc-base,bug,applications,pixmaps,binfmts} \
    "$tree"/usr/lib/x86_64-linux-gnu/gconv "$tree"/lib/x86_64-linux-gnu/gconv \
    "$tree"/usr/lib/python3.11/{pydoc_data,idlelib,tkinter,lib2to3,ensurepip,distutils,asyncio,unittest,xmlrpc,wsgiref,dbm} \
    "$tree"/usr/lib/x86_64-linux-gnu/audit "$tree"/usr/lib/x86_64-linux-gnu/krb5
[ -e "$tree/usr/bin/python3" ] || ln -s python3.11 "$tree/usr/bin/python3"
[ -e "$tree/usr/bin/lua" ] || ln -s lua5.4 "$tree/usr/bin/lua"

# Programs and the multiboot kernel of ours. -m32 with no C library needs no extra package.
mkdir -p "$tree/tests"
cp "$guest_dir"/tests/* "$tree/tests/"
gcc -m32 -march=i686 -O2 -ffreestanding -fno-stack-protector -fno-pic -nostdlib -static -Wl,--build-id=none \
    -o "$tree/tests/test32" "$guest_dir/programs/test32.c"
gcc -O2 -static -Wl,--build-id=none -o "$tree/tests/test64" "$guest_dir/programs/test64.c" -lm

check_libraries "$tree" usr/bin/{openssl,zstd,xz,lua5.4,sqlite3,perl,python3.11}
pack "$tree" "$image"
