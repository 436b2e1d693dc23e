/* Small differences that larger suites and programs found. */
#include "t.h"
#include <dirent.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#define FAMILY "found"

TEST(fionread_of_a_file) {
    t_write_file("f", "0123456789");
    int fd = OK(open("f", O_RDONLY)), left = -1;
    OK(ioctl(fd, FIONREAD, &left));
    EQ(left, 10);
    EQ(lseek(fd, 4, SEEK_SET), 4);
    OK(ioctl(fd, FIONREAD, &left));
    EQ(left, 6);
    EQ(lseek(fd, 12, SEEK_SET), 12);
    OK(ioctl(fd, FIONREAD, &left));
    EQ(left, -2);
    int dir = OK(open(".", O_RDONLY));
    FAILS(ioctl(dir, FIONREAD, &left), ENOTTY);
}
TEST(getdents_without_room) {
    t_write_file("f", "x");
    int fd = OK(open(".", O_RDONLY | O_DIRECTORY));
    char buf[4096];
    FAILS(syscall(SYS_getdents64, fd, buf, 1), EINVAL);
    FAILS(syscall(SYS_getdents, fd, buf, 8), EINVAL);
    CHECK(syscall(SYS_getdents64, fd, buf, sizeof buf) > 0);
    EQ(syscall(SYS_getdents64, fd, buf, sizeof buf), 0);
    EQ(syscall(SYS_getdents64, fd, buf, 1), 0);
}
TEST(setgid_goes_before_the_umask) {
    OK(mkdir("d", 0777));
    OK(chown("d", 0, 4242));
    OK(chmod("d", 02777));
    OK(chmod(".", 0777));
    OK(setgid(1000));
    OK(setuid(1000));
    umask(S_IXGRP);
    close(OK(open("d/f", O_CREAT | O_WRONLY, 02777)));
    struct stat st;
    OK(stat("d/f", &st));
    EQ(st.st_mode & 07777, 0767);
    EQ(st.st_gid, 4242);
}
TEST(reflinks_are_not_there) {
    t_write_file("a", "x");
    t_write_file("b", "");
    int a = OK(open("a", O_RDONLY)), b = OK(open("b", O_RDWR)), p[2];
    OK(pipe(p));
    FAILS(ioctl(b, FICLONE, 9999), EBADF);
    FAILS(ioctl(b, FICLONE, p[0]), EXDEV);
    FAILS(ioctl(a, FICLONE, b), EBADF);
    CHECK(ioctl(b, FICLONE, a) < 0 && errno == EOPNOTSUPP);
    struct file_clone_range range = {.src_fd = a};
    CHECK(ioctl(b, FICLONERANGE, &range) < 0 && errno == EOPNOTSUPP);
}

