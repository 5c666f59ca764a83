/* What does an observer need from the engine? Counts by block, breakpoints, single steps, exceptions told as they
 * happen, and the state of a vCPU as bytes. All of it hangs on v->sight, which is NULL while nobody looks. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core.h"

static td_sight *sight_of(td_vcpu *v) {
    if (!v->sight) {
        v->sight = calloc(1, sizeof *v->sight);
        if (!v->sight) abort();
        v->sight->break_pass = v->sight->step_from = (uint64_t)NO_ADDRESS;
        v->sight->touched = -1;
    }
    return v->sight;
}

void td_sight_free(td_vcpu *v) {
    if (!v->sight) return;
    free(v->sight->runs);
    free(v->sight->table);
    free(v->sight);
}

void td_tell_exceptions(td_vcpu *v, int on) { sight_of(v)->tell = on, v->sight->mode = td_get_regs(v)->mode; }

/* Fills the stop that tells an exception just delivered; 0 when nobody wants to know. */
int td_sight_told(td_vcpu *v, int vector, int has_error, uint32_t error, uint64_t rip) {
    if (!v->sight || !v->sight->tell) return 0;
    v->stop.kind = TD_STOP_TOLD, v->stop.insn = (uint32_t)vector, v->stop.length = (uint32_t)has_error;
    v->stop.stop_code = error, v->stop.gla = v->regs.cr2, v->stop.gpa = rip;
    return 1;
}

/* -- counts */

static td_counted *place(td_sight *s, uint64_t begin, uint64_t end) {
    uint32_t at = (uint32_t)((begin * 31 + end) * 0x9E3779B97F4A7C15ULL >> 32) & (s->slots - 1);
    while (s->table[at].end && (s->table[at].begin != begin || s->table[at].end != end)) at = (at + 1) & (s->slots - 1);
    return &s->table[at];
}

static void grow(td_sight *s) {
    td_counted *old = s->table;
    uint32_t n = s->slots;
    s->slots = n ? n * 2 : 1 << 14;
    s->table = calloc(s->slots, sizeof *s->table);
    if (!s->table) abort();
    for (uint32_t i = 0; i < n; i++)
        if (old[i].end) *place(s, old[i].begin, old[i].end) = old[i];
    free(old);
}

/* So many instructions ran between two addresses; negative takes back. */
void td_sight_add(td_vcpu *v, uint64_t begin, uint64_t end, int64_t instructions, uint32_t mode) {
    td_sight *s = v->sight;
    if (!s || !s->runs) return;
    if (s->used * 2 >= s->slots) grow(s);
    td_counted *c = place(s, begin, end);
    if (!c->end) c->begin = begin, c->end = end, c->mode = mode, s->used++;
    c->instructions += instructions;
}

/* The slot gets another block: its runs go to the table. */
void td_sight_evict(td_vcpu *v, block *b) {
    td_sight *s = v->sight;
    if (!s->runs) return;
    uint64_t *runs = &s->runs[b - v->blocks];
    if (*runs) td_sight_add(v, b->address, b->address + b->size, (int64_t)(*runs * b->insns), b->mode);
    *runs = 0;
}

void td_sight_block(td_vcpu *v, block *b) {
    if (!v->sight->runs) return;
    v->sight->runs[b - v->blocks]++;
    if (v->rep_continues) td_sight_add(v, b->address, b->address + 1, -1, 0); /* its first instruction is counted */
}

/* Of the run just counted only the `before` instructions ahead of rip happened. */
void td_sight_settle(td_vcpu *v, block *b, uint64_t rip, uint64_t before) {
    if (!v->sight->runs) return;
    td_sight_add(v, b->address, b->address + b->size, -(int64_t)b->insns, b->mode);
    if (before) td_sight_add(v, b->address, rip, (int64_t)before, b->mode);
    else if (v->rep_continues) td_sight_add(v, b->address, b->address + 1, 1, 0);
}

