/* Does the RAM plan stay in its lists, and do its steps end?
 *
 * The steps of plan_memory are proved one by one: each takes any plan whose counts are in their lists, and leaves such a
 * one. */
#include "../src/plan.c"
#include "model.h"

#define MAX_SECTIONS 32u

static void assume_counts(const struct ram *ram) {
    __CPROVER_assume(ram->ranges.count <= MAX_RANGES && ram->carved.count <= MAX_CARVED);
}

/* Stands for insert: any other ranges, one more. */
status_t any_insert(struct ram *ram, uint64_t at, const struct ram_range *range) {
    struct ram any;
    int fits;
    reads(range, sizeof *range);
    if (!fits)
        return TDF_E_RAM_TOO_FRAGMENTED;
    __CPROVER_assume(any.ranges.count <= MAX_RANGES);
    ram->ranges = any.ranges;
    return TDF_OK;
}

status_t any_split(struct ram *ram, uint64_t at, uint64_t start, uint64_t end, uint32_t e820) {
    const struct ram_range none = {0, 0, 0, 0};
    __CPROVER_assert(at < ram->ranges.count, "splits a range that is there");
    return any_insert(ram, at, &none);
}

static struct layout *any_layout(void) {
    const struct span place = any_span(sizeof(struct layout) + MAX_SECTIONS * sizeof(struct layout_entry));
    struct layout *layout = (struct layout *)place.data;
    __CPROVER_assume(place.size >= sizeof *layout);
    __CPROVER_assume(layout->count <= (place.size - sizeof *layout) / sizeof layout->entries[0]);
    return layout;
}

void prove_insert(void) {
    struct ram ram;
    struct ram_range range;
    uint64_t at;
    assume_counts(&ram);
    insert(&ram, at, &range);
    __CPROVER_assert(ram.ranges.count <= MAX_RANGES, "the count stays in the list");
}

void prove_split(void) {
    struct ram ram;
    uint64_t at, start, end;
    uint32_t e820;
    assume_counts(&ram);
    __CPROVER_assume(at < ram.ranges.count);
    split(&ram, at, start, end, e820);
    __CPROVER_assert(ram.ranges.count <= MAX_RANGES, "the count stays in the list");
}

void prove_collect(void) {
    struct vmm *vmm = ANY(struct vmm);
    struct ram ram;
    uint64_t gpa_end;
    __CPROVER_assume(vmm->resources.count <= CAPACITY(vmm, resources));
    assume_counts(&ram);
    collect(vmm, gpa_end, &ram);
}

void prove_check_disjoint(void) {
    struct vmm *vmm = ANY(struct vmm);
    struct ram *ram = ANY(struct ram);
    __CPROVER_assume(vmm->resources.count <= CAPACITY(vmm, resources));
    assume_counts(ram);
    check_disjoint(vmm, ram);
}

void prove_cut_sections(void) {
    struct ram *from = ANY(struct ram);
    struct ram to;
    assume_counts(from);
    assume_counts(&to);
    cut_sections(from, any_layout(), &to);
}

void prove_add_window(void) {
    struct ram ram;
    assume_counts(&ram);
    add_window(any_layout(), &ram);
}

void prove_carve(void) {
    struct ram ram;
    struct layout_entry entry;
    uint64_t limit;
    int whole;
    assume_counts(&ram);
    carve(&ram, &entry, &limit, whole);
    __CPROVER_assert(ram.carved.count <= MAX_CARVED, "the count stays in the list");
}

void prove_take_half(void) {
    struct ram ram;
    struct span out;
    assume_counts(&ram);
    plan_take_half(&ram, &out);
}

void prove_reserve(void) {
    struct ram ram;
    uint64_t start, end;
    assume_counts(&ram);
    plan_reserve(&ram, start, end);
}

status_t any_collect(const struct vmm *vmm, uint64_t gpa_end, struct ram *ram) {
    const struct ram_range none = {0, 0, 0, 0};
    return any_insert(ram, 0, &none);
}

status_t any_check_disjoint(const struct vmm *vmm, const struct ram *ram) {
    status_t found;
    return found;
}

status_t any_cut_sections(const struct ram *from, const struct layout *layout, struct ram *to) {
    const struct ram_range none = {0, 0, 0, 0};
    return any_insert(to, 0, &none);
}

status_t any_add_window(const struct layout *layout, struct ram *ram) {
    const struct ram_range none = {0, 0, 0, 0};
    return any_insert(ram, 0, &none);
}

status_t any_carve(struct ram *ram, const struct layout_entry *entry, uint64_t *limit, int whole) {
    const struct ram_range none = {0, 0, 0, 0};
    if (ram->carved.count == MAX_CARVED)
        return TDF_E_RAM_TOO_SMALL;
    ram->carved.count++;
    writes(limit, sizeof *limit);
    return any_insert(ram, 0, &none);
}

void prove_plan_memory(void) {
    struct vmm *vmm = ANY(struct vmm);
    struct vp_info td;
    struct ram out;
    plan_memory(vmm, &td, any_layout(), &out);
}
