/* Micro-benchmarks: one line "NAME NANOSECONDS" each, the median of several batches. Runs anywhere.
 * Arguments are names of benchmarks, none for all; after -n names are printed and nothing is run. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
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
static char **wanted;
static int only_names;
static int is_wanted(const char *name) {
    for (char **w = wanted; *w; w++) if (!strcmp(*w, name)) return 1;
    return !*wanted;
}
static void bench(const char *name, void (*fn)(int), int n) {
    double t[9];
    if (!is_wanted(name)) return;
    if (only_names) {
        puts(name);
        return;
    }
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
static char *anonymous(size_t len) {
    char *m = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED) abort();
    return m;
}
/* One mebibyte of fresh pages, touched singly. */
static void b_fresh(int n) {
    while (n--) {
        char *m = anonymous(1 << 20);
        for (long i = 0; i < 1 << 20; i += 4096) m[i] = 1;
        munmap(m, 1 << 20);
    }
}
/* A collector's barrier: a page of a heap is closed, opened, written. */
static char *heap;
static void b_protect(int n) {
    while (n--) {
        char *page = heap + (n % 16) * 65536;
        if (mprotect(page, 4096, PROT_READ) || mprotect(page, 4096, PROT_READ | PROT_WRITE)) abort();
        *page = 1;
    }
}
/* An allocator that gives pages back and takes them again. */
static void b_dontneed(int n) {
    while (n--) {
        for (int i = 0; i < 16; i++) heap[i * 4096] = 1;
        if (madvise(heap, 65536, MADV_DONTNEED)) abort();
    }
}
/* Go and the JVM: address space is set aside, then used piece by piece. */
static void b_commit(int n) {
    while (n--) {
        char *m = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        for (int i = 0; i < 4; i++) {
            char *at = m + i * 65536;
            mmap(at, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            *at = 1;
        }
        munmap(m, 1 << 20);
    }
}
/* A file's page, mapped, read, unmapped. */
static void b_map_file(int n) {
    while (n--) {
        char *m = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, null_fd, 0);
        if (m == MAP_FAILED || *m != 1) abort();
        munmap(m, 4096);
    }
}
/* The child writes to 256 pages that it shares with its parent. */
static void b_fork_write(int n) {
    while (n--) {
        pid_t pid = fork();
        if (!pid) {
            for (long i = 0; i < 1 << 20; i += 4096) heap[i] = 2;
            _exit(0);
        }
        waitpid(pid, NULL, 0);
        for (long i = 0; i < 1 << 20; i += 4096) heap[i] = 3;
    }
}
static volatile int stop;
static void *spin(void *a) {
    while (!stop) heap[(1 << 20) + (long)a * 4096] += 1;
    return a;
}
/* A fork while two threads write to their memory. */
static void b_fork_busy(int n) {
    pthread_t t[2];
    stop = 0;
    for (long i = 0; i < 2; i++) pthread_create(&t[i], NULL, spin, (void *)i);
    b_fork(n);
    stop = 1;
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
}
static char *large;
static void b_fork_large(int n) {
    if (!large) {
        large = anonymous(256 << 20);
        memset(large, 1, 256 << 20);
    }
    b_fork(n);
}
static int turn;
static void futex(int op, int value) { syscall(SYS_futex, &turn, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0); }
static void *futex_echo(void *a) {
    for (;;) {
        int now;
        while (!((now = __atomic_load_n(&turn, __ATOMIC_ACQUIRE)) & 1)) futex(FUTEX_WAIT, now);
        if (now < 0) return a;
        __atomic_store_n(&turn, now + 1, __ATOMIC_RELEASE);
        futex(FUTEX_WAKE, 1);
    }
}
/* Two threads that hand a turn to each other. */
static void b_futex(int n) {
    pthread_t t;
    turn = 0;
    pthread_create(&t, NULL, futex_echo, NULL);
    while (n--) {
        int now = __atomic_add_fetch(&turn, 1, __ATOMIC_ACQ_REL);
        futex(FUTEX_WAKE, 1);
        while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) == now) futex(FUTEX_WAIT, now);
    }
    __atomic_store_n(&turn, -1, __ATOMIC_RELEASE);
    futex(FUTEX_WAKE, 1);
    pthread_join(t, NULL);
}
/* Both ends of a pipe in two processes. */
static void b_pingpong_processes(int n) {
    int a[2], b[2];
    if (pipe(a) || pipe(b)) abort();
    pid_t pid = fork();
    if (!pid) {
        char c;
        close(a[1]);
        while (read(a[0], &c, 1) == 1) if (write(b[1], &c, 1) != 1) break;
        _exit(0);
    }
    close(a[0]);
    while (n--) if (write(a[1], buf, 1) != 1 || read(b[0], buf, 1) != 1) abort();
    close(a[1]);
    waitpid(pid, NULL, 0);
    close(b[0]);
    close(b[1]);
}
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "-x")) return 0;
    only_names = argc > 1 && !strcmp(argv[1], "-n");
    wanted = argv + 1 + only_names;
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
    heap = anonymous(2 << 20);
    memset(heap, 1, 2 << 20);
    bench("fresh-256-pages", b_fresh, 20);
    bench("mprotect-write", b_protect, 500);
    bench("dontneed-16", b_dontneed, 500);
    bench("reserve-commit-4", b_commit, 100);
    bench("map-file", b_map_file, 500);
    bench("fork-write-256", b_fork_write, 20);
    bench("fork-busy", b_fork_busy, 20);
    pthread_t t;
    pthread_create(&t, NULL, echo, NULL);
    bench("pingpong-threads", b_pingpong, 2000);
    bench("pingpong-processes", b_pingpong_processes, 1000);
    bench("futex-handover", b_futex, 1000);
    bench("fork-large", b_fork_large, 10);
    unlink("/tmp/bench-file");
    return 0;
}
