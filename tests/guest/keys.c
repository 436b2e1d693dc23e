/* Keys and keyrings (keyrings(7)). */
#include "t.h"
#define FAMILY "keys"

enum { THREAD = -1, PROCESS = -2, SESSION = -3, USER = -4 };
enum { GET_ID, JOIN, UPDATE, REVOKE, CHOWN, SETPERM, DESCRIBE, CLEAR, LINK, UNLINK, SEARCH, READ, TIMEOUT = 15, INVALIDATE = 21, MOVE = 30 };

static long add(const char *type, const char *name, const void *data, size_t len, int ring) {
    return syscall(SYS_add_key, type, name, data, len, ring);
}
static long ctl(int op, long a, long b, long c, long d) { return syscall(SYS_keyctl, op, a, b, c, d); }
static void need(void) {
    if (ctl(GET_ID, PROCESS, 1, 0, 0) < 0) t_skip("no keyrings: %s", strerror(errno));
}

TEST(user_key_reads_back) {
    need();
    char buf[32] = "";
    long key = OK(add("user", "t:one", "payload", 7, PROCESS));
    EQ(ctl(READ, key, (long)buf, sizeof buf, 0), 7);
    CHECK(!memcmp(buf, "payload", 7));
    /* Without room nothing is copied, and the size is told. */
    buf[0] = 'x';
    EQ(ctl(READ, key, (long)buf, 3, 0), 7);
    EQ(buf[0], 'x');
    /* The same name again changes the same key. */
    EQ(add("user", "t:one", "new", 3, PROCESS), key);
    EQ(ctl(READ, key, (long)buf, sizeof buf, 0), 3);
    EQ(ctl(UPDATE, key, (long)"longer", 6, 0), 0);
    EQ(ctl(READ, key, (long)buf, sizeof buf, 0), 6);
}
TEST(describe) {
    need();
    char buf[64], want[64];
    long key = OK(add("user", "t:shown", "x", 1, PROCESS));
    snprintf(want, sizeof want, "user;%d;%d;3f010000;t:shown", getuid(), getgid());
    EQ(ctl(DESCRIBE, key, (long)buf, sizeof buf, 0), (long)strlen(want) + 1);
    STREQ(buf, want);
    EQ(ctl(SETPERM, key, 0x3f3f0000, 0, 0), 0);
    OK(ctl(DESCRIBE, key, (long)buf, sizeof buf, 0));
    CHECK(strstr(buf, ";3f3f0000;"));
    FAILS(ctl(SETPERM, key, 0x40000000, 0, 0), EINVAL);
}
TEST(bad_arguments) {
    need();
    FAILS(add("user", "t:x", "x", 1, 0), EINVAL);
    FAILS(add("user", "t:x", "x", 1, -99), EINVAL);
    FAILS(add("nosuch", "t:x", "x", 1, PROCESS), ENODEV);
    FAILS(add("user", "t:x", NULL, 1, PROCESS), EFAULT);
    FAILS(add("user", "t:x", "", 0, PROCESS), EINVAL);
    FAILS(add("keyring", "t:x", "x", 1, PROCESS), EINVAL);
    FAILS(add(".user", "t:x", "x", 1, PROCESS), EPERM);
    FAILS(add("logon", "nocolon", "x", 1, PROCESS), EINVAL);
    FAILS(ctl(READ, 0x7ffffff0, 0, 0, 0), ENOKEY);
    FAILS(ctl(777, 0, 0, 0, 0), EOPNOTSUPP);
    long key = OK(add("user", "t:x", "x", 1, PROCESS));
    FAILS(ctl(LINK, key, key, 0, 0), ENOTDIR);
}
TEST(logon_is_not_read) {
    need();
    char buf[8];
    long key = OK(add("logon", "t:secret", "x", 1, PROCESS));
    FAILS(ctl(READ, key, (long)buf, sizeof buf, 0), EOPNOTSUPP);
}
TEST(rings_and_search) {
    need();
    long ring = OK(add("keyring", "t:ring", NULL, 0, PROCESS));
    long inner = OK(add("keyring", "t:inner", NULL, 0, ring));
    long key = OK(add("user", "t:deep", "x", 1, inner));
    EQ(ctl(SEARCH, ring, (long)"user", (long)"t:deep", 0), key);
    EQ(syscall(SYS_request_key, "user", "t:deep", NULL, 0), key);
    FAILS(ctl(SEARCH, ring, (long)"user", (long)"t:none", 0), ENOKEY);
    FAILS(syscall(SYS_request_key, "user", "t:none", NULL, 0), ENOKEY);
    FAILS(ctl(LINK, ring, inner, 0, 0), EDEADLK);
    FAILS(ctl(LINK, ring, ring, 0, 0), EDEADLK);
    int list[8];
    EQ(ctl(READ, ring, (long)list, sizeof list, 0), 4);
    EQ(list[0], inner);
    EQ(ctl(LINK, key, ring, 0, 0), 0);
    EQ(ctl(READ, ring, (long)list, sizeof list, 0), 8);
    EQ(ctl(UNLINK, key, ring, 0, 0), 0);
    FAILS(ctl(UNLINK, key, ring, 0, 0), ENOENT);
    EQ(ctl(CLEAR, inner, 0, 0, 0), 0);
    FAILS(ctl(SEARCH, ring, (long)"user", (long)"t:deep", 0), ENOKEY);
    FAILS(ctl(CLEAR, OK(add("user", "t:flat", "x", 1, ring)), 0, 0, 0), ENOTDIR);
}
TEST(moved) {
    need();
    long a = OK(add("keyring", "t:a", NULL, 0, PROCESS)), b = OK(add("keyring", "t:b", NULL, 0, PROCESS));
    long key = OK(add("user", "t:moves", "x", 1, a));
    EQ(ctl(MOVE, key, a, b, 0), 0);
    FAILS(ctl(SEARCH, a, (long)"user", (long)"t:moves", 0), ENOKEY);
    EQ(ctl(SEARCH, b, (long)"user", (long)"t:moves", 0), key);
    FAILS(ctl(MOVE, key, a, b, 0), ENOENT);
}
TEST(revoked_and_expired) {
    need();
    char buf[8];
    long key = OK(add("user", "t:gone", "x", 1, PROCESS));
    EQ(ctl(REVOKE, key, 0, 0, 0), 0);
    FAILS(ctl(READ, key, (long)buf, sizeof buf, 0), EKEYREVOKED);
    FAILS(ctl(SEARCH, PROCESS, (long)"user", (long)"t:gone", 0), EKEYREVOKED);
    FAILS(syscall(SYS_request_key, "user", "t:gone", NULL, 0), ENOKEY);
    key = OK(add("user", "t:old", "x", 1, PROCESS));
    EQ(ctl(TIMEOUT, key, 1, 0, 0), 0);
    EQ(ctl(READ, key, (long)buf, sizeof buf, 0), 1);
    usleep(2100000);
    FAILS(ctl(READ, key, (long)buf, sizeof buf, 0), EKEYEXPIRED);
    key = OK(add("user", "t:out", "x", 1, PROCESS));
    EQ(ctl(INVALIDATE, key, 0, 0, 0), 0);
    FAILS(syscall(SYS_request_key, "user", "t:out", NULL, 0), ENOKEY);
}
TEST(rings_of_a_child) {
    need();
    long thread = OK(ctl(GET_ID, THREAD, 1, 0, 0)), process = OK(ctl(GET_ID, PROCESS, 1, 0, 0));
    CHECK(thread != process);
    long session = OK(ctl(JOIN, 0, 0, 0, 0));
    EQ(ctl(GET_ID, SESSION, 0, 0, 0), session);
    pid_t pid = OK(fork());
    if (!pid) {
        if (ctl(GET_ID, SESSION, 0, 0, 0) != session) _exit(1);
        if (ctl(GET_ID, THREAD, 0, 0, 0) != -1 || errno != ENOKEY) _exit(2);
        if (ctl(GET_ID, PROCESS, 0, 0, 0) != -1 || errno != ENOKEY) _exit(3);
        if (ctl(GET_ID, PROCESS, 1, 0, 0) == process) _exit(4);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
TEST(others_are_kept_out) {
    need();
    if (geteuid()) t_skip("not root");
    long key = OK(add("user", "t:mine", "x", 1, PROCESS));
    pid_t pid = OK(fork());
    if (!pid) {
        char buf[8];
        if (setresgid(12345, 12345, 12345) || setresuid(12345, 12345, 12345)) _exit(9);
        if (ctl(READ, key, (long)buf, sizeof buf, 0) != -1 || errno != EACCES) _exit(1);
        if (ctl(DESCRIBE, key, (long)buf, sizeof buf, 0) != -1 || errno != EACCES) _exit(2);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
