/* Which error comes first, where several would do. */
#define FAMILY "order"
#include "t.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/xattr.h>

#define PG 4096UL
#define BEYOND ((void *)0xffff800000000000)
#define BAD ((void *)1)

static int file(void) { return OK(open("f", O_RDWR | O_CREAT, 0644)); }

TEST(reads_and_writes) {
    char buf[64];
    int fd = file(), p[2], e = OK(eventfd(0, EFD_NONBLOCK)), s[2];
    OK(pipe2(p, O_NONBLOCK));
    OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
    FAILS(read(p[0], BEYOND, 1), EFAULT);
    FAILS(read(s[0], BEYOND, 0), EFAULT);
    FAILS(read(fd, buf, -1), EFAULT);
    FAILS(write(fd, buf, -1), EFAULT);
    FAILS(read(p[1], BEYOND, 1), EBADF);
    FAILS(pread(fd, buf, 8, INT64_MAX - 1), EINVAL);
    FAILS(pwrite(fd, buf, 8, INT64_MAX - 1), EINVAL);
    FAILS(readv(p[1], BAD, 1), EBADF);
    FAILS(preadv(p[0], BAD, 1, 0), ESPIPE);
    EQ(writev(e, (struct iovec[]){{buf, 0}}, 1), 0);
    FAILS(write(e, buf, 16), EINVAL);
    EQ(lseek(e, 7, SEEK_SET), 0);
    FAILS(lseek(p[0], 0, SEEK_SET), ESPIPE);
    int ino = OK(inotify_init());
    EQ(lseek(ino, 3, SEEK_END), 0);
    FAILS(pread(ino, buf, 8, 0), ESPIPE);
}
TEST(opens) {
    file();
    OK(mkdir("d", 0755));
    FAILS(open("d", 3), EISDIR);
    FAILS(openat(99, "", O_RDONLY), ENOENT);
    FAILS(mkdirat(99, "", 0755), ENOENT);
    FAILS(mknod("none/x", S_IFLNK | 0644, 0), EINVAL);
    FAILS(mknod("none/x", S_IFDIR | 0644, 0), EPERM);
    FAILS(link("none", (char *)BAD), ENOENT);
    FAILS(rename("none/x", (char *)BAD), ENOENT);
    struct stat st;
    OK(fstatat(AT_FDCWD, "f", &st, 0x2000));
    int m = OK((int)syscall(SYS_memfd_create, "m", 0));
    char buf[64];
    FAILS(syscall(SYS_getdents64, m, buf, sizeof buf), ENOTDIR);
    int block = 0;
    OK(ioctl(file(), 2 /* FIGETBSZ */, &block));
    CHECK(block >= 512);
}
TEST(mappings) {
    int fd = file();
    FAILS(syscall(SYS_mmap, 0, PG, PROT_READ, MAP_PRIVATE, 99, 1), EINVAL);
    FAILS(syscall(SYS_mmap, 0, PG, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1), EINVAL);
    FAILS(mmap(NULL, (size_t)1 << 62, PROT_READ, MAP_SHARED, fd, 0), ENOMEM);
    FAILS(mprotect(BEYOND, PG, PROT_READ), ENOMEM);
    EQ(mprotect(BEYOND, 0, PROT_READ), 0);
    FAILS(mprotect((void *)PG, -1, PROT_READ), ENOMEM);
    FAILS(madvise(BEYOND, PG, MADV_WILLNEED), ENOMEM);
    FAILS(madvise((void *)1, PG, MADV_WILLNEED), EINVAL);
    FAILS(syscall(SYS_mincore, 0, PG, BEYOND), EFAULT);
    char *p = mmap(NULL, 2 * PG, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    FAILS(syscall(SYS_mremap, p, PG, PG, 5, BEYOND), EINVAL);
}
TEST(moves) {
    int fd = file(), p[2], d;
    OK(mkdir("d", 0755));
    d = OK(open("d", O_RDONLY));
    OK(pipe2(p, O_NONBLOCK));
    FAILS(sendfile(99, 98, BAD, 1), EFAULT);
    FAILS(sendfile(99, fd, NULL, 1), EBADF);
    EQ(sendfile(fd, fd, NULL, 0), 0);
    FAILS(sendfile(fd, d, NULL, 10), EINVAL);
    EQ(tee(99, 98, 0, 0), 0);
    FAILS(tee(fd, d, 1, 0), EBADF);
    FAILS(splice(p[0], BAD, fd, NULL, 1, 0), ESPIPE);
    FAILS(splice(p[1], NULL, fd, BAD, 1, 0), EFAULT);
    EQ(vmsplice(fd, (struct iovec[]){{BAD, 0}}, 1, 0), 0);
    FAILS(fallocate(p[1], 0, 0, 1), ESPIPE);
    FAILS(fallocate(d, 0, 0, 1), EBADF);
    int e = OK(eventfd(0, 0));
    FAILS(fallocate(e, 0, 0, 1), ENODEV);
    EQ(posix_fadvise(p[0], 0, 1, 77), ESPIPE);
    EQ(posix_fadvise(fd, 0, 1, 77), EINVAL);
    OK((int)syscall(SYS_flock, fd, 32));
    FAILS(syscall(SYS_flock, 99, 9), EINVAL);
}
TEST(attributes) {
    file();
    FAILS(setxattr("none", "user.a", BAD, 1, 4), EINVAL);
    FAILS(setxattr("none", "", BAD, 1, 0), ERANGE);
    FAILS(setxattr("none", "user.a", BAD, 70000, 0), E2BIG);
    FAILS(setxattr("none", "user.a", BAD, 1, 0), EFAULT);
    FAILS(getxattr("none", "", BAD, 1), ERANGE);
    FAILS(removexattr("none", ""), ERANGE);
    FAILS(fgetxattr(99, "", NULL, 0), ERANGE);
}
TEST(events) {
    struct epoll_event ev = {EPOLLIN, {.fd = 1}};
    int fd = file(), ep = OK(epoll_create1(0)), p[2];
    OK(pipe(p));
    FAILS(epoll_ctl(p[0], EPOLL_CTL_ADD, fd, &ev), EPERM);
    FAILS(epoll_ctl(ep, 77, fd, &ev), EPERM);
    FAILS(epoll_wait(p[0], BEYOND, 1, 0), EFAULT);
    FAILS(inotify_add_watch(99, "f", 0x80000), EINVAL);
    FAILS(syscall(SYS_signalfd4, -1, BAD, 8, 2), EFAULT);
    struct itimerspec its = {{0, 0}, {1, 0}};
    FAILS(timerfd_settime(99, 77, &its, NULL), EINVAL);
    FAILS(timerfd_settime(99, 0, &its, NULL), EBADF);
    FAILS(accept4(99, NULL, NULL, 7), EBADF);
}
TEST(signals_and_processes) {
    FAILS(kill(1 << 22, 65), ESRCH);
    FAILS(kill(INT_MIN, 65), ESRCH);
    FAILS(kill(getpid(), 65), EINVAL);
    FAILS(syscall(SYS_tgkill, 1 << 22, 1 << 22, 65), ESRCH);
    siginfo_t info = {0};
    info.si_code = SI_USER;
    FAILS(syscall(SYS_rt_sigqueueinfo, 1 << 22, SIGUSR1, &info), EPERM);
    info.si_code = SI_QUEUE;
    FAILS(syscall(SYS_rt_sigqueueinfo, 1 << 22, SIGUSR1, &info), ESRCH);
    FAILS(syscall(SYS_prlimit64, 1 << 22, 77, NULL, NULL), ESRCH);
    EQ(process_vm_readv(1 << 22, (struct iovec[]){{NULL, 0}}, 1, (struct iovec[]){{NULL, 0}}, 1, 0), 0);
    int path = OK(open(".", O_PATH));
    FAILS(setns(path, 0), EBADF);
}
TEST(sysv) {
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    struct sembuf ops[2] = {{0, -1, 0}, {5, -1, 0}};
    FAILS(semop(id, ops, 2), EFBIG);
    OK(semctl(id, 0, IPC_RMID));
    FAILS(msgsnd(-1, BAD, -1, 0), EFAULT);
}
TEST(sockets) {
    FAILS(socket(-1, 10, 0), EAFNOSUPPORT);
    FAILS(socket(AF_INET, 11, 0), EINVAL);
    FAILS(socket(AF_UNSPEC, SOCK_RDM, 0), EAFNOSUPPORT);
    FAILS(socketpair(-1, 10, 0, (int *)BAD), EFAULT);
}
TEST(copies_and_programs) {
    int fd = file();
    FAILS(syscall(SYS_copy_file_range, 99, NULL, fd, NULL, 1, 1), EBADF);
    FAILS(syscall(SYS_copy_file_range, fd, BAD, fd, NULL, 1, 1), EFAULT);
    FAILS(syscall(SYS_copy_file_range, fd, NULL, fd, NULL, 1, 1), EINVAL);
    FAILS(syscall(SYS_execveat, 99, "", NULL, NULL, 0x200), ENOENT);
    FAILS(syscall(SYS_execveat, fd, "x", NULL, NULL, 0), ENOTDIR);
    FAILS(openat(fd, "x", O_RDONLY), ENOTDIR);
    int e = OK(eventfd(0, 0));
    FAILS(openat(e, "x", O_RDONLY), ENOTDIR);
    FAILS(syscall(SYS_preadv2, e, BAD, 1, 0, 0, 0), ESPIPE);
    EQ(syscall(SYS_pwritev2, fd, (struct iovec[]){{NULL, 0}}, 1, 0, 0, -1), 0);
}
