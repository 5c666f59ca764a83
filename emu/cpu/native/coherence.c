/* What must an engine forget when code is written: by another vCPU, by the host, or by its own vCPU?
 *
 * Across vCPUs a page of private memory is either executed or written: the first store of one takes the page's code from
 * all others, the first fetch of one takes their TLB entries for writing.
 *
 * Within one vCPU the engine watches stores only through TLB entries that may also fetch; through others it looks at the
 * first store alone, whatever else of the page is translated, and is then five times as fast. So a page gets watched
 * entries once the vCPU has fetched from it; through an alias that may not be executed it is as with another vCPU. */
#include "core.h"

#define ALIAS 0xFFFFF6FFFFFFF000ULL /* any page address will do: nothing of it stays in the TLB */

static uint64_t bit_of(const td_vcpu *v) { return 1ULL << (v->index < 63 ? v->index : 63); }

static void drop_code(td_vcpu *v, uint64_t page) {
    uc_ctl_flush_tlb(v->uc);
    v->alias = page << 12;
    uc_ctl_remove_cache(v->uc, ALIAS, ALIAS + 4096);
    v->alias = (uint64_t)NO_ADDRESS;
    uc_ctl_flush_tlb(v->uc);
    for (int i = 0; i < BLOCK_SLOTS; i++) {
        block *b = &v->blocks[i];
        if (!b->size)
            continue;
        if (b->page >> 12 == page || (b->address & 4095) + b->size > 4096)
            td_forget(v, b);
    }
}

static void take_code(td_vm *vm, const td_vcpu *writer, uint64_t page) {
    uint64_t who = vm->executors[page];
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        if (vm->vcpus[i] != writer && who & bit_of(vm->vcpus[i]))
            drop_code(vm->vcpus[i], page);
    vm->executors[page] = writer ? who & bit_of(writer) : 0;
}

/* Someone else than this vCPU, by the page's bits. */
static int foreign(const td_vcpu *v, uint64_t who) { return (who & ~bit_of(v)) || (v->index >= 63 && who); }

static void claim_code(td_vcpu *v, uint64_t page) {
    td_vm *vm = v->vm;
    uint64_t who = vm->writers[page], own = bit_of(v);
    int first = !(vm->executors[page] & own);
    vm->executors[page] |= own;
    if (!foreign(v, who) && !(first && who & own))
        return;
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        if (who & bit_of(vm->vcpus[i]) && (first || vm->vcpus[i] != v))
            uc_ctl_flush_tlb(vm->vcpus[i]->uc);
    vm->writers[page] &= first ? 0 : own;
}

uint32_t td_claim(td_vcpu *v, uint64_t gpa, uint32_t access, uint32_t perms) {
    td_vm *vm = v->vm;
    uint64_t page = gpa >> 12;
    uint32_t fetchable = perms & UC_PROT_EXEC;
    if (access == TD_FETCH) {
        claim_code(v, page);
        return perms & ~(uint32_t)UC_PROT_WRITE;
    }
    perms &= ~(uint32_t)UC_PROT_EXEC; /* the first fetch has to come by here */
    if (!(perms & UC_PROT_WRITE))
        return perms;
    if (access == TD_READ && vm->executors[page])
        return perms & ~(uint32_t)UC_PROT_WRITE;
    /* An alias that may not be executed cannot be watched: its store takes the code from this vCPU, too. */
    if (foreign(v, vm->executors[page]) || (vm->executors[page] && !fetchable))
        take_code(vm, fetchable ? v : NULL, page);
    vm->writers[page] |= bit_of(v);
    return vm->executors[page] & bit_of(v) ? perms | UC_PROT_EXEC : perms;
}

void td_host_wrote(td_vm *vm, uint64_t gpa, uint64_t size) {
    if (!size || gpa >= vm->m.span)
        return;
    uint64_t last = (gpa + size - 1) >> 12;
    for (uint64_t page = gpa >> 12; page <= last && page < vm->m.span >> 12; page++)
        if (vm->executors[page])
            take_code(vm, NULL, page);
}

void td_forget_code(td_vcpu *v) {
    for (int i = 0; i < BLOCK_SLOTS; i++) {
        if (v->debug)
            td_debug_evict(v, &v->blocks[i]);
        if (v->blocks[i].size)
            v->blocks[i].size = 0;
    }
    for (int i = 0; i < CODE_SLOTS; i++)
        v->code[i].gla_page = (uint64_t)NO_ADDRESS;
    uc_ctl_flush_tlb(v->uc);
    uc_ctl_flush_tb(v->uc);
}
