/* Generated from the prelude: what the C core and generated code agree on. */

#ifndef TDF_PRIMITIVES_H
#define TDF_PRIMITIVES_H

#include "tdf_base.h"

enum tdf_status {
    TDF_OK = 0,
    TDF_E_ARITHMETIC_OVERFLOW = 1,
    TDF_E_OUT_OF_BOUNDS = 2,
    TDF_E_REQUIREMENT_FAILED = 3,
    TDF_E_SEPT_VE_ENABLED = 4,
    TDF_E_HOB_TRUNCATED = 5,
    TDF_E_HOB_MALFORMED = 6,
    TDF_E_HOB_UNKNOWN_TYPE = 7,
    TDF_E_HOB_TOO_MANY = 8,
    TDF_E_RAM_RANGE_INVALID = 9,
    TDF_E_RAM_RANGE_OVERLAP = 10,
    TDF_E_RAM_TOO_FRAGMENTED = 11,
    TDF_E_RAM_SECTION_OUTSIDE = 12,
    TDF_E_RAM_TOO_SMALL = 13,
    TDF_E_ACCEPT_FAILED = 14,
    TDF_E_PAGING_EXHAUSTED = 15,
    TDF_E_PAGING_RANGE = 16,
    TDF_E_LOG_FULL = 17,
    TDF_E_RTMR_EXTEND_FAILED = 18,
    TDF_E_TEXT_UNTERMINATED = 19,
    TDF_E_KERNEL_TRUNCATED = 20,
    TDF_E_KERNEL_NOT_BZIMAGE = 21,
    TDF_E_KERNEL_TOO_OLD = 22,
    TDF_E_KERNEL_NOT_RELOCATABLE = 23,
    TDF_E_KERNEL_MALFORMED = 24,
    TDF_E_INITRD_MALFORMED = 25,
    TDF_E_INITRD_NO_ROOM = 26,
    TDF_E_WINDOW_NO_ROOM = 27,
    TDF_E_COMMAND_LINE_TOO_LONG = 28,
    TDF_E_ACPI_MALFORMED = 29,
    TDF_E_ACPI_NO_ROOM = 30,
    TDF_E_CPUS_MISMATCH = 31,
    TDF_E_E820_TOO_MANY = 32,
    TDF_E_TDVMCALL_FAILED = 33,
};

#define TDF_SEPT_VE_DISABLE UINT64_C(0x10000000)

#define TDF_DEBUG UINT64_C(0x1)

#define TDF_COM1 UINT64_C(0x3f8)

#define TDF_LEVEL_4K UINT64_C(0x0)

#define TDF_LEVEL_2M UINT64_C(0x1)

enum ram_state {
    TDF_RAM_STATE_UNACCEPTED = 0,
    TDF_RAM_STATE_ADDED = 1,
    TDF_RAM_STATE_LEFT_OUT = 2,
};

/* TDG.VP.INFO, from the module: trusted. */
struct vp_info {
    uint64_t gpaw;
    uint64_t attributes;
    uint32_t num_vcpus;
    uint32_t max_vcpus;
    uint32_t vcpu_index;
    uint32_t reserved;
};
_Static_assert(offsetof(struct vp_info, gpaw) == 0, "VpInfo.gpaw: offset");
_Static_assert(offsetof(struct vp_info, attributes) == 8, "VpInfo.attributes: offset");
_Static_assert(offsetof(struct vp_info, num_vcpus) == 16, "VpInfo.num_vcpus: offset");
_Static_assert(offsetof(struct vp_info, max_vcpus) == 20, "VpInfo.max_vcpus: offset");
_Static_assert(offsetof(struct vp_info, vcpu_index) == 24, "VpInfo.vcpu_index: offset");
_Static_assert(offsetof(struct vp_info, reserved) == 28, "VpInfo.reserved: offset");
_Static_assert(sizeof(struct vp_info) == 32, "VpInfo: size");
_Static_assert(_Alignof(struct vp_info) == 8, "VpInfo: alignment");

/* A resource descriptor of the TD HOB; kind and attributes as in the PI specification. */
struct resource {
    uint32_t kind;
    uint32_t attributes;
    uint64_t start;
    uint64_t size;
};
_Static_assert(offsetof(struct resource, kind) == 0, "Resource.kind: offset");
_Static_assert(offsetof(struct resource, attributes) == 4, "Resource.attributes: offset");
_Static_assert(offsetof(struct resource, start) == 8, "Resource.start: offset");
_Static_assert(offsetof(struct resource, size) == 16, "Resource.size: offset");
_Static_assert(sizeof(struct resource) == 24, "Resource: size");
_Static_assert(_Alignof(struct resource) == 8, "Resource: alignment");

