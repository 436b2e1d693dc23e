/* Harness of the guest tests: many small cases in one static binary.
 *
 * Each case runs in a child process of its own with a time limit; the parent prints
 *   ok FAMILY/NAME
 *   not ok FAMILY/NAME: FILE:LINE: what was expected
 *   skip FAMILY/NAME: why
 * A case is Linux behaviour: it must pass on the host's own kernel before it says anything about a sandbox. */
#ifndef T_H
#define T_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct t_case {
    const char *family, *name;
    void (*run)(void);
    struct t_case *next;
};
void t_register(struct t_case *c);
void t_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4), noreturn));
void t_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Defines a case; FAMILY is set once per file. */
#define TEST(NAME)                                                                  \
    static void run_##NAME(void);                                                   \
    static struct t_case case_##NAME = {FAMILY, #NAME, run_##NAME, NULL};           \
    __attribute__((constructor)) static void reg_##NAME(void) { t_register(&case_##NAME); } \
    static void run_##NAME(void)

#define CHECK(e)                                                                       \
    do {                                                                               \
        if (!(e)) t_fail(__FILE__, __LINE__, "%s (errno %d %s)", #e, errno, strerror(errno)); \
    } while (0)
/* Integer equality that prints both sides. */
#define EQ(a, b)                                                                                            \
    do {                                                                                                    \
        errno = 0;                                                                                          \
        long long t_a = (long long)(a);                                                                     \
        int t_e = errno;                                                                                    \
        long long t_b = (long long)(b);                                                                     \
        if (t_a != t_b)                                                                                     \
            t_fail(__FILE__, __LINE__, "%s is %lld (errno %d), wanted %s = %lld", #a, t_a, t_e, #b, t_b);   \
    } while (0)
#define OK(e)                                                                                            \
    ({                                                                                                   \
        errno = 0;                                                                                       \
        __auto_type t_r = (e);                                                                           \
        if ((long long)(intptr_t)t_r == -1) t_fail(__FILE__, __LINE__, "%s: %s", #e, strerror(errno));    \
        t_r;                                                                                             \
    })
/* The call fails with that errno. */
#define FAILS(e, want)                                                                                        \
    do {                                                                                                      \
        errno = 0;                                                                                            \
        long long t_r = (long long)(intptr_t)(e);                                                             \
        int t_e = errno;                                                                                      \
        if (t_r != -1 || t_e != (want))                                                                       \
            t_fail(__FILE__, __LINE__, "%s gave %lld, errno %d (%s), wanted %s", #e, t_r, t_e, strerror(t_e), #want); \
    } while (0)
#define STREQ(a, b)                                                                                   \
    do {                                                                                              \
        const char *t_a = (a), *t_b = (b);                                                            \
        if (strcmp(t_a, t_b)) t_fail(__FILE__, __LINE__, "%s is \"%s\", wanted \"%s\"", #a, t_a, t_b); \
    } while (0)

/* A fresh directory, the working directory of each case. Removed afterwards. */
extern char t_dir[];

/* Waits for a child; returns the wait status. */
int t_wait(pid_t pid);
/* Runs fn in a child and returns the wait status. */
int t_child(void (*fn)(void *), void *arg);
/* Monotonic milliseconds. */
long long t_ms(void);
/* Makes a file with that content. */
void t_write_file(const char *path, const char *text);
/* Reads a whole (small) file into a static buffer. */
const char *t_read_file(const char *path);
/* Waits until *word != old, with a time limit (futex). */
void t_await(atomic_int *word, int old);
void t_set(atomic_int *word, int value);
#endif
