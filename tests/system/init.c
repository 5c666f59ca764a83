/* The first process of a TD under test: tells through /dev/kmsg what works, echoes a line of the console, powers off. */
#include "user.h"

enum { SIGFPE = 8, SIGSEGV = 11, TCSBRK = 0x5409 };
enum { PAGES = 256 };

static volatile int caught;
static char memory[PAGES << 12];

/* One record: "init: works: WHAT" or "init: BROKEN: WHAT". */
static void judge(int good, const char *what) {
    char text[80];
    int n = 0;
    for (const char *p = good ? "init: works: " : "init: BROKEN: "; *p; p++) text[n++] = *p;
    for (; *what; what++) text[n++] = *what;
    text[n++] = '\n', text[n] = 0;
    say(text);
}

__attribute__((naked)) static void restorer(void) { __asm__("mov $15, %eax; syscall"); } /* rt_sigreturn */

/* Both faulting instructions below are 2 bytes long: go on behind them (struct ucontext: RIP is register 16). */
static void on_signal(int number, void *info, char *context) {
    (void)info;
    caught = number;
    *(ulong *)(context + 40 + 16 * 8) += 2;
}

static void faults(void) {
    struct {
        void *handler;
        ulong flags;
        void *restorer;
        ulong mask;
    } action = {(void *)on_signal, 0x04000004, (void *)restorer, 0}; /* SA_RESTORER, SA_SIGINFO */
    call(RT_SIGACTION, SIGSEGV, (long)&action, 0, 8);
    call(RT_SIGACTION, SIGFPE, (long)&action, 0, 8);
    __asm__ volatile("xor %%eax, %%eax; movl (%%rax), %%eax" ::: "rax", "memory");
    judge(caught == SIGSEGV, "page fault");
    __asm__ volatile("xor %%ecx, %%ecx; xor %%edx, %%edx; divl %%ecx" ::: "rax", "rcx", "rdx", "memory");
    judge(caught == SIGFPE, "division by zero");
}

/* A child for each processor: runs there, sees its own copy of memory, keeps its floating point registers. */
static int child(unsigned processor) {
    ulong mask = 1UL << processor;
    unsigned here = ~0u;
    double x = processor + 0.5;
    call(SCHED_SETAFFINITY, 0, 8, (long)&mask, 0);
    call(GETCPU, (long)&here, 0, 0, 0);
    int good = here == processor;
    for (int i = 0; i < PAGES; i++) {
        good &= memory[i << 12] == (char)i;
        memory[i << 12] = (char)processor;
    }
    for (int i = 0; i < 1000000; i++) x = x * 0.5 + 1.0;
    return good && x > 1.9 && x < 2.1 ? 0 : 1;
}

static void processors(void) {
    int status, good = 0;
    const int count = count_processors();
    long children[64];
    for (int i = 0; i < PAGES; i++) memory[i << 12] = (char)i;
    for (int i = 0; i < count; i++)
        if (!(children[i] = call(FORK, 0, 0, 0, 0))) call(EXIT, child((unsigned)i), 0, 0, 0);
    for (int i = 0; i < count; i++) good += call(WAIT4, children[i], (long)&status, 0, 0) == children[i] && !status;
    for (int i = 0; i < PAGES; i++) good -= memory[i << 12] != (char)i;
    judge(good == count, "a child on every processor");
}

static void clocks(void) {
    long before[2], after[2], nap[2] = {0, 20000000}; /* 20 ms */
    call(CLOCK_GETTIME, 1, (long)before, 0, 0);
    call(NANOSLEEP, (long)nap, 0, 0, 0);
    call(CLOCK_GETTIME, 1, (long)after, 0, 0);
    long slept = (after[0] - before[0]) * 1000000000 + after[1] - before[1];
    judge(slept >= nap[1] && slept < 3 * nap[1], "sleep");
}

static void console(void) {
    char line[64];
    const long tty = 0;
    call(WRITE, tty, (long)"say something: ", 15, 0);
    long got = call(READ, tty, (long)line, sizeof line, 0);
    call(WRITE, tty, (long)"you said: ", 10, 0);
    call(WRITE, tty, (long)line, got > 0 ? got : 0, 0);
    call(IOCTL, tty, TCSBRK, 1, 0); /* wait until it is out: a kernel message may come in between otherwise */
}

void run(void) {
    open_log();
    say("init: hello from user space\n");
    faults();
    processors();
    clocks();
    console();
    say("init: done\n");
    power_off();
}
