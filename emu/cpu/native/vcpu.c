/* One vCPU: entry state of a TD, running until something needs a decision, and access to its registers. */
#include <stdio.h>
#include <sys/mman.h>

#include "core.h"

static char error_text[160];
const char *td_error(void) { return error_text; }

static void on_interrupt(uc_engine *uc, uint32_t vector, void *data) {
    td_vcpu *v = data;
    v->exception = (int)vector;
    v->stopped = 1;
    uc_emu_stop(uc);
}

static bool on_invalid(uc_engine *uc, void *data) {
    on_interrupt(uc, 6, data);
    return true;
}

/* TD_SHADOW_* of this moment: whether there is one, the engine knows, and the last block which. */
static uint32_t shadow_now(td_vcpu *v) {
    if (!(env32(v, ENV_HFLAGS) & HF_INHIBIT_IRQ))
        return 0;
    return v->shadow ? (uint32_t)v->shadow : TD_SHADOW_STI;
}

void td_load_context(td_vcpu *v) {
    uc_context_save(v->uc, v->context);
    td_regs *r = &v->regs;
    memcpy(r->gpr, v->env + ENV_REGS, sizeof r->gpr);
    r->rip = env64(v, ENV_RIP);
    r->rflags = env64(v, ENV_RFLAGS) | 2;
    r->cr0 = env64(v, ENV_CR);
    r->cr2 = env64(v, ENV_CR + 16);
    r->cr3 = env64(v, ENV_CR + 24);
    r->cr4 = env64(v, ENV_CR + 32);
    r->efer = env64(v, ENV_EFER);
    uint32_t h = env32(v, ENV_HFLAGS);
    r->shadow = shadow_now(v);
    r->cpl = h & 3;
    r->mode = h & HF_CS64 ? 64 : h & HF_CS32 ? 32 : 16;
    r->cs = env_seg(v, SEG_CS)->selector;
    r->ss = env_seg(v, SEG_SS)->selector;
    segment *gdt = (segment *)(v->env + ENV_GDT), *idt = (segment *)(v->env + ENV_IDT);
    r->gdt_base = gdt->base;
    r->gdt_limit = gdt->limit;
    r->idt_base = idt->base;
    r->idt_limit = idt->limit;
    r->tr_base = ((segment *)(v->env + ENV_TR))->base;
    v->regs_loaded = 1;
}

void td_store_context(td_vcpu *v) {
    td_regs *r = &v->regs;
    memcpy(v->env + ENV_REGS, r->gpr, sizeof r->gpr);
    put64(v, ENV_RIP, r->rip);
    put64(v, ENV_RFLAGS, r->rflags);
    put64(v, ENV_CR + 16, r->cr2);
    uc_context_restore(v->uc, v->context);
    v->regs_loaded = 0;
}

td_regs *td_get_regs(td_vcpu *v) {
    if (!v->regs_loaded)
        td_load_context(v);
    return &v->regs;
}

void td_put_regs(td_vcpu *v) {
    if (v->regs_loaded)
        td_store_context(v);
}

static td_vcpu *fail(td_vcpu *v, const char *what, uc_err e) {
    snprintf(error_text, sizeof error_text, "CPU engine: %s: %s", what, e ? uc_strerror(e) : "unexpected layout");
    td_vcpu_free(v);
    return NULL;
}

/* Finds the CPU state inside the saved context and proves that its layout is the one we know. */
static int locate_env(td_vcpu *v) {
    uint64_t rax = 0x1122334455667788ULL, r15 = 0x99AABBCCDDEEFF00ULL, rip = 0x123456789ABCULL;
    uc_reg_write(v->uc, UC_X86_REG_RAX, &rax);
    uc_reg_write(v->uc, UC_X86_REG_R15, &r15);
    uc_reg_write(v->uc, UC_X86_REG_RIP, &rip);
    uc_context_save(v->uc, v->context);
    size_t total = uc_context_size(v->uc);
    uint8_t *raw = (uint8_t *)v->context;
    for (size_t at = 0; at < 128; at += 8) {
        v->env = raw + at;
        v->env_size = total - at;
        if (env64(v, 0) == rax && env64(v, 120) == r15 && env64(v, ENV_RIP) == rip)
            return env64(v, ENV_EFER) != 0;
    }
    return 0;
}

