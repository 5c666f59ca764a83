/* Do the readers of a signed payload keep to its region? */
#include "../src/signed.c"
#include "model.h"

/* Proved in sha384.c and rsa.c; the curve's arithmetic is not (runtime-c/proofs/proofs.toml). */
void sha384(const struct span *data, uint8_t digest[SHA384_SIZE]) {
    reads(data->data, data->size);
    writes(digest, SHA384_SIZE);
}

uint32_t rsa_pss_verify(const uint8_t *modulus, const uint8_t exponent[8], const uint8_t *signature, uint64_t words,
                        const uint8_t digest[48]) {
    uint32_t answer;
    __CPROVER_assert(words <= RSA_MAX_WORDS, "no more words than there is room for");
    reads(modulus, 8 * words);
    reads(exponent, 8);
    reads(signature, 8 * words);
    reads(digest, SHA384_SIZE);
    return answer;
}

uint32_t p384_verify(const uint8_t key[96], const uint8_t digest[48], const uint8_t signature[96]) {
    uint32_t answer;
    reads(key, 96);
    reads(digest, SHA384_SIZE);
    reads(signature, 96);
    return answer;
}

void prove_signed_payload(void) {
    const struct span region = any_span(BOUND);
    struct span out;
    uint64_t svn;
    if (signed_payload(&region, &out) == TDF_OK)
        reads(out.data, out.size);
    signed_svn(&region, &svn);
}

void prove_verify_signed(void) {
    const struct span region = any_span(BOUND);
    struct span payload;
    struct anchor anchor;
    uint64_t minimum_svn;
    verify_signed(&payload, &region, &anchor, minimum_svn);
}
