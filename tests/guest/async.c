/* Files that tell their owners: SIGIO, leases, F_NOTIFY; asynchronous I/O. */
#define FAMILY "async"
#include "t.h"
#include <linux/aio_abi.h>
#include <sys/eventfd.h>

static siginfo_t seen;
static volatile sig_atomic_t hits;
static void on_signal(int sig, siginfo_t *info, void *ctx) {
    (void)sig, (void)ctx;
    seen = *info;
    hits++;
}
static void catch(int sig) {
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    OK(sigaction(sig, &sa, NULL));
}
static void await_hits(int n) {
    for (int i = 0; i < 400 && hits < n; i++) usleep(5000);
    EQ(hits, n);
}

TEST(sigio_of_a_pipe) {
    int p[2];
    OK(pipe(p));
    catch(SIGIO);
    OK(fcntl(p[0], F_SETOWN, getpid()));
    EQ(fcntl(p[0], F_GETOWN), getpid());
    OK(fcntl(p[0], F_SETFL, O_ASYNC));
    EQ(write(p[1], "x", 1), 1);
    await_hits(1);
    EQ(seen.si_code, SI_KERNEL);
    OK(fcntl(p[0], F_SETFL, 0));
    char c;
    EQ(read(p[0], &c, 1), 1);
    EQ(write(p[1], "y", 1), 1);
    usleep(20000);
    EQ(hits, 1);
}

TEST(setsig_says_which_descriptor) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    int sig = SIGRTMIN + 2;
    catch(sig);
    OK(fcntl(s[0], F_SETSIG, sig));
    EQ(fcntl(s[0], F_GETSIG), sig);
    struct f_owner_ex ex = {F_OWNER_TID, gettid()};
    OK(fcntl(s[0], F_SETOWN_EX, &ex));
    struct f_owner_ex got = {0};
    OK(fcntl(s[0], F_GETOWN_EX, &got));
    EQ(got.type, F_OWNER_TID);
    EQ(got.pid, gettid());
    int on = 1;
    OK(ioctl(s[0], FIOASYNC, &on));
    CHECK(fcntl(s[0], F_GETFL) & O_ASYNC);
    EQ(write(s[1], "x", 1), 1);
    for (int i = 0; i < 400 && !hits; i++) usleep(5000);
    CHECK(hits >= 1);
    EQ(seen.si_signo, sig);
    EQ(seen.si_fd, s[0]);
    EQ(seen.si_code, POLL_IN);
    CHECK(seen.si_band & POLLIN);
}

TEST(owner_must_exist) {
    int p[2];
    OK(pipe(p));
    FAILS(fcntl(p[0], F_SETOWN, 4000000), ESRCH);
    struct f_owner_ex ex = {7, 1};
    FAILS(fcntl(p[0], F_SETOWN_EX, &ex), EINVAL);
    OK(fcntl(p[0], F_SETOWN, -getpgrp()));
    EQ(fcntl(p[0], F_GETOWN), -getpgrp());
    OK(fcntl(p[0], F_SETOWN, 0));
    EQ(fcntl(p[0], F_GETOWN), 0);
    FAILS(fcntl(p[0], F_SETSIG, 65), EINVAL);
}

TEST(lease_take_and_drop) {
    t_write_file("f", "x");
    int fd = OK(open("f", O_RDONLY));
    EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
    OK(fcntl(fd, F_SETLEASE, F_RDLCK));
    EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
    OK(fcntl(fd, F_SETLEASE, F_UNLCK));
    EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
    OK(fcntl(fd, F_SETLEASE, F_WRLCK));
    EQ(fcntl(fd, F_GETLEASE), F_WRLCK);
    OK(fcntl(fd, F_SETLEASE, F_UNLCK));
    FAILS(fcntl(fd, F_SETLEASE, F_UNLCK), EAGAIN);
    FAILS(fcntl(fd, F_SETLEASE, 9), EINVAL);
    int other = OK(open("f", O_WRONLY));
    FAILS(fcntl(fd, F_SETLEASE, F_RDLCK), EAGAIN);
    close(other);
    other = OK(open("f", O_RDONLY));
    FAILS(fcntl(fd, F_SETLEASE, F_WRLCK), EAGAIN);
    OK(fcntl(fd, F_SETLEASE, F_RDLCK));
    int dir = OK(open(".", O_RDONLY));
    FAILS(fcntl(dir, F_SETLEASE, F_RDLCK), EINVAL);
    int p[2];
    OK(pipe(p));
    FAILS(fcntl(p[0], F_SETLEASE, F_RDLCK), EINVAL);
}

