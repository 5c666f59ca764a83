/* How do kernel, initrd and command line come out of QEMU's fw_cfg device? By one request after the other, each a DMA
 * into a window that the VMM can write: an answer is copied once into private memory, and only the copy is looked at.
 *
 * First the sizes of all parts, then room for them in one piece, then their bytes. Nothing is believed: sizes are
 * bounded by RAM, load addresses are never asked for. No register records the sizes, for a kernel and a command line
 * may have anything behind them, so nothing else depends on them: the room is half of what is free, and no file moves
 * another one. The selector is never part of a DMA request: Alioth takes the bit for the key.
 * Source: QEMU docs/specs/fw_cfg.rst, hw/nvram/fw_cfg.c, hw/i386/x86-common.c x86_load_linux. */
#include "fw_cfg.h"
#include "plan.h"

#define DATA_OFFSET FW_CFG_DATA_OFFSET
#define COMMAND_LINE_ROOM 0x10000u /* Linux takes 2 KiB */
#define KERNEL_FILE "etc/boot/kernel"

enum step { STEP_SIGNATURE, STEP_DIRECTORY, STEP_SIZE, STEP_ROOM, STEP_DATA };

/* The kernel file is one part or, on hosts without it, two: its setup part, which the host changes, and the rest. */
enum part { PART_SETUP, PART_KERNEL, PART_INITRD, PART_COMMAND_LINE, PARTS };

static const struct {
    uint16_t size, data;
} keys[PARTS] = {
    [PART_SETUP] = {FW_CFG_SETUP_SIZE, FW_CFG_SETUP_DATA},
    [PART_KERNEL] = {FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA},
    [PART_INITRD] = {FW_CFG_INITRD_SIZE, FW_CFG_INITRD_DATA},
    [PART_COMMAND_LINE] = {FW_CFG_CMDLINE_SIZE, FW_CFG_CMDLINE_DATA},
};

uint64_t fw_cfg_ask(struct span *window, uint32_t key, uint64_t size, struct fetch_request *out) {
    const uint64_t room = window->size - DATA_OFFSET;
    struct fw_cfg_dma_access dma;
    const uint64_t chunk = size < room ? size : room;
    memset(window->data + DATA_OFFSET, 0, chunk); /* a device may give less than it was asked for */
    dma.control = __builtin_bswap32(FW_CFG_DMA_READ);
    dma.length = __builtin_bswap32((uint32_t)chunk);
    dma.address = __builtin_bswap64(tdf_gpa(window->data) + DATA_OFFSET);
    memcpy(window->data, &dma, sizeof dma);
    out->action = key == NO_KEY ? TDF_FETCH_ACTION_READ : TDF_FETCH_ACTION_SELECT;
    out->key = key;
    out->start = __builtin_bswap32((uint32_t)tdf_gpa(window->data));
    out->size = chunk;
    return chunk;
}

static status_t ask(struct fetch *fetch, struct span *window, uint32_t key, uint64_t size, struct fetch_request *out) {
    fetch->chunk = fw_cfg_ask(window, key, size, out);
    return TDF_OK;
}

/* The rest of the kernel begins where the setup part says that it ends, wherever it does: Alioth's is the first 4 KiB of
 * the file. What lies between is zero; nobody reads it, for the setup header is in front of it. */
static status_t find_rest(struct fetch *fetch, struct linux_files *files) {
    struct span *kernel = &files->kernel;
    const struct span setup = {kernel->data, fetch->sizes.items[PART_SETUP]};
    const uint64_t room = tdf_gpa(files->initrd.data) - tdf_gpa(kernel->data);
    uint8_t sectors;
    if (!tdf_read(&setup, LINUX_SETUP_HEADER_OFFSET, &sectors, sizeof sectors))
        return TDF_E_FW_CFG_NO_KERNEL;
    fetch->rest = ((sectors ? sectors : LINUX_DEFAULT_SETUP_SECTS) + 1u) * LINUX_SECTOR_SIZE;
    if (!tdf_inside(room, fetch->rest, fetch->sizes.items[PART_KERNEL]))
        return TDF_E_FW_CFG_NO_ROOM;
    kernel->size = fetch->rest + fetch->sizes.items[PART_KERNEL];
    if (kernel->size < setup.size)
        kernel->size = setup.size;
    if (fetch->rest > setup.size)
        memset(kernel->data + setup.size, 0, fetch->rest - setup.size);
    return TDF_OK;
}

/* On to the next part that has bytes, or to the end. */
static status_t next_part(struct fetch *fetch, struct span *window, struct linux_files *files,
                          struct fetch_request *out) {
    status_t status;
    while (fetch->part < PARTS && fetch->sizes.items[fetch->part] == 0)
        PROVE_LOOP((fetch->part), fetch->part <= PARTS, PARTS - fetch->part)
        fetch->part++;
    if (fetch->part == PARTS) {
        out->action = TDF_FETCH_ACTION_DONE;
        return TDF_OK;
    }
    if (fetch->part == PART_KERNEL && (status = find_rest(fetch, files)) != TDF_OK)
        return status;
    fetch->left = fetch->sizes.items[fetch->part];
    return ask(fetch, window, fetch->part == PART_SETUP ? fetch->kernel_key : keys[fetch->part].data, fetch->left, out);
}

static status_t next_size(struct fetch *fetch, struct span *window, struct fetch_request *out) {
    return ask(fetch, window, keys[fetch->part].size, sizeof(uint32_t), out);
}

/* In one piece: the command line at its start, then a third for the kernel, then the initrd. Each begins where it does
 * whatever the sizes are: a part of a file that is measured alone lies where nothing but the plan says. */
