/* What a file system of the host must do whichever way a guest reaches it: a bind mount, the container's root, memory. */
#include "t.h"
#include <dirent.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#undef FAMILY
#define FAMILY "hostfs"

static off_t size_of(const char *path) {
    struct stat st;
    OK(stat(path, &st));
    return st.st_size;
}

static int readable(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

/* Runs fn as that user and group, without capabilities. */
struct as {
    uid_t uid;
    gid_t gid;
    void (*fn)(void);
};
static void become(void *arg) {
    struct as *as = arg;
    OK(syscall(SYS_setgroups, 0, NULL));
    OK(setresgid(as->gid, as->gid, as->gid));
    OK(setresuid(as->uid, as->uid, as->uid));
    as->fn();
}
static void as_user(uid_t uid, gid_t gid, void (*fn)(void)) {
    struct as as = {uid, gid, fn};
    EQ(t_child(become, &as), 0);
}

TEST(unnamed_file_gets_a_name) {
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (fd < 0 && errno == EOPNOTSUPP) t_skip("no O_TMPFILE here");
    CHECK(fd >= 0);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 0);
    EQ(write(fd, "hello", 5), 5);
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, link, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 1);
    STREQ(t_read_file("named"), "hello");
    OK(linkat(fd, "", AT_FDCWD, "second", AT_EMPTY_PATH));
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 2);
    close(fd);
}

TEST(link_of_a_removed_file) {
    t_write_file("f", "x");
    int fd = OK(open("f", O_RDONLY));
    OK(unlink("f"));
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    FAILS(linkat(AT_FDCWD, link, AT_FDCWD, "g", AT_SYMLINK_FOLLOW), ENOENT);
}

TEST(removed_files_live_on) {
    t_write_file("f", "first");
    int fd = OK(open("f", O_RDWR));
    OK(unlink("f"));
    t_write_file("f", "second");
    struct stat st, other;
    OK(fstat(fd, &st));
    OK(stat("f", &other));
    EQ(st.st_nlink, 0);
    CHECK(st.st_ino != other.st_ino);
    EQ(pwrite(fd, "FIRST", 5, 0), 5);
    char buf[16] = "";
    EQ(pread(fd, buf, sizeof buf, 0), 5);
    STREQ(buf, "FIRST");
    STREQ(t_read_file("f"), "second");
    OK(ftruncate(fd, 100));
    OK(fstat(fd, &st));
    EQ(st.st_size, 100);
    OK(fchmod(fd, 0600));
    OK(fstat(fd, &st));
    EQ(st.st_mode & 07777, 0600);
    char name[PATH_MAX], link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = OK(readlink(link, name, sizeof name - 1));
    name[n] = 0;
    CHECK(n > 10 && !strcmp(name + n - 10, " (deleted)"));
    int again = OK(open(link, O_RDONLY));
    EQ(read(again, buf, 5), 5);
    STREQ(buf, "FIRST");
}

TEST(replaced_files_live_on) {
    t_write_file("old", "old");
    t_write_file("new", "newer");
    int fd = OK(open("old", O_RDWR));
    OK(rename("new", "old"));
    char buf[16] = "";
    EQ(read(fd, buf, sizeof buf), 3);
    STREQ(buf, "old");
    STREQ(t_read_file("old"), "newer");
    FAILS(access("new", F_OK), ENOENT);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 0);
    EQ(write(fd, "+", 1), 1);
    STREQ(t_read_file("old"), "newer");
}