TEST(lease_break_without_waiting) {
    t_write_file("f", "x");
    int fd = OK(open("f", O_RDONLY));
    catch(SIGIO);
    OK(fcntl(fd, F_SETLEASE, F_RDLCK));
    int reader = OK(open("f", O_RDONLY | O_NONBLOCK));
    close(reader);
    EQ(hits, 0);
    FAILS(open("f", O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
    await_hits(1);
    EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
    OK(fcntl(fd, F_SETLEASE, F_UNLCK));
    OK(open("f", O_WRONLY | O_NONBLOCK));
}

TEST(lease_is_not_downgraded_before_a_writer) {
    t_write_file("f", "x");
    int fd = OK(open("f", O_RDONLY));
    catch(SIGIO);
    OK(fcntl(fd, F_SETLEASE, F_WRLCK));
    pid_t pid = OK(fork());
    if (pid == 0) {
        close(fd);
        _exit(open("f", O_WRONLY) < 0);
    }
    await_hits(1);
    FAILS(fcntl(fd, F_SETLEASE, F_RDLCK), EAGAIN);
    OK(fcntl(fd, F_SETLEASE, F_UNLCK));
    EQ(t_wait(pid), 0);
}

TEST(lease_break_waits_for_the_holder) {
    t_write_file("f", "x");
    int fd = OK(open("f", O_RDONLY));
    catch(SIGRTMIN + 1);
    OK(fcntl(fd, F_SETSIG, SIGRTMIN + 1));
    OK(fcntl(fd, F_SETLEASE, F_WRLCK));
    pid_t pid = OK(fork());
    if (pid == 0) {
        close(fd);
        int r = open("f", O_RDONLY);
        _exit(r < 0 ? 1 : 0);
    }
    await_hits(1);
    EQ(seen.si_fd, fd);
    EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
    int status;
    EQ(waitpid(pid, &status, WNOHANG), 0);
    OK(fcntl(fd, F_SETLEASE, F_RDLCK));
    EQ(t_wait(pid), 0);
    EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
}

TEST(truncate_breaks_a_lease) {
    t_write_file("f", "x");
    int fd = OK(open("f", O_RDONLY));
    catch(SIGIO);
    OK(fcntl(fd, F_SETLEASE, F_RDLCK));
    pid_t pid = OK(fork());
    if (pid == 0) {
        close(fd);
        _exit(truncate("f", 0) ? 1 : 0);
    }
    await_hits(1);
    OK(fcntl(fd, F_SETLEASE, F_UNLCK));
    EQ(t_wait(pid), 0);
}

TEST(dnotify) {
    OK(mkdir("d", 0755));
    int fd = OK(open("d", O_RDONLY));
    catch(SIGIO);
    OK(fcntl(fd, F_NOTIFY, DN_CREATE));
    t_write_file("d/a", "x");
    await_hits(1);
    t_write_file("d/b", "x");
    usleep(10000);
    EQ(hits, 1);
    OK(fcntl(fd, F_NOTIFY, DN_DELETE | DN_RENAME | DN_MULTISHOT));
    OK(rename("d/a", "d/c"));
    await_hits(2);
    OK(rename("d/c", "moved")); /* Leaves the directory: deleted there. */
    await_hits(3);
    OK(rename("moved", "d/c"));
    OK(unlink("d/c"));
    await_hits(4);
    OK(fcntl(fd, F_NOTIFY, 0));
    OK(unlink("d/b"));
    usleep(10000);
    EQ(hits, 4);
    OK(fcntl(fd, F_NOTIFY, DN_ATTRIB));
    OK(chmod("d", 0700));
    await_hits(5);
    t_write_file("f", "x");
    int file = OK(open("f", O_RDONLY));
    FAILS(fcntl(file, F_NOTIFY, DN_ACCESS), ENOTDIR);
}

static long io(long nr, long a, long b, long c, long d, long e) { return syscall(nr, a, b, c, d, e); }

TEST(aio_read_and_write) {
    aio_context_t ctx = 0;
    OK(io(SYS_io_setup, 8, (long)&ctx, 0, 0, 0));
    CHECK(ctx != 0);
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644)), ev = OK(eventfd(0, 0));
    char out[] = "hello", in[8] = "";
    struct iocb w = {.aio_data = 1, .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (long)out,
                     .aio_nbytes = 5, .aio_offset = 3, .aio_flags = IOCB_FLAG_RESFD, .aio_resfd = ev};
    struct iocb *list[] = {&w};
    EQ(io(SYS_io_submit, ctx, 1, (long)list, 0, 0), 1);
    struct io_event events[4];
    EQ(io(SYS_io_getevents, ctx, 1, 4, (long)events, 0), 1);
    EQ(events[0].data, 1);
    EQ(events[0].obj, (long)&w);
    EQ(events[0].res, 5);
    uint64_t count;
    EQ(read(ev, &count, 8), 8);
    EQ(count, 1);
    struct iovec iov = {in, 5};
    struct iocb r = {.aio_lio_opcode = IOCB_CMD_PREADV, .aio_fildes = fd, .aio_buf = (long)&iov, .aio_nbytes = 1, .aio_offset = 3};
    struct iocb s = {.aio_lio_opcode = IOCB_CMD_FSYNC, .aio_fildes = fd};
    struct iocb *two[] = {&r, &s};
    EQ(io(SYS_io_submit, ctx, 2, (long)two, 0, 0), 2);
    struct timespec limit = {5, 0};
    int got = 0;
    while (got < 2) got += OK(io(SYS_io_getevents, ctx, 1, 4, (long)events, (long)&limit));
    STREQ(in, "hello");
    struct timespec none = {0, 1000000};
    EQ(io(SYS_io_getevents, ctx, 1, 4, (long)events, (long)&none), 0);
    EQ(io(SYS_io_pgetevents, ctx, 1, 4, (long)events, (long)&none), 0);
    OK(io(SYS_io_destroy, ctx, 0, 0, 0, 0));
    FAILS(io(SYS_io_destroy, ctx, 0, 0, 0, 0), EINVAL);
    FAILS(io(SYS_io_submit, ctx, 1, (long)list, 0, 0), EINVAL);
}

