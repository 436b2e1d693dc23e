/* Supervision and limits: seccomp's user notification, ptrace's rarer requests, limits of CPU time, scheduling values. */
#include "t.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#define FAMILY "supervise"

static int filter(unsigned flags, int number, unsigned action) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {4, code};
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

/* A child asks for getppid's answer through a listener, which the parent takes with pidfd_getfd. */
static int listener_of(pid_t pid, int fd) {
    int pidfd = OK(syscall(SYS_pidfd_open, pid, 0));
    int got = OK(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
    close(pidfd);
    return got;
}

struct shared { atomic_int fd, go; };
static struct shared *share(void) {
    struct shared *s = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    s->fd = -1;
    return s;
}
static pid_t supervised(struct shared *s, int *listener, void (*body)(void)) {
    pid_t pid = OK(fork());
    if (!pid) {
        int fd = filter(SECCOMP_FILTER_FLAG_NEW_LISTENER, SYS_getppid, SECCOMP_RET_USER_NOTIF);
        t_set(&s->fd, fd);
        t_await(&s->go, 0);
        body();
        _exit(0);
    }
    t_await(&s->fd, -1);
    CHECK(s->fd >= 0);
    *listener = listener_of(pid, s->fd);
    t_set(&s->go, 1);
    return pid;
}

static void expect_four(void) {
    if (syscall(SYS_getppid) != 4) _exit(1);
    errno = 0;
    if (syscall(SYS_getppid) != -1 || errno != EXDEV) _exit(2);
    if (syscall(SYS_getppid) != getppid()) _exit(3);
}
TEST(notification_answers) {
    struct shared *s = share();
    int l;
    pid_t pid = supervised(s, &l, expect_four);
    for (int i = 0; i < 4; i++) {
        struct pollfd p = {l, POLLIN | POLLOUT, 0};
        EQ(poll(&p, 1, 10000), 1);
        EQ(p.revents, POLLIN);
        struct seccomp_notif n;
        memset(&n, 0, sizeof n);
        OK(ioctl(l, SECCOMP_IOCTL_NOTIF_RECV, &n));
        EQ(n.pid, pid);
        EQ(n.data.nr, SYS_getppid);
        EQ(n.data.arch, AUDIT_ARCH_X86_64);
        EQ(poll(&p, 1, 0), 1);
        EQ(p.revents, POLLOUT);
        EQ(ioctl(l, SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id), 0);
        struct seccomp_notif_resp r = {.id = n.id};
        if (i == 0) r.val = 4;
        if (i == 1) r.error = -EXDEV;
        if (i >= 2) r.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        EQ(ioctl(l, SECCOMP_IOCTL_NOTIF_SEND, &r), 0);
    }
    EQ(t_wait(pid), 0);
    struct pollfd p = {l, POLLIN, 0};
    EQ(poll(&p, 1, 10000), 1);
    CHECK(p.revents & POLLHUP);
}
static void read_added(void) {
    char c = 0;
    long fd = syscall(SYS_getppid);
    if (fd < 0 || read(fd, &c, 1) != 1 || c != 'q') _exit(1);
    if (fcntl(fd, F_GETFD) != FD_CLOEXEC) _exit(2);
}
TEST(notification_adds_descriptor) {
    struct shared *s = share();
    int l, p[2];
    pid_t pid = supervised(s, &l, read_added);
    OK(pipe(p));
    EQ(write(p[1], "q", 1), 1);
    struct seccomp_notif n;
    memset(&n, 0, sizeof n);
    OK(ioctl(l, SECCOMP_IOCTL_NOTIF_RECV, &n));
    struct seccomp_notif_addfd a = {.id = n.id, .srcfd = p[0], .newfd_flags = O_CLOEXEC};
    struct seccomp_notif_addfd bad = a;
    bad.flags = 0x80;
    FAILS(ioctl(l, SECCOMP_IOCTL_NOTIF_ADDFD, &bad), EINVAL);
    bad = a;
    bad.id = n.id + 100;
    FAILS(ioctl(l, SECCOMP_IOCTL_NOTIF_ADDFD, &bad), ENOENT);
    long fd = OK(ioctl(l, SECCOMP_IOCTL_NOTIF_ADDFD, &a));
    struct seccomp_notif_resp r = {.id = n.id, .val = fd};
    EQ(ioctl(l, SECCOMP_IOCTL_NOTIF_SEND, &r), 0);
    EQ(t_wait(pid), 0);
}
static void nosys(void) {
    errno = 0;
    if (syscall(SYS_getppid) != -1 || errno != ENOSYS) _exit(1);
}
TEST(notification_without_listener) {
    struct shared *s = share();
    pid_t pid = OK(fork());
    if (!pid) {
        int fd = filter(SECCOMP_FILTER_FLAG_NEW_LISTENER, SYS_getppid, SECCOMP_RET_USER_NOTIF);
        if (fd < 0) _exit(8);
        if (filter(SECCOMP_FILTER_FLAG_NEW_LISTENER, SYS_getppid, SECCOMP_RET_USER_NOTIF) != -1 || errno != EBUSY) _exit(9);
        close(fd);
        nosys();
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    (void)s;
}
static void interrupted(void) {
    struct sigaction sa = {.sa_handler = (void (*)(int))abs};
    sigaction(SIGUSR1, &sa, NULL);
    errno = 0;
    if (syscall(SYS_getppid) != -1 || errno != EINTR) _exit(1);
}
TEST(notification_interrupted) {
    struct shared *s = share();
    int l;
    pid_t pid = supervised(s, &l, interrupted);
    struct seccomp_notif n;
    memset(&n, 0, sizeof n);
    OK(ioctl(l, SECCOMP_IOCTL_NOTIF_RECV, &n));
    kill(pid, SIGUSR1);
    EQ(t_wait(pid), 0);
    struct seccomp_notif_resp r = {.id = n.id};
    FAILS(ioctl(l, SECCOMP_IOCTL_NOTIF_SEND, &r), ENOENT);
    FAILS(ioctl(l, SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id), ENOENT);
}
TEST(notification_sizes) {
    struct seccomp_notif_sizes z;
    EQ(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &z), 0);
    EQ(z.seccomp_notif, sizeof(struct seccomp_notif));
    EQ(z.seccomp_notif_resp, sizeof(struct seccomp_notif_resp));
    EQ(z.seccomp_data, sizeof(struct seccomp_data));
}

TEST(peek_queued_signals) {
    pid_t pid = OK(fork());
    if (!pid) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, NULL);
        union sigval v = {.sival_int = 7};
        sigqueue(getpid(), SIGRTMIN, v);
        v.sival_int = 8;
        sigqueue(getpid(), SIGRTMIN + 1, v);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(0);
    }
    int st;
    OK(waitpid(pid, &st, 0));
    CHECK(WIFSTOPPED(st));
    siginfo_t si[4];
    struct __ptrace_peeksiginfo_args a = {.off = 0, .flags = PTRACE_PEEKSIGINFO_SHARED, .nr = 4};
    EQ(ptrace(PTRACE_PEEKSIGINFO, pid, &a, si), 2);
    EQ(si[0].si_value.sival_int, 7);
    EQ(si[1].si_signo, SIGRTMIN + 1);
    a.off = 1;
    EQ(ptrace(PTRACE_PEEKSIGINFO, pid, &a, si), 1);
    EQ(si[0].si_value.sival_int, 8);
    a.flags = 4;
    FAILS(ptrace(PTRACE_PEEKSIGINFO, pid, &a, si), EINVAL);
    kill(pid, SIGKILL);
    t_wait(pid);
}