void td_profile_start(td_vcpu *v) {
    td_sight *s = sight_of(v);
    if (!s->runs) s->runs = calloc(BLOCK_SLOTS, sizeof *s->runs);
    if (!s->runs) abort();
    if (!s->slots) grow(s);
}

/* Ranges with their counts so far; returns how many there are, of which at most max are written. */
uint32_t td_profile_read(td_vcpu *v, td_counted *out, uint32_t max) {
    td_sight *s = v->sight;
    uint32_t n = 0;
    if (!s || !s->runs) return 0;
    for (int i = 0; i < BLOCK_SLOTS; i++) td_sight_evict(v, &v->blocks[i]);
    for (uint32_t i = 0; i < s->slots; i++)
        if (s->table[i].end) {
            if (n < max) out[n] = s->table[i];
            n++;
        }
    return n;
}

/* -- stops */

static int pause_here(td_vcpu *v, uint64_t address) {
    v->sight->step_from = v->sight->break_pass = (uint64_t)NO_ADDRESS;
    v->stop.kind = TD_STOP_BREAK, v->stop.gla = address, v->stopped = 1;
    uc_emu_stop(v->uc);
    return 1;
}

/* Whether the guest stops before the instruction at a breakpoint. */
int td_sight_break(td_vcpu *v, uint64_t address) {
    td_sight *s = v->sight;
    uint64_t pass = s->break_pass;
    s->break_pass = (uint64_t)NO_ADDRESS;
    if (pass == address) return 0;
    for (uint32_t i = 0; i < s->break_count; i++)
        if (s->breaks[i] == address) return pause_here(v, address);
    return 0;
}

int td_break_set(td_vcpu *v, uint64_t address) {
    td_sight *s = sight_of(v);
    if (s->break_count == MAX_BREAKS) return 0;
    s->breaks[s->break_count++] = address;
    td_site_watch(v, address);
    uc_ctl_flush_tb(v->uc);
    return 1;
}

void td_break_clear(td_vcpu *v, uint64_t address) {
    td_sight *s = sight_of(v);
    for (uint32_t i = 0; i < s->break_count; i++)
        if (s->breaks[i] == address) s->breaks[i] = s->breaks[--s->break_count], i--;
}

/* The instruction at RIP is not stopped at again: the debugger was told of it. */
void td_break_pass(td_vcpu *v) { sight_of(v)->break_pass = td_get_regs(v)->rip; }

static void on_step(uc_engine *uc, uint64_t address, uint32_t size, void *data) {
    td_vcpu *v = data;
    td_sight *s = v->sight;
    (void)uc, (void)size;
    if (v->stopped) return;
    if (s->touched >= 0 && address != s->at) { /* a REP goes on to its end */
        pause_here(v, address);
        return;
    }
    s->at = address;
    if (s->step_from == (uint64_t)NO_ADDRESS) return;
    if (address == s->step_from && !s->step_again++) return;
    uint8_t code[16];
    insn in;
    uint32_t available;
    uint64_t page;
    uint8_t *at = td_code_at(v, address, &available, &page);
    if (address == s->step_from && at) {
        memset(code, 0x90, sizeof code);
        memcpy(code, at, available < 15 ? available : 15);
        if (td_decode(code, 15, v->current ? v->current->mode : 64, &in) && td_is_rep_string(&in)) return;
    }
    pause_here(v, address);
}

/* Every instruction is looked at while there is a step to be done or memory to be watched. */
static void look_at_each(td_vcpu *v) {
    td_sight *s = v->sight;
    int on = s->stepping || s->watch_count;
    if (on != s->hooked) {
        if (on) uc_hook_add(v->uc, &s->step_hook, UC_HOOK_CODE, (void *)on_step, v, 1, 0);
        else uc_hook_del(v->uc, s->step_hook);
        s->hooked = on;
    }
    uc_ctl_flush_tb(v->uc);
}

