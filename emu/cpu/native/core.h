/* Shared declarations of the native core: engine state of one vCPU and what the parts offer each other. */
#ifndef TD_CORE_H
#define TD_CORE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unicorn/unicorn.h>

#include "api.h"

struct td_vm {
    td_layout m;
    uint64_t limit_mask; /* GPA bits below GPAW, shared bit excluded */
    td_vcpu **vcpus;
    uint32_t vcpu_count;
    /* Per page, one bit for each vCPU (the last bit for all from the 64th on): who may hold translations of its code,
     * who may hold a TLB entry for writing. See coherence.c. */
    uint64_t *executors, *writers;
    uint64_t removals;   /* how often pages went away: every vCPU must forget its translations */
};

enum { BLOCK_SLOTS = 1 << 16, CODE_SLOTS = 1 << 12, MAX_SITES = 1 << 13, MAX_RANGES = 16, MAX_VCPUS = 1024 };
enum { NO_ADDRESS = -1 };

/* One translated block, seen and counted. */
typedef struct {
    _Alignas(32) uint64_t address; /* linear; two of these fill a cache line, every block that runs reads one */
    uint64_t page;          /* guest-physical page it was read from */
    uint16_t size, insns;   /* bytes and instructions; no bytes: nothing is known of this slot */
    uint16_t rep_end;       /* offset of a string instruction with REP that ends the block, else NO_REP */
    uint8_t starts_rep, excluded, mode, user; /* user: at CPL 3 */
    uint8_t shadow, pause; /* TD_SHADOW_* that its last instruction leaves; ends in PAUSE */
} block;
enum { NO_REP = 0xFFFF };

typedef struct {
    uint64_t gla_page, gpa_page;
} code_page;

/* Outcome of a page walk. */
typedef struct {
    uint64_t gpa;     /* without the shared bit */
    uint32_t perms;   /* UC_PROT_* usable for later accesses of the same kind of caller */
    uint32_t shared;
    uint32_t in_walk; /* gpa is that of an entry of the page tables, which cannot be read */
    uint32_t of_user; /* a page that user mode may reach */
    uint32_t linear;  /* what paging says of the address: TD_LINEAR_* */
    uint32_t error;   /* #PF error code when it is one */
} walk;

/* No paging can map these: bits 63:47 differ (SDM volume 1, 3.3.7.1). */
static inline bool td_canonical(uint64_t gla) { return (uint64_t)((int64_t)(gla << 16) >> 16) == gla; }

enum { WALK_OK = 0, WALK_PF, WALK_SEPT, WALK_VE };

enum { MAX_BREAKS = 256, MAX_WATCHES = 8 };

/* Memory whose accesses end td_run, by guest-physical address as the TLB has it. */
typedef struct {
    uint64_t gpa, size;
    uint32_t access; /* TD_WATCH_* */
    uc_hook hook;
} watch;

/* What observers asked for; debug.c. */
typedef struct {
    int report; /* exceptions and changes of the code's width end td_run */
    uint32_t mode; /* the width last reported */
    uint64_t *runs;    /* full executions of the block in each slot, NULL without a profile */
    td_counted *table; /* open addressing by begin and end */
    uint32_t slots, used;
    uint64_t breaks[MAX_BREAKS], break_pass, step_from;
    uint32_t break_count, step_again;
    int stepping, hooked;
    uc_hook step_hook;
    watch watches[MAX_WATCHES];
    uint32_t watch_count;
    int32_t touched;  /* the watch that the instruction at `at` has met, -1 for none */
    uint64_t at;      /* the instruction being executed, while each is looked at */
} td_debug;

struct td_vcpu {
    td_vm *vm;
    uint64_t removals_seen;
    uc_engine *uc;
    uc_context *context;
    uint8_t *env; /* the CPU state inside context */
    size_t env_size;
    uint32_t index;

    td_regs regs;
    int regs_loaded;

