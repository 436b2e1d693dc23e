/* Inet, packet and diagnostic sockets: states, groups, errors and what is told about packets. */
#include "t.h"
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/epoll.h>
#include <sys/un.h>
#undef FAMILY
#define FAMILY "inet"

static struct sockaddr_in v4(const char *ip, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &a.sin_addr);
    return a;
}
static int listener(struct sockaddr_in *a, int backlog)
{
    socklen_t len = sizeof *a;
    *a = v4("127.0.0.1", 0);
    int l = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(bind(l, (void *)a, sizeof *a));
    OK(listen(l, backlog));
    OK(getsockname(l, (void *)a, &len));
    return l;
}
static void tcp_pair(int s[2])
{
    struct sockaddr_in a;
    int l = listener(&a, 1);
    s[0] = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(s[0], (void *)&a, sizeof a));
    s[1] = OK(accept(l, NULL, NULL));
    close(l);
}
static int udp_at(struct sockaddr_in *a, const char *ip)
{
    socklen_t len = sizeof *a;
    *a = v4(ip, 0);
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(bind(s, (void *)a, sizeof *a));
    OK(getsockname(s, (void *)a, &len));
    return s;
}
static int events_of(int fd)
{
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0};
    OK(poll(&p, 1, 0));
    return p.revents;
}
static int wait_for(int fd, int events)
{
    struct pollfd p = {fd, events, 0};
    OK(poll(&p, 1, 2000));
    return p.revents;
}
static int int_option(int fd, int level, int name)
{
    int v = 0x5555;
    socklen_t len = sizeof v;
    OK(getsockopt(fd, level, name, &v, &len));
    return v;
}
static int set_int(int fd, int level, int name, int v)
{
    return setsockopt(fd, level, name, &v, sizeof v);
}
static int tcp_state(int fd)
{
    struct tcp_info i = {0};
    socklen_t len = sizeof i;
    OK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len));
    return i.tcpi_state;
}
/* A namespace of its own with `lo` up. */
static void own_net(void)
{
    if (unshare(CLONE_NEWNET)) t_skip("no network namespaces: %s", strerror(errno));
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifreq r = {.ifr_name = "lo"};
    OK(ioctl(s, SIOCGIFFLAGS, &r));
    r.ifr_flags |= IFF_UP;
    OK(ioctl(s, SIOCSIFFLAGS, &r));
    close(s);
}

