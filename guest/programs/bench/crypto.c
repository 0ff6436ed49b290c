/* OpenSSL's libcrypto as Debian builds it: it picks its assembly by CPUID (SHA-NI, AES-NI, PCLMUL, ADX, AVX-512), which is what
 * programs run. Keys and data are fixed, and so are the results. Dynamically linked with the library of the guest image. */
#include "bench.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_SIZE = 1 << 16 };

static void check(int ok, const char *what)
{
    if (ok <= 0)
        bench_fail(what);
}

static void *data_setup(void)
{
    unsigned char *data = bench_alloc(2 * DATA_SIZE + 64);

    for (unsigned i = 0; i < DATA_SIZE; i++)
        data[i] = (unsigned char)(i * 13 + (i >> 8));
    return data;
}

static uint64_t sha256_unit(void *data)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    uint64_t hash = BENCH_HASH;
    unsigned size;

    for (unsigned i = 0; i < 32; i++) {
        check(EVP_Digest(data, DATA_SIZE - i, digest, &size, EVP_sha256(), NULL), "sha256");
        hash = bench_hash(hash, digest, size);
    }
    return hash;
}

static uint64_t aes_gcm_unit(void *data)
{
    static const unsigned char key[16] = "eidolon's key", nonce[12] = "nonce";
    unsigned char *in = data, *out = in + DATA_SIZE, tag[16];
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    uint64_t hash = BENCH_HASH;
    int size;

    for (unsigned i = 0; i < 128; i++) {
        check(EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), NULL, key, nonce), "aes-gcm init");
        check(EVP_EncryptUpdate(context, out, &size, in, (int)(DATA_SIZE - i)), "aes-gcm update");
        check(EVP_EncryptFinal_ex(context, out + size, &size), "aes-gcm final");
        check(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, sizeof(tag), tag), "aes-gcm tag");
        hash = bench_hash(hash, tag, sizeof(tag));
    }
    EVP_CIPHER_CTX_free(context);
    return hash;
}

static void *rsa_setup(void)
{
    FILE *file = fopen("/bench/rsa.pem", "r");
    EVP_PKEY *key = file ? PEM_read_PrivateKey(file, NULL, NULL, NULL) : NULL;

    if (!key)
        bench_fail("/bench/rsa.pem");
    fclose(file);
    return key;
}

static uint64_t rsa_sign_unit(void *data)
{
    static const unsigned char text[] = "what is signed";
    unsigned char signature[256];
    uint64_t hash = BENCH_HASH;

    for (unsigned i = 0; i < 4; i++) {
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        size_t size = sizeof(signature);

        check(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, data), "rsa init"); /* PKCS#1 v1.5: deterministic */
        check(EVP_DigestSign(context, signature, &size, text, sizeof(text) - i), "rsa sign");
        hash = bench_hash(hash, signature, size);
        EVP_MD_CTX_free(context);
    }
    return hash;
}

static uint64_t x25519_unit(void *data)
{
    unsigned char bytes[32];
    size_t size = sizeof(bytes);

    (void)data;
    memset(bytes, 0x42, sizeof(bytes));
    for (unsigned i = 0; i < 16; i++) {
        EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, bytes, sizeof(bytes));
        EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL,
                                                     (const unsigned char *)"\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                                                            "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                                                     32);
        EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);

        check(EVP_PKEY_derive_init(context), "x25519 init");
        check(EVP_PKEY_derive_set_peer(context, peer), "x25519 peer");
        check(EVP_PKEY_derive(context, bytes, &size), "x25519 derive");
        EVP_PKEY_CTX_free(context);
        EVP_PKEY_free(peer);
        EVP_PKEY_free(key);
    }
    return bench_hash(BENCH_HASH, bytes, sizeof(bytes));
}

int main(int argc, char **argv)
{
    static const struct bench_workload table[] = {
        { "sha256", sha256_unit, data_setup },
        { "aes_gcm", aes_gcm_unit, data_setup },
        { "rsa_sign", rsa_sign_unit, rsa_setup },
        { "x25519", x25519_unit, NULL },
    };

    return bench_main(argc, argv, table, sizeof(table) / sizeof(table[0]));
}
