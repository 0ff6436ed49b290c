# Round trips, and compressed bytes that depend on every branch of the compressors.
dir=$(mktemp -d)
data=$dir/data
head -c 400000 <"$1" >"$data"
xz=${XZ:-/usr/bin/xz} # by path: the shell would take its own applet
for level in 1 9; do
    zstd -q -$level -T1 -c "$data" >$dir/z.zst
    openssl dgst -sha256 -r <$dir/z.zst
    zstd -q -d -c $dir/z.zst | cmp - "$data" && echo "zstd -$level ok"
done
for level in 0 3; do
    $xz -$level -T1 -c "$data" >$dir/z.xz
    openssl dgst -sha256 -r <$dir/z.xz
    $xz -d -c $dir/z.xz | cmp - "$data" && echo "xz -$level ok"
done
gzip -c <"$data" | gzip -d | cmp - "$data" && echo "gzip ok"
rm -r "$dir"
