/* Which guest-physical page does a linear address reach, and may this access touch it?
 * 4-level paging (Intel SDM volume 3, 4.5) over the page states of the TDX module's Secure EPT. */
#include "core.h"

enum {
    PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80
};
#define PTE_NX (1ULL << 63)
#define PTE_ADDRESS 0x000FFFFFFFFFF000ULL

enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };
enum { CR0_PG = 1u << 31, CR0_WP = 1 << 16, CR4_SMEP = 1 << 20, CR4_SMAP = 1 << 21 };

typedef struct {
    uint64_t cr0, cr3, cr4;
} paging;

static paging read_paging(td_vcpu *v) {
    paging p;
    if (v->regs_loaded) {
        p.cr0 = v->regs.cr0;
        p.cr3 = v->regs.cr3;
        p.cr4 = v->regs.cr4;
    } else {
        uc_reg_read(v->uc, UC_X86_REG_CR0, &p.cr0);
        uc_reg_read(v->uc, UC_X86_REG_CR3, &p.cr3);
        uc_reg_read(v->uc, UC_X86_REG_CR4, &p.cr4);
    }
    return p;
}

/* Page state against access: sets gpa, shared and perms of out. */
static int check_sept(td_vcpu *v, uint64_t address, uint32_t access, walk *out) {
    td_layout *m = &v->vm->m;
    out->shared = (address & m->shared_bit) != 0;
    out->gpa = address & ~m->shared_bit;
    if (out->gpa >= m->span)
        return out->shared && access != TD_FETCH ? WALK_VE : WALK_SEPT;
    uint32_t state = m->pages[out->gpa >> 12] & TD_PAGE_STATE;
    if (out->shared) {
        if (access == TD_FETCH)
            return WALK_SEPT; /* code must be private */
        if (state == TD_PAGE_SHARED)
            return WALK_OK;
        return state == TD_PAGE_UNMAPPED ? WALK_VE : WALK_SEPT;
    }
    if (state == TD_PAGE_MAPPED)
        return WALK_OK;
    return state == TD_PAGE_PENDING && !m->sept_ve_disable ? WALK_VE : WALK_SEPT;
}

static int page_fault(walk *out, uint32_t access, int user, uint32_t bits) {
    out->error = bits | (access == TD_WRITE ? PF_W : 0) | (user ? PF_U : 0) | (access == TD_FETCH ? PF_I : 0);
    return WALK_PF;
}

int td_walk(td_vcpu *v, uint64_t gla, uint32_t access, int user, walk *out) {
    paging p = read_paging(v);
    memset(out, 0, sizeof *out);
    if (!(p.cr0 & CR0_PG)) {
        out->perms = UC_PROT_ALL;
        out->linear = TD_LINEAR_USER | TD_LINEAR_WRITABLE;
        int r = check_sept(v, gla & 0xFFFFF000u, access, out);
        if (out->shared)
            out->perms = UC_PROT_READ | UC_PROT_WRITE;
        return r;
    }
    if (!td_canonical(gla))
        return page_fault(out, access, user, 0);
    uint64_t table = p.cr3 & PTE_ADDRESS, entry = 0, *slot = NULL;
    uint64_t reserved = ~(v->vm->limit_mask | v->vm->m.shared_bit) & PTE_ADDRESS;
    int writable = 1, user_ok = 1, executable = 1, level;
    for (level = 3; level >= 0; level--) {
        walk t;
        memset(&t, 0, sizeof t);
        int r = check_sept(v, table, TD_READ, &t);
        if (r != WALK_OK || t.shared) {
            out->gpa = t.gpa + 8 * ((gla >> (12 + 9 * level)) & 511);
            out->shared = t.shared;
            out->in_walk = 1;
            return t.shared ? WALK_SEPT : r;
        }
        slot = (uint64_t *)(v->vm->m.ram + t.gpa) + ((gla >> (12 + 9 * level)) & 511);
        entry = *slot;
        if (!(entry & PTE_P))
            return page_fault(out, access, user, 0);
        uint64_t bad = entry & reserved;
        if (level == 3)
            bad |= entry & PTE_PS;
        if ((level == 1 || level == 2) && (entry & PTE_PS))
            bad |= entry & ((1ULL << (12 + 9 * level)) - 1) & ~0x1FFFULL;
        if (bad)
            return page_fault(out, access, user, PF_P | PF_RSVD);
        writable &= (entry & PTE_W) != 0;
        user_ok &= (entry & PTE_U) != 0;
        executable &= !(entry & PTE_NX);
        if (level == 0 || (level < 3 && (entry & PTE_PS)))
            break;
        if (!(entry & PTE_A))
            *slot = entry | PTE_A;
        table = entry & PTE_ADDRESS;
    }
    out->of_user = (uint32_t)user_ok;
    out->linear = (user_ok ? TD_LINEAR_USER : 0) | (writable ? TD_LINEAR_WRITABLE : 0) |
                  (executable ? 0 : TD_LINEAR_NO_EXECUTE);
    int may_write = user ? writable && user_ok : writable || !(p.cr0 & CR0_WP);
    int may_fetch = executable && (user ? user_ok : !(user_ok && (p.cr4 & CR4_SMEP)));
    int may_read = user ? user_ok : 1;
    int allowed = access == TD_WRITE ? may_write : access == TD_FETCH ? may_fetch : may_read;
    if (!allowed)
        return page_fault(out, access, user, PF_P);
    uint64_t inside = (1ULL << (12 + 9 * level)) - 1;
    uint64_t address = ((entry & PTE_ADDRESS & ~inside) | (gla & inside)) & ~0xFFFULL;
    int r = check_sept(v, address, access, out);
    if (r != WALK_OK)
        return r;
    uint64_t marks = entry | PTE_A | (access == TD_WRITE ? PTE_D : 0);
    if (marks != entry)
        *slot = marks;
    out->perms = (may_read ? UC_PROT_READ : 0) | (may_write && (marks & PTE_D) ? UC_PROT_WRITE : 0) |
                 (may_fetch && !out->shared ? UC_PROT_EXEC : 0);
    return WALK_OK;
}

