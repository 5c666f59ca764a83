/* What of a loaded executable changes because it does not lie where it is linked to?
 *
 * The tables are read where they were measured, never in the image, which is written to. Each place is looked up among the
 * parts before it is written. Source: AMD64 supplement 1.0, 4.4.1; gABI, "Relative Relocation Table"; Microsoft, "PE Format",
 * ".reloc". */
#include "formats.h"
#include "primitives.h"

#define BITMAP_WORDS 63u /* of DT_RELR: all bits of a word but the lowest */
#define FIXUP_OFFSET 0xFFFu

/* The eight bytes at a linked address, in a part whose pages have one of two accesses; 0 if they lie in none. */
static uint8_t *place_at(const struct span *image, const struct executable *executable, uint64_t linked,
                         uint32_t access, uint32_t or_access) {
    const uint64_t offset = linked - executable->base;
    if (!tdf_inside(image->size, offset, sizeof(uint64_t)))
        return 0;
    for (uint64_t i = 0; i < executable->parts.count; i++)
        PROVE_LOOP((i), i <= executable->parts.count, executable->parts.count - i) {
        const struct image_part *part = &executable->parts.items[i];
        if ((part->access == access || part->access == or_access) &&
            tdf_inside(part->length, executable->load + offset - part->start, sizeof(uint64_t)))
            return image->data + offset;
    }
    return 0;
}

static status_t add(const struct span *image, const struct executable *executable, uint64_t linked, uint32_t or_access) {
    uint8_t *at = place_at(image, executable, linked, TDF_ACCESS_RW, or_access);
    uint64_t value;
    if (!at)
        return TDF_E_EXECUTABLE_RELOCATION;
    memcpy(&value, at, sizeof value);
    value += executable->load - executable->base;
    memcpy(at, &value, sizeof value);
    return TDF_OK;
}

static status_t relocate_rela(const struct span *image, const struct executable *executable) {
    const struct span *table = &executable->rela;
    struct elf64_rela entry;
    uint64_t at = 0;
    for (; tdf_read(table, at, &entry, sizeof entry); at += sizeof entry)
        PROVE_LOOP((at, entry, __CPROVER_object_whole(image->data)), at <= table->size, table->size - at) {
        const uint32_t type = (uint32_t)entry.info;
        if (type == ELF_R_NONE)
            continue;
        uint8_t *to = place_at(image, executable, entry.offset, TDF_ACCESS_RW, TDF_ACCESS_RW);
        const uint64_t value = entry.addend + executable->load - executable->base;
        if (type != ELF_R_RELATIVE || !to)
            return TDF_E_EXECUTABLE_RELOCATION;
        memcpy(to, &value, sizeof value);
    }
    return at == table->size ? TDF_OK : TDF_E_EXECUTABLE_RELOCATION;
}

/* An even word is an address; an odd one a bitmap of the words behind the last address or bitmap. */
static status_t relocate_relr(const struct span *image, const struct executable *executable) {
    const struct span *table = &executable->relr;
    uint64_t next = 0, word, at = 0;
    status_t status = TDF_OK;
    for (; status == TDF_OK && tdf_read(table, at, &word, sizeof word); at += sizeof word)
        PROVE_LOOP((at, word, next, status, __CPROVER_object_whole(image->data)), at <= table->size, table->size - at) {
        if ((word & 1) == 0) {
            status = add(image, executable, word, TDF_ACCESS_RW);
            next = word + sizeof word;
            continue;
        }
        for (uint32_t i = 0; status == TDF_OK && i < BITMAP_WORDS; i++)
            PROVE_LOOP((i, status, __CPROVER_object_whole(image->data)), i <= BITMAP_WORDS, BITMAP_WORDS - i)
            if (word >> (i + 1) & 1)
                status = add(image, executable, next + i * sizeof word, TDF_ACCESS_RW);
        next += BITMAP_WORDS * sizeof word;
    }
    return status == TDF_OK && at != table->size ? TDF_E_EXECUTABLE_RELOCATION : status;
}

static status_t relocate_block(const struct span *image, const struct executable *executable, uint64_t at,
                               const struct pe_block *block) {
    uint16_t fixup;
    for (uint64_t i = sizeof *block; i < block->size; i += sizeof fixup)
        PROVE_LOOP((i, fixup, __CPROVER_object_whole(image->data)), i <= block->size && i % sizeof fixup == 0,
                   block->size - i) {
        tdf_read(&executable->blocks, at + i, &fixup, sizeof fixup);
        const uint32_t type = fixup >> 12;
        if (type == PE_FIXUP_ABSOLUTE)
            continue;
        /* Constants with addresses lie in parts that are read-only at last. */
        if (type != PE_FIXUP_DIR64 || add(image, executable, executable->base + block->page + (fixup & FIXUP_OFFSET),
                                          TDF_ACCESS_R) != TDF_OK)
            return TDF_E_EXECUTABLE_RELOCATION;
    }
    return TDF_OK;
}

static status_t relocate_blocks(const struct span *image, const struct executable *executable) {
    const struct span *table = &executable->blocks;
    struct pe_block block;
    uint64_t at = 0;
    for (; tdf_read(table, at, &block, sizeof block); at += block.size)
        PROVE_LOOP((at, block, __CPROVER_object_whole(image->data)), at <= table->size, table->size - at) {
        if (block.size < sizeof block || block.size % sizeof(uint16_t) != 0 || !tdf_inside(table->size, at, block.size))
            return TDF_E_EXECUTABLE_RELOCATION;
        status_t status = relocate_block(image, executable, at, &block);
        if (status != TDF_OK)
            return status;
    }
    return at == table->size ? TDF_OK : TDF_E_EXECUTABLE_RELOCATION;
}

status_t relocate_executable(struct span *image, const struct executable *executable) {
    status_t status = relocate_rela(image, executable);
    if (status == TDF_OK)
        status = relocate_relr(image, executable);
    if (status == TDF_OK)
        status = relocate_blocks(image, executable);
    return status;
}