TEST(disconnect_and_connect_again)
{
    int s[2];
    char b[8];
    tcp_pair(s);
    struct sockaddr_in any = {.sin_family = AF_UNSPEC}, to;
    OK(connect(s[0], (void *)&any, sizeof any));
    EQ(tcp_state(s[0]), TCP_CLOSE);
    FAILS(recv(s[1], b, 1, 0), ECONNRESET);
    EQ(recv(s[1], b, 1, 0), 0);
    socklen_t len = sizeof to;
    FAILS(getpeername(s[0], (void *)&to, &len), ENOTCONN);
    EQ(int_option(s[0], SOL_SOCKET, SO_ERROR), ECONNRESET);
    int l = listener(&to, 1);
    OK(connect(s[0], (void *)&to, sizeof to));
    int t = OK(accept(l, NULL, NULL));
    EQ(write(s[0], "ab", 2), 2);
    EQ(read(t, b, 8), 2);
    OK(connect(l, (void *)&any, sizeof any));
    EQ(tcp_state(l), TCP_CLOSE);
}
TEST(connect_to_itself)
{
    struct sockaddr_in a = v4("127.0.0.1", 0);
    socklen_t len = sizeof a;
    char b[8];
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(bind(s, (void *)&a, sizeof a));
    OK(getsockname(s, (void *)&a, &len));
    OK(connect(s, (void *)&a, sizeof a));
    EQ(write(s, "me", 2), 2);
    EQ(read(s, b, 8), 2);
}
TEST(failed_connect_without_waiting)
{
    struct sockaddr_in a = v4("127.0.0.1", 1);
    char b[8];
    int s = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    FAILS(connect(s, (void *)&a, sizeof a), EINPROGRESS);
    wait_for(s, POLLOUT);
    EQ(events_of(s), POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
    FAILS(read(s, b, 1), ECONNREFUSED);
    EQ(read(s, b, 1), 0);
    FAILS(send(s, b, 1, MSG_NOSIGNAL), EPIPE);
    FAILS(connect(s, (void *)&a, sizeof a), ECONNABORTED);
    FAILS(connect(s, (void *)&a, sizeof a), EINPROGRESS);
}
TEST(over_means_not_connected)
{
    int s[2];
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    tcp_pair(s);
    OK(shutdown(s[0], SHUT_WR));
    wait_for(s[1], POLLIN);
    OK(shutdown(s[1], SHUT_WR));
    wait_for(s[0], POLLIN);
    FAILS(shutdown(s[0], SHUT_WR), ENOTCONN);
    FAILS(getpeername(s[1], (void *)&a, &len), ENOTCONN);
    EQ(tcp_state(s[1]), TCP_CLOSE);
}
TEST(reading_half_shut)
{
    int s[2];
    char b[8];
    tcp_pair(s);
    OK(shutdown(s[0], SHUT_RD));
    EQ(events_of(s[0]), POLLIN | POLLOUT | POLLRDHUP);
    EQ(read(s[0], b, 1), 0);
    EQ(write(s[1], "abc", 3), 3);
    usleep(20000);
    EQ(read(s[0], b, 8), 3);
    EQ(read(s[0], b, 8), 0);
    EQ(events_of(s[1]), POLLOUT);
    EQ(tcp_state(s[1]), TCP_ESTABLISHED);
}
TEST(deferred_accept)
{
    struct sockaddr_in a;
    char b[8];
    int l = listener(&a, 4);
    OK(set_int(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5));
    EQ(int_option(l, IPPROTO_TCP, TCP_DEFER_ACCEPT), 7);
    OK(fcntl(l, F_SETFL, O_NONBLOCK));
    int c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(c, (void *)&a, sizeof a));
    usleep(20000);
    FAILS(accept(l, NULL, NULL), EAGAIN);
    EQ(events_of(l), 0);
    EQ(write(c, "x", 1), 1);
    EQ(wait_for(l, POLLIN), POLLIN);
    int s = OK(accept(l, NULL, NULL));
    EQ(read(s, b, 8), 1);
    EQ(int_option(s, IPPROTO_TCP, TCP_DEFER_ACCEPT), 0);
}
TEST(port_rests_after_close)
{
    struct sockaddr_in a;
    int l = listener(&a, 1);
    int c = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(c, (void *)&a, sizeof a));
    int s = OK(accept(l, NULL, NULL));
    close(l);
    close(s);
    wait_for(c, POLLIN);
    close(c);
    l = OK(socket(AF_INET, SOCK_STREAM, 0));
    FAILS(bind(l, (void *)&a, sizeof a), EADDRINUSE);
}
TEST(bytes_left_to_read)
{
    int s[2];
    char b[2], x[64];
    tcp_pair(s);
    OK(set_int(s[1], IPPROTO_TCP, TCP_INQ, 1));
    EQ(write(s[0], "abcdef", 6), 6);
    wait_for(s[1], POLLIN);
    struct iovec v = {b, 2};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = x, .msg_controllen = sizeof x};
    EQ(recvmsg(s[1], &m, 0), 2);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c && c->cmsg_level == IPPROTO_TCP && c->cmsg_type == TCP_CM_INQ);
    EQ(*(int *)CMSG_DATA(c), 4);
}
TEST(no_copy_is_reported)
{
    int s[2];
    char x[128];
    tcp_pair(s);
    OK(set_int(s[0], SOL_SOCKET, SO_ZEROCOPY, 1));
    EQ(send(s[0], "abc", 3, MSG_ZEROCOPY), 3);
    EQ(wait_for(s[0], 0), POLLERR);
    struct msghdr m = {.msg_control = x, .msg_controllen = sizeof x};
    EQ(recvmsg(s[0], &m, MSG_ERRQUEUE), 0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    CHECK(c && c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR);
    struct sock_extended_err *e = (void *)CMSG_DATA(c);
    EQ(e->ee_origin, SO_EE_ORIGIN_ZEROCOPY);
    EQ(e->ee_info, 0);
    EQ(e->ee_data, 0);
}
TEST(options_are_clamped)
{
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(set_int(s, SOL_SOCKET, SO_KEEPALIVE, 77));
    EQ(int_option(s, SOL_SOCKET, SO_KEEPALIVE), 1);
    OK(set_int(s, IPPROTO_TCP, TCP_LINGER2, -5));
    EQ(int_option(s, IPPROTO_TCP, TCP_LINGER2), -1);
    OK(set_int(s, IPPROTO_TCP, TCP_LINGER2, 1000));
    EQ(int_option(s, IPPROTO_TCP, TCP_LINGER2), 120);
    OK(set_int(s, IPPROTO_TCP, TCP_WINDOW_CLAMP, 5));
    EQ(int_option(s, IPPROTO_TCP, TCP_WINDOW_CLAMP), 1152);
    FAILS(set_int(s, IPPROTO_TCP, TCP_MAXSEG, 10), EINVAL);
    FAILS(set_int(s, IPPROTO_IP, IP_TTL, 0), EINVAL);
    OK(set_int(s, IPPROTO_IP, IP_TTL, 9));
    OK(set_int(s, IPPROTO_IP, IP_TTL, -1));
    EQ(int_option(s, IPPROTO_IP, IP_TTL), 64);
    OK(set_int(s, IPPROTO_IP, IP_TOS, 0xff));
    EQ(int_option(s, IPPROTO_IP, IP_TOS), 0xfc);
    FAILS(set_int(s, IPPROTO_IP, IP_MULTICAST_TTL, 3), EINVAL);
    FAILS(set_int(s, 999, 1, 1), ENOPROTOOPT);
    FAILS(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, NULL, 0), EINVAL);
    FAILS(setsockopt(s, 999, 1, (void *)1, 4), ENOPROTOOPT);
    OK(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    char name[16];
    socklen_t len = sizeof name;
    OK(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &len));
    STREQ(name, "reno");
    FAILS(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "no-such", 7), ENOENT);
    int u = OK(socket(AF_INET, SOCK_DGRAM, 0));
    EQ(int_option(u, SOL_SOCKET, SO_PRIORITY), 0);
    len = 4;
    FAILS(getsockopt(u, SOL_SOCKET, SO_COOKIE, name, &len), EINVAL);
    len = sizeof name;
    FAILS(getsockopt(u, SOL_SOCKET, SO_PASSCRED, name, &len), EOPNOTSUPP);
    FAILS(getsockopt(u, IPPROTO_IP, IP_MTU, name, &len), ENOTCONN);
}

