/* Where do kernel and initrd go in the RAM that is left free?
 *
 * A kernel loaded at L moves itself to the end of its window [O, O + init_size), which must be free RAM. It stays where
 * it lies if that is so (docs/decisions/0006). Free is accepted type-1 RAM above 1 MiB that is no image section and not
 * carved, and the section that holds the kernel itself. Source: Linux boot.rst; arch/x86/boot/compressed/head_64.S. */
#include "formats.h"
#include "plan.h"

struct area {
    uint64_t start, end;
};

static int holds(const struct ram_range *range, uint64_t address) {
    return range->start <= address && address < range->end;
}

/* `home`: an address inside of the Payload section, which may be used too; 0 if not. */
static int usable(const struct ram_range *range, uint64_t home) {
    return range->e820 == E820_RAM && (range->state == TDF_RAM_STATE_UNACCEPTED ||
                                       (range->state == TDF_RAM_STATE_ADDED && home != 0 && holds(range, home)));
}

/* The first carved region that overlaps; 0 if there is none. */
static const struct span *carved_in(const struct ram *ram, const struct area *area) {
    for (uint64_t i = 0; i < ram->carved.count; i++)
        PROVE_LOOP((i), i <= ram->carved.count, ram->carved.count - i) {
        uint64_t start = tdf_gpa(ram->carved.items[i].data);
        if (tdf_overlap(area->start, area->end, start, start + ram->carved.items[i].size))
            return &ram->carved.items[i];
    }
    return 0;
}

static int is_free(const struct ram *ram, const struct area *area, uint64_t home) {
    uint64_t at = area->start;
    if (at < LOW_MEMORY_END || carved_in(ram, area))
        return 0;
    for (uint64_t i = 0; i < ram->ranges.count && at < area->end; i++)
        PROVE_LOOP((i, at), i <= ram->ranges.count, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        if (!holds(range, at))
            continue;
        if (!usable(range, home))
            return 0;
        at = range->end;
    }
    return at >= area->end;
}

int plan_is_free(const struct ram *ram, uint64_t start, uint64_t end, uint64_t home) {
    const struct area area = {start, end};
    return is_free(ram, &area, home);
}

/* The lowest place for `size` bytes in one range, not below `from`; 0 if there is none. */
static uint64_t lowest(const struct ram *ram, uint64_t from, uint64_t size, uint64_t alignment) {
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i), i <= ram->ranges.count, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        uint64_t at = tdf_align_up(range->start > from ? range->start : from, alignment);
        while (usable(range, 0) && at < range->end && range->end - at >= size)
            PROVE_LOOP((at), 1, at < range->end ? range->end - at : 0) {
            struct area area = {at, at + size};
            const struct span *taken = carved_in(ram, &area);
            if (!taken)
                return at;
            at = tdf_align_up(tdf_gpa(taken->data) + taken->size, alignment);
        }
    }
    return 0;
}

/* The highest page-aligned place for `size` bytes below `limit` and outside of `kept`; 0 if there is none. */
static uint64_t highest(const struct ram *ram, uint64_t limit, uint64_t size, const struct area *kept) {
    for (uint64_t i = ram->ranges.count; i > 0; i--)
        PROVE_LOOP((i), i <= ram->ranges.count, i) {
        const struct ram_range *range = &ram->ranges.items[i - 1];
        const uint64_t start = range->start < LOW_MEMORY_END ? LOW_MEMORY_END : range->start;
        uint64_t end = range->end < limit ? range->end : tdf_align_down(limit, TDF_PAGE);
        while (usable(range, 0) && end > start && end - start >= size)
            PROVE_LOOP((end), 1, end) {
            struct area area = {end - size, end};
            const struct span *taken = carved_in(ram, &area);
            if (taken)
                end = tdf_gpa(taken->data);
            else if (tdf_overlap(area.start, area.end, kept->start, kept->end))
                end = kept->start;
            else
                return area.start;
        }
    }
    return 0;
}

static void add_copy(struct placement *out, uint64_t to, uint64_t from, uint64_t size) {
    struct copy *copy = &out->copies.items[out->copies.count++];
    copy->to = to;
    copy->from = from;
    copy->size = size;
    copy->zeros = 0;
}

