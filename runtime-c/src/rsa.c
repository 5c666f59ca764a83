/* Was an RSASSA-PSS signature of a digest made with that key?
 *
 * Numbers are arrays of 64-bit words, low word first. Everything here is public: time may depend on it. Sources: RFC 8017,
 * 5.2.2, 8.1.2 and 9.1.2; Montgomery multiplication as in Koc, Acar, Kaliski 1996, "CIOS". */
#include "formats.h"
#include "primitives.h"
#include "sha384.h"
#include "signature.h"

#define WORDS RSA_MAX_WORDS
#define SALT_SIZE SHA384_SIZE
#define TRAILER 0xBC
#define TOP_BIT 0x80

typedef unsigned __int128 wide;

struct modulus {
    uint64_t words[WORDS];
    uint64_t negated_inverse; /* -1 / words[0] modulo 2^64 */
    uint64_t count;
};

static void from_bytes(uint64_t *to, const uint8_t *from, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        PROVE_LOOP((i, __CPROVER_object_whole(to)), i <= count, count - i) {
        uint64_t word;
        memcpy(&word, from + 8 * (count - 1 - i), sizeof word);
        to[i] = __builtin_bswap64(word);
    }
}

static int is_below(const uint64_t *value, const struct modulus *n) {
    for (uint64_t i = n->count; i > 0; i--)
        PROVE_LOOP((i), i <= n->count, i)
        if (value[i - 1] != n->words[i - 1])
            return value[i - 1] < n->words[i - 1];
    return 0;
}

/* `carry` is the word above; the whole is below twice the modulus. */
static void reduce(uint64_t *value, uint64_t carry, const struct modulus *n) {
    uint64_t borrow = 0;
    if (carry == 0 && is_below(value, n))
        return;
    for (uint64_t i = 0; i < n->count; i++)
        PROVE_LOOP((i, borrow, __CPROVER_object_whole(value)), i <= n->count, n->count - i) {
        wide difference = (wide)value[i] - n->words[i] - borrow;
        value[i] = (uint64_t)difference;
        borrow = (uint64_t)(difference >> 64) & 1;
    }
}

static void twice(uint64_t *value, const struct modulus *n) {
    uint64_t carry = 0;
    for (uint64_t i = 0; i < n->count; i++)
        PROVE_LOOP((i, carry, __CPROVER_object_whole(value)), i <= n->count, n->count - i) {
        uint64_t word = value[i];
        value[i] = word << 1 | carry;
        carry = word >> 63;
    }
    reduce(value, carry, n);
}

/* out = a * b / 2^(64 * count) modulo n, for a and b below n; out may be one of them. */
static void multiply(uint64_t *out, const uint64_t *a, const uint64_t *b, const struct modulus *n) {
    uint64_t sum[WORDS] = {0}, above = 0; /* below twice the modulus */
    for (uint64_t i = 0; i < n->count; i++)
        PROVE_LOOP((i, sum, above), i <= n->count, n->count - i) {
        wide product = (wide)a[0] * b[i] + sum[0];
        const uint64_t factor = (uint64_t)product * n->negated_inverse;
        wide removed = (wide)factor * n->words[0] + (uint64_t)product;
        for (uint64_t j = 1; j < n->count; j++)
            PROVE_LOOP((j, sum, product, removed), j >= 1 && j <= n->count, n->count - j) {
            product = (wide)a[j] * b[i] + sum[j] + (uint64_t)(product >> 64);
            removed = (wide)factor * n->words[j] + (uint64_t)product + (uint64_t)(removed >> 64);
            sum[j - 1] = (uint64_t)removed;
        }
        wide top = (wide)above + (uint64_t)(product >> 64) + (uint64_t)(removed >> 64);
        sum[n->count - 1] = (uint64_t)top;
        above = (uint64_t)(top >> 64);
    }
    reduce(sum, above, n);
    memcpy(out, sum, n->count * sizeof *out);
}

