# Digests, ciphers and signatures: the same bytes on every correct CPU.
data=$1
dir=$(mktemp -d)
for digest in md5 sha1 sha256 sha512 sha3-256 blake2b512; do
    openssl dgst -$digest <"$data"
done
for cipher in aes-128-cbc aes-256-ctr aes-256-cbc chacha20 camellia-128-cbc; do
    openssl enc -$cipher -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f \
        -iv 0f0e0d0c0b0a09080706050403020100 <"$data" 2>/dev/null | openssl dgst -sha256
done
openssl genrsa -out $dir/rsa.pem 1024 2>/dev/null
openssl dgst -sha256 -sign $dir/rsa.pem -out $dir/sig "$data"
openssl rsa -in $dir/rsa.pem -pubout -out $dir/pub.pem 2>/dev/null
openssl dgst -sha256 -verify $dir/pub.pem -signature $dir/sig "$data"
openssl prime -hex fffffffffffffffffffffffffffffffeffffffffffffffff
# The figures differ from machine to machine; that each measurement ends and reports does not.
{
    openssl speed -seconds 1 -bytes 1024 sha256 rsa1024
    openssl speed -seconds 1 -bytes 1024 -evp aes-128-gcm
} 2>/dev/null | grep -oE '^(sha256|rsa 1024 bits|AES-128-GCM)'
rm -r "$dir"
