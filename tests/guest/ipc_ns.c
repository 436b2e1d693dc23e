/* System V IPC, POSIX message queues, namespaces, and calls between processes. */
#include "t.h"
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#undef FAMILY
#define FAMILY "ipc"

union semun { int val; struct semid_ds *buf; unsigned short *array; };

static int wait_ok(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

TEST(shm_counts_and_removal)
{
    int id = OK(shmget(IPC_PRIVATE, 5000, IPC_CREAT | 0600));
    char *a = OK(shmat(id, NULL, 0));
    struct shmid_ds ds;
    OK(shmctl(id, IPC_STAT, &ds));
    EQ(ds.shm_nattch, 1);
    EQ(ds.shm_segsz, 5000);
    EQ(ds.shm_cpid, getpid());
    char *b = OK(shmat(id, NULL, 0));
    strcpy(a, "hello");
    CHECK(strcmp(b, "hello") == 0);
    OK(shmctl(id, IPC_STAT, &ds));
    EQ(ds.shm_nattch, 2);
    pid_t pid = OK(fork());
    if (pid == 0) {
        shmctl(id, IPC_STAT, &ds);
        if (ds.shm_nattch != 4) _exit(1);
        strcpy(a + 4096, "child");
        _exit(0);
    }
    EQ(wait_ok(pid), 0);
    CHECK(strcmp(b + 4096, "child") == 0);
    OK(shmctl(id, IPC_RMID, NULL));
    OK(shmctl(id, IPC_STAT, &ds));
    EQ(ds.shm_nattch, 2);
    CHECK(ds.shm_perm.mode & 01000);
    OK(shmdt(a));
    FAILS(shmdt(a), EINVAL);
    OK(shmdt(b));
    FAILS(shmctl(id, IPC_STAT, &ds), EINVAL);
}

TEST(shm_keys)
{
    key_t key = 0x5a000000 + getpid();
    FAILS(shmget(key, 4096, 0600), ENOENT);
    int id = OK(shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600));
    FAILS(shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
    EQ(shmget(key, 0, 0), id);
    FAILS(shmget(key, 8192, 0), EINVAL);
    FAILS(shmget(IPC_PRIVATE, 0, 0600), EINVAL);
    FAILS(shmat(id, (void *)1, 0), EINVAL);
    const char *ro = OK(shmat(id, NULL, SHM_RDONLY));
    EQ(ro[0], 0);
    OK(shmdt(ro));
    OK(shmctl(id, IPC_RMID, NULL));
    FAILS(shmget(key, 4096, 0600), ENOENT);
}

TEST(sem_blocks_and_undoes)
{
    int id = OK(semget(IPC_PRIVATE, 2, 0600));
    union semun arg = {.val = 1};
    OK(semctl(id, 0, SETVAL, arg));
    struct sembuf down = {0, -1, SEM_UNDO}, up = {1, 1, 0}, wait1 = {1, -1, 0};
    pid_t pid = OK(fork());
    if (pid == 0) {
        if (semop(id, &down, 1) || semop(id, &up, 1)) _exit(1);
        _exit(semctl(id, 0, GETVAL) != 0);
    }
    OK(semop(id, &wait1, 1));
    EQ(wait_ok(pid), 0);
    EQ(semctl(id, 0, GETVAL), 1);
    struct timespec soon = {0, 20000000};
    FAILS(semtimedop(id, &wait1, 1, &soon), EAGAIN);
    struct sembuf nowait = {1, -1, IPC_NOWAIT}, zero = {1, 0, IPC_NOWAIT}, big = {2, 1, 0};
    FAILS(semop(id, &nowait, 1), EAGAIN);
    OK(semop(id, &zero, 1));
    FAILS(semop(id, &big, 1), EFBIG);
    struct sembuf both[2] = {{0, -1, IPC_NOWAIT}, {1, -1, IPC_NOWAIT}};
    FAILS(semop(id, both, 2), EAGAIN);
    EQ(semctl(id, 0, GETVAL), 1);
    arg.val = 40000;
    FAILS(semctl(id, 0, SETVAL, arg), ERANGE);
    unsigned short all[2] = {7, 8};
    arg.array = all;
    OK(semctl(id, 0, SETALL, arg));
    all[0] = all[1] = 0;
    OK(semctl(id, 0, GETALL, arg));
    EQ(all[0] * 10 + all[1], 78);
    OK(semctl(id, 0, IPC_RMID));
    FAILS(semop(id, &up, 1), EINVAL);
}

TEST(sem_removed_under_sleeper)
{
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    pid_t pid = OK(fork());
    if (pid == 0) {
        struct sembuf down = {0, -1, 0};
        int r = semop(id, &down, 1);
        _exit(r == -1 && errno == EIDRM ? 0 : 1);
    }
    while (semctl(id, 0, GETNCNT) == 0) usleep(1000);
    OK(semctl(id, 0, IPC_RMID));
    EQ(wait_ok(pid), 0);
}

TEST(msg_types)
{
    struct { long type; char text[16]; } m;
    int id = OK(msgget(IPC_PRIVATE, 0600));
    for (int i = 1; i <= 4; i++) {
        m.type = 5 - i;
        m.text[0] = 'a' + i;
        OK(msgsnd(id, &m, 4, 0));
    }
    EQ(msgrcv(id, &m, 16, 2, 0), 4);
    EQ(m.text[0], 'd');
    EQ(msgrcv(id, &m, 16, -3, 0), 4);
    EQ(m.type, 1);
    EQ(msgrcv(id, &m, 16, 4, 020000 /* MSG_EXCEPT */), 4);
    EQ(m.type, 3);
    FAILS(msgrcv(id, &m, 2, 0, 0), E2BIG);
    EQ(msgrcv(id, &m, 2, 0, MSG_NOERROR), 2);
    EQ(m.type, 4);
    FAILS(msgrcv(id, &m, 2, 0, IPC_NOWAIT), ENOMSG);
    m.type = 0;
    FAILS(msgsnd(id, &m, 4, 0), EINVAL);
    m.type = 1;
    FAILS(msgsnd(id, &m, 100000, 0), EINVAL);
    struct msqid_ds ds;
    OK(msgctl(id, IPC_STAT, &ds));
    EQ(ds.msg_qnum, 0);
    EQ(ds.msg_lspid, getpid());
    pid_t pid = OK(fork());
    if (pid == 0) {
        int r = msgrcv(id, &m, 16, 9, 0);
        _exit(r == 3 && !memcmp(m.text, "xyz", 3) ? 0 : 1);
    }
    usleep(20000);
    m.type = 9;
    memcpy(m.text, "xyz", 3);
    OK(msgsnd(id, &m, 3, 0));
    EQ(wait_ok(pid), 0);
    OK(msgctl(id, IPC_RMID, NULL));
    FAILS(msgsnd(id, &m, 3, 0), EINVAL);
}

static volatile sig_atomic_t told_value;
static void told(int sig, siginfo_t *info, void *context) { told_value = info->si_code == SI_MESGQ ? info->si_value.sival_int : -1; }

TEST(mq_order_limits_notify)
{
    char name[40], buf[64];
    snprintf(name, sizeof name, "/t-%d", getpid());
    struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 32};
    FAILS(mq_open(name, O_RDWR), ENOENT);
    mqd_t q = OK(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr));
    FAILS(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr), EEXIST);
    CHECK(fcntl(q, F_GETFD) & FD_CLOEXEC);
    OK(mq_send(q, "low", 3, 1));
    OK(mq_send(q, "high", 4, 9));
    OK(mq_send(q, "low2", 4, 1));
    struct timespec soon;
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_nsec += 20000000;
    if (soon.tv_nsec >= 1000000000) soon.tv_nsec -= 1000000000, soon.tv_sec++;
    FAILS(mq_timedsend(q, "x", 1, 0, &soon), ETIMEDOUT);
    FAILS(mq_send(q, buf, 33, 0), EMSGSIZE);
    FAILS(mq_receive(q, buf, 31, NULL), EMSGSIZE);
    unsigned prio;
    EQ(mq_receive(q, buf, sizeof buf, &prio), 4);
    EQ(prio, 9);
    EQ(mq_receive(q, buf, sizeof buf, &prio), 3);
    OK(mq_getattr(q, &attr));
    EQ(attr.mq_curmsgs, 1);
    EQ(attr.mq_maxmsg, 3);
    struct pollfd p = {q, POLLIN | POLLOUT};
    EQ(poll(&p, 1, 0), 1);
    EQ(p.revents, POLLIN | POLLOUT);
    EQ(mq_receive(q, buf, sizeof buf, &prio), 4);
    attr.mq_flags = O_NONBLOCK;
    OK(mq_setattr(q, &attr, NULL));
    FAILS(mq_receive(q, buf, sizeof buf, NULL), EAGAIN);
    struct sigaction sa = {.sa_sigaction = told, .sa_flags = SA_SIGINFO};
    OK(sigaction(SIGUSR1, &sa, NULL));
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42};
    OK(mq_notify(q, &ev));
    FAILS(mq_notify(q, &ev), EBUSY);
    OK(mq_send(q, "n", 1, 0));
    EQ(told_value, 42);
    OK(mq_notify(q, &ev));
    OK(mq_notify(q, NULL));
    OK(mq_close(q));
    OK(mq_unlink(name));
    FAILS(mq_unlink(name), ENOENT);
}