/* value = value ^ exponent modulo n */
static void power(uint64_t *value, uint64_t exponent, const struct modulus *n) {
    uint64_t base[WORDS], one[WORDS] = {1};
    uint64_t bit = UINT64_C(1) << (63 - __builtin_clzll(exponent));
    for (uint64_t i = 0; i < 64 * n->count; i++)
        PROVE_LOOP((i, __CPROVER_object_whole(value)), i <= 64 * n->count, 64 * n->count - i)
        twice(value, n); /* Montgomery's form: times 2^(64 * count) */
    memcpy(base, value, n->count * sizeof *base);
    while ((bit >>= 1) != 0)
        PROVE_LOOP((bit, __CPROVER_object_whole(value)), bit != 0, bit) {
        multiply(value, value, value, n);
        if (exponent & bit)
            multiply(value, value, base, n);
    }
    multiply(value, value, one, n);
}

/* XORs MGF1 of `seed` into `data`. RFC 8017, B.2.1. */
static void unmask(uint8_t *data, uint64_t size, const uint8_t seed[SHA384_SIZE]) {
    uint8_t input[SHA384_SIZE + 4] = {0}, mask[SHA384_SIZE];
    const struct span span = {input, sizeof input};
    memcpy(input, seed, SHA384_SIZE);
    for (uint64_t i = 0; i < size; i++)
        PROVE_LOOP((i, input, mask, __CPROVER_object_whole(data)), i <= size, size - i) {
        if (i % SHA384_SIZE == 0) {
            sha384(&span, mask);
            input[sizeof input - 1]++; /* no more than 8 blocks */
        }
        data[i] ^= mask[i % SHA384_SIZE];
    }
}

/* EMSA-PSS-VERIFY with emBits = 8 * size - 1. RFC 8017, 9.1.2. */
static uint32_t encodes(uint8_t *message, uint64_t size, const uint8_t digest[SHA384_SIZE]) {
    const uint64_t masked = size - SHA384_SIZE - 1, zeros = masked - SALT_SIZE - 1;
    const uint8_t *hash = message + masked;
    uint8_t whole[8 + SHA384_SIZE + SALT_SIZE] = {0}, found[SHA384_SIZE];
    const struct span span = {whole, sizeof whole};
    if (message[size - 1] != TRAILER || (message[0] & TOP_BIT))
        return 0;
    unmask(message, masked, hash);
    message[0] &= (uint8_t)~TOP_BIT;
    for (uint64_t i = 0; i < zeros; i++)
        PROVE_LOOP((i), i <= zeros, zeros - i)
        if (message[i] != 0)
            return 0;
    if (message[zeros] != 1)
        return 0;
    memcpy(whole + 8, digest, SHA384_SIZE);
    memcpy(whole + 8 + SHA384_SIZE, message + zeros + 1, SALT_SIZE);
    sha384(&span, found);
    return memcmp(found, hash, SHA384_SIZE) == 0;
}

uint32_t rsa_pss_verify(const uint8_t *modulus, const uint8_t exponent[8], const uint8_t *signature, uint64_t words,
                        const uint8_t digest[48]) {
    struct modulus n;
    uint64_t value[WORDS], e;
    uint8_t message[8 * WORDS];
    if (words > WORDS || 8 * words < SHA384_SIZE + SALT_SIZE + 2)
        return 0;
    n.count = words;
    from_bytes(n.words, modulus, n.count);
    from_bytes(&e, exponent, 1);
    from_bytes(value, signature, n.count);
    if (!(modulus[0] & TOP_BIT) || !(e & 1) || e < 3 || !is_below(value, &n))
        return 0;
    uint64_t inverse = 1;
    for (int bits = 1; bits < 64; bits *= 2)
        inverse *= 2 - n.words[0] * inverse; /* Newton: each step doubles the bits that are right */
    n.negated_inverse = -inverse;
    power(value, e, &n);
    for (uint64_t i = 0; i < n.count; i++)
        PROVE_LOOP((i, message), i <= n.count, n.count - i) {
        const uint64_t word = __builtin_bswap64(value[n.count - 1 - i]);
        memcpy(message + 8 * i, &word, sizeof word);
    }
    return encodes(message, 8 * words, digest);
}
