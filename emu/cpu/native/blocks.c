/* How many instructions ran, and which of them must the engine not execute by itself?
 * Every translated block is scanned when it is first seen; sensitive instructions get a code hook of their own. */
#include <stdlib.h>

#include "core.h"

static block *slot_of(td_vcpu *v, uint64_t address) {
    return &v->blocks[(address ^ (address >> 16)) & (BLOCK_SLOTS - 1)];
}

/* Bytes of one instruction, also across a page border; returns how many there are. */
static uint32_t fetch(td_vcpu *v, uint64_t address, uint8_t out[16], uint64_t *page) {
    uint32_t available;
    uint8_t *code = td_code_at(v, address, &available, page);
    if (!code)
        return 0;
    uint32_t n = available < 16 ? available : 16;
    memcpy(out, code, n);
    if (n < 15) {
        uint64_t next;
        uint32_t more;
        uint8_t *rest = td_code_at(v, address + n, &more, &next);
        if (rest) {
            memcpy(out + n, rest, 16 - n);
            n = 16;
        }
    }
    return n;
}

static int mode_of(uint32_t h) { return h & HF_CS64 ? 64 : h & HF_CS32 ? 32 : 16; }

static uint32_t flags_now(td_vcpu *v) {
    uc_context_save(v->uc, v->context);
    return env32(v, ENV_HFLAGS);
}

/* Where an address is in the table, or the free place for it. */
static uint64_t *site_of(td_vcpu *v, uint64_t address) {
    uint32_t at = (uint32_t)(address * 0x9E3779B97F4A7C15ULL >> 40) & (MAX_SITES - 1);
    while (v->sites[at] != (uint64_t)NO_ADDRESS && v->sites[at] != address)
        at = (at + 1) & (MAX_SITES - 1);
    return &v->sites[at];
}

static int site_known(td_vcpu *v, uint64_t address) { return *site_of(v, address) == address; }

/* A guest that makes code at ever new addresses (programs do, one after the other) fills the table: td_run then begins
 * a new one. Every hook costs a little at each translation, so they are few. */
static void site_add(td_vcpu *v, uint64_t address) {
    if (v->site_count >= MAX_SITES / 2) {
        v->sites_full = v->stopped = 1;
        uc_emu_stop(v->uc);
        return;
    }
    *site_of(v, address) = address;
    uc_hook *hook = &v->site_hooks[v->site_count++];
    uc_hook_add(v->uc, hook, UC_HOOK_CODE, (void *)td_on_site, v, address, address);
}

void td_sites_clear(td_vcpu *v) {
    for (uint32_t i = 0; i < v->site_count; i++)
        uc_hook_del(v->uc, v->site_hooks[i]);
    for (int i = 0; i < MAX_SITES; i++)
        v->sites[i] = (uint64_t)NO_ADDRESS;
    v->site_count = 0;
    v->sites_full = 0;
    for (uint32_t i = 0; v->debug && i < v->debug->break_count; i++)
        td_site_watch(v, v->debug->breaks[i]);
    td_forget_code(v);
}

void td_site_watch(td_vcpu *v, uint64_t address) {
    if (!site_known(v, address))
        site_add(v, address);
}

void td_forget(td_vcpu *v, block *b) {
    if (v->debug)
        td_debug_evict(v, b);
    b->size = 0;
}

/* Fills b; returns the number of sites that were not hooked before. */
/* What an instruction leaves: TD_SHADOW_*, or 0. */
static int shadow_of(const insn *in) {
    if (in->map != 0)
        return 0;
    if (in->opcode == 0xFB)
        return TD_SHADOW_STI;
    int loads_ss = in->opcode == 0x17 || (in->opcode == 0x8E && ((in->modrm >> 3) & 7) == SEG_SS);
    return loads_ss ? TD_SHADOW_MOV_SS : 0;
}

