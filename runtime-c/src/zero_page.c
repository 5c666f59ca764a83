/* What does the kernel read of us? boot_params: its own setup header back, the memory map, and four addresses.
 *
 * Source: Linux Documentation/arch/x86/zero-page.rst and boot.rst, "64-bit boot protocol". */
#include "formats.h"
#include "primitives.h"

#define HEADER_SIZE_MAX (LINUX_SETUP_HEADER_END_MAX - LINUX_SETUP_HEADER_OFFSET)
#define VIDEO_MODE_NORMAL 0xFFFFu /* boot.rst, special command line options, vga= */

/* Left-out RAM is not listed; neighbours of one type become one entry. */
static status_t fill_e820(const struct ram *ram, struct boot_params *params) {
    uint32_t count = 0;
    uint64_t last_end = 0;
    uint32_t last_type = 0;
    for (uint64_t i = 0; i < ram->ranges.count; i++)
        PROVE_LOOP((i, count, last_end, last_type, params->e820_table),
                   i <= ram->ranges.count && count <= E820_MAX_ENTRIES, ram->ranges.count - i) {
        const struct ram_range *range = &ram->ranges.items[i];
        if (range->state == TDF_RAM_STATE_LEFT_OUT)
            continue;
        if (count != 0 && last_end == range->start && last_type == range->e820) {
            params->e820_table[count - 1].size += range->end - range->start;
        } else {
            if (count == E820_MAX_ENTRIES)
                return TDF_E_E820_TOO_MANY;
            struct e820_entry *entry = &params->e820_table[count++];
            entry->addr = range->start;
            entry->size = range->end - range->start;
            entry->type = range->e820;
        }
        last_end = range->end;
        last_type = range->e820;
    }
    params->e820_entries = (uint8_t)count;
    return TDF_OK;
}

/* A setup header for a kernel that came without one: what Linux looks at in boot_params. boot.rst, "The real-mode kernel
 * header". */
static void fill_header(struct setup_header *header, const struct placement *placement) {
    header->boot_flag = LINUX_BOOT_FLAG;
    header->header = LINUX_HEADER_MAGIC;
    header->version = LINUX_PROTOCOL;
    header->loadflags = LINUX_LOADFLAG_LOADED_HIGH;
    header->initrd_addr_max = (uint32_t)placement->kernel.initrd_max;
    header->kernel_alignment = (uint32_t)placement->kernel.alignment;
    header->xloadflags = (uint16_t)placement->kernel.xloadflags;
    header->cmdline_size = (uint32_t)placement->kernel.command_line_max;
    header->pref_address = placement->kernel.pref_address;
    header->init_size = (uint32_t)placement->kernel.init_size;
}

/* What is written here must survive the kernel: its window, itself where it lies, and its initrd are not ours any more. */
static int is_apart(const struct span *page, const struct placement *placement) {
    uint64_t start = tdf_gpa(page->data), end = start + page->size;
    const struct placement *p = placement;
    return !tdf_overlap(start, end, p->window_start, p->window_end) &&
           !tdf_overlap(start, end, p->load, p->load + p->kernel.protected_size) &&
           !tdf_overlap(start, end, p->initrd_start, p->initrd_start + p->initrd_size);
}

status_t zero_page(const struct span *page, const struct placement *placement, const struct ram *ram,
                   const struct span *command_line, uint64_t rsdp) {
    const struct span *image = &placement->kernel.image;
    const uint64_t header_size = placement->kernel.header_size;
    if (header_size > HEADER_SIZE_MAX || !tdf_inside(image->size, LINUX_SETUP_HEADER_OFFSET, header_size))
        return TDF_E_KERNEL_MALFORMED;
    if (page->size < sizeof(struct boot_params) ||
        command_line->size >= page->size - sizeof(struct boot_params) ||
        command_line->size > placement->kernel.command_line_max)
        return TDF_E_COMMAND_LINE_TOO_LONG;
    if (!is_apart(page, placement))
        return TDF_E_OUT_OF_BOUNDS;
    struct boot_params *params = (struct boot_params *)page->data;
    uint8_t *line = page->data + sizeof *params;
    const uint64_t command = tdf_gpa(line);
    memset(params, 0, page->size);
    /* The kernel reads up to a NUL. In a copy it can only be ours, and nothing that was not measured comes before it. */
    memcpy(line, command_line->data, command_line->size);
    if (header_size == 0)
        fill_header(&params->hdr, placement);
    memcpy(page->data + LINUX_SETUP_HEADER_OFFSET, image->data + LINUX_SETUP_HEADER_OFFSET, header_size);
    params->hdr.root_dev = 0;
    params->hdr.ram_size = 0;
    params->hdr.vid_mode = VIDEO_MODE_NORMAL;
    params->hdr.type_of_loader = LINUX_LOADER_UNDEFINED;
    params->hdr.loadflags &= (uint8_t)~(LINUX_LOADFLAG_KASLR | LINUX_LOADFLAG_CAN_USE_HEAP);
    params->hdr.heap_end_ptr = 0;
    params->hdr.setup_move_size = 0;
    params->hdr.ext_loader_ver = 0;
    params->hdr.ext_loader_type = 0;
    params->hdr.setup_data = 0;
    params->hdr.code32_start = (uint32_t)placement->load;
    params->hdr.ramdisk_image = (uint32_t)placement->initrd_start;
    params->hdr.ramdisk_size = (uint32_t)placement->initrd_size;
    params->hdr.cmd_line_ptr = (uint32_t)command;
    params->ext_ramdisk_image = (uint32_t)(placement->initrd_start >> 32);
    params->ext_ramdisk_size = (uint32_t)(placement->initrd_size >> 32);
    params->ext_cmd_line_ptr = (uint32_t)(command >> 32);
    params->acpi_rsdp_addr = rsdp;
    return fill_e820(ram, params);
}
