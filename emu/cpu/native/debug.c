/* What does an observer need from the engine? Counts by block, breakpoints, single steps, and exceptions as
 * they happen. All of it hangs on v->debug, which is NULL while nobody looks. */
#include <stdlib.h>

#include "core.h"

static td_debug *debug_of(td_vcpu *v) {
    if (!v->debug) {
        v->debug = calloc(1, sizeof *v->debug);
        if (!v->debug)
            abort();
        v->debug->break_pass = v->debug->step_from = (uint64_t)NO_ADDRESS;
        v->debug->touched = -1;
    }
    return v->debug;
}

void td_debug_free(td_vcpu *v) {
    if (!v->debug)
        return;
    free(v->debug->runs);
    free(v->debug->table);
    free(v->debug);
}

void td_report_exceptions(td_vcpu *v, int on) {
    debug_of(v)->report = on;
    v->debug->mode = td_get_regs(v)->mode;
}

int td_debug_report(td_vcpu *v, int vector, int has_error, uint32_t error, uint64_t rip) {
    if (!v->debug || !v->debug->report)
        return 0;
    v->stop.kind = TD_STOP_EXCEPTION;
    v->stop.insn = (uint32_t)vector;
    v->stop.length = (uint32_t)has_error;
    v->stop.stop_code = error;
    v->stop.gla = v->regs.cr2;
    v->stop.gpa = rip;
    return 1;
}

/* -- counts */

static td_counted *place(td_debug *s, uint64_t begin, uint64_t end, uint32_t user) {
    uint32_t at = (uint32_t)((begin * 31 + end) * 0x9E3779B97F4A7C15ULL >> 32) & (s->slots - 1);
    while (s->table[at].end && (s->table[at].begin != begin || s->table[at].end != end || s->table[at].user != user))
        at = (at + 1) & (s->slots - 1);
    return &s->table[at];
}

static void grow(td_debug *s) {
    td_counted *old = s->table;
    uint32_t n = s->slots;
    s->slots = n ? n * 2 : 1 << 14;
    s->table = calloc(s->slots, sizeof *s->table);
    if (!s->table)
        abort();
    for (uint32_t i = 0; i < n; i++)
        if (old[i].end)
            *place(s, old[i].begin, old[i].end, old[i].user) = old[i];
    free(old);
}

void td_debug_add(td_vcpu *v, uint64_t begin, uint64_t end, int64_t instructions, uint32_t mode, uint32_t user) {
    td_debug *s = v->debug;
    if (!s || !s->runs)
        return;
    if (s->used * 2 >= s->slots)
        grow(s);
    td_counted *c = place(s, begin, end, user);
    if (!c->end) {
        c->begin = begin;
        c->end = end;
        c->mode = mode;
        c->user = user;
        s->used++;
    }
    c->instructions += instructions;
}

void td_debug_evict(td_vcpu *v, block *b) {
    td_debug *s = v->debug;
    if (!s->runs)
        return;
    uint64_t *runs = &s->runs[b - v->blocks];
    if (*runs)
        td_debug_add(v, b->address, b->address + b->size, (int64_t)(*runs * b->insns), b->mode, b->user);
    *runs = 0;
}

void td_debug_block(td_vcpu *v, block *b) {
    if (!v->debug->runs)
        return;
    v->debug->runs[b - v->blocks]++;
    if (v->rep_continues)
        td_debug_add(v, b->address, b->address + 1, -1, 0, b->user); /* its first instruction is counted */
}

void td_debug_uncount(td_vcpu *v, block *b, uint64_t rip, uint64_t before) {
    if (!v->debug->runs)
        return;
    td_debug_add(v, b->address, b->address + b->size, -(int64_t)b->insns, b->mode, b->user);
    if (before)
        td_debug_add(v, b->address, rip, (int64_t)before, b->mode, b->user);
    else if (v->rep_continues)
        td_debug_add(v, b->address, b->address + 1, 1, 0, b->user);
}

void td_profile_start(td_vcpu *v) {
    td_debug *s = debug_of(v);
    if (!s->runs)
        s->runs = calloc(BLOCK_SLOTS, sizeof *s->runs);
    if (!s->runs)
        abort();
    if (!s->slots)
        grow(s);
}

uint32_t td_profile_read(td_vcpu *v, td_counted *out, uint32_t max) {
    td_debug *s = v->debug;
    uint32_t n = 0;
    if (!s || !s->runs)
        return 0;
    for (int i = 0; i < BLOCK_SLOTS; i++)
        td_debug_evict(v, &v->blocks[i]);
    for (uint32_t i = 0; i < s->slots; i++)
        if (s->table[i].end) {
            if (n < max)
                out[n] = s->table[i];
            n++;
        }
    return n;
}

/* -- stops */

static int pause_here(td_vcpu *v, uint64_t address) {
    v->debug->step_from = v->debug->break_pass = (uint64_t)NO_ADDRESS;
    v->stop.kind = TD_STOP_BREAK;
    v->stop.gla = address;
    v->stopped = 1;
    uc_emu_stop(v->uc);
    return 1;
}

int td_debug_break(td_vcpu *v, uint64_t address) {
    td_debug *s = v->debug;
    uint64_t pass = s->break_pass;
    s->break_pass = (uint64_t)NO_ADDRESS;
    if (pass == address)
        return 0;
    for (uint32_t i = 0; i < s->break_count; i++)
        if (s->breaks[i] == address)
            return pause_here(v, address);
    return 0;
}