    uint64_t count, limit, excluded, tsc_offset;
    block *current;   /* block whose instructions are counted but may be cut short */
    uint64_t last_rep;
    int rep_continues; /* current block began inside a REP already counted */
    int rescan;
    int window;          /* stop when an interrupt can be taken */
    int shadow, paused;  /* of the block that ran last */
    int shadow_before;   /* and the shadow that this block began with */
    uint32_t spin_limit, spins;
    uint64_t alias;      /* while translations of this page are dropped: every address leads to it */

    td_stop stop;
    int stopped;
    int exception; /* vector raised by the engine, or -1 */
    struct {
        int kind; /* WALK_* of the access that missed, WALK_OK if none */
        uint64_t gla;
        uint32_t access;
        walk w;
    } miss;
    td_fault fault;
    int handoff_armed;
    uint64_t pass; /* address of the instruction that td_pass_once let through */
    uint64_t random;
    td_debug *debug; /* NULL while nobody looks */

    td_range ranges[MAX_RANGES];
    uint32_t range_count;
    uint64_t sites[MAX_SITES];
    uc_hook site_hooks[MAX_SITES];
    uint32_t site_count;
    int sites_full;
    code_page code[CODE_SLOTS];
    block blocks[BLOCK_SLOTS];
};

/* decode.c */
typedef struct {
    uint8_t length, opcode, map, modrm, has_modrm, rep, opsize, rex, prefix_len, modrm_at, vex;
} insn;
/* Length of the instruction at `code`, of which `available` bytes can be read; 0 when it is longer or none. */
int td_decode(const uint8_t *code, uint32_t available, int mode, insn *out);
/* TD_INSN_* of a decoded instruction. */
int td_classify(const insn *i, const uint8_t *code, int mode);
int td_is_rep_string(const insn *i);
/* The engine reports only the page of a failed access. Finds the address inside it that the instruction names: its memory
 * operand, a string pointer or the stack; the page's start if none fits (an access that straddles). */
uint64_t td_touched(const uint8_t *code, uint32_t available, const td_regs *r, uint64_t fs, uint64_t gs, uint64_t page);

/* mmu.c */
/* Page walk of one access. WALK_OK fills gpa, perms, shared, of_user and sets accessed and dirty bits; WALK_PF fills error;
 * WALK_SEPT and WALK_VE fill gpa, shared, in_walk. */
int td_walk(td_vcpu *v, uint64_t gla, uint32_t access, int user, walk *out);
/* Hook: the engine misses a translation. false: v->miss or v->stop says why there is none. */
bool td_tlb_fill(uc_engine *uc, uint64_t gla, uc_mem_type type, uc_tlb_entry *out, void *data);
/* Copies between the host and linear memory with supervisor or user rights. WALK_OK, else *bad and v->miss say why; what
 * lies before the bad page is copied. */
int td_copy_linear(td_vcpu *v, uint64_t gla, void *bytes, uint64_t size, int write, int user, walk *bad);
/* Host pointer to code at a linear address, how many bytes of that page follow, and its guest-physical page; or NULL. */
uint8_t *td_code_at(td_vcpu *v, uint64_t gla, uint32_t *available, uint64_t *page);

/* vm.c */
/* Zeros that take host memory as they are touched, aligned to a page; NULL if there is no address space. */
void *td_reserve(uint64_t size);

/* coherence.c */
/* An entry for this access is about to go into the TLB; returns what it may be used for. */
uint32_t td_claim(td_vcpu *v, uint64_t gpa, uint32_t access, uint32_t perms);

/* blocks.c */
/* The slot holds no block any more. */
void td_forget(td_vcpu *v, block *b);
/* Hooks: a block begins, a hooked instruction is next, the engine has joined two blocks. */
void td_on_block(uc_engine *uc, uint64_t address, uint32_t size, void *data);
void td_on_site(uc_engine *uc, uint64_t address, uint32_t size, void *data);
void td_on_edge(uc_engine *uc, uc_tb *now, uc_tb *before, void *data);
/* Takes back the instructions of the current block from rip on: they did not run. */
void td_uncount(td_vcpu *v, uint64_t rip);
/* td_on_site is called before the instruction at this address from now on. */
void td_site_watch(td_vcpu *v, uint64_t address);
/* td_on_site is called for breakpoints only, until new blocks are seen. */
void td_sites_clear(td_vcpu *v);