TEST(mq_wakes_receiver)
{
    char name[40], buf[8192];
    snprintf(name, sizeof name, "/w-%d", getpid());
    mqd_t q = OK(mq_open(name, O_RDWR | O_CREAT, 0600, NULL));
    pid_t pid = OK(fork());
    if (pid == 0) _exit(mq_receive(q, buf, sizeof buf, NULL) == 2 ? 0 : 1);
    usleep(20000);
    OK(mq_send(q, "ok", 2, 0));
    EQ(wait_ok(pid), 0);
    OK(mq_unlink(name));
}

#undef FAMILY
#define FAMILY "ns"

static void need_root(void)
{
    if (geteuid() != 0) t_skip("needs root");
}
static long ns_number(const char *name)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    return stat(path, &st) ? -1 : (long)st.st_ino;
}
static void may_unshare(int flags)
{
    need_root();
    if (unshare(flags) && errno == EPERM) t_skip("no CAP_SYS_ADMIN");
    else if (errno == ENOSPC) t_skip("too many namespaces");
}

TEST(unshare_uts_and_back)
{
    need_root();
    int old = OK(open("/proc/self/ns/uts", O_RDONLY));
    long number = ns_number("uts");
    char before[65], name[65];
    OK(gethostname(before, sizeof before));
    may_unshare(CLONE_NEWUTS);
    CHECK(ns_number("uts") != number);
    OK(sethostname("inside", 6));
    OK(gethostname(name, sizeof name));
    CHECK(strcmp(name, "inside") == 0);
    FAILS(setns(old, CLONE_NEWIPC), EINVAL);
    OK(setns(old, CLONE_NEWUTS));
    OK(gethostname(name, sizeof name));
    CHECK(strcmp(name, before) == 0);
    EQ(ns_number("uts"), number);
}

