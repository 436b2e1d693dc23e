#include "t.h"
#include <grp.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/sysinfo.h>
#include <linux/sched.h>
#define FAMILY "process"

static void exit_7(void *a) { (void)a; _exit(7); }
static void die_term(void *a) { (void)a; signal(SIGTERM, SIG_DFL); raise(SIGTERM); }
static void die_segv(void *a) { (void)a; *(volatile int *)8 = 1; }

static void *sleeper(void *gate) {
    char c;
    if (read(*(int *)gate, &c, 1) < 0) return gate;
    return NULL;
}
/* Chromium's sandbox counts threads so. */
TEST(links_of_task_directories_count_threads) {
    struct stat st;
    OK(stat("/proc/self/task", &st));
    EQ(st.st_nlink, 3);
    int gate[2];
    OK(pipe(gate));
    pthread_t thread;
    EQ(pthread_create(&thread, NULL, sleeper, &gate[0]), 0);
    OK(stat("/proc/self/task/", &st));
    EQ(st.st_nlink, 4);
    EQ(write(gate[1], "x", 1), 1);
    EQ(pthread_join(thread, NULL), 0);
    OK(stat("/proc/self", &st));
    CHECK(st.st_nlink > 6);
    OK(stat("/proc", &st));
    CHECK(st.st_nlink > 3);
}
TEST(exit_status) {
    int s = t_child(exit_7, NULL);
    CHECK(WIFEXITED(s));
    EQ(WEXITSTATUS(s), 7);
}
TEST(signal_status) {
    int s = t_child(die_term, NULL);
    CHECK(WIFSIGNALED(s));
    EQ(WTERMSIG(s), SIGTERM);
}
TEST(segv_status) {
    struct rlimit z = {0, 0};
    setrlimit(RLIMIT_CORE, &z);
    int s = t_child(die_segv, NULL);
    CHECK(WIFSIGNALED(s));
    EQ(WTERMSIG(s), SIGSEGV);
}
TEST(wait_echild) {
    FAILS(waitpid(-1, NULL, 0), ECHILD);
    FAILS(waitpid(getpid(), NULL, 0), ECHILD);
    FAILS(waitpid(-1, NULL, 0x40), EINVAL);
}
TEST(wnohang) {
    int p[2];
    OK(pipe(p));
    pid_t pid = OK(fork());
    if (!pid) {
        char c;
        close(p[1]);
        if (read(p[0], &c, 1) < 0) _exit(1);
        _exit(3);
    }
    EQ(waitpid(pid, NULL, WNOHANG), 0);
    close(p[1]);
    close(p[0]);
    EQ(WEXITSTATUS(t_wait(pid)), 3);
}
TEST(fork_copies_memory) {
    volatile int *x = malloc(4);
    *x = 1;
    pid_t pid = OK(fork());
    if (!pid) {
        *x = 2;
        _exit(*x);
    }
    EQ(WEXITSTATUS(t_wait(pid)), 2);
    EQ(*x, 1);
    *x = 5;
    pid = OK(fork());
    if (!pid) _exit(*x);
    *x = 6;
    EQ(WEXITSTATUS(t_wait(pid)), 5);
}
TEST(fork_many) {
    for (int i = 0; i < 100; i++) {
        pid_t pid = OK(fork());
        if (!pid) _exit(i);
        EQ(WEXITSTATUS(t_wait(pid)), i);
    }
}
TEST(fork_wide) {
    pid_t pids[60];
    for (int i = 0; i < 60; i++) {
        pids[i] = OK(fork());
        if (!pids[i]) _exit(i);
    }
    for (int i = 59; i >= 0; i--) EQ(WEXITSTATUS(t_wait(pids[i])), i);
}
TEST(vfork_shares) {
    volatile int x = 1;
    pid_t pid = vfork();
    if (!pid) {
        x = 2;
        _exit(0);
    }
    EQ(x, 2);
    EQ(t_wait(pid), 0);
}
TEST(getppid_reparent) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    int p[2];
    OK(pipe(p));
    pid_t pid = OK(fork());
    if (!pid) {
        if (!fork()) {
            char c;
            close(p[1]);
            if (read(p[0], &c, 1) < 0) _exit(1);
            _exit(9);
        }
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    close(p[0]);
    close(p[1]);
    int s;
    OK(wait(&s));
    EQ(WEXITSTATUS(s), 9);
}
TEST(waitid_info) {
    pid_t pid = OK(fork());
    if (!pid) _exit(4);
    siginfo_t si;
    memset(&si, 0, sizeof si);
    OK(waitid(P_PID, pid, &si, WEXITED | WNOWAIT));
    EQ(si.si_pid, pid);
    EQ(si.si_status, 4);
    EQ(si.si_code, CLD_EXITED);
    EQ(si.si_signo, SIGCHLD);
    OK(waitid(P_ALL, 0, &si, WEXITED));
    FAILS(waitid(P_PID, pid, &si, WEXITED), ECHILD);
    FAILS(waitid(P_PID, pid, &si, 0), EINVAL);
}
TEST(wait_stopped_continued) {
    pid_t pid = OK(fork());
    if (!pid) for (;;) pause();
    int s;
    OK(kill(pid, SIGSTOP));
    EQ(waitpid(pid, &s, WUNTRACED), pid);
    CHECK(WIFSTOPPED(s));
    EQ(WSTOPSIG(s), SIGSTOP);
    OK(kill(pid, SIGCONT));
    EQ(waitpid(pid, &s, WCONTINUED), pid);
    CHECK(WIFCONTINUED(s));
    OK(kill(pid, SIGKILL));
    EQ(waitpid(pid, &s, 0), pid);
    EQ(WTERMSIG(s), SIGKILL);
}
TEST(wait_by_group) {
    pid_t pid = OK(fork());
    if (!pid) {
        setpgid(0, 0);
        _exit(1);
    }
    int s;
    setpgid(pid, pid);
    EQ(waitpid(-pid, &s, 0), pid);
}
TEST(zombie_is_signalable) {
    pid_t pid = OK(fork());
    if (!pid) _exit(0);
    siginfo_t si;
    OK(waitid(P_PID, pid, &si, WEXITED | WNOWAIT));
    OK(kill(pid, 0));
    EQ(t_wait(pid), 0);
    FAILS(kill(pid, 0), ESRCH);
}
TEST(sigchld_ignored_autoreaps) {
    signal(SIGCHLD, SIG_IGN);
    pid_t pid = OK(fork());
    if (!pid) _exit(0);
    FAILS(waitpid(pid, NULL, 0), ECHILD);
}
TEST(exec_missing) {
    char *av[] = {"x", NULL};
    FAILS(execv("/no/such/file", av), ENOENT);
    t_write_file("f", "not an executable");
    FAILS(execv("f", av), EACCES);
    OK(chmod("f", 0755));
    FAILS(execv("f", av), ENOEXEC);
    OK(mkdir("d", 0755));
    FAILS(execv("d", av), EACCES);
    FAILS(execv("f/x", av), ENOTDIR);
}
static void exec_self_list(void *a) {
    (void)a;
    int n = OK(open("/dev/null", O_WRONLY));
    dup2(n, 1);
    char *av[] = {"me", "-l", NULL}, *ev[] = {NULL};
    execve("/proc/self/exe", av, ev);
    _exit(99);
}
TEST(exec_self) { EQ(t_child(exec_self_list, NULL), 0); }
TEST(exec_script) {
    t_write_file("s", "#!/bin/sh\nexit 42\n");
    OK(chmod("s", 0755));
    if (access("/bin/sh", X_OK)) t_skip("no /bin/sh");
    pid_t pid = OK(fork());
    if (!pid) {
        char *av[] = {"s", NULL};
        execv("./s", av);
        _exit(99);
    }
    EQ(WEXITSTATUS(t_wait(pid)), 42);
}
TEST(exec_keeps_ids_and_closes) {
    if (access("/bin/sh", X_OK)) t_skip("no /bin/sh");
    int fd = OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
    int keep = OK(dup2(fd, 77));
    (void)keep;
    char cmd[200];
    snprintf(cmd, sizeof cmd, "test $$ = %d || exit 1; test ! -e /proc/self/fd/%d || exit 2; test -e /proc/self/fd/77 || exit 3", 0, fd);
    pid_t pid = OK(fork());
    if (!pid) {
        snprintf(cmd, sizeof cmd, "test $$ = %d || exit 1; test ! -e /proc/self/fd/%d || exit 2; test -e /proc/self/fd/77 || exit 3", getpid(), fd);
        execl("/bin/sh", "sh", "-c", cmd, NULL);
        _exit(99);
    }
    EQ(t_wait(pid), 0);
}
static atomic_int tword;
static void *thread_fn(void *arg) {
    t_set(&tword, 1);
    return (char *)arg + 1;
}
TEST(threads_join) {
    pthread_t t[20];
    for (long i = 0; i < 20; i++) EQ(pthread_create(&t[i], NULL, thread_fn, (void *)i), 0);
    for (long i = 0; i < 20; i++) {
        void *r;
        EQ(pthread_join(t[i], &r), 0);
        EQ((long)r, i + 1);
    }
}
static void *gettid_fn(void *arg) {
    *(pid_t *)arg = syscall(SYS_gettid);
    return (void *)(long)getpid();
}
TEST(thread_ids) {
    pthread_t t;
    pid_t tid = 0;
    void *pid;
    pthread_create(&t, NULL, gettid_fn, &tid);
    pthread_join(t, &pid);
    EQ((long)pid, getpid());
    CHECK(tid != getpid() && tid > 0);
    EQ(syscall(SYS_gettid), getpid());
}
static void *exit_group_fn(void *a) { (void)a; exit(5); }
static void thread_exits(void *a) {
    (void)a;
    pthread_t t;
    pthread_create(&t, NULL, exit_group_fn, NULL);
    for (;;) pause();
}
TEST(exit_group_from_thread) { EQ(WEXITSTATUS(t_child(thread_exits, NULL)), 5); }
static void *outlive(void *a) {
    (void)a;
    struct timespec ts = {0, 20000000};
    nanosleep(&ts, NULL);
    _exit(6);
}
static void leader_exits(void *a) {
    (void)a;
    pthread_t t;
    pthread_create(&t, NULL, outlive, NULL);
    pthread_exit(NULL);
}
TEST(leader_exits_first) { EQ(WEXITSTATUS(t_child(leader_exits, NULL)), 6); }
static void *exec_fn(void *a) {
    (void)a;
    exec_self_list(NULL);
    return NULL;
}
static void exec_in_thread(void *a) {
    (void)a;
    pthread_t t;
    pthread_create(&t, NULL, exec_fn, NULL);
    for (;;) pause();
}
TEST(exec_from_thread) { EQ(t_child(exec_in_thread, NULL), 0); }
TEST(sessions_and_groups) {
    pid_t pid = OK(fork());
    if (!pid) {
        OK(setsid());
        EQ(getsid(0), getpid());
        EQ(getpgrp(), getpid());
        FAILS(setsid(), EPERM);
        FAILS(setpgid(0, 0), EPERM);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    FAILS(setpgid(1 << 22, 0), ESRCH);
    FAILS(setpgid(0, -1), EINVAL);
    FAILS(getsid(1 << 22), ESRCH);
}
TEST(setpgid_child) {
    int p[2];
    OK(pipe(p));
    pid_t pid = OK(fork());
    if (!pid) {
        char c;
        close(p[1]);
        if (read(p[0], &c, 1) < 0) _exit(1);
        _exit(getpgrp() == getpid() ? 0 : 1);
    }
    OK(setpgid(pid, pid));
    EQ(getpgid(pid), pid);
    close(p[1]);
    EQ(t_wait(pid), 0);
}
TEST(uid_changes) {
    pid_t pid = OK(fork());
    if (!pid) {
        OK(setresgid(10, 20, 30));
        gid_t r, e, s;
        OK(getresgid(&r, &e, &s));
        EQ(r, 10); EQ(e, 20); EQ(s, 30);
        gid_t g[3] = {5, 9, 7};
        OK(setgroups(3, g));
        gid_t got[8];
        EQ(getgroups(8, got), 3);
        EQ(got[0], 5); EQ(got[1], 7); EQ(got[2], 9);
        FAILS(getgroups(1, got), EINVAL);
        OK(setresuid(100, 200, 300));
        EQ(getuid(), 100);
        EQ(geteuid(), 200);
        FAILS(setuid(0), EPERM);
        OK(setuid(300));
        EQ(geteuid(), 300);
        EQ(getuid(), 100);
        FAILS(setgroups(0, NULL), EPERM);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
TEST(setuid_drops_caps) {
    pid_t pid = OK(fork());
    if (!pid) {
        OK(setuid(1000));
        FAILS(sethostname("x", 1), EPERM);
        FAILS(chroot("."), EPERM);
        FAILS(setuid(0), EPERM);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
TEST(prctl_name) {
    char buf[16];
    OK(prctl(PR_SET_NAME, "a-very-long-name-indeed"));
    OK(prctl(PR_GET_NAME, buf));
    STREQ(buf, "a-very-long-nam");
    STREQ(t_read_file("/proc/self/comm"), "a-very-long-nam\n");
}
TEST(prctl_misc) {
    EQ(prctl(PR_GET_DUMPABLE), 1);
    OK(prctl(PR_SET_DUMPABLE, 0));
    EQ(prctl(PR_GET_DUMPABLE), 0);
    FAILS(prctl(PR_SET_DUMPABLE, 7), EINVAL);
    EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    FAILS(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    FAILS(prctl(123456), EINVAL);
}
TEST(pdeathsig) {
    int p[2];
    OK(pipe(p));
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t pid = OK(fork());
    if (!pid) {
        int q[2];
        OK(pipe(q));
        pid_t kid = fork();
        if (!kid) {
            OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
            if (write(q[1], "x", 1) != 1) _exit(2);
            for (;;) pause();
        }
        char c;
        if (read(q[0], &c, 1) != 1) _exit(2);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    int s;
    OK(wait(&s));
    EQ(WTERMSIG(s), SIGUSR1);
}
TEST(rlimits) {
    struct rlimit rl, old;
    OK(getrlimit(RLIMIT_CORE, &old));
    rl = (struct rlimit){100, old.rlim_max};
    OK(setrlimit(RLIMIT_CORE, &rl));
    OK(getrlimit(RLIMIT_CORE, &rl));
    EQ(rl.rlim_cur, 100);
    rl = (struct rlimit){200, 100};
    FAILS(setrlimit(RLIMIT_CORE, &rl), EINVAL);
    FAILS(getrlimit(99, &rl), EINVAL);
    OK(prlimit(0, RLIMIT_STACK, NULL, &rl));
    CHECK(rl.rlim_cur >= 65536);
}
TEST(uname_fields) {
    struct utsname u;
    OK(uname(&u));
    STREQ(u.sysname, "Linux");
    STREQ(u.machine, "x86_64");
    int major = atoi(u.release);
    CHECK(major >= 5);
}
TEST(sysinfo_fields) {
    struct sysinfo si;
    OK(sysinfo(&si));
    CHECK(si.totalram > 0 && si.mem_unit > 0 && si.procs > 0);
    CHECK(si.uptime >= 0);
}
TEST(affinity) {
    cpu_set_t set;
    OK(sched_getaffinity(0, sizeof set, &set));
    CHECK(CPU_COUNT(&set) >= 1);
    EQ(sysconf(_SC_NPROCESSORS_ONLN) > 0, 1);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int i = 0; i < 1024; i++) if (CPU_ISSET(i, &set)) { CPU_SET(i, &one); break; }
    OK(sched_setaffinity(0, sizeof one, &one));
    OK(sched_getaffinity(0, sizeof set, &set));
    CHECK(CPU_EQUAL(&set, &one));
    CPU_ZERO(&one);
    FAILS(sched_setaffinity(0, sizeof one, &one), EINVAL);
}
TEST(priority) {
    // The suite may run at any priority.
    OK(setpriority(PRIO_PROCESS, 0, 0));
    EQ(getpriority(PRIO_PROCESS, 0), 0);
    OK(setpriority(PRIO_PROCESS, 0, 5));
    EQ(getpriority(PRIO_PROCESS, 0), 5);
    EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), 15);
    struct sched_param sp = {0};
    EQ(sched_getscheduler(0), SCHED_OTHER);
    OK(sched_getparam(0, &sp));
    EQ(sched_get_priority_max(SCHED_FIFO), 99);
    EQ(sched_get_priority_min(SCHED_OTHER), 0);
}
TEST(rusage) {
    struct rusage ru;
    for (volatile long i = 0; i < 30000000; i++) {}
    OK(getrusage(RUSAGE_SELF, &ru));
    CHECK(ru.ru_utime.tv_sec > 0 || ru.ru_utime.tv_usec > 0);
    CHECK(ru.ru_maxrss > 0);
    FAILS(getrusage(99, &ru), EINVAL);
    pid_t pid = OK(fork());
    if (!pid) {
        for (volatile long i = 0; i < 30000000; i++) {}
        _exit(0);
    }
    int s;
    EQ(wait4(pid, &s, 0, &ru), pid);
    CHECK(ru.ru_utime.tv_sec > 0 || ru.ru_utime.tv_usec > 0);
}
TEST(pidfd) {
    pid_t pid = OK(fork());
    if (!pid) for (;;) pause();
    int fd = OK(syscall(SYS_pidfd_open, pid, 0));
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    struct pollfd p = {fd, POLLIN, 0};
    EQ(poll(&p, 1, 0), 0);
    OK(syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0));
    EQ(poll(&p, 1, 5000), 1);
    siginfo_t si;
    OK(waitid(P_PIDFD, fd, &si, WEXITED));
    EQ(si.si_status, SIGKILL);
    FAILS(syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0), ESRCH);
    FAILS(syscall(SYS_pidfd_open, -1, 0), EINVAL);
    FAILS(syscall(SYS_pidfd_open, pid, 0), ESRCH);
}
TEST(clone3_pidfd) {
    int pidfd = -1;
    struct clone_args a = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
    pid_t pid = OK(syscall(SYS_clone3, &a, sizeof a));
    if (!pid) _exit(3);
    CHECK(pidfd >= 0);
    siginfo_t si;
    OK(waitid(P_PIDFD, pidfd, &si, WEXITED));
    EQ(si.si_status, 3);
    FAILS(syscall(SYS_clone3, &a, 8), EINVAL);
    a.flags = CLONE_SIGHAND;
    FAILS(syscall(SYS_clone3, &a, sizeof a), EINVAL);
}
TEST(clone_settid) {
    pid_t parent = -1;
    pid_t pid = OK(syscall(SYS_clone, CLONE_PARENT_SETTID | SIGCHLD, 0, &parent, 0, 0));
    if (!pid) _exit(0);
    EQ(parent, pid);
    EQ(t_wait(pid), 0);
}
TEST(kill_errors) {
    FAILS(kill(getpid(), 65), EINVAL);
    FAILS(kill(getpid(), -1), EINVAL);
    FAILS(kill(1 << 22, 0), ESRCH);
    FAILS(syscall(SYS_tgkill, getpid(), -1, 0), EINVAL);
    FAILS(syscall(SYS_tgkill, getpid(), 1 << 22, 0), ESRCH);
    OK(syscall(SYS_tgkill, getpid(), getpid(), 0));
    pid_t pid = OK(fork());
    if (!pid) {
        OK(setuid(1000));
        FAILS(kill(getppid(), SIGTERM), EPERM);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
TEST(personality_reads_back) {
    EQ(syscall(SYS_personality, 0xffffffff), 0);
    EQ(syscall(SYS_personality, 0x0040000), 0);
    EQ(syscall(SYS_personality, 0xffffffff), 0x0040000);
}
TEST(proc_self) {
    char buf[64], want[32];
    ssize_t n = OK(readlink("/proc/self", buf, 63));
    buf[n] = 0;
    snprintf(want, sizeof want, "%d", getpid());
    STREQ(buf, want);
    const char *st = t_read_file("/proc/self/stat");
    EQ(atoi(st), getpid());
    CHECK(strstr(t_read_file("/proc/self/status"), "\nPPid:\t"));
    CHECK(strstr(t_read_file("/proc/self/maps"), "[stack]"));
    CHECK(strstr(t_read_file("/proc/self/mounts"), " / "));
    CHECK(strstr(t_read_file("/proc/meminfo"), "MemTotal:"));
    CHECK(strstr(t_read_file("/proc/cpuinfo"), "processor"));
    CHECK(strstr(t_read_file("/proc/stat"), "cpu "));
    CHECK(atof(t_read_file("/proc/uptime")) > 0);
}
TEST(unknown_syscall) {
    FAILS(syscall(999999), ENOSYS);
    FAILS(syscall(-1), ENOSYS);
}
TEST(many_threads_counters) {
    static atomic_int n;
    void *f(void *a) { (void)a; for (int i = 0; i < 10000; i++) atomic_fetch_add(&n, 1); return NULL; }
    pthread_t t[8];
    for (int i = 0; i < 8; i++) pthread_create(&t[i], NULL, f, NULL);
    for (int i = 0; i < 8; i++) pthread_join(t[i], NULL);
    EQ(n, 80000);
}
TEST(uts_namespace) {
    pid_t pid = OK(fork());
    if (!pid) {
        OK(unshare(CLONE_NEWUTS));
        OK(sethostname("elsewhere", 9));
        char b[64];
        OK(gethostname(b, sizeof b));
        STREQ(b, "elsewhere");
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    char b[64];
    OK(gethostname(b, sizeof b));
    CHECK(strcmp(b, "elsewhere"));
}
TEST(pid_namespace) {
    pid_t pid = OK(fork());
    if (!pid) {
        OK(unshare(CLONE_NEWPID));
        pid_t kid = OK(fork());
        if (!kid) _exit(getpid() == 1 && getppid() == 0 ? 0 : 1);
        CHECK(kid > 1);
        _exit(t_wait(kid));
    }
    EQ(t_wait(pid), 0);
}
TEST(getrandom_fills) {
    unsigned char b[256] = {0};
    EQ(syscall(SYS_getrandom, b, sizeof b, 0), 256);
    int z = 0;
    for (int i = 0; i < 256; i++) z += b[i] == 0;
    CHECK(z < 32);
    FAILS(syscall(SYS_getrandom, b, 8, 0x80), EINVAL);
}
static int t_proc(const char *path, char *b, size_t n) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return -1;
    ssize_t got = read(fd, b, n - 1);
    close(fd);
    if (got < 0) return -1;
    b[got] = 0;
    return 0;
}
TEST(login_uid) {
    char b[64];
    if (t_proc("/proc/self/loginuid", b, sizeof b)) t_skip("a kernel without CONFIG_AUDIT");
    if (strcmp(b, "4294967295")) t_skip("logged in already");
    int fd = OK(open("/proc/self/loginuid", O_WRONLY));
    FAILS(write(fd, "x", 1), EINVAL);
    EQ(write(fd, "1000", 4), 4);
    OK(t_proc("/proc/self/loginuid", b, sizeof b));
    STREQ(b, "1000");
    OK(t_proc("/proc/self/sessionid", b, sizeof b));
    CHECK(strcmp(b, "4294967295"));
    pid_t pid = OK(fork());
    if (!pid) {
        OK(t_proc("/proc/self/loginuid", b, sizeof b));
        STREQ(b, "1000");
        _exit(0);
    }
    char other[64];
    snprintf(other, sizeof other, "/proc/%d/loginuid", pid);
    int of = open(other, O_WRONLY);
    if (of >= 0) FAILS(write(of, "5", 1), EPERM);
    EQ(t_wait(pid), 0);
}