/* What the VMM says of itself, parsed out of a measured TD HOB. */
struct vmm {
    struct { uint64_t count; struct resource items[128]; } resources;
    struct { uint64_t count; struct span items[32]; } tables;
    uint32_t has_payload_info;
    uint32_t payload_kind;
    uint64_t payload_entry;
};
_Static_assert(offsetof(struct vmm, resources) == 0, "Vmm.resources: offset");
_Static_assert(offsetof(struct vmm, tables) == 3080, "Vmm.tables: offset");
_Static_assert(offsetof(struct vmm, has_payload_info) == 3600, "Vmm.has_payload_info: offset");
_Static_assert(offsetof(struct vmm, payload_kind) == 3604, "Vmm.payload_kind: offset");
_Static_assert(offsetof(struct vmm, payload_entry) == 3608, "Vmm.payload_entry: offset");
_Static_assert(sizeof(struct vmm) == 3616, "Vmm: size");
_Static_assert(_Alignof(struct vmm) == 8, "Vmm: alignment");

/* One piece of RAM or reserved space: [start, end), 4 KiB aligned, sorted, disjoint. `e820`: Linux's type number. */
struct ram_range {
    uint64_t start;
    uint64_t end;
    uint32_t state;
    uint32_t e820;
};
_Static_assert(offsetof(struct ram_range, start) == 0, "RamRange.start: offset");
_Static_assert(offsetof(struct ram_range, end) == 8, "RamRange.end: offset");
_Static_assert(offsetof(struct ram_range, state) == 16, "RamRange.state: offset");
_Static_assert(offsetof(struct ram_range, e820) == 20, "RamRange.e820: offset");
_Static_assert(sizeof(struct ram_range) == 24, "RamRange: size");
_Static_assert(_Alignof(struct ram_range) == 8, "RamRange: alignment");

struct ram {
    struct { uint64_t count; struct ram_range items[256]; } ranges;
    struct { uint64_t count; struct span items[8]; } carved;
};
_Static_assert(offsetof(struct ram, ranges) == 0, "Ram.ranges: offset");
_Static_assert(offsetof(struct ram, carved) == 6152, "Ram.carved: offset");
_Static_assert(sizeof(struct ram) == 6288, "Ram: size");
_Static_assert(_Alignof(struct ram) == 8, "Ram: alignment");

/* Where an acceptance stands; owned by `accept`. */
struct acceptance {
    uint64_t range;
    uint64_t next;
    uint64_t limit;
    uint32_t level;
    uint32_t fallback;
    uint64_t pages_4k;
    uint64_t pages_2m;
};
_Static_assert(offsetof(struct acceptance, range) == 0, "Acceptance.range: offset");
_Static_assert(offsetof(struct acceptance, next) == 8, "Acceptance.next: offset");
_Static_assert(offsetof(struct acceptance, limit) == 16, "Acceptance.limit: offset");
_Static_assert(offsetof(struct acceptance, level) == 24, "Acceptance.level: offset");
_Static_assert(offsetof(struct acceptance, fallback) == 28, "Acceptance.fallback: offset");
_Static_assert(offsetof(struct acceptance, pages_4k) == 32, "Acceptance.pages_4k: offset");
_Static_assert(offsetof(struct acceptance, pages_2m) == 40, "Acceptance.pages_2m: offset");
_Static_assert(sizeof(struct acceptance) == 48, "Acceptance: size");
_Static_assert(_Alignof(struct acceptance) == 8, "Acceptance: alignment");

/* `count` pages of `level` from `start`, to be accepted one after the other. */
struct accept_run {
    uint64_t start;
    uint64_t count;
    uint64_t level;
};
_Static_assert(offsetof(struct accept_run, start) == 0, "AcceptRun.start: offset");
_Static_assert(offsetof(struct accept_run, count) == 8, "AcceptRun.count: offset");
_Static_assert(offsetof(struct accept_run, level) == 16, "AcceptRun.level: offset");
_Static_assert(sizeof(struct accept_run) == 24, "AcceptRun: size");
_Static_assert(_Alignof(struct accept_run) == 8, "AcceptRun: alignment");