static void own_mounts(void) {
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) t_skip("no mounts here");
    OK(mkdir("m", 0755));
}
TEST(statfs_shows_mount_flags) {
    own_mounts();
    struct {
        unsigned long set, shown, hidden;
    } cases[] = {{MS_NOATIME, 0x400, 0x1000},     {MS_NODIRATIME, 0x1800, 0x400}, {MS_STRICTATIME, 0, 0x1400},
                 {0x100 /* MS_NOSYMFOLLOW */, 0x3000, 0x400}, {MS_NOEXEC | MS_NODEV, 0x100c, 2}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        OK(mount("none", "m", "tmpfs", cases[i].set, NULL));
        struct statvfs v;
        OK(statvfs("m", &v));
        EQ(v.f_flag & cases[i].shown, cases[i].shown);
        EQ(v.f_flag & cases[i].hidden, 0);
        OK(umount("m"));
    }
}
static long atime_after(const char *path, void (*use)(const char *)) {
    struct stat st;
    struct timespec times[2] = {{.tv_sec = 2000000000}, {.tv_sec = 1000000000}};
    OK(utimensat(AT_FDCWD, path, times, 0));
    use(path);
    OK(stat(path, &st));
    return st.st_atime;
}
static void read_it(const char *path) { CHECK(*t_read_file(path)); }
static void read_its_end(const char *path) {
    char c;
    int fd = OK(open(path, O_RDONLY));
    OK(lseek(fd, 0, SEEK_END));
    EQ(read(fd, &c, 1), 0);
    close(fd);
}
static void list_it(const char *path) {
    DIR *d = opendir(path);
    CHECK(d && readdir(d));
    closedir(d);
}
TEST(access_times_as_the_mount_says) {
    own_mounts();
    /* In the future, so that relatime leaves them: the change time is now. */
    OK(mount("none", "m", "tmpfs", MS_STRICTATIME, NULL));
    OK(mkdir("m/d", 0755));
    t_write_file("m/f", "x");
    CHECK(atime_after("m/f", read_it) != 2000000000);
    CHECK(atime_after("m/f", read_its_end) != 2000000000);
    CHECK(atime_after("m/d", list_it) != 2000000000);
    OK(mount("none", "m", "tmpfs", MS_REMOUNT | MS_BIND | MS_NODIRATIME | MS_STRICTATIME, NULL));
    CHECK(atime_after("m/f", read_it) != 2000000000);
    EQ(atime_after("m/d", list_it), 2000000000);
    OK(mount("none", "m", "tmpfs", MS_REMOUNT | MS_BIND | MS_NOATIME, NULL));
    EQ(atime_after("m/f", read_it), 2000000000);
    EQ(atime_after("m/d", list_it), 2000000000);
    OK(mount("none", "m", "tmpfs", MS_REMOUNT | MS_BIND | MS_RELATIME, NULL));
    EQ(atime_after("m/f", read_it), 2000000000);
}
TEST(listing_a_directory_is_an_access) {
    OK(mkdir("d", 0755));
    int fd = OK(inotify_init1(IN_NONBLOCK));
    OK(inotify_add_watch(fd, "d", IN_ACCESS));
    list_it("d");
    struct inotify_event e;
    EQ(read(fd, &e, sizeof e), (long long)sizeof e);
    EQ(e.mask, IN_ACCESS | IN_ISDIR);
}
TEST(fsconfig_common_parameters) {
    own_mounts();
    int fd = OK(syscall(SYS_fsopen, "tmpfs", 0));
    OK(syscall(SYS_fsconfig, fd, 3, "sync", "/tmp", AT_FDCWD));
    OK(syscall(SYS_fsconfig, fd, 5, "sync", NULL, 0));
    OK(syscall(SYS_fsconfig, fd, 1, "sync", "false", 0));
    OK(syscall(SYS_fsconfig, fd, 0, "ro", NULL, 0));
    FAILS(syscall(SYS_fsconfig, fd, 3, "size", "/tmp", AT_FDCWD), EINVAL);
    OK(syscall(SYS_fsconfig, fd, 6, NULL, NULL, 0));
    int m = OK(syscall(SYS_fsmount, fd, 0, 0));
    OK(syscall(SYS_move_mount, m, "", AT_FDCWD, "m", 4));
    FAILS(open("m/f", O_CREAT | O_WRONLY, 0644), EROFS);
    int pick = OK(syscall(SYS_fspick, AT_FDCWD, "m", 0));
    OK(syscall(SYS_fsconfig, pick, 0, "rw", NULL, 0));
    OK(syscall(SYS_fsconfig, pick, 7, NULL, NULL, 0));
    close(OK(open("m/f", O_CREAT | O_WRONLY, 0644)));
    OK(syscall(SYS_fsconfig, pick, 1, "sync", "false", 0));
    OK(syscall(SYS_fsconfig, pick, 0, "ro", NULL, 0));
    OK(syscall(SYS_fsconfig, pick, 7, NULL, NULL, 0));
    FAILS(open("m/g", O_CREAT | O_WRONLY, 0644), EROFS);
    struct statvfs v;
    OK(statvfs("m", &v));
    EQ(v.f_flag & ST_RDONLY, ST_RDONLY);
    /* The file system is read-only, not the mount: the old list says so of both, the new one apart. */
    CHECK(strstr(t_read_file("/proc/self/mounts"), "/m tmpfs ro,"));
    const char *line = strstr(t_read_file("/proc/self/mountinfo"), "/m rw,");
    CHECK(line && strstr(line, " - tmpfs none ro"));
}

