#include "t.h"
#include <pty.h>
#include <termios.h>
#include <utmp.h>
#define FAMILY "tty"

static int master, slave;
static char name[64];
static void open_pair(void) {
    master = OK(posix_openpt(O_RDWR | O_NOCTTY));
    OK(grantpt(master));
    OK(unlockpt(master));
    EQ(ptsname_r(master, name, sizeof name), 0);
    slave = OK(open(name, O_RDWR | O_NOCTTY));
}
static void raw(void) {
    struct termios t;
    OK(tcgetattr(slave, &t));
    cfmakeraw(&t);
    OK(tcsetattr(slave, TCSANOW, &t));
}
static const char *reads(int fd) {
    static char b[512];
    ssize_t n = OK(read(fd, b, sizeof b - 1));
    b[n] = 0;
    return b;
}
TEST(pair_names) {
    open_pair();
    CHECK(!strncmp(name, "/dev/pts/", 9));
    CHECK(isatty(slave) && isatty(master));
    char b[64];
    EQ(ttyname_r(slave, b, sizeof b), 0);
    STREQ(b, name);
    struct stat st;
    OK(fstat(slave, &st));
    CHECK(S_ISCHR(st.st_mode));
}
TEST(locked_until_unlockpt) {
    int m = OK(posix_openpt(O_RDWR | O_NOCTTY)), n = -1;
    OK(ioctl(m, TIOCGPTN, &n));
    char path[64];
    snprintf(path, sizeof path, "/dev/pts/%d", n);
    FAILS(open(path, O_RDWR | O_NOCTTY), EIO);
    int lock = 0;
    OK(ioctl(m, TIOCSPTLCK, &lock));
    close(OK(open(path, O_RDWR | O_NOCTTY)));
}
TEST(canonical_line) {
    open_pair();
    EQ(write(master, "hel", 3), 3);
    int n;
    OK(ioctl(slave, FIONREAD, &n));
    EQ(n, 0);
    EQ(write(master, "lo\nnext\n", 8), 8);
    STREQ(reads(slave), "hello\n");
    STREQ(reads(slave), "next\n");
}
TEST(echo_and_crlf) {
    open_pair();
    EQ(write(master, "ab\n", 3), 3);
    STREQ(reads(master), "ab\r\n");
    EQ(write(slave, "out\n", 4), 4);
    STREQ(reads(master), "out\r\n");
}
TEST(no_echo) {
    open_pair();
    struct termios t;
    OK(tcgetattr(slave, &t));
    t.c_lflag &= ~ECHO;
    OK(tcsetattr(slave, TCSANOW, &t));
    EQ(write(master, "secret\n", 7), 7);
    STREQ(reads(slave), "secret\n");
    struct pollfd p = {master, POLLIN, 0};
    EQ(poll(&p, 1, 20), 0);
}
TEST(erase_and_kill) {
    open_pair();
    EQ(write(master, "abc\177d\n", 6), 6);
    STREQ(reads(slave), "abd\n");
    EQ(write(master, "junk\025good\n", 10), 10);
    STREQ(reads(slave), "good\n");
    EQ(write(master, "one two\027three\n", 14), 14);
    STREQ(reads(slave), "one three\n");
}
TEST(eof_char) {
    open_pair();
    EQ(write(master, "part\004", 5), 5);
    STREQ(reads(slave), "part");
    EQ(write(master, "\004", 1), 1);
    char c;
    EQ(read(slave, &c, 1), 0);
}
TEST(icrnl) {
    open_pair();
    EQ(write(master, "x\r", 2), 2);
    STREQ(reads(slave), "x\n");
}
TEST(raw_mode) {
    open_pair();
    raw();
    EQ(write(master, "a\003\r", 3), 3);
    STREQ(reads(slave), "a\003\r");
    EQ(write(slave, "x\n", 2), 2);
    STREQ(reads(master), "x\n");
}
TEST(vmin_vtime) {
    open_pair();
    raw();
    struct termios t;
    OK(tcgetattr(slave, &t));
    t.c_cc[VMIN] = 0;
    t.c_cc[VTIME] = 1;
    OK(tcsetattr(slave, TCSANOW, &t));
    long long start = t_ms();
    char c;
    EQ(read(slave, &c, 1), 0);
    CHECK(t_ms() - start >= 90);
    t.c_cc[VMIN] = 3;
    t.c_cc[VTIME] = 0;
    OK(tcsetattr(slave, TCSANOW, &t));
    EQ(write(master, "abcd", 4), 4);
    CHECK(strlen(reads(slave)) >= 3);
}
TEST(window_size) {
    open_pair();
    struct winsize w = {33, 99, 0, 0}, g;
    OK(ioctl(master, TIOCSWINSZ, &w));
    OK(ioctl(slave, TIOCGWINSZ, &g));
    EQ(g.ws_row, 33);
    EQ(g.ws_col, 99);
}
TEST(termios_read_back) {
    open_pair();
    struct termios t, g;
    OK(tcgetattr(slave, &t));
    t.c_cc[VINTR] = 'q';
    t.c_lflag &= ~ECHOE;
    OK(tcsetattr(slave, TCSADRAIN, &t));
    OK(tcgetattr(master, &g));
    EQ(g.c_cc[VINTR], 'q');
    EQ(g.c_lflag & ECHOE, 0);
}
TEST(flush_drops_input) {
    open_pair();
    EQ(write(master, "gone\n", 5), 5);
    OK(tcflush(slave, TCIFLUSH));
    EQ(write(master, "kept\n", 5), 5);
    STREQ(reads(slave), "kept\n");
}
TEST(hangup_by_master_close) {
    open_pair();
    close(master);
    char c;
    EQ(read(slave, &c, 1), 0);
    FAILS(write(slave, "x", 1), EIO);
    struct pollfd p = {slave, POLLIN, 0};
    EQ(poll(&p, 1, 0), 1);
    CHECK(p.revents & POLLHUP);
}
TEST(slave_close_is_eio) {
    open_pair();
    close(slave);
    char c;
    FAILS(read(master, &c, 1), EIO);
    slave = OK(open(name, O_RDWR | O_NOCTTY));
    EQ(write(slave, "z", 1), 1);
    STREQ(reads(master), "z");
}
TEST(not_a_tty) {
    struct termios t;
    int p[2];
    OK(pipe(p));
    FAILS(tcgetattr(p[0], &t), ENOTTY);
    int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    FAILS(tcgetattr(fd, &t), ENOTTY);
    CHECK(!isatty(fd));
}
static void session(void *arg) {
    (void)arg;
    OK(setsid());
    int fd = OK(open(name, O_RDWR));
    EQ(tcgetpgrp(fd), getpid());
    EQ(tcgetsid(fd), getpid());
    close(OK(open("/dev/tty", O_RDWR)));
    for (;;) pause();
}
TEST(ctrl_c_kills_foreground) {
    open_pair();
    pid_t pid = OK(fork());
    if (!pid) session(NULL);
    /* The child has the terminal once its group is in the foreground. */
    long long end = t_ms() + 5000;
    pid_t fg = 0;
    while (fg != pid && t_ms() < end) {
        if (ioctl(master, TIOCGPGRP, &fg)) fg = 0;
        sched_yield();
    }
    EQ(fg, pid);
    EQ(write(master, "\003", 1), 1);
    EQ(WTERMSIG(t_wait(pid)), SIGINT);
}
TEST(no_controlling_terminal) {
    pid_t pid = OK(fork());
    if (!pid) {
        OK(setsid());
        FAILS(open("/dev/tty", O_RDWR), ENXIO);
        _exit(0);
    }
    EQ(t_wait(pid), 0);
}
static void background(void *arg) {
    (void)arg;
    OK(setsid());
    int fd = OK(open(name, O_RDWR));
    pid_t pid = OK(fork());
    if (!pid) {
        setpgid(0, 0);
        char c;
        if (read(fd, &c, 1) < 0) _exit(2);
        _exit(3);
    }
    setpgid(pid, pid);
    int s;
    EQ(waitpid(pid, &s, WUNTRACED), pid);
    CHECK(WIFSTOPPED(s));
    EQ(WSTOPSIG(s), SIGTTIN);
    OK(tcsetpgrp(fd, pid));
    OK(kill(pid, SIGCONT));
    EQ(write(master, "x\n", 2), 2);
    EQ(waitpid(pid, &s, 0), pid);
    EQ(WEXITSTATUS(s), 3);
    _exit(0);
}
TEST(background_read_stops) {
    open_pair();
    EQ(t_child(background, NULL), 0);
}
static volatile sig_atomic_t winch;
static void on_winch(int s) { (void)s; winch = 1; }
static void resized(void *arg) {
    (void)arg;
    OK(setsid());
    OK(open(name, O_RDWR));
    signal(SIGWINCH, on_winch);
    struct winsize w = {10, 20, 0, 0};
    OK(ioctl(master, TIOCSWINSZ, &w));
    long long end = t_ms() + 5000;
    while (!winch && t_ms() < end) sched_yield();
    _exit(winch ? 0 : 1);
}
TEST(sigwinch) {
    open_pair();
    EQ(t_child(resized, NULL), 0);
}
TEST(packet_mode) {
    open_pair();
    int on = 1;
    OK(ioctl(master, TIOCPKT, &on));
    EQ(write(slave, "data", 4), 4);
    char b[16];
    EQ(read(master, b, 16), 5);
    EQ(b[0], 0);
}