static int scan(td_vcpu *v, block *b, uint64_t address, uint32_t size, uint64_t page) {
    int fresh = 0;
    uint64_t at = address, end = address + size;
    td_forget(v, b);
    b->address = address;
    b->page = page;
    b->size = (uint16_t)size; /* the engine ends a block before 512 instructions */
    b->shadow = b->pause = 0;
    b->insns = 0;
    b->starts_rep = 0;
    b->excluded = 0;
    b->rep_end = NO_REP;
    uint32_t flags = flags_now(v);
    b->mode = (uint8_t)mode_of(flags);
    b->user = (flags & 3) == 3;
    for (uint32_t i = 0; i < v->range_count; i++)
        if (address >= v->ranges[i].begin && address < v->ranges[i].end)
            b->excluded = 1;
    while (at < end) {
        uint8_t code[16];
        uint64_t ignored;
        insn in;
        uint32_t n = fetch(v, at, code, &ignored);
        int length = n ? td_decode(code, n, b->mode, &in) : 0;
        b->insns++;
        if (!length)
            break;
        if (td_is_rep_string(&in)) {
            b->rep_end = (uint16_t)(at - address);
            if (at == address)
                b->starts_rep = 1;
        } else {
            b->rep_end = NO_REP;
        }
        b->pause = in.map == 0 && in.opcode == 0x90 && in.rep == 0xF3;
        b->shadow = (uint8_t)shadow_of(&in);
        if (td_classify(&in, code, b->mode) != TD_INSN_NONE && !site_known(v, at)) {
            site_add(v, at);
            fresh++;
        }
        at += (uint64_t)length;
    }
    return fresh;
}

void td_on_edge(uc_engine *uc, uc_tb *now, uc_tb *before, void *data) {
    td_vcpu *v = data;
    (void)uc;
    (void)before;
    block *b = slot_of(v, now->pc);
    if (b->address == now->pc)
        td_forget(v, b);
}

static void stop_between(td_vcpu *v, uint32_t kind) {
    v->stop.kind = kind;
    v->stopped = 1;
    v->current = NULL;
    uc_emu_stop(v->uc);
}

static int window_open(td_vcpu *v) {
    uint64_t flags;
    if (v->shadow)
        return 0;
    uc_reg_read(v->uc, UC_X86_REG_RFLAGS, &flags);
    return (flags & RFLAGS_IF) != 0;
}

/* What may come before a block: the end of td_run, true if so. */
static __attribute__((noinline)) int ends_before(td_vcpu *v) {
    if (v->stopped)
        return 1;
    if (v->count >= v->limit) {
        stop_between(v, TD_STOP_LIMIT);
        return 1;
    }
    if (v->window && window_open(v)) {
        stop_between(v, TD_STOP_WINDOW);
        return 1;
    }
    if (v->paused) {
        v->paused = 0;
        if (v->spin_limit && ++v->spins >= v->spin_limit) {
            v->spins = 0;
            stop_between(v, TD_STOP_YIELD);
            return 1;
        }
    }
    return 0;
}

/* A block that is not known as it is now; false: it runs once more from its start, with new hooks. */
static __attribute__((noinline)) int look_at(td_vcpu *v, block *b, uint64_t address, uint32_t size, uint64_t page) {
    v->rescan = 0;
    v->current = NULL;
    if (!scan(v, b, address, size, page))
        return 1;
    uint64_t rip = address;
    td_forget(v, b);
    uc_ctl_remove_cache(v->uc, address, address + size);
    uc_reg_write(v->uc, UC_X86_REG_RIP, &rip);
    return 0;
}