/* The event log: `area` filled with 0xFF, `used` bytes of events, `pending` bytes of an event not yet extended. */
struct log {
    struct span area;
    uint64_t used;
    uint64_t pending;
};
_Static_assert(offsetof(struct log, area) == 0, "Log.area: offset");
_Static_assert(offsetof(struct log, used) == 16, "Log.used: offset");
_Static_assert(offsetof(struct log, pending) == 24, "Log.pending: offset");
_Static_assert(sizeof(struct log) == 32, "Log: size");
_Static_assert(_Alignof(struct log) == 8, "Log: alignment");

/* Page-table pool: `tables` starts with the PML4; `used` pages are taken. */
struct paging {
    struct span tables;
    uint64_t used;
};
_Static_assert(offsetof(struct paging, tables) == 0, "Paging.tables: offset");
_Static_assert(offsetof(struct paging, used) == 16, "Paging.used: offset");
_Static_assert(sizeof(struct paging) == 24, "Paging: size");
_Static_assert(_Alignof(struct paging) == 8, "Paging: alignment");

/* A SHA-384 digest where TDG.MR.RTMR.EXTEND takes it. */
struct digest {
    _Alignas(64) struct { uint64_t count; uint64_t items[6]; } words;
};
_Static_assert(offsetof(struct digest, words) == 0, "Digest.words: offset");
_Static_assert(sizeof(struct digest) == 64, "Digest: size");
_Static_assert(_Alignof(struct digest) == 64, "Digest: alignment");

/* A checked Linux setup header (64-bit boot protocol). Sizes in bytes. */
struct linux {
    struct span image;
    uint64_t header_size;
    uint64_t setup_size;
    uint64_t protected_size;
    uint64_t init_size;
    uint64_t pref_address;
    uint64_t alignment;
    uint64_t initrd_max;
    uint64_t command_line_max;
    uint32_t relocatable;
    uint32_t xloadflags;
};
_Static_assert(offsetof(struct linux, image) == 0, "Linux.image: offset");
_Static_assert(offsetof(struct linux, header_size) == 16, "Linux.header_size: offset");
_Static_assert(offsetof(struct linux, setup_size) == 24, "Linux.setup_size: offset");
_Static_assert(offsetof(struct linux, protected_size) == 32, "Linux.protected_size: offset");
_Static_assert(offsetof(struct linux, init_size) == 40, "Linux.init_size: offset");
_Static_assert(offsetof(struct linux, pref_address) == 48, "Linux.pref_address: offset");
_Static_assert(offsetof(struct linux, alignment) == 56, "Linux.alignment: offset");
_Static_assert(offsetof(struct linux, initrd_max) == 64, "Linux.initrd_max: offset");
_Static_assert(offsetof(struct linux, command_line_max) == 72, "Linux.command_line_max: offset");
_Static_assert(offsetof(struct linux, relocatable) == 80, "Linux.relocatable: offset");
_Static_assert(offsetof(struct linux, xloadflags) == 84, "Linux.xloadflags: offset");
_Static_assert(sizeof(struct linux) == 88, "Linux: size");
_Static_assert(_Alignof(struct linux) == 8, "Linux: alignment");

struct copy {
    uint64_t to;
    uint64_t from;
    uint64_t size;
};
_Static_assert(offsetof(struct copy, to) == 0, "Copy.to: offset");
_Static_assert(offsetof(struct copy, from) == 8, "Copy.from: offset");
_Static_assert(offsetof(struct copy, size) == 16, "Copy.size: offset");
_Static_assert(sizeof(struct copy) == 24, "Copy: size");
_Static_assert(_Alignof(struct copy) == 8, "Copy: alignment");

/* Where kernel and initrd go. `window`: what the kernel wants writable and executable. */
struct placement {
    struct linux kernel;
    uint64_t load;
    uint64_t entry;
    uint64_t window_start;
    uint64_t window_end;
    uint64_t initrd_start;
    uint64_t initrd_size;
    struct { uint64_t count; struct copy items[2]; } copies;
};
_Static_assert(offsetof(struct placement, kernel) == 0, "Placement.kernel: offset");
_Static_assert(offsetof(struct placement, load) == 88, "Placement.load: offset");
_Static_assert(offsetof(struct placement, entry) == 96, "Placement.entry: offset");
_Static_assert(offsetof(struct placement, window_start) == 104, "Placement.window_start: offset");
_Static_assert(offsetof(struct placement, window_end) == 112, "Placement.window_end: offset");
_Static_assert(offsetof(struct placement, initrd_start) == 120, "Placement.initrd_start: offset");
_Static_assert(offsetof(struct placement, initrd_size) == 128, "Placement.initrd_size: offset");
_Static_assert(offsetof(struct placement, copies) == 136, "Placement.copies: offset");
_Static_assert(sizeof(struct placement) == 192, "Placement: size");
_Static_assert(_Alignof(struct placement) == 8, "Placement: alignment");

