#include "t.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#define FAMILY "event"

TEST(pipe_basics) {
    int p[2];
    OK(pipe2(p, O_CLOEXEC));
    CHECK(fcntl(p[0], F_GETFD) & FD_CLOEXEC);
    EQ(write(p[1], "abc", 3), 3);
    int n;
    OK(ioctl(p[0], FIONREAD, &n));
    EQ(n, 3);
    char b[8];
    EQ(read(p[0], b, 8), 3);
    close(p[1]);
    EQ(read(p[0], b, 8), 0);
    FAILS(pipe2(p, 0x100), EINVAL);
    FAILS(pipe((int *)1), EFAULT);
}
TEST(pipe_epipe) {
    int p[2];
    OK(pipe(p));
    close(p[0]);
    signal(SIGPIPE, SIG_IGN);
    FAILS(write(p[1], "x", 1), EPIPE);
}
static void sigpipe(void *a) { (void)a; int p[2]; OK(pipe(p)); close(p[0]); if (write(p[1], "x", 1)) {} }
TEST(pipe_sigpipe) { EQ(WTERMSIG(t_child(sigpipe, NULL)), SIGPIPE); }
TEST(pipe_nonblock_full) {
    int p[2];
    OK(pipe2(p, O_NONBLOCK));
    char b[4096] = {0};
    long total = 0, n;
    while ((n = write(p[1], b, sizeof b)) > 0) total += n;
    EQ(total, 65536);
    CHECK(n == -1);
    FAILS(write(p[1], b, 1), EAGAIN);
    EQ(read(p[0], b, 4096), 4096);
    EQ(write(p[1], b, 4096), 4096);
    struct pollfd pf = {p[1], POLLOUT, 0};
    EQ(poll(&pf, 1, 0), 0);
}
TEST(pipe_size) {
    int p[2];
    OK(pipe(p));
    EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
    EQ(fcntl(p[0], F_SETPIPE_SZ, 5000), 8192);
    EQ(fcntl(p[1], F_GETPIPE_SZ), 8192);
}
static void *slow_reader(void *a) {
    static char b[200000];
    long got = 0, n;
    while ((n = read(*(int *)a, b, 3000)) > 0) got += n;
    return (void *)got;
}
TEST(pipe_big_write_blocks) {
    int p[2];
    OK(pipe(p));
    pthread_t t;
    pthread_create(&t, NULL, slow_reader, &p[0]);
    static char b[300000];
    EQ(write(p[1], b, sizeof b), sizeof b);
    close(p[1]);
    void *r;
    pthread_join(t, &r);
    EQ((long)r, sizeof b);
}
TEST(pipe_poll) {
    int p[2];
    OK(pipe(p));
    struct pollfd f[2] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}};
    EQ(poll(f, 2, 0), 1);
    EQ(f[0].revents, 0);
    EQ(f[1].revents, POLLOUT);
    EQ(write(p[1], "x", 1), 1);
    EQ(poll(f, 1, -1), 1);
    EQ(f[0].revents, POLLIN);
    close(p[1]);
    EQ(poll(f, 1, 0), 1);
    EQ(f[0].revents, POLLIN | POLLHUP);
    OK(pipe(p));
    close(p[0]);
    f[0] = (struct pollfd){p[1], POLLOUT, 0};
    EQ(poll(f, 1, 0), 1);
    EQ(f[0].revents, POLLOUT | POLLERR);
}
TEST(poll_misc) {
    struct pollfd f = {999, POLLIN, 0};
    EQ(poll(&f, 1, 0), 1);
    EQ(f.revents, POLLNVAL);
    f.fd = -1;
    EQ(poll(&f, 1, 0), 0);
    long long t = t_ms();
    EQ(poll(NULL, 0, 30), 0);
    CHECK(t_ms() - t >= 29);
    FAILS(poll((void *)1, 1, 0), EFAULT);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    f = (struct pollfd){fd, POLLIN | POLLOUT, 0};
    EQ(poll(&f, 1, 0), 1);
    EQ(f.revents, POLLIN | POLLOUT);
}
static void *write_later(void *a) {
    usleep(30000);
    if (write(*(int *)a, "12345678", 8) < 0) return a;
    return NULL;
}
TEST(poll_wakes) {
    int p[2];
    OK(pipe(p));
    pthread_t t;
    pthread_create(&t, NULL, write_later, &p[1]);
    struct pollfd f = {p[0], POLLIN, 0};
    EQ(poll(&f, 1, 5000), 1);
    pthread_join(t, NULL);
}
TEST(select_works) {
    int p[2];
    OK(pipe(p));
    fd_set r, w;
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(p[0], &r);
    FD_SET(p[1], &w);
    struct timeval tv = {0, 0};
    EQ(select(p[1] + 1, &r, &w, NULL, &tv), 1);
    CHECK(!FD_ISSET(p[0], &r) && FD_ISSET(p[1], &w));
    FD_ZERO(&r);
    FD_SET(100, &r);
    FAILS(select(101, &r, NULL, NULL, &tv), EBADF);
    tv.tv_usec = 20000;
    EQ(select(0, NULL, NULL, NULL, &tv), 0);
    FAILS(select(-1, NULL, NULL, NULL, &tv), EINVAL);
}
static volatile sig_atomic_t got;
static void on(int s) { got = s; }
TEST(ppoll_mask) {
    struct sigaction sa = {.sa_handler = on};
    OK(sigaction(SIGUSR1, &sa, NULL));
    sigset_t b, e;
    sigemptyset(&e);
    sigemptyset(&b);
    sigaddset(&b, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &b, NULL));
    raise(SIGUSR1);
    struct timespec ts = {5, 0};
    FAILS(ppoll(NULL, 0, &ts, &e), EINTR);
    EQ(got, SIGUSR1);
    sigset_t now;
    sigprocmask(0, NULL, &now);
    CHECK(sigismember(&now, SIGUSR1));
}
TEST(eventfd_counts) {
    int fd = OK(eventfd(3, EFD_NONBLOCK));
    uint64_t v;
    EQ(read(fd, &v, 8), 8);
    EQ(v, 3);
    FAILS(read(fd, &v, 8), EAGAIN);
    FAILS(read(fd, &v, 4), EINVAL);
    v = UINT64_MAX;
    FAILS(write(fd, &v, 8), EINVAL);
    v = UINT64_MAX - 1;
    EQ(write(fd, &v, 8), 8);
    v = 1;
    FAILS(write(fd, &v, 8), EAGAIN);
    int s = OK(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    EQ(read(s, &v, 8), 8);
    EQ(v, 1);
    EQ(read(s, &v, 8), 8);
    FAILS(read(s, &v, 8), EAGAIN);
}
TEST(eventfd_blocks) {
    int fd = OK(eventfd(0, 0));
    pthread_t t;
    pthread_create(&t, NULL, write_later, &fd);
    uint64_t v;
    EQ(read(fd, &v, 8), 8);
    pthread_join(t, NULL);
}
TEST(timerfd_fires) {
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    uint64_t v;
    FAILS(read(fd, &v, 8), EAGAIN);
    struct itimerspec it = {{0, 10000000}, {0, 10000000}}, cur;
    OK(timerfd_settime(fd, 0, &it, NULL));
    struct pollfd p = {fd, POLLIN, 0};
    EQ(poll(&p, 1, 5000), 1);
    EQ(read(fd, &v, 8), 8);
    CHECK(v >= 1);
    OK(timerfd_gettime(fd, &cur));
    EQ(cur.it_interval.tv_nsec, 10000000);
    usleep(55000);
    EQ(read(fd, &v, 8), 8);
    CHECK(v >= 3);
    it = (struct itimerspec){{0, 0}, {0, 0}};
    OK(timerfd_settime(fd, 0, &it, NULL));
    FAILS(read(fd, &v, 8), EAGAIN);
    it.it_value.tv_nsec = 2000000000;
    FAILS(timerfd_settime(fd, 0, &it, NULL), EINVAL);
    FAILS(timerfd_create(77, 0), EINVAL);
    it = (struct itimerspec){{0, 0}, {1, 0}};
    OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &it, NULL));
    EQ(poll(&p, 1, 1000), 1);
}
TEST(signalfd_reads) {
    sigset_t m;
    sigemptyset(&m);
    sigaddset(&m, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &m, NULL));
    int fd = OK(signalfd(-1, &m, SFD_NONBLOCK));
    struct signalfd_siginfo si;
    FAILS(read(fd, &si, sizeof si), EAGAIN);
    raise(SIGUSR1);
    struct pollfd p = {fd, POLLIN, 0};
    EQ(poll(&p, 1, 0), 1);
    EQ(read(fd, &si, sizeof si), sizeof si);
    EQ(si.ssi_signo, SIGUSR1);
    EQ(si.ssi_pid, getpid());
    FAILS(read(fd, &si, 4), EINVAL);
}
TEST(epoll_basics) {
    int ep = OK(epoll_create1(EPOLL_CLOEXEC)), p[2];
    OK(pipe(p));
    struct epoll_event ev = {EPOLLIN, {.u64 = 0x1122334455667788}}, out[4];
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
    FAILS(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev), EEXIST);
    EQ(epoll_wait(ep, out, 4, 0), 0);
    EQ(write(p[1], "x", 1), 1);
    EQ(epoll_wait(ep, out, 4, -1), 1);
    EQ(out[0].events, EPOLLIN);
    EQ(out[0].data.u64, 0x1122334455667788);
    EQ(epoll_wait(ep, out, 4, 0), 1);
    OK(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL));
    EQ(epoll_wait(ep, out, 4, 0), 0);
    FAILS(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL), ENOENT);
    FAILS(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &ev), ENOENT);
    FAILS(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev), EINVAL);
    FAILS(epoll_ctl(ep, EPOLL_CTL_ADD, 999, &ev), EBADF);
    FAILS(epoll_wait(ep, out, 0, 0), EINVAL);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    FAILS(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), EPERM);
}
TEST(epoll_edge) {
    int ep = OK(epoll_create1(0)), p[2];
    OK(pipe(p));
    struct epoll_event ev = {EPOLLIN | EPOLLET, {.fd = 5}}, out[4];
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
    EQ(write(p[1], "x", 1), 1);
    EQ(epoll_wait(ep, out, 4, 1000), 1);
    EQ(epoll_wait(ep, out, 4, 0), 0);
    EQ(write(p[1], "x", 1), 1);
    EQ(epoll_wait(ep, out, 4, 1000), 1);
    ev.events = EPOLLIN | EPOLLET;
    OK(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &ev));
    EQ(epoll_wait(ep, out, 4, 0), 1);
}
TEST(epoll_oneshot) {
    int ep = OK(epoll_create1(0)), fd = OK(eventfd(1, 0));
    struct epoll_event ev = {EPOLLIN | EPOLLONESHOT, {.fd = fd}}, out[4];
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
    EQ(epoll_wait(ep, out, 4, 0), 1);
    EQ(epoll_wait(ep, out, 4, 0), 0);
    OK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev));
    EQ(epoll_wait(ep, out, 4, 0), 1);
}
TEST(epoll_closed_fd_goes) {
    int ep = OK(epoll_create1(0)), fd = OK(eventfd(1, 0));
    struct epoll_event ev = {EPOLLIN, {.fd = fd}}, out[4];
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
    close(fd);
    EQ(epoll_wait(ep, out, 4, 0), 0);
}
TEST(epoll_nested) {
    int a = OK(epoll_create1(0)), b = OK(epoll_create1(0)), fd = OK(eventfd(0, 0));
    struct epoll_event ev = {EPOLLIN, {.fd = 1}}, out[4];
    OK(epoll_ctl(b, EPOLL_CTL_ADD, fd, &ev));
    OK(epoll_ctl(a, EPOLL_CTL_ADD, b, &ev));
    FAILS(epoll_ctl(b, EPOLL_CTL_ADD, a, &ev), ELOOP);
    EQ(epoll_wait(a, out, 4, 0), 0);
    uint64_t one = 1;
    EQ(write(fd, &one, 8), 8);
    EQ(epoll_wait(a, out, 4, 1000), 1);
    struct pollfd p = {a, POLLIN, 0};
    EQ(poll(&p, 1, 0), 1);
}
TEST(epoll_many) {
    int ep = OK(epoll_create1(0)), fds[200];
    struct epoll_event ev = {EPOLLIN, {0}}, out[300];
    for (int i = 0; i < 200; i++) {
        fds[i] = OK(eventfd(0, 0));
        ev.data.u32 = i;
        OK(epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &ev));
    }
    uint64_t one = 1;
    for (int i = 0; i < 200; i += 2) EQ(write(fds[i], &one, 8), 8);
    EQ(epoll_wait(ep, out, 300, 0), 100);
    EQ(epoll_wait(ep, out, 10, 0), 10);
}
TEST(epoll_wakes_thread) {
    int ep = OK(epoll_create1(0)), fd = OK(eventfd(0, 0));
    struct epoll_event ev = {EPOLLIN, {.fd = fd}}, out[4];
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
    pthread_t t;
    pthread_create(&t, NULL, write_later, &fd);
    EQ(epoll_wait(ep, out, 4, 5000), 1);
    pthread_join(t, NULL);
}
TEST(inotify_events) {
    int fd = OK(inotify_init1(IN_NONBLOCK));
    OK(mkdir("d", 0755));
    int wd = OK(inotify_add_watch(fd, "d", IN_CREATE | IN_DELETE | IN_MODIFY | IN_CLOSE_WRITE));
    t_write_file("d/f", "x");
    OK(unlink("d/f"));
    char buf[4096];
    ssize_t n = OK(read(fd, buf, sizeof buf));
    uint32_t seen = 0;
    for (char *p = buf; p < buf + n;) {
        struct inotify_event *e = (void *)p;
        EQ(e->wd, wd);
        STREQ(e->name, "f");
        seen |= e->mask;
        p += sizeof *e + e->len;
    }
    EQ(seen, IN_CREATE | IN_DELETE | IN_MODIFY | IN_CLOSE_WRITE);
    OK(inotify_rm_watch(fd, wd));
    FAILS(inotify_rm_watch(fd, wd), EINVAL);
}
TEST(splice_tee) {
    int p[2], q[2];
    OK(pipe(p));
    OK(pipe(q));
    t_write_file("f", "hello world");
    int fd = OK(open("f", O_RDONLY));
    EQ(splice(fd, NULL, p[1], NULL, 5, 0), 5);
    EQ(tee(p[0], q[1], 100, 0), 5);
    char b[16] = {0};
    EQ(read(p[0], b, 16), 5);
    STREQ(b, "hello");
    EQ(read(q[0], b, 16), 5);
}
