/* Do numbers of bytes, and texts of numbers, keep to their bytes? */
#include "../src/numbers.c"
#include "model.h"

void prove_numbers(void) {
    const struct span data = any_span(BOUND);
    struct hex_text text;
    uint64_t at, value, u64;
    uint32_t u32;
    uint16_t u16;
    uint8_t u8;
    hex_text(value, &text);
    u8_at(&data, at, &u8);
    u16_at(&data, at, &u16);
    u32_at(&data, at, &u32);
    u64_at(&data, at, &u64);
}