/* One receive: the data, and the control message of that kind. */
static int got(int s, char *data, int level, int kind, void *value, size_t size, int flags)
{
    char x[512];
    struct iovec v = {data, 32};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = x, .msg_controllen = sizeof x};
    int n = recvmsg(s, &m, flags | MSG_DONTWAIT);
    if (n < 0) return n;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == level && c->cmsg_type == kind) {
            memcpy(value, CMSG_DATA(c), size);
            return n;
        }
    errno = 0;
    return -1;
}

TEST(header_of_a_datagram)
{
    struct sockaddr_in a, b;
    char d[32];
    int s = udp_at(&a, "127.0.0.1"), c = udp_at(&b, "127.0.0.1");
    OK(set_int(s, IPPROTO_IP, IP_RECVTTL, 1));
    OK(set_int(s, IPPROTO_IP, IP_RECVTOS, 1));
    OK(set_int(c, IPPROTO_IP, IP_TTL, 33));
    OK(set_int(c, IPPROTO_IP, IP_TOS, 0x28));
    EQ(sendto(c, "a", 1, 0, (void *)&a, sizeof a), 1);
    int ttl = 0;
    EQ(got(s, d, IPPROTO_IP, IP_TTL, &ttl, 4, 0), 1);
    EQ(ttl, 33);
    EQ(sendto(c, "a", 1, 0, (void *)&a, sizeof a), 1);
    unsigned char tos = 0;
    EQ(got(s, d, IPPROTO_IP, IP_TOS, &tos, 1, 0), 1);
    EQ(tos, 0x28);
    /* One datagram's own. */
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr h;
    } x = {.h = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_TTL}};
    struct iovec v = {"b", 1};
    struct msghdr m = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &v, .msg_iovlen = 1,
                       .msg_control = &x, .msg_controllen = sizeof x};
    *(int *)CMSG_DATA(&x.h) = 7;
    EQ(sendmsg(c, &m, 0), 1);
    EQ(got(s, d, IPPROTO_IP, IP_TTL, &ttl, 4, 0), 1);
    EQ(ttl, 7);
    *(int *)CMSG_DATA(&x.h) = 256;
    FAILS(sendmsg(c, &m, 0), EINVAL);
}
TEST(error_queue)
{
    struct sockaddr_in a;
    char d[32];
    int closed = udp_at(&a, "127.0.0.1");
    close(closed);
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(set_int(s, IPPROTO_IP, IP_RECVERR, 1));
    EQ(sendto(s, "zz", 2, 0, (void *)&a, sizeof a), 2);
    EQ(wait_for(s, 0), POLLERR);
    EQ(int_option(s, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    struct sock_extended_err e;
    EQ(got(s, d, SOL_IP, IP_RECVERR, &e, sizeof e, MSG_ERRQUEUE), 2);
    EQ(e.ee_errno, ECONNREFUSED);
    EQ(e.ee_origin, SO_EE_ORIGIN_ICMP);
    EQ(e.ee_type, 3);
    EQ(e.ee_code, 3);
    EQ(memcmp(d, "zz", 2), 0);
    FAILS(recv(s, d, 1, MSG_ERRQUEUE), EAGAIN);
    EQ(events_of(s), POLLOUT);
}
TEST(groups)
{
    own_net();
    struct sockaddr_in a, to;
    char d[32];
    int s = udp_at(&a, "0.0.0.0"), c = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct ip_mreq m = {.imr_multiaddr.s_addr = inet_addr("224.1.2.3")};
    FAILS(setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m), ENODEV);
    m.imr_interface.s_addr = inet_addr("127.0.0.1");
    OK(setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m));
    FAILS(setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m), EADDRINUSE);
    to = v4("224.1.2.3", ntohs(a.sin_port));
    FAILS(sendto(c, "m", 1, 0, (void *)&to, sizeof to), ENETUNREACH);
    OK(setsockopt(c, IPPROTO_IP, IP_MULTICAST_IF, &m.imr_interface, sizeof m.imr_interface));
    EQ(sendto(c, "m1", 2, 0, (void *)&to, sizeof to), 2);
    EQ(recv(s, d, sizeof d, MSG_DONTWAIT), 2);
    /* The loopback itself loops, whatever the sender wishes. */
    OK(set_int(c, IPPROTO_IP, IP_MULTICAST_LOOP, 0));
    EQ(sendto(c, "m2", 2, 0, (void *)&to, sizeof to), 2);
    EQ(recv(s, d, sizeof d, MSG_DONTWAIT), 2);
    struct ip_mreq_source src = {.imr_multiaddr = m.imr_multiaddr, .imr_interface = m.imr_interface,
                                 .imr_sourceaddr.s_addr = inet_addr("127.0.0.1")};
    OK(setsockopt(s, IPPROTO_IP, IP_BLOCK_SOURCE, &src, sizeof src));
    FAILS(setsockopt(s, IPPROTO_IP, IP_BLOCK_SOURCE, &src, sizeof src), EADDRNOTAVAIL);
    EQ(sendto(c, "m3", 2, 0, (void *)&to, sizeof to), 2);
    FAILS(recv(s, d, sizeof d, MSG_DONTWAIT), EAGAIN);
    OK(setsockopt(s, IPPROTO_IP, IP_UNBLOCK_SOURCE, &src, sizeof src));
    OK(setsockopt(s, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof m));
    FAILS(setsockopt(s, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof m), EADDRNOTAVAIL);
}
TEST(groups_of_ipv6)
{
    own_net();
    char d[32];
    struct sockaddr_in6 a = {.sin6_family = AF_INET6};
    socklen_t len = sizeof a;
    int s = OK(socket(AF_INET6, SOCK_DGRAM, 0)), c = OK(socket(AF_INET6, SOCK_DGRAM, 0));
    OK(bind(s, (void *)&a, sizeof a));
    OK(getsockname(s, (void *)&a, &len));
    struct ipv6_mreq m = {.ipv6mr_interface = 1};
    inet_pton(AF_INET6, "ff02::1234", &m.ipv6mr_multiaddr);
    OK(setsockopt(s, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m, sizeof m));
    FAILS(setsockopt(s, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m, sizeof m), EADDRINUSE);
    OK(setsockopt(s, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &m, sizeof m));
    FAILS(setsockopt(s, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &m, sizeof m), EADDRNOTAVAIL);
    OK(set_int(s, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    OK(set_int(c, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 8));
    a.sin6_addr = in6addr_loopback;
    EQ(sendto(c, "h", 1, 0, (void *)&a, sizeof a), 1);
    int hops = 0;
    EQ(got(s, d, IPPROTO_IPV6, IPV6_HOPLIMIT, &hops, 4, 0), 1);
    EQ(hops, 8);
}
TEST(broadcast_on_loopback)
{
    struct sockaddr_in a;
    char d[8];
    int s = udp_at(&a, "0.0.0.0"), c = OK(socket(AF_INET, SOCK_DGRAM, 0));
    a.sin_addr.s_addr = inet_addr("127.255.255.255");
    FAILS(sendto(c, "b", 1, 0, (void *)&a, sizeof a), EACCES);
    OK(set_int(c, SOL_SOCKET, SO_BROADCAST, 1));
    EQ(sendto(c, "b", 1, 0, (void *)&a, sizeof a), 1);
    EQ(recv(s, d, 8, 0), 1);
}
TEST(datagrams_are_gathered)
{
    struct sockaddr_in a;
    char d[16];
    int s = udp_at(&a, "127.0.0.1"), c = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(connect(c, (void *)&a, sizeof a));
    OK(set_int(c, SOL_UDP, UDP_CORK, 1));
    EQ(write(c, "ab", 2), 2);
    EQ(write(c, "cd", 2), 2);
    FAILS(recv(s, d, 16, MSG_DONTWAIT), EAGAIN);
    OK(set_int(c, SOL_UDP, UDP_CORK, 0));
    EQ(recv(s, d, 16, 0), 4);
    EQ(send(c, "ab", 2, MSG_MORE), 2);
    EQ(send(c, "c", 1, 0), 1);
    EQ(recv(s, d, 16, 0), 3);
}
TEST(filter_on_a_socket)
{
    struct sockaddr_in a;
    char d[16];
    int s = udp_at(&a, "127.0.0.1"), c = OK(socket(AF_INET, SOCK_DGRAM, 0));
    /* The first byte behind the UDP header is 'y', and 10 bytes are enough. */
    struct sock_filter insns[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8), BPF_JUMP(BPF_JMP | BPF_JEQ, 'y', 0, 1),
                                  BPF_STMT(BPF_RET | BPF_K, 10), BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog p = {4, insns};
    OK(setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p));
    EQ(sendto(c, "no", 2, 0, (void *)&a, sizeof a), 2);
    EQ(sendto(c, "yes", 3, 0, (void *)&a, sizeof a), 3);
    EQ(recv(s, d, 16, MSG_DONTWAIT), 2);
    FAILS(recv(s, d, 16, MSG_DONTWAIT), EAGAIN);
    OK(set_int(s, SOL_SOCKET, SO_DETACH_FILTER, 0));
    FAILS(set_int(s, SOL_SOCKET, SO_DETACH_FILTER, 0), ENOENT);
    insns[1].jt = 9;
    FAILS(setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p), EINVAL);
}
TEST(packets_of_the_loopback)
{
    own_net();
    struct sockaddr_in a;
    unsigned char d[256];
    int p = OK(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP)));
    struct sockaddr_ll l = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = 1}, from;
    OK(bind(p, (void *)&l, sizeof l));
    int s = udp_at(&a, "127.0.0.1"), c = OK(socket(AF_INET, SOCK_DGRAM, 0));
    EQ(sendto(c, "payload", 7, 0, (void *)&a, sizeof a), 7);
    socklen_t len = sizeof from;
    EQ(wait_for(p, POLLIN), POLLIN);
    EQ(recvfrom(p, d, sizeof d, 0, (void *)&from, &len), 14 + 20 + 8 + 7);
    EQ(from.sll_pkttype, PACKET_HOST);
    EQ(from.sll_hatype, 772);
    EQ(from.sll_ifindex, 1);
    EQ(ntohs(from.sll_protocol), ETH_P_IP);
    EQ(d[14], 0x45);
    EQ(d[23], IPPROTO_UDP);
    EQ(memcmp(d + 42, "payload", 7), 0);
    EQ(recv(s, d + 100, 16, 0), 7);
    /* Written back as it was, it is from a Martian: 127.0.0.1 on a wire. */
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = 1};
    EQ(sendto(p, d, 49, 0, (void *)&to, sizeof to), 49);
    usleep(20000);
    FAILS(recv(s, d, 16, MSG_DONTWAIT), EAGAIN);
    FAILS(send(p, d, 5, 0), EINVAL);
    to.sll_ifindex = 77;
    FAILS(sendto(p, d, 49, 0, (void *)&to, sizeof to), ENXIO);
}