/* Stops once the instruction at RIP is done, or at the first one of the handler it leads to. */
void td_step(td_vcpu *v, int on) {
    td_sight *s = sight_of(v);
    if (on) s->step_from = td_get_regs(v)->rip, s->step_again = 0;
    if (on == s->stepping) return;
    s->stepping = on;
    if (!on) s->step_from = (uint64_t)NO_ADDRESS;
    look_at_each(v);
}

static void on_access(uc_engine *uc, uc_mem_type type, uint64_t gpa, int size, int64_t value, void *data) {
    td_vcpu *v = data;
    td_sight *s = v->sight;
    uint32_t access = type == UC_MEM_WRITE ? TD_WATCH_WRITE : TD_WATCH_READ;
    (void)uc, (void)value;
    for (uint32_t i = 0; i < s->watch_count; i++) {
        watch *w = &s->watches[i];
        if (w->access & access && gpa < w->gpa + w->size && gpa + (uint64_t)size > w->gpa) s->touched = (int32_t)i;
    }
}

/* Stops behind an instruction that touches these bytes; 0 when there are too many watches. */
int td_watch_set(td_vcpu *v, uint64_t gpa, uint64_t size, uint32_t access) {
    td_sight *s = sight_of(v);
    if (s->watch_count == MAX_WATCHES) return 0;
    watch *w = &s->watches[s->watch_count++];
    w->gpa = gpa, w->size = size, w->access = access;
    int kinds = (access & TD_WATCH_READ ? UC_HOOK_MEM_READ : 0) | (access & TD_WATCH_WRITE ? UC_HOOK_MEM_WRITE : 0);
    uint64_t before = gpa & 4095 ? gpa - ((gpa & 4095) < 63 ? gpa & 4095 : 63) : gpa; /* wide accesses begin there */
    uc_hook_add(v->uc, &w->hook, kinds, (void *)on_access, v, before, gpa + size - 1);
    look_at_each(v);
    uc_ctl_flush_tlb(v->uc);
    return 1;
}

void td_watch_clear(td_vcpu *v, uint64_t gpa, uint64_t size, uint32_t access) {
    td_sight *s = sight_of(v);
    for (uint32_t i = 0; i < s->watch_count; i++) {
        watch *w = &s->watches[i];
        if (w->gpa != gpa || w->size != size || w->access != access) continue;
        uc_hook_del(v->uc, w->hook);
        *w = s->watches[--s->watch_count];
        s->touched = -1;
        look_at_each(v);
        return;
    }
}

uint64_t td_watch_hit(td_vcpu *v) {
    td_sight *s = v->sight;
    uint64_t gpa = s && s->touched >= 0 ? s->watches[s->touched].gpa : (uint64_t)NO_ADDRESS;
    if (s) s->touched = -1;
    return gpa;
}

/* td_run begins: what a stop for the module or the VMM interrupted is tried again. */
void td_sight_enter(td_vcpu *v, uint64_t rip) {
    if (v->sight->step_from == rip) v->sight->step_again = 0;
}

/* -- state */

void td_segments(td_vcpu *v, td_segment *six) {
    td_get_regs(v);
    for (int i = 0; i < 6; i++) six[i].selector = env_seg(v, i)->selector, six[i].base = env_seg(v, i)->base;
}

/* Memory changed behind the engine's back: nothing translated or cached is right any more. */
void td_forget_code(td_vcpu *v) {
    for (int i = 0; i < BLOCK_SLOTS; i++) {
        if (v->sight) td_sight_evict(v, &v->blocks[i]);
        v->blocks[i].address = (uint64_t)NO_ADDRESS;
    }
    for (int i = 0; i < CODE_SLOTS; i++) v->code[i].gla_page = (uint64_t)NO_ADDRESS;
    uc_ctl_flush_tlb(v->uc);
    uc_ctl_flush_tb(v->uc);
}

uint8_t *td_cpu_state(td_vcpu *v, uint64_t *size) {
    td_put_regs(v);
    uc_context_save(v->uc, v->context);
    *size = v->env_size;
    return v->env;
}

