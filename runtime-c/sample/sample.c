/* Is a payload entered as its firmware says? Each line on COM1 begins with "tdforge sample: ". A line that checks something
 * ends in "ok" or "WRONG"; the last line says "all good", or "FAILED" and how many were wrong.
 *
 * Source of entry and HOB list: td-shim specification, "Payload", "Payload HOB"; PI 1.7 volume 3, chapter 5. */
#include "sample.h"

#define LARGEST_STACK 0x1000000u
#define BSS_SIZE 0x400000u
#define FLAG_INTERRUPTS 0x200u /* RFLAGS: Intel SDM volume 1, 3.4.3 */
#define FLAG_DOWNWARDS 0x400u

/* The registers of the first instruction; the arguments pass, whatever convention they have. */
volatile uint64_t sample_rsp, sample_flags;
__asm__(".text\n"
        ".globl sample_entry\n"
        "sample_entry:\n"
        "    mov %rsp, sample_rsp(%rip)\n"
        "    pushfq\n"
        "    popq sample_flags(%rip)\n"
        "    cli\n"
        "    cld\n"
        "    jmp sample_main\n");
__attribute__((used)) _Noreturn void sample_main(uint8_t *hobs, uint64_t load);

/* What a loader has to put right. Pointers: more than a word of DT_RELR has bits. */
#define FOUR(to, n) &to[n], &to[n + 1], &to[n + 2], &to[n + 3]
#define SIXTEEN(to, n) FOUR(to, n), FOUR(to, n + 4), FOUR(to, n + 8), FOUR(to, n + 12)
#define EIGHTY(to) SIXTEEN(to, 0), SIXTEEN(to, 16), SIXTEEN(to, 32), SIXTEEN(to, 48), SIXTEEN(to, 64)
#define POINTERS 80u
static const uint8_t constants[POINTERS] = {3, 1, 4, 1, 5, 9, 2, 6};
static uint8_t variables[POINTERS] = {2, 7, 1, 8, 2, 8, 1, 8};
#define FIRST_CONSTANTS UINT64_C(0x0602090501040103)
#define FIRST_VARIABLES UINT64_C(0x0801080208010702)
static const uint8_t *const to_constants[POINTERS] = {EIGHTY(constants)}; /* relocated, then read-only */
static uint8_t *to_variables[POINTERS] = {EIGHTY(variables)};
static uint8_t jump_back[] = JUMP_BACK;
static uint8_t zeros[BSS_SIZE];

static uint64_t wrong;

/* What the HOB list says. */
struct list {
    uint64_t start, end;
    uint64_t cpus, volumes, maps; /* how many HOBs */
    uint64_t lowest, highest;     /* addresses of the memory map */
    uint64_t list_type, image_type;
};

/* A pointer of which the compiler forgets what lies there. */
static const volatile uint64_t *words(const void *at) {
    __asm__("" : "+r"(at));
    return at;
}

static void check(int right) {
    say(right ? ": ok\n" : ": WRONG\n");
    wrong += !right;
}

static int read_table(const struct span *body) {
    struct acpi_header header;
    char name[sizeof header.signature + 1] = {0};
    uint8_t sum = 0;
    if (!tdf_read(body, 0, &header, sizeof header) || header.length < sizeof header ||
        tdf_align_up(header.length, HOB_ALIGNMENT) != body->size)
        return 0;
    for (uint64_t i = 0; i < sizeof header.signature; i++)
        name[i] = header.signature[i] < ' ' || header.signature[i] > '~' ? '?' : (char)header.signature[i];
    for (uint64_t i = 0; i < header.length; i++)
        sum += body->data[i];
    say("tdforge sample: acpi %s %u\n", name, (uint64_t)header.length);
    return sum == 0;
}

