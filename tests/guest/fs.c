#include "t.h"
#include <dirent.h>
#include <sys/statfs.h>
#include <sys/file.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#define FAMILY "fs"

TEST(open_missing) { FAILS(open("nope", O_RDONLY), ENOENT); }
TEST(open_creat_excl) {
    close(OK(open("a", O_CREAT | O_EXCL | O_WRONLY, 0600)));
    FAILS(open("a", O_CREAT | O_EXCL | O_WRONLY, 0600), EEXIST);
    struct stat st;
    OK(stat("a", &st));
    EQ(st.st_mode, S_IFREG | 0600);
    EQ(st.st_size, 0);
    EQ(st.st_nlink, 1);
}
TEST(umask_applies) {
    umask(027);
    close(OK(open("a", O_CREAT | O_WRONLY, 0666)));
    struct stat st;
    OK(stat("a", &st));
    EQ(st.st_mode & 07777, 0640);
    OK(mkdir("d", 0777));
    OK(stat("d", &st));
    EQ(st.st_mode & 07777, 0750);
}
TEST(write_read_back) {
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    EQ(write(fd, "hello world", 11), 11);
    char buf[32] = {0};
    EQ(pread(fd, buf, 5, 6), 5);
    STREQ(buf, "world");
    EQ(lseek(fd, 0, SEEK_SET), 0);
    EQ(read(fd, buf, 32), 11);
    EQ(read(fd, buf, 32), 0);
    EQ(lseek(fd, 0, SEEK_CUR), 11);
}
TEST(read_on_wronly_is_ebadf) {
    int fd = OK(open("a", O_CREAT | O_WRONLY, 0644));
    char c;
    FAILS(read(fd, &c, 1), EBADF);
    int ro = OK(open("a", O_RDONLY));
    FAILS(write(ro, "x", 1), EBADF);
}
TEST(read_directory_is_eisdir) {
    int fd = OK(open(".", O_RDONLY));
    char c;
    FAILS(read(fd, &c, 1), EISDIR);
    FAILS(open(".", O_WRONLY), EISDIR);
}
TEST(append_goes_to_end) {
    t_write_file("a", "12345");
    int fd = OK(open("a", O_WRONLY | O_APPEND));
    OK(lseek(fd, 0, SEEK_SET));
    EQ(write(fd, "67", 2), 2);
    EQ(lseek(fd, 0, SEEK_CUR), 7);
    STREQ(t_read_file("a"), "1234567");
    /* pwrite on O_APPEND appends too (BUGS of pwrite(2)). */
    EQ(pwrite(fd, "8", 1, 0), 1);
    STREQ(t_read_file("a"), "12345678");
}
TEST(trunc_and_holes) {
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    EQ(pwrite(fd, "x", 1, 100000), 1);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_size, 100001);
    char buf[16];
    memset(buf, 1, sizeof buf);
    EQ(pread(fd, buf, 16, 5000), 16);
    for (int i = 0; i < 16; i++) EQ(buf[i], 0);
    OK(ftruncate(fd, 3));
    OK(fstat(fd, &st));
    EQ(st.st_size, 3);
    OK(truncate("a", 10));
    EQ(pread(fd, buf, 16, 0), 10);
    FAILS(ftruncate(fd, -1), EINVAL);
    FAILS(truncate("missing", 0), ENOENT);
}
TEST(seek_data_hole) {
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, 1 << 20));
    EQ(pwrite(fd, "x", 1, 512 * 1024), 1);
    EQ(lseek(fd, 0, SEEK_HOLE), 0);
    EQ(lseek(fd, 0, SEEK_DATA), 512 * 1024);
    FAILS(lseek(fd, 600 * 1024, SEEK_DATA), ENXIO);
    FAILS(lseek(fd, 2 << 20, SEEK_DATA), ENXIO);
    EQ(lseek(fd, 600 * 1024, SEEK_HOLE), 600 * 1024);
}
TEST(lseek_bad) {
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    FAILS(lseek(fd, -1, SEEK_SET), EINVAL);
    FAILS(lseek(fd, 0, 99), EINVAL);
    FAILS(lseek(-1, 0, SEEK_SET), EBADF);
    int p[2];
    OK(pipe(p));
    FAILS(lseek(p[0], 0, SEEK_CUR), ESPIPE);
    EQ(lseek(fd, 1LL << 40, SEEK_SET), 1LL << 40);
}
TEST(readv_writev) {
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    struct iovec out[3] = {{"ab", 2}, {"", 0}, {"cdef", 4}};
    EQ(writev(fd, out, 3), 6);
    char x[4] = {0}, y[4] = {0};
    struct iovec in[2] = {{x, 3}, {y, 3}};
    EQ(preadv(fd, in, 2, 0), 6);
    STREQ(x, "abc");
    STREQ(y, "def");
    FAILS(writev(fd, out, -1), EINVAL);
    FAILS(readv(fd, in, 1025), EINVAL);
    EQ(writev(fd, out, 0), 0);
}
TEST(efault_buffers) {
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    EQ(write(fd, "abcdef", 6), 6);
    OK(lseek(fd, 0, SEEK_SET));
    FAILS(read(fd, (void *)1, 4), EFAULT);
    FAILS(write(fd, (void *)1, 4), EFAULT);
    FAILS(open((char *)1, O_RDONLY), EFAULT);
    FAILS(stat("a", (struct stat *)1), EFAULT);
    /* A read that is half in a hole gives the first half. */
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    OK(munmap(page + 4096, 4096));
    EQ(pwrite(fd, page, 4096, 0), 4096);
    OK(lseek(fd, 0, SEEK_SET));
    ssize_t n = read(fd, page + 4000, 200);
    CHECK(n == 96 || (n == -1 && errno == EFAULT));
}
TEST(mkdir_rmdir) {
    OK(mkdir("d", 0755));
    FAILS(mkdir("d", 0755), EEXIST);
    FAILS(mkdir("x/y", 0755), ENOENT);
    t_write_file("f", "");
    FAILS(mkdir("f/y", 0755), ENOTDIR);
    t_write_file("d/f", "");
    FAILS(rmdir("d"), ENOTEMPTY);
    FAILS(unlink("d"), EISDIR);
    FAILS(rmdir("f"), ENOTDIR);
    OK(unlink("d/f"));
    OK(rmdir("d"));
    FAILS(rmdir("d"), ENOENT);
    FAILS(rmdir("."), EINVAL);
    OK(mkdir("trail/", 0755));
    OK(rmdir("trail/"));
}
TEST(link_counts) {
    t_write_file("a", "x");
    OK(link("a", "b"));
    struct stat sa, sb;
    OK(stat("a", &sa));
    OK(stat("b", &sb));
    EQ(sa.st_ino, sb.st_ino);
    EQ(sa.st_nlink, 2);
    OK(unlink("a"));
    OK(stat("b", &sb));
    EQ(sb.st_nlink, 1);
    OK(mkdir("d", 0755));
    FAILS(link("d", "e"), EPERM);
    FAILS(link("b", "d"), EEXIST);
    OK(stat("d", &sa));
    long n = sa.st_nlink;
    OK(mkdir("d/s", 0755));
    OK(stat("d", &sa));
    CHECK(sa.st_nlink == (nlink_t)n + 1 || n == 1);
}
TEST(unlinked_file_stays_usable) {
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    OK(unlink("a"));
    EQ(write(fd, "hello", 5), 5);
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_nlink, 0);
    EQ(st.st_size, 5);
    char link[64], buf[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = OK(readlink(link, buf, sizeof buf - 1));
    buf[n] = 0;
    CHECK(strstr(buf, "/a (deleted)"));
}
TEST(symlinks) {
    OK(symlink("target", "l"));
    char buf[64];
    EQ(readlink("l", buf, sizeof buf), 6);
    EQ(readlink("l", buf, 3), 3);
    FAILS(readlink("l", buf, 0), EINVAL);
    FAILS(open("l", O_RDONLY), ENOENT);
    FAILS(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
    struct stat st;
    OK(lstat("l", &st));
    EQ(st.st_size, 6);
    CHECK(S_ISLNK(st.st_mode));
    EQ(st.st_mode & 0777, 0777);
    close(OK(open("l", O_CREAT | O_WRONLY, 0644)));
    OK(stat("target", &st));
    FAILS(symlink("x", "l"), EEXIST);
    FAILS(symlink("", "m"), ENOENT);
    FAILS(readlink("target", buf, 10), EINVAL);
}
TEST(symlink_loop) {
    OK(symlink("b", "a"));
    OK(symlink("a", "b"));
    FAILS(open("a", O_RDONLY), ELOOP);
    FAILS(open("a/x", O_RDONLY), ELOOP);
    struct stat st;
    OK(lstat("a", &st));
}
TEST(forty_symlinks) {
    t_write_file("l0", "x");
    char from[16], to[16];
    for (int i = 1; i <= 41; i++) {
        snprintf(to, sizeof to, "l%d", i - 1);
        snprintf(from, sizeof from, "l%d", i);
        OK(symlink(to, from));
    }
    close(OK(open("l40", O_RDONLY)));
    FAILS(open("l41", O_RDONLY), ELOOP);
}
TEST(name_too_long) {
    char name[300];
    memset(name, 'a', 299);
    name[299] = 0;
    FAILS(open(name, O_CREAT | O_WRONLY, 0644), ENAMETOOLONG);
    name[255] = 0;
    close(OK(open(name, O_CREAT | O_WRONLY, 0644)));
    static char path[5000];
    memset(path, '/', 4999);
    FAILS(open(path, O_RDONLY), ENAMETOOLONG);
}
TEST(empty_path) {
    FAILS(open("", O_RDONLY), ENOENT);
    struct stat st;
    FAILS(stat("", &st), ENOENT);
    int fd = OK(open(".", O_PATH));
    OK(fstatat(fd, "", &st, AT_EMPTY_PATH));
    CHECK(S_ISDIR(st.st_mode));
}
TEST(trailing_slash) {
    t_write_file("f", "");
    struct stat st;
    FAILS(stat("f/", &st), ENOTDIR);
    FAILS(open("f/", O_RDONLY), ENOTDIR);
    FAILS(open("new/", O_CREAT | O_WRONLY, 0644), EISDIR);
    OK(mkdir("d", 0755));
    OK(symlink("d", "l"));
    OK(lstat("l/", &st));
    CHECK(S_ISDIR(st.st_mode));
    FAILS(unlink("f/"), ENOTDIR);
}
TEST(rename_basics) {
    t_write_file("a", "A");
    t_write_file("b", "B");
    OK(rename("a", "b"));
    STREQ(t_read_file("b"), "A");
    FAILS(rename("a", "c"), ENOENT);
    OK(mkdir("d", 0755));
    FAILS(rename("b", "d"), EISDIR);
    FAILS(rename("d", "b"), ENOTDIR);
    OK(mkdir("e", 0755));
    OK(rename("d", "e"));
    OK(mkdir("e/s", 0755));
    FAILS(rename("e", "e/s/t"), EINVAL);
    OK(mkdir("g", 0755));
    FAILS(rename("g", "e"), ENOTEMPTY);
    OK(link("b", "b2"));
    OK(rename("b", "b2"));
    struct stat st;
    OK(stat("b", &st)); /* same inode: nothing happens */
}
TEST(rename_flags) {
    t_write_file("a", "A");
    t_write_file("b", "B");
    FAILS(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
    STREQ(t_read_file("a"), "B");
    STREQ(t_read_file("b"), "A");
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
    FAILS(renameat2(AT_FDCWD, "b", AT_FDCWD, "zz", RENAME_EXCHANGE), ENOENT);
    FAILS(renameat2(AT_FDCWD, "b", AT_FDCWD, "c", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
}
TEST(rename_over_open_file) {
    t_write_file("a", "new");
    t_write_file("b", "old");
    int fd = OK(open("b", O_RDONLY));
    OK(rename("a", "b"));
    char buf[8] = {0};
    EQ(read(fd, buf, 8), 3);
    STREQ(buf, "old");
    STREQ(t_read_file("b"), "new");
}
TEST(getdents) {
    OK(mkdir("d", 0755));
    char name[32];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "d/file%03d", i);
        close(OK(open(name, O_CREAT | O_WRONLY, 0644)));
    }
    OK(mkdir("d/sub", 0755));
    DIR *d = opendir("d");
    CHECK(d);
    struct dirent *e;
    int files = 0, dots = 0, dirs = 0;
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.') dots++;
        else if (e->d_type == DT_REG) files++;
        else if (e->d_type == DT_DIR) dirs++;
        struct stat st;
        OK(fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW));
        if (strcmp(e->d_name, "..")) EQ(st.st_ino, e->d_ino);
    }
    EQ(dots, 2);
    EQ(files, 300);
    EQ(dirs, 1);
    rewinddir(d);
    files = 0;
    while (readdir(d)) files++;
    EQ(files, 303);
    closedir(d);
}
TEST(getdents_while_deleting) {
    OK(mkdir("d", 0755));
    char name[32];
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "d/f%d", i);
        close(OK(open(name, O_CREAT | O_WRONLY, 0644)));
    }
    DIR *d = opendir("d");
    struct dirent *e;
    while ((e = readdir(d)))
        if (e->d_name[0] != '.') OK(unlinkat(dirfd(d), e->d_name, 0));
    closedir(d);
    OK(rmdir("d"));
}
TEST(dirfd_relative) {
    OK(mkdir("d", 0755));
    t_write_file("d/f", "x");
    int dfd = OK(open("d", O_RDONLY | O_DIRECTORY));
    int fd = OK(openat(dfd, "f", O_RDONLY));
    FAILS(openat(fd, "x", O_RDONLY), ENOTDIR);
    FAILS(openat(-5, "x", O_RDONLY), EBADF);
    FAILS(open("d/f", O_RDONLY | O_DIRECTORY), ENOTDIR);
    close(OK(openat(-5, "/dev/null", O_RDONLY)));
    OK(unlinkat(dfd, "f", 0));
    OK(fchdir(dfd));
    FAILS(fchdir(fd), ENOTDIR);
    OK(unlinkat(AT_FDCWD, "../d", AT_REMOVEDIR));
    char buf[PATH_MAX];
    FAILS(syscall(SYS_getcwd, buf, sizeof buf), ENOENT);
    FAILS(open("new", O_CREAT | O_WRONLY, 0644), ENOENT);
}
TEST(getcwd_size) {
    char buf[PATH_MAX];
    CHECK(getcwd(buf, sizeof buf));
    STREQ(buf, t_dir);
    FAILS(syscall(SYS_getcwd, buf, 2), ERANGE);
    OK(mkdir("x", 0755));
    OK(chdir("x"));
    OK(rename("../x", "../y"));
    CHECK(getcwd(buf, sizeof buf));
    CHECK(strlen(buf) > 2 && !strcmp(buf + strlen(buf) - 2, "/y"));
}
TEST(chmod_chown) {
    t_write_file("f", "");
    OK(chmod("f", 04755));
    struct stat st;
    OK(stat("f", &st));
    EQ(st.st_mode & 07777, 04755);
    OK(chown("f", 1000, 1001));
    OK(stat("f", &st));
    EQ(st.st_uid, 1000);
    EQ(st.st_gid, 1001);
    EQ(st.st_mode & 07777, 0755); /* chown clears set-user-id */
    OK(chown("f", -1, 5));
    OK(stat("f", &st));
    EQ(st.st_uid, 1000);
    EQ(st.st_gid, 5);
    int fd = OK(open("f", O_RDONLY));
    OK(fchmod(fd, 0600));
    OK(fchown(fd, 0, 0));
    OK(symlink("f", "l"));
    OK(lchown("l", 7, 7));
    OK(lstat("l", &st));
    EQ(st.st_uid, 7);
    OK(stat("l", &st));
    EQ(st.st_uid, 0);
}
static void as_user(void *path) {
    OK(setgid(1000));
    OK(setuid(1000));
    FAILS(open(path, O_RDONLY), EACCES);
    FAILS(open("secret/f", O_RDONLY), EACCES);
    FAILS(unlink("ro/f"), EACCES);
    FAILS(chmod("ro/f", 0777), EPERM);
    FAILS(chown("ro/f", 1000, 1000), EPERM);
    FAILS(access("ro/f", W_OK), EACCES);
    OK(access("ro/f", R_OK));
    FAILS(mkdir("ro/n", 0755), EACCES);
    FAILS(unlink("sticky/f"), EPERM);
    FAILS(rename("sticky/f", "sticky/g"), EPERM);
}
TEST(permissions) {
    t_write_file("f", "");
    OK(chmod("f", 0600));
    OK(mkdir("secret", 0700));
    t_write_file("secret/f", "");
    OK(mkdir("ro", 0755));
    t_write_file("ro/f", "");
    OK(mkdir("sticky", 0755));
    OK(chmod("sticky", 01777));
    t_write_file("sticky/f", "");
    EQ(t_child(as_user, "f"), 0);
}
TEST(setgid_directory) {
    OK(mkdir("d", 0755));
    OK(chown("d", 0, 77));
    OK(chmod("d", 02755));
    close(OK(open("d/f", O_CREAT | O_WRONLY, 0644)));
    OK(mkdir("d/s", 0755));
    struct stat st;
    OK(stat("d/f", &st));
    EQ(st.st_gid, 77);
    OK(stat("d/s", &st));
    EQ(st.st_gid, 77);
    EQ(st.st_mode & 07777, 02755);
}
TEST(utimens) {
    t_write_file("f", "");
    struct timespec t[2] = {{1000, 5}, {2000, 7}};
    OK(utimensat(AT_FDCWD, "f", t, 0));
    struct stat st;
    OK(stat("f", &st));
    EQ(st.st_atim.tv_sec, 1000);
    EQ(st.st_atim.tv_nsec, 5);
    EQ(st.st_mtim.tv_sec, 2000);
    t[0].tv_nsec = UTIME_OMIT;
    t[1].tv_nsec = UTIME_NOW;
    OK(utimensat(AT_FDCWD, "f", t, 0));
    OK(stat("f", &st));
    EQ(st.st_atim.tv_sec, 1000);
    CHECK(st.st_mtim.tv_sec > 1600000000);
    t[1].tv_nsec = 1000000000;
    FAILS(utimensat(AT_FDCWD, "f", t, 0), EINVAL);
}
TEST(mtime_changes_on_write) {
    t_write_file("f", "");
    struct timespec t[2] = {{1000, 0}, {1000, 0}};
    OK(utimensat(AT_FDCWD, "f", t, 0));
    int fd = OK(open("f", O_WRONLY));
    EQ(write(fd, "x", 1), 1);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(st.st_mtim.tv_sec > 1000);
}
TEST(statx_fields) {
    t_write_file("f", "abc");
    struct statx sx;
    OK(statx(AT_FDCWD, "f", 0, STATX_ALL, &sx));
    EQ(sx.stx_size, 3);
    EQ(sx.stx_mode, S_IFREG | 0644);
    CHECK((sx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    struct stat st;
    OK(stat("f", &st));
    EQ(sx.stx_ino, st.st_ino);
    EQ(makedev(sx.stx_dev_major, sx.stx_dev_minor), st.st_dev);
    FAILS(statx(AT_FDCWD, "f", 0x40000000, STATX_ALL, &sx), EINVAL);
}
TEST(o_path) {
    t_write_file("f", "abc");
    int fd = OK(open("f", O_PATH));
    char c;
    FAILS(read(fd, &c, 1), EBADF);
    FAILS(fchmod(fd, 0600), EBADF);
    struct stat st;
    OK(fstat(fd, &st));
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int rw = OK(open(link, O_RDONLY));
    EQ(read(rw, &c, 1), 1);
    OK(symlink("f", "l"));
    int lfd = OK(open("l", O_PATH | O_NOFOLLOW));
    OK(fstat(lfd, &st));
    CHECK(S_ISLNK(st.st_mode));
    char buf[8];
    EQ(readlinkat(lfd, "", buf, sizeof buf), 1);
}
TEST(o_tmpfile) {
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    if (fd < 0 && errno == EOPNOTSUPP) t_skip("no O_TMPFILE here");
    CHECK(fd >= 0);
    EQ(write(fd, "x", 1), 1);
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, link, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    STREQ(t_read_file("named"), "x");
}
TEST(xattrs) {
    t_write_file("f", "");
    int r = setxattr("f", "user.a", "value", 5, 0);
    if (r < 0 && errno == EOPNOTSUPP) t_skip("no user xattrs on this file system");
    CHECK(r == 0);
    char buf[64];
    EQ(getxattr("f", "user.a", buf, sizeof buf), 5);
    EQ(getxattr("f", "user.a", NULL, 0), 5);
    FAILS(getxattr("f", "user.a", buf, 2), ERANGE);
    FAILS(getxattr("f", "user.b", buf, 2), ENODATA);
    FAILS(setxattr("f", "user.a", "x", 1, XATTR_CREATE), EEXIST);
    FAILS(setxattr("f", "user.b", "x", 1, XATTR_REPLACE), ENODATA);
    CHECK(listxattr("f", buf, sizeof buf) >= 7);
    OK(removexattr("f", "user.a"));
    FAILS(removexattr("f", "user.a"), ENODATA);
    FAILS(setxattr("f", "bogus", "x", 1, 0), EOPNOTSUPP);
}
TEST(copy_file_range_copies) {
    t_write_file("a", "0123456789");
    int in = OK(open("a", O_RDONLY)), out = OK(open("b", O_CREAT | O_RDWR, 0644));
    off_t off = 3;
    EQ(copy_file_range(in, &off, out, NULL, 4, 0), 4);
    EQ(off, 7);
    STREQ(t_read_file("b"), "3456");
    FAILS(copy_file_range(in, NULL, out, NULL, 1, 1), EINVAL);
}
TEST(sendfile_copies) {
    t_write_file("a", "0123456789");
    int in = OK(open("a", O_RDONLY)), out = OK(open("b", O_CREAT | O_RDWR, 0644));
    EQ(syscall(SYS_sendfile, out, in, NULL, 100), 10);
    STREQ(t_read_file("b"), "0123456789");
    EQ(lseek(in, 0, SEEK_CUR), 10);
}
TEST(fallocate_modes) {
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    OK(fallocate(fd, 0, 0, 8192));
    struct stat st;
    OK(fstat(fd, &st));
    EQ(st.st_size, 8192);
    OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 16384));
    OK(fstat(fd, &st));
    EQ(st.st_size, 8192);
    char one[4096];
    memset(one, 1, sizeof one);
    EQ(pwrite(fd, one, 4096, 0), 4096);
    OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    char c = 9;
    EQ(pread(fd, &c, 1, 10), 1);
    EQ(c, 0);
    FAILS(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096), EOPNOTSUPP);
    FAILS(fallocate(fd, 0, -1, 1), EINVAL);
    FAILS(fallocate(fd, 0, 0, 0), EINVAL);
}
TEST(rlimit_fsize) {
    struct rlimit rl = {10, 10};
    signal(SIGXFSZ, SIG_IGN);
    OK(setrlimit(RLIMIT_FSIZE, &rl));
    int fd = OK(open("a", O_CREAT | O_RDWR, 0644));
    EQ(write(fd, "0123456789abc", 13), 10);
    FAILS(write(fd, "x", 1), EFBIG);
    FAILS(ftruncate(fd, 11), EFBIG);
}
TEST(statfs_works) {
    struct statfs sf;
    OK(statfs(".", &sf));
    CHECK(sf.f_bsize > 0 && sf.f_namelen >= 255);
    OK(statfs("/proc", &sf));
    EQ(sf.f_type, 0x9fa0);
}
TEST(mknod_fifo) {
    OK(mkfifo("p", 0644));
    struct stat st;
    OK(stat("p", &st));
    CHECK(S_ISFIFO(st.st_mode));
    FAILS(open("p", O_WRONLY | O_NONBLOCK), ENXIO);
    int r = OK(open("p", O_RDONLY | O_NONBLOCK));
    int w = OK(open("p", O_WRONLY));
    EQ(write(w, "x", 1), 1);
    char c;
    EQ(read(r, &c, 1), 1);
    FAILS(read(r, &c, 1), EAGAIN);
    close(w);
    EQ(read(r, &c, 1), 0);
}
TEST(flock_conflict) {
    t_write_file("f", "");
    int a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDWR));
    OK(flock(a, LOCK_EX));
    FAILS(flock(b, LOCK_EX | LOCK_NB), EAGAIN);
    FAILS(flock(b, LOCK_SH | LOCK_NB), EAGAIN);
    OK(flock(a, LOCK_SH));
    OK(flock(b, LOCK_SH | LOCK_NB));
    close(a);
    OK(flock(b, LOCK_EX | LOCK_NB));
}
static void posix_lock_child(void *arg) {
    (void)arg;
    int fd = OK(open("f", O_RDWR));
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 1};
    FAILS(fcntl(fd, F_SETLK, &fl), EAGAIN);
    OK(fcntl(fd, F_GETLK, &fl));
    EQ(fl.l_type, F_WRLCK);
    EQ(fl.l_pid, getppid());
    EQ(fl.l_start, 0);
    EQ(fl.l_len, 10);
    fl = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 1};
    OK(fcntl(fd, F_SETLK, &fl));
}
TEST(posix_locks) {
    t_write_file("f", "0123456789");
    int fd = OK(open("f", O_RDWR));
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
    OK(fcntl(fd, F_SETLK, &fl));
    EQ(t_child(posix_lock_child, NULL), 0);
    /* closing any descriptor of the file drops the locks */
    close(OK(open("f", O_RDONLY)));
    pid_t pid = OK(fork());
    if (!pid) {
        int fd2 = OK(open("f", O_RDWR));
        OK(fcntl(fd2, F_SETLK, &fl));
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
TEST(dup_shares_offset) {
    t_write_file("f", "abcdef");
    int a = OK(open("f", O_RDONLY)), b = OK(dup(a)), c = OK(open("f", O_RDONLY));
    char x[4];
    EQ(read(a, x, 3), 3);
    EQ(lseek(b, 0, SEEK_CUR), 3);
    EQ(lseek(c, 0, SEEK_CUR), 0);
}
TEST(fcntl_flags) {
    int fd = OK(open("f", O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    OK(fcntl(fd, F_SETFD, 0));
    EQ(fcntl(fd, F_GETFD), 0);
    EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    OK(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
    EQ(fcntl(fd, F_GETFL) & (O_APPEND | O_NONBLOCK), O_APPEND | O_NONBLOCK);
    int d = OK(fcntl(fd, F_DUPFD, 50));
    EQ(d, 50);
    d = OK(fcntl(fd, F_DUPFD_CLOEXEC, 50));
    EQ(d, 51);
    EQ(fcntl(d, F_GETFD), FD_CLOEXEC);
    FAILS(fcntl(fd, F_DUPFD, -1), EINVAL);
    FAILS(fcntl(fd, 9999), EINVAL);
}
TEST(dup2_dup3) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    EQ(dup2(fd, 100), 100);
    EQ(dup2(fd, fd), fd);
    FAILS(dup2(99, 99), EBADF);
    FAILS(dup3(fd, fd, 0), EINVAL);
    EQ(dup3(fd, 101, O_CLOEXEC), 101);
    EQ(fcntl(101, F_GETFD), FD_CLOEXEC);
    FAILS(dup2(fd, 1 << 30), EBADF);
}
TEST(lowest_descriptor) {
    int a = OK(open("/dev/null", O_RDONLY)), b = OK(open("/dev/null", O_RDONLY));
    EQ(b, a + 1);
    close(a);
    EQ(open("/dev/null", O_RDONLY), a);
    FAILS(close(12345), EBADF);
}
TEST(rlimit_nofile) {
    struct rlimit rl;
    OK(getrlimit(RLIMIT_NOFILE, &rl));
    rl.rlim_cur = 10;
    OK(setrlimit(RLIMIT_NOFILE, &rl));
    int last = -1, fd;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0) last = fd;
    CHECK(errno == EMFILE);
    CHECK(last <= 9);
    FAILS(fcntl(0, F_DUPFD, 10), EINVAL);
}
TEST(close_range_works) {
    for (int i = 0; i < 5; i++) OK(dup2(0, 100 + i));
    OK(syscall(SYS_close_range, 101, 103, 0));
    OK(fcntl(100, F_GETFD));
    FAILS(fcntl(101, F_GETFD), EBADF);
    OK(fcntl(104, F_GETFD));
    OK(syscall(SYS_close_range, 100, 104, 4 /* CLOEXEC */));
    EQ(fcntl(104, F_GETFD), FD_CLOEXEC);
    FAILS(syscall(SYS_close_range, 5, 4, 0), EINVAL);
}
TEST(dev_nodes) {
    int fd = OK(open("/dev/zero", O_RDWR));
    char buf[100];
    memset(buf, 1, 100);
    EQ(read(fd, buf, 100), 100);
    for (int i = 0; i < 100; i++) EQ(buf[i], 0);
    EQ(write(fd, buf, 100), 100);
    fd = OK(open("/dev/null", O_RDWR));
    EQ(read(fd, buf, 100), 0);
    EQ(write(fd, buf, 100), 100);
    fd = OK(open("/dev/full", O_RDWR));
    FAILS(write(fd, buf, 1), ENOSPC);
    EQ(read(fd, buf, 10), 10);
    fd = OK(open("/dev/urandom", O_RDONLY));
    EQ(read(fd, buf, 64), 64);
    int nz = 0;
    for (int i = 0; i < 64; i++) nz |= buf[i];
    CHECK(nz);
}
TEST(openat2_resolve) {
    struct {
        uint64_t flags, mode, resolve;
    } how = {O_RDONLY, 0, 0x08 /* BENEATH */};
    OK(mkdir("d", 0755));
    t_write_file("d/f", "x");
    t_write_file("out", "x");
    OK(symlink("../out", "d/up"));
    OK(symlink("f", "d/in"));
    int d = OK(open("d", O_RDONLY));
    close(OK(syscall(SYS_openat2, d, "f", &how, sizeof how)));
    close(OK(syscall(SYS_openat2, d, "in", &how, sizeof how)));
    FAILS(syscall(SYS_openat2, d, "../out", &how, sizeof how), EXDEV);
    FAILS(syscall(SYS_openat2, d, "up", &how, sizeof how), EXDEV);
    FAILS(syscall(SYS_openat2, d, "/etc/passwd", &how, sizeof how), EXDEV);
    how.resolve = 0x04; /* NO_SYMLINKS */
    FAILS(syscall(SYS_openat2, d, "in", &how, sizeof how), ELOOP);
    how.resolve = 0x10; /* IN_ROOT */
    FAILS(syscall(SYS_openat2, d, "../out", &how, sizeof how), ENOENT);
    how.resolve = 0x1000;
    FAILS(syscall(SYS_openat2, d, "f", &how, sizeof how), EINVAL);
    how.resolve = 0;
    how.flags = 0x80000000;
    FAILS(syscall(SYS_openat2, d, "f", &how, sizeof how), EINVAL);
    FAILS(syscall(SYS_openat2, d, "f", &how, 8), EINVAL);
}
TEST(fdinfo_of_itself) {
    char path[64], buf[512];
    int first = OK(open("/proc/self/fdinfo/0", O_RDONLY));
    close(first);
    /* The lowest free number is taken again: the file tells about itself while it is read. */
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", first);
    int other = OK(open("/dev/null", O_RDONLY));
    EQ(other, first);
    int fd = OK(open(path, O_RDONLY));
    EQ(dup2(fd, other), other);
    buf[OK(read(other, buf, sizeof buf - 1))] = 0;
    CHECK(strstr(buf, "pos:\t0\n") == buf);
}
TEST(proc_mem_of_no_page) {
    char byte = 1;
    int fd = OK(open("/proc/self/mem", O_RDWR));
    FAILS(pwrite(fd, &byte, 1, 4096), EIO);
    FAILS(pread(fd, &byte, 1, 4096), EIO);
    static char target[8] = "before";
    EQ(pwrite(fd, "after!", 6, (off_t)(uintptr_t)target), 6);
    CHECK(!strcmp(target, "after!"));
}
