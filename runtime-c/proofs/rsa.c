/* Does the check of an RSA signature keep to its numbers, of any size that it takes, and does it end? */
#include "../src/rsa.c"
#include "model.h"

/* Proved in sha384.c. */
void sha384(const struct span *data, uint8_t digest[SHA384_SIZE]) {
    reads(data->data, data->size);
    writes(digest, SHA384_SIZE);
}

static void any_modulus(struct modulus *n) { __CPROVER_assume(n->count != 0 && n->count <= WORDS); }

/* Stands for functions that write a number. */
static void any_number(uint64_t *to, const struct modulus *n) {
    __CPROVER_assert(n->count <= WORDS, "no more words than there is room for");
    writes(to, 8 * n->count);
}

void prove_from_bytes(void) {
    const struct span from = any_span(8 * WORDS);
    uint64_t to[WORDS];
    from_bytes(to, from.data, from.size / 8);
}

void any_from_bytes(uint64_t *to, const uint8_t *from, uint64_t count) {
    reads(from, 8 * count);
    writes(to, 8 * count);
}

void prove_is_below(void) {
    uint64_t value[WORDS];
    struct modulus n;
    any_modulus(&n);
    is_below(value, &n);
}

int any_is_below(const uint64_t *value, const struct modulus *n) {
    int found;
    reads(value, 8 * n->count);
    return found;
}

void prove_reduce(void) {
    uint64_t value[WORDS], carry;
    struct modulus n;
    any_modulus(&n);
    reduce(value, carry, &n);
}

void any_reduce(uint64_t *value, uint64_t carry, const struct modulus *n) { any_number(value, n); }

void prove_twice(void) {
    uint64_t value[WORDS];
    struct modulus n;
    any_modulus(&n);
    twice(value, &n);
}

void any_twice(uint64_t *value, const struct modulus *n) { any_number(value, n); }

void prove_multiply(void) {
    uint64_t out[WORDS], a[WORDS], b[WORDS];
    struct modulus n;
    any_modulus(&n);
    multiply(out, a, b, &n);
}

void any_multiply(uint64_t *out, const uint64_t *a, const uint64_t *b, const struct modulus *n) {
    reads(a, 8 * n->count);
    reads(b, 8 * n->count);
    any_number(out, n);
}

void prove_power(void) {
    uint64_t value[WORDS], exponent;
    struct modulus n;
    any_modulus(&n);
    __CPROVER_assume(exponent != 0);
    power(value, exponent, &n);
}

void any_power(uint64_t *value, uint64_t exponent, const struct modulus *n) {
    __CPROVER_assert(exponent != 0, "an exponent has a highest bit");
    any_number(value, n);
}

void prove_encodes(void) {
    uint8_t message[8 * WORDS], digest[SHA384_SIZE];
    uint64_t size;
    __CPROVER_assume(size >= SHA384_SIZE + SALT_SIZE + 2 && size <= sizeof message);
    encodes(message, size, digest);
}

uint32_t any_encodes(uint8_t *message, uint64_t size, const uint8_t digest[SHA384_SIZE]) {
    uint32_t answer;
    __CPROVER_assert(size >= SHA384_SIZE + SALT_SIZE + 2, "room for digest and salt");
    writes(message, size);
    return answer;
}

void prove_rsa_pss_verify(void) {
    uint64_t words;
    uint8_t exponent[8], digest[SHA384_SIZE];
    const struct span modulus = any_span(BOUND), signature = any_span(BOUND);
    __CPROVER_assume(words > WORDS || (modulus.size == 8 * words && signature.size == 8 * words));
    rsa_pss_verify(modulus.data, exponent, signature.data, words, digest);
}