TEST(unshare_ipc_hides_objects)
{
    need_root();
    key_t key = 0x6b000000 + getpid();
    int id = OK(shmget(key, 4096, IPC_CREAT | 0600));
    int old = OK(open("/proc/self/ns/ipc", O_RDONLY));
    may_unshare(CLONE_NEWIPC);
    FAILS(shmget(key, 4096, 0600), ENOENT);
    OK(setns(old, 0));
    EQ(shmget(key, 4096, 0600), id);
    OK(shmctl(id, IPC_RMID, NULL));
}

TEST(unshare_pid_then_fork)
{
    may_unshare(CLONE_NEWPID);
    pid_t pid = OK(fork());
    if (pid == 0) {
        pid_t inner = fork();
        if (inner == 0) _exit(getpid() == 2 && getppid() == 1 ? 0 : 1);
        _exit(getpid() == 1 && wait_ok(inner) == 0 ? 0 : 1);
    }
    EQ(wait_ok(pid), 0);
    FAILS(unshare(CLONE_NEWPID), EINVAL);
}

TEST(unshare_user_gives_capabilities)
{
    pid_t pid = OK(fork());
    if (pid == 0) {
        if (unshare(CLONE_NEWUSER)) _exit(errno == EPERM || errno == ENOSPC ? 77 : 1);
        if (getuid() != 65534) _exit(2);
        if (sethostname("x", 1) != -1 || errno != EPERM) _exit(3);
        if (unshare(CLONE_NEWUTS)) _exit(4);
        if (sethostname("x", 1)) _exit(5);
        int fd = open("/proc/self/uid_map", O_WRONLY);
        char map[32];
        snprintf(map, sizeof map, "0 %d 1", 0);
        if (geteuid() == 0 && fd >= 0) write(fd, map, strlen(map));
        _exit(0);
    }
    int r = wait_ok(pid);
    if (r == 77) t_skip("no user namespaces");
    EQ(r, 0);
}

