/* What Python sees of the native core. Plain C without includes or macros: cffi parses this very file. The numbers of
 * page states (TD_PAGE_*) and statuses come from Python, pagestate.py and engine.py, as compiler options. */

enum { TD_READ = 0, TD_WRITE = 1, TD_FETCH = 2 };
enum { TD_WATCH_READ = 1, TD_WATCH_WRITE = 2 };

/* Why td_run returned. */
enum {
    TD_STOP_LIMIT = 0,   /* the instruction budget is used up */
    TD_STOP_INSN = 1,    /* RIP is at an instruction that the TDX module or the VMM answers */
    TD_STOP_SEPT = 2,    /* a private access that a real TD does not survive */
    TD_STOP_EPT_VE = 3,  /* access to pending or shared memory that raises #VE(48) */
    TD_STOP_HANDOFF = 4, /* first fetch outside the measured pages */
    TD_STOP_TRIPLE = 5,  /* no way left to deliver an exception */
    TD_STOP_ENGINE = 6,  /* the CPU engine failed; stop_code is its uc_err */
    TD_STOP_BREAK = 7,   /* RIP is at a breakpoint, or a step is done */
    TD_STOP_WINDOW = 9,  /* td_want_window: the vCPU can take a maskable interrupt now */
    TD_STOP_YIELD = 10,  /* td_spin_limit was reached */
    TD_STOP_MODE = 11,   /* the first instruction of another width is next; only when td_report_exceptions is on */
    TD_STOP_EXCEPTION = 8 /* an exception was delivered: insn is its vector, length whether it has an error code
                             (stop_code), gla CR2, gpa where it happened; only when td_report_exceptions is on */
};

/* Instructions the engine must not execute by itself. */
enum {
    TD_INSN_NONE = 0,
    TD_INSN_TDCALL, TD_INSN_CPUID, TD_INSN_RDMSR, TD_INSN_WRMSR, TD_INSN_HLT, TD_INSN_IN, TD_INSN_OUT,
    TD_INSN_INS, TD_INSN_OUTS, TD_INSN_INVD, TD_INSN_WBINVD, TD_INSN_XSETBV, TD_INSN_MONITOR,
    TD_INSN_MWAIT, TD_INSN_RDTSC, TD_INSN_RDTSCP, TD_INSN_RDPMC, TD_INSN_RDRAND, TD_INSN_RDSEED,
    TD_INSN_MOV_CR0, TD_INSN_MOV_CR4, TD_INSN_LMSW, TD_INSN_VMCALL, TD_INSN_UD,
    TD_INSN_SYSCALL, TD_INSN_XGETBV, TD_INSN_MOV_CR8,
    TD_INSN_STORE_TABLE /* SGDT, SIDT, SLDT, STR, SMSW: not for users under CR4.UMIP */
};

enum { /* bits of the interruptibility state (Intel SDM volume 3, table 25-3) */
    TD_SHADOW_STI = 1,
    TD_SHADOW_MOV_SS = 2 /* POP SS, too */
};

typedef struct {
    uint64_t gpr[16]; /* in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15 */
    uint64_t rip, rflags, cr0, cr2, cr3, cr4, efer;
    uint64_t tr_base, gdt_base, idt_base;
    uint32_t gdt_limit, idt_limit;
    uint32_t cs, ss, cpl, mode; /* mode: 16, 32 or 64, of the code segment */
    uint32_t shadow;            /* TD_SHADOW_*: no interrupt before the next instruction; 0 if there may be one */
} td_regs;

typedef struct {
    int32_t vector; /* -1 when nothing was ever delivered */
    uint32_t error_code;
    uint64_t rip, cr2, count;
} td_fault;

typedef struct td_vm td_vm;
typedef struct td_vcpu td_vcpu;

typedef struct {
    uint8_t *ram;    /* private memory, index = GPA */
    uint8_t *shared; /* what the host sees, index = GPA */
    uint8_t *pages;  /* one byte of TD_PAGE_* per 4 KiB */
    uint64_t span;   /* bytes of guest-physical space backed */
    uint64_t shared_bit;
    uint64_t tsc_step_num, tsc_step_den; /* TSC ticks per executed instruction */
    uint64_t last_tsc; /* the highest that any vCPU has read */
    uint32_t sept_ve_disable;
} td_layout;

/* What paging says of a linear address: bits 11:9 of the exit qualification of an EPT violation (Intel SDM volume 3,
 * table 28-7, advanced VM-exit information). */
