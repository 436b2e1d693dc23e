#include "t.h"
#include <setjmp.h>
#include <sys/auxv.h>
#define FAMILY "memory"
#define PG 4096

static sigjmp_buf jb;
static void jump(int s) { siglongjmp(jb, s); }
static int faults(volatile char *p, int write) {
    struct sigaction sa = {.sa_handler = jump, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
    int s = sigsetjmp(jb, 1);
    if (s) return s;
    if (write) *p = 1;
    else (void)*p;
    return 0;
}
static char *anon(size_t len, int prot) {
    char *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}
#define RW (PROT_READ | PROT_WRITE)

TEST(anon_zeroed) {
    char *p = anon(16 * PG, RW);
    for (int i = 0; i < 16 * PG; i++) EQ(p[i], 0);
    memset(p, 5, 16 * PG);
    OK(munmap(p, 16 * PG));
    EQ(faults(p, 0), SIGSEGV);
}
TEST(mmap_errors) {
    FAILS(mmap(NULL, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
    FAILS(mmap(NULL, PG, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
    FAILS(mmap(NULL, PG, RW, MAP_PRIVATE, -1, 0), EBADF);
    FAILS(mmap(NULL, 1ULL << 50, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    int fd = OK(open("f", O_CREAT | O_RDONLY, 0644));
    FAILS(mmap(NULL, PG, RW, MAP_SHARED, fd, 0), EACCES);
    FAILS(mmap(NULL, PG, PROT_READ, MAP_SHARED, fd, 100), EINVAL);
    int w = OK(open("f", O_WRONLY));
    FAILS(mmap(NULL, PG, PROT_READ, MAP_PRIVATE, w, 0), EACCES);
    FAILS(mmap((void *)100, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EINVAL);
    FAILS(munmap((void *)100, PG), EINVAL);
    FAILS(munmap((void *)PG, 0), EINVAL);
}
TEST(fixed_replaces) {
    char *p = anon(3 * PG, RW);
    memset(p, 7, 3 * PG);
    char *q = mmap(p + PG, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(q == p + PG);
    EQ(p[0], 7);
    EQ(p[PG], 0);
    EQ(p[2 * PG], 7);
    FAILS(mmap(p, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
}
TEST(hint_is_taken) {
    char *p = anon(4 * PG, RW);
    OK(munmap(p, 4 * PG));
    CHECK(mmap(p, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == p);
}
TEST(munmap_middle) {
    char *p = anon(3 * PG, RW);
    p[0] = 1;
    p[2 * PG] = 3;
    OK(munmap(p + PG, PG));
    EQ(p[0], 1);
    EQ(p[2 * PG], 3);
    EQ(faults(p + PG, 0), SIGSEGV);
    OK(munmap(p, 3 * PG));
}
TEST(mprotect_changes) {
    char *p = anon(3 * PG, RW);
    memset(p, 1, 3 * PG);
    OK(mprotect(p + PG, PG, PROT_READ));
    EQ(faults(p + PG, 1), SIGSEGV);
    EQ(faults(p + PG, 0), 0);
    EQ(faults(p, 1), 0);
    OK(mprotect(p, 3 * PG, PROT_NONE));
    EQ(faults(p, 0), SIGSEGV);
    OK(mprotect(p, 3 * PG, RW));
    EQ(p[PG], 1);
    EQ(p[PG + 5], 1);
    OK(munmap(p + PG, PG));
    FAILS(mprotect(p, 3 * PG, PROT_READ), ENOMEM);
    FAILS(mprotect(p + 1, PG, PROT_READ), EINVAL);
    OK(mprotect(p, 0, PROT_READ));
}
TEST(a_write_leaves_neighbours_protected) {
    char block[PG];
    memset(block, 3, PG);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0600));
    for (int i = 0; i < 16; i++) EQ(write(fd, block, PG), PG);
    for (int kind = 0; kind < 2; kind++) {
        char *p = kind ? anon(16 * PG, RW) : mmap(NULL, 16 * PG, RW, MAP_PRIVATE, fd, 0);
        CHECK(p != MAP_FAILED);
        if (kind) memset(p, 3, 16 * PG);
        for (int i = 0; i < 16; i++) EQ(p[i * PG], 3);
        OK(mprotect(p, 16 * PG, PROT_READ));
        pid_t child = kind ? OK(fork()) : 0;
        if (!child) {
            for (int i = 5; i < 16; i += 4) {
                OK(mprotect(p + i * PG, PG, RW));
                EQ(faults(p + i * PG, 1), 0);
                EQ(faults(p + (i - 1) * PG, 1), SIGSEGV);
                EQ(faults(p + (i + 1) * PG, 1), SIGSEGV);
                EQ(p[(i + 1) * PG], 3);
            }
            if (kind) _exit(0);
        } else {
            int status;
            EQ(waitpid(child, &status, 0), child);
            EQ(status, 0);
        }
    }
}
TEST(mprotect_exec_runs_code) {
    unsigned char *p = (unsigned char *)anon(PG, RW);
    unsigned char code[] = {0xb8, 0x2a, 0, 0, 0, 0xc3};
    memcpy(p, code, sizeof code);
    OK(mprotect(p, PG, PROT_READ | PROT_EXEC));
    EQ(((int (*)(void))p)(), 42);
    OK(mprotect(p, PG, RW));
    p[1] = 43;
    OK(mprotect(p, PG, PROT_READ | PROT_EXEC));
    EQ(((int (*)(void))p)(), 43);
}
TEST(rwx_code_changes) {
    unsigned char *p = (unsigned char *)anon(PG, RW | PROT_EXEC);
    for (int i = 0; i < 20; i++) {
        unsigned char code[] = {0xb8, i, 0, 0, 0, 0xc3};
        memcpy(p, code, sizeof code);
        EQ(((int (*)(void))p)(), i);
    }
}
TEST(code_with_syscall) {
    unsigned char *p = (unsigned char *)anon(PG, RW | PROT_EXEC);
    unsigned char code[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3}; /* getpid */
    memcpy(p, code, sizeof code);
    for (int i = 0; i < 3000; i++) EQ(((int (*)(void))p)(), getpid());
    EQ(memcmp(p, code, sizeof code), 0);
    p[1] = 110; /* getppid */
    EQ(((int (*)(void))p)(), getppid());
}
TEST(file_private) {
    t_write_file("f", "hello");
    int fd = OK(open("f", O_RDWR));
    char *p = mmap(NULL, PG, RW, MAP_PRIVATE, fd, 0);
    CHECK(p != MAP_FAILED);
    STREQ(p, "hello");
    p[0] = 'J';
    STREQ(p, "Jello");
    STREQ(t_read_file("f"), "hello");
}
TEST(file_shared) {
    t_write_file("f", "hello");
    int fd = OK(open("f", O_RDWR));
    char *p = mmap(NULL, PG, RW, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    p[0] = 'J';
    STREQ(t_read_file("f"), "Jello");
    EQ(pwrite(fd, "C", 1, 0), 1);
    EQ(p[0], 'C');
    OK(msync(p, PG, MS_SYNC));
    FAILS(msync(p, PG, MS_SYNC | MS_ASYNC), EINVAL);
    EQ(p[10], 0);
    close(fd);
    p[1] = 'x';
    OK(munmap(p, PG));
    STREQ(t_read_file("f"), "Cxllo");
}
TEST(truncate_under_mapping) {
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(ftruncate(fd, 2 * PG));
    char *p = mmap(NULL, 2 * PG, RW, MAP_SHARED, fd, 0);
    memset(p, 1, 2 * PG);
    OK(ftruncate(fd, PG));
    EQ(faults(p, 1), 0);
    EQ(faults(p + PG, 0), SIGBUS);
    OK(ftruncate(fd, 2 * PG));
    EQ(faults(p + PG, 0), 0);
    EQ(p[PG], 0);
    /* a system call on the missing part is EFAULT */
    OK(ftruncate(fd, PG));
    FAILS(write(1000, p + PG, 1), EBADF);
    int o = OK(open("g", O_CREAT | O_RDWR, 0644));
    FAILS(write(o, p + PG, 1), EFAULT);
}
TEST(shared_anon_over_fork) {
    int *p = mmap(NULL, PG, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    pid_t pid = OK(fork());
    if (!pid) {
        *p = 99;
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    EQ(*p, 99);
}
TEST(cow_both_ways) {
    size_t n = 64 * PG;
    char *p = anon(n, RW);
    memset(p, 1, n);
    int a[2], b[2];
    OK(pipe(a));
    OK(pipe(b));
    pid_t pid = OK(fork());
    if (!pid) {
        char c;
        if (read(a[0], &c, 1) != 1) _exit(1);
        for (size_t i = 0; i < n; i += PG) if (p[i] != 1) _exit(2);
        memset(p, 3, n);
        if (write(b[1], "x", 1) != 1) _exit(1);
        _exit(0);
    }
    memset(p, 2, n);
    EQ(write(a[1], "x", 1), 1);
    char c;
    EQ(read(b[0], &c, 1), 1);
    for (size_t i = 0; i < n; i++) EQ(p[i], 2);
    EQ(t_wait(pid), 0);
}
TEST(cow_through_kernel) {
    char *p = anon(PG, RW);
    p[0] = 1;
    int q[2];
    OK(pipe(q));
    pid_t pid = OK(fork());
    if (!pid) {
        EQ(write(q[1], "Z", 1), 1);
        _exit(read(q[0], p, 1) == 1 && p[0] == 'Z' ? 0 : 1);
    }
    EQ(t_wait(pid), 0);
    EQ(p[0], 1);
}
TEST(fork_grandchildren) {
    char *p = anon(4 * PG, RW);
    for (int gen = 0; gen < 6; gen++) {
        p[gen * 10] = gen;
        pid_t pid = OK(fork());
        if (pid) {
            int s = t_wait(pid);
            for (int i = 0; i <= gen; i++) EQ(p[i * 10], i);
            EQ(p[(gen + 1) * 10], 0);
            _exit(WEXITSTATUS(s));
        }
    }
    _exit(0);
}
TEST(brk_grows) {
    char *b = sbrk(0);
    CHECK(sbrk(10 * PG) == b);
    memset(b, 1, 10 * PG);
    CHECK(brk(b) == 0);
    CHECK(sbrk(PG) == b);
    EQ(b[0], 0);
    EQ(syscall(SYS_brk, 0) > 0, 1);
}
TEST(mremap_grow_move) {
    char *p = anon(2 * PG, RW);
    memset(p, 9, 2 * PG);
    char *q = mremap(p, 2 * PG, 100 * PG, MREMAP_MAYMOVE);
    CHECK(q != MAP_FAILED);
    EQ(q[2 * PG - 1], 9);
    EQ(q[2 * PG], 0);
    q[99 * PG] = 1;
    q = mremap(q, 100 * PG, PG, 0);
    CHECK(q != MAP_FAILED);
    EQ(faults(q + PG, 0), SIGSEGV);
    char *t = anon(2 * PG, PROT_NONE);
    char *r = mremap(q, PG, PG, MREMAP_MAYMOVE | MREMAP_FIXED, t);
    CHECK(r == t);
    EQ(r[5], 9);
    EQ(faults(q, 0), SIGSEGV);
    FAILS(mremap((void *)1, PG, PG, 0), EINVAL);
    FAILS(mremap(q, PG, PG, MREMAP_MAYMOVE), EFAULT);
}
TEST(madvise_dontneed) {
    char *p = anon(3 * PG, RW);
    memset(p, 1, 3 * PG);
    OK(madvise(p + PG, PG, MADV_DONTNEED));
    EQ(p[0], 1);
    EQ(p[PG], 0);
    EQ(p[2 * PG], 1);
    FAILS(madvise(p + 1, PG, MADV_DONTNEED), EINVAL);
    FAILS(madvise(p, PG, 12345), EINVAL);
    OK(munmap(p + PG, PG));
    FAILS(madvise(p, 3 * PG, MADV_DONTNEED), ENOMEM);
    EQ(p[0], 0);
}
TEST(madvise_dontfork_wipeonfork) {
    char *p = anon(PG, RW), *q = anon(PG, RW);
    p[0] = q[0] = 1;
    OK(madvise(p, PG, MADV_DONTFORK));
    OK(madvise(q, PG, MADV_WIPEONFORK));
    pid_t pid = OK(fork());
    if (!pid) {
        EQ(faults(p, 0), SIGSEGV);
        EQ(q[0], 0);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    EQ(p[0], 1);
    EQ(q[0], 1);
}
TEST(mincore_reports) {
    char *p = anon(4 * PG, RW);
    p[0] = 1;
    unsigned char v[4];
    OK(mincore(p, 4 * PG, v));
    EQ(v[0] & 1, 1);
    OK(munmap(p + 2 * PG, PG));
    FAILS(mincore(p, 4 * PG, v), ENOMEM);
    FAILS(mincore(p + 1, PG, v), EINVAL);
}
TEST(mlock_works) {
    char *p = anon(2 * PG, RW);
    OK(mlock(p, 2 * PG));
    OK(munlock(p, 2 * PG));
    OK(munmap(p + PG, PG));
    FAILS(mlock(p, 2 * PG), ENOMEM);
}
TEST(stack_grows) {
    volatile char *buf = __builtin_alloca(1 << 20);
    for (int i = (1 << 20) - 1; i >= 0; i -= PG) buf[i] = 1;
    EQ(buf[(1 << 20) - 1], 1);
}
TEST(mprotect_of_a_whole_stack) {
    unsigned char code[] = {0xb8, 0x2a, 0, 0, 0, 0xc3}, deep[16 * PG];
    memcpy(deep, code, sizeof code);
    EQ(faults((char *)deep, 0), 0);
    char *top = (char *)((uintptr_t)(deep + sizeof deep) & -PG);
    char *p = anon(2 * PG, RW);
    FAILS(mprotect(p, PG, PROT_READ | PROT_GROWSDOWN), EINVAL);
    FAILS(mprotect(top, PG, PROT_READ | PROT_GROWSDOWN | PROT_GROWSUP), EINVAL);
    FAILS(mprotect(top, PG, PROT_READ | PROT_GROWSUP), EINVAL);
    OK(mprotect(top, PG, RW | PROT_EXEC | PROT_GROWSDOWN));
    EQ(((int (*)(void))(void *)deep)(), 42);
    OK(munmap(p + PG, PG));
    FAILS(mprotect((void *)0x10000, PG, PROT_READ | PROT_GROWSDOWN), ENOMEM);
}
TEST(memfd) {
    int fd = OK(memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    OK(ftruncate(fd, PG));
    char *p = mmap(NULL, PG, RW, MAP_SHARED, fd, 0);
    p[0] = 'a';
    char c;
    EQ(pread(fd, &c, 1, 0), 1);
    EQ(c, 'a');
    FAILS(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    OK(munmap(p, PG));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
    FAILS(write(fd, "x", 1), EPERM);
    FAILS(ftruncate(fd, 0), EPERM);
    FAILS(mmap(NULL, PG, RW, MAP_SHARED, fd, 0), EPERM);
    EQ(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK);
}
TEST(a_sealed_mapping_is_inherited) {
    int fd = OK(memfd_create("x", MFD_ALLOW_SEALING));
    OK(ftruncate(fd, PG));
    char *p = mmap(NULL, PG, RW, MAP_SHARED, fd, 0);
    OK(fcntl(fd, F_ADD_SEALS, 0x10 /* F_SEAL_FUTURE_WRITE */));
    FAILS(mmap(NULL, PG, RW, MAP_SHARED, fd, 0), EPERM);
    pid_t child = OK(fork());
    if (!child) {
        p[0] = 'c';
        _exit(0);
    }
    int status;
    EQ(waitpid(child, &status, 0), child);
    EQ(status, 0);
    EQ(p[0], 'c');
    FAILS(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    OK(munmap(p, PG));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
}
TEST(big_sparse_reservation) {
    char *p = mmap(NULL, 64ULL << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(p != MAP_FAILED);
    OK(mprotect(p + (10ULL << 30), 1 << 20, RW));
    p[(10ULL << 30) + 5] = 1;
    EQ(faults(p, 0), SIGSEGV);
    OK(munmap(p, 64ULL << 30));
}
TEST(touch_64m) {
    size_t n = 64 << 20;
    char *p = anon(n, RW);
    for (size_t i = 0; i < n; i += PG) p[i] = i >> 12;
    for (size_t i = 0; i < n; i += PG) EQ(p[i], (char)(i >> 12));
    OK(munmap(p, n));
}
TEST(many_mappings) {
    static char *p[2000];
    for (int i = 0; i < 2000; i++) {
        p[i] = anon(2 * PG, i & 1 ? RW : PROT_READ);
        if (i & 1) p[i][0] = i;
    }
    for (int i = 1; i < 2000; i += 2) EQ(p[i][0], (char)i);
    for (int i = 0; i < 2000; i++) OK(munmap(p[i], 2 * PG));
}
static void *toucher(void *a) {
    volatile char *p = a;
    for (int r = 0; r < 20; r++)
        for (int i = 0; i < 64; i++) p[i * PG] += 1;
    return NULL;
}
TEST(threads_touch_and_map) {
    char *p = anon(64 * PG, RW);
    pthread_t t[4];
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, toucher, p + i);
    for (int i = 0; i < 300; i++) {
        char *q = anon(4 * PG, RW);
        q[0] = q[3 * PG] = 1;
        OK(munmap(q, 4 * PG));
    }
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < 4; i++) EQ(p[i], 20);
}
TEST(fork_with_threads_running) {
    char *p = anon(64 * PG, RW);
    pthread_t t[2];
    for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, toucher, p + i);
    for (int i = 0; i < 10; i++) {
        pid_t pid = OK(fork());
        if (!pid) {
            p[100] = 1;
            _exit(0);
        }
        EQ(t_wait(pid), 0);
    }
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    EQ(p[0], 20);
    EQ(p[1], 20);
}
TEST(auxv) {
    CHECK(getauxval(AT_RANDOM));
    EQ(getauxval(AT_PAGESZ), PG);
    EQ(getauxval(AT_SECURE), 0);
    EQ(getauxval(AT_UID), getuid());
    CHECK(getauxval(AT_PHDR));
    CHECK(getauxval(AT_EXECFN));
}
TEST(maps_lines) {
    char *p = anon(PG, RW);
    char want[64];
    snprintf(want, sizeof want, "%lx", (long)p);
    (void)want;
    const char *m = t_read_file("/proc/self/maps");
    CHECK(strstr(m, "[stack]"));
    CHECK(strstr(m, "rw-p"));
    CHECK(strstr(m, "r-xp") );
}
TEST(process_vm) {
    char secret[16] = "sesame", got[16] = {0};
    struct iovec l = {got, 7}, r = {secret, 7};
    EQ(process_vm_readv(getpid(), &l, 1, &r, 1, 0), 7);
    STREQ(got, "sesame");
    r.iov_base = (void *)8;
    FAILS(process_vm_readv(getpid(), &l, 1, &r, 1, 0), EFAULT);
    FAILS(process_vm_readv(1 << 22, &l, 1, &r, 1, 0), ESRCH);
}
TEST(rlimit_as) {
    struct rlimit rl = {1 << 30, 1 << 30};
    OK(setrlimit(RLIMIT_AS, &rl));
    FAILS(mmap(NULL, 2UL << 30, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
}
TEST(map_populate) {
    char *p = mmap(NULL, 16 * PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(p != MAP_FAILED);
    unsigned char v[16];
    OK(mincore(p, 16 * PG, v));
    for (int i = 0; i < 16; i++) EQ(v[i] & 1, 1);
}
