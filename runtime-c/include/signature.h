/* Was a signature of a SHA-384 digest made with that key? All numbers have their high byte first. */
#ifndef TDF_SIGNATURE_H
#define TDF_SIGNATURE_H

#include "tdf_base.h"

/* ECDSA on the curve P-384; X and Y, and R and S, of 48 bytes each. Source: FIPS 186-5, 6.4.2. */
uint32_t p384_verify(const uint8_t key[96], const uint8_t digest[48], const uint8_t signature[96]);

#define RSA_MAX_WORDS 48u

/* RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes. Modulus and signature have `words` times 8 bytes, at
 * most RSA_MAX_WORDS; the modulus has all its 64 * words bits, the exponent is odd and at least 3.
 * Source: RFC 8017, 8.1.2 and 9.1.2. */
uint32_t rsa_pss_verify(const uint8_t *modulus, const uint8_t exponent[8], const uint8_t *signature, uint64_t words,
                        const uint8_t digest[48]);

#endif