TEST(aio_refuses) {
    aio_context_t ctx = 0;
    FAILS(io(SYS_io_setup, 0, (long)&ctx, 0, 0, 0), EINVAL);
    ctx = 1;
    FAILS(io(SYS_io_setup, 1, (long)&ctx, 0, 0, 0), EINVAL);
    FAILS(io(SYS_io_setup, 1, 0, 0, 0, 0), EFAULT);
    ctx = 0;
    OK(io(SYS_io_setup, 2, (long)&ctx, 0, 0, 0));
    struct iocb bad = {.aio_lio_opcode = 99, .aio_fildes = 0};
    struct iocb *list[] = {&bad};
    EQ(io(SYS_io_submit, ctx, 0, (long)list, 0, 0), 0);
    FAILS(io(SYS_io_submit, ctx, -1, (long)list, 0, 0), EINVAL);
    FAILS(io(SYS_io_submit, ctx, 1, 0, 0, 0), EFAULT);
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    bad.aio_fildes = fd;
    FAILS(io(SYS_io_submit, ctx, 1, (long)list, 0, 0), EINVAL);
    bad.aio_fildes = 999;
    bad.aio_lio_opcode = IOCB_CMD_PREAD;
    FAILS(io(SYS_io_submit, ctx, 1, (long)list, 0, 0), EBADF);
    struct io_event ev;
    FAILS(io(SYS_io_cancel, ctx, (long)&bad, (long)&ev, 0, 0), EINVAL);
    FAILS(io(SYS_io_getevents, ctx, -1, 1, (long)&ev, 0), EINVAL);
}

TEST(aio_poll) {
    aio_context_t ctx = 0;
    OK(io(SYS_io_setup, 2, (long)&ctx, 0, 0, 0));
    int p[2];
    OK(pipe(p));
    struct iocb poll = {.aio_data = 9, .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = p[0], .aio_buf = POLLIN};
    struct iocb *list[] = {&poll};
    EQ(io(SYS_io_submit, ctx, 1, (long)list, 0, 0), 1);
    struct io_event ev;
    struct timespec none = {0, 0};
    EQ(io(SYS_io_getevents, ctx, 0, 1, (long)&ev, (long)&none), 0);
    EQ(write(p[1], "x", 1), 1);
    EQ(io(SYS_io_getevents, ctx, 1, 1, (long)&ev, 0), 1);
    EQ(ev.data, 9);
    CHECK(ev.res & POLLIN);
}