enum { TD_LINEAR_USER = 1, TD_LINEAR_WRITABLE = 2, TD_LINEAR_NO_EXECUTE = 4 };

typedef struct {
    uint32_t kind;      /* TD_STOP_* */
    uint32_t insn;      /* TD_INSN_* for TD_STOP_INSN */
    uint32_t length;    /* its length in bytes */
    uint32_t stop_code; /* uc_err for TD_STOP_ENGINE */
    uint64_t gpa, gla;  /* for TD_STOP_SEPT and TD_STOP_EPT_VE */
    uint32_t access;    /* TD_READ, TD_WRITE, TD_FETCH */
    uint32_t shared;    /* the access went through the shared bit */
    uint32_t in_walk;   /* gpa is that of a page-table entry */
    uint32_t linear;    /* else TD_LINEAR_* of gla */
    uint8_t bytes[16];  /* instruction bytes at RIP */
} td_stop;

typedef struct {
    uint64_t begin, end;
} td_range;

typedef struct {
    uint64_t begin, end; /* linear addresses of straight-line code */
    int64_t instructions; /* executed there in all */
    uint32_t mode;        /* 16, 32 or 64; 0 for a single instruction */
    uint32_t user;        /* at CPL 3 */
} td_counted;

typedef struct {
    uint32_t selector;
    uint64_t base;
} td_segment; /* in the order ES CS SS DS FS GS */

typedef struct { /* of a vCPU, beside its registers: what a saved state needs */
    uint64_t count, excluded, tsc_offset, last_rep, pass, random;
    int32_t rep_continues, handoff_armed;
    uint32_t spins;
    uint16_t shadow, paused;
    td_fault fault;
} td_progress;

/* vm.c. A GPA is below `span`, sizes are whole pages. */

/* Reserves `span` bytes of private memory and of its shared alias, every page unmapped; NULL without address space. */
td_vm *td_vm_new(uint64_t span, uint32_t gpaw);
/* Its vCPUs are freed before. */
void td_vm_free(td_vm *vm);
/* Lives as long as the VM. */
td_layout *td_vm_layout(td_vm *vm);
/* The walk of TDG.MEM.PAGE.ACCEPT after its operand check (intel/tdx-module, tdg_mem_page_accept.c). Returns the status,
 * or all ones when the VMM has nothing to map there. Pending pages are zero already: nothing ever wrote them. */
uint64_t td_accept(td_vm *vm, uint64_t gpa, uint32_t level);
/* Takes pages away: their private content is lost, so that the next private page there is a fresh one, and so are all
 * translations to them. The caller sets the states. */
void td_discard(td_vm *vm, uint64_t gpa, uint64_t size);
/* The same of shared pages: the host's own pages behind the alias lose their content. */
void td_discard_shared(td_vm *vm, uint64_t gpa, uint64_t size);
/* Gives `count` pages one TD_PAGE_* byte; vCPUs keep their translations. */
void td_set_pages(td_vm *vm, uint64_t gpa, uint64_t count, uint32_t state);

/* vcpu.c */

/* NULL, and td_error says why: the engine has another layout or no memory. */
td_vcpu *td_vcpu_new(td_vm *vm, uint32_t index);
void td_vcpu_free(td_vcpu *v);
/* What the last td_vcpu_new failed of; valid until the next. */
const char *td_error(void);
/* The registers, in place until the vCPU runs on. Only gpr, rip, rflags and cr2 may be written. */
td_regs *td_get_regs(td_vcpu *v);
/* Hands changed registers to the engine. */
void td_put_regs(td_vcpu *v);
/* The state at the first TDH.VP.ENTER (intel/tdx-module TDX_1.5.01, td_vmcs_init.c): 32-bit protected mode, flat, paging
 * off. General registers are set by the caller. */
void td_enter(td_vcpu *v, uint64_t rip);
/* Runs until the instruction count reaches `limit`, at the end of a block, or something has to be decided; *stop says
 * what. */
void td_run(td_vcpu *v, uint64_t limit, td_stop *stop);
/* Delivers an exception, or an interrupt, through the guest's IDT. 0: the guest goes on in a handler; 1: *stop says why
 * it cannot. */
