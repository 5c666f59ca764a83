/* What of a window did the VMM fill, and where is the vmlinux in it entered?
 *
 * Neither an ELF header nor a setup header lands in memory, so the window itself says how far the kernel goes.
 * Source: docs/decisions/0021; Linux Documentation/arch/x86/boot.rst, "64-bit boot protocol". */
#include "formats.h"
#include "plan.h"

static int is_zero(const uint8_t *page) {
    const uint64_t *words = (const uint64_t *)page;
    uint64_t sum = 0;
#pragma clang loop unroll_count(8)
    for (uint32_t i = 0; i < TDF_PAGE / sizeof *words; i++)
        PROVE_LOOP((i, sum), i <= TDF_PAGE / sizeof *words, TDF_PAGE / sizeof *words - i)
        sum |= words[i];
    return sum == 0;
}

void used_extent(const struct span *region, struct span *out) {
    uint64_t size = tdf_align_down(region->size, TDF_PAGE);
    out->data = region->data;
    out->size = region->size;
    if (size != region->size || !tdf_aligned(tdf_gpa(region->data), TDF_PAGE))
        return; /* no whole pages: all of it */
    while (size > 0 && is_zero(region->data + size - TDF_PAGE))
        PROVE_LOOP((size), size <= region->size && size % TDF_PAGE == 0, size)
        size -= TDF_PAGE;
    out->size = size;
}

/* Is nothing in `region` behind its first `size` bytes? */
static int rest_is_zero(const struct span *region, uint64_t size) {
    for (; size < region->size; size++)
        PROVE_LOOP((size), size <= region->size, region->size - size) {
        const uint8_t *at = region->data + size;
        if (tdf_aligned(tdf_gpa(at), TDF_PAGE) && region->size - size >= TDF_PAGE && is_zero(at))
            size += TDF_PAGE - 1;
        else if (*at != 0)
            return 0;
    }
    return 1;
}

/* Is it all of the section in which it lies, if it lies in one? In front of a window that is only a part, or behind it,
 * would lie what nobody looked at: code of the kernel's, or what it takes to be zero. */
static int is_whole_section(const struct ram *ram, uint64_t start, uint64_t end) {
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i), i <= ram->ranges.count, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        if (range->state == TDF_RAM_STATE_ADDED && tdf_overlap(range->start, range->end, start, end) &&
            (range->start != start || range->end != end))
            return 0;
    }
    return 1;
}

void plan_vmlinux(const struct span *image, uint64_t entry, struct placement *out) {
    const uint64_t size = out->window_end - out->window_start;
    out->kernel.image = *image;
    out->kernel.protected_size = size;
    out->kernel.init_size = size;
    out->kernel.pref_address = out->window_start;
    out->kernel.alignment = TDF_PAGE_2M;
    out->kernel.initrd_max = LINUX_INITRD_MAX;
    out->kernel.command_line_max = LINUX_CMDLINE_COPY_SIZE - 1;
    out->kernel.xloadflags = LINUX_XLF_KERNEL_64;
    out->load = out->window_start;
    out->entry = entry;
}

status_t place_vmlinux(const struct span *window, const struct span *kernel, uint64_t entry,
                       const struct span *initrd, const struct ram *ram, struct placement *out) {
    const uint64_t start = tdf_gpa(window->data), end = start + window->size;
    const uint64_t initrd_start = tdf_gpa(initrd->data), initrd_end = initrd_start + initrd->size;
    /* An entry below the window is far beyond it by this difference. */
    if (kernel->data != window->data || kernel->size > window->size ||
        !tdf_inside(kernel->size, entry - start, PLAN_ENTRY_SIZE))
        return TDF_E_KERNEL_ENTRY_OUTSIDE;
    if (!rest_is_zero(window, kernel->size))
        return TDF_E_KERNEL_NOT_WHOLE;
    /* The kernel writes all over its window, and takes its initrd where the E820 says RAM. */
    if (!plan_is_free(ram, start, end, start) || !is_whole_section(ram, start, end))
        return TDF_E_WINDOW_NO_ROOM;
    if (initrd->size != 0 && (tdf_overlap(start, end, initrd_start, initrd_end) ||
                              !plan_is_free(ram, initrd_start, initrd_end, initrd_start)))
        return TDF_E_INITRD_NO_ROOM;
    memset(out, 0, sizeof *out);
    out->window_start = start;
    out->window_end = end;
    plan_vmlinux(kernel, entry, out);
    out->initrd_start = initrd->size ? initrd_start : 0;
    out->initrd_size = initrd->size;
    return TDF_OK;
}

void clear_rest(struct span *section, const struct placement *placement, const struct span *page) {
    const struct placement *p = placement;
    const uint64_t kept[][2] = {
        {p->window_start, p->window_end},
        {p->load, p->load + p->kernel.protected_size},
        {p->initrd_start, p->initrd_start + p->initrd_size},
        {tdf_gpa(page->data), tdf_gpa(page->data) + page->size},
    };
    const uint64_t start = tdf_gpa(section->data), end = start + section->size;
    uint64_t at = start;
    while (at < end)
        PROVE_LOOP((at, __CPROVER_object_whole(section->data)), at >= start, at < end ? end - at : 0) {
        uint64_t stop = end, behind = 0;
        for (uint32_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
            PROVE_LOOP((i, stop, behind),
                       i <= sizeof kept / sizeof kept[0] && at < stop && stop <= end && (behind == 0 || behind > at),
                       sizeof kept / sizeof kept[0] - i) {
            if (kept[i][0] <= at && at < kept[i][1])
                behind = kept[i][1];
            else if (at < kept[i][0] && kept[i][0] < stop)
                stop = kept[i][0];
        }
        if (behind == 0)
            memset(section->data + (at - start), 0, stop - at);
        at = behind ? behind : stop;
    }
}