td_vcpu *td_vcpu_new(td_vm *vm, uint32_t index) {
    td_vcpu *v = td_reserve(sizeof *v); /* its tables are touched as far as they are used */
    uc_err e;
    if (!v)
        return NULL;
    v->vm = vm;
    v->index = index;
    v->exception = -1;
    v->fault.vector = -1;
    v->random = 0x7D5EED00ULL + index;
    v->last_rep = v->pass = v->alias = (uint64_t)NO_ADDRESS;
    for (int i = 0; i < CODE_SLOTS; i++)
        v->code[i].gla_page = (uint64_t)NO_ADDRESS;
    for (int i = 0; i < MAX_SITES; i++)
        v->sites[i] = (uint64_t)NO_ADDRESS;
    if ((e = uc_open(UC_ARCH_X86, UC_MODE_64, &v->uc)))
        return fail(v, "open", e);
    uc_ctl_set_cpu_model(v->uc, UC_CPU_X86_SKYLAKE_CLIENT);
    if ((e = uc_ctl_tlb_mode(v->uc, UC_TLB_VIRTUAL)))
        return fail(v, "TLB mode", e);
    uc_ctl_exits_enable(v->uc);
    uc_ctl_set_tcg_buffer_size(v->uc, index >= 8 ? 32u << 20 : index ? 128u << 20 : 512u << 20);
    if ((e = uc_mem_map_ptr(v->uc, 0, vm->m.span, UC_PROT_ALL, vm->m.ram)))
        return fail(v, "map RAM", e);
    e = uc_mem_map_ptr(v->uc, vm->m.shared_bit, vm->m.span, UC_PROT_ALL, vm->m.shared);
    if (e)
        return fail(v, "map shared memory", e);
    uc_hook h;
    uc_hook_add(v->uc, &h, UC_HOOK_TLB_FILL, (void *)td_tlb_fill, v, 1, 0);
    uc_hook_add(v->uc, &h, UC_HOOK_BLOCK, (void *)td_on_block, v, 1, 0);
    uc_hook_add(v->uc, &h, UC_HOOK_EDGE_GENERATED, (void *)td_on_edge, v, 1, 0);
    uc_hook_add(v->uc, &h, UC_HOOK_INTR, (void *)on_interrupt, v, 1, 0);
    uc_hook_add(v->uc, &h, UC_HOOK_INSN_INVALID, (void *)on_invalid, v, 1, 0);
    if ((e = uc_context_alloc(v->uc, &v->context)))
        return fail(v, "context", e);
    if (!locate_env(v))
        return fail(v, "context", 0);
    if (vm->vcpu_count == MAX_VCPUS)
        return fail(v, "too many vCPUs", 0);
    vm->vcpus[vm->vcpu_count++] = v;
    return v;
}

void td_vcpu_free(td_vcpu *v) {
    if (!v)
        return;
    td_vm *vm = v->vm;
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        if (vm->vcpus[i] == v) {
            vm->vcpus[i] = vm->vcpus[--vm->vcpu_count];
            i--;
        }
    td_debug_free(v);
    if (v->context)
        uc_context_free(v->context);
    if (v->uc)
        uc_close(v->uc);
    munmap(v, sizeof *v);
}

void td_enter(td_vcpu *v, uint64_t rip) {
    const uint32_t mxcsr = 0x1F80; /* x87 and SSE in their INIT state (Intel SDM volume 1, 13.6) */
    const uint16_t control = 0x37F, tags = 0xFFFF;
    uc_reg_write(v->uc, UC_X86_REG_MXCSR, &mxcsr);
    uc_reg_write(v->uc, UC_X86_REG_FPCW, &control);
    uc_reg_write(v->uc, UC_X86_REG_FPTAG, &tags);
    uc_context_save(v->uc, v->context);
    memset(v->env + ENV_REGS, 0, 128);
    put64(v, ENV_RFLAGS, 2);
    for (int i = 0; i < 6; i++) {
        /* access rights 0xC09B and 0xC093, in the place the engine keeps descriptor bits */
        uint32_t flags = i == SEG_CS ? 0x00C09B00 : 0x00C09300;
        *env_seg(v, i) = (segment){.selector = 0, .base = 0, .limit = 0xFFFFFFFF, .flags = flags};
    }
    *(segment *)(v->env + ENV_LDT) = (segment){.limit = 0xFFFF, .flags = 0};
    *(segment *)(v->env + ENV_TR) = (segment){.limit = 0xFFFF, .flags = 0x8B00};
    *(segment *)(v->env + ENV_GDT) = (segment){.limit = 0xFFFF};
    *(segment *)(v->env + ENV_IDT) = (segment){.limit = 0};
    put64(v, ENV_CR, 0x31);
    put64(v, ENV_CR + 16, 0);
    put64(v, ENV_CR + 24, 0);
    put64(v, ENV_CR + 32, 0x40);
    put64(v, ENV_EFER, 0x901);
    put32(v, ENV_HFLAGS, HF_PE | HF_CS32 | HF_SS32 | HF_OSFXSR);
    uc_context_restore(v->uc, v->context);
    uc_ctl_flush_tlb(v->uc);
    td_load_context(v);
    v->regs.rip = rip;
}

