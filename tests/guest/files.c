/* What files and mappings do at the edges: locks at exit, splices, sealed and remapped memory, watches, handles. */
#define FAMILY "files"
#include "t.h"
#include <sys/inotify.h>
#include <sys/epoll.h>
#include <sys/mount.h>

TEST(record_locks_go_at_exit) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    pid_t pid = OK(fork());
    if (pid == 0) {
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        _exit(fcntl(fd, F_SETLK, &l) ? 1 : 0); /* The parent still has the same open file. */
    }
    EQ(t_wait(pid), 0);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    OK(fcntl(fd, F_SETLK, &l));
}

TEST(record_locks_deadlock_ends_at_exit) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644)), ready[2];
    OK(pipe(ready));
    pid_t pid = OK(fork());
    if (pid == 0) {
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 1};
        if (fcntl(fd, F_SETLK, &l)) _exit(1);
        if (write(ready[1], "x", 1) != 1) _exit(2);
        pause();
    }
    char c;
    EQ(read(ready[0], &c, 1), 1);
    pid_t killer = OK(fork());
    if (killer == 0) {
        usleep(50000);
        kill(pid, SIGKILL);
        _exit(0);
    }
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 1};
    OK(fcntl(fd, F_SETLKW, &l));
    t_wait(pid);
    t_wait(killer);
}

TEST(record_locks_go_with_close_on_exec) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644)), done[2];
    OK(pipe(done));
    pid_t pid = OK(fork());
    if (pid == 0) {
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (fcntl(fd, F_SETLK, &l)) _exit(1);
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        dup2(done[1], 1);
        execl("/bin/sh", "sh", "-c", "echo x; exec sleep 5", NULL);
        _exit(2);
    }
    char c;
    EQ(read(done[0], &c, 1), 1);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    OK(fcntl(fd, F_SETLK, &l));
    kill(pid, SIGKILL);
    t_wait(pid);
}

TEST(vmsplice_stops_at_a_full_pipe) {
    int p[2];
    OK(pipe(p));
    long size = OK(fcntl(p[1], F_GETPIPE_SZ));
    char *buf = calloc(1, 2 * size);
    struct iovec iov = {buf, 2 * size};
    long n = OK(vmsplice(p[1], &iov, 1, 0));
    CHECK(n > 0 && n <= size);
    while (n < size) { /* A buffer that starts inside a page fills a slot with less. */
        long more = vmsplice(p[1], &iov, 1, SPLICE_F_NONBLOCK);
        if (more < 0) break;
        n += more;
    }
    FAILS(vmsplice(p[1], &iov, 1, SPLICE_F_NONBLOCK), EAGAIN);
}

TEST(pipe_size_of_nothing_is_a_page) {
    int p[2];
    OK(pipe(p));
    EQ(fcntl(p[1], F_SETPIPE_SZ, 0), 4096);
}

TEST(positions_of_streams) {
    int p[2];
    OK(pipe(p));
    char c = 0;
    FAILS(pwrite(p[0], &c, 1, 0), ESPIPE);
    FAILS(pread(p[1], &c, 1, 0), ESPIPE);
    FAILS(sync_file_range(p[0], 0, 1, 4), ESPIPE);
    int dir = OK(open(".", O_RDONLY));
    FAILS(readahead(dir, 0, 4096), EINVAL);
}

#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY 1027
#endif
#ifndef F_CREATED_QUERY
#define F_CREATED_QUERY 1028
#endif
TEST(fcntl_queries) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644)), again = OK(open("f", O_RDWR | O_CREAT, 0644)), copy = OK(dup(fd));
    if (fcntl(fd, F_CREATED_QUERY, 0) < 0 && errno == EINVAL) t_skip("a kernel before 6.12");
    EQ(fcntl(fd, F_CREATED_QUERY, 0), 1);
    EQ(fcntl(again, F_CREATED_QUERY, 0), 0);
    EQ(fcntl(fd, F_DUPFD_QUERY, copy), 1);
    EQ(fcntl(fd, F_DUPFD_QUERY, again), 0);
    FAILS(fcntl(fd, F_DUPFD_QUERY, 999), EBADF);
}

TEST(write_hints) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    uint64_t hint = 3;
    OK(fcntl(fd, 1036 /* F_SET_RW_HINT */, &hint));
    hint = 0;
    OK(fcntl(fd, 1035 /* F_GET_RW_HINT */, &hint));
    EQ(hint, 3);
    hint = 77;
    FAILS(fcntl(fd, 1036, &hint), EINVAL);
}