void td_get_progress(td_vcpu *v, td_progress *p) {
    memset(p, 0, sizeof *p);
    p->count = v->count, p->apart = v->apart, p->tsc_offset = v->tsc_offset, p->last_rep = v->last_rep;
    p->pass = v->pass, p->random = v->random, p->rep_continues = v->rep_continues;
    p->handoff_armed = v->handoff_armed, p->fault = v->fault;
    p->spins = v->spins, p->shadow = (uint16_t)v->shadow, p->paused = (uint16_t)v->paused;
}

/* Puts CPU state and progress back; whatever the engine has translated or cached is forgotten. */
void td_resume_from(td_vcpu *v, const uint8_t *state, const td_progress *p) {
    uc_context_save(v->uc, v->context);
    memcpy(v->env, state, v->env_size);
    uc_context_restore(v->uc, v->context);
    v->regs_loaded = 0, v->current = NULL, v->stopped = 0, v->exception = -1;
    v->count = p->count, v->apart = p->apart, v->tsc_offset = p->tsc_offset, v->last_rep = p->last_rep;
    v->pass = p->pass, v->random = p->random, v->rep_continues = p->rep_continues;
    v->handoff_armed = p->handoff_armed, v->fault = p->fault;
    v->spins = p->spins, v->shadow = p->shadow, v->paused = p->paused;
    td_forget_code(v);
}

static int is_zero(const uint8_t *page) {
    const uint64_t *word = (const uint64_t *)page;
    for (int i = 0; i < 512; i += 8)
        if (word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] | word[i + 6] | word[i + 7])
            return 0;
    return 1;
}

/* Page numbers of memory that hold anything but zeros; returns how many, of which at most max are written. */
uint64_t td_used_pages(const uint8_t *memory, uint64_t size, uint32_t *out, uint64_t max) {
    enum { CHUNK = 512 };
    uint64_t entries[CHUNK], n = 0;
    int file = open("/proc/self/pagemap", O_RDONLY); /* tells what was ever touched; without it all is looked at */
    for (uint64_t first = 0; first < size >> 12; first += CHUNK) {
        uint64_t part = (size >> 12) - first < CHUNK ? (size >> 12) - first : CHUNK;
        ssize_t want = (ssize_t)(part * 8);
        int known = file >= 0 && pread(file, entries, (size_t)want, (off_t)((((uintptr_t)memory >> 12) + first) * 8)) == want;
        for (uint64_t i = 0; i < part; i++) {
            if (known && !(entries[i] >> 62)) continue; /* neither present nor swapped out */
            if (is_zero(memory + ((first + i) << 12))) continue;
            if (n < max) out[n] = (uint32_t)(first + i);
            n++;
        }
    }
    if (file >= 0) close(file);
    return n;
}

void td_gather_pages(const uint8_t *memory, const uint32_t *pages, uint64_t n, uint8_t *out) {
    for (uint64_t i = 0; i < n; i++) memcpy(out + (i << 12), memory + ((uint64_t)pages[i] << 12), 4096);
}

/* Makes memory hold exactly these pages (ascending) and zeros elsewhere; touches only what differs. */
void td_restore_pages(uint8_t *memory, uint64_t size, const uint32_t *pages, uint64_t n, const uint8_t *content) {
    uint64_t used = td_used_pages(memory, size, NULL, 0), at = 0;
    uint32_t *now = malloc((used + 1) * sizeof *now);
    if (!now) abort();
    td_used_pages(memory, size, now, used);
    for (uint64_t i = 0; i < used; i++) {
        while (at < n && pages[at] < now[i]) at++;
        if (at == n || pages[at] != now[i]) madvise(memory + ((uint64_t)now[i] << 12), 4096, MADV_DONTNEED);
    }
    free(now);
    for (at = 0; at < n; at++) {
        uint8_t *page = memory + ((uint64_t)pages[at] << 12);
        if (memcmp(page, content + (at << 12), 4096)) memcpy(page, content + (at << 12), 4096);
    }
}
