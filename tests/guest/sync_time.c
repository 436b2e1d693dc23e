#include "t.h"
#include <linux/futex.h>
#include <sys/timex.h>
#include <semaphore.h>
#define FAMILY "sync"

static long fx(void *a, int op, long v, void *t, void *b, long v3) { return syscall(SYS_futex, a, op, v, t, b, v3); }
TEST(futex_errors) {
    static atomic_int w = 1;
    FAILS(fx(&w, FUTEX_WAIT, 2, NULL, NULL, 0), EAGAIN);
    FAILS(fx((char *)&w + 1, FUTEX_WAIT, 1, NULL, NULL, 0), EINVAL);
    FAILS(fx((void *)4096, FUTEX_WAIT, 1, NULL, NULL, 0), EFAULT);
    struct timespec ts = {0, 10000000};
    FAILS(fx(&w, FUTEX_WAIT, 1, &ts, NULL, 0), ETIMEDOUT);
    ts.tv_nsec = 2000000000;
    FAILS(fx(&w, FUTEX_WAIT, 1, &ts, NULL, 0), EINVAL);
    FAILS(fx(&w, 99, 1, NULL, NULL, 0), ENOSYS);
    EQ(fx(&w, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
    FAILS(fx(&w, FUTEX_WAIT_BITSET, 1, NULL, NULL, 0), EINVAL);
}
static atomic_int word, started;
static void *waiter(void *a) {
    (void)a;
    atomic_fetch_add(&started, 1);
    while (atomic_load(&word) == 0) fx(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    return NULL;
}
TEST(futex_wake_all) {
    pthread_t t[5];
    for (int i = 0; i < 5; i++) pthread_create(&t[i], NULL, waiter, NULL);
    while (started < 5) usleep(1000);
    usleep(20000);
    atomic_store(&word, 1);
    EQ(fx(&word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), 5);
    for (int i = 0; i < 5; i++) pthread_join(t[i], NULL);
}
TEST(futex_shared_between_processes) {
    atomic_int *w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = OK(fork());
    if (!pid) {
        t_await(w, 0);
        _exit(0);
    }
    usleep(20000);
    t_set(w, 1);
    EQ(t_wait(pid), 0);
}
static atomic_int w2;
static void *requeued(void *a) {
    (void)a;
    started++;
    return (void *)fx(&word, FUTEX_WAIT, 0, NULL, NULL, 0);
}
TEST(futex_requeue) {
    pthread_t t[4];
    started = 0;
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, requeued, NULL);
    while (started < 4) usleep(1000);
    usleep(30000);
    FAILS(fx(&word, FUTEX_CMP_REQUEUE, 1, (void *)10, &w2, 7), EAGAIN);
    EQ(fx(&word, FUTEX_CMP_REQUEUE, 1, (void *)10, &w2, 0), 4);
    EQ(fx(&w2, FUTEX_WAKE, 10, NULL, NULL, 0), 3);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
}
TEST(mutex_contention) {
    static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    static long n;
    void *f(void *a) { (void)a; for (int i = 0; i < 5000; i++) { pthread_mutex_lock(&m); n++; pthread_mutex_unlock(&m); } return NULL; }
    pthread_t t[6];
    for (int i = 0; i < 6; i++) pthread_create(&t[i], NULL, f, NULL);
    for (int i = 0; i < 6; i++) pthread_join(t[i], NULL);
    EQ(n, 30000);
}
TEST(condvar_pingpong) {
    static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
    static int turn;
    void *f(void *a) {
        long me = (long)a;
        for (int i = 0; i < 500; i++) {
            pthread_mutex_lock(&m);
            while (turn != me) pthread_cond_wait(&c, &m);
            turn = !me;
            pthread_cond_signal(&c);
            pthread_mutex_unlock(&m);
        }
        return NULL;
    }
    pthread_t a, b;
    pthread_create(&a, NULL, f, (void *)0);
    pthread_create(&b, NULL, f, (void *)1);
    pthread_join(a, NULL);
    pthread_join(b, NULL);
}
TEST(robust_mutex) {
    pthread_mutexattr_t at;
    pthread_mutexattr_init(&at);
    pthread_mutexattr_setrobust(&at, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&at, PTHREAD_PROCESS_SHARED);
    pthread_mutex_t *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutex_init(m, &at);
    pid_t pid = OK(fork());
    if (!pid) {
        pthread_mutex_lock(m);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    EQ(pthread_mutex_lock(m), EOWNERDEAD);
    EQ(pthread_mutex_consistent(m), 0);
    EQ(pthread_mutex_unlock(m), 0);
}
TEST(pi_mutex) {
    pthread_mutexattr_t at;
    pthread_mutexattr_init(&at);
    pthread_mutexattr_setprotocol(&at, PTHREAD_PRIO_INHERIT);
    static pthread_mutex_t m;
    EQ(pthread_mutex_init(&m, &at), 0);
    static int n;
    void *f(void *a) { (void)a; for (int i = 0; i < 500; i++) { pthread_mutex_lock(&m); n++; pthread_mutex_unlock(&m); } return NULL; }
    pthread_t t[3];
    for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, f, NULL);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    EQ(n, 1500);
}
TEST(semaphore_processes) {
    sem_t *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sem_init(s, 1, 0);
    pid_t pid = OK(fork());
    if (!pid) {
        for (int i = 0; i < 100; i++) sem_post(s);
        _exit(0);
    }
    for (int i = 0; i < 100; i++) sem_wait(s);
    EQ(t_wait(pid), 0);
}
TEST(barrier) {
    static pthread_barrier_t b;
    pthread_barrier_init(&b, NULL, 4);
    void *f(void *a) { for (int i = 0; i < 50; i++) pthread_barrier_wait(&b); return a; }
    pthread_t t[4];
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, f, NULL);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
}
TEST(membarrier_query) {
    long r = syscall(SYS_membarrier, 0, 0, 0);
    if (r < 0) t_skip("no membarrier");
    FAILS(syscall(SYS_membarrier, 1 << 30, 0, 0), EINVAL);
}
TEST(clock_gettime_all) {
    struct timespec a, b;
    int ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
                 CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME};
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
        OK(clock_gettime(ids[i], &a));
        OK(syscall(SYS_clock_gettime, ids[i], &b));
        CHECK(b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec) || ids[i] == CLOCK_REALTIME || ids[i] == CLOCK_REALTIME_COARSE || ids[i] == CLOCK_MONOTONIC_COARSE);
        OK(clock_getres(ids[i], &a));
    }
    FAILS(clock_gettime(100, &a), EINVAL);
    FAILS(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 8), EFAULT);
}
TEST(nanosleep_sleeps) {
    long long t = t_ms();
    struct timespec ts = {0, 50000000};
    OK(nanosleep(&ts, NULL));
    CHECK(t_ms() - t >= 49);
    ts.tv_nsec = -1;
    FAILS(nanosleep(&ts, NULL), EINVAL);
    ts.tv_nsec = 1000000000;
    FAILS(nanosleep(&ts, NULL), EINVAL);
}
TEST(clock_nanosleep_abs) {
    struct timespec ts;
    OK(clock_gettime(CLOCK_MONOTONIC, &ts));
    ts.tv_nsec += 30000000;
    if (ts.tv_nsec >= 1000000000) ts.tv_nsec -= 1000000000, ts.tv_sec++;
    long long t = t_ms();
    EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL), 0);
    CHECK(t_ms() - t >= 28);
    ts.tv_sec -= 10;
    EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL), 0);
    EQ(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &ts, NULL), EINVAL);
}
static volatile sig_atomic_t ticks;
static void tick(int s) { (void)s; ticks++; }
TEST(itimer_periodic) {
    signal(SIGALRM, tick);
    struct itimerval it = {{0, 10000}, {0, 10000}}, cur;
    OK(setitimer(ITIMER_REAL, &it, NULL));
    while (ticks < 3) pause();
    OK(getitimer(ITIMER_REAL, &cur));
    EQ(cur.it_interval.tv_usec, 10000);
    it = (struct itimerval){{0, 0}, {0, 0}};
    OK(setitimer(ITIMER_REAL, &it, &cur));
    FAILS(setitimer(9, &it, NULL), EINVAL);
}
TEST(itimer_virtual) {
    signal(SIGVTALRM, tick);
    struct itimerval it = {{0, 0}, {0, 20000}};
    OK(setitimer(ITIMER_VIRTUAL, &it, NULL));
    long long t = t_ms();
    while (!ticks && t_ms() - t < 5000) for (volatile int i = 0; i < 100000; i++) {}
    EQ(ticks, 1);
}
TEST(alarm_remaining) {
    signal(SIGALRM, tick);
    EQ(alarm(100), 0);
    CHECK(alarm(0) >= 99);
}
TEST(times_advance) {
    struct timespec a, b;
    OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a));
    for (volatile long i = 0; i < 20000000; i++) {}
    OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b));
    CHECK((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec > 1000000);
}
TEST(gettimeofday_agrees) {
    struct timeval tv;
    OK(gettimeofday(&tv, NULL));
    CHECK(labs(tv.tv_sec - time(NULL)) <= 1);
}
TEST(posix_timer_overrun) {
    timer_t id;
    struct sigevent ev = {.sigev_notify = SIGEV_NONE};
    OK(timer_create(CLOCK_MONOTONIC, &ev, &id));
    struct itimerspec it = {{0, 0}, {100, 0}}, cur;
    OK(timer_settime(id, 0, &it, NULL));
    OK(timer_gettime(id, &cur));
    CHECK(cur.it_value.tv_sec >= 98);
    EQ(timer_getoverrun(id), 0);
    OK(timer_delete(id));
    FAILS(timer_create(77, &ev, &id), EINVAL);
}
TEST(sched_yield_works) { EQ(sched_yield(), 0); }