static status_t make_room(struct fetch *fetch, struct ram *ram, struct linux_files *files, struct fetch_request *out) {
    const uint64_t *sizes = fetch->sizes.items;
    struct span room;
    files->kernel.size = sizes[PART_SETUP] + sizes[PART_KERNEL];
    files->initrd.size = sizes[PART_INITRD];
    files->command_line.size = sizes[PART_COMMAND_LINE];
    if (plan_take_half(ram, &room) != TDF_OK || room.size < COMMAND_LINE_ROOM)
        return TDF_E_FW_CFG_NO_ROOM;
    const uint64_t initrd = COMMAND_LINE_ROOM + tdf_align_down((room.size - COMMAND_LINE_ROOM) / 3, TDF_PAGE);
    if (files->command_line.size > COMMAND_LINE_ROOM || files->kernel.size > initrd - COMMAND_LINE_ROOM ||
        files->initrd.size > room.size - initrd)
        return TDF_E_FW_CFG_NO_ROOM;
    TDF_BARRIER();
    files->command_line.data = room.data;
    files->kernel.data = room.data + COMMAND_LINE_ROOM;
    files->initrd.data = room.data + initrd;
    fetch->part = PART_SETUP;
    fetch->step = STEP_DATA;
    out->action = TDF_FETCH_ACTION_MAP;
    out->start = tdf_gpa(room.data);
    out->size = room.size;
    return TDF_OK;
}

/* Copies the answer to its place. */
static status_t take(struct fetch *fetch, struct span *window, struct linux_files *files, struct fetch_request *out) {
    struct span *const places[PARTS] = {&files->kernel, &files->kernel, &files->initrd, &files->command_line};
    const struct span *place = places[fetch->part];
    const uint64_t at = fetch->sizes.items[fetch->part] - fetch->left +
                        (fetch->part == PART_KERNEL ? fetch->rest : 0);
    if (fetch->chunk > fetch->left || !tdf_inside(place->size, at, fetch->chunk))
        return TDF_E_FW_CFG_FAILED; /* `ask` rules it out */
    memcpy(place->data + at, window->data + DATA_OFFSET, fetch->chunk);
    fetch->left -= fetch->chunk;
    if (fetch->left != 0)
        return ask(fetch, window, NO_KEY, fetch->left, out);
    fetch->part++;
    return next_part(fetch, window, files, out);
}

status_t fetch_next(struct fetch *fetch, struct span *window, struct ram *ram, struct linux_files *files,
                    struct fetch_request *out) {
    struct fw_cfg_item item;
    status_t status;
    if (window->size < 2 * DATA_OFFSET || fetch->part > PARTS)
        return TDF_E_OUT_OF_BOUNDS;
    if (fetch->chunk == 0 && fetch->step == STEP_SIGNATURE)
        return ask(fetch, window, FW_CFG_SIGNATURE, sizeof(uint32_t), out);
    if (fetch->chunk != 0 && fw_cfg_failed(window))
        return fetch->step == STEP_SIGNATURE ? TDF_E_FW_CFG_MISSING : TDF_E_FW_CFG_FAILED;
    switch (fetch->step) {
    case STEP_SIGNATURE:
        if (memcmp(window->data + DATA_OFFSET, FW_CFG_TEXT, sizeof(uint32_t)) != 0)
            return TDF_E_FW_CFG_MISSING;
        fetch->step = STEP_DIRECTORY;
        return ask(fetch, window, FW_CFG_FILE_DIR, FW_CFG_DIRECTORY_SIZE, out);
    case STEP_DIRECTORY: {
        const struct span directory = {window->data + DATA_OFFSET, fetch->chunk};
        status = fw_cfg_find(&directory, KERNEL_FILE, sizeof KERNEL_FILE, &item);
        if (status != TDF_OK)
            return status;
        fetch->kernel_key = item.found ? item.key : FW_CFG_SETUP_DATA;
        fetch->sizes.items[PART_SETUP] = item.size;
        fetch->sizes.items[PART_KERNEL] = 0;
        fetch->part = item.found ? PART_INITRD : PART_SETUP;
        fetch->step = STEP_SIZE;
        return next_size(fetch, window, out);
    }
    case STEP_SIZE:
        fetch->sizes.items[fetch->part++] = *(const volatile uint32_t *)(window->data + DATA_OFFSET);
        if (fetch->part < PARTS)
            return next_size(fetch, window, out);
        fetch->chunk = 0;
        return make_room(fetch, ram, files, out);
    case STEP_DATA:
        return fetch->chunk == 0 ? next_part(fetch, window, files, out) : take(fetch, window, files, out);
    default:
        return TDF_E_FW_CFG_FAILED;
    }
}

/* What QEMU writes into a setup part that it hands out: none of it is the file's, and nobody reads it, for boot_params
 * have our own. hw/i386/x86-common.c x86_load_linux. */
static void normalise(struct setup_header *header) {
    header->vid_mode = 0;
    header->type_of_loader = 0;
    header->loadflags &= (uint8_t)~LINUX_LOADFLAG_CAN_USE_HEAP;
    header->ramdisk_image = 0;
    header->ramdisk_size = 0;
    header->heap_end_ptr = 0;
    header->cmd_line_ptr = 0;
    header->setup_data = 0;
}

status_t fetch_end(const struct fetch *fetch, struct linux_files *files) {
    struct span *kernel = &files->kernel;
    struct span extent;
    if (linux_extent(kernel, &extent) != TDF_OK)
        return TDF_E_FW_CFG_NO_KERNEL;
    if (fetch->sizes.items[PART_KERNEL] != 0)
        normalise((struct setup_header *)(kernel->data + LINUX_SETUP_HEADER_OFFSET));
    memset(kernel->data + extent.size, 0, kernel->size - extent.size);
    kernel->size = extent.size;
    return TDF_OK;
}