static int next(int fd, struct inotify_event *e) {
    char buf[4096] __attribute__((aligned(8)));
    static char kept[65536];
    static int at, len;
    if (at == len) {
        int n = read(fd, buf, sizeof buf);
        if (n <= 0) return 0;
        memcpy(kept, buf, n);
        at = 0, len = n;
    }
    memcpy(e, kept + at, sizeof *e);
    at += sizeof *e + e->len;
    return 1;
}

TEST(inotify_of_itself) {
    int fd = OK(inotify_init1(IN_NONBLOCK));
    OK(mkdir("d", 0755));
    t_write_file("f", "x");
    OK(inotify_add_watch(fd, "d", IN_MOVE_SELF | IN_DELETE_SELF));
    OK(rename("d", "e"));
    struct inotify_event e;
    CHECK(next(fd, &e));
    EQ(e.mask, IN_MOVE_SELF);
    OK(inotify_add_watch(fd, "f", IN_ATTRIB | IN_DELETE_SELF));
    OK(unlink("f"));
    CHECK(next(fd, &e));
    EQ(e.mask, IN_ATTRIB);
    CHECK(next(fd, &e));
    EQ(e.mask, IN_DELETE_SELF);
    CHECK(next(fd, &e));
    EQ(e.mask, IN_IGNORED);
}

static int events_of_unlinked(uint32_t flags) {
    int fd = OK(inotify_init1(IN_NONBLOCK));
    OK(mkdir("d", 0755));
    t_write_file("d/f", "x");
    OK(inotify_add_watch(fd, "d", IN_MODIFY | flags));
    int file = OK(open("d/f", O_WRONLY));
    OK(unlink("d/f"));
    EQ(write(file, "y", 1), 1);
    struct inotify_event e;
    return next(fd, &e);
}
TEST(inotify_of_unlinked_entries) { EQ(events_of_unlinked(0), 1); }
TEST(inotify_excludes_unlinked) { EQ(events_of_unlinked(IN_EXCL_UNLINK), 0); }

TEST(mmap_checks_in_order) {
    int fd = OK(open("f", O_WRONLY | O_CREAT, 0644));
    FAILS((long)mmap(NULL, 4096, PROT_READ, 0, fd, 0), EINVAL);
    FAILS((long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0), EACCES);
    int rw = OK(open("f", O_RDWR));
    FAILS((long)mmap(NULL, 4096, PROT_READ, MAP_SHARED_VALIDATE | (1 << 7) | (1 << 9), rw, 0), EOPNOTSUPP);
    FAILS((long)mmap(NULL, 4096, PROT_READ, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0), EINVAL);
}

TEST(mseal) {
    char *p = OK(mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (syscall(462, p, 4096, 1L) < 0 && errno == ENOSYS) t_skip("no mseal");
    FAILS(syscall(462, p, 4096, 1L), EINVAL);
    FAILS(syscall(462, p + 1, 4096, 0L), EINVAL);
    OK(syscall(462, p + 4096, 4096, 0L));
    FAILS(munmap(p, 3 * 4096), EPERM);
    FAILS(mprotect(p + 4096, 4096, PROT_READ), EPERM);
    FAILS((long)mremap(p + 4096, 4096, 8192, MREMAP_MAYMOVE), EPERM);
    FAILS((long)mmap(p + 4096, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EPERM);
    OK(madvise(p + 4096, 4096, MADV_DONTNEED));
    p[4096] = 1;
    OK(munmap(p, 4096));
    OK(munmap(p + 8192, 4096));
    FAILS(syscall(462, p, 4096, 0L), ENOMEM);
}

TEST(remap_file_pages) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    OK(ftruncate(fd, 3 * 4096));
    char *p = OK(mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    p[0] = 'a', p[4096] = 'b', p[8192] = 'c';
    if (syscall(SYS_remap_file_pages, p, 4096L, 0L, 2L, 0L) < 0 && errno == ENOSYS) t_skip("no remap_file_pages");
    EQ(p[0], 'c');
    p[0] = 'd';
    EQ(p[8192], 'd');
    FAILS(syscall(SYS_remap_file_pages, p, 4096L, (long)PROT_READ, 0L, 0L), EINVAL);
    char *q = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    FAILS(syscall(SYS_remap_file_pages, q, 4096L, 0L, 0L, 0L), EINVAL);
}

static void lock_as_nobody(void *limit) {
    struct rlimit rl = {(rlim_t)(intptr_t)limit, (rlim_t)(intptr_t)limit};
    OK(setrlimit(RLIMIT_MEMLOCK, &rl));
    void *p = OK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    OK(seteuid(65534));
    FAILS(mlock(p, 4096), limit ? ENOMEM : EPERM);
}
TEST(mlock_limit_after_losing_capabilities) {
    if (getuid() != 0) t_skip("not root");
    EQ(t_child(lock_as_nobody, (void *)0), 0);
    EQ(t_child(lock_as_nobody, (void *)4095), 0);
}

TEST(statx_unique_mount_id) {
    struct statx a, b;
    OK(statx(AT_FDCWD, "/", 0, STATX_BASIC_STATS, &a));
    OK(statx(AT_FDCWD, "/", 0, STATX_BASIC_STATS | 0x4000, &b));
    if (!(b.stx_mask & 0x4000)) t_skip("a kernel before 6.8");
    CHECK(b.stx_mnt_id > 1u << 31);
    EQ(a.stx_mask & 0x4000, 0);
}

TEST(epoll_of_a_pidfd) {
    pid_t pid = OK(fork());
    if (pid == 0) _exit(0);
    int fd = OK(syscall(SYS_pidfd_open, pid, 0)), ep = OK(epoll_create1(0));
    struct epoll_event ev = {.events = EPOLLIN};
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
    EQ(epoll_wait(ep, &ev, 1, 5000), 1);
    ev.events = EPOLLIN | EPOLLET;
    OK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev));
    EQ(epoll_wait(ep, &ev, 1, 5000), 1);
    t_wait(pid);
}

