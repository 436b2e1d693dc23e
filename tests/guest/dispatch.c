/* System calls that a thread turns into signals, children that start in a cgroup, files that stay without a name. */
#include "t.h"
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <linux/fs.h>
#include <ucontext.h>
#define FAMILY "dispatch"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define OFF 0
#define ON 1
#define ALLOW 0
#define BLOCK 1

static volatile char selector;
static volatile int caught, caught_code, caught_number, caught_errno;
static volatile unsigned long caught_rax, caught_at;

static void on_sys(int sig, siginfo_t *info, void *context) {
    selector = ALLOW;
    ucontext_t *uc = context;
    caught += sig == SIGSYS;
    caught_code = info->si_code;
    caught_errno = info->si_errno;
    caught_number = info->si_syscall;
    caught_at = (unsigned long)info->si_call_addr;
    caught_rax = uc->uc_mcontext.gregs[REG_RAX];
    uc->uc_mcontext.gregs[REG_RAX] = 4321;
}
static void catch (void) {
    struct sigaction action = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
    OK(sigaction(SIGSYS, &action, NULL));
}
static long dispatch(long mode, unsigned long offset, unsigned long len, volatile char *byte) {
    return prctl(PR_SET_SYSCALL_USER_DISPATCH, mode, offset, len, byte);
}
TEST(user_dispatch_refuses_nonsense) {
    FAILS(dispatch(7, 0, 0, NULL), EINVAL);
    FAILS(dispatch(OFF, 1, 0, NULL), EINVAL);
    FAILS(dispatch(OFF, 0, 0, &selector), EINVAL);
    FAILS(dispatch(ON, 4096, 0, &selector), EINVAL);
    FAILS(dispatch(ON, 4096, -4096ul, &selector), EINVAL);
    FAILS(dispatch(ON, 0, 0, (char *)0xffff800000000000ul), EFAULT);
    OK(dispatch(OFF, 0, 0, NULL));
}
TEST(user_dispatch_becomes_a_signal) {
    catch ();
    selector = ALLOW;
    OK(dispatch(ON, 0, 0, &selector));
    pid_t me = getpid();
    EQ(syscall(SYS_getpid), me);
    EQ(caught, 0);
    for (int i = 1; i <= 300; i++) {
        /* Often enough for whatever a kernel does to calls that come often. */
        selector = BLOCK;
        EQ(syscall(SYS_getpid), 4321);
        EQ(caught, i);
        EQ(caught_code, 2);
        EQ(caught_errno, 0);
        EQ(caught_number, SYS_getpid);
        EQ(caught_rax, SYS_getpid);
        unsigned char *before = (unsigned char *)caught_at - 2;
        CHECK(before[0] == 0x0f && before[1] == 0x05);
    }
    selector = BLOCK;
    EQ(syscall(SYS_getpriority, 1, 2, 3), 4321);
    EQ(caught_number, SYS_getpriority);
    OK(dispatch(OFF, 0, 0, NULL));
    selector = BLOCK;
    EQ(syscall(SYS_getpid), me);
}
TEST(user_dispatch_lets_a_range_pass) {
    catch ();
    extern char __executable_start, etext;
    unsigned long from = (unsigned long)&__executable_start, len = (unsigned long)&etext - from;
    selector = BLOCK;
    OK(dispatch(ON, from, len, &selector));
    long parent = syscall(SYS_getppid);
    selector = ALLOW;
    OK(dispatch(OFF, 0, 0, NULL));
    EQ(parent, getppid());
    EQ(caught, 0);
}
static void no_selector(void *arg) {
    (void)arg;
    catch ();
    OK(dispatch(ON, 1, 1, NULL));
    syscall(SYS_getpid);
}
TEST(user_dispatch_needs_no_selector) {
    /* Everything is refused, the return from the handler too: the first call is the last. */
    struct rlimit none = {0, 0};
    OK(setrlimit(RLIMIT_CORE, &none));
    EQ(t_child(no_selector, NULL) & 0x7f, SIGSYS);
}
static void child_goes_on(void *arg) {
    (void)arg;
    selector = BLOCK;
    long me = syscall(SYS_getpid);
    selector = ALLOW;
    _exit(me == 4321 || caught);
}
TEST(user_dispatch_is_not_inherited) {
    catch ();
    selector = ALLOW;
    OK(dispatch(ON, 0, 0, &selector));
    EQ(t_child(child_goes_on, NULL), 0);
    selector = BLOCK;
    EQ(syscall(SYS_getpid), 4321);
}
static void odd_selector(void *arg) {
    (void)arg;
    catch ();
    OK(dispatch(ON, 0, 0, &selector));
    selector = 2;
    syscall(SYS_getpid);
}
static void lost_selector(void *arg) {
    (void)arg;
    signal(SIGSEGV, SIG_IGN);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(dispatch(ON, 0, 0, page));
    munmap(page, 4096);
    syscall(SYS_getpid);
}
TEST(user_dispatch_with_a_bad_selector_is_fatal) {
    struct rlimit none = {0, 0};
    OK(setrlimit(RLIMIT_CORE, &none));
    EQ(t_child(odd_selector, NULL) & 0x7f, SIGSYS);
    EQ(t_child(lost_selector, NULL) & 0x7f, SIGSEGV);
}

