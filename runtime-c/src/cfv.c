/* Which file of a firmware volume is the trust anchor, and which key does it name?
 *
 * The rules of td-shim's reader (td-shim-interface/src/fv.rs and td-shim/src/secure_boot.rs at 125eeab), which differ
 * from the PI specification: only the first 56 bytes of a volume have a checksum, a file's covers what PI leaves out,
 * and the size of a large file has 32 bits. */
#include "formats.h"
#include "primitives.h"

#define FILE_MAX (sizeof(struct trust_anchor) + sizeof(struct digest) + FFS_ALIGNMENT) /* tools of 2022 pad it */
#define SUMMED offsetof(struct fv_header, block_count)

static int is_volume(const struct span *region, struct fv_header *head) {
    static const uint8_t zeros[sizeof head->zero_vector];
    uint16_t word, sum = 0;
    if (!tdf_read(region, 0, head, sizeof *head))
        return 0;
    for (uint64_t at = 0; at < SUMMED; at += sizeof word)
        PROVE_LOOP((at, word, sum), at <= SUMMED && at % sizeof word == 0, SUMMED - at) {
        memcpy(&word, region->data + at, sizeof word);
        sum += word;
    }
    return sum == 0 && memcmp(head->zero_vector, zeros, sizeof zeros) == 0 && head->length == region->size &&
           memcmp(head->signature, FV_SIGNATURE, sizeof head->signature) == 0 && head->revision == FV_REVISION;
}

/* The data of the file at `at` and its header, with `next` behind it; 0 if no more files are to be believed. */
static int read_file(const struct span *region, uint64_t at, struct ffs_file_header *file, struct span *data,
                     uint64_t *next) {
    uint32_t size = 0, header = sizeof *file;
    uint8_t sum = 0;
    if (!tdf_read(region, at, file, sizeof *file))
        return 0;
    memcpy(&size, file->size, sizeof file->size);
    if (file->attributes & FFS_LARGE_FILE) {
        if (!tdf_read(region, at + header, &size, sizeof size))
            return 0;
        header += sizeof size;
    }
    if (size < header || !tdf_inside(region->size, at, size))
        return 0;
    for (uint32_t i = 0; i < header; i++)
        PROVE_LOOP((i, sum), i <= header, header - i)
        sum += region->data[at + i];
    data->data = region->data + at + header;
    data->size = size - header;
    *next = at + tdf_align_up(size, FFS_ALIGNMENT);
    return sum == FFS_HEADER_SUM;
}

status_t anchor_extent(const struct span *region, struct span *out) {
    static const uint8_t name[] = GUID_ANCHOR_FILE;
    struct fv_header head;
    struct ffs_file_header file;
    if (!is_volume(region, &head))
        return TDF_E_VOLUME_MALFORMED;
    uint64_t at = head.header_length;
    do
        PROVE_LOOP((at, file, *out), at <= region->size + UINT16_MAX, region->size + UINT16_MAX - at) {
        if (!read_file(region, at, &file, out, &at))
            return TDF_E_ANCHOR_MISSING;
    } while (file.type != FV_RAW_FILE || memcmp(file.name, name, sizeof name) != 0);
    return out->size <= FILE_MAX ? TDF_OK : TDF_E_ANCHOR_MALFORMED;
}

status_t trust_anchor(const struct span *file, struct anchor *out) {
    static const uint8_t type[] = GUID_KEY_HASH;
    struct trust_anchor head;
    if (!tdf_read(file, 0, &head, sizeof head) || memcmp(head.type, type, sizeof type) != 0 ||
        head.length != sizeof head + sizeof out->key.bytes || head.hash_algorithm != ANCHOR_SHA384 ||
        !tdf_read(file, sizeof head, out->key.bytes, sizeof out->key.bytes))
        return TDF_E_ANCHOR_MALFORMED;
    return TDF_OK;
}