/* Completes the page address of the access that missed. */
static void pinpoint(td_vcpu *v) {
    uint8_t code[16] = {0};
    walk bad;
    int kind = v->miss.kind;
    if (v->miss.access == TD_FETCH) {
        if ((v->regs.rip & ~0xFFFULL) == v->miss.gla)
            v->miss.gla = v->regs.rip;
        if (!v->miss.w.in_walk)
            v->miss.w.gpa |= v->miss.gla & 4095;
        return;
    }
    uint64_t gla = v->miss.gla;
    uint32_t access = v->miss.access;
    walk w = v->miss.w;
    uint32_t n = 4096 - (uint32_t)(v->regs.rip & 4095);
    td_copy_linear(v, v->regs.rip, code, n < 15 ? n : 15, 0, 0, &bad);
    if (n < 15)
        td_copy_linear(v, v->regs.rip + n, code + n, 15 - n, 0, 0, &bad);
    v->miss.kind = kind;
    v->miss.access = access;
    v->miss.w = w;
    v->miss.gla = td_touched(code, 15, &v->regs, env_seg(v, SEG_FS)->base, env_seg(v, SEG_GS)->base, gla);
    if (!w.in_walk)
        v->miss.w.gpa |= v->miss.gla & 4095;
    memcpy(v->stop.bytes, code, sizeof code);
}

static void forget_removed(td_vcpu *v) {
    if (v->removals_seen == v->vm->removals)
        return;
    v->removals_seen = v->vm->removals;
    uc_ctl_flush_tlb(v->uc);
    for (int i = 0; i < CODE_SLOTS; i++)
        v->code[i].gla_page = (uint64_t)NO_ADDRESS;
}

/* Runs once. 0: the guest goes on; 1: v->stop says what has to be decided. */
static int advance(td_vcpu *v) {
    td_get_regs(v);
    uint64_t rip = v->regs.rip;
    td_put_regs(v);
    memset(&v->stop, 0, sizeof v->stop);
    v->shadow = (int)shadow_now(v);
    v->paused = 0;
    v->stopped = 0;
    v->exception = -1;
    v->miss.kind = WALK_OK;
    v->rescan = 1;
    if (v->debug)
        td_debug_enter(v, rip);
    uc_err e = uc_emu_start(v->uc, rip, 0, 0, 0);
    td_load_context(v);
    td_uncount(v, v->regs.rip);
    v->regs.shadow = shadow_now(v);
    if (v->sites_full) {
        td_sites_clear(v);
        return 0;
    }
    if (v->exception >= 0) {
        int software = env32(v, v->env_size - ENV_ERROR_CODE_FROM_END + 4) != 0;
        uint32_t code = env32(v, v->env_size - ENV_ERROR_CODE_FROM_END);
        int vector = v->exception;
        int has = !software && (vector == 8 || (vector >= 10 && vector <= 14) || vector == 17);
        rip = v->regs.rip;
        return td_raise(v, vector, has, has ? code : 0, software) || td_debug_report(v, vector, has, code, rip);
    }
    if (v->stopped && v->stop.kind == TD_STOP_INSN && v->stop.insn == TD_INSN_SYSCALL)
        return td_syscall(v, v->stop.length);
    if (v->stopped)
        return 1;
    if (v->miss.kind != WALK_OK)
        pinpoint(v);
    if (v->miss.kind == WALK_PF) {
        rip = v->regs.rip;
        if (!td_canonical(v->miss.gla)) /* #GP(0); of the stack it would be #SS(0): SDM volume 3, 6.15 */
            return td_raise(v, 13, 1, 0, BY_CPU) || td_debug_report(v, 13, 1, 0, rip);
        v->regs.cr2 = v->miss.gla;
        uint32_t error = v->miss.w.error;
        return td_raise(v, 14, 1, error, BY_CPU) || td_debug_report(v, 14, 1, error, rip);
    }
    if (v->miss.kind != WALK_OK) {
        v->stop.kind = v->miss.kind == WALK_VE ? TD_STOP_EPT_VE : TD_STOP_SEPT;
        v->stop.gpa = v->miss.w.gpa;
        v->stop.gla = v->miss.gla;
        v->stop.access = v->miss.access;
        v->stop.shared = v->miss.w.shared;
        v->stop.in_walk = v->miss.w.in_walk;
        v->stop.linear = v->miss.w.linear;
        return 1;
    }
    if (e == UC_ERR_OK)
        return 0;
    v->stop.kind = TD_STOP_ENGINE;
    v->stop.stop_code = (uint32_t)e;
    return 1;
}

