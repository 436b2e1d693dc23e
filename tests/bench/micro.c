/* Micro-benchmarks: one line "NAME NANOSECONDS" each, the median of several batches. Runs anywhere. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1e9 + ts.tv_nsec;
}
static int order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}
static void bench(const char *name, void (*fn)(int), int n) {
    double t[9];
    fn(n / 10 + 1);
    for (int i = 0; i < 9; i++) {
        double start = now();
        fn(n);
        t[i] = (now() - start) / n;
    }
    qsort(t, 9, sizeof *t, order);
    printf("%s %.0f\n", name, t[4]);
    fflush(stdout);
}
static int zero, null_fd, p[2], s[2];
static char buf[65536];
static void b_getpid(int n) { while (n--) syscall(SYS_getppid); }
static void b_read(int n) { while (n--) if (read(zero, buf, 1) != 1) abort(); }
static void b_open(int n) { while (n--) close(open("/tmp/bench-file", O_RDONLY)); }
static void b_stat(int n) { struct stat st; while (n--) if (stat("/tmp/bench-file", &st)) abort(); }
static void b_pipe(int n) { while (n--) if (write(p[1], buf, 1) != 1 || read(p[0], buf, 1) != 1) abort(); }
static void b_map(int n) {
    while (n--) {
        char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *m = 1;
        munmap(m, 4096);
    }
}
static void b_fork(int n) {
    while (n--) {
        pid_t pid = fork();
        if (!pid) _exit(0);
        waitpid(pid, NULL, 0);
    }
}
static void b_exec(int n) {
    while (n--) {
        pid_t pid = vfork();
        if (!pid) {
            char *av[] = {"/proc/self/exe", "-x", NULL}, *ev[] = {NULL};
            execve("/proc/self/exe", av, ev);
            _exit(1);
        }
        waitpid(pid, NULL, 0);
    }
}
static void b_touch(int n) {
    while (n--) {
        char *m = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (long i = 0; i < 64 << 20; i += 4096) m[i] = 1;
        munmap(m, 64 << 20);
    }
}
static void *nothing(void *a) { return a; }
static void b_thread(int n) {
    while (n--) {
        pthread_t t;
        if (pthread_create(&t, NULL, nothing, NULL)) abort();
        pthread_join(t, NULL);
    }
}
static int ping[2], pong[2];
static void *echo(void *a) {
    char c;
    while (read(ping[0], &c, 1) == 1) if (write(pong[1], &c, 1) != 1) break;
    return a;
}
static void b_pingpong(int n) { while (n--) if (write(ping[1], buf, 1) != 1 || read(pong[0], buf, 1) != 1) abort(); }
static void b_socket(int n) { while (n--) if (write(s[0], buf, 64) != 64 || read(s[1], buf, 64) != 64) abort(); }
static void b_read64k(int n) { while (n--) if (pread(null_fd, buf, 65536, 0) != 65536) abort(); }
static void b_create(int n) {
    while (n--) {
        int fd = open("/tmp/bench-new", O_CREAT | O_WRONLY, 0644);
        close(fd);
        unlink("/tmp/bench-new");
    }
}
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "-x")) return 0;
    zero = open("/dev/zero", O_RDONLY);
    int fd = open("/tmp/bench-file", O_CREAT | O_RDWR, 0644);
    memset(buf, 1, sizeof buf);
    if (write(fd, buf, sizeof buf) != sizeof buf) return 1;
    null_fd = fd;
    if (pipe(p) || pipe(ping) || pipe(pong) || socketpair(AF_UNIX, SOCK_STREAM, 0, s)) return 1;
    bench("syscall", b_getpid, 20000);
    bench("read-1-zero", b_read, 20000);
    bench("open-close", b_open, 5000);
    bench("stat", b_stat, 5000);
    bench("create-unlink", b_create, 1000);
    bench("pipe-write-read", b_pipe, 10000);
    bench("socketpair-64", b_socket, 10000);
    bench("pread-64k", b_read64k, 2000);
    bench("mmap-touch-munmap", b_map, 1000);
    bench("fork-wait", b_fork, 60);
    bench("vfork-exec-wait", b_exec, 60);
    bench("thread-join", b_thread, 200);
    bench("touch-64M", b_touch, 1);
    pthread_t t;
    pthread_create(&t, NULL, echo, NULL);
    bench("pingpong-threads", b_pingpong, 2000);
    unlink("/tmp/bench-file");
    return 0;
}