TEST(unshare_mount_is_private)
{
    need_root();
    char dir[] = "/tmp/nsXXXXXX", path[64];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/file", dir);
    pid_t pid = OK(fork());
    if (pid == 0) {
        if (unshare(CLONE_NEWNS)) _exit(errno == EPERM ? 77 : 1);
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) _exit(2);
        if (mount("t", dir, "tmpfs", 0, NULL)) _exit(3);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        _exit(fd >= 0 ? 0 : 4);
    }
    int r = wait_ok(pid);
    CHECK(access(path, F_OK) == -1);
    rmdir(dir);
    if (r == 77) t_skip("no CAP_SYS_ADMIN");
    EQ(r, 0);
}

TEST(setns_by_pidfd)
{
    need_root();
    int p[2];
    OK(pipe(p));
    pid_t pid = OK(fork());
    if (pid == 0) {
        char c = unshare(CLONE_NEWUTS | CLONE_NEWIPC) ? 'n' : 'y';
        sethostname("child", 5);
        write(p[1], &c, 1);
        pause();
    }
    char c;
    EQ(read(p[0], &c, 1), 1);
    if (c == 'n') {
        kill(pid, SIGKILL);
        t_skip("no CAP_SYS_ADMIN");
    }
    int fd = OK(syscall(SYS_pidfd_open, pid, 0));
    FAILS(setns(fd, 0), EINVAL);
    OK(setns(fd, CLONE_NEWUTS | CLONE_NEWIPC));
    char name[65];
    OK(gethostname(name, sizeof name));
    CHECK(strcmp(name, "child") == 0);
    OK(kill(pid, SIGKILL));
}

TEST(refused_flags)
{
    FAILS(unshare(CLONE_PARENT), EINVAL);
    FAILS(setns(0, 0), EINVAL);
    FAILS(setns(-1, 0), EBADF);
}

#undef FAMILY
#define FAMILY "mountfd"
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#define SYS_fspick 433
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

/* A directory in a mount namespace of its own. */
static char *private_dir(char *template)
{
    need_root();
    may_unshare(CLONE_NEWNS);
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    CHECK(mkdtemp(template) != NULL);
    OK(mount("base", template, "tmpfs", 0, NULL));
    return template;
}

static int new_tmpfs(const char *size, unsigned attr)
{
    int fs = OK(syscall(SYS_fsopen, "tmpfs", 1));
    OK(syscall(SYS_fsconfig, fs, 1, "size", size, 0));
    OK(syscall(SYS_fsconfig, fs, 1, "source", "made", 0));
    OK(syscall(SYS_fsconfig, fs, 6, NULL, NULL, 0));
    int mnt = OK(syscall(SYS_fsmount, fs, 1, attr));
    close(fs);
    return mnt;
}

TEST(fsopen_to_move_mount)
{
    char dir[] = "/tmp/mfXXXXXX", path[64];
    private_dir(dir);
    int mnt = new_tmpfs("64k", 2 /* NOSUID */);
    int fd = OK(openat(mnt, "before", O_CREAT | O_WRONLY, 0600));
    close(fd);
    OK(syscall(SYS_move_mount, mnt, "", AT_FDCWD, dir, 4));
    snprintf(path, sizeof path, "%s/before", dir);
    OK(access(path, F_OK));
    FAILS(syscall(SYS_move_mount, mnt, "", mnt, "", 0x44), ELOOP);
    close(mnt);
    OK(access(path, F_OK));
    OK(umount2(dir, MNT_DETACH));
    FAILS(access(path, F_OK), ENOENT);
}

