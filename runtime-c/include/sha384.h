/* SHA-384 in one piece or in several. Source: FIPS 180-4. */
#ifndef TDF_SHA384_H
#define TDF_SHA384_H

#include "tdf_base.h"

#define SHA384_BLOCK 128u
#define SHA384_SIZE 48u

struct sha384 {
    uint64_t state[8];
    uint8_t block[SHA384_BLOCK];
    uint64_t total; /* bytes so far; the standard's 128-bit count cannot be exceeded by memory */
};

/* The compression function over `count` whole blocks: all hashing work is in here. */
void sha384_blocks(uint64_t state[8], const uint8_t *data, uint64_t count);

void sha384_start(struct sha384 *hash);
void sha384_update(struct sha384 *hash, const struct span *data);
void sha384_finish(struct sha384 *hash, uint8_t digest[SHA384_SIZE]);
void sha384(const struct span *data, uint8_t digest[SHA384_SIZE]);

#endif