TEST(rename_flags) {
    t_write_file("a", "a");
    t_write_file("b", "bb");
    FAILS(syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
    OK(syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
    OK(syscall(SYS_renameat2, AT_FDCWD, "b", AT_FDCWD, "c", RENAME_EXCHANGE));
    STREQ(t_read_file("b"), "a");
    STREQ(t_read_file("c"), "bb");
    OK(mkdir("d", 0755));
    t_write_file("d/in", "in");
    OK(syscall(SYS_renameat2, AT_FDCWD, "d", AT_FDCWD, "c", RENAME_EXCHANGE));
    STREQ(t_read_file("c/in"), "in");
    STREQ(t_read_file("d"), "bb");
    FAILS(syscall(SYS_renameat2, AT_FDCWD, "none", AT_FDCWD, "c", RENAME_EXCHANGE), ENOENT);
    FAILS(syscall(SYS_renameat2, AT_FDCWD, "d", AT_FDCWD, "none", RENAME_EXCHANGE), ENOENT);
    FAILS(syscall(SYS_renameat2, AT_FDCWD, "d", AT_FDCWD, "c", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
    FAILS(syscall(SYS_renameat2, AT_FDCWD, "d", AT_FDCWD, "c", 0x80), EINVAL);
}

TEST(directories_move_under_open_files) {
    OK(mkdir("a", 0755));
    OK(mkdir("a/b", 0755));
    t_write_file("a/b/f", "text");
    int dir = OK(open("a/b", O_RDONLY | O_DIRECTORY));
    int fd = OK(open("a/b/f", O_RDWR));
    OK(chdir("a/b"));
    OK(rename("../../a", "../../z"));
    EQ(size_of("f"), 4);
    struct stat st;
    OK(fstatat(dir, "f", &st, 0));
    OK(fstat(fd, &st));
    EQ(st.st_size, 4);
    char cwd[PATH_MAX];
    CHECK(getcwd(cwd, sizeof cwd));
    CHECK(strstr(cwd, "/z/b"));
    OK(unlinkat(dir, "f", 0));
    t_write_file("new", "x");
    EQ(size_of("../b/new"), 1);
    OK(unlink("new"));
    OK(rmdir("../b"));
    FAILS(open("late", O_CREAT | O_WRONLY, 0644), ENOENT);
    FAILS(openat(dir, "late", O_CREAT | O_WRONLY, 0644), ENOENT);
    OK(fstat(dir, &st));
}

TEST(rename_onto_directories) {
    OK(mkdir("a", 0755));
    OK(mkdir("b", 0755));
    OK(mkdir("full", 0755));
    t_write_file("full/x", "x");
    FAILS(rename("a", "full"), ENOTEMPTY);
    OK(rename("full", "a"));
    STREQ(t_read_file("a/x"), "x");
    FAILS(rename("a/x", "b"), EISDIR);
    FAILS(rename("b", "a/x"), ENOTDIR);
    FAILS(rename("a", "a/inner"), EINVAL);
    FAILS(rmdir("a"), ENOTEMPTY);
}

TEST(hard_links_are_one_file) {
    t_write_file("a", "one");
    OK(link("a", "b"));
    OK(mkdir("d", 0755));
    OK(link("b", "d/c"));
    struct stat a, c;
    OK(stat("a", &a));
    OK(stat("d/c", &c));
    EQ(a.st_ino, c.st_ino);
    EQ(a.st_dev, c.st_dev);
    EQ(a.st_nlink, 3);
    t_write_file("d/c", "longer");
    EQ(size_of("a"), 6);
    OK(chmod("b", 0600));
    OK(stat("d/c", &c));
    EQ(c.st_mode & 07777, 0600);
    OK(unlink("a"));
    OK(stat("b", &a));
    EQ(a.st_nlink, 2);
    OK(rename("b", "d/c"));
    /* Two names of one file: nothing happens. */
    OK(stat("b", &a));
    EQ(a.st_nlink, 2);
    FAILS(link("d", "e"), EPERM);
    FAILS(link("b", "d/c"), EEXIST);
    OK(symlink("nowhere", "s"));
    OK(link("s", "s2"));
    char buf[16] = "";
    EQ(readlink("s2", buf, sizeof buf), 7);
}

TEST(allocation) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    char page[4096];
    memset(page, 'x', sizeof page);
    for (int i = 0; i < 8; i++) EQ(write(fd, page, sizeof page), (long long)sizeof page);
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 65536) < 0) {
        CHECK(errno == EOPNOTSUPP);
        t_skip("no fallocate here");
    }
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_size, 8 * 4096);
    OK(fallocate(fd, 0, 0, 65536));
    OK(fstat(fd, &st));
    EQ(st.st_size, 65536);
    if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192)) {
        EQ(pread(fd, page, 1, 4096), 1);
        EQ(page[0], 0);
        EQ(pread(fd, page, 1, 3 * 4096), 1);
        EQ(page[0], 'x');
        OK(fstat(fd, &st));
        EQ(st.st_size, 65536);
    } else
        CHECK(errno == EOPNOTSUPP);
    FAILS(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096), EOPNOTSUPP);
    FAILS(fallocate(fd, 0, 0, 0), EINVAL);
    FAILS(fallocate(fd, 0, -1, 1), EINVAL);
    if (!fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096)) {
        EQ(pread(fd, page, 1, 0), 1);
        EQ(page[0], 0);
    } else
        CHECK(errno == EOPNOTSUPP);
    if (!fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096)) {
        OK(fstat(fd, &st));
        EQ(st.st_size, 65536 - 4096);
    } else
        CHECK(errno == EOPNOTSUPP);
    int ro = OK(open("f", O_RDONLY));
    FAILS(fallocate(ro, 0, 0, 4096), EBADF);
}