/* The window of a kernel loaded at `load`: where it unpacks itself to. */
static struct area window_at(const struct linux *kernel, uint64_t load) {
    uint64_t size = kernel->init_size > kernel->protected_size ? kernel->init_size : kernel->protected_size;
    uint64_t start = kernel->pref_address;
    if (kernel->relocatable && tdf_align_up(load, kernel->alignment) > start)
        start = tdf_align_up(load, kernel->alignment);
    struct area window = {start, tdf_align_up(start + size, TDF_PAGE)};
    return window;
}

static status_t place_kernel(const struct linux *kernel, const struct ram *ram, struct placement *out) {
    uint64_t home = tdf_gpa(kernel->image.data);
    uint64_t load = home + kernel->setup_size;
    struct area window = window_at(kernel, load);
    if (!is_free(ram, &window, home)) {
        if (!kernel->relocatable)
            return TDF_E_KERNEL_NOT_RELOCATABLE;
        uint64_t alignment = kernel->alignment > TDF_PAGE_2M ? kernel->alignment : TDF_PAGE_2M;
        uint64_t from = kernel->pref_address > LINUX_MIN_PREFERRED_ADDRESS ? kernel->pref_address
                                                                          : LINUX_MIN_PREFERRED_ADDRESS;
        load = lowest(ram, from, window.end - window.start, alignment);
        window = window_at(kernel, load);
        if (load == 0 || (window.end > TDF_4G && !(kernel->xloadflags & LINUX_XLF_CAN_BE_LOADED_ABOVE_4G)))
            return TDF_E_WINDOW_NO_ROOM;
        add_copy(out, load, home + kernel->setup_size, kernel->protected_size);
    }
    out->load = load;
    out->entry = load + LINUX_ENTRY64_OFFSET;
    out->window_start = window.start;
    out->window_end = window.end;
    return TDF_OK;
}

/* Does the initrd lie in one piece of RAM that the kernel finds in its E820, where the kernel can take it? */
static int initrd_may_stay(const struct linux *kernel, const struct ram *ram, const struct area *initrd,
                           const struct area *window, uint64_t load) {
    return tdf_aligned(initrd->start, TDF_PAGE) && initrd->end - 1 <= kernel->initrd_max &&
           !tdf_overlap(initrd->start, initrd->end, window->start, window->end) &&
           !tdf_overlap(initrd->start, initrd->end, load, load + kernel->protected_size) &&
           is_free(ram, initrd, tdf_gpa(kernel->image.data));
}

status_t plan_initrd(const struct span *initrd, const struct ram *ram, struct placement *out) {
    const struct linux *kernel = &out->kernel;
    struct area window = {out->window_start, out->window_end};
    struct area source = {tdf_gpa(initrd->data), tdf_gpa(initrd->data) + initrd->size};
    out->initrd_start = 0;
    out->initrd_size = initrd->size;
    if (initrd->size == 0)
        return TDF_OK;
    out->initrd_start = source.start;
    if (initrd_may_stay(kernel, ram, &source, &window, out->load))
        return TDF_OK;
    uint64_t size = tdf_align_up(initrd->size, TDF_PAGE);
    uint64_t to = highest(ram, kernel->initrd_max + 1, size, &window);
    if (to == 0 && kernel->xloadflags & LINUX_XLF_CAN_BE_LOADED_ABOVE_4G)
        to = highest(ram, UINT64_MAX, size, &window);
    if (to == 0)
        return TDF_E_INITRD_NO_ROOM;
    out->initrd_start = to;
    add_copy(out, to, source.start, initrd->size);
    return TDF_OK;
}

status_t place_linux(const struct linux *kernel, const struct span *initrd, const struct ram *ram,
                     struct placement *out) {
    out->kernel = *kernel;
    out->copies.count = 0;
    /* No copy overlaps any source: both go to RAM outside of every section, so their order is free. */
    status_t status = place_kernel(kernel, ram, out);
    if (status == TDF_OK)
        status = plan_initrd(initrd, ram, out);
    return status;
}