/* Fills `area` with 0xFF and writes the Spec ID event.
 * Fails: log_full. */
status_t start_log(const struct span *area, struct log *log);

/* Fails: log_full. */
status_t log_platform_config(struct log *log, uint32_t rtmr, const struct span *name, const struct span *data, struct digest *out);

/* Fails: log_full. */
status_t log_blob(struct log *log, uint32_t rtmr, const struct span *name, const struct span *data, struct digest *out);

/* Fails: log_full. */
status_t log_separator(struct log *log, uint32_t rtmr, struct digest *out);

/* Makes the pending event part of the log, after its digest was extended. */
void log_commit(struct log *log);

/* From the PHIT to the END HOB, by EfiEndOfHobList.
 * Fails: hob_truncated, hob_malformed. */
status_t hob_extent(const struct span *region, struct span *out);

/* Fails: hob_truncated, hob_malformed, hob_unknown_type, hob_too_many. */
status_t parse_hob(const struct span *list, struct vmm *out);

/* What is RAM, what was added at launch, what is carved for the flow's `memory` regions.
 * Fails: ram_range_invalid, ram_range_overlap, ram_too_fragmented, ram_section_outside, ram_too_small. */
status_t plan_memory(const struct vmm *vmm, const struct vp_info *td, const struct layout *layout, struct ram *out);

void accept_begin(struct ram *ram, uint64_t limit, uint32_t level, struct acceptance *out);

/* The next run, given what became of the last one: `done` of its pages, then `status` (RAX of the TDCALL, 0 = all done). Run count 0: finished.
 * Fails: accept_failed. */
status_t accept_next(const struct ram *ram, struct acceptance *at, uint64_t done, uint64_t status, struct accept_run *out);

/* Maps [start, start + size) to `physical` (the same, or with the shared bit). access: 0 none, 1 r, 2 rw, 3 rx, 7 rwx (only in handoff). 4 KiB aligned; 2 MiB pages where they fit.
 * Fails: paging_exhausted, paging_range. */
status_t page_map(struct paging *paging, uint64_t start, uint64_t physical, uint64_t size, uint32_t access);

/* The bytes before the first NUL.
 * Fails: text_unterminated. */
status_t text_extent(const struct span *region, struct span *out);

/* The kernel over its true length: (setup_sects + 1) * 512 + syssize * 16.
 * Fails: kernel_not_bzimage, kernel_truncated. */
status_t linux_extent(const struct span *section, struct span *out);

/* The initrd of a payload bundle, empty if there is none.
 * Fails: initrd_malformed. */
status_t initrd_extent(const struct span *section, const struct span *kernel, struct span *out);

/* Fails: kernel_not_bzimage, kernel_truncated, kernel_too_old, kernel_malformed. */
status_t parse_linux(const struct span *image, struct linux *out);

/* Runs the kernel where it lies if its window is free, else moves it; moves the initrd out of its window.
 * Fails: kernel_not_relocatable, window_no_room, initrd_no_room. */
status_t place_linux(const struct linux *kernel, const struct span *initrd, const struct ram *ram, struct placement *out);

/* RSDP, XSDT, FADT (hardware reduced), DSDT (empty), MADT (CPUs of the TD, wakeup mailbox), CCEL. Returns the RSDP's GPA. CPU entries come from the VMM's MADT if it gave one with as many CPUs as the TD has.
 * Fails: acpi_malformed, acpi_no_room, cpus_mismatch. */
status_t acpi_tables(const struct span *area, const struct vmm *vmm, const struct vp_info *td, const struct span *mailbox, const struct log *log, uint64_t *out);

/* The same, and the VMM's own tables (FADT, DSDT, SSDTs with their AML: code that the kernel runs) in place of ours.
 * Fails: acpi_malformed, acpi_no_room, cpus_mismatch. */
status_t acpi_tables_of_vmm(const struct span *area, const struct vmm *vmm, const struct vp_info *td, const struct span *mailbox, const struct log *log, uint64_t *out);

/* boot_params: setup header, E820, command line, initrd, RSDP.
 * Fails: command_line_too_long, e820_too_many, kernel_malformed. */
status_t zero_page(const struct span *page, const struct placement *placement, const struct ram *ram, const struct span *command_line, uint64_t rsdp);

/* Copies once out of shared memory into private memory.
 * Fails: out_of_bounds. */
status_t copy_in(struct span *to, const struct span *from, struct span *out);

#endif