TEST(fsopen_refuses)
{
    need_root();
    may_unshare(CLONE_NEWNS);
    FAILS(syscall(SYS_fsopen, "no-such-fs", 0), ENODEV);
    FAILS(syscall(SYS_fsopen, "tmpfs", 8), EINVAL);
    int fs = OK(syscall(SYS_fsopen, "tmpfs", 0));
    FAILS(syscall(SYS_fsmount, fs, 0, 0), EINVAL);
    FAILS(syscall(SYS_fsmount, 0, 0, 0), EINVAL);
    FAILS(syscall(SYS_fsconfig, fs, 99, NULL, NULL, 0), EOPNOTSUPP);
}

TEST(open_tree_clones)
{
    char dir[] = "/tmp/otXXXXXX", path[64], other[64];
    private_dir(dir);
    snprintf(path, sizeof path, "%s/a", dir);
    snprintf(other, sizeof other, "%s/b", dir);
    OK(mkdir(path, 0700));
    OK(mkdir(other, 0700));
    OK(mount("inner", path, "tmpfs", 0, NULL));
    int shallow = OK(syscall(SYS_open_tree, AT_FDCWD, dir, 1 | O_CLOEXEC));
    int deep = OK(syscall(SYS_open_tree, AT_FDCWD, dir, 1 | 0x8000));
    int fd = OK(openat(AT_FDCWD, path, O_DIRECTORY));
    OK(mkdirat(fd, "seen", 0700));
    CHECK(faccessat(shallow, "a/seen", F_OK, 0) == -1);
    OK(faccessat(deep, "a/seen", F_OK, 0));
    OK(syscall(SYS_move_mount, deep, "", AT_FDCWD, other, 4));
    snprintf(path, sizeof path, "%s/b/a/seen", dir);
    OK(access(path, F_OK));
    close(shallow);
    close(deep);
    OK(access(path, F_OK));
    FAILS(syscall(SYS_open_tree, AT_FDCWD, dir, 0x8000), EINVAL);
}

TEST(mount_setattr_flags)
{
    char dir[] = "/tmp/saXXXXXX", path[64];
    private_dir(dir);
    struct { uint64_t set, clear, propagation, userns; } a = {1, 0, 0, 0};
    snprintf(path, sizeof path, "%s/file", dir);
    OK(syscall(SYS_mount_setattr, AT_FDCWD, dir, 0, &a, sizeof a));
    FAILS(open(path, O_CREAT | O_WRONLY, 0600), EROFS);
    a.set = 0;
    a.clear = 1;
    OK(syscall(SYS_mount_setattr, AT_FDCWD, dir, 0x8000, &a, sizeof a));
    close(OK(open(path, O_CREAT | O_WRONLY, 0600)));
    a.clear = 0;
    a.propagation = MS_SHARED;
    OK(syscall(SYS_mount_setattr, AT_FDCWD, dir, 0, &a, sizeof a));
    a.propagation = 12345;
    FAILS(syscall(SYS_mount_setattr, AT_FDCWD, dir, 0, &a, sizeof a), EINVAL);
    FAILS(syscall(SYS_mount_setattr, AT_FDCWD, dir, 0, &a, 8), EINVAL);
    a.propagation = 0;
    a.set = 0x10; /* NOATIME without clearing the policy */
    FAILS(syscall(SYS_mount_setattr, AT_FDCWD, dir, 0, &a, sizeof a), EINVAL);
}

TEST(statmount_listmount)
{
    char dir[] = "/tmp/smXXXXXX";
    private_dir(dir);
    struct { uint32_t size, spare; uint64_t id, param; } req = {24, 0, UINT64_MAX, 0};
    static uint64_t ids[4096];
    long n = syscall(458, &req, ids, 4096, 0);
    if (n == -1 && errno == ENOSYS) t_skip("kernel before 6.8");
    CHECK(n > 1);
    for (long i = 1; i < n; i++) CHECK(ids[i] > ids[i - 1]);
    struct { char head[512]; char text[512]; } st;
    int found = 0;
    for (long i = 0; i < n && !found; i++) {
        req.id = ids[i];
        req.param = 2 | 0x10 | 0x20;
        if (syscall(457, &req, &st, sizeof st, 0)) continue;
        uint32_t type, point;
        memcpy(&type, st.head + 36, 4);
        memcpy(&point, st.head + 108, 4);
        if (!strcmp(st.text + point, dir)) found = !strcmp(st.text + type, "tmpfs");
    }
    CHECK(found);
    req.id = 1ull << 40;
    FAILS(syscall(457, &req, &st, sizeof st, 0), ENOENT);
}