int td_break_set(td_vcpu *v, uint64_t address) {
    td_debug *s = debug_of(v);
    if (s->break_count == MAX_BREAKS)
        return 0;
    s->breaks[s->break_count++] = address;
    td_site_watch(v, address);
    uc_ctl_flush_tb(v->uc);
    return 1;
}

void td_break_clear(td_vcpu *v, uint64_t address) {
    td_debug *s = debug_of(v);
    for (uint32_t i = 0; i < s->break_count; i++)
        if (s->breaks[i] == address) {
            s->breaks[i] = s->breaks[--s->break_count];
            i--;
        }
}

void td_break_pass(td_vcpu *v) { debug_of(v)->break_pass = td_get_regs(v)->rip; }

static void on_step(uc_engine *uc, uint64_t address, uint32_t size, void *data) {
    td_vcpu *v = data;
    td_debug *s = v->debug;
    (void)uc;
    (void)size;
    if (v->stopped)
        return;
    if (s->touched >= 0 && address != s->at) { /* a REP goes on to its end */
        pause_here(v, address);
        return;
    }
    s->at = address;
    if (s->step_from == (uint64_t)NO_ADDRESS)
        return;
    if (address == s->step_from && !s->step_again++)
        return;
    uint8_t code[16];
    insn in;
    uint32_t available;
    uint64_t page;
    uint8_t *at = td_code_at(v, address, &available, &page);
    if (address == s->step_from && at) {
        memset(code, 0x90, sizeof code);
        memcpy(code, at, available < 15 ? available : 15);
        if (td_decode(code, 15, v->current ? v->current->mode : 64, &in) && td_is_rep_string(&in))
            return;
    }
    pause_here(v, address);
}

/* Every instruction is looked at while there is a step to be done or memory to be watched. */
static void look_at_each(td_vcpu *v) {
    td_debug *s = v->debug;
    int on = s->stepping || s->watch_count;
    if (on != s->hooked) {
        if (on)
            uc_hook_add(v->uc, &s->step_hook, UC_HOOK_CODE, (void *)on_step, v, 1, 0);
        else
            uc_hook_del(v->uc, s->step_hook);
        s->hooked = on;
    }
    uc_ctl_flush_tb(v->uc);
}

void td_step(td_vcpu *v, int on) {
    td_debug *s = debug_of(v);
    if (on) {
        s->step_from = td_get_regs(v)->rip;
        s->step_again = 0;
    }
    if (on == s->stepping)
        return;
    s->stepping = on;
    if (!on)
        s->step_from = (uint64_t)NO_ADDRESS;
    look_at_each(v);
}

static void on_access(uc_engine *uc, uc_mem_type type, uint64_t gpa, int size, int64_t value, void *data) {
    td_vcpu *v = data;
    td_debug *s = v->debug;
    uint32_t access = type == UC_MEM_WRITE ? TD_WATCH_WRITE : TD_WATCH_READ;
    (void)uc;
    (void)value;
    for (uint32_t i = 0; i < s->watch_count; i++) {
        watch *w = &s->watches[i];
        if (w->access & access && gpa < w->gpa + w->size && gpa + (uint64_t)size > w->gpa)
            s->touched = (int32_t)i;
    }
}

int td_watch_set(td_vcpu *v, uint64_t gpa, uint64_t size, uint32_t access) {
    td_debug *s = debug_of(v);
    if (s->watch_count == MAX_WATCHES)
        return 0;
    watch *w = &s->watches[s->watch_count++];
    w->gpa = gpa;
    w->size = size;
    w->access = access;
    int kinds = (access & TD_WATCH_READ ? UC_HOOK_MEM_READ : 0) | (access & TD_WATCH_WRITE ? UC_HOOK_MEM_WRITE : 0);
    uint64_t before = gpa & 4095 ? gpa - ((gpa & 4095) < 63 ? gpa & 4095 : 63) : gpa; /* wide accesses begin there */
    uc_hook_add(v->uc, &w->hook, kinds, (void *)on_access, v, before, gpa + size - 1);
    look_at_each(v);
    uc_ctl_flush_tlb(v->uc);
    return 1;
}

void td_watch_clear(td_vcpu *v, uint64_t gpa, uint64_t size, uint32_t access) {
    td_debug *s = debug_of(v);
    for (uint32_t i = 0; i < s->watch_count; i++) {
        watch *w = &s->watches[i];
        if (w->gpa != gpa || w->size != size || w->access != access)
            continue;
        uc_hook_del(v->uc, w->hook);
        *w = s->watches[--s->watch_count];
        s->touched = -1;
        look_at_each(v);
        return;
    }
}

uint64_t td_watch_hit(td_vcpu *v) {
    td_debug *s = v->debug;
    uint64_t gpa = s && s->touched >= 0 ? s->watches[s->touched].gpa : (uint64_t)NO_ADDRESS;
    if (s)
        s->touched = -1;
    return gpa;
}

void td_debug_enter(td_vcpu *v, uint64_t rip) {
    if (v->debug->step_from == rip)
        v->debug->step_again = 0;
}

/* -- state */

void td_segments(td_vcpu *v, td_segment *six) {
    td_get_regs(v);
    for (int i = 0; i < 6; i++) {
        six[i].selector = env_seg(v, i)->selector;
        six[i].base = env_seg(v, i)->base;
    }
}