static int netlink(int protocol)
{
    int s = OK(socket(AF_NETLINK, SOCK_RAW, protocol));
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    OK(bind(s, (void *)&a, sizeof a));
    return s;
}
static void attr(struct nlmsghdr *n, int type, const void *data, int len)
{
    struct rtattr *r = (void *)((char *)n + NLMSG_ALIGN(n->nlmsg_len));
    r->rta_type = type;
    r->rta_len = RTA_LENGTH(len);
    memcpy(RTA_DATA(r), data, len);
    n->nlmsg_len = NLMSG_ALIGN(n->nlmsg_len) + RTA_ALIGN(r->rta_len);
}
static struct rtattr *nest(struct nlmsghdr *n, int type)
{
    struct rtattr *r = (void *)((char *)n + NLMSG_ALIGN(n->nlmsg_len));
    r->rta_type = type;
    r->rta_len = RTA_LENGTH(0);
    n->nlmsg_len = NLMSG_ALIGN(n->nlmsg_len) + RTA_LENGTH(0);
    return r;
}
static void close_nest(struct nlmsghdr *n, struct rtattr *r)
{
    r->rta_len = (char *)n + NLMSG_ALIGN(n->nlmsg_len) - (char *)r;
}
/* Sends and gives the errno of the acknowledgement. */
static int ask(int s, struct nlmsghdr *n)
{
    char b[4096];
    n->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
    EQ(send(s, n, n->nlmsg_len, 0), n->nlmsg_len);
    for (;;) {
        int len = OK(recv(s, b, sizeof b, 0));
        struct nlmsghdr *h = (void *)b;
        CHECK(len >= (int)sizeof *h);
        if (h->nlmsg_type == NLMSG_ERROR) return -*(int *)NLMSG_DATA(h);
    }
}
static int set_address(int s, int index, const char *ip, int prefix)
{
    struct {
        struct nlmsghdr n;
        struct ifaddrmsg a;
        char room[64];
    } r = {.n = {NLMSG_LENGTH(sizeof r.a), RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, 0, 0},
           .a = {AF_INET, prefix, 0, 0, index}};
    struct in_addr in;
    inet_pton(AF_INET, ip, &in);
    attr(&r.n, IFA_LOCAL, &in, 4);
    attr(&r.n, IFA_ADDRESS, &in, 4);
    return ask(s, &r.n);
}
static int set_up(int s, int index)
{
    struct {
        struct nlmsghdr n;
        struct ifinfomsg i;
    } r = {.n = {NLMSG_LENGTH(sizeof r.i), RTM_NEWLINK, 0, 0, 0}, .i = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP}};
    return ask(s, &r.n);
}