struct args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
/* A directory with the hierarchy of the second version, mounted for this case alone. */
static void mount_cgroup2(void) {
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) t_skip("no mounts here");
    OK(mkdir("cg", 0755));
    if (mount("none", "cg", "cgroup2", 0, NULL) < 0) t_skip("no cgroup2 here");
}
static int is_in(const char *group) {
    const char *line = strstr(t_read_file("/proc/self/cgroup"), "0::");
    return line && strstr(line, group) != NULL;
}
TEST(clone3_into_a_cgroup) {
    mount_cgroup2();
    char name[64], path[80];
    snprintf(name, sizeof name, "proc-clone-%d", getpid());
    snprintf(path, sizeof path, "cg/%s", name);
    OK(mkdir(path, 0755));
    int fd = OK(open(path, O_RDONLY | O_DIRECTORY)), file = OK(open("/proc/self/stat", O_RDONLY));
    struct args a = {.flags = 0x200000000ull, .exit_signal = SIGCHLD, .cgroup = fd};
    pid_t pid = OK(syscall(SYS_clone3, &a, sizeof a));
    if (!pid) _exit(is_in(name) ? 42 : 1);
    EQ(t_wait(pid), 42 << 8);
    CHECK(!is_in(name));
    FAILS(syscall(SYS_clone3, &a, 80), EINVAL);
    a.cgroup = 0x80000000ull;
    FAILS(syscall(SYS_clone3, &a, sizeof a), EINVAL);
    a.cgroup = 9999;
    FAILS(syscall(SYS_clone3, &a, sizeof a), EBADF);
    a.cgroup = file;
    FAILS(syscall(SYS_clone3, &a, sizeof a), EBADF);
    a.cgroup = fd;
    OK(rmdir(path));
    FAILS(syscall(SYS_clone3, &a, sizeof a), ENOENT);
    OK(umount2("cg", MNT_DETACH));
}
TEST(unnamed_file_with_excl_stays_unnamed) {
    char path[64];
    int fd = open(".", O_TMPFILE | O_EXCL | O_RDWR, 0600);
    if (fd < 0) t_skip("no unnamed files here");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    FAILS(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW), ENOENT);
    fd = OK(open(".", O_TMPFILE | O_RDWR, 0600));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
}

