/* What is a TD's memory, and in which state is each page? Private memory, its shared alias, a byte for each page. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#include "core.h"

void *td_reserve(uint64_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

td_vm *td_vm_new(uint64_t span, uint32_t gpaw) {
    td_vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return NULL;
    vm->m.span = span;
    vm->m.shared_bit = 1ULL << (gpaw - 1);
    vm->limit_mask = vm->m.shared_bit - 1;
    vm->m.ram = td_reserve(span);
    vm->m.shared = td_reserve(span);
    vm->m.pages = td_reserve((span >> 12) + 512);
    vm->executors = td_reserve(span >> 9);
    vm->writers = td_reserve(span >> 9);
    vm->vcpus = calloc(MAX_VCPUS, sizeof *vm->vcpus);
    vm->m.tsc_step_num = vm->m.tsc_step_den = 1;
    vm->m.sept_ve_disable = 1;
    if (vm->m.ram && vm->m.shared && vm->m.pages && vm->executors && vm->writers && vm->vcpus)
        return vm;
    td_vm_free(vm);
    return NULL;
}

void td_vm_free(td_vm *vm) {
    if (!vm)
        return;
    if (vm->m.ram)
        munmap(vm->m.ram, vm->m.span);
    if (vm->m.shared)
        munmap(vm->m.shared, vm->m.span);
    if (vm->m.pages)
        munmap(vm->m.pages, (vm->m.span >> 12) + 512);
    if (vm->executors)
        munmap(vm->executors, vm->m.span >> 9);
    if (vm->writers)
        munmap(vm->writers, vm->m.span >> 9);
    free(vm->vcpus);
    free(vm);
}

td_layout *td_vm_layout(td_vm *vm) { return &vm->m; }

void td_set_pages(td_vm *vm, uint64_t gpa, uint64_t count, uint32_t state) {
    memset(vm->m.pages + (gpa >> 12), (int)state, count);
}

void td_discard(td_vm *vm, uint64_t gpa, uint64_t size) {
    td_host_wrote(vm, gpa, size);
    madvise(vm->m.ram + gpa, size, MADV_DONTNEED);
    vm->removals++;
}

void td_discard_shared(td_vm *vm, uint64_t gpa, uint64_t size) {
    madvise(vm->m.shared + gpa, size, MADV_DONTNEED);
    vm->removals++;
}

uint64_t td_accept(td_vm *vm, uint64_t gpa, uint32_t level) {
    if (gpa >= vm->m.span)
        return ~0ULL;
    uint8_t *leaf = vm->m.pages + (gpa >> 12), *chunk = vm->m.pages + (gpa >> 21 << 9);
    uint32_t state = *leaf & TD_PAGE_STATE;
    if (level == 1) {
        if (!(chunk[0] & TD_PAGE_2M)) {
            for (int i = 0; i < 512; i++)
                if ((chunk[i] & TD_PAGE_STATE) != TD_PAGE_UNMAPPED)
                    return TDX_PAGE_SIZE_MISMATCH | 1;
            return ~0ULL;
        }
        if (state == TD_PAGE_MAPPED)
            return TDX_PAGE_ALREADY_ACCEPTED | 1;
        if (state != TD_PAGE_PENDING)
            return ~0ULL;
        memset(chunk, TD_PAGE_MAPPED | TD_PAGE_2M, 512);
        return 0;
    }
    if (state == TD_PAGE_MAPPED)
        return TDX_PAGE_ALREADY_ACCEPTED | (*leaf & TD_PAGE_2M ? 1 : 0);
    if (state != TD_PAGE_PENDING)
        return ~0ULL;
    if (*leaf & TD_PAGE_2M) /* the VMM demotes the pending 2 MiB page, the guest executes again */
        for (int i = 0; i < 512; i++)
            chunk[i] &= (uint8_t)~TD_PAGE_2M;
    *leaf = TD_PAGE_MAPPED;
    return 0;
}
