/* How is a SHA-384 digest made of bytes that come in one piece or in several? Source: FIPS 180-4, 5 and 6.5. */
#include "sha384.h"

#include "primitives.h"

static void store_be64(uint8_t *to, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(to, &value, sizeof value);
}

void sha384_start(struct sha384 *hash) {
    static const uint64_t initial[8] = {
        0xcbbb9d5dc1059ed8, 0x629a292a367cd507, 0x9159015a3070dd17, 0x152fecd8f70e5939,
        0x67332667ffc00b31, 0x8eb44a8768581511, 0xdb0c2e0d64f98fa7, 0x47b5481dbefa4fa4,
    }; /* FIPS 180-4, 5.3.4 */
    memcpy(hash->state, initial, sizeof initial);
    hash->total = 0;
}

void sha384_update(struct sha384 *hash, const struct span *data) {
    const uint8_t *at = data->data;
    uint64_t rest = data->size;
    uint64_t held = hash->total % SHA384_BLOCK;
    hash->total += rest;
    if (held != 0) {
        uint64_t part = SHA384_BLOCK - held < rest ? SHA384_BLOCK - held : rest;
        memcpy(hash->block + held, at, part);
        at += part;
        rest -= part;
        if (held + part < SHA384_BLOCK)
            return;
        sha384_blocks(hash->state, hash->block, 1);
    }
    if (rest == 0)
        return;
    sha384_blocks(hash->state, at, rest / SHA384_BLOCK);
    memcpy(hash->block, at + rest / SHA384_BLOCK * SHA384_BLOCK, rest % SHA384_BLOCK);
}

void sha384_finish(struct sha384 *hash, uint8_t digest[SHA384_SIZE]) {
    uint64_t held = hash->total % SHA384_BLOCK;
    hash->block[held++] = 0x80;
    if (held > SHA384_BLOCK - 16) {
        memset(hash->block + held, 0, SHA384_BLOCK - held);
        sha384_blocks(hash->state, hash->block, 1);
        held = 0;
    }
    memset(hash->block + held, 0, SHA384_BLOCK - held);
    store_be64(hash->block + SHA384_BLOCK - 16, hash->total >> 61);
    store_be64(hash->block + SHA384_BLOCK - 8, hash->total << 3);
    sha384_blocks(hash->state, hash->block, 1);
    for (uint32_t i = 0; i < SHA384_SIZE / 8; i++)
        store_be64(digest + 8 * i, hash->state[i]);
}

void sha384(const struct span *data, uint8_t digest[SHA384_SIZE]) {
    struct sha384 hash;
    sha384_start(&hash);
    sha384_update(&hash, data);
    sha384_finish(&hash, digest);
}

void digest(const struct span *data, struct digest *out) { sha384(data, out->bytes); }