static int change_flags(const char *path, int set, int clear) {
    int fd = OK(open(path, O_RDONLY)), flags = 0;
    OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    flags = (flags | set) & ~clear;
    int r = ioctl(fd, FS_IOC_SETFLAGS, &flags), error = errno;
    close(fd);
    errno = error;
    return r;
}
TEST(immutable_file) {
    t_write_file("f", "x");
    OK(mkdir("d", 0755));
    t_write_file("d/in", "x");
    int early = OK(open("f", O_RDWR));
    if (change_flags("f", FS_IMMUTABLE_FL, 0) < 0) t_skip("no immutable files here");
    OK(change_flags("d", FS_IMMUTABLE_FL, 0));
    FAILS(open("f", O_WRONLY), EPERM);
    FAILS(open("f", O_RDONLY | O_TRUNC), EPERM);
    FAILS(access("f", W_OK), EPERM);
    FAILS(truncate("f", 0), EPERM);
    FAILS(unlink("f"), EPERM);
    FAILS(rename("f", "g"), EPERM);
    FAILS(link("f", "g"), EPERM);
    FAILS(chmod("f", 0600), EPERM);
    FAILS(chown("f", 1, 1), EPERM);
    FAILS(utimensat(AT_FDCWD, "f", NULL, 0), EPERM);
    FAILS(fallocate(early, 0, 0, 100), EPERM);
    FAILS(open("d/new", O_CREAT | O_WRONLY, 0644), EPERM);
    FAILS(unlink("d/in"), EPERM);
    FAILS(rmdir("d"), EPERM);
    close(OK(open("d/in", O_WRONLY)));
    OK(change_flags("f", 0, FS_IMMUTABLE_FL));
    OK(change_flags("d", 0, FS_IMMUTABLE_FL));
    OK(unlink("f"));
}
TEST(append_only_file) {
    t_write_file("f", "x");
    OK(mkdir("d", 0755));
    t_write_file("d/in", "x");
    if (change_flags("f", FS_APPEND_FL, 0) < 0) t_skip("no append-only files here");
    OK(change_flags("d", FS_APPEND_FL, 0));
    FAILS(open("f", O_WRONLY), EPERM);
    FAILS(open("f", O_WRONLY | O_APPEND | O_TRUNC), EPERM);
    int fd = OK(open("f", O_WRONLY | O_APPEND));
    EQ(write(fd, "y", 1), 1);
    FAILS(fcntl(fd, F_SETFL, 0), EPERM);
    FAILS(ftruncate(fd, 0), EPERM);
    FAILS(unlink("f"), EPERM);
    FAILS(chmod("f", 0600), EPERM);
    OK(utimensat(AT_FDCWD, "f", NULL, 0));
    STREQ(t_read_file("f"), "xy");
    t_write_file("d/new", "z");
    FAILS(unlink("d/new"), EPERM);
    FAILS(rename("d/new", "d/other"), EPERM);
    OK(change_flags("f", 0, FS_APPEND_FL));
    OK(change_flags("d", 0, FS_APPEND_FL));
}

static void fresh_mounts(void) {
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) t_skip("no mounts here");
    OK(mkdir("a", 0755));
    OK(mkdir("b", 0755));
    OK(mount("first", "a", "tmpfs", 0, NULL));
    OK(mount("second", "b", "tmpfs", 0, NULL));
    t_write_file("a/first", "x");
    t_write_file("b/second", "x");
}
static int beneath(const char *from, const char *to) { return syscall(SYS_move_mount, AT_FDCWD, from, AT_FDCWD, to, 0x200); }
TEST(mount_beneath_another) {
    fresh_mounts();
    OK(mkdir("c", 0755));
    FAILS(beneath("c", "a"), EINVAL);
    FAILS(beneath("b", "c"), EINVAL);
    FAILS(beneath("b", "b"), EINVAL);
    OK(beneath("b", "a"));
    OK(access("a/first", F_OK));
    FAILS(access("b/second", F_OK), ENOENT);
    OK(umount2("a", MNT_DETACH));
    OK(access("a/second", F_OK));
    OK(umount2("a", MNT_DETACH));
    FAILS(access("a/second", F_OK), ENOENT);
    FAILS(umount2("a", 0), EINVAL);
}
TEST(detached_mount_beneath_another) {
    fresh_mounts();
    int fd = OK(syscall(SYS_open_tree, AT_FDCWD, "b", 1 | O_CLOEXEC));
    OK(syscall(SYS_move_mount, fd, "", AT_FDCWD, "a", 0x200 | 4));
    OK(access("a/first", F_OK));
    OK(umount2("a", MNT_DETACH));
    OK(access("a/second", F_OK));
}
