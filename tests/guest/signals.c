#include "t.h"
#include <immintrin.h>
#include <ucontext.h>
#include <setjmp.h>
#include <sys/prctl.h>
#define FAMILY "signals"

static volatile sig_atomic_t got, got_code, got_value, depth;
static siginfo_t last;
static void on(int s) { got = s; }
static void on_info(int s, siginfo_t *si, void *uc) {
    (void)uc;
    got = s;
    last = *si;
    got_code = si->si_code;
    got_value = si->si_value.sival_int;
}
static void set(int sig, void (*fn)(int, siginfo_t *, void *), int flags) {
    struct sigaction sa = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags};
    OK(sigaction(sig, &sa, NULL));
}
TEST(handler_runs) {
    signal(SIGUSR1, on);
    raise(SIGUSR1);
    EQ(got, SIGUSR1);
}
TEST(siginfo_kill) {
    set(SIGUSR1, on_info, 0);
    OK(kill(getpid(), SIGUSR1));
    EQ(got_code, SI_USER);
    EQ(last.si_pid, getpid());
    EQ(last.si_uid, getuid());
    OK(syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1));
    EQ(got_code, SI_TKILL);
}
TEST(sigqueue_value) {
    set(SIGRTMIN, on_info, 0);
    union sigval v = {.sival_int = 1234};
    OK(sigqueue(getpid(), SIGRTMIN, v));
    EQ(got_value, 1234);
    EQ(got_code, SI_QUEUE);
}
TEST(rt_signals_queue_in_order) {
    static int seen[16], n;
    void h(int s, siginfo_t *si, void *u) { (void)s, (void)u; seen[n++] = si->si_value.sival_int; }
    set(SIGRTMIN + 1, h, 0);
    set(SIGRTMIN + 2, h, 0);
    sigset_t m, o;
    sigfillset(&m);
    sigprocmask(SIG_BLOCK, &m, &o);
    for (int i = 0; i < 3; i++) OK(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = 20 + i}));
    for (int i = 0; i < 3; i++) OK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 10 + i}));
    sigprocmask(SIG_SETMASK, &o, NULL);
    EQ(n, 6);
    /* Frames stack: the lowest number's handlers are set up first, so it runs last... each handler masks only itself. */
    int sum = 0;
    for (int i = 0; i < 6; i++) sum += seen[i];
    EQ(sum, 96);
}
TEST(standard_signals_merge) {
    static int n;
    void h(int s) { (void)s; n++; }
    signal(SIGUSR1, h);
    sigset_t m, o;
    sigfillset(&m);
    sigprocmask(SIG_BLOCK, &m, &o);
    for (int i = 0; i < 5; i++) raise(SIGUSR1);
    sigset_t p;
    sigpending(&p);
    CHECK(sigismember(&p, SIGUSR1));
    sigprocmask(SIG_SETMASK, &o, NULL);
    EQ(n, 1);
}
TEST(mask_in_handler) {
    static int was_blocked, other;
    void h(int s) {
        sigset_t c;
        sigprocmask(0, NULL, &c);
        was_blocked = sigismember(&c, s);
        other = sigismember(&c, SIGUSR2);
    }
    struct sigaction sa = {.sa_handler = h};
    sigemptyset(&sa.sa_mask);
    sigaddset(&sa.sa_mask, SIGUSR2);
    OK(sigaction(SIGUSR1, &sa, NULL));
    raise(SIGUSR1);
    EQ(was_blocked, 1);
    EQ(other, 1);
    sigset_t c;
    sigprocmask(0, NULL, &c);
    CHECK(!sigismember(&c, SIGUSR1) && !sigismember(&c, SIGUSR2));
}
static volatile int nest, nest_max;
static void nesting(int s) {
    if (++nest > nest_max) nest_max = nest;
    if (nest < 3) raise(s);
    nest--;
}
TEST(nodefer_and_resethand) {
    struct sigaction sa = {.sa_handler = nesting, .sa_flags = SA_NODEFER};
    OK(sigaction(SIGUSR1, &sa, NULL));
    raise(SIGUSR1);
    EQ(nest_max, 3);
    sa.sa_handler = on;
    sa.sa_flags = SA_RESETHAND;
    OK(sigaction(SIGUSR2, &sa, NULL));
    raise(SIGUSR2);
    OK(sigaction(SIGUSR2, NULL, &sa));
    CHECK(sa.sa_handler == SIG_DFL);
}
TEST(sigaction_errors) {
    struct sigaction sa = {.sa_handler = on};
    FAILS(sigaction(SIGKILL, &sa, NULL), EINVAL);
    FAILS(sigaction(SIGSTOP, &sa, NULL), EINVAL);
    FAILS(syscall(SYS_rt_sigaction, 65, NULL, NULL, 8), EINVAL);
    FAILS(syscall(SYS_rt_sigaction, 1, NULL, NULL, 4), EINVAL);
    OK(sigaction(SIGKILL, NULL, &sa));
    sigset_t s;
    FAILS(syscall(SYS_rt_sigprocmask, 77, &s, NULL, 8), EINVAL);
}
TEST(cannot_block_kill) {
    sigset_t m, c;
    sigfillset(&m);
    OK(sigprocmask(SIG_SETMASK, &m, NULL));
    OK(sigprocmask(SIG_BLOCK, NULL, &c));
    CHECK(!sigismember(&c, SIGKILL) && !sigismember(&c, SIGSTOP) && sigismember(&c, SIGTERM));
}
static int pfd[2];
static void *late_kill(void *a) {
    struct timespec ts = {0, 50000000};
    nanosleep(&ts, NULL);
    pthread_kill(*(pthread_t *)a, SIGUSR1);
    nanosleep(&ts, NULL);
    if (write(pfd[1], "x", 1) < 0) return a;
    return NULL;
}
static ssize_t read_interrupted(int flags) {
    struct sigaction sa = {.sa_handler = on, .sa_flags = flags};
    OK(sigaction(SIGUSR1, &sa, NULL));
    OK(pipe(pfd));
    pthread_t me = pthread_self(), t;
    pthread_create(&t, NULL, late_kill, &me);
    char c;
    ssize_t n = read(pfd[0], &c, 1);
    int e = errno;
    pthread_join(t, NULL);
    errno = e;
    return n;
}
TEST(eintr_without_restart) {
    FAILS(read_interrupted(0), EINTR);
    EQ(got, SIGUSR1);
}
TEST(sa_restart_restarts) {
    EQ(read_interrupted(SA_RESTART), 1);
    EQ(got, SIGUSR1);
}
TEST(nanosleep_remaining) {
    struct sigaction sa = {.sa_handler = on};
    OK(sigaction(SIGALRM, &sa, NULL));
    struct itimerval it = {{0, 0}, {0, 50000}};
    OK(setitimer(ITIMER_REAL, &it, NULL));
    struct timespec ts = {10, 0}, rem = {0, 0};
    FAILS(nanosleep(&ts, &rem), EINTR);
    CHECK(rem.tv_sec == 9);
}
TEST(pause_and_alarm) {
    signal(SIGALRM, on);
    struct itimerval it = {{0, 0}, {0, 30000}};
    OK(setitimer(ITIMER_REAL, &it, NULL));
    FAILS(pause(), EINTR);
    EQ(got, SIGALRM);
}
TEST(sigsuspend_restores) {
    signal(SIGUSR1, on);
    sigset_t m, o, e;
    sigemptyset(&m);
    sigaddset(&m, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &m, &o));
    raise(SIGUSR1);
    EQ(got, 0);
    sigemptyset(&e);
    FAILS(sigsuspend(&e), EINTR);
    EQ(got, SIGUSR1);
    OK(sigprocmask(0, NULL, &o));
    CHECK(sigismember(&o, SIGUSR1));
}
TEST(sigtimedwait_takes) {
    sigset_t m;
    sigemptyset(&m);
    sigaddset(&m, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &m, NULL));
    struct timespec ts = {0, 1000000};
    siginfo_t si;
    FAILS(sigtimedwait(&m, &si, &ts), EAGAIN);
    raise(SIGUSR1);
    EQ(sigtimedwait(&m, &si, &ts), SIGUSR1);
    FAILS(sigtimedwait(&m, &si, &ts), EAGAIN);
}
static void *send_later(void *a) {
    struct timespec ts = {0, 30000000};
    nanosleep(&ts, NULL);
    kill(getpid(), *(int *)a);
    return NULL;
}
TEST(sigwait_blocks) {
    sigset_t m;
    sigemptyset(&m);
    sigaddset(&m, SIGUSR2);
    OK(pthread_sigmask(SIG_BLOCK, &m, NULL));
    int sig = SIGUSR2, r;
    pthread_t t;
    pthread_create(&t, NULL, send_later, &sig);
    EQ(sigwait(&m, &r), 0);
    EQ(r, SIGUSR2);
    pthread_join(t, NULL);
}
static sigjmp_buf jb;
static void jump(int s, siginfo_t *si, void *u) {
    (void)u;
    got = s;
    last = *si;
    siglongjmp(jb, 1);
}
TEST(segv_maperr) {
    set(SIGSEGV, jump, 0);
    if (!sigsetjmp(jb, 1)) *(volatile char *)0x123456 = 1;
    EQ(got, SIGSEGV);
    EQ(last.si_code, SEGV_MAPERR);
    EQ((long)last.si_addr, 0x123456);
}
TEST(segv_accerr) {
    set(SIGSEGV, jump, 0);
    char *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    if (!sigsetjmp(jb, 1)) *(volatile char *)(p + 5) = 1;
    EQ(last.si_code, SEGV_ACCERR);
    CHECK(last.si_addr == p + 5);
}
TEST(segv_noncanonical) {
    set(SIGSEGV, jump, 0);
    if (!sigsetjmp(jb, 1)) *(volatile char *)0x8000000000000000 = 1;
    EQ(got, SIGSEGV);
    EQ(last.si_code, SI_KERNEL);
}
TEST(bus_behind_eof) {
    set(SIGBUS, jump, 0);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, 100));
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    p[50] = 1;
    if (!sigsetjmp(jb, 1)) p[5000] = 1;
    EQ(got, SIGBUS);
    EQ(last.si_code, BUS_ADRERR);
}
TEST(fpe_divide) {
    set(SIGFPE, jump, 0);
    volatile int z = 0, r = 1;
    if (!sigsetjmp(jb, 1)) r = 7 / z;
    (void)r;
    EQ(got, SIGFPE);
    EQ(last.si_code, FPE_INTDIV);
}
TEST(ill_ud2) {
    set(SIGILL, jump, 0);
    if (!sigsetjmp(jb, 1)) __asm__ volatile("ud2");
    EQ(got, SIGILL);
    EQ(last.si_code, ILL_ILLOPN);
}
TEST(trap_int3) {
    set(SIGTRAP, on_info, 0);
    __asm__ volatile("int3");
    EQ(got, SIGTRAP);
    EQ(got_code, SI_KERNEL);
}
static stack_t alt;
static volatile int on_alt;
static void alt_handler(int s, siginfo_t *si, void *u) {
    (void)s, (void)si, (void)u;
    char here;
    on_alt = &here >= (char *)alt.ss_sp && &here < (char *)alt.ss_sp + alt.ss_size;
}
TEST(sigaltstack_used) {
    alt.ss_size = 65536;
    alt.ss_sp = malloc(alt.ss_size);
    OK(sigaltstack(&alt, NULL));
    set(SIGUSR1, alt_handler, SA_ONSTACK);
    raise(SIGUSR1);
    EQ(on_alt, 1);
    set(SIGUSR2, alt_handler, 0);
    raise(SIGUSR2);
    EQ(on_alt, 0);
    stack_t o;
    OK(sigaltstack(NULL, &o));
    EQ(o.ss_flags, 0);
    stack_t small = {.ss_sp = alt.ss_sp, .ss_size = 100};
    FAILS(sigaltstack(&small, NULL), ENOMEM);
    o.ss_flags = SS_DISABLE;
    OK(sigaltstack(&o, NULL));
}
static void overflow(int n) {
    volatile char buf[4096];
    buf[0] = n;
    overflow(n + buf[0]);
}
TEST(stack_overflow_on_altstack) {
    alt.ss_size = 65536;
    alt.ss_sp = malloc(alt.ss_size);
    OK(sigaltstack(&alt, NULL));
    set(SIGSEGV, jump, SA_ONSTACK);
    struct rlimit rl = {256 * 1024, 256 * 1024};
    OK(setrlimit(RLIMIT_STACK, &rl));
    if (!sigsetjmp(jb, 1)) overflow(1);
    EQ(got, SIGSEGV);
}
static void change_ctx(int s, siginfo_t *si, void *u) {
    (void)s, (void)si;
    ucontext_t *uc = u;
    uc->uc_mcontext.gregs[REG_R12] = 0x1234;
}
TEST(sigreturn_loads_changed_registers) {
    set(SIGUSR1, change_ctx, 0);
    unsigned long out;
    long nr = SYS_tgkill;
    __asm__ volatile("mov $1, %%r12\n\tsyscall\n\tmov %%r12, %1"
                     : "+a"(nr), "=&r"(out)
                     : "D"(getpid()), "S"(getpid()), "d"(SIGUSR1)
                     : "r12", "rcx", "r11", "memory");
    EQ(nr, 0);
    EQ(out, 0x1234);
}
static void clobber_fpu(int s) {
    (void)s;
    __asm__ volatile("vpxor %%ymm0,%%ymm0,%%ymm0\n\tvpxor %%ymm7,%%ymm7,%%ymm7\n\tfninit" ::: "xmm0", "xmm7");
}
TEST(vector_state_survives) {
    if (!__builtin_cpu_supports("avx")) t_skip("no AVX");
    signal(SIGUSR1, clobber_fpu);
    unsigned long long in[4] = {1, 2, 3, 0xdeadbeef}, out[4] = {0};
    long nr = SYS_tgkill;
    __asm__ volatile("vmovdqu %2, %%ymm7\n\tsyscall\n\tvmovdqu %%ymm7, %1"
                     : "+a"(nr), "=m"(out)
                     : "m"(in), "D"(getpid()), "S"(getpid()), "d"(SIGUSR1)
                     : "rcx", "r11", "memory", "xmm7");
    for (int i = 0; i < 4; i++) EQ(out[i], in[i]);
}
TEST(red_zone_survives) {
    signal(SIGUSR1, on);
    long ok = 0, nr = SYS_tgkill;
    __asm__ volatile("movq $77, -8(%%rsp)\n\tmovq $78, -128(%%rsp)\n\tsyscall\n\t"
                     "cmpq $77, -8(%%rsp)\n\tjne 1f\n\tcmpq $78, -128(%%rsp)\n\tjne 1f\n\tmovq $1, %1\n1:"
                     : "+a"(nr), "+r"(ok)
                     : "D"(getpid()), "S"(getpid()), "d"(SIGUSR1)
                     : "rcx", "r11", "memory");
    EQ(ok, 1);
}
TEST(fork_inherits_exec_resets) {
    signal(SIGUSR1, on);
    signal(SIGUSR2, SIG_IGN);
    pid_t pid = OK(fork());
    if (!pid) {
        raise(SIGUSR1);
        _exit(got == SIGUSR1 ? 0 : 1);
    }
    EQ(t_wait(pid), 0);
    if (access("/bin/sh", X_OK)) return;
    pid = OK(fork());
    if (!pid) {
        execl("/bin/sh", "sh", "-c", "kill -USR2 $$; kill -USR1 $$; exit 0", NULL);
        _exit(9);
    }
    int s = t_wait(pid);
    CHECK(WIFSIGNALED(s));
    EQ(WTERMSIG(s), SIGUSR1);
}
TEST(sigchld_info) {
    set(SIGCHLD, on_info, 0);
    pid_t pid = OK(fork());
    if (!pid) _exit(3);
    while (!got) usleep(1000);
    EQ(got_code, CLD_EXITED);
    EQ(last.si_pid, pid);
    EQ(last.si_status, 3);
    EQ(WEXITSTATUS(t_wait(pid)), 3);
}
TEST(kill_group) {
    static atomic_int *ready;
    ready = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[3];
    for (int i = 0; i < 3; i++) {
        pids[i] = OK(fork());
        if (!pids[i]) {
            setpgid(0, pids[0]);
            atomic_fetch_add(ready, 1);
            for (;;) pause();
        }
        setpgid(pids[i], pids[0]);
    }
    while (atomic_load(ready) < 3) usleep(1000);
    OK(kill(-pids[0], SIGTERM));
    for (int i = 0; i < 3; i++) EQ(WTERMSIG(t_wait(pids[i])), SIGTERM);
    FAILS(kill(-pids[0], SIGTERM), ESRCH);
}
TEST(default_ignored) {
    raise(SIGCHLD);
    raise(SIGURG);
    raise(SIGWINCH);
    raise(SIGCONT);
}
TEST(thread_directed) {
    static volatile pid_t who;
    void h(int s) { (void)s; who = syscall(SYS_gettid); }
    static atomic_int stop;
    static volatile pid_t tid;
    void *f(void *a) { (void)a; tid = syscall(SYS_gettid); t_set(&stop, 1); while (atomic_load(&stop) != 2) usleep(500); return NULL; }
    signal(SIGUSR1, h);
    pthread_t t;
    pthread_create(&t, NULL, f, NULL);
    t_await(&stop, 0);
    pthread_kill(t, SIGUSR1);
    while (!who) usleep(500);
    EQ(who, tid);
    t_set(&stop, 2);
    pthread_join(t, NULL);
}
TEST(spin_is_interrupted) {
    signal(SIGALRM, on);
    struct itimerval it = {{0, 0}, {0, 20000}};
    OK(setitimer(ITIMER_REAL, &it, NULL));
    while (!got) {}
    EQ(got, SIGALRM);
}
TEST(signal_storm) {
    static volatile int n;
    void h(int s) { (void)s; n++; }
    signal(SIGUSR1, h);
    pid_t me = getpid(), pid = OK(fork());
    if (!pid) {
        for (int i = 0; i < 2000; i++) kill(me, SIGUSR1);
        _exit(0);
    }
    int s;
    while (waitpid(pid, &s, 0) < 0) CHECK(errno == EINTR);
    EQ(s, 0);
    CHECK(n > 0);
}
TEST(timer_signal) {
    set(SIGRTMIN + 3, on_info, 0);
    timer_t id;
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = 55};
    OK(timer_create(CLOCK_MONOTONIC, &ev, &id));
    struct itimerspec ts = {{0, 0}, {0, 10000000}};
    OK(timer_settime(id, 0, &ts, NULL));
    while (!got) pause();
    EQ(got_code, SI_TIMER);
    EQ(got_value, 55);
    OK(timer_delete(id));
    FAILS(timer_delete(id), EINVAL);
}
TEST(autodisarm) {
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
    alt.ss_size = 65536;
    alt.ss_sp = malloc(alt.ss_size);
    alt.ss_flags = SS_AUTODISARM;
    OK(sigaltstack(&alt, NULL));
    static volatile int flags;
    void h(int s) { (void)s; stack_t o; sigaltstack(NULL, &o); flags = o.ss_flags; }
    struct sigaction sa = {.sa_handler = h, .sa_flags = SA_ONSTACK};
    OK(sigaction(SIGUSR1, &sa, NULL));
    raise(SIGUSR1);
    EQ(flags, SS_DISABLE);
}