TEST(copies_between_files) {
    t_write_file("a", "0123456789");
    int in = OK(open("a", O_RDONLY)), out = OK(open("b", O_CREAT | O_RDWR, 0644));
    loff_t from = 2, to = 3;
    EQ(syscall(SYS_copy_file_range, in, &from, out, &to, 4, 0), 4);
    EQ(from, 6);
    EQ(to, 7);
    char buf[16] = "";
    EQ(pread(out, buf, sizeof buf, 0), 7);
    CHECK(!memcmp(buf, "\0\0\0002345", 7));
    EQ(syscall(SYS_copy_file_range, in, NULL, out, NULL, 100, 0), 10);
    EQ(lseek(in, 0, SEEK_CUR), 10);
    EQ(syscall(SYS_copy_file_range, in, NULL, out, NULL, 100, 0), 0);
    FAILS(syscall(SYS_copy_file_range, out, NULL, in, NULL, 1, 0), EBADF);
}

TEST(statx_fields) {
    t_write_file("f", "12345");
    struct statx sx;
    OK(syscall(SYS_statx, AT_FDCWD, "f", 0, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, &sx));
    CHECK((sx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    CHECK(sx.stx_mask & STATX_MNT_ID);
    EQ(sx.stx_size, 5);
    if (sx.stx_mask & STATX_BTIME) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        CHECK(sx.stx_btime.tv_sec <= now.tv_sec && sx.stx_btime.tv_sec > now.tv_sec - 60);
        struct statx later;
        OK(truncate("f", 1));
        OK(syscall(SYS_statx, AT_FDCWD, "f", 0, STATX_BTIME, &later));
        EQ(later.stx_btime.tv_sec, sx.stx_btime.tv_sec);
        EQ(later.stx_btime.tv_nsec, sx.stx_btime.tv_nsec);
    }
    FILE *info = fopen("/proc/self/mountinfo", "r");
    CHECK(info);
    char line[4096];
    int found = 0;
    while (fgets(line, sizeof line, info)) found |= strtoull(line, NULL, 10) == sx.stx_mnt_id;
    CHECK(found);
    struct stat st;
    OK(stat("f", &st));
    EQ(major(st.st_dev), sx.stx_dev_major);
    EQ(minor(st.st_dev), sx.stx_dev_minor);
}

TEST(user_attributes) {
    t_write_file("f", "x");
    if (setxattr("f", "user.a", "one", 3, 0) < 0 && errno == EOPNOTSUPP) t_skip("no user attributes here");
    char buf[64] = "";
    EQ(getxattr("f", "user.a", buf, sizeof buf), 3);
    STREQ(buf, "one");
    EQ(getxattr("f", "user.a", NULL, 0), 3);
    FAILS(getxattr("f", "user.a", buf, 2), ERANGE);
    FAILS(setxattr("f", "user.a", "x", 1, XATTR_CREATE), EEXIST);
    FAILS(setxattr("f", "user.b", "x", 1, XATTR_REPLACE), ENODATA);
    OK(setxattr("f", "user.empty", "", 0, 0));
    EQ(getxattr("f", "user.empty", buf, sizeof buf), 0);
    int fd = OK(open("f", O_RDONLY));
    EQ(fgetxattr(fd, "user.a", buf, sizeof buf), 3);
    OK(unlink("f"));
    OK(fsetxattr(fd, "user.a", "later", 5, 0));
    EQ(fgetxattr(fd, "user.a", buf, sizeof buf), 5);
    OK(fremovexattr(fd, "user.a"));
    FAILS(fgetxattr(fd, "user.a", buf, sizeof buf), ENODATA);
    OK(mkdir("d", 0755));
    OK(setxattr("d", "user.a", "dir", 3, 0));
    OK(symlink("d", "s"));
    FAILS(lsetxattr("s", "user.a", "x", 1, 0), EPERM);
    EQ(getxattr("s", "user.a", buf, sizeof buf), 3);
}

TEST(attributes_of_root) {
    if (geteuid()) t_skip("not root");
    t_write_file("f", "x");
    /* VFS_CAP_REVISION_2: cap_net_raw+ep */
    unsigned cap[5] = {0x02000001, 1 << 13, 0, 0, 0};
    if (setxattr("f", "security.capability", cap, sizeof cap, 0) < 0 && errno == EOPNOTSUPP) t_skip("no capabilities here");
    unsigned got[6] = {0};
    EQ(getxattr("f", "security.capability", got, sizeof got), 20);
    EQ(got[1], 1 << 13);
}

/* struct posix_acl_xattr: version 2, then {tag, perm, id}. */
struct acl {
    uint32_t version;
    struct {
        uint16_t tag, perm;
        uint32_t id;
    } e[6];
};
enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };
static const struct acl named_user = {
    2, {{USER_OBJ, 6, -1}, {USER, 4, 1000}, {GROUP_OBJ, 0, -1}, {GROUP, 6, 400}, {MASK, 6, -1}, {OTHER, 0, -1}}};