/* SMAP: no access of the kernel's to pages of the user while AC is clear. The engine keeps entries made under AC apart. */
static int smap_forbids(td_vcpu *v) {
    uint64_t cr4, flags;
    uc_reg_read(v->uc, UC_X86_REG_CR4, &cr4);
    if (!(cr4 & CR4_SMAP))
        return 0;
    uc_reg_read(v->uc, UC_X86_REG_RFLAGS, &flags);
    return !(flags & RFLAGS_AC);
}

bool td_tlb_fill(uc_engine *uc, uint64_t gla, uc_mem_type type, uc_tlb_entry *out, void *data) {
    td_vcpu *v = data;
    if (v->alias != (uint64_t)NO_ADDRESS) {
        out->paddr = v->alias;
        out->perms = UC_PROT_READ | UC_PROT_EXEC;
        return true;
    }
    uint32_t access = type == UC_MEM_FETCH ? TD_FETCH : type == UC_MEM_WRITE ? TD_WRITE : TD_READ;
    uint16_t cs = 0;
    uc_reg_read(uc, UC_X86_REG_CS, &cs);
    walk w;
    int user = (cs & 3) == 3, r = td_walk(v, gla, access, user, &w);
    if (r == WALK_OK && w.of_user && !user && access != TD_FETCH && smap_forbids(v))
        r = page_fault(&w, access, 0, PF_P);
    if (r == WALK_OK && access == TD_FETCH) {
        code_page *c = &v->code[(gla >> 12) & (CODE_SLOTS - 1)];
        c->gla_page = gla & ~0xFFFULL;
        c->gpa_page = w.gpa & ~0xFFFULL;
        if (v->handoff_armed && !(v->vm->m.pages[w.gpa >> 12] & TD_PAGE_MEASURED)) {
            v->stop.kind = TD_STOP_HANDOFF;
            v->stopped = 1;
            return false;
        }
    }
    if (r == WALK_OK) {
        if (!w.shared)
            w.perms = td_claim(v, w.gpa, access, w.perms);
        out->paddr = w.shared ? w.gpa | v->vm->m.shared_bit : w.gpa;
        out->perms = (uc_prot)w.perms;
        return true;
    }
    v->miss.kind = r;
    v->miss.gla = gla;
    v->miss.access = access;
    v->miss.w = w;
    return false;
}

int td_copy_linear(td_vcpu *v, uint64_t gla, void *bytes, uint64_t size, int write, int user, walk *bad) {
    uint8_t *host = bytes;
    while (size) {
        uint64_t part = 4096 - (gla & 4095);
        if (part > size)
            part = size;
        int r = td_walk(v, gla, write ? TD_WRITE : TD_READ, user, bad);
        if (r != WALK_OK) {
            v->miss.kind = r;
            v->miss.gla = gla;
            v->miss.access = write ? TD_WRITE : TD_READ;
            v->miss.w = *bad;
            return r;
        }
        uint8_t *memory = (bad->shared ? v->vm->m.shared : v->vm->m.ram) + (bad->gpa & ~0xFFFULL) + (gla & 4095);
        if (write) {
            memcpy(memory, host, part);
            if (!bad->shared)
                td_host_wrote(v->vm, bad->gpa, part); /* code may lie there, all in one page */
        } else {
            memcpy(host, memory, part);
        }
        gla += part;
        host += part;
        size -= part;
    }
    return WALK_OK;
}

uint8_t *td_code_at(td_vcpu *v, uint64_t gla, uint32_t *available, uint64_t *page) {
    code_page *c = &v->code[(gla >> 12) & (CODE_SLOTS - 1)];
    if (c->gla_page != (gla & ~0xFFFULL)) {
        walk w;
        if (td_walk(v, gla, TD_READ, 0, &w) != WALK_OK || w.shared)
            return NULL;
        c->gla_page = gla & ~0xFFFULL;
        c->gpa_page = w.gpa & ~0xFFFULL;
    }
    *available = 4096 - (uint32_t)(gla & 4095);
    *page = c->gpa_page;
    return v->vm->m.ram + c->gpa_page + (gla & 4095);
}