static int read_map(const struct span *body, struct list *list) {
    struct e820_entry entry;
    uint64_t end = 0, at = 0;
    for (; tdf_read(body, at, &entry, sizeof entry); at += sizeof entry) {
        say("tdforge sample: e820 %x %x %u\n", entry.addr, entry.addr + entry.size, (uint64_t)entry.type);
        if (entry.addr < end || entry.size == 0 || entry.size > UINT64_MAX - entry.addr || entry.type == 0 ||
            !tdf_aligned(entry.addr | entry.size, TDF_PAGE))
            return 0;
        if (at == 0)
            list->lowest = entry.addr;
        list->highest = end = entry.addr + entry.size;
        if (entry.addr <= list->start && list->end <= end)
            list->list_type = entry.type;
        if (entry.addr <= sample_image() && sample_image() < end)
            list->image_type = entry.type;
    }
    return at != 0 && at <= E820_MAX_ENTRIES * sizeof entry && tdf_align_up(at, HOB_ALIGNMENT) == body->size;
}

static int read_hob(const struct span *hob, uint32_t type, struct list *list) {
    static const uint8_t acpi_table[] = GUID_HOB_ACPI_TABLE;
    static const uint8_t e820_table[] = GUID_HOB_E820_TABLE;
    struct hob_cpu cpu;
    struct hob_firmware_volume volume;
    struct hob_guid_ext head;
    switch (type) {
    case HOB_TYPE_CPU:
        if (hob->size != sizeof cpu)
            return 0;
        tdf_read(hob, 0, &cpu, sizeof cpu);
        list->cpus++;
        say("tdforge sample: cpu %u %u\n", (uint64_t)cpu.memory_bits, (uint64_t)cpu.io_bits);
        return 1;
    case HOB_TYPE_FIRMWARE_VOLUME:
        if (hob->size != sizeof volume)
            return 0;
        tdf_read(hob, 0, &volume, sizeof volume);
        list->volumes++;
        say("tdforge sample: volume %x %x\n", volume.start, volume.start + volume.length);
        return 1;
    case HOB_TYPE_GUID_EXT:
        if (!tdf_read(hob, 0, &head, sizeof head))
            return 0;
        const struct span body = {hob->data + sizeof head, hob->size - sizeof head};
        if (memcmp(head.guid, acpi_table, sizeof head.guid) == 0)
            return read_table(&body);
        list->maps++;
        return memcmp(head.guid, e820_table, sizeof head.guid) == 0 && read_map(&body, list);
    default:
        return 0;
    }
}

/* Are these a list of HOBs that is whole, and nothing else? */
static int read_list(uint8_t *hobs, struct list *list) {
    struct hob_phit phit;
    struct hob_header head;
    memcpy(&phit, hobs, sizeof phit);
    list->start = tdf_gpa(hobs);
    list->end = phit.end_of_hob_list;
    const struct span all = {hobs, list->end - list->start};
    if (phit.header.type != HOB_TYPE_PHIT || phit.header.length != sizeof phit || phit.header.reserved != 0 ||
        phit.version != HOB_PHIT_VERSION || phit.boot_mode != 0)
        return 0;
    for (uint64_t at = sizeof phit; tdf_read(&all, at, &head, sizeof head); at += head.length) {
        if (head.reserved != 0 || head.length < sizeof head || !tdf_inside(all.size, at, head.length))
            return 0;
        const struct span hob = {hobs + at, head.length};
        if (head.type == HOB_TYPE_END)
            return at + sizeof head == all.size && list->cpus == 1 && list->volumes == 1 && list->maps == 1 &&
                   phit.memory_bottom == list->lowest && phit.free_memory_bottom == list->lowest &&
                   phit.memory_top == list->highest && phit.free_memory_top == list->highest;
        if (!read_hob(&hob, head.type, list))
            return 0;
    }
    return 0;
}

static void check_list(uint8_t *hobs) {
    struct list list = {0};
    const int right = read_list(hobs, &list);
    say("tdforge sample: hob list %x %x", list.start, list.end);
    check(right);
    say("tdforge sample: hob list in memory of type %u, image in type %u", list.list_type, list.image_type);
    check(list.list_type == E820_ACPI && (list.image_type == E820_RAM || list.image_type == E820_RESERVED));
}

