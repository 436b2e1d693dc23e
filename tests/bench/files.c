/* File workloads, each in the directories given: `files NAME DIR [NAME DIR]...` prints `NAME-WORKLOAD ns-per-operation`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 1000, DIRS = 20, ROUNDS = 3 };
static char path[4096];

static long long now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}
static void fail(const char *what) {
    fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
    exit(1);
}
static const char *file(int i) {
    snprintf(path, sizeof path, "d%d/f%d", i % DIRS, i);
    return path;
}

static void create(void) {
    for (int i = 0; i < DIRS; i++) {
        snprintf(path, sizeof path, "d%d", i);
        if (mkdir(path, 0755)) fail("mkdir");
    }
    for (int i = 0; i < FILES; i++) {
        int fd = open(file(i), O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 || write(fd, path, 100) != 100 || close(fd)) fail("create");
    }
}
static void stat_each(void) {
    struct stat st;
    for (int i = 0; i < FILES; i++)
        if (lstat(file(i), &st)) fail("lstat");
}
static void stat_missing(void) {
    struct stat st;
    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "d%d/missing%d", i % DIRS, i);
        if (!lstat(path, &st)) fail("there");
    }
}
static void read_each(void) {
    char buf[256];
    for (int i = 0; i < FILES; i++) {
        int fd = open(file(i), O_RDONLY);
        if (fd < 0 || read(fd, buf, sizeof buf) != 100 || close(fd)) fail("read");
    }
}
static void list(void) {
    for (int i = 0; i < DIRS; i++) {
        snprintf(path, sizeof path, "d%d", i);
        DIR *dir = opendir(path);
        if (!dir) fail("opendir");
        while (readdir(dir)) {}
        closedir(dir);
    }
}
static void list_and_stat(void) {
    for (int i = 0; i < DIRS; i++) {
        snprintf(path, sizeof path, "d%d", i);
        DIR *dir = opendir(path);
        if (!dir) fail("opendir");
        struct dirent *e;
        struct stat st;
        while ((e = readdir(dir)))
            if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW)) fail("fstatat");
        closedir(dir);
    }
}
static void rename_each(void) {
    char to[64];
    for (int i = 0; i < FILES; i++) {
        snprintf(to, sizeof to, "d%d/g%d", i % DIRS, i);
        if (rename(file(i), to) || rename(to, path)) fail("rename");
    }
}
static void small_io(void) {
    char buf[512] = "";
    int fd = open("io", O_CREAT | O_RDWR | O_TRUNC, 0644);
    if (fd < 0) fail("open");
    for (int i = 0; i < FILES; i++)
        if (pwrite(fd, buf, sizeof buf, 512LL * i) != sizeof buf) fail("pwrite");
    for (int i = 0; i < FILES; i++)
        if (pread(fd, buf, sizeof buf, 512LL * i) != sizeof buf) fail("pread");
    close(fd);
    unlink("io");
}
static void delete(void) {
    for (int i = 0; i < FILES; i++)
        if (unlink(file(i))) fail("unlink");
    for (int i = 0; i < DIRS; i++) {
        snprintf(path, sizeof path, "d%d", i);
        if (rmdir(path)) fail("rmdir");
    }
}

static const struct {
    const char *name;
    void (*run)(void);
} steps[] = {
    {"create", create},   {"stat", stat_each},     {"missing", stat_missing}, {"open-read", read_each}, {"list", list},
    {"list-stat", list_and_stat}, {"rename", rename_each}, {"small-io", small_io},  {"delete", delete},
};

int main(int argc, char **argv) {
    for (int at = 1; at + 1 < argc; at += 2) {
        long long best[sizeof steps / sizeof *steps] = {0};
        if (mkdir(argv[at + 1], 0755) && errno != EEXIST) return perror(argv[at + 1]), 1;
        for (int round = 0; round < ROUNDS; round++) {
            if (chdir(argv[at + 1])) return perror(argv[at + 1]), 1;
            for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
                long long start = now();
                steps[i].run();
                long long took = now() - start;
                if (!round || took < best[i]) best[i] = took;
            }
            if (chdir("/")) return 1;
        }
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
            printf("%s-%s %lld\n", argv[at], steps[i].name, best[i] / FILES);
        rmdir(argv[at + 1]);
    }
    return 0;
}
