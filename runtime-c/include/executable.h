/* What do the readers of executable files share? Parts as the file links them, which are then placed. */
#ifndef TDF_EXECUTABLE_H
#define TDF_EXECUTABLE_H

#include "plan.h"

#define EXECUTABLE_ALIGNMENT_MAX 0x40000000u /* 1 GiB: what a file may ask for */
#define EXECUTABLE_ADDRESS_MAX (1ull << 47)  /* of the lower half, which the firmware maps one to one */
#define EXECUTABLE_MAX_PARTS (sizeof((struct executable *)0)->parts.items / sizeof(struct image_part))

/* What is known of a file while its headers are read; addresses as it is linked. */
struct linked {
    uint64_t alignment; /* that its place keeps: a power of two, one page at least */
    uint64_t end;       /* of the pages of its parts so far */
    int fixed;          /* it runs only where it is linked to */
};

/* Adds a part behind the others, and what lies in between as pages without access. `offset`: of its bytes in the file, in
 * which they lie. Fails: executable_parts. */
status_t executable_add(struct executable *out, struct linked *linked, uint64_t at, uint64_t memory_size,
                        uint64_t offset, uint64_t size, uint32_t access);
/* The bytes of the file that go to [at, at + size); 0 if they are not all there. */
int executable_bytes(const struct executable *executable, uint64_t at, uint64_t size, struct span *out);
/* Writable, executable, or neither. Fails: executable_rights. */
status_t executable_access(int writable, int executable, uint32_t *access);

/* Is this its format? Fails: executable_unknown. Then: up to where the file reaches, or all of it in `out`. */
status_t executable_elf_end(const struct span *section, uint64_t *end);
status_t executable_pe_end(const struct span *section, uint64_t *end);
status_t executable_read_elf(const struct span *file, struct linked *linked, struct executable *out);
status_t executable_read_pe(const struct span *file, struct linked *linked, struct executable *out);

#endif
