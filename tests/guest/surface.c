/* Calls at the edge of what programs use: memory policies, Landlock, prctl about memory, file capabilities,
 * and what is refused to all but the administrator of a machine. */
#define FAMILY "surface"
#include "t.h"
#include <linux/landlock.h>
#include <linux/mempolicy.h>
#include <netinet/in.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/xattr.h>

#define PG 4096UL
#define RW (PROT_READ | PROT_WRITE)
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static char *fresh(size_t pages) {
    char *p = mmap(NULL, pages * PG, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}
static long policy_of(void *addr, unsigned long *nodes) {
    int mode = -1;
    OK(syscall(SYS_get_mempolicy, &mode, nodes, nodes ? 64UL * 16 + 1 : 0UL, addr, addr ? MPOL_F_ADDR : 0));
    return mode;
}
#define NEEDS_NUMA() if (syscall(SYS_get_mempolicy, NULL, NULL, 0, NULL, 0) && errno == ENOSYS) t_skip("no NUMA")

TEST(policies_of_a_thread) {
    NEEDS_NUMA();
    unsigned long one[17] = {1}, none[17] = {0}, far[17] = {0}, got[17];
    far[0] = 1UL << 40;
    EQ(policy_of(NULL, NULL), MPOL_DEFAULT);
    EQ(syscall(SYS_set_mempolicy, MPOL_BIND, one, 64), 0);
    EQ(policy_of(NULL, got), MPOL_BIND);
    EQ(got[0], 1);
    EQ(syscall(SYS_set_mempolicy, MPOL_PREFERRED, NULL, 0), 0);
    EQ(policy_of(NULL, got), MPOL_LOCAL);
    EQ(got[0], 0);
    FAILS(syscall(SYS_set_mempolicy, MPOL_BIND, none, 64), EINVAL);
    FAILS(syscall(SYS_set_mempolicy, MPOL_BIND, NULL, 0), EINVAL);
    FAILS(syscall(SYS_set_mempolicy, MPOL_DEFAULT, one, 64), EINVAL);
    FAILS(syscall(SYS_set_mempolicy, 77, one, 64), EINVAL);
    FAILS(syscall(SYS_set_mempolicy, MPOL_BIND, (void *)8, 64), EFAULT);
    FAILS(syscall(SYS_set_mempolicy, MPOL_BIND | MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES, one, 64), EINVAL);
    FAILS(syscall(SYS_set_mempolicy, MPOL_BIND, one, 4096 * 8 + 2), EINVAL);
    EQ(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, one, 64), 0);
    int node = -1;
    OK(syscall(SYS_get_mempolicy, &node, NULL, 0, NULL, MPOL_F_NODE));
    EQ(node, 0);
    pid_t pid = OK(fork());
    if (!pid) _exit(policy_of(NULL, NULL) == MPOL_INTERLEAVE ? 0 : 1);
    EQ(t_wait(pid), 0);
    EQ(syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0), 0);
    FAILS(syscall(SYS_get_mempolicy, &node, NULL, 0, NULL, MPOL_F_NODE), EINVAL);
    FAILS(syscall(SYS_get_mempolicy, &node, NULL, 0, &node, 0), EINVAL);
    FAILS(syscall(SYS_get_mempolicy, &node, NULL, 0, NULL, 64), EINVAL);
    OK(syscall(SYS_get_mempolicy, NULL, got, 64 * 16 + 1, NULL, MPOL_F_MEMS_ALLOWED));
    EQ(got[0] & 1, 1);
}
TEST(policies_of_memory) {
    NEEDS_NUMA();
    char *p = fresh(4);
    unsigned long one[17] = {1}, got[17];
    EQ(syscall(SYS_mbind, p + PG, 2 * PG, MPOL_BIND, one, 64, 0), 0);
    EQ(policy_of(p, NULL), MPOL_DEFAULT);
    EQ(policy_of(p + PG, got), MPOL_BIND);
    EQ(got[0], 1);
    EQ(policy_of(p + 3 * PG, NULL), MPOL_DEFAULT);
    FAILS(syscall(SYS_mbind, p + 1, PG, MPOL_BIND, one, 64, 0), EINVAL);
    FAILS(syscall(SYS_mbind, p, PG, MPOL_BIND, one, 64, 1 << 5), EINVAL);
    EQ(syscall(SYS_mbind, p, 0, MPOL_BIND, one, 64, 0), 0);
    OK(munmap(p + 3 * PG, PG));
    FAILS(syscall(SYS_mbind, p, 4 * PG, MPOL_BIND, one, 64, 0), EFAULT);
    int mode;
    FAILS(syscall(SYS_get_mempolicy, &mode, NULL, 0, p + 3 * PG, MPOL_F_ADDR), EFAULT);
    p[0] = 1;
    OK(syscall(SYS_get_mempolicy, &mode, NULL, 0, p, MPOL_F_ADDR | MPOL_F_NODE));
    EQ(mode, 0);
}
TEST(where_pages_are) {
    NEEDS_NUMA();
    char *p = fresh(3);
    p[0] = p[PG] = 1;
    void *pages[3] = {p, p + PG, (void *)PG};
    int status[3] = {77, 77, 77}, nodes[3] = {0, 0, 0}, wrong[3] = {0, 999, 0};
    EQ(syscall(SYS_move_pages, 0, 3, pages, NULL, status, 0), 0);
    EQ(status[0], 0);
    EQ(status[1], 0);
    EQ(status[2], -EFAULT);
    EQ(syscall(SYS_move_pages, 0, 2, pages, nodes, status, 2), 0);
    FAILS(syscall(SYS_move_pages, 0, 2, pages, wrong, status, 2), ENODEV);
    FAILS(syscall(SYS_move_pages, 0, 2, pages, nodes, status, 64), EINVAL);
    FAILS(syscall(SYS_move_pages, 1 << 22, 2, pages, nodes, status, 2), ESRCH);
    FAILS(syscall(SYS_move_pages, 0, 2, (void *)8, nodes, status, 2), EFAULT);
}
TEST(names_of_memory) {
    char *p = fresh(2);
    if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, PG, "my memory") && errno == EINVAL) t_skip("not built in");
    CHECK(strstr(t_read_file("/proc/self/maps"), "[anon:my memory]"));
    FAILS(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, PG, "bad [name]"), EINVAL);
    FAILS(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p + 1, PG, "x"), EINVAL);
    FAILS(prctl(PR_SET_VMA, 9, p, PG, "x"), EINVAL);
    OK(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, PG, NULL));
    CHECK(!strstr(t_read_file("/proc/self/maps"), "[anon:my memory]"));
}
TEST(no_gain_of_execution) {
    EQ(prctl(PR_GET_MDWE, 0, 0, 0, 0), 0);
    FAILS(prctl(PR_SET_MDWE, 2, 0, 0, 0), EINVAL);
    FAILS(prctl(PR_SET_MDWE, 1, 1, 0, 0), EINVAL);
    FAILS(prctl(PR_GET_MDWE, 1, 0, 0, 0), EINVAL);
    char *p = fresh(2);
    OK(prctl(PR_SET_MDWE, 1, 0, 0, 0));
    EQ(prctl(PR_GET_MDWE, 0, 0, 0, 0), 1);
    FAILS(prctl(PR_SET_MDWE, 0, 0, 0, 0), EPERM);
    FAILS(mprotect(p, PG, PROT_READ | PROT_EXEC), EACCES);
    FAILS(mmap(NULL, PG, RW | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EACCES);
    char *x = mmap(NULL, PG, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(x != MAP_FAILED);
    OK(mprotect(x, PG, PROT_READ | PROT_EXEC));
    OK(mprotect(x, PG, PROT_READ));
    FAILS(mprotect(x, PG, PROT_READ | PROT_EXEC), EACCES);
    pid_t pid = OK(fork());
    if (!pid) _exit(prctl(PR_GET_MDWE, 0, 0, 0, 0));
    EQ(t_wait(pid), 1 << 8);
}
TEST(title_by_prctl) {
    char *args = fresh(1);
    strcpy(args, "other title");
    unsigned size = 0;
    OK(prctl(PR_SET_MM, 15 /* PR_SET_MM_MAP_SIZE */, &size, 0, 0));
    EQ(size, 104);
    if (prctl(PR_SET_MM, 77, args, 0, 0) && errno == EPERM) t_skip("no CAP_SYS_RESOURCE");
    if (prctl(PR_SET_MM, PR_SET_MM_ARG_START, args, 0, 0)) {
        /* Argument end lies before the new start until it is moved too. */
        OK(prctl(PR_SET_MM, PR_SET_MM_ARG_END, args + 12, 0, 0));
        OK(prctl(PR_SET_MM, PR_SET_MM_ARG_START, args, 0, 0));
    } else {
        OK(prctl(PR_SET_MM, PR_SET_MM_ARG_END, args + 12, 0, 0));
    }
    STREQ(t_read_file("/proc/self/cmdline"), "other title");
    FAILS(prctl(PR_SET_MM, PR_SET_MM_ARG_START, 16, 0, 0), EINVAL);
    FAILS(prctl(PR_SET_MM, PR_SET_MM_ARG_START, args, 1, 0), EINVAL);
    FAILS(prctl(PR_SET_MM, 77, args, 0, 0), EINVAL);
}
TEST(event_counter_overflow) {
    int fd = OK((int)syscall(SYS_eventfd2, 0, O_NONBLOCK));
    uint64_t most = UINT64_MAX - 1, all = UINT64_MAX, one = 1;
    EQ(write(fd, &most, 8), 8);
    FAILS(write(fd, &all, 8), EINVAL);
    FAILS(write(fd, &one, 8), EAGAIN);
}
static void *drain_later(void *fd) {
    uint64_t got;
    usleep(50000);
    return (void *)(intptr_t)(read(*(int *)fd, &got, 8) == 8 && got == 10 ? 0 : 1);
}
TEST(event_counter_waits_for_room) {
    int fd = OK((int)syscall(SYS_eventfd2, 10, 0));
    uint64_t most = UINT64_MAX - 1, got;
    pthread_t t;
    pthread_create(&t, NULL, drain_later, &fd);
    EQ(write(fd, &most, 8), 8);
    EQ(read(fd, &got, 8), 8);
    CHECK(got == most);
    void *bad;
    pthread_join(t, &bad);
    EQ((intptr_t)bad, 0);
}
TEST(pagemap_words) {
    char *p = fresh(4);
    p[PG] = 1;
    int fd = OK(open("/proc/self/pagemap", O_RDONLY));
    uint64_t word[4];
    EQ(pread(fd, word, sizeof word, (uintptr_t)p / PG * 8), sizeof word);
    CHECK(word[1] >> 63);
    FAILS(pread(fd, word, 7, (uintptr_t)p / PG * 8), EINVAL);
    FAILS(pread(fd, word, 8, (uintptr_t)p / PG * 8 + 1), EINVAL);
    close(fd);
    fd = OK(open("/proc/self/clear_refs", O_WRONLY));
    EQ(write(fd, "1", 1), 1);
    FAILS(write(fd, "9", 1), EINVAL);
}
TEST(io_counts) {
    char before[4096], buf[1000];
    strcpy(before, t_read_file("/proc/self/io"));
    int fd = OK(open("/dev/zero", O_RDONLY));
    for (int i = 0; i < 3; i++) EQ(read(fd, buf, 1000), 1000);
    long old = 0, now = 0;
    EQ(sscanf(strstr(before, "rchar:"), "rchar: %ld", &old), 1);
    EQ(sscanf(strstr(t_read_file("/proc/self/io"), "rchar:"), "rchar: %ld", &now), 1);
    CHECK(now >= old + 3000);
}
TEST(types_of_file_systems) {
    long count = syscall(SYS_sysfs, 3);
    if (count < 0 && errno == ENOSYS) t_skip("not built in");
    CHECK(count > 3);
    char name[64] = "";
    OK(syscall(SYS_sysfs, 2, 0, name));
    EQ(syscall(SYS_sysfs, 1, name), 0);
    FAILS(syscall(SYS_sysfs, 1, "no such type"), EINVAL);
    FAILS(syscall(SYS_sysfs, 2, 100000, name), EINVAL);
    FAILS(syscall(SYS_sysfs, 9), EINVAL);
    FAILS(syscall(SYS_sysfs, 1, (char *)8), EFAULT);
}
TEST(old_statistics) {
    struct stat st;
    OK(stat("/", &st));
    char buf[64];
    OK(syscall(SYS_ustat, (unsigned)((st.st_dev & 0xff) | (st.st_dev & 0xfff00)), buf));
    FAILS(syscall(SYS_ustat, 0x7ffff, buf), EINVAL);
}
static void refused(void *arg) {
    (void)arg;
    OK(setresuid(1000, 1000, 1000));
    FAILS(syscall(SYS_swapon, "/", 0), EPERM);
    FAILS(syscall(SYS_swapoff, "/"), EPERM);
    FAILS(syscall(SYS_acct, "/"), EPERM);
    /* Kernels are built without these. */
    struct { long call, a, b, c, want; } may[] = {
        {SYS_iopl, 3, 0, 0, EPERM},
        {SYS_iopl, 4, 0, 0, EINVAL},
        {SYS_ioperm, 0x80, 1, 1, EPERM},
        {SYS_ioperm, 65536, 1, 1, EINVAL},
        {SYS_init_module, 0, 0, 0, EPERM},
        {SYS_delete_module, 0, 0, 0, EPERM},
        {SYS_kexec_load, 0, 0, 0, EPERM},
    };
    for (size_t i = 0; i < sizeof may / sizeof *may; i++) {
        EQ(syscall(may[i].call, may[i].a, may[i].b, may[i].c, 0), -1);
        syscall(may[i].call, may[i].a, may[i].b, may[i].c, 0);
        int got = errno;
        if (got != ENOSYS) EQ(got, may[i].want);
    }
    FAILS(syscall(SYS_vhangup), EPERM);
    FAILS(syscall(SYS_sethostname, "x", 1), EPERM);
    _exit(0);
}
TEST(refused_to_users) { EQ(t_child(refused, NULL), 0); }
TEST(quotas_of_nothing) {
    errno = 0;
    long r = syscall(SYS_quotactl, (0x800001 << 8), NULL, 0, NULL);
    if (r < 0 && errno == ENOSYS) t_skip("not built in");
    EQ(r, 0);
    FAILS(syscall(SYS_quotactl, (0x800007 << 8) | 9, "/", 0, NULL), EINVAL);
    FAILS(syscall(SYS_quotactl, (0x800007 << 8), "/no/such", 0, NULL), ENOENT);
    FAILS(syscall(SYS_quotactl, (0x800007 << 8), "/", 0, NULL), ENOTBLK);
}
TEST(shadow_stacks) {
    errno = 0;
    syscall(453, 0, PG, 0);
    if (errno == ENOSYS) t_skip("not built in");
    FAILS(syscall(453, 0, PG, 0), EOPNOTSUPP);
}
TEST(security_modules) {
    uint64_t ids[16];
    uint32_t size = sizeof ids, small = 4;
    long n = syscall(461, ids, &size, 0);
    if (n < 0 && errno == ENOSYS) t_skip("not built in");
    CHECK(n >= 1);
    EQ(size, n * 8);
    FAILS(syscall(461, ids, &size, 1), EINVAL);
    FAILS(syscall(461, ids, &small, 0), E2BIG);
    FAILS(syscall(459, 0, NULL, &size, 0), EINVAL);
    FAILS(syscall(459, 100, NULL, NULL, 0), EINVAL);
}
TEST(cache_statistics) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    char buf[4 * PG];
    memset(buf, 1, sizeof buf);
    EQ(write(fd, buf, sizeof buf), (long)sizeof buf);
    struct { uint64_t off, len; } range = {0, 2 * PG};
    uint64_t out[5];
    if (syscall(451, fd, &range, out, 0) && errno == ENOSYS) t_skip("not built in");
    EQ(out[0] + out[3], 2);
    range.len = 0;
    OK(syscall(451, fd, &range, out, 0));
    EQ(out[0] + out[3], 4);
    FAILS(syscall(451, fd, &range, out, 1), EINVAL);
    FAILS(syscall(451, 999, &range, out, 0), EBADF);
    FAILS(syscall(451, fd, (void *)8, out, 0), EFAULT);
}

/* Landlock. */
static int ll_create(const void *attr, size_t size, unsigned flags) {
    return (int)syscall(SYS_landlock_create_ruleset, attr, size, flags);
}
#define NEEDS_LANDLOCK() if (ll_create(NULL, 0, 1) < 0) t_skip("no landlock")
static int ll_rules(uint64_t handled) {
    struct { uint64_t fs; } attr = {handled};
    return OK(ll_create(&attr, sizeof attr, 0));
}
static void ll_allow(int rules, const char *path, uint64_t access) {
    struct landlock_path_beneath_attr rule = {access, OK(open(path, O_PATH | O_CLOEXEC))};
    OK((int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
    close(rule.parent_fd);
}
static void ll_enter(int rules) {
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK((int)syscall(SYS_landlock_restrict_self, rules, 0));
}
TEST(landlock_arguments) {
    NEEDS_LANDLOCK();
    uint64_t attr[4] = {1, 0, 0, 0}, none[2] = {0, 0}, odd[2] = {1UL << 60, 0};
    FAILS(ll_create(attr, 7, 0), EINVAL);
    FAILS(ll_create(attr, 5000, 0), E2BIG);
    FAILS(ll_create(NULL, 8, 0), EFAULT);
    FAILS(ll_create(none, 8, 0), ENOMSG);
    FAILS(ll_create(odd, 8, 0), EINVAL);
    FAILS(ll_create(attr, 8, 2 << 8), EINVAL);
    FAILS(ll_create(attr, 8, 1), EINVAL);
    int rules = ll_rules(LANDLOCK_ACCESS_FS_READ_FILE);
    struct landlock_path_beneath_attr rule = {LANDLOCK_ACCESS_FS_READ_FILE, OK(open("/", O_PATH))};
    FAILS(syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 1), EINVAL);
    FAILS(syscall(SYS_landlock_add_rule, rules, 99, &rule, 0), EINVAL);
    FAILS(syscall(SYS_landlock_add_rule, 999, LANDLOCK_RULE_PATH_BENEATH, &rule, 0), EBADF);
    FAILS(syscall(SYS_landlock_add_rule, rule.parent_fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0), EBADF);
    rule.allowed_access = 0;
    FAILS(syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0), ENOMSG);
    rule.allowed_access = LANDLOCK_ACCESS_FS_WRITE_FILE;
    FAILS(syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0), EINVAL);
    rule.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE;
    rule.parent_fd = rules;
    FAILS(syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0), EBADFD);
    FAILS(syscall(SYS_landlock_restrict_self, rules, 1 << 9), EINVAL);
}
TEST(landlock_reads) {
    NEEDS_LANDLOCK();
    OK(mkdir("in", 0755));
    OK(mkdir("out", 0755));
    t_write_file("in/f", "x");
    t_write_file("out/f", "x");
    int rules = ll_rules(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_DIR);
    ll_allow(rules, "in", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR);
    int early = OK(open("out/f", O_RDONLY));
    ll_enter(rules);
    OK(open("in/f", O_RDONLY));
    FAILS(open("in/f", O_RDWR), EACCES);
    FAILS(open("out/f", O_RDONLY), EACCES);
    FAILS(open("out", O_RDONLY | O_DIRECTORY), EACCES);
    OK(open("out", O_PATH));
    OK(open("in", O_RDONLY | O_DIRECTORY));
    char c;
    EQ(read(early, &c, 1), 1);
    struct stat st;
    OK(stat("out/f", &st));
    OK(mkdir("out/d", 0755));
    FAILS(mount("none", "in", "tmpfs", 0, NULL), EPERM);
    pid_t pid = OK(fork());
    if (!pid) _exit(open("out/f", O_RDONLY) == -1 && errno == EACCES ? 0 : 1);
    EQ(t_wait(pid), 0);
}
TEST(landlock_names) {
    NEEDS_LANDLOCK();
    OK(mkdir("in", 0755));
    OK(mkdir("out", 0755));
    t_write_file("out/f", "x");
    t_write_file("in/g", "x");
    uint64_t all = LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                   LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_SYM;
    int rules = ll_rules(all);
    ll_allow(rules, "in", all);
    ll_enter(rules);
    OK(mkdir("in/d", 0755));
    OK(rmdir("in/d"));
    OK(symlink("x", "in/l"));
    OK(rename("in/l", "in/m"));
    OK(unlink("in/m"));
    FAILS(mkdir("out/d", 0755), EACCES);
    FAILS(open("out/n", O_CREAT | O_WRONLY, 0644), EACCES);
    FAILS(unlink("out/f"), EACCES);
    FAILS(symlink("x", "out/l"), EACCES);
    FAILS(rename("out/f", "out/g"), EACCES);
    OK(open("out/f", O_RDWR));
    OK(mkdir("in/e", 0755));
    FAILS(rename("in/g", "in/e/g"), EXDEV);
    FAILS(link("in/g", "in/e/g"), EXDEV);
    FAILS(rename("in/g", "out/g"), EACCES);
}
TEST(landlock_truncate) {
    if (ll_create(NULL, 0, 1) < 3) t_skip("landlock ABI");
    t_write_file("f", "text");
    int free_fd = OK(open("f", O_RDWR));
    int rules = ll_rules(1UL << 14);
    ll_enter(rules);
    FAILS(truncate("f", 1), EACCES);
    FAILS(open("f", O_WRONLY | O_TRUNC), EACCES);
    int fd = OK(open("f", O_WRONLY));
    FAILS(ftruncate(fd, 1), EACCES);
    OK(ftruncate(free_fd, 1));
}
TEST(landlock_ports) {
    if (ll_create(NULL, 0, 1) < 4) t_skip("landlock ABI");
    uint64_t attr[2] = {0, 3};
    int rules = ll_create(attr, sizeof attr, 0);
    CHECK(rules >= 0);
    uint64_t port[2] = {1, 30123}, wild[2] = {1, 70000};
    OK((int)syscall(SYS_landlock_add_rule, rules, 2, port, 0));
    FAILS(syscall(SYS_landlock_add_rule, rules, 2, wild, 0), EINVAL);
    ll_enter(rules);
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(30124), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    FAILS(bind(s, (void *)&a, sizeof a), EACCES);
    FAILS(connect(s, (void *)&a, sizeof a), EACCES);
    a.sin_port = htons(30123);
    OK(bind(s, (void *)&a, sizeof a));
    int u = OK(socket(AF_INET, SOCK_DGRAM, 0));
    a.sin_port = htons(30125);
    OK(bind(u, (void *)&a, sizeof a));
}
TEST(landlock_needs_no_new_privs) {
    NEEDS_LANDLOCK();
    int rules = ll_rules(LANDLOCK_ACCESS_FS_EXECUTE);
    OK(setresuid(1000, 1000, 1000));
    FAILS(syscall(SYS_landlock_restrict_self, rules, 0), EPERM);
    ll_enter(rules);
    char *argv[] = {"/proc/self/exe", NULL};
    FAILS(execv("/proc/self/exe", argv), EACCES);
}