TEST(pair_of_links_between_namespaces)
{
    own_net();
    int ready[2], go[2];
    OK(pipe(ready));
    OK(pipe(go));
    pid_t far = OK(fork());
    char c = 0;
    if (far == 0) {
        OK(unshare(CLONE_NEWNET));
        EQ(write(ready[1], &c, 1), 1);
        EQ(read(go[0], &c, 1), 1);
        int s = netlink(NETLINK_ROUTE), index = if_nametoindex("peer0");
        CHECK(index > 0);
        EQ(set_address(s, index, "10.9.8.2", 24), 0);
        EQ(set_up(s, index), 0);
        struct sockaddr_in a = v4("10.9.8.2", 7777);
        int l = OK(socket(AF_INET, SOCK_STREAM, 0));
        OK(bind(l, (void *)&a, sizeof a));
        OK(listen(l, 1));
        EQ(write(ready[1], &c, 1), 1);
        int t = OK(accept(l, NULL, NULL));
        socklen_t len = sizeof a;
        OK(getpeername(t, (void *)&a, &len));
        EQ(a.sin_addr.s_addr, inet_addr("10.9.8.1"));
        EQ(write(t, "over", 4), 4);
        _exit(0);
    }
    EQ(read(ready[0], &c, 1), 1);
    int s = netlink(NETLINK_ROUTE);
    struct {
        struct nlmsghdr n;
        struct ifinfomsg i;
        char room[256];
    } r = {.n = {NLMSG_LENGTH(sizeof r.i), RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, 0}};
    attr(&r.n, IFLA_IFNAME, "near0", 6);
    struct rtattr *info = nest(&r.n, IFLA_LINKINFO);
    attr(&r.n, IFLA_INFO_KIND, "veth", 5);
    struct rtattr *data = nest(&r.n, IFLA_INFO_DATA), *peer = nest(&r.n, 1 /* VETH_INFO_PEER */);
    struct ifinfomsg other = {0};
    memcpy((char *)&r.n + r.n.nlmsg_len, &other, sizeof other);
    r.n.nlmsg_len += sizeof other;
    attr(&r.n, IFLA_IFNAME, "peer0", 6);
    int pid = far;
    attr(&r.n, IFLA_NET_NS_PID, &pid, 4);
    close_nest(&r.n, peer);
    close_nest(&r.n, data);
    close_nest(&r.n, info);
    int made = ask(s, &r.n);
    if (made == EOPNOTSUPP) t_skip("no veth links");
    EQ(made, 0);
    int index = if_nametoindex("near0");
    CHECK(index > 0);
    EQ(set_address(s, index, "10.9.8.1", 24), 0);
    EQ(set_up(s, index), 0);
    EQ(write(go[1], &c, 1), 1);
    EQ(read(ready[0], &c, 1), 1);
    struct sockaddr_in a = v4("10.9.8.2", 7777);
    int t = OK(socket(AF_INET, SOCK_STREAM, 0));
    char b[8] = {0};
    OK(connect(t, (void *)&a, sizeof a));
    EQ(read(t, b, 8), 4);
    STREQ(b, "over");
    EQ(t_wait(far), 0);
}
TEST(changes_are_told)
{
    own_net();
    int s = netlink(NETLINK_ROUTE), e = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR};
    OK(bind(e, (void *)&a, sizeof a));
    char b[4096];
    EQ(set_address(s, 1, "10.1.2.3", 24), 0);
    EQ(wait_for(e, POLLIN), POLLIN);
    CHECK(OK(recv(e, b, sizeof b, 0)) > 0);
    struct nlmsghdr *h = (void *)b;
    EQ(h->nlmsg_type, RTM_NEWADDR);
    EQ(((struct ifaddrmsg *)NLMSG_DATA(h))->ifa_prefixlen, 24);
    FAILS(recv(e, b, sizeof b, MSG_DONTWAIT), EAGAIN);
}
TEST(sockets_are_listed)
{
    struct sockaddr_in a;
    listener(&a, 3);
    int s = netlink(NETLINK_SOCK_DIAG), found = 0, done = 0;
    struct {
        struct nlmsghdr n;
        struct inet_diag_req_v2 r;
    } r = {.n = {sizeof r, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 7, 0},
           .r = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1 << TCP_LISTEN}};
    EQ(send(s, &r, sizeof r, 0), sizeof r);
    static char b[65536];
    while (!done) {
        int len = OK(recv(s, b, sizeof b, 0));
        for (struct nlmsghdr *h = (void *)b; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
            if (h->nlmsg_type == NLMSG_DONE) done = 1;
            CHECK(h->nlmsg_type != NLMSG_ERROR);
            struct inet_diag_msg *m = NLMSG_DATA(h);
            if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY && m->id.idiag_sport == a.sin_port) {
                EQ(m->idiag_state, TCP_LISTEN);
                EQ(m->idiag_wqueue, 3);
                found++;
            }
        }
    }
    EQ(found, 1);
}
TEST(users_talk_by_netlink)
{
    int s[2];
    struct sockaddr_nl a = {.nl_family = AF_NETLINK}, from;
    socklen_t len = sizeof a;
    char b[8];
    for (int i = 0; i < 2; i++) s[i] = netlink(NETLINK_USERSOCK);
    OK(getsockname(s[1], (void *)&a, &len));
    EQ(sendto(s[0], "hi", 2, 0, (void *)&a, sizeof a), 2);
    len = sizeof from;
    EQ(recvfrom(s[1], b, 8, 0, (void *)&from, &len), 2);
    OK(getsockname(s[0], (void *)&a, &len));
    EQ(from.nl_pid, a.nl_pid);
    a.nl_pid = 0x7654321;
    FAILS(sendto(s[0], "hi", 2, 0, (void *)&a, sizeof a), ECONNREFUSED);
}