struct procmap_query {
    uint64_t size, query_flags, query_addr, vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
    uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
    uint64_t vma_name_addr, build_id_addr;
};
#define QUERY _IOWR('f', 17, struct procmap_query)
TEST(procmap_query) {
    t_write_file("f", "x");
    int file = OK(open("f", O_RDONLY)), fd = OK(open("/proc/self/maps", O_RDONLY));
    char *map = OK(mmap(NULL, 8192, PROT_READ, MAP_SHARED, file, 0)), name[4096];
    OK(munmap(map + 4096, 4096));
    struct stat st;
    OK(fstat(file, &st));
    struct procmap_query q = {.size = sizeof q, .query_addr = (uint64_t)map + 100, .vma_name_addr = (uint64_t)name, .vma_name_size = sizeof name};
    if (ioctl(fd, QUERY, &q) < 0 && errno == ENOTTY) t_skip("no queries here");
    EQ(q.vma_start, (long long)map);
    EQ(q.vma_end, (long long)map + 4096);
    EQ(q.vma_flags, 1 | 8);
    EQ(q.vma_page_size, 4096);
    EQ(q.vma_offset, 0);
    EQ(q.inode, st.st_ino);
    EQ(q.vma_name_size, strlen(name) + 1);
    CHECK(strstr(name, "/f"));
    struct procmap_query w = {.size = sizeof w, .query_addr = (uint64_t)map, .query_flags = 2};
    FAILS(ioctl(fd, QUERY, &w), ENOENT);
    w.query_flags = 2 | 0x10;
    OK(ioctl(fd, QUERY, &w));
    CHECK(w.vma_start > (uint64_t)map && w.vma_flags & 2);
    w = (struct procmap_query){.size = sizeof w, .query_addr = (uint64_t)&w};
    OK(ioctl(fd, QUERY, &w));
    CHECK(w.vma_start <= (uint64_t)&w && w.vma_end > (uint64_t)&w);
    EQ(w.vma_flags, 1 | 2);
    EQ(w.inode, 0);
    w.size = 8;
    FAILS(ioctl(fd, QUERY, &w), EINVAL);
    w.size = sizeof w;
    w.query_flags = 0x40;
    FAILS(ioctl(fd, QUERY, &w), EINVAL);
    q.vma_name_size = 2;
    q.query_addr = (uint64_t)map;
    FAILS(ioctl(fd, QUERY, &q), ENAMETOOLONG);
}
static int number_of(const char *path) { return atoi(t_read_file(path)); }
TEST(sysctls_of_a_network_namespace) {
    own_mounts();
    if (mount("proc", "m", "proc", 0, NULL) < 0 || unshare(CLONE_NEWNET) < 0) t_skip("no namespaces here");
    const char *path = "m/sys/net/ipv4/tcp_keepalive_time";
    EQ(number_of(path), 7200);
    t_write_file(path, "1234");
    EQ(number_of(path), 1234);
    int fd = OK(socket(AF_INET, SOCK_STREAM, 0)), value = 0;
    socklen_t len = sizeof value;
    OK(getsockopt(fd, 6, 4, &value, &len));
    EQ(value, 1234);
    t_write_file("m/sys/net/ipv4/tcp_rmem", "4096 65536 6291456");
    fd = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, &len));
    EQ(value, 65536);
    OK(unshare(CLONE_NEWNET));
    EQ(number_of(path), 7200);
    OK(umount2("m", MNT_DETACH));
}
TEST(adjtimex_of_a_mode_that_is_none) {
    struct timex t = {.modes = 0x8000};
    FAILS(adjtimex(&t), EINVAL);
}

/* Whether the kernel protects sticky directories in that way. */
static void needs_protection(const char *what) {
    char path[64];
    snprintf(path, sizeof path, "/proc/sys/fs/protected_%s", what);
    if (access(path, R_OK) < 0 || !number_of(path)) t_skip("%s are not protected here", what);
    OK(mkdir("d", 0777));
    OK(chmod("d", 01777));
    OK(chmod(".", 0755));
}
static void become(uid_t uid) {
    OK(setresgid(uid, uid, uid));
    OK(setresuid(uid, uid, uid));
}
static void leave_things(void *arg) {
    (void)arg;
    become(1001);
    umask(0);
    t_write_file("d/target", "x");
    OK(symlink("target", "d/link"));
    close(OK(open("d/file", O_CREAT | O_WRONLY, 0666)));
    close(OK(open("d/private", O_CREAT | O_WRONLY, 0644)));
    OK(mkfifo("d/fifo", 0666));
}
TEST(strangers_links_are_not_followed) {
    needs_protection("symlinks");
    EQ(t_child(leave_things, NULL), 0);
    FAILS(open("d/link", O_RDONLY), EACCES);
    FAILS(open("d/link/", O_RDONLY), EACCES);
    become(1001);
    close(OK(open("d/link", O_RDONLY)));
    struct stat st;
    OK(lstat("d/link", &st));
}
TEST(strangers_files_get_no_new_names) {
    needs_protection("hardlinks");
    EQ(t_child(leave_things, NULL), 0);
    OK(link("d/private", "roots"));
    become(1002);
    FAILS(link("d/private", "d/mine"), EPERM);
    FAILS(link("d/fifo", "d/mine"), EPERM);
    OK(link("d/file", "d/mine"));
}
TEST(strangers_files_are_not_created) {
    needs_protection("regular");
    EQ(t_child(leave_things, NULL), 0);
    FAILS(open("d/file", O_CREAT | O_WRONLY, 0644), EACCES);
    close(OK(open("d/file", O_WRONLY)));
    become(1001);
    close(OK(open("d/file", O_CREAT | O_WRONLY, 0644)));
}
