/* How does an exception reach the guest's own handler? The 64-bit IDT, IST, privilege change and frame of the
 * Intel SDM volume 3, 6.14; a failure on the way becomes #DF, a failure of #DF a triple fault. */
#include "core.h"

enum { GP = 13, PF = 14, DF = 8, TS = 10, NP = 11, SS = 12 };

static int contributory(int vector) { return vector == 0 || (vector >= 10 && vector <= 13); }

/* Nested failure while delivering: what the guest gets instead. */
typedef struct {
    int vector; /* -1: the access cannot be survived, v->stop is filled */
    uint32_t error;
} nested;

/* A pending page is #VE instead of the exception that was to be delivered, as the module has it; the CPU itself raises
 * none during delivery, so that a shared page goes to the VMM. */
static int memory_failed(td_vcpu *v, int r, const walk *w, nested *n) {
    if (r == WALK_PF) {
        v->regs.cr2 = v->miss.gla;
        n->vector = PF;
        n->error = w->error;
    } else {
        v->stop.kind = r == WALK_VE && !w->shared ? TD_STOP_EPT_VE : TD_STOP_SEPT;
        v->stop.gpa = w->in_walk ? w->gpa : w->gpa | (v->miss.gla & 4095);
        v->stop.gla = v->miss.gla;
        v->stop.access = v->miss.access;
        v->stop.shared = w->shared;
        v->stop.in_walk = w->in_walk;
        v->stop.linear = w->linear;
        n->vector = -1;
    }
    return 0;
}

static int fails(nested *n, int vector, uint32_t error) {
    n->vector = vector;
    n->error = error;
    return 0;
}

static int attempt(td_vcpu *v, int vector, int has_error, uint32_t error, int source, nested *n) {
    td_regs *r = &v->regs;
    walk w;
    int software = source == BY_SOFTWARE;
    uint32_t external = software ? 0 : 1, id = (uint32_t)vector * 8 + 2;
    if (!(r->efer & (1 << 10)))
        return fails(n, DF, 0); /* gates of 32-bit code are not modelled */
    if ((uint32_t)vector * 16 + 15 > r->idt_limit)
        return fails(n, GP, id | external);
    uint64_t gate[2];
    int got = td_copy_linear(v, r->idt_base + (uint64_t)vector * 16, gate, 16, 0, 0, &w);
    if (got != WALK_OK)
        return memory_failed(v, got, &w, n);
    uint32_t type = (gate[0] >> 40) & 0x1F, gate_dpl = (gate[0] >> 45) & 3, ist = (gate[0] >> 32) & 7;
    if (type != 14 && type != 15)
        return fails(n, GP, id | external);
    if (software && gate_dpl < r->cpl)
        return fails(n, GP, id);
    if (!((gate[0] >> 47) & 1))
        return fails(n, NP, id | external);
    uint64_t target = (gate[0] & 0xFFFF) | ((gate[0] >> 32) & 0xFFFF0000) | (gate[1] << 32);
    uint32_t selector = (gate[0] >> 16) & 0xFFFF, code_id = selector & 0xFFFC;
    segment *ldt = (segment *)(v->env + ENV_LDT);
    uint64_t base = selector & 4 ? ldt->base : r->gdt_base;
    uint32_t limit = selector & 4 ? ldt->limit : r->gdt_limit;
    if (!code_id || (selector & ~7u) + 7 > limit)
        return fails(n, GP, code_id | external);
    uint64_t descriptor;
    got = td_copy_linear(v, base + (selector & ~7u), &descriptor, 8, 0, 0, &w);
    if (got != WALK_OK)
        return memory_failed(v, got, &w, n);
    uint32_t high = (uint32_t)(descriptor >> 32), dpl = (high >> 13) & 3;
    if ((high & 0x1800) != 0x1800 || dpl > r->cpl || !(high & (1 << 21)) || (high & (1 << 22)))
        return fails(n, GP, code_id | external);
    if (!(high & 0x8000))
        return fails(n, NP, code_id | external);
    uint32_t cpl = high & 0x400 ? r->cpl : dpl;
    uint64_t rsp = r->gpr[4];
    int change = cpl != r->cpl;
    if (ist || change) {
        uint64_t at = ist ? 36 + 8 * (uint64_t)(ist - 1) : 4 + 8 * (uint64_t)cpl;
        segment *tr = (segment *)(v->env + ENV_TR);
        if (at + 7 > tr->limit)
            return fails(n, TS, (tr->selector & 0xFFFC) | external);
        got = td_copy_linear(v, tr->base + at, &rsp, 8, 0, 0, &w);
        if (got != WALK_OK)
            return memory_failed(v, got, &w, n);
    }
    rsp &= ~15ULL;
    uint64_t flags = r->rflags;
    if (source == BY_CPU && vector != 1 && vector != 2 && vector != 8 && vector < 32)
        flags |= 1 << 16; /* RF of a fault */
    uint64_t frame[6] = {error, r->rip, r->cs, flags, r->gpr[4], r->ss};
    int skip = has_error ? 0 : 1;
    rsp -= 8 * (uint64_t)(6 - skip);
    got = td_copy_linear(v, rsp, frame + skip, 8 * (uint64_t)(6 - skip), 1, 0, &w);
    if (got != WALK_OK)
        return memory_failed(v, got, &w, n);
    r->gpr[4] = rsp;
    r->rip = target;
    r->rflags &= ~(uint64_t)((1 << 8) | (1 << 14) | (1 << 16) | (1 << 17) | (type == 14 ? 1 << 9 : 0));
    segment *cs = env_seg(v, SEG_CS), *ss = env_seg(v, SEG_SS);
    *cs = (segment){.selector = (selector & ~3u) | cpl, .base = 0, .limit = 0xFFFFFFFF, .flags = high | 0x100};
    if (change)
        *ss = (segment){.selector = cpl, .base = 0, .limit = 0, .flags = cpl << 13};
    uint32_t h = env32(v, ENV_HFLAGS) & ~(uint32_t)(3 | (1 << 8) | (1 << 16) | (1 << 17) | HF_ADDSEG | 8);
    put32(v, ENV_HFLAGS, h | HF_CS64 | HF_CS32 | HF_SS32 | cpl);
    r->cs = cs->selector;
    r->ss = ss->selector;
    r->cpl = cpl;
    r->mode = 64;
    return 1;
}

