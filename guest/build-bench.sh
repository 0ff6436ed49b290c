#!/bin/bash
# What ./dev bench starts: build/guest/initrd-bench.img (the programs' image, a C compiler, and guest/programs/bench),
# its unpacked tree build/guest/bench, in which the same files run on the host, and build/guest/vmlinux.elf.
. "$(dirname "$0")/lib.sh"
image=$out/initrd-bench.img
tree=$out/bench
programs=$guest_dir/programs/bench
workloads=$(dirname "$guest_dir")/bench/workloads

# build/guest/vmlinux.elf: the kernel inside vmlinuz, as the ELF file that it is, with a mark at its first instruction.
build_kernel_elf() {
    local kernel=$out/vmlinux.elf tools=$build_dir/tmp-tools
    [ "$kernel" -nt "$out/vmlinuz" ] && [ "$kernel" -nt "$guest_dir/extract_kernel.py" ] && return
    rm -rf "$tools"
    unpack lz4 "$tools"
    unpack zstd "$tools"
    PATH=$tools/usr/bin:$PATH python3 "$guest_dir/extract_kernel.py" "$out/vmlinuz" "$kernel.new"
    mv "$kernel.new" "$kernel"
    rm -rf "$tools"
    say "$kernel: $(du -h "$kernel" | cut -f 1)"
}

# Packages beside those of initrd-programs.img.
unpack_packages() {
    local package
    for package in gzip cpp-12 libisl23 libmpc3 libmpfr6 libgmp10; do
        unpack "$package" "$tree"
    done
    # Of the C preprocessor's package only the compiler proper is used.
    mv "$tree/usr/lib/gcc/x86_64-linux-gnu/12/cc1" "$tree/bench/cc1"
    rm -rf "$tree"/usr/lib/gcc "$tree"/usr/bin/*cpp* "$tree"/usr/share/{doc,man,info,lintian,locale,gdb}
}

# Our own programs. libcrypto's headers come from its package; it is the tree's library that is linked, and run.
compile_programs() {
    local headers=$build_dir/tmp-headers flags="-O2 -Wall -Wextra -Werror -D_GNU_SOURCE -fno-math-errno -Wl,--build-id=none"
    rm -rf "$headers"
    unpack libssl-dev "$headers"
    # shellcheck disable=SC2086
    {
        gcc $flags -static -o "$tree/bench/run" "$programs/run.c" "$programs/bench_main.c"
        gcc $flags -static -o "$tree/bench/integer" "$programs"/{integer,mix,bench_main}.c
        gcc $flags -static -o "$tree/bench/vector" "$programs"/{vector,bench_main}.c
        gcc $flags -static -o "$tree/bench/system" "$programs"/{system,bench_main}.c
        gcc $flags -static -o "$tree/bench/exit-static" "$programs/exit.c"
        gcc $flags -o "$tree/bench/exit-dynamic" "$programs/exit.c"
        gcc $flags -I"$headers/usr/include" -I"$headers/usr/include/x86_64-linux-gnu" -o "$tree/bench/crypto" \
            "$programs"/{crypto,bench_main}.c "$tree/usr/lib/x86_64-linux-gnu/libcrypto.so.3"
    }
    gcc -E -P -O2 -D_GNU_SOURCE -o "$tree/bench/source.i" "$programs/integer.c"
    rm -rf "$headers"
}

# Two megabytes: machine code and text, half each.
build_corpus() {
    head -c 1000000 "$tree/bin/busybox"
    find "$tree/usr/lib/python3.11" -name '*.py' | LC_ALL=C sort | head -n 100 | xargs cat 2>/dev/null | head -c 1000000
}

# The key that rsa_sign signs with: one for each build folder, not one for everybody.
make_key() {
    local key=$out/bench-rsa.pem libs=$tree/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu
    [ -f "$key" ] || OPENSSL_CONF=/dev/null "$tree/lib64/ld-linux-x86-64.so.2" --library-path "$libs" "$tree/usr/bin/openssl" \
        genrsa -out "$key" 2048
    cp "$key" "$tree/bench/rsa.pem"
    chmod 644 "$tree/bench/rsa.pem"
}

build_image() {
    rm -rf "$tree"
    cp -al "$out/programs" "$tree"
    # No workload uses these.
    rm -rf "$tree"/tests "$tree"/usr/bin/{perl5*,pzstd,c_rehash} "$tree"/usr/lib/x86_64-linux-gnu/perl-base/unicore/{lib,To} \
        "$tree"/usr/lib/python3.11/{test,email,http,urllib,multiprocessing,concurrent,curses,ctypes,distutils}
    mkdir "$tree/bench"
    unpack_packages
    compile_programs
    cp "$guest_dir"/bench/* "$workloads" "$tree/bench/"
    build_corpus >"$tree/bench/corpus"
    make_key
    check_libraries "$tree" bench/cc1 bench/crypto bench/exit-dynamic bin/gzip
    local applet
    for applet in true echo basename expr cat; do # the guest's init makes these, the host's does not
        ln -sf busybox "$tree/bin/$applet"
    done
    pack "$tree" "$image"
}

build_kernel_elf
if [ ! -f "$image" ] || [ -n "$(find "$guest_dir" "$workloads" -newer "$image" -type f -print -quit)" ]; then
    build_image
fi