/* File capabilities: the case runs itself with an argument that main.c does not know, as an ordinary user. */
static void effective_of_child(void *arg) {
    (void)arg;
    OK(setresgid(1000, 1000, 1000));
    OK(setresuid(1000, 1000, 1000));
    char *argv[] = {"x", "--print-caps", NULL};
    execv("./self", argv);
    _exit(99);
}
TEST(capabilities_of_files) {
    /* Where set-id bits count. */
    OK(mkdir("m", 0755));
    if (mount("none", "m", "tmpfs", 0, "mode=755")) t_skip("mount: %s", strerror(errno));
    OK(chdir("m"));
    int in = OK(open("/proc/self/exe", O_RDONLY)), out = OK(open("self", O_WRONLY | O_CREAT, 0755));
    OK(fchmod(out, 0755));
    OK(chmod(".", 0755));
    struct stat st;
    OK(fstat(in, &st));
    for (off_t left = st.st_size; left > 0;) {
        char buf[65536];
        ssize_t n = OK(read(in, buf, sizeof buf));
        EQ(write(out, buf, n), n);
        left -= n;
    }
    close(out);
    uint32_t caps[5] = {0x02000001, 1 << 13, 0, 0, 0};
    if (setxattr("self", "security.capability", caps, sizeof caps, 0)) t_skip("no such attributes here");
    EQ(t_child(effective_of_child, NULL), 13 << 8);
    caps[0] = 0x02000000;
    OK(setxattr("self", "security.capability", caps, sizeof caps, 0));
    EQ(t_child(effective_of_child, NULL), 77 << 8);
    OK(prctl(PR_CAPBSET_DROP, 13, 0, 0, 0));
    EQ(t_child(effective_of_child, NULL), 0);
    caps[0] = 0x02000001;
    OK(setxattr("self", "security.capability", caps, sizeof caps, 0));
    EQ(t_child(effective_of_child, NULL), 99 << 8);
    OK(chdir(".."));
    OK(umount2("m", MNT_DETACH));
}
TEST(zero_device_is_mapped) {
    int fd = OK(open("/dev/zero", O_RDWR));
    char *s = mmap(NULL, 2 * PG, RW, MAP_SHARED, fd, 0), *p = mmap(NULL, 2 * PG, RW, MAP_PRIVATE, fd, PG);
    CHECK(s != MAP_FAILED && p != MAP_FAILED);
    EQ(s[PG] | p[PG], 0);
    pid_t pid = OK(fork());
    if (!pid) {
        s[PG] = p[PG] = 7;
        _exit(0);
    }
    EQ(t_wait(pid), 0);
    EQ(s[PG], 7);
    EQ(p[PG], 0);
    char *other = mmap(NULL, 2 * PG, RW, MAP_SHARED, fd, 0);
    CHECK(other != MAP_FAILED);
    EQ(other[PG], 0);
    int ro = OK(open("/dev/zero", O_RDONLY));
    char *r = mmap(NULL, PG, PROT_READ, MAP_SHARED, ro, 0);
    CHECK(r != MAP_FAILED);
    EQ(r[0], 0);
    FAILS(mprotect(r, PG, RW), EACCES);
    FAILS(mmap(NULL, PG, RW, MAP_SHARED, ro, 0), EACCES);
    r = mmap(NULL, PG, RW, MAP_PRIVATE, ro, 0);
    CHECK(r != MAP_FAILED);
    r[0] = 1;
}
TEST(locks_are_listed) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), gd = OK(open("g", O_RDWR | O_CREAT, 0600));
    struct flock l = {.l_type = F_WRLCK, .l_start = 3, .l_len = 5};
    OK(fcntl(fd, F_SETLK, &l));
    OK(syscall(SYS_flock, gd, 1 /* LOCK_SH */));
    struct stat st;
    OK(fstat(fd, &st));
    char want[64], all[65536];
    snprintf(want, sizeof want, ":%lu 3 7\n", (unsigned long)st.st_ino);
    int in = OK(open("/proc/locks", O_RDONLY));
    ssize_t n = OK(read(in, all, sizeof all - 1));
    all[n] = 0;
    CHECK(strstr(all, want));
    CHECK(strstr(all, "POSIX  ADVISORY  WRITE "));
    CHECK(strstr(all, "FLOCK  ADVISORY  READ "));
}
TEST(select_sleeps_over_what_no_set_shows) {
    int p[2];
    OK(pipe(p));
    OK(close(p[1]));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(p[0], &set);
    struct timeval tv = {0, 50000};
    EQ(select(p[0] + 1, NULL, NULL, &set, &tv), 0);
    CHECK(!FD_ISSET(p[0], &set));
    FD_SET(p[0], &set);
    tv.tv_usec = 50000;
    EQ(select(p[0] + 1, &set, NULL, NULL, &tv), 1);
    pid_t pid = OK(fork());
    if (!pid) {
        FD_ZERO(&set);
        FD_SET(p[0], &set);
        select(p[0] + 1, NULL, NULL, &set, NULL);
        _exit(1);
    }
    usleep(20000);
    OK(kill(pid, SIGKILL));
    EQ(t_wait(pid), SIGKILL);
}
TEST(proc_has_the_names_it_has) {
    const char *dirs[] = {"/proc", "/proc/self", "/proc/self/task", "/proc/self/fd", "/proc/self/ns"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/nothing", dirs[i]);
        FAILS(mkdir(path, 0755), ENOENT);
        FAILS(open(path, O_CREAT | O_RDWR, 0644), ENOENT);
        FAILS(symlink("a", path), ENOENT);
        FAILS(unlink(path), ENOENT);
    }
}