TEST(tcp_user_timeout_without_room) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int l = OK(socket(AF_INET, SOCK_STREAM, 0)), small = 4096, timeout_ms = 300, value = 0;
    OK(setsockopt(l, SOL_SOCKET, SO_RCVBUF, &small, sizeof small));
    OK(bind(l, (void *)&a, sizeof a));
    OK(listen(l, 1));
    OK(getsockname(l, (void *)&a, &len));
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &small, sizeof small));
    OK(connect(s, (void *)&a, sizeof a));
    int r = OK(accept(l, NULL, NULL));
    OK(setsockopt(s, IPPROTO_TCP, 18, &timeout_ms, sizeof timeout_ms));
    OK(fcntl(s, F_SETFL, O_NONBLOCK));
    signal(SIGPIPE, SIG_IGN);
    static char buf[65536];
    while (write(s, buf, sizeof buf) > 0) {}
    CHECK(errno == EAGAIN);
    long long start = t_ms();
    struct pollfd p = {s, POLLIN, 0};
    EQ(poll(&p, 1, 15000), 1);
    CHECK(t_ms() - start >= 250);
    EQ(p.revents & (POLLIN | POLLERR | POLLHUP), POLLIN | POLLERR | POLLHUP);
    len = sizeof value;
    OK(getsockopt(s, SOL_SOCKET, SO_ERROR, &value, &len));
    EQ(value, ETIMEDOUT);
    FAILS(write(s, "x", 1), EPIPE);
    EQ(read(s, buf, 1), 0);
    OK(fcntl(r, F_SETFL, O_NONBLOCK));
    CHECK(read(r, buf, 100) > 0);
    ssize_t n;
    while ((n = read(r, buf, sizeof buf)) > 0) {}
    CHECK(n == -1 && errno == ECONNRESET);
}
TEST(tcp_user_timeout_of_a_slow_reader) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int l = OK(socket(AF_INET, SOCK_STREAM, 0)), timeout_ms = 5000;
    OK(bind(l, (void *)&a, sizeof a));
    OK(listen(l, 1));
    OK(getsockname(l, (void *)&a, &len));
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(s, (void *)&a, sizeof a));
    int r = OK(accept(l, NULL, NULL));
    OK(setsockopt(s, IPPROTO_TCP, 18, &timeout_ms, sizeof timeout_ms));
    OK(fcntl(s, F_SETFL, O_NONBLOCK));
    static char buf[1 << 20];
    while (write(s, buf, sizeof buf) > 0) {}
    CHECK(errno == EAGAIN);
    long got = 0;
    while (got < 1 << 16) got += OK(read(r, buf, 1 << 16));
    struct pollfd p = {s, POLLIN, 0};
    EQ(poll(&p, 1, 200), 0);
}
