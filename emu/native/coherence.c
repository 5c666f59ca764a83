/* What must one vCPU's engine forget when another vCPU, or the host, writes code?
 * Each engine notices only its own stores into pages it has translated. So a page of private memory is either executed
 * or written by different vCPUs, never both: the first store of one takes the page's code from all others, the first
 * fetch of one takes their TLB entries for writing. */
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
        if (b->address == (uint64_t)NO_ADDRESS) continue;
        if (b->page >> 12 == page || (b->address & 4095) + b->size > 4096) td_forget(v, b);
    }
}

static void take_code(td_vm *vm, const td_vcpu *writer, uint64_t page) {
    uint64_t who = vm->executors[page];
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        if (vm->vcpus[i] != writer && who & bit_of(vm->vcpus[i])) drop_code(vm->vcpus[i], page);
    vm->executors[page] = writer ? who & bit_of(writer) : 0;
}

int td_foreign_code(const td_vcpu *v, uint64_t gpa) {
    uint64_t who = v->vm->executors[gpa >> 12];
    return (who & ~bit_of(v)) || (v->index >= 63 && who);
}

void td_claim_write(td_vcpu *v, uint64_t gpa) {
    uint64_t page = gpa >> 12;
    if (td_foreign_code(v, gpa)) take_code(v->vm, v, page);
    v->vm->writers[page] |= bit_of(v);
}

void td_claim_code(td_vcpu *v, uint64_t gpa) {
    td_vm *vm = v->vm;
    uint64_t page = gpa >> 12, who = vm->writers[page], own = bit_of(v);
    vm->executors[page] |= own;
    if (!(who & ~own) && (v->index < 63 || !who)) return;
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        if (vm->vcpus[i] != v && who & bit_of(vm->vcpus[i])) uc_ctl_flush_tlb(vm->vcpus[i]->uc);
    vm->writers[page] &= own;
}

void td_host_wrote(td_vm *vm, uint64_t gpa, uint64_t size) {
    if (!size || gpa >= vm->m.span) return;
    uint64_t last = (gpa + size - 1) >> 12;
    for (uint64_t page = gpa >> 12; page <= last && page < vm->m.span >> 12; page++)
        if (vm->executors[page]) take_code(vm, NULL, page);
}
