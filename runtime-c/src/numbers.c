/* How does a number become text, and bytes a number? */
#include "primitives.h"

void hex_text(uint64_t value, struct hex_text *out) {
    uint32_t digits = value ? (67u - (uint32_t)__builtin_clzll(value)) / 4 : 1;
    out->text.count = 2 + digits;
    out->text.items[0] = '0';
    out->text.items[1] = 'x';
    for (uint32_t i = digits; i > 0; i--, value >>= 4)
        out->text.items[1 + i] = (uint8_t)"0123456789abcdef"[value & 15];
}

/* x86 keeps the low byte first, as the prelude promises. */
static status_t number_at(const struct span *data, uint64_t at, void *to, uint64_t size) {
    return tdf_read(data, at, to, size) ? TDF_OK : TDF_E_OUT_OF_BOUNDS;
}

status_t u8_at(const struct span *data, uint64_t at, uint8_t *out) { return number_at(data, at, out, sizeof *out); }

status_t u16_at(const struct span *data, uint64_t at, uint16_t *out) { return number_at(data, at, out, sizeof *out); }

status_t u32_at(const struct span *data, uint64_t at, uint32_t *out) { return number_at(data, at, out, sizeof *out); }

status_t u64_at(const struct span *data, uint64_t at, uint64_t *out) { return number_at(data, at, out, sizeof *out); }