TEST(file_handles) {
    union {
        struct file_handle h;
        char room[sizeof(struct file_handle) + 128];
    } u = {0};
    t_write_file("f", "hello");
    int mount_id = -1;
    u.h.handle_bytes = 0;
    if (name_to_handle_at(AT_FDCWD, "f", &u.h, &mount_id, 0) < 0 && errno == EOPNOTSUPP) t_skip("no handles here");
    FAILS(name_to_handle_at(AT_FDCWD, "f", &u.h, &mount_id, 0x40000000), EINVAL);
    u.h.handle_bytes = 0;
    FAILS(name_to_handle_at(AT_FDCWD, "f", &u.h, &mount_id, 0), EOVERFLOW);
    CHECK(u.h.handle_bytes > 0 && mount_id >= 0);
    OK(name_to_handle_at(AT_FDCWD, "f", &u.h, &mount_id, 0));
    int dir = OK(open(".", O_RDONLY));
    int fd = open_by_handle_at(dir, &u.h, O_RDONLY);
    if (fd < 0 && errno == EPERM) t_skip("not allowed");
    CHECK(fd >= 0);
    char buf[8] = "";
    EQ(read(fd, buf, 8), 5);
    STREQ(buf, "hello");
    close(fd);
    OK(unlink("f"));
    FAILS(open_by_handle_at(dir, &u.h, O_RDONLY), ESTALE);
    FAILS(open_by_handle_at(999, &u.h, O_RDONLY), EBADF);
}

static void mount_one(void *arg) {
    (void)arg;
    if (unshare(CLONE_NEWNS)) _exit(77);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) _exit(77);
    int fd = open("/proc/self/mounts", O_RDONLY);
    struct pollfd p = {fd, POLLPRI, 0};
    if (poll(&p, 1, 0) != 0) _exit(1);
    mkdir("m", 0755);
    if (mount("none", "m", "tmpfs", 0, NULL)) _exit(77);
    if (poll(&p, 1, 5000) != 1 || !(p.revents & POLLPRI) || !(p.revents & POLLERR)) _exit(2);
    if (poll(&p, 1, 0) != 0) _exit(3);
    umount("m");
    if (poll(&p, 1, 5000) != 1) _exit(4);
}
TEST(mounts_tell_poll_of_changes) {
    int status = t_child(mount_one, NULL);
    if (WEXITSTATUS(status) == 77) t_skip("no mounts");
    EQ(status, 0);
}

TEST(unnamed_file_gets_a_name) {
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (fd < 0 && errno == EOPNOTSUPP) t_skip("no unnamed files here");
    CHECK(fd >= 0);
    EQ(write(fd, "hello", 5), 5);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 1);
    EQ(st.st_mode & 0777, 0640);
    STREQ(t_read_file("named"), "hello");
    struct stat by_name;
    OK(stat("named", &by_name));
    EQ(by_name.st_ino, st.st_ino);
    OK(unlink("named"));
    FAILS(open("named", O_RDONLY), ENOENT);
}

TEST(procfs_texts_do_not_poll) {
    int ep = OK(epoll_create1(0)), fd = OK(open("/proc/self/maps", O_RDONLY));
    struct epoll_event ev = {.events = EPOLLIN};
    FAILS(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), EPERM);
}
