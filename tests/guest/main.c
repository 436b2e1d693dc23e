#include "t.h"
#include <dirent.h>
#include <ftw.h>
#include <linux/futex.h>

static struct t_case *cases, **tail = &cases;
static int report_fd = -1;
char t_dir[PATH_MAX];

void t_register(struct t_case *c) {
    *tail = c;
    tail = &c->next;
}

static void say(const char *kind, const char *fmt, va_list ap, const char *file, int line) {
    char buf[2048];
    int n = snprintf(buf, sizeof buf, "%s", kind);
    if (file) n += snprintf(buf + n, sizeof buf - n, "%s:%d: ", strrchr(file, '/') ? strrchr(file, '/') + 1 : file, line);
    n += vsnprintf(buf + n, sizeof buf - n, fmt, ap);
    if (n > (int)sizeof buf - 1) n = sizeof buf - 1;
    for (int i = 0; i < n; i++)
        if (buf[i] == '\n') buf[i] = ' ';
    if (write(report_fd, buf, n) < 0) _exit(3);
}

void t_fail(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say("F", fmt, ap, file, line);
    va_end(ap);
    _exit(1);
}

void t_skip(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say("S", fmt, ap, NULL, 0);
    va_end(ap);
    _exit(2);
}

int t_wait(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) t_fail(__FILE__, __LINE__, "waitpid: %s", strerror(errno));
    return status;
}

int t_child(void (*fn)(void *), void *arg) {
    pid_t pid = OK(fork());
    if (pid == 0) {
        fn(arg);
        _exit(0);
    }
    return t_wait(pid);
}

long long t_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

void t_write_file(const char *path, const char *text) {
    int fd = OK(open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644));
    EQ(write(fd, text, strlen(text)), (long long)strlen(text));
    close(fd);
}

const char *t_read_file(const char *path) {
    static char buf[65536];
    int fd = OK(open(path, O_RDONLY));
    size_t got = 0;
    ssize_t n;
    while (got < sizeof buf - 1 && (n = OK(read(fd, buf + got, sizeof buf - 1 - got))) > 0) got += n;
    buf[got] = 0;
    close(fd);
    return buf;
}

void t_await(atomic_int *word, int old) {
    long long end = t_ms() + 5000;
    while (atomic_load(word) == old) {
        struct timespec ts = {1, 0};
        syscall(SYS_futex, word, FUTEX_WAIT, old, &ts, NULL, 0);
        if (t_ms() > end) t_fail(__FILE__, __LINE__, "nobody changed the awaited word");
    }
}

void t_set(atomic_int *word, int value) {
    atomic_store(word, value);
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static int rm(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

/* Runs one case; 0 ok, 1 failed, 2 skipped. */
static int run_case(const char *base, struct t_case *c, int limit_s) {
    int pipefd[2];
    if (pipe2(pipefd, O_CLOEXEC) < 0) return perror("pipe2"), 1;
    snprintf(t_dir, sizeof t_dir, "%s/t.%s.%s", base, c->family, c->name);
    if (mkdir(t_dir, 0755) < 0) return perror(t_dir), 1;
    pid_t pid = fork();
    if (pid < 0) return perror("fork"), 1;
    if (pid == 0) {
        setpgid(0, 0);
        close(pipefd[0]);
        report_fd = pipefd[1];
        if (report_fd < 200) {
            /* Out of the way of cases that count descriptors. */
            int high = fcntl(report_fd, F_DUPFD_CLOEXEC, 200);
            close(report_fd);
            report_fd = high;
        }
        if (chdir(t_dir) < 0) _exit(3);
        umask(022);
        c->run();
        _exit(0);
    }
    setpgid(pid, pid);
    close(pipefd[1]);
    /* Wait for the case with a limit: poll a pidfd. */
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {pidfd, POLLIN, 0};
    int timed_out = poll(&p, 1, limit_s * 1000) == 0;
    kill(-pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    close(pidfd);
    char msg[2048];
    struct pollfd q = {pipefd[0], POLLIN, 0};
    ssize_t n = 0;
    if (poll(&q, 1, 0) > 0) n = read(pipefd[0], msg, sizeof msg - 1);
    if (n < 0) n = 0;
    msg[n] = 0;
    close(pipefd[0]);
    nftw(t_dir, rm, 16, FTW_DEPTH | FTW_PHYS);
    int result = 1;
    if (timed_out)
        printf("not ok %s/%s: no end after %d s\n", c->family, c->name, limit_s);
    else if (n > 0 && msg[0] == 'S')
        printf("skip %s/%s: %s\n", c->family, c->name, msg + 1), result = 2;
    else if (n > 0)
        printf("not ok %s/%s: %s\n", c->family, c->name, msg + 1);
    else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        printf("ok %s/%s\n", c->family, c->name), result = 0;
    else if (WIFSIGNALED(status))
        printf("not ok %s/%s: killed by signal %d\n", c->family, c->name, WTERMSIG(status));
    else
        printf("not ok %s/%s: exit status %d\n", c->family, c->name, WEXITSTATUS(status));
    fflush(stdout);
    return result;
}

/* What a program gains by its file: 13 for CAP_NET_RAW in force, 77 for permitted only, 0 for nothing. */
static int print_caps(void) {
    unsigned header[2] = {0x20080522, 0}, data[6] = {0};
    syscall(SYS_capget, header, data);
    if (data[0] == 1u << 13) return 13;
    return data[1] == 1u << 13 ? 77 : data[1] ? 1 : 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "--print-caps")) return print_caps();
    const char *base = "/tmp";
    int limit_s = 20, list = 0, ran = 0, failed = 0, skipped = 0, at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (!strcmp(argv[at], "-l")) list = 1;
        else if (!strcmp(argv[at], "-d") && at + 1 < argc) base = argv[++at];
        else if (!strcmp(argv[at], "-t") && at + 1 < argc) limit_s = atoi(argv[++at]);
        else return fprintf(stderr, "usage: %s [-l] [-d dir] [-t seconds] [family[/name]...]\n", argv[0]), 2;
    }
    char work[PATH_MAX];
    snprintf(work, sizeof work, "%s/guest-tests.XXXXXX", base);
    if (!list && !mkdtemp(work)) return perror(work), 2;
    chmod(work, 0755);
    for (struct t_case *c = cases; c; c = c->next) {
        int wanted = at == argc;
        char full[256];
        snprintf(full, sizeof full, "%s/%s", c->family, c->name);
        for (int i = at; i < argc; i++) wanted |= !strcmp(argv[i], c->family) || !strcmp(argv[i], full);
        if (!wanted) continue;
        if (list) {
            puts(full);
            continue;
        }
        ran++;
        switch (run_case(work, c, limit_s)) {
        case 1: failed++; break;
        case 2: skipped++; break;
        }
    }
    if (list) return 0;
    rmdir(work);
    printf("%d passed, %d failed, %d skipped\n", ran - failed - skipped, failed, skipped);
    return failed != 0;
}