static void may_read(void) { CHECK(readable("f")); }
static void may_not_read(void) { FAILS(open("f", O_RDONLY), EACCES); }
static void may_write(void) { close(OK(open("f", O_RDWR))); }
static void may_not_write(void) { FAILS(open("f", O_WRONLY), EACCES); }
static void may_not_set(void) { FAILS(setxattr("f", "system.posix_acl_access", &named_user, sizeof named_user, 0), EPERM); }

TEST(access_lists) {
    if (geteuid()) t_skip("not root");
    t_write_file("f", "x");
    OK(chmod("f", 0640));
    if (setxattr("f", "system.posix_acl_access", &named_user, sizeof named_user, 0) < 0) {
        CHECK(errno == EOPNOTSUPP);
        t_skip("no access lists here");
    }
    struct stat st;
    OK(stat("f", &st));
    EQ(st.st_mode & 07777, 0660);
    struct acl got;
    EQ(getxattr("f", "system.posix_acl_access", &got, sizeof got), (long long)sizeof got);
    CHECK(!memcmp(&got, &named_user, sizeof got));
    as_user(1000, 1000, may_read);
    as_user(1000, 1000, may_not_write);
    as_user(1001, 1001, may_not_read);
    as_user(1001, 400, may_write);
    as_user(1001, 0, may_not_read);
    as_user(1000, 1000, may_not_set);
    /* chmod of the group bits sets the mask. */
    OK(chmod("f", 0640));
    EQ(getxattr("f", "system.posix_acl_access", &got, sizeof got), (long long)sizeof got);
    EQ(got.e[4].perm, 4);
    EQ(got.e[3].perm, 6);
    as_user(1001, 400, may_not_write);
    as_user(1001, 400, may_read);
    struct acl bad = named_user;
    bad.e[4].tag = OTHER;
    FAILS(setxattr("f", "system.posix_acl_access", &bad, sizeof bad, 0), EINVAL);
    OK(removexattr("f", "system.posix_acl_access"));
    as_user(1000, 1000, may_not_read);
    FAILS(getxattr("f", "system.posix_acl_access", &got, sizeof got), ENODATA);
    /* One that says no more than a mode is a mode. */
    struct acl plain = {2, {{USER_OBJ, 6, -1}, {GROUP_OBJ, 4, -1}, {OTHER, 4, -1}}};
    OK(setxattr("f", "system.posix_acl_access", &plain, 4 + 3 * 8, 0));
    OK(stat("f", &st));
    EQ(st.st_mode & 07777, 0644);
    FAILS(getxattr("f", "system.posix_acl_access", &got, sizeof got), ENODATA);
    FAILS(setxattr("f", "system.posix_acl_default", &named_user, sizeof named_user, 0), EACCES);
}