void td_run(td_vcpu *v, uint64_t limit, td_stop *stop) {
    v->limit = limit;
    forget_removed(v);
    while (!advance(v)) {
    }
    *stop = v->stop;
}

int td_read_linear(td_vcpu *v, uint64_t gla, uint8_t *out, uint64_t size) {
    walk bad;
    td_get_regs(v);
    return td_copy_linear(v, gla, out, size, 0, 0, &bad) == WALK_OK;
}

uint64_t td_count(td_vcpu *v) { return v->count; }
void td_retire(td_vcpu *v, uint64_t length) {
    td_get_regs(v)->rip += length;
    v->count++;
    v->regs.shadow = 0;
    put32(v, ENV_HFLAGS, env32(v, ENV_HFLAGS) & ~(uint32_t)HF_INHIBIT_IRQ);
    if (v->debug)
        td_debug_add(v, v->regs.rip - 1, v->regs.rip, 1, 0, v->regs.cpl == 3);
}
uint64_t td_count_excluded(td_vcpu *v) { return v->excluded; }
uint64_t td_tsc(td_vcpu *v) {
    td_layout *m = &v->vm->m;
    return v->tsc_offset + v->count * m->tsc_step_num / m->tsc_step_den;
}
uint64_t td_read_tsc(td_vcpu *v) {
    uint64_t now = td_tsc(v);
    if (now > v->vm->m.last_tsc)
        v->vm->m.last_tsc = now;
    return v->vm->m.last_tsc;
}
void td_want_window(td_vcpu *v, int on) { v->window = on; }
void td_spin_limit(td_vcpu *v, uint32_t pauses) { v->spin_limit = pauses; }
void td_skip_time(td_vcpu *v, uint64_t ticks) { v->tsc_offset += ticks; }
void td_arm_handoff(td_vcpu *v, int on) { v->handoff_armed = on; }
void td_count_ranges(td_vcpu *v, const td_range *ranges, uint32_t n) {
    v->range_count = n < MAX_RANGES ? n : MAX_RANGES;
    memcpy(v->ranges, ranges, v->range_count * sizeof *ranges);
}
void td_write_cr0(td_vcpu *v, uint64_t value) {
    td_put_regs(v);
    uc_reg_write(v->uc, UC_X86_REG_CR0, &value);
    uc_ctl_flush_tlb(v->uc);
}
/* The engine decodes BMI instructions only under CR4.OSFXSR, a real CPU always: its own flag stays set. */
void td_write_cr4(td_vcpu *v, uint64_t value) {
    td_get_regs(v);
    uint32_t h = env32(v, ENV_HFLAGS) & ~(uint32_t)HF_SMAP;
    put32(v, ENV_HFLAGS, h | HF_OSFXSR | (value & (1 << 21) ? HF_SMAP : 0));
    put64(v, ENV_CR + 32, value);
    td_store_context(v);
    uc_ctl_flush_tlb(v->uc);
}

void td_pass_once(td_vcpu *v) { v->pass = td_get_regs(v)->rip; }
td_fault *td_last_fault(td_vcpu *v) { return &v->fault; }

uint64_t td_get_msr(td_vcpu *v, uint32_t index) {
    uc_x86_msr m = {.rid = index};
    uc_reg_read(v->uc, UC_X86_REG_MSR, &m);
    return m.value;
}

void td_set_msr(td_vcpu *v, uint32_t index, uint64_t value) {
    uc_x86_msr m = {.rid = index, .value = value};
    td_put_regs(v);
    uc_reg_write(v->uc, UC_X86_REG_MSR, &m);
}
