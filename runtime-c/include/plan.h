/* What else can be had of a RAM plan? */
#ifndef TDF_PLAN_H
#define TDF_PLAN_H

#include "primitives.h"

/* Legacy structures and the kernel's real-mode trampoline lie below; nothing of ours goes there. */
#define LOW_MEMORY_END 0x100000u

/* In place of an E820 type: RAM that the OS is to accept, which no E820 shows. Nothing is to be done with it here, as if
 * it had been added. */
#define PLAN_LAZY 8u

/* Takes the upper half of the largest piece of free RAM between 1 MiB and what was carved below 4 GiB; it stays RAM in
 * the E820. How much that is follows from the plan alone. Fails: ram_too_small, ram_too_fragmented. */
status_t plan_take_half(struct ram *ram, struct span *out);
/* Makes [start, end), which is no part of the plan, a reserved one. Fails: ram_range_overlap, ram_too_fragmented. */
status_t plan_reserve(struct ram *ram, uint64_t start, uint64_t end);

/* Does a carved region begin where a range does? It is the same then. */
static inline int plan_is_carved(const struct ram *ram, const struct ram_range *range) {
    for (uint64_t i = 0; i < ram->carved.count; i++)
        PROVE_LOOP((i), i <= ram->carved.count, ram->carved.count - i)
        if (tdf_gpa(ram->carved.items[i].data) == range->start)
            return 1;
    return 0;
}

/* Is [start, end) RAM to the OS above 1 MiB that nothing of the firmware lies in, or the section that holds `home`? */
int plan_is_free(const struct ram *ram, uint64_t start, uint64_t end, uint64_t home);

/* Of the code at a vmlinux's entry, so much has to lie in its window: more than any one instruction. */
#define PLAN_ENTRY_SIZE 16u
/* Fills what a setup header says of a kernel that has none, and runs in the window of `out`. Only `image`, its bytes where
 * they were measured, is kept. */
void plan_vmlinux(const struct span *image, uint64_t entry, struct placement *out);
/* Where the initrd goes, once the kernel and its window are placed: a copy more, or none. Fails: initrd_no_room. */
status_t plan_initrd(const struct span *initrd, const struct ram *ram, struct placement *out);

#endif