TEST(inherited_access_lists) {
    if (geteuid()) t_skip("not root");
    OK(mkdir("d", 0755));
    if (setxattr("d", "system.posix_acl_default", &named_user, sizeof named_user, 0) < 0) {
        CHECK(errno == EOPNOTSUPP);
        t_skip("no access lists here");
    }
    umask(077);
    close(OK(open("d/f", O_CREAT | O_WRONLY, 0664)));
    struct stat st;
    OK(stat("d/f", &st));
    EQ(st.st_mode & 07777, 0660);
    struct acl got;
    EQ(getxattr("d/f", "system.posix_acl_access", &got, sizeof got), (long long)sizeof got);
    EQ(got.e[1].id, 1000);
    OK(mkdir("d/sub", 0777));
    EQ(getxattr("d/sub", "system.posix_acl_default", &got, sizeof got), (long long)sizeof got);
    EQ(getxattr("d/sub", "system.posix_acl_access", &got, sizeof got), (long long)sizeof got);
    OK(chdir("d"));
    as_user(1000, 1000, may_read);
    as_user(1001, 1001, may_not_read);
}

static int next_event(int fd, uint32_t *mask) {
    char buf[4096] __attribute__((aligned(8)));
    static char kept[4096];
    static ssize_t have, at;
    if (at >= have) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 0) <= 0) return 0;
        have = OK(read(fd, buf, sizeof buf));
        memcpy(kept, buf, have);
        at = 0;
    }
    struct inotify_event *e = (void *)(kept + at);
    at += sizeof *e + e->len;
    *mask = e->mask;
    return 1;
}
static int saw(int fd, uint32_t wanted) {
    uint32_t mask;
    int seen = 0;
    while (next_event(fd, &mask)) seen |= (mask & wanted) != 0;
    return seen;
}

TEST(watched_file_dies_at_its_last_close) {
    t_write_file("f", "x");
    int in = OK(inotify_init1(IN_CLOEXEC));
    OK(inotify_add_watch(in, "f", IN_DELETE_SELF | IN_ATTRIB));
    int fd = OK(open("f", O_RDONLY));
    OK(unlink("f"));
    uint32_t mask = 0;
    CHECK(next_event(in, &mask));
    EQ(mask, IN_ATTRIB);
    CHECK(!next_event(in, &mask));
    close(fd);
    CHECK(next_event(in, &mask));
    EQ(mask, IN_DELETE_SELF);
    CHECK(next_event(in, &mask));
    EQ(mask, IN_IGNORED);
}

TEST(watched_link_lives_with_the_other) {
    t_write_file("f", "x");
    OK(link("f", "g"));
    int in = OK(inotify_init1(IN_CLOEXEC));
    OK(inotify_add_watch(in, "f", IN_DELETE_SELF));
    OK(unlink("f"));
    CHECK(!saw(in, IN_DELETE_SELF));
    OK(unlink("g"));
    CHECK(saw(in, IN_DELETE_SELF));
}

TEST(watched_file_replaced) {
    t_write_file("f", "x");
    t_write_file("g", "y");
    int in = OK(inotify_init1(IN_CLOEXEC));
    OK(inotify_add_watch(in, "f", IN_DELETE_SELF));
    int fd = OK(open("f", O_RDONLY));
    OK(rename("g", "f"));
    CHECK(!saw(in, IN_DELETE_SELF));
    close(fd);
    CHECK(saw(in, IN_DELETE_SELF));
}