/* Every block that runs comes by: a tenth of an emulated kernel's time is spent here. */
void td_on_block(uc_engine *uc, uint64_t address, uint32_t size, void *data) {
    td_vcpu *v = data;
    (void)uc;
    if ((v->stopped | v->window | v->paused || v->count >= v->limit) && ends_before(v))
        return;
    uint64_t page;
    const code_page *known = &v->code[(address >> 12) & (CODE_SLOTS - 1)];
    if (known->gla_page == (address & ~0xFFFULL)) {
        page = known->gpa_page;
    } else {
        uint32_t available;
        if (!td_code_at(v, address, &available, &page))
            return;
    }
    block *b = slot_of(v, address);
    if ((b->address != address || b->page != page || b->size != size || v->rescan) &&
        !look_at(v, b, address, size, page))
        return;
    if (v->debug && v->debug->report && v->debug->mode != b->mode) {
        v->debug->mode = b->mode;
        stop_between(v, TD_STOP_MODE);
        return;
    }
    v->rep_continues = b->starts_rep && v->last_rep == address;
    uint64_t n = b->insns - (uint64_t)v->rep_continues;
    v->count += n;
    if (b->excluded)
        v->excluded += n;
    v->last_rep = b->rep_end == NO_REP ? (uint64_t)NO_ADDRESS : address + b->rep_end;
    v->shadow_before = v->shadow;
    v->shadow = b->shadow;
    v->paused = b->pause;
    v->current = b;
    if (v->debug)
        td_debug_block(v, b);
}

void td_uncount(td_vcpu *v, uint64_t rip) {
    block *b = v->current;
    v->current = NULL;
    if (!b || !b->size)
        return;
    if (rip < b->address || rip >= b->address + b->size)
        return;
    if (rip == b->address) /* nothing of it ran, so the shadow is still that of the block before */
        v->shadow = v->shadow_before;
    uint64_t at = b->address, before = 0;
    while (at < rip) {
        uint8_t code[16];
        uint64_t page;
        insn in;
        uint32_t n = fetch(v, at, code, &page);
        int length = n ? td_decode(code, n, b->mode, &in) : 0;
        if (!length)
            break;
        at += (uint64_t)length;
        before++;
    }
    uint64_t counted = b->insns - (uint64_t)v->rep_continues;
    uint64_t ran = before > (uint64_t)v->rep_continues ? before - (uint64_t)v->rep_continues : 0;
    if (counted > ran) {
        v->count -= counted - ran;
        if (b->excluded)
            v->excluded -= counted - ran;
        if (v->debug)
            td_debug_uncount(v, b, rip, before);
    }
    if (!(b->starts_rep && rip == b->address))
        v->last_rep = (uint64_t)NO_ADDRESS;
}

