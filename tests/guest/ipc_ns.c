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