TEST(nodes) {
    OK(mkfifo("fifo", 0640));
    OK(mknod("sock", S_IFSOCK | 0600, 0));
    OK(mknod("plain", S_IFREG | 0604, 0));
    struct stat st;
    OK(lstat("fifo", &st));
    CHECK(S_ISFIFO(st.st_mode));
    EQ(st.st_mode & 07777, 0640);
    OK(lstat("sock", &st));
    CHECK(S_ISSOCK(st.st_mode));
    OK(lstat("plain", &st));
    EQ(st.st_mode, S_IFREG | 0604);
    FAILS(open("sock", O_RDONLY), ENXIO);
    FAILS(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
    int r = OK(open("fifo", O_RDONLY | O_NONBLOCK)), w = OK(open("fifo", O_WRONLY));
    EQ(write(w, "x", 1), 1);
    char c;
    EQ(read(r, &c, 1), 1);
    if (geteuid()) return;
    OK(mknod("white", S_IFCHR | 0600, makedev(0, 0)));
    OK(lstat("white", &st));
    CHECK(S_ISCHR(st.st_mode));
    EQ(st.st_rdev, 0);
}

TEST(locks_of_open_files) {
    t_write_file("f", "0123456789");
    int a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDWR));
    OK(flock(a, LOCK_EX));
    FAILS(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    OK(flock(a, LOCK_UN));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 5};
    OK(fcntl(a, F_OFD_SETLK, &l));
    FAILS(fcntl(b, F_OFD_SETLK, &l), EAGAIN);
    l.l_start = 5;
    OK(fcntl(b, F_OFD_SETLK, &l));
    OK(rename("f", "g"));
    int c = OK(open("g", O_RDWR));
    l.l_start = 0;
    l.l_pid = 0;
    OK(fcntl(c, F_OFD_GETLK, &l));
    EQ(l.l_type, F_WRLCK);
    close(a);
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 5};
    OK(fcntl(c, F_OFD_SETLK, &l));
}

TEST(sockets_in_the_tree) {
    int s = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "s"};
    OK(bind(s, (void *)&un, sizeof un));
    FAILS(bind(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&un, sizeof un), EADDRINUSE);
    int c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(connect(c, (void *)&un, sizeof un), ECONNREFUSED);
    OK(listen(s, 1));
    OK(rename("s", "moved"));
    FAILS(connect(c, (void *)&un, sizeof un), ENOENT);
    strcpy(un.sun_path, "moved");
    OK(connect(c, (void *)&un, sizeof un));
    int p = OK(accept(s, NULL, NULL));
    EQ(write(c, "hi", 2), 2);
    char buf[4];
    EQ(read(p, buf, 4), 2);
    OK(link("moved", "other"));
    strcpy(un.sun_path, "other");
    c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(connect(c, (void *)&un, sizeof un));
    close(s);
    FAILS(connect(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&un, sizeof un), ECONNREFUSED);
    struct stat st;
    OK(lstat("other", &st));
    CHECK(S_ISSOCK(st.st_mode));
}

TEST(mapping_is_the_file) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, 8192));
    char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    strcpy(map, "mapped");
    char buf[16] = "";
    EQ(pread(fd, buf, 6, 0), 6);
    STREQ(buf, "mapped");
    EQ(pwrite(fd, "written", 7, 4096), 7);
    STREQ(map + 4096, "written");
    pid_t pid = OK(fork());
    if (!pid) {
        int other = OK(open("f", O_RDWR));
        char *again = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
        CHECK(again != MAP_FAILED);
        STREQ(again, "mapped");
        strcpy(again, "child");
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    STREQ(map, "child");
    char *private = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(private != MAP_FAILED);
    private[0] = 'P';
    STREQ(map, "child");
    OK(msync(map, 8192, MS_SYNC));
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_size, 8192);
}