int td_deliver(td_vcpu *v, int vector, int has_error, uint32_t error_code, td_stop *stop);
int td_interrupt(td_vcpu *v, int vector, td_stop *stop);
/* TD_STOP_WINDOW as soon as a maskable interrupt can be taken. */
void td_want_window(td_vcpu *v, int on);
/* TD_STOP_YIELD after this number of PAUSEs in blocks in a row; 0: never. */
void td_spin_limit(td_vcpu *v, uint32_t pauses);
/* 1 when all bytes could be read with supervisor rights. */
int td_read_linear(td_vcpu *v, uint64_t gla, uint8_t *out, uint64_t size);
uint64_t td_count(td_vcpu *v);
/* The instruction at RIP, of this length, was done outside the engine. */
void td_retire(td_vcpu *v, uint64_t length);
/* Instructions in the ranges of td_count_ranges, which are part of td_count too. */
uint64_t td_count_excluded(td_vcpu *v);
void td_count_ranges(td_vcpu *v, const td_range *ranges, uint32_t n);
uint64_t td_tsc(td_vcpu *v);
/* As RDTSC: never behind what any vCPU has read before. */
uint64_t td_read_tsc(td_vcpu *v);
void td_skip_time(td_vcpu *v, uint64_t ticks);
/* TD_STOP_HANDOFF at the first fetch outside the measured pages. */
void td_arm_handoff(td_vcpu *v, int on);
/* Lets the engine execute the instruction at RIP by itself. */
void td_pass_once(td_vcpu *v);
/* Set CR0, CR4 as MOV does: the engine enters or leaves long mode with CR0. */
void td_write_cr0(td_vcpu *v, uint64_t value);
void td_write_cr4(td_vcpu *v, uint64_t value);
/* The last exception of the guest's own code; vector -1 if there was none. */
td_fault *td_last_fault(td_vcpu *v);
uint64_t td_get_msr(td_vcpu *v, uint32_t index);
void td_set_msr(td_vcpu *v, uint32_t index, uint64_t value);

/* coherence.c */

/* Private memory was written by the host: code there is not what was translated. */
void td_host_wrote(td_vm *vm, uint64_t gpa, uint64_t size);
/* Nothing that this vCPU has translated or cached is right any more. */
void td_forget_code(td_vcpu *v);

/* decode.c: length, and TD_INSN_*, of the instruction at `code`; 0 where none can be read. */
int td_insn_length(const uint8_t *code, uint32_t available, int mode);
int td_insn_kind(const uint8_t *code, uint32_t length, int mode);

/* debug.c: nothing of this costs anything until it is asked for. */

/* Exceptions, and changes of the code's width, end td_run from now on. */
void td_report_exceptions(td_vcpu *v, int on);
void td_profile_start(td_vcpu *v);
/* Ranges with their counts so far; returns how many there are, of which at most max are written. */
uint32_t td_profile_read(td_vcpu *v, td_counted *out, uint32_t max);
/* TD_STOP_BREAK before the instruction at a linear address; 0 when there are too many. */
int td_break_set(td_vcpu *v, uint64_t address);
void td_break_clear(td_vcpu *v, uint64_t address);
/* The instruction at RIP is not stopped at again: the debugger knows of it. */
void td_break_pass(td_vcpu *v);
/* TD_STOP_BREAK once the instruction at RIP is done, or at the first one of the handler it leads to. */
void td_step(td_vcpu *v, int on);
/* TD_STOP_BREAK behind an instruction that touches these bytes; 0 when there are too many watches. */
int td_watch_set(td_vcpu *v, uint64_t gpa, uint64_t size, uint32_t access);
void td_watch_clear(td_vcpu *v, uint64_t gpa, uint64_t size, uint32_t access);
/* The GPA of the watch that the last stop is for, all ones if it is for none. */
uint64_t td_watch_hit(td_vcpu *v);
/* ES CS SS DS FS GS. */
void td_segments(td_vcpu *v, td_segment *six);

/* snapshot.c */

/* CPU state, in place until the vCPU runs on. */
uint8_t *td_cpu_state(td_vcpu *v, uint64_t *size);
void td_get_progress(td_vcpu *v, td_progress *p);
/* Puts CPU state and progress back; whatever the engine has translated or cached is forgotten. */
void td_resume_from(td_vcpu *v, const uint8_t *state, const td_progress *p);
/* Page numbers of memory that hold anything but zeros; returns how many, of which at most max are written. */
uint64_t td_used_pages(const uint8_t *memory, uint64_t size, uint32_t *out, uint64_t max);
void td_gather_pages(const uint8_t *memory, const uint32_t *pages, uint64_t n, uint8_t *out);
/* Makes memory hold exactly these pages (ascending) and zeros elsewhere; touches only what differs. */
void td_restore_pages(uint8_t *memory, uint64_t size, const uint32_t *pages, uint64_t n, const uint8_t *content);