static void check_entry(uint64_t load) {
    say("tdforge sample: load address %x, runs at %x", load, sample_image());
    check(load == sample_image());
    say("tdforge sample: rsp %u mod 16, flags %x", sample_rsp % 16, sample_flags & (FLAG_INTERRUPTS | FLAG_DOWNWARDS));
    check(sample_rsp % 16 == 8 && (sample_flags & (FLAG_INTERRUPTS | FLAG_DOWNWARDS)) == 0);
    int writable = 1;
    for (uint64_t i = 0; i < 8 + SHADOW; i++)
        writable &= try_write(sample_rsp + i).vector == NO_FAULT;
    say("tdforge sample: return address and %u bytes above it are writable", (uint64_t)SHADOW);
    check(writable);
}

static void check_memory(void) {
    uint64_t right = 0, set = 0;
    const volatile uint64_t *read_only = words(to_constants), *writable = words(to_variables), *bss = words(zeros);
    for (uint64_t i = 0; i < POINTERS; i++)
        right += (read_only[i] == tdf_gpa(&constants[i])) + (writable[i] == tdf_gpa(&variables[i]));
    say("tdforge sample: pointers %u of %u", right, (uint64_t)2 * POINTERS);
    check(right == 2 * POINTERS);
    say("tdforge sample: data as linked, and writable");
    const int kept = *words(constants) == FIRST_CONSTANTS && *words(variables) == FIRST_VARIABLES;
    check(kept && try_write(tdf_gpa(variables)).vector == NO_FAULT);
    for (uint64_t i = 0; i < BSS_SIZE / sizeof *bss; i++)
        set |= bss[i];
    say("tdforge sample: bss %u bytes of zeros", (uint64_t)BSS_SIZE);
    check(set == 0 && try_write(tdf_gpa(zeros) + BSS_SIZE - 1).vector == NO_FAULT);
}

/* Was it the page fault with these bits? */
static void check_fault(const char *what, struct fault found, uint64_t at, uint64_t error) {
    say("tdforge sample: %s: ", what);
    if (found.vector == NO_FAULT)
        say("no fault");
    else if (found.vector != PAGE_FAULT)
        say("exception %u", found.vector);
    else
        say("page fault %x", found.error);
    check(found.vector == PAGE_FAULT && found.error == error && found.address == at);
}

static void check_write(const char *what, uint64_t at) {
    check_fault(what, try_write(at), at, FAULT_PRESENT | FAULT_WRITE);
}

static void check_jump(const char *what, const uint8_t *to) {
    check_fault(what, try_jump(tdf_gpa(to)), tdf_gpa(to), FAULT_PRESENT | FAULT_FETCH);
}

static void check_rights(void) {
    const uint8_t on_stack[] = JUMP_BACK;
    check_write("write to text", tdf_gpa(&sample_main));
    check_write("write to rodata", tdf_gpa(constants));
    check_write("write to relocated rodata", tdf_gpa(to_constants));
    check_jump("jump to data", jump_back);
    check_jump("jump to stack", on_stack);
}

/* How large the stack is nobody says: down to the first page that is none of it. */
static void check_guard(void) {
    const uint64_t first = tdf_align_down(sample_rsp, TDF_PAGE);
    uint64_t page = first;
    struct fault found;
    do {
        page -= TDF_PAGE;
        found = try_read(page);
    } while (found.vector == NO_FAULT && page != 0 && first - page < LARGEST_STACK);
    say("tdforge sample: stack %u bytes\n", first - page);
    check_fault("read below stack", found, page, 0);
}

_Noreturn void sample_main(uint8_t *hobs, uint64_t load) {
    say("tdforge sample: started as " FORMAT "\n");
    take_exceptions();
    check_entry(load);
    check_list(hobs);
    check_memory();
    check_rights();
    check_guard();
    if (wrong == 0)
        say("tdforge sample: all good\n");
    else
        say("tdforge sample: FAILED %u\n", wrong);
    halt();
}
