#include "t.h"
#include <dirent.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/statvfs.h>
#include <sys/times.h>
#include <sys/user.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#define FAMILY "more"

static int contains(const char *path, const char *want) { return strstr(t_read_file(path), want) != NULL; }
TEST(proc_status_fields) {
    const char *s = t_read_file("/proc/self/status");
    const char *want[] = {"Name:", "Umask:\t0022", "State:\tR", "Tgid:", "Pid:", "PPid:", "TracerPid:\t0", "Uid:", "Gid:", "FDSize:",
                          "VmPeak:", "VmSize:", "VmRSS:", "Threads:\t1", "SigBlk:", "SigCgt:", "CapEff:", "NoNewPrivs:", "Cpus_allowed:"};
    for (unsigned i = 0; i < sizeof want / sizeof *want; i++)
        if (!strstr(s, want[i])) t_fail(__FILE__, __LINE__, "no %s", want[i]);
}
TEST(proc_stat_has_52_fields) {
    const char *s = strrchr(t_read_file("/proc/self/stat"), ')');
    int n = 2;
    for (; *s; s++) n += *s == ' ';
    EQ(n, 52);
}
TEST(proc_fd_lists) {
    int fd = OK(open("/dev/null", O_RDONLY)), seen = 0;
    DIR *d = opendir("/proc/self/fd");
    CHECK(d);
    struct dirent *e;
    while ((e = readdir(d))) seen |= atoi(e->d_name) == fd && e->d_name[0] != '.';
    CHECK(seen);
    char link[64], b[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = OK(readlink(link, b, 63));
    b[n] = 0;
    STREQ(b, "/dev/null");
}
TEST(proc_fdinfo) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(write(fd, "abc", 3), 3);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    CHECK(contains(path, "pos:\t3\n"));
    CHECK(contains(path, "flags:\t"));
    CHECK(contains(path, "mnt_id:\t"));
}
TEST(proc_cmdline_environ) {
    CHECK(strlen(t_read_file("/proc/self/cmdline")) > 0);
    close(OK(open("/proc/self/environ", O_RDONLY)));
}
TEST(proc_pipe_names) {
    int p[2];
    OK(pipe(p));
    char link[64], b[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", p[0]);
    ssize_t n = OK(readlink(link, b, 63));
    b[n] = 0;
    CHECK(!strncmp(b, "pipe:[", 6));
    int again = OK(open(link, O_RDONLY | O_NONBLOCK));
    EQ(write(p[1], "x", 1), 1);
    EQ(read(again, b, 1), 1);
}
TEST(proc_task_dir) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", getpid());
    CHECK(strlen(t_read_file(path)) > 0);
    FAILS(open("/proc/4194303", O_RDONLY), ENOENT);
}
TEST(proc_mem_reads) {
    char secret[] = "sesame";
    int fd = OK(open("/proc/self/mem", O_RDWR));
    char b[8] = {0};
    EQ(pread(fd, b, 7, (off_t)(uintptr_t)secret), 7);
    STREQ(b, "sesame");
    EQ(pwrite(fd, "S", 1, (off_t)(uintptr_t)secret), 1);
    EQ(secret[0], 'S');
    FAILS(pread(fd, b, 1, 16), EIO);
}
TEST(proc_sys_values) {
    CHECK(atoi(t_read_file("/proc/sys/kernel/pid_max")) >= 32768);
    CHECK(atoi(t_read_file("/proc/sys/vm/max_map_count")) > 0);
    CHECK(atoi(t_read_file("/proc/sys/kernel/ngroups_max")) == 65536);
    CHECK(atoi(t_read_file("/proc/sys/fs/pipe-max-size")) >= 65536);
    STREQ(t_read_file("/proc/sys/kernel/ostype"), "Linux\n");
    CHECK(strlen(t_read_file("/proc/sys/kernel/random/uuid")) == 37);
}
TEST(proc_mountinfo) {
    CHECK(contains("/proc/self/mountinfo", " / "));
    CHECK(contains("/proc/self/mountinfo", " - proc "));
    CHECK(contains("/proc/filesystems", "tmpfs"));
}
TEST(proc_exe_link) {
    char b[PATH_MAX];
    ssize_t n = OK(readlink("/proc/self/exe", b, sizeof b - 1));
    b[n] = 0;
    CHECK(b[0] == '/');
    struct stat a, c;
    OK(stat("/proc/self/exe", &a));
    OK(stat(b, &c));
    EQ(a.st_ino, c.st_ino);
}
TEST(mount_tmpfs) {
    OK(mkdir("m", 0755));
    pid_t pid = OK(fork());
    if (!pid) {
        OK(unshare(CLONE_NEWNS));
        OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
        OK(mount("none", "m", "tmpfs", MS_NOSUID, "size=64k,mode=700"));
        struct stat st;
        OK(stat("m", &st));
        EQ(st.st_mode & 07777, 0700);
        int fd = OK(open("m/f", O_CREAT | O_WRONLY, 0644));
        static char big[100000];
        ssize_t n = write(fd, big, sizeof big);
        CHECK(n <= 65536);
        FAILS(umount("m"), EBUSY);
        close(fd);
        OK(mount("none", "m", NULL, MS_REMOUNT | MS_RDONLY | MS_BIND, NULL));
        FAILS(open("m/g", O_CREAT | O_WRONLY, 0644), EROFS);
        OK(umount("m"));
        FAILS(umount("m"), EINVAL);
        FAILS(mount("none", "m", "no-such-fs", 0, NULL), ENODEV);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
TEST(bind_mount) {
    OK(mkdir("a", 0755));
    OK(mkdir("b", 0755));
    t_write_file("a/f", "shown");
    pid_t pid = OK(fork());
    if (!pid) {
        OK(unshare(CLONE_NEWNS));
        OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
        OK(mount("a", "b", NULL, MS_BIND, NULL));
        STREQ(t_read_file("b/f"), "shown");
        FAILS(rename("a/f", "b/g"), EXDEV);
        OK(umount2("b", MNT_DETACH));
        FAILS(open("b/f", O_RDONLY), ENOENT);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
TEST(chroot_confines) {
    OK(mkdir("r", 0755));
    t_write_file("r/inside", "x");
    pid_t pid = OK(fork());
    if (!pid) {
        OK(chroot("r"));
        OK(chdir("/"));
        close(OK(open("/inside", O_RDONLY)));
        close(OK(open("/../../inside", O_RDONLY)));
        FAILS(open("/proc", O_RDONLY), ENOENT);
        char b[64];
        CHECK(getcwd(b, sizeof b));
        STREQ(b, "/");
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
TEST(ptrace_peeks) {
    static long value = 4242;
    pid_t pid = OK(fork());
    if (!pid) {
        OK(ptrace(PTRACE_TRACEME, 0, 0, 0));
        raise(SIGSTOP);
        _exit(value == 77 ? 0 : 1);
    }
    int s;
    EQ(waitpid(pid, &s, 0), pid);
    CHECK(WIFSTOPPED(s));
    EQ(WSTOPSIG(s), SIGSTOP);
    errno = 0;
    EQ(ptrace(PTRACE_PEEKDATA, pid, &value, 0), 4242);
    OK(ptrace(PTRACE_POKEDATA, pid, &value, 77));
    struct user_regs_struct r;
    OK(ptrace(PTRACE_GETREGS, pid, 0, &r));
    CHECK(r.rip != 0);
    OK(ptrace(PTRACE_CONT, pid, 0, 0));
    EQ(t_wait(pid), 0);
}
TEST(ptrace_syscall_stops) {
    pid_t pid = OK(fork());
    if (!pid) {
        OK(ptrace(PTRACE_TRACEME, 0, 0, 0));
        raise(SIGSTOP);
        syscall(SYS_getppid);
        _exit(5);
    }
    int s, seen = 0;
    EQ(waitpid(pid, &s, 0), pid);
    OK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    for (;;) {
        OK(ptrace(PTRACE_SYSCALL, pid, 0, 0));
        EQ(waitpid(pid, &s, 0), pid);
        if (WIFEXITED(s)) break;
        if (WIFSTOPPED(s) && WSTOPSIG(s) == (SIGTRAP | 0x80)) {
            struct user_regs_struct r;
            OK(ptrace(PTRACE_GETREGS, pid, 0, &r));
            seen += r.orig_rax == SYS_getppid;
        }
    }
    EQ(WEXITSTATUS(s), 5);
    EQ(seen, 2);
}
TEST(seccomp_errno) {
    pid_t pid = OK(fork());
    if (!pid) {
        struct sock_filter f[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 99),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog p = {4, f};
        OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p));
        EQ(prctl(PR_GET_SECCOMP), 2);
        for (int i = 0; i < 100; i++) FAILS(syscall(SYS_getppid), 99);
        CHECK(syscall(SYS_getpid) > 0);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
TEST(seccomp_kill) {
    pid_t pid = OK(fork());
    if (!pid) {
        struct sock_filter f[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog p = {4, f};
        OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p));
        syscall(SYS_getppid);
        _exit(0);
    }
    EQ(WTERMSIG(t_wait(pid)), SIGSYS);
}
TEST(user_namespace_root) {
    pid_t pid = OK(fork());
    if (!pid) {
        OK(setgid(1000));
        OK(setuid(1000));
        /* The change of ids made the process undumpable: its /proc files are root's (proc(5)). */
        OK(prctl(PR_SET_DUMPABLE, 1));
        if (unshare(CLONE_NEWUSER) < 0) _exit(77);
        EQ(getuid(), 65534);
        int fd = OK(open("/proc/self/setgroups", O_WRONLY));
        EQ(write(fd, "deny", 4), 4);
        fd = OK(open("/proc/self/uid_map", O_WRONLY));
        EQ(write(fd, "0 1000 1", 8), 8);
        EQ(getuid(), 0);
        OK(sethostname("x", 1) == -1 && errno == EPERM ? 0 : -1);
        OK(unshare(CLONE_NEWUTS));
        OK(sethostname("x", 1));
        _exit(0);
    }
    int s = t_wait(pid);
    if (WEXITSTATUS(s) == 77) t_skip("no user namespaces for ordinary users here");
    EQ(s, 0);
}
TEST(file_size_signal) {
    pid_t pid = OK(fork());
    if (!pid) {
        struct rlimit rl = {10, 10};
        OK(setrlimit(RLIMIT_FSIZE, &rl));
        signal(SIGXFSZ, SIG_DFL);
        int fd = OK(open("f", O_CREAT | O_WRONLY, 0644));
        EQ(write(fd, "0123456789", 10), 10);
        if (write(fd, "x", 1)) {}
        _exit(0);
    }
    EQ(WTERMSIG(t_wait(pid)), SIGXFSZ);
}
TEST(ofd_locks) {
    int a = OK(open("f", O_CREAT | O_RDWR, 0644)), b = OK(open("f", O_RDWR));
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
    OK(fcntl(a, F_OFD_SETLK, &fl));
    FAILS(fcntl(b, F_OFD_SETLK, &fl), EAGAIN);
    OK(fcntl(b, F_OFD_GETLK, &fl));
    EQ(fl.l_pid, -1);
    close(a);
    fl = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
    OK(fcntl(b, F_OFD_SETLK, &fl));
}
TEST(preadv2_flags) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    struct iovec v = {"abc", 3};
    EQ(pwritev2(fd, &v, 1, -1, RWF_APPEND), 3);
    char b[4] = {0};
    struct iovec r = {b, 3};
    EQ(preadv2(fd, &r, 1, 0, 0), 3);
    STREQ(b, "abc");
    FAILS(preadv2(fd, &r, 1, 0, 0x4000), EOPNOTSUPP);
}
TEST(statvfs_reports) {
    struct statvfs v;
    OK(statvfs("/proc", &v));
    OK(statvfs(".", &v));
    CHECK(v.f_namemax >= 255);
}
TEST(times_call) {
    struct tms t;
    clock_t a = times(&t);
    CHECK(a != (clock_t)-1);
}
TEST(many_descriptors) {
    for (int i = 0; i < 500; i++) OK(dup(0));
    int fd = OK(open("/dev/null", O_RDONLY));
    CHECK(fd >= 500);
}
TEST(deep_directories) {
    for (int i = 0; i < 200; i++) {
        OK(mkdir("d", 0755));
        OK(chdir("d"));
    }
    char b[PATH_MAX];
    CHECK(getcwd(b, sizeof b));
    for (int i = 0; i < 200; i++) {
        OK(chdir(".."));
        OK(rmdir("d"));
    }
}
TEST(long_pipeline_of_processes) {
    int in = -1;
    pid_t pids[20];
    int first[2];
    OK(pipe(first));
    in = first[0];
    for (int i = 0; i < 20; i++) {
        int p[2];
        OK(pipe(p));
        pids[i] = OK(fork());
        if (!pids[i]) {
            close(first[1]);
            close(p[0]);
            char c;
            while (read(in, &c, 1) == 1) {
                c++;
                if (write(p[1], &c, 1) != 1) _exit(1);
            }
            _exit(0);
        }
        close(in);
        close(p[1]);
        in = p[0];
    }
    EQ(write(first[1], "A", 1), 1);
    close(first[1]);
    char c;
    EQ(read(in, &c, 1), 1);
    EQ(c, 'A' + 20);
    EQ(read(in, &c, 1), 0);
    for (int i = 0; i < 20; i++) EQ(t_wait(pids[i]), 0);
}
TEST(vdso_clock_is_sane) {
    struct timespec a, b;
    for (int i = 0; i < 1000; i++) {
        OK(clock_gettime(CLOCK_MONOTONIC, &a));
        OK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b));
        long long d = (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec;
        CHECK(d >= 0 && d < 2000000000LL);
    }
}
