# Round trips, and compressed bytes that depend on every branch of the compressors.
data=$1
xz=${XZ:-/usr/bin/xz} # by path: the shell would take its own applet
for level in 1 9; do
    zstd -q -$level -T1 -c "$data" >/tmp/z.zst
    openssl dgst -sha256 -r </tmp/z.zst
    zstd -q -d -c /tmp/z.zst | cmp - "$data" && echo "zstd -$level ok"
done
for level in 0 3; do
    $xz -$level -T1 -c "$data" >/tmp/z.xz
    openssl dgst -sha256 -r </tmp/z.xz
    $xz -d -c /tmp/z.xz | cmp - "$data" && echo "xz -$level ok"
done
gzip -c <"$data" | gzip -d | cmp - "$data" && echo "gzip ok"