static void burn(void) {
    for (;;) __asm__ volatile("" ::: "memory");
}
static void hog(void *a) {
    (void)a;
    struct rlimit l = {1, 5};
    OK(setrlimit(RLIMIT_CPU, &l));
    burn();
}
TEST(cpu_limit_soft) {
    int st = t_child(hog, NULL);
    CHECK(WIFSIGNALED(st));
    EQ(WTERMSIG(st), SIGXCPU);
}
static void hog_hard(void *a) {
    (void)a;
    struct rlimit l = {1, 1};
    signal(SIGXCPU, SIG_IGN);
    OK(setrlimit(RLIMIT_CPU, &l));
    burn();
}
TEST(cpu_limit_hard) {
    int st = t_child(hog_hard, NULL);
    CHECK(WIFSIGNALED(st));
    EQ(WTERMSIG(st), SIGKILL);
}

struct attr { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; uint32_t min, max; };
TEST(sched_attr_checks) {
    struct attr a = {0};
    FAILS(syscall(SYS_sched_getattr, 0, NULL, sizeof a, 0), EINVAL);
    FAILS(syscall(SYS_sched_getattr, 0, &a, 47, 0), EINVAL);
    FAILS(syscall(SYS_sched_getattr, 0, &a, sizeof a, 1), EINVAL);
    EQ(syscall(SYS_sched_getattr, 0, &a, sizeof a, 0), 0);
    EQ(a.policy, 0);
    FAILS(syscall(SYS_sched_setattr, 0, NULL, 0), EINVAL);
    a.size = 4097;
    FAILS(syscall(SYS_sched_setattr, 0, &a, 0), E2BIG);
    struct attr d = {.size = 48, .policy = 6, .runtime = 100, .deadline = 1000000};
    FAILS(syscall(SYS_sched_setattr, 0, &d, 0), EINVAL);
    struct attr n = {.size = 48, .policy = 3, .nice = 5};
    EQ(syscall(SYS_sched_setattr, 0, &n, 0), 0);
    EQ(syscall(SYS_sched_getattr, 0, &a, 48, 0), 0);
    EQ(a.policy, 3);
    EQ(a.nice, 5);
    FAILS(sched_getparam(0, NULL), EINVAL);
}
TEST(kcmp_with_itself) {
    EQ(syscall(SYS_kcmp, getpid(), getpid(), 1, 0, 0), 0);
}
TEST(futex2_wait) {
    uint32_t word = 1;
    struct timespec past = {0, 1};
    long r = syscall(455, &word, 1L, 0xffffffffL, 2, &past, CLOCK_MONOTONIC);
    if (r < 0 && errno == ENOSYS) t_skip("before Linux 6.7");
    FAILS(syscall(455, &word, 1L, 0xffffffffL, 2, &past, CLOCK_MONOTONIC), ETIMEDOUT);
    FAILS(syscall(455, &word, 0L, 0xffffffffL, 2, NULL, CLOCK_MONOTONIC), EAGAIN);
    FAILS(syscall(455, &word, 1L, 0L, 2, NULL, CLOCK_MONOTONIC), EINVAL);
}
static void *maps(void *a) {
    for (int i = 0; i < 400; i++) {
        volatile char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || *p != 0) return "bad";
        munmap((void *)p, 4096);
    }
    return a;
}
/* The same page is mapped, read and unmapped again and again while other threads do so too. */
TEST(threads_map_the_same_page) {
    pthread_t t[4];
    void *r;
    for (int i = 0; i < 4; i++) EQ(pthread_create(&t[i], NULL, maps, NULL), 0);
    for (int i = 0; i < 4; i++) {
        EQ(pthread_join(t[i], &r), 0);
        CHECK(r == NULL);
    }
}
static atomic_int told;
static void on_message(union sigval v) { t_set(&told, v.sival_int); }
TEST(mq_notify_thread) {
    struct mq_attr at = {.mq_maxmsg = 2, .mq_msgsize = 8};
    char name[64];
    snprintf(name, sizeof name, "/t-notify-%d", getpid());
    mqd_t q = OK(mq_open(name, O_CREAT | O_RDWR, 0600, &at));
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD, .sigev_value.sival_int = 42};
    ev.sigev_notify_function = on_message;
    OK(mq_notify(q, &ev));
    FAILS(mq_notify(q, &ev), EBUSY);
    OK(mq_send(q, "x", 1, 0));
    t_await(&told, 0);
    EQ(told, 42);
    OK(mq_unlink(name));
}
TEST(child_max_rss) {
    pid_t pid = OK(fork());
    if (!pid) {
        volatile char *p = malloc(50 << 20);
        for (int i = 0; i < 50 << 20; i += 4096) p[i] = 1;
        _exit(p[4096] != 1);
    }
    int st;
    struct rusage u, all;
    OK(wait4(pid, &st, 0, &u));
    EQ(st, 0);
    CHECK(u.ru_maxrss > 45 << 10);
    CHECK(u.ru_maxrss < 200 << 10);
    OK(getrusage(RUSAGE_CHILDREN, &all));
    CHECK(all.ru_maxrss >= u.ru_maxrss);
}
TEST(prctl_options) {
    EQ(prctl(PR_GET_TIMING), 0);
    FAILS(prctl(PR_SET_TIMING, 1), EINVAL);
    EQ(prctl(PR_MCE_KILL, 1, 1, 0, 0), 0);
    EQ(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), 1);
    EQ(prctl(PR_MCE_KILL, 0, 0, 0, 0), 0);
    EQ(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), 2);
    FAILS(prctl(PR_MCE_KILL, 0, 1, 0, 0), EINVAL);
    EQ(prctl(PR_TASK_PERF_EVENTS_DISABLE), 0);
    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0) {
        EQ(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0), 1);
        FAILS(prctl(PR_SET_IO_FLUSHER, 2, 0, 0, 0), EINVAL);
    }
    FAILS(prctl(PR_GET_SPECULATION_CTRL, 99, 0, 0, 0), ENODEV);
    FAILS(prctl(PR_GET_SPECULATION_CTRL, 0, 1, 0, 0), EINVAL);
    FAILS(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 1, 0), EINVAL);
    unsigned long auxv[128];
    long n = prctl(0x41555856, auxv, sizeof auxv, 0, 0);
    if (n < 0) t_skip("before Linux 6.4");
    CHECK(n > 32 && auxv[0] != 0);
}
TEST(priority_of_no_user) {
    FAILS(getpriority(PRIO_USER, -1), ESRCH);
    FAILS(setpriority(PRIO_USER, -1, 0), ESRCH);
}

