/* Do relocations keep to their tables and to the image, and do they end? */
#include "../src/relocate.c"
#include "model.h"

static void any_executable(struct executable *executable) {
    executable->rela = any_span(BOUND);
    executable->relr = any_span(BOUND);
    executable->blocks = any_span(BOUND);
    __CPROVER_assume(executable->parts.count <= CAPACITY(executable, parts));
}

void prove_place_at(void) {
    const struct span image = any_span(BOUND);
    struct executable executable;
    uint64_t linked;
    uint32_t access, or_access;
    __CPROVER_assume(executable.parts.count <= CAPACITY(executable, parts));
    uint8_t *at = place_at(&image, &executable, linked, access, or_access);
    if (at)
        __CPROVER_assert(__CPROVER_w_ok(at, sizeof(uint64_t)), "the place lies in the image");
}

/* Stands for place_at: eight bytes of the image, or none. */
uint8_t *any_place(const struct span *image, const struct executable *executable, uint64_t linked, uint32_t access,
                   uint32_t or_access) {
    int found;
    uint64_t offset;
    __CPROVER_assume(tdf_inside(image->size, offset, sizeof(uint64_t)));
    return found ? image->data + offset : 0;
}

void prove_relocate_add(void) {
    const struct span image = any_span(BOUND);
    struct executable executable;
    uint64_t linked;
    uint32_t or_access;
    add(&image, &executable, linked, or_access);
}

/* Stands for add, which writes into the image: nobody reads that. */
status_t any_add(const struct span *image, const struct executable *executable, uint64_t linked, uint32_t or_access) {
    status_t status;
    return status;
}

void prove_relocate_rela(void) {
    const struct span image = any_span(BOUND);
    struct executable executable;
    any_executable(&executable);
    relocate_rela(&image, &executable);
}

void prove_relocate_relr(void) {
    const struct span image = any_span(BOUND);
    struct executable executable;
    any_executable(&executable);
    relocate_relr(&image, &executable);
}

void prove_relocate_block(void) {
    const struct span image = any_span(BOUND);
    struct executable executable;
    struct pe_block block;
    uint64_t at;
    any_executable(&executable);
    __CPROVER_assume(tdf_inside(executable.blocks.size, at, block.size) && block.size >= sizeof block &&
                     block.size % sizeof(uint16_t) == 0);
    relocate_block(&image, &executable, at, &block);
}

status_t any_relocate_block(const struct span *image, const struct executable *executable, uint64_t at,
                            const struct pe_block *block) {
    status_t status;
    __CPROVER_assert(tdf_inside(executable->blocks.size, at, block->size) && block->size >= sizeof *block &&
                         block->size % sizeof(uint16_t) == 0,
                     "a block lies in the table");
    return status;
}

void prove_relocate_blocks(void) {
    const struct span image = any_span(BOUND);
    struct executable executable;
    any_executable(&executable);
    relocate_blocks(&image, &executable);
}

/* Stands for the relocations of one table, which write into the image. */
status_t any_table(const struct span *image, const struct executable *executable) {
    status_t status;
    __CPROVER_assert(__CPROVER_r_ok(image, sizeof *image) && __CPROVER_r_ok(executable, sizeof *executable),
                     "image and executable are passed on");
    return status;
}

void prove_relocate_executable(void) {
    struct span image = any_span(BOUND);
    struct executable executable;
    any_executable(&executable);
    relocate_executable(&image, &executable);
}
