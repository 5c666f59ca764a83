/* What do the first processes of the TDs under test share? System calls, and lines in the kernel's log. */
typedef unsigned long ulong;

static long call5(long number, long a, long b, long c, long d, long e) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

static long call(long number, long a, long b, long c, long d) { return call5(number, a, b, c, d, 0); }

/* x86-64 system calls (Linux arch/x86/entry/syscalls/syscall_64.tbl) */
enum {
    READ = 0, WRITE = 1, OPEN = 2, CLOSE = 3, RT_SIGACTION = 13, IOCTL = 16, NANOSLEEP = 35, FORK = 57, EXIT = 60,
    WAIT4 = 61, MKDIR = 83, MKNOD = 133, MOUNT = 165, REBOOT = 169, SCHED_SETAFFINITY = 203, SCHED_GETAFFINITY = 204,
    CLOCK_GETTIME = 228, GETCPU = 309, KEXEC_FILE_LOAD = 320
};
enum { CHARACTER = 0020600 };
/* reboot(2) */
enum { MAGIC1 = 0xfee1dead, MAGIC2 = 672274793, POWER_OFF = 0x4321fedc, KEXEC = 0x45584543 };

static int kmsg;

static void open_log(void) {
    call(MKDIR, (long)"/dev", 0755, 0, 0);
    call(MKNOD, (long)"/dev/kmsg", CHARACTER, 1 << 8 | 11, 0);
    kmsg = (int)call(OPEN, (long)"/dev/kmsg", 1, 0, 0);
}

static long length(const char *text) {
    long n = 0;
    while (text[n]) n++;
    return n;
}

static void say(const char *text) { call(WRITE, kmsg, (long)text, length(text), 0); }

/* Those that are online. */
static int count_processors(void) {
    ulong mask = 0;
    int count = 0;
    char text[] = "init: processors 0\n";
    call(SCHED_GETAFFINITY, 0, 8, (long)&mask, 0);
    for (int i = 0; i < 64; i++) count += mask >> i & 1;
    text[17] = (char)('0' + count);
    say(text);
    return count;
}

static void power_off(void) {
    long nap[2] = {0, 50000000};
    call(NANOSLEEP, (long)nap, 0, 0, 0);
    call(REBOOT, (long)MAGIC1, MAGIC2, (long)POWER_OFF, 0);
    for (;;) {}
}

__attribute__((naked)) void _start(void) { __asm__("and $-16, %rsp; call run"); }