TEST(times_and_owners) {
    t_write_file("f", "x");
    struct timespec t[2] = {{1000, 1}, {400, 2}};
    OK(utimensat(AT_FDCWD, "f", t, 0));
    struct stat st;
    OK(stat("f", &st));
    EQ(st.st_atim.tv_sec, 1000);
    EQ(st.st_mtim.tv_sec, 400);
    EQ(st.st_mtim.tv_nsec, 2);
    OK(symlink("f", "s"));
    OK(utimensat(AT_FDCWD, "s", t, AT_SYMLINK_NOFOLLOW));
    int fd = OK(open("f", O_WRONLY));
    EQ(write(fd, "y", 1), 1);
    OK(fstat(fd, &st));
    CHECK(st.st_mtim.tv_sec > 400);
    EQ(st.st_atim.tv_sec, 1000);
    t[0].tv_nsec = UTIME_OMIT;
    t[1].tv_sec = 3000;
    OK(futimens(fd, t));
    OK(fstat(fd, &st));
    EQ(st.st_atim.tv_sec, 1000);
    EQ(st.st_mtim.tv_sec, 3000);
    if (geteuid()) return;
    OK(fchmod(fd, 06755));
    OK(fchown(fd, 12, 34));
    OK(fstat(fd, &st));
    EQ(st.st_uid, 12);
    EQ(st.st_gid, 34);
    EQ(st.st_mode & 07777, 0755);
    OK(lchown("s", 5, 6));
    OK(lstat("s", &st));
    EQ(st.st_uid, 5);
    OK(mkdir("d", 0755));
    OK(chown("d", 0, 77));
    OK(chmod("d", 02775));
    close(OK(open("d/f", O_CREAT | O_WRONLY, 0644)));
    OK(mkdir("d/sub", 0755));
    OK(stat("d/f", &st));
    EQ(st.st_gid, 77);
    OK(stat("d/sub", &st));
    EQ(st.st_gid, 77);
    EQ(st.st_mode & 07777, 02755);
}

TEST(large_directory) {
    char name[32];
    OK(mkdir("d", 0755));
    for (int i = 0; i < 400; i++) {
        snprintf(name, sizeof name, "d/name-%04d", i);
        close(OK(open(name, O_CREAT | O_EXCL | O_WRONLY, 0644)));
    }
    DIR *dir = opendir("d");
    CHECK(dir);
    int seen = 0;
    static char had[400];
    struct dirent *e;
    while ((e = readdir(dir))) {
        if (e->d_name[0] == '.') continue;
        int at = atoi(e->d_name + 5);
        CHECK(at >= 0 && at < 400 && !had[at]);
        had[at] = 1;
        seen++;
        if (seen % 2) {
            /* What was removed behind the reader changes nothing before it. */
            OK(unlinkat(dirfd(dir), e->d_name, 0));
        }
    }
    EQ(seen, 400);
    rewinddir(dir);
    seen = 0;
    while ((e = readdir(dir))) seen += e->d_name[0] != '.';
    EQ(seen, 200);
    closedir(dir);
    FAILS(rmdir("d"), ENOTEMPTY);
}

TEST(holes) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(pwrite(fd, "x", 1, 1 << 20), 1);
    OK(fsync(fd));
    EQ(lseek(fd, 0, SEEK_HOLE), 0);
    CHECK(lseek(fd, 0, SEEK_DATA) <= 1 << 20);
    EQ(lseek(fd, 1 << 20, SEEK_DATA), 1 << 20);
    EQ(lseek(fd, 1 << 20, SEEK_HOLE), (1 << 20) + 1);
    FAILS(lseek(fd, (1 << 20) + 1, SEEK_DATA), ENXIO);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(st.st_blocks * 512 < 1 << 20);
}

TEST(a_file_grows_under_a_reader) {
    int out = OK(open("f", O_CREAT | O_WRONLY | O_APPEND, 0644)), in = OK(open("f", O_RDONLY));
    char buf[64];
    EQ(read(in, buf, sizeof buf), 0);
    for (int i = 1; i <= 10; i++) {
        EQ(write(out, "abc", 3), 3);
        EQ(read(in, buf, sizeof buf), 3);
        EQ(size_of("f"), 3 * i);
    }
    OK(truncate("f", 4));
    EQ(read(in, buf, sizeof buf), 0);
    EQ(write(out, "z", 1), 1);
    EQ(size_of("f"), 5);
}