int td_raise(td_vcpu *v, int vector, int has_error, uint32_t error, int source) {
    td_get_regs(v);
    if (source == BY_CPU) {
        v->fault.vector = vector;
        v->fault.error_code = error;
        v->fault.rip = v->regs.rip;
        v->fault.cr2 = vector == PF ? v->regs.cr2 : 0;
        v->fault.count = v->count;
    }
    v->last_rep = (uint64_t)NO_ADDRESS;
    for (;;) {
        nested n;
        if (attempt(v, vector, has_error, error, source, &n))
            return 0;
        if (n.vector < 0)
            return 1;
        if (vector == DF) {
            v->stop.kind = TD_STOP_TRIPLE;
            return 1;
        }
        int doubles = (contributory(vector) && contributory(n.vector)) ||
                      (vector == PF && (contributory(n.vector) || n.vector == PF)) || vector == 20 || n.vector == DF;
        vector = doubles ? DF : n.vector;
        error = doubles ? 0 : n.error;
        has_error = 1;
        source = BY_CPU;
    }
}

int td_deliver(td_vcpu *v, int vector, int has_error, uint32_t error_code, td_stop *stop) {
    memset(&v->stop, 0, sizeof v->stop);
    int r = td_raise(v, vector, has_error, error_code, BY_CPU);
    *stop = v->stop;
    return r;
}

int td_interrupt(td_vcpu *v, int vector, td_stop *stop) {
    memset(&v->stop, 0, sizeof v->stop);
    int r = td_raise(v, vector, 0, 0, BY_INTERRUPT);
    *stop = v->stop;
    return r;
}

int td_syscall(td_vcpu *v, uint32_t length) {
    td_regs *r = td_get_regs(v);
    if (r->mode != 64 || !(r->efer & 1))
        return td_raise(v, 6, 0, 0, BY_CPU);
    uint32_t selector = (uint32_t)(td_get_msr(v, MSR_STAR) >> 32) & 0xFFFC;
    if (v->debug)
        td_debug_add(v, r->rip, r->rip + length, 1, 0, r->cpl == 3);
    const uint32_t flat = 0x00809300, code = 0x00209B00, big = 0x00400000;
    r->gpr[1] = r->rip + length;
    r->gpr[11] = r->rflags & ~(uint64_t)(1 << 16);
    r->rflags = (r->rflags & ~(td_get_msr(v, MSR_FMASK) | 1 << 16)) | 2;
    r->rip = td_get_msr(v, MSR_LSTAR);
    *env_seg(v, SEG_CS) = (segment){.selector = selector, .limit = 0xFFFFFFFF, .flags = 0x00800000 | code};
    *env_seg(v, SEG_SS) = (segment){.selector = selector + 8, .limit = 0xFFFFFFFF, .flags = flat | big};
    uint32_t h = env32(v, ENV_HFLAGS) & ~(uint32_t)(3 | HF_INHIBIT_IRQ | (1 << 16) | HF_ADDSEG);
    put32(v, ENV_HFLAGS, h | HF_CS64 | HF_CS32 | HF_SS32);
    r->cs = selector;
    r->ss = selector + 8;
    r->cpl = 0;
    v->last_rep = (uint64_t)NO_ADDRESS;
    v->count++;
    return 0;
}