/* debug.c; all but _free, _add and _report need v->debug */
void td_debug_free(td_vcpu *v);
/* A number of instructions ran between two addresses; negative takes back. `mode` and `user` as in td_counted. */
void td_debug_add(td_vcpu *v, uint64_t begin, uint64_t end, int64_t instructions, uint32_t mode, uint32_t user);
/* Fills the stop for an exception just delivered; 0 when nobody asked for it. */
int td_debug_report(td_vcpu *v, int vector, int has_error, uint32_t error, uint64_t rip);
/* The slot gets another block: its runs go to the table. */
void td_debug_evict(td_vcpu *v, block *b);
void td_debug_block(td_vcpu *v, block *b);
/* Of the run just counted only the `before` instructions ahead of rip happened. */
void td_debug_uncount(td_vcpu *v, block *b, uint64_t rip, uint64_t before);
/* Whether the guest stops before the instruction at a breakpoint. */
int td_debug_break(td_vcpu *v, uint64_t address);
/* td_run begins: what a stop for the module or the VMM interrupted is tried again. */
void td_debug_enter(td_vcpu *v, uint64_t rip);

/* traps.c */
enum { BY_CPU = 0, BY_SOFTWARE = 1, BY_INTERRUPT = 2 }; /* what a vector comes from */
/* Delivers through the guest's IDT. 0: the guest goes on in a handler; 1: v->stop says why it cannot. */
int td_raise(td_vcpu *v, int vector, int has_error, uint32_t error_code, int source);
/* SYSCALL (Intel SDM volume 2), which the engine leaves to its user. RIP is at the instruction; returns as td_raise. */
int td_syscall(td_vcpu *v, uint32_t length);

/* vcpu.c: CPUX86State fields inside the saved context, by offset (Unicorn 2.1, target/i386/cpu.h) */
enum {
    ENV_REGS = 0, ENV_RIP = 128, ENV_RFLAGS = 136, ENV_HFLAGS = 176, ENV_SEGS = 184, ENV_LDT = 328,
    ENV_TR = 352, ENV_GDT = 376, ENV_IDT = 400, ENV_CR = 424, ENV_EFER = 592
};
enum { ENV_ERROR_CODE_FROM_END = 184 };
enum { RFLAGS_IF = 1 << 9, RFLAGS_AC = 1 << 18 };
enum {
    MSR_STAR = (int)0xC0000081, MSR_LSTAR = (int)0xC0000082, MSR_FMASK = (int)0xC0000084, MSR_TSC_AUX = (int)0xC0000103
};
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS };
enum {
    HF_CS32 = 1 << 4, HF_SS32 = 1 << 5, HF_ADDSEG = 1 << 6, HF_PE = 1 << 7, HF_LMA = 1 << 14,
    HF_INHIBIT_IRQ = 1 << 3, HF_CS64 = 1 << 15, HF_OSFXSR = 1 << 22, HF_SMAP = 1 << 23
};
typedef struct {
    uint32_t selector;
    uint64_t base;
    uint32_t limit, flags;
} segment; /* SegmentCache of the engine */

static inline uint64_t env64(const td_vcpu *v, size_t offset) {
    uint64_t x;
    memcpy(&x, v->env + offset, 8);
    return x;
}
static inline uint32_t env32(const td_vcpu *v, size_t offset) {
    uint32_t x;
    memcpy(&x, v->env + offset, 4);
    return x;
}
static inline void put64(td_vcpu *v, size_t offset, uint64_t x) { memcpy(v->env + offset, &x, 8); }
static inline void put32(td_vcpu *v, size_t offset, uint32_t x) { memcpy(v->env + offset, &x, 4); }
static inline segment *env_seg(td_vcpu *v, int i) { return (segment *)(v->env + ENV_SEGS) + i; }
void td_load_context(td_vcpu *v);
void td_store_context(td_vcpu *v);

#endif