TEST(long_names) {
    char name[300];
    memset(name, 'n', sizeof name);
    name[255] = 0;
    t_write_file(name, "x");
    EQ(size_of(name), 1);
    OK(unlink(name));
    name[255] = 'n';
    name[256] = 0;
    FAILS(open(name, O_CREAT | O_WRONLY, 0644), ENAMETOOLONG);
    FAILS(access(name, F_OK), ENAMETOOLONG);
    t_write_file("\xff\x01 strange", "y");
    STREQ(t_read_file("\xff\x01 strange"), "y");
}

TEST(rename_leaves_a_whiteout) {
    t_write_file("old", "x");
    if (syscall(SYS_renameat2, AT_FDCWD, "old", AT_FDCWD, "new", 4) < 0) t_skip("no whiteouts here");
    struct stat st;
    OK(stat("old", &st));
    EQ(st.st_mode & S_IFMT, S_IFCHR);
    EQ(st.st_rdev, 0);
    STREQ(t_read_file("new"), "x");
    CHECK(open("old", O_RDONLY) < 0 && (errno == ENXIO || errno == EACCES));
    FAILS(open("old", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
    FAILS(syscall(SYS_renameat2, AT_FDCWD, "new", AT_FDCWD, "old", 4 | 2), EINVAL);
    OK(unlink("old"));
    FAILS(stat("old", &st), ENOENT);
}

TEST(inode_flags_read_back) {
    t_write_file("f", "x");
    OK(mkdir("d", 0755));
    for (int i = 0; i < 2; i++) {
        int fd = OK(open(i ? "d" : "f", O_RDONLY)), flags = 0, p[2];
        OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
        EQ(flags & (FS_NODUMP_FL | FS_IMMUTABLE_FL | FS_APPEND_FL), 0);
        flags |= FS_NODUMP_FL;
        OK(ioctl(fd, FS_IOC_SETFLAGS, &flags));
        int again = 0;
        OK(ioctl(fd, FS_IOC_GETFLAGS, &again));
        EQ(again, flags);
        struct fsxattr x;
        OK(ioctl(fd, FS_IOC_FSGETXATTR, &x));
        EQ(x.fsx_xflags & FS_XFLAG_NODUMP, FS_XFLAG_NODUMP);
        FAILS(ioctl(fd, FS_IOC_SETFLAGS, NULL), EFAULT);
        close(fd);
        OK(pipe(p));
        FAILS(ioctl(p[0], FS_IOC_GETFLAGS, &flags), ENOTTY);
        FAILS(ioctl(p[0], FS_IOC_SETFLAGS, &flags), ENOTTY);
    }
    t_write_file("d/new", "x");
    int fd = OK(open("d/new", O_RDONLY)), flags = 0;
    OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    EQ(flags & FS_NODUMP_FL, FS_NODUMP_FL);
    flags &= ~FS_NODUMP_FL;
    OK(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    OK(setuid(1000));
    FAILS(ioctl(fd, FS_IOC_SETFLAGS, &flags), EPERM);
}

TEST(mincore_sees_the_cache) {
    char page[4096] = {1};
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    for (int i = 0; i < 4; i++) EQ(pwrite(fd, page, sizeof page, i * 4096), 4096);
    OK(ftruncate(fd, 8 * 4096));
    char *map = OK(mmap(NULL, 8 * 4096, PROT_READ, MAP_SHARED, fd, 0));
    unsigned char there[8];
    OK(mincore(map, 8 * 4096, there));
    for (int i = 0; i < 8; i++) EQ(there[i] & 1, i < 4);
    OK(mincore(map + 4096, 4096 + 1, there));
    EQ(there[0] & 1, 1);
    EQ(there[1] & 1, 1);
    char *own = OK(mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    own[7 * 4096] = 1;
    OK(mincore(own, 8 * 4096, there));
    EQ(there[0] & 1, 1);
    EQ(there[7] & 1, 1);
    /* Who may not write to the file is told nothing. */
    OK(setuid(1000));
    OK(mincore(map, 8 * 4096, there));
    for (int i = 0; i < 8; i++) EQ(there[i] & 1, 1);
}