static uint64_t next_random(td_vcpu *v) { /* splitmix64: the same numbers in every run */
    uint64_t z = v->random += 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

static const int gpr_id[16] = {
    UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_RDX, UC_X86_REG_RBX, UC_X86_REG_RSP, UC_X86_REG_RBP,
    UC_X86_REG_RSI, UC_X86_REG_RDI, UC_X86_REG_R8, UC_X86_REG_R9, UC_X86_REG_R10, UC_X86_REG_R11,
    UC_X86_REG_R12, UC_X86_REG_R13, UC_X86_REG_R14, UC_X86_REG_R15};

static uint32_t user_now(td_vcpu *v) {
    uint16_t cs = 0;
    uc_reg_read(v->uc, UC_X86_REG_CS, &cs);
    return (cs & 3) == 3;
}

static void step_over(td_vcpu *v, uint64_t address, uint32_t length) {
    uint64_t rip = address + length;
    td_uncount(v, address);
    v->count++;
    if (v->debug)
        td_debug_add(v, address, rip, 1, 0, user_now(v));
    uc_reg_write(v->uc, UC_X86_REG_RIP, &rip);
}

/* MSRs that a TD reads and writes without an exit and that the engine implements itself
 * (intel/tdx-module TDX_1.5.01, msr_config_lookup.c). Python knows which values a CPU refuses; the engine takes all. */
static int engine_msr(uc_engine *uc, uint32_t index, int write) {
    uint64_t low, high;
    switch (index) {
    case 0x174: case 0x175: case 0x176: case 0x277: case 0xC0000080: case 0xC0000084: case 0xC0000103:
        return !write;
    case 0xC0000081:
        return 1;
    case 0xC0000082: case 0xC0000100: case 0xC0000101: case 0xC0000102: /* the kernel writes these all the time */
        if (!write)
            return 1;
        uc_reg_read(uc, UC_X86_REG_RAX, &low);
        uc_reg_read(uc, UC_X86_REG_RDX, &high);
        high = (high & 0xFFFFFFFF) << 32 | (low & 0xFFFFFFFF);
        return (uint64_t)((int64_t)(high << 16) >> 16) == high;
    }
    return 0;
}

/* CR4.TSD keeps the time from users. */
static int time_forbidden(td_vcpu *v) {
    uint64_t cr4;
    uc_reg_read(v->uc, UC_X86_REG_CR4, &cr4);
    return (cr4 & 4) && user_now(v);
}

void td_on_site(uc_engine *uc, uint64_t address, uint32_t size, void *data) {
    td_vcpu *v = data;
    uint8_t code[16];
    uint64_t page, value;
    insn in;
    (void)size;
    if (v->stopped)
        return;
    if (v->pass == address) {
        v->pass = (uint64_t)NO_ADDRESS;
        return;
    }
    if (v->debug && td_debug_break(v, address))
        return;
    uint32_t n = fetch(v, address, code, &page);
    int mode = v->current ? v->current->mode : mode_of(flags_now(v));
    int length = n ? td_decode(code, n, mode, &in) : 0;
    int kind = length ? td_classify(&in, code, mode) : TD_INSN_NONE;
    switch (kind) {
    case TD_INSN_NONE:
        return;
    case TD_INSN_RDTSC:
    case TD_INSN_RDTSCP:
        if (time_forbidden(v))
            break;
        td_uncount(v, address);
        value = td_read_tsc(v);
        uint64_t low = value & 0xFFFFFFFF, high = value >> 32;
        uc_reg_write(uc, UC_X86_REG_RAX, &low);
        uc_reg_write(uc, UC_X86_REG_RDX, &high);
        if (kind == TD_INSN_RDTSCP) {
            value = td_get_msr(v, MSR_TSC_AUX) & 0xFFFFFFFF;
            uc_reg_write(uc, UC_X86_REG_RCX, &value);
        }
        step_over(v, address, (uint32_t)length);
        return;
    case TD_INSN_RDRAND:
    case TD_INSN_RDSEED: {
        uint64_t flags, old;
        int id = gpr_id[(in.modrm & 7) | ((in.rex & 1) << 3)];
        value = next_random(v);
        if (!(in.rex & 8))
            value &= 0xFFFFFFFF;
        if (in.opsize && !(in.rex & 8)) {
            uc_reg_read(uc, id, &old);
            value = (old & ~0xFFFFULL) | (value & 0xFFFF);
        }
        uc_reg_write(uc, id, &value);
        uc_reg_read(uc, UC_X86_REG_RFLAGS, &flags);
        flags = (flags & ~0x8D5ULL) | 1;
        uc_reg_write(uc, UC_X86_REG_RFLAGS, &flags);
        step_over(v, address, (uint32_t)length);
        return;
    }
    case TD_INSN_RDMSR:
    case TD_INSN_WRMSR: {
        uint64_t index = 0;
        uc_reg_read(uc, UC_X86_REG_RCX, &index);
        if (engine_msr(uc, (uint32_t)index, kind == TD_INSN_WRMSR))
            return;
        break;
    }
    }
    v->stop.kind = TD_STOP_INSN;
    v->stop.insn = (uint32_t)kind;
    v->stop.length = (uint32_t)length;
    memcpy(v->stop.bytes, code, 16);
    v->stopped = 1;
    uc_emu_stop(uc);
}