static void crash(void) { *(volatile int *)8 = 1; }
static void *sleeper(void *a) {
    for (;;) pause();
    return a;
}
TEST(core_file) {
    char *at = realpath(".", NULL);
    if (strncmp(t_read_file("/proc/sys/kernel/core_pattern"), "core\n", 5)) t_skip("core_pattern is not core");
    pid_t pid = OK(fork());
    if (!pid) {
        struct rlimit l = {64 << 20, 64 << 20};
        pthread_t t;
        OK(setrlimit(RLIMIT_CORE, &l));
        OK(prctl(PR_SET_DUMPABLE, 1));
        pthread_create(&t, NULL, sleeper, NULL);
        crash();
    }
    int st = t_wait(pid);
    CHECK(WIFSIGNALED(st));
    EQ(WTERMSIG(st), SIGSEGV);
    CHECK(WCOREDUMP(st));
    char name[64];
    snprintf(name, sizeof name, "core.%d", pid);
    int fd = open("core", O_RDONLY);
    if (fd < 0) fd = OK(open(name, O_RDONLY));
    unsigned char head[64];
    EQ(read(fd, head, sizeof head), 64);
    CHECK(!memcmp(head, "\177ELF\2\1\1", 7));
    EQ(head[16], 4);
    struct stat s;
    OK(fstat(fd, &s));
    EQ(s.st_mode & 0777, 0600);
    CHECK(s.st_size > 4096);
    /* The first segment holds the notes: count the threads. */
    unsigned long off = *(unsigned long *)(head + 32), where, size;
    unsigned char note[56];
    EQ(pread(fd, note, sizeof note, off), 56);
    EQ(*(unsigned *)note, 4);
    where = *(unsigned long *)(note + 8);
    size = *(unsigned long *)(note + 32);
    char *text = malloc(size);
    EQ(pread(fd, text, size, where), (long)size);
    int threads = 0, signo = 0;
    for (unsigned long i = 0; i + 12 <= size;) {
        unsigned *n = (unsigned *)(text + i);
        char *desc = text + i + 12 + ((n[0] + 3) & ~3u);
        if (n[2] == 1) {
            threads++;
            EQ(n[1], 336);
            if (threads == 1) signo = *(int *)desc;
        }
        i += 12 + ((n[0] + 3) & ~3u) + ((n[1] + 3) & ~3u);
    }
    EQ(threads, 2);
    EQ(signo, SIGSEGV);
    free(at);
}
static void no_core(void *a) {
    (void)a;
    struct rlimit l = {0, 0};
    setrlimit(RLIMIT_CORE, &l);
    crash();
}
TEST(core_limit) {
    int st = t_child(no_core, NULL);
    CHECK(WIFSIGNALED(st));
    CHECK(!WCOREDUMP(st));
}
TEST(sealed_memory) {
    char *p = OK(mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    long r = syscall(462, p + 4096, 4096, 0);
    if (r < 0 && errno == ENOSYS) t_skip("before Linux 6.10");
    EQ(r, 0);
    FAILS(munmap(p, 3 * 4096), EPERM);
    FAILS(mprotect(p, 2 * 4096, PROT_READ), EPERM);
    FAILS(mmap(p + 4096, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EPERM);
    FAILS(mremap(p + 4096, 4096, 8192, MREMAP_MAYMOVE), EPERM);
    p[4096] = 1;
    EQ(madvise(p + 4096, 4096, MADV_DONTNEED), 0);
    FAILS(syscall(462, p, 4096, 1), EINVAL);
    FAILS(syscall(462, p + 1, 4096, 0), EINVAL);
    OK(munmap(p, 4096));
    FAILS(syscall(462, p, 2 * 4096, 0), ENOMEM);
}
static void *thread_body(void *a) {
    t_set(a, gettid());
    for (;;) pause();
    return NULL;
}
static atomic_int hit;
static void note_tid(int s) {
    (void)s;
    t_set(&hit, gettid());
}
TEST(pidfd_of_a_thread) {
    static atomic_int tid;
    pthread_t t;
    EQ(pthread_create(&t, NULL, thread_body, &tid), 0);
    t_await(&tid, 0);
    FAILS(syscall(SYS_pidfd_open, tid, 0), ENOENT);
    int fd = syscall(SYS_pidfd_open, tid, O_EXCL);
    if (fd < 0 && errno == EINVAL) t_skip("before Linux 6.9");
    CHECK(fd >= 0);
    signal(SIGUSR1, note_tid);
    EQ(syscall(SYS_pidfd_send_signal, fd, SIGUSR1, NULL, 0), 0);
    t_await(&hit, 0);
    EQ(hit, tid);
    FAILS(syscall(SYS_pidfd_send_signal, fd, SIGUSR1, NULL, 8), EINVAL);
    int dir = OK(open("/proc/self", O_RDONLY | O_DIRECTORY));
    EQ(syscall(SYS_pidfd_send_signal, dir, 0, NULL, 0), 0);
    close(dir);
    dir = OK(open("/proc", O_RDONLY | O_DIRECTORY));
    FAILS(syscall(SYS_pidfd_send_signal, dir, 0, NULL, 0), EBADF);
}
TEST(attach_to_the_stopped) {
    pid_t pid = OK(fork());
    if (!pid) {
        raise(SIGSTOP);
        _exit(0);
    }
    int st;
    EQ(waitpid(pid, &st, WUNTRACED), pid);
    OK(ptrace(PTRACE_ATTACH, pid, 0, 0));
    /* No wait: it is stopped for its tracer already. */
    errno = 0;
    long r = ptrace(PTRACE_PEEKUSER, pid, 0, 0);
    CHECK(r != -1 || errno == 0);
    kill(pid, SIGKILL);
    t_wait(pid);
}

static volatile long watched;
static void child_of_watch(void *a) {
    (void)a;
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    for (int i = 0; i < 50; i++) __asm__ volatile("" ::: "memory");
    watched = 1;
    watched = 2;
    _exit(7);
}
#define DEBUGREG(n) (848 + 8 * (n))
TEST(watchpoint) {
    pid_t pid = OK(fork());
    if (!pid) child_of_watch(NULL);
    int st;
    OK(waitpid(pid, &st, 0));
    OK(ptrace(PTRACE_POKEUSER, pid, DEBUGREG(0), &watched));
    EQ(ptrace(PTRACE_PEEKUSER, pid, DEBUGREG(0), 0), (long)&watched);
    FAILS(ptrace(PTRACE_POKEUSER, pid, DEBUGREG(4), 1), EIO);
    /* Eight bytes, on writes. */
    OK(ptrace(PTRACE_POKEUSER, pid, DEBUGREG(7), 1 | 9 << 16));
    for (long want = 1; want <= 2; want++) {
        OK(ptrace(PTRACE_CONT, pid, 0, 0));
        OK(waitpid(pid, &st, 0));
        CHECK(WIFSTOPPED(st));
        EQ(WSTOPSIG(st), SIGTRAP);
        siginfo_t si;
        OK(ptrace(PTRACE_GETSIGINFO, pid, 0, &si));
        EQ(si.si_code, 4);
        EQ(ptrace(PTRACE_PEEKUSER, pid, DEBUGREG(6), 0) & 15, 1);
        EQ(ptrace(PTRACE_PEEKDATA, pid, &watched, 0), want);
    }
    OK(ptrace(PTRACE_POKEUSER, pid, DEBUGREG(7), 0));
    OK(ptrace(PTRACE_CONT, pid, 0, 0));
    OK(waitpid(pid, &st, 0));
    CHECK(WIFEXITED(st));
    EQ(WEXITSTATUS(st), 7);
}
TEST(vdso_can_be_read) {
    unsigned long at = 0;
    for (unsigned long *v = (unsigned long *)({ char **e = environ; while (*e) e++; e + 1; }); v[0]; v += 2)
        if (v[0] == 33) at = v[1];
    if (!at) t_skip("no vDSO");
    int fd = OK(open("/proc/self/mem", O_RDONLY));
    char head[4];
    EQ(pread(fd, head, 4, at), 4);
    CHECK(!memcmp(head, "\177ELF", 4));
}
#include <sys/epoll.h>
TEST(pidfd_in_epoll) {
    pid_t pid = OK(fork());
    if (!pid) {
        pause();
        _exit(0);
    }
    int fd = OK(syscall(SYS_pidfd_open, pid, 0)), ep = OK(epoll_create1(0));
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = 7};
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
    EQ(epoll_wait(ep, &ev, 1, 0), 0);
    kill(pid, SIGKILL);
    EQ(epoll_wait(ep, &ev, 1, 10000), 1);
    EQ(ev.data.u32, 7);
    EQ(waitpid(pid, NULL, WNOHANG), pid);
}
TEST(detach_leaves_it_stopped) {
    pid_t pid = OK(fork());
    if (!pid) {
        raise(SIGSTOP);
        _exit(3);
    }
    int st;
    EQ(waitpid(pid, &st, WUNTRACED), pid);
    OK(ptrace(PTRACE_ATTACH, pid, 0, 0));
    EQ(waitpid(pid, &st, 0), pid);
    OK(ptrace(PTRACE_DETACH, pid, 0, 0));
    usleep(20000);
    EQ(waitpid(pid, &st, WNOHANG), 0);
    kill(pid, SIGCONT);
    EQ(waitpid(pid, &st, 0), pid);
    EQ(WEXITSTATUS(st), 3);
}
TEST(vector_state_after_exec) {
    if (!access("/proc/self/exe", R_OK)) {
        pid_t pid = OK(fork());
        if (!pid) {
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            execl("/proc/self/exe", "guest-tests", "-l", NULL);
            _exit(1);
        }
        int st;
        OK(waitpid(pid, &st, 0));
        CHECK(WIFSTOPPED(st));
        static unsigned long area[1024];
        struct iovec v = {area, sizeof area};
        OK(ptrace(PTRACE_GETREGSET, pid, 0x202, &v));
        CHECK(v.iov_len >= 576);
        EQ(area[58] & 3, 3);
        v = (struct iovec){area, 100};
        FAILS(ptrace(PTRACE_GETREGSET, pid, 0x202, &v), EINVAL);
        kill(pid, SIGKILL);
        t_wait(pid);
    }
}
