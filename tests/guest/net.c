#include "t.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#define FAMILY "net"

TEST(socket_errors) {
    FAILS(socket(999, SOCK_STREAM, 0), EAFNOSUPPORT);
    FAILS(socket(AF_UNIX, 77, 0), EINVAL);
    FAILS(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    int fd = OK(open("/dev/null", O_RDONLY));
    FAILS(listen(fd, 1), ENOTSOCK);
    FAILS(listen(999, 1), EBADF);
}
TEST(socketpair_stream) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
    EQ(write(s[0], "hello", 5), 5);
    char b[16] = {0};
    EQ(recv(s[1], b, 2, MSG_PEEK), 2);
    EQ(read(s[1], b, 16), 5);
    STREQ(b, "hello");
    FAILS(recv(s[1], b, 1, MSG_DONTWAIT), EAGAIN);
    OK(shutdown(s[0], SHUT_WR));
    EQ(read(s[1], b, 1), 0);
    FAILS(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    EQ(write(s[1], "y", 1), 1);
    close(s[0]);
    FAILS(send(s[1], "x", 1, MSG_NOSIGNAL), EPIPE);
}
TEST(socketpair_dgram_boundaries) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    EQ(send(s[0], "abc", 3, 0), 3);
    EQ(send(s[0], "", 0, 0), 0);
    EQ(send(s[0], "defgh", 5, 0), 5);
    char b[4];
    EQ(recv(s[1], b, 4, 0), 3);
    EQ(recv(s[1], b, 4, 0), 0);
    EQ(recv(s[1], b, 2, MSG_TRUNC), 5);
    FAILS(recv(s[1], b, 4, MSG_DONTWAIT), EAGAIN);
}
TEST(seqpacket) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s));
    EQ(send(s[0], "abc", 3, 0), 3);
    EQ(send(s[0], "de", 2, 0), 2);
    char b[8];
    EQ(recv(s[1], b, 8, 0), 3);
    EQ(recv(s[1], b, 8, 0), 2);
    close(s[0]);
    EQ(recv(s[1], b, 8, 0), 0);
}
TEST(unix_path) {
    int l = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un a = {.sun_family = AF_UNIX}, got;
    strcpy(a.sun_path, "sock");
    socklen_t len = sizeof got;
    int c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(connect(c, (void *)&a, sizeof a), ENOENT);
    OK(bind(l, (void *)&a, sizeof a));
    FAILS(connect(c, (void *)&a, sizeof a), ECONNREFUSED);
    OK(listen(l, 5));
    OK(connect(c, (void *)&a, sizeof a));
    int s = OK(accept4(l, NULL, NULL, SOCK_CLOEXEC));
    OK(getpeername(c, (void *)&got, &len));
    STREQ(got.sun_path, "sock");
    struct stat st;
    OK(stat("sock", &st));
    CHECK(S_ISSOCK(st.st_mode));
    FAILS(open("sock", O_RDONLY), ENXIO);
    int d = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(bind(d, (void *)&a, sizeof a), EADDRINUSE);
    struct ucred u;
    len = sizeof u;
    OK(getsockopt(c, SOL_SOCKET, SO_PEERCRED, &u, &len));
    EQ(u.pid, getpid());
    EQ(write(s, "x", 1), 1);
    char b;
    EQ(read(c, &b, 1), 1);
    t_write_file("plain", "");
    strcpy(a.sun_path, "plain");
    FAILS(connect(d, (void *)&a, sizeof a), ECONNREFUSED);
}
TEST(unix_abstract) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path + 1, 100, "t-%d", getpid());
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a.sun_path + 1);
    int l = OK(socket(AF_UNIX, SOCK_STREAM, 0)), c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(bind(l, (void *)&a, len));
    OK(listen(l, 1));
    OK(connect(c, (void *)&a, len));
    close(OK(accept(l, NULL, NULL)));
    close(l);
    int d = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(connect(d, (void *)&a, len), ECONNREFUSED);
}
static void send_fd(int s, int fd) {
    char c[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec io = {"F", 1};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    EQ(sendmsg(s, &m, 0), 1);
}
static int recv_fd(int s) {
    char c[CMSG_SPACE(sizeof(int))], b;
    struct iovec io = {&b, 1};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
    EQ(recvmsg(s, &m, MSG_CMSG_CLOEXEC), 1);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_type == SCM_RIGHTS);
    int fd;
    memcpy(&fd, CMSG_DATA(h), sizeof fd);
    return fd;
}
TEST(scm_rights) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    t_write_file("f", "payload");
    pid_t pid = OK(fork());
    if (!pid) {
        send_fd(s[0], OK(open("f", O_RDONLY)));
        _exit(0);
    }
    int fd = recv_fd(s[1]);
    EQ(t_wait(pid), 0);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    char b[16] = {0};
    EQ(read(fd, b, 16), 7);
    STREQ(b, "payload");
}
static int tcp_listen(struct sockaddr_in *a) {
    int l = OK(socket(AF_INET, SOCK_STREAM, 0)), one = 1;
    OK(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    OK(bind(l, (void *)a, sizeof *a));
    socklen_t len = sizeof *a;
    OK(getsockname(l, (void *)a, &len));
    CHECK(a->sin_port);
    OK(listen(l, 16));
    return l;
}
TEST(tcp_roundtrip) {
    struct sockaddr_in a, peer;
    int l = tcp_listen(&a), c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(c, (void *)&a, sizeof a));
    socklen_t len = sizeof peer;
    int s = OK(accept(l, (void *)&peer, &len));
    EQ(len, sizeof peer);
    EQ(ntohl(peer.sin_addr.s_addr), INADDR_LOOPBACK);
    EQ(write(c, "ping", 4), 4);
    char b[8] = {0};
    EQ(recv(s, b, 4, MSG_WAITALL), 4);
    STREQ(b, "ping");
    OK(shutdown(c, SHUT_WR));
    EQ(read(s, b, 8), 0);
    EQ(write(s, "pong", 4), 4);
    close(s);
    EQ(recv(c, b, 8, MSG_WAITALL), 4);
    EQ(read(c, b, 8), 0);
}
TEST(tcp_refused) {
    struct sockaddr_in a;
    int l = tcp_listen(&a), c = OK(socket(AF_INET, SOCK_STREAM, 0));
    close(l);
    FAILS(connect(c, (void *)&a, sizeof a), ECONNREFUSED);
}
TEST(tcp_nonblock_connect) {
    struct sockaddr_in a;
    int l = tcp_listen(&a), c = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    int r = connect(c, (void *)&a, sizeof a);
    CHECK(r == -1 && errno == EINPROGRESS);
    struct pollfd p = {c, POLLOUT, 0};
    EQ(poll(&p, 1, 1000), 1);
    int e = 1;
    socklen_t len = sizeof e;
    OK(getsockopt(c, SOL_SOCKET, SO_ERROR, &e, &len));
    EQ(e, 0);
    p = (struct pollfd){l, POLLIN, 0};
    EQ(poll(&p, 1, 1000), 1);
    close(OK(accept(l, NULL, NULL)));
    OK(fcntl(l, F_SETFL, O_NONBLOCK));
    FAILS(accept(l, NULL, NULL), EAGAIN);
}
static void *drain(void *a) {
    static char b[65536];
    long n, total = 0;
    while ((n = read(*(int *)a, b, sizeof b)) > 0) total += n;
    return (void *)total;
}
TEST(tcp_bulk) {
    struct sockaddr_in a;
    int l = tcp_listen(&a), c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(c, (void *)&a, sizeof a));
    int s = OK(accept(l, NULL, NULL));
    pthread_t t;
    pthread_create(&t, NULL, drain, &s);
    static char b[100000];
    for (int i = 0; i < 100; i++) EQ(write(c, b, sizeof b), sizeof b);
    close(c);
    void *r;
    pthread_join(t, &r);
    EQ((long)r, 10000000);
}
TEST(tcp_addr_in_use) {
    struct sockaddr_in a;
    tcp_listen(&a);
    int m = OK(socket(AF_INET, SOCK_STREAM, 0));
    FAILS(bind(m, (void *)&a, sizeof a), EADDRINUSE);
    a.sin_addr.s_addr = inet_addr("203.0.113.7");
    a.sin_port = 0;
    FAILS(bind(m, (void *)&a, sizeof a), EADDRNOTAVAIL);
    FAILS(bind(m, (void *)&a, 3), EINVAL);
    char x;
    FAILS(read(m, &x, 1), ENOTCONN);
    FAILS(accept(m, NULL, NULL), EINVAL);
}
TEST(tcp_options) {
    int s = OK(socket(AF_INET, SOCK_STREAM, 0)), v = 1;
    socklen_t len = sizeof v;
    OK(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &v, sizeof v));
    v = 0;
    OK(getsockopt(s, IPPROTO_TCP, TCP_NODELAY, &v, &len));
    EQ(v, 1);
    OK(getsockopt(s, SOL_SOCKET, SO_TYPE, &v, &len));
    EQ(v, SOCK_STREAM);
    OK(getsockopt(s, SOL_SOCKET, SO_DOMAIN, &v, &len));
    EQ(v, AF_INET);
    v = 50000;
    OK(setsockopt(s, SOL_SOCKET, SO_RCVBUF, &v, sizeof v));
    OK(getsockopt(s, SOL_SOCKET, SO_RCVBUF, &v, &len));
    EQ(v, 100000);
    OK(getsockopt(s, SOL_SOCKET, SO_ACCEPTCONN, &v, &len));
    EQ(v, 0);
    FAILS(setsockopt(s, SOL_SOCKET, 9999, &v, sizeof v), ENOPROTOOPT);
    FAILS(setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &v, 1), EINVAL);
    struct timeval tv = {0, 30000};
    OK(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
}
TEST(rcvtimeo) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    struct timeval tv = {0, 30000};
    OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    char b;
    long long t = t_ms();
    FAILS(read(s[0], &b, 1), EAGAIN);
    CHECK(t_ms() - t >= 28);
}
TEST(udp_loopback) {
    int a = OK(socket(AF_INET, SOCK_DGRAM, 0)), b = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in x = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, from;
    OK(bind(a, (void *)&x, sizeof x));
    socklen_t len = sizeof x;
    OK(getsockname(a, (void *)&x, &len));
    EQ(sendto(b, "hi", 2, 0, (void *)&x, sizeof x), 2);
    EQ(sendto(b, "", 0, 0, (void *)&x, sizeof x), 0);
    char buf[8] = {0};
    len = sizeof from;
    EQ(recvfrom(a, buf, 8, 0, (void *)&from, &len), 2);
    EQ(recvfrom(a, buf, 8, 0, NULL, NULL), 0);
    EQ(sendto(a, "yo", 2, 0, (void *)&from, len), 2);
    EQ(recv(b, buf, 8, 0), 2);
    OK(connect(b, (void *)&x, sizeof x));
    EQ(send(b, "z", 1, 0), 1);
    EQ(recv(a, buf, 8, 0), 1);
    FAILS(send(a, "z", 1, 0), EDESTADDRREQ);
}
TEST(udp_refused) {
    int a = OK(socket(AF_INET, SOCK_DGRAM, 0)), b = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in x = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    OK(bind(a, (void *)&x, sizeof x));
    socklen_t len = sizeof x;
    OK(getsockname(a, (void *)&x, &len));
    close(a);
    OK(connect(b, (void *)&x, sizeof x));
    EQ(send(b, "z", 1, 0), 1);
    char c;
    FAILS(recv(b, &c, 1, 0), ECONNREFUSED);
}
TEST(tcp6_loopback) {
    int l = socket(AF_INET6, SOCK_STREAM, 0);
    if (l < 0) t_skip("no IPv6");
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (bind(l, (void *)&a, sizeof a) < 0) t_skip("no ::1 here");
    OK(listen(l, 1));
    socklen_t len = sizeof a;
    OK(getsockname(l, (void *)&a, &len));
    int c = OK(socket(AF_INET6, SOCK_STREAM, 0));
    OK(connect(c, (void *)&a, sizeof a));
    int s = OK(accept(l, NULL, NULL));
    EQ(write(c, "x", 1), 1);
    char b;
    EQ(read(s, &b, 1), 1);
}
TEST(sendmmsg_works) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    struct iovec i0 = {"a", 1}, i1 = {"bc", 2};
    struct mmsghdr m[2] = {{{.msg_iov = &i0, .msg_iovlen = 1}, 0}, {{.msg_iov = &i1, .msg_iovlen = 1}, 0}};
    EQ(sendmmsg(s[0], m, 2, 0), 2);
    EQ(m[1].msg_len, 2);
    char x[4], y[4];
    struct iovec j0 = {x, 4}, j1 = {y, 4};
    struct mmsghdr n[2] = {{{.msg_iov = &j0, .msg_iovlen = 1}, 0}, {{.msg_iov = &j1, .msg_iovlen = 1}, 0}};
    EQ(recvmmsg(s[1], n, 2, 0, NULL), 2);
    EQ(n[1].msg_len, 2);
}
TEST(socket_poll) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    struct pollfd p = {s[0], POLLIN | POLLOUT | POLLRDHUP, 0};
    EQ(poll(&p, 1, 0), 1);
    EQ(p.revents, POLLOUT);
    EQ(write(s[1], "x", 1), 1);
    EQ(poll(&p, 1, 0), 1);
    EQ(p.revents, POLLIN | POLLOUT);
    close(s[1]);
    EQ(poll(&p, 1, 0), 1);
    EQ(p.revents, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
}
TEST(fork_server) {
    struct sockaddr_in a;
    int l = tcp_listen(&a);
    pid_t pid = OK(fork());
    if (!pid) {
        for (int i = 0; i < 20; i++) {
            int s = OK(accept(l, NULL, NULL));
            char b[8];
            ssize_t n = OK(read(s, b, 8));
            EQ(write(s, b, n), n);
            close(s);
        }
        _exit(0);
    }
    for (int i = 0; i < 20; i++) {
        int c = OK(socket(AF_INET, SOCK_STREAM, 0));
        OK(connect(c, (void *)&a, sizeof a));
        EQ(write(c, "echo", 4), 4);
        char b[8];
        EQ(recv(c, b, 4, MSG_WAITALL), 4);
        close(c);
    }
    EQ(t_wait(pid), 0);
}
TEST(if_loopback) {
    CHECK(if_nametoindex("lo") > 0);
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifreq r = {0};
    strcpy(r.ifr_name, "lo");
    OK(ioctl(s, SIOCGIFFLAGS, &r));
    CHECK(r.ifr_flags & IFF_LOOPBACK);
}
