/* Which bytes of the Payload section are the kernel and the initrd, and what does the kernel say of itself?
 *
 * Source: Linux Documentation/arch/x86/boot.rst; payload bundle: docs/decisions/0007. */
#include "formats.h"
#include "primitives.h"

/* Where the header ends by its own jump: behind init_size, and before boot_params goes on with other fields. */
#define HEADER_END_MIN (LINUX_SETUP_HEADER_OFFSET + offsetof(struct setup_header, handover_offset))
#define JUMP_BASE (LINUX_SETUP_HEADER_OFFSET + offsetof(struct setup_header, header))
#define JUMP_SHORT 0xEBu

static status_t read_header(const struct span *file, struct setup_header *header, uint64_t *size) {
    if (!tdf_read(file, LINUX_SETUP_HEADER_OFFSET, header, sizeof *header) ||
        header->boot_flag != LINUX_BOOT_FLAG || header->header != LINUX_HEADER_MAGIC)
        return TDF_E_KERNEL_NOT_BZIMAGE;
    uint64_t sectors = header->setup_sects ? header->setup_sects : LINUX_DEFAULT_SETUP_SECTS;
    uint64_t setup_size = (sectors + 1) * LINUX_SECTOR_SIZE;
    *size = setup_size + (uint64_t)header->syssize * LINUX_SYSSIZE_UNIT;
    if (*size > file->size)
        return TDF_E_KERNEL_TRUNCATED;
    TDF_BARRIER();
    return TDF_OK;
}

status_t linux_extent(const struct span *section, struct span *out) {
    struct setup_header header;
    uint64_t size;
    status_t status = read_header(section, &header, &size);
    if (status != TDF_OK)
        return status;
    out->data = section->data;
    out->size = size;
    return TDF_OK;
}

status_t initrd_extent(const struct span *section, const struct span *kernel, struct span *out) {
    static const uint8_t guid[] = GUID_PAYLOAD_BUNDLE;
    /* Only the head of struct payload_bundle; the rest of its page is zero and means nothing. */
    struct {
        uint8_t guid[sizeof guid];
        uint64_t initrd_size;
    } head;
    uint64_t start = tdf_gpa(kernel->data) - tdf_gpa(section->data);
    if (!tdf_inside(section->size, start, kernel->size))
        return TDF_E_INITRD_MALFORMED;
    uint64_t end = start + kernel->size;
    out->data = section->data + end;
    out->size = 0;
    if (section->size < PAYLOAD_BUNDLE_ALIGNMENT || end > section->size - PAYLOAD_BUNDLE_ALIGNMENT)
        return TDF_OK;
    uint64_t at = tdf_align_up(end, PAYLOAD_BUNDLE_ALIGNMENT);
    if (!tdf_read(section, at, &head, sizeof head) || memcmp(head.guid, guid, sizeof guid) != 0)
        return TDF_OK;
    if (!tdf_inside(section->size, at + sizeof(struct payload_bundle), head.initrd_size))
        return TDF_E_INITRD_MALFORMED;
    if (head.initrd_size == 0)
        return TDF_OK; /* as without a header, which no register tells apart from this one */
    out->data = section->data + at + sizeof(struct payload_bundle);
    out->size = head.initrd_size;
    return TDF_OK;
}

status_t parse_linux(const struct span *image, struct linux *out) {
    struct setup_header header;
    uint64_t size;
    status_t status = read_header(image, &header, &size);
    if (status != TDF_OK)
        return status;
    if (header.version < LINUX_MIN_PROTOCOL || !(header.xloadflags & LINUX_XLF_KERNEL_64))
        return TDF_E_KERNEL_TOO_OLD;
    uint64_t header_end = JUMP_BASE + header.jump_offset;
    uint64_t alignment = header.kernel_alignment;
    uint64_t protected_size = (uint64_t)header.syssize * LINUX_SYSSIZE_UNIT;
    if (header.jump != JUMP_SHORT || header_end < HEADER_END_MIN || header_end > LINUX_SETUP_HEADER_END_MAX ||
        !(header.loadflags & LINUX_LOADFLAG_LOADED_HIGH) || protected_size <= LINUX_ENTRY64_OFFSET ||
        header.init_size == 0 || alignment < TDF_PAGE ||
        (alignment & (alignment - 1)) != 0 || !tdf_aligned(header.pref_address, TDF_PAGE) ||
        header.pref_address > UINT64_MAX / 2)
        return TDF_E_KERNEL_MALFORMED;
    out->image.data = image->data;
    out->image.size = size;
    out->header_size = header_end - LINUX_SETUP_HEADER_OFFSET;
    out->setup_size = size - protected_size;
    out->protected_size = protected_size;
    out->init_size = header.init_size;
    out->pref_address = header.pref_address;
    out->alignment = alignment;
    out->initrd_max = header.initrd_addr_max;
    out->command_line_max = header.cmdline_size;
    out->relocatable = header.relocatable_kernel != 0;
    out->xloadflags = header.xloadflags;
    return TDF_OK;
}
