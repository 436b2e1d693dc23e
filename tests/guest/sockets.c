/* Sockets beyond the common ways: urgent data, raw sockets, interfaces of a fresh namespace. */
#include "t.h"
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#ifndef ICMP_FILTER
#define ICMP_FILTER 1
#endif
#undef FAMILY
#define FAMILY "sockets"

static struct sockaddr_in v4(const char *ip, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &a.sin_addr);
    return a;
}

/* A connected pair over the loopback: s[0] the client's end, s[1] the server's. */
static void tcp_pair(int s[2])
{
    struct sockaddr_in a = v4("127.0.0.1", 0);
    socklen_t len = sizeof a;
    int l = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(bind(l, (void *)&a, sizeof a));
    OK(listen(l, 1));
    OK(getsockname(l, (void *)&a, &len));
    s[0] = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(s[0], (void *)&a, sizeof a));
    s[1] = OK(accept(l, NULL, NULL));
    close(l);
}

TEST(names_need_a_buffer)
{
    int s[2];
    tcp_pair(s);
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    FAILS(getsockname(s[0], NULL, &len), EFAULT);
    FAILS(getpeername(s[0], NULL, &len), EFAULT);
    FAILS(getsockname(s[0], (void *)&a, NULL), EFAULT);
    len = -1;
    FAILS(getsockname(s[0], (void *)&a, &len), EINVAL);
    len = 0;
    OK(getsockname(s[0], (void *)&a, &len));
    EQ(len, sizeof a);
}

TEST(unknown_levels)
{
    int value = 1;
    socklen_t len = sizeof value;
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    FAILS(getsockopt(s, 500, 1, &value, &len), EOPNOTSUPP);
    FAILS(setsockopt(s, 500, 1, &value, len), ENOPROTOOPT);
    FAILS(getsockopt(s, IPPROTO_UDP, 1, &value, &len), EOPNOTSUPP);
    s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    FAILS(getsockopt(s, 500, 1, &value, &len), EOPNOTSUPP);
    FAILS(setsockopt(s, SOL_TCP, 1, &value, len), ENOPROTOOPT);
    s = OK(socket(AF_INET6, SOCK_STREAM, 0));
    FAILS(getsockopt(s, 500, 1, &value, &len), ENOPROTOOPT);
    s = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(getsockopt(s, 500, 1, &value, &len), EOPNOTSUPP);
    FAILS(setsockopt(s, SOL_TCP, 1, &value, len), EOPNOTSUPP);
    s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    FAILS(ioctl(s, SIOCATMARK, &value), ENOTTY);
}

TEST(urgent_byte)
{
    int s[2], at;
    char b[16];
    tcp_pair(s);
    FAILS(recv(s[1], b, 1, MSG_OOB), EINVAL);
    EQ(send(s[0], "ab", 2, 0), 2);
    EQ(send(s[0], "X", 1, MSG_OOB), 1);
    EQ(send(s[0], "cd", 2, 0), 2);
    struct pollfd p = {s[1], POLLPRI | POLLIN, 0};
    EQ(poll(&p, 1, 5000), 1);
    while (!(p.revents & POLLPRI)) EQ(poll(&p, 1, 5000), 1);
    OK(ioctl(s[1], SIOCATMARK, &at));
    EQ(at, 0);
    EQ(recv(s[1], b, 1, MSG_OOB | MSG_PEEK), 1);
    EQ(b[0], 'X');
    EQ(recv(s[1], b, 1, MSG_OOB), 1);
    EQ(b[0], 'X');
    FAILS(recv(s[1], b, 1, MSG_OOB), EINVAL);
    /* A read stops at the mark, also when it asks for all. */
    EQ(recv(s[1], b, 16, 0), 2);
    OK(ioctl(s[1], SIOCATMARK, &at));
    EQ(at, 1);
    EQ(recv(s[1], b, 16, 0), 2);
    CHECK(memcmp(b, "cd", 2) == 0);
    OK(ioctl(s[1], SIOCATMARK, &at));
    EQ(at, 0);
}

TEST(urgent_byte_inline)
{
    int s[2], at, one = 1;
    char b[16];
    tcp_pair(s);
    OK(setsockopt(s[1], SOL_SOCKET, SO_OOBINLINE, &one, sizeof one));
    EQ(send(s[0], "abX", 3, MSG_OOB), 3);
    struct pollfd p = {s[1], POLLPRI, 0};
    EQ(poll(&p, 1, 5000), 1);
    FAILS(recv(s[1], b, 1, MSG_OOB), EINVAL);
    EQ(recv(s[1], b, 16, 0), 2);
    OK(ioctl(s[1], SIOCATMARK, &at));
    EQ(at, 1);
    EQ(recv(s[1], b, 16, 0), 1);
    EQ(b[0], 'X');
}

static uint16_t sum(const void *data, int len)
{
    const uint16_t *w = data;
    uint32_t s = 0;
    for (; len > 1; len -= 2) s += *w++;
    while (s >> 16) s = (s & 0xffff) + (s >> 16);
    return ~s;
}

TEST(raw_icmp_echo)
{
    FAILS(socket(AF_INET, SOCK_RAW, 0), EPROTONOSUPPORT);
    int s = OK(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    struct sockaddr_in a = v4("127.0.0.1", 0), from;
    socklen_t len = sizeof from;
    OK(getsockname(s, (void *)&from, &len));
    EQ(ntohs(from.sin_port), IPPROTO_ICMP);
    struct timeval limit = {5, 0};
    OK(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    struct { struct icmphdr h; char data[8]; } echo = {.h = {.type = ICMP_ECHO}, .data = "1234567"};
    echo.h.un.echo.id = getpid();
    echo.h.un.echo.sequence = htons(7);
    echo.h.checksum = sum(&echo, sizeof echo);
    EQ(sendto(s, &echo, sizeof echo, 0, (void *)&a, sizeof a), sizeof echo);
    /* The request comes by as well as the reply. */
    int replies = 0, requests = 0;
    while (!replies) {
        struct { struct iphdr ip; struct icmphdr h; char data[100]; } got;
        len = sizeof from;
        int n = OK(recvfrom(s, &got, sizeof got, 0, (void *)&from, &len));
        if (got.h.un.echo.id != echo.h.un.echo.id) continue;
        EQ(n, sizeof(struct iphdr) + sizeof echo);
        EQ(got.ip.version, 4);
        EQ(got.ip.protocol, IPPROTO_ICMP);
        EQ(ntohs(got.ip.tot_len), n);
        EQ(sum(&got.ip, 20), 0);
        EQ(from.sin_addr.s_addr, a.sin_addr.s_addr);
        EQ(from.sin_port, 0);
        EQ(sum(&got.h, sizeof echo), 0);
        CHECK(strcmp(got.data, "1234567") == 0);
        if (got.h.type == ICMP_ECHO) requests++;
        if (got.h.type == ICMP_ECHOREPLY) replies++;
    }
    EQ(requests, 1);
    /* A filter keeps types out. */
    uint32_t filter = ~(1u << ICMP_ECHOREPLY);
    OK(setsockopt(s, SOL_RAW, ICMP_FILTER, &filter, sizeof filter));
    EQ(sendto(s, &echo, sizeof echo, 0, (void *)&a, sizeof a), sizeof echo);
    for (;;) {
        struct { struct iphdr ip; struct icmphdr h; char data[100]; } got;
        OK(recv(s, &got, sizeof got, 0));
        EQ(got.h.type, ICMP_ECHOREPLY);
        if (got.h.un.echo.id == echo.h.un.echo.id) break;
    }
}

TEST(raw_icmp6_echo)
{
    int s = OK(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6));
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct icmp6_filter filter;
    ICMP6_FILTER_SETBLOCKALL(&filter);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
    OK(setsockopt(s, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter));
    struct timeval limit = {5, 0};
    OK(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    struct { struct icmp6_hdr h; char data[8]; } echo = {.data = "1234567"}, got;
    echo.h.icmp6_type = ICMP6_ECHO_REQUEST;
    echo.h.icmp6_id = getpid();
    EQ(sendto(s, &echo, sizeof echo, 0, (void *)&a, sizeof a), sizeof echo);
    do OK(recv(s, &got, sizeof got, 0));
    while (got.h.icmp6_id != echo.h.icmp6_id);
    EQ(got.h.icmp6_type, ICMP6_ECHO_REPLY);
    CHECK(strcmp(got.data, "1234567") == 0);
}

TEST(interfaces_are_counted_without_a_buffer) {
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifconf c = {.ifc_len = -1000};
    OK(ioctl(s, SIOCGIFCONF, &c));
    EQ(c.ifc_len % sizeof(struct ifreq), 0);
    char room[4096];
    int lens[] = {-1, 10, 0};
    for (int i = 0; i < 3; i++) {
        c.ifc_len = lens[i];
        c.ifc_buf = room;
        OK(ioctl(s, SIOCGIFCONF, &c));
        EQ(c.ifc_len, 0);
    }
}
TEST(types_that_a_family_lacks) {
    int types[] = {0, SOCK_RDM, 6, 9, SOCK_PACKET};
    for (int i = 0; i < 4; i++) FAILS(socket(AF_INET, types[i], 0), ESOCKTNOSUPPORT);
    FAILS(socket(AF_INET, 11, 0), EINVAL);
    FAILS(socket(AF_UNIX, 0, 0), ESOCKTNOSUPPORT);
}

TEST(raw_with_own_header)
{
    int s = OK(socket(AF_INET, SOCK_RAW, IPPROTO_RAW)), r = OK(socket(AF_INET, SOCK_RAW, 253)), on = 0;
    socklen_t len = sizeof on;
    OK(getsockopt(s, IPPROTO_IP, IP_HDRINCL, &on, &len));
    EQ(on, 1);
    struct timeval limit = {5, 0};
    OK(setsockopt(r, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    struct { struct iphdr ip; char data[4]; } packet = {.ip = {.version = 4, .ihl = 5, .ttl = 9, .protocol = 253}, .data = "abc"}, got;
    packet.ip.daddr = htonl(INADDR_LOOPBACK);
    struct sockaddr_in a = v4("127.0.0.1", 0);
    EQ(sendto(s, &packet, sizeof packet, 0, (void *)&a, sizeof a), sizeof packet);
    EQ(recv(r, &got, sizeof got, 0), sizeof got);
    EQ(got.ip.ttl, 9);
    EQ(got.ip.saddr, htonl(INADDR_LOOPBACK));
    EQ(ntohs(got.ip.tot_len), sizeof got);
    EQ(sum(&got.ip, 20), 0);
    CHECK(strcmp(got.data, "abc") == 0);
}

/* Sends one netlink request with an attribute or two; gives the error of the acknowledgement. */
static int route(int kind, int flags, const void *body, int size, const struct rtattr *const *attrs)
{
    static int seq;
    struct { struct nlmsghdr h; char data[512]; } q = {.h = {.nlmsg_type = kind, .nlmsg_seq = ++seq}};
    q.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    memcpy(q.data, body, size);
    int at = NLMSG_ALIGN(size);
    for (; attrs && *attrs; attrs++) {
        memcpy(q.data + at, *attrs, (*attrs)->rta_len);
        at += RTA_ALIGN((*attrs)->rta_len);
    }
    q.h.nlmsg_len = NLMSG_HDRLEN + at;
    int s = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    EQ(send(s, &q, q.h.nlmsg_len, 0), q.h.nlmsg_len);
    struct { struct nlmsghdr h; struct nlmsgerr e; char rest[1024]; } r;
    OK(recv(s, &r, sizeof r, 0));
    close(s);
    EQ(r.h.nlmsg_type, NLMSG_ERROR);
    return r.e.error;
}

struct attr { struct rtattr a; char data[32]; };
static struct attr attr(int type, const void *data, int len)
{
    struct attr x = {.a = {.rta_len = RTA_LENGTH(len), .rta_type = type}};
    memcpy(x.data, data, len);
    return x;
}

static int link_flags(const char *name)
{
    struct ifreq r = {0};
    strcpy(r.ifr_name, name);
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(ioctl(s, SIOCGIFFLAGS, &r));
    close(s);
    return r.ifr_flags;
}

static void set_up(const char *name, int up)
{
    struct ifreq r = {0};
    strcpy(r.ifr_name, name);
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    r.ifr_flags = (link_flags(name) & ~IFF_UP) | (up ? IFF_UP : 0);
    OK(ioctl(s, SIOCSIFFLAGS, &r));
    close(s);
}

static int try_connect(const char *ip)
{
    struct sockaddr_in a = v4(ip, 1);
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    int error = connect(s, (void *)&a, sizeof a) ? errno : 0;
    close(s);
    return error;
}

static int try_bind(const char *ip)
{
    struct sockaddr_in a = v4(ip, 0);
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    int error = bind(s, (void *)&a, sizeof a) ? errno : 0;
    close(s);
    return error;
}

TEST(fresh_namespace_loopback)
{
    if (unshare(CLONE_NEWNET)) t_skip("no network namespace: %s", strerror(errno));
    EQ(link_flags("lo") & IFF_UP, 0);
    EQ(try_connect("127.0.0.1"), ENETUNREACH);
    set_up("lo", 1);
    CHECK(link_flags("lo") & IFF_UP);
    EQ(try_connect("127.0.0.1"), ECONNREFUSED);
    EQ(try_bind("127.0.0.1"), 0);
}

TEST(addresses_come_and_go)
{
    if (unshare(CLONE_NEWNET)) t_skip("no network namespace: %s", strerror(errno));
    set_up("lo", 1);
    struct in_addr ip;
    inet_pton(AF_INET, "10.9.8.7", &ip);
    struct attr local = attr(IFA_LOCAL, &ip, 4);
    const struct rtattr *attrs[] = {&local.a, NULL};
    struct ifaddrmsg m = {.ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = 1};
    EQ(try_bind("10.9.8.7"), EADDRNOTAVAIL);
    EQ(route(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m, attrs), 0);
    EQ(route(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m, attrs), -EEXIST);
    EQ(try_bind("10.9.8.7"), 0);
    EQ(try_connect("10.9.8.7"), ECONNREFUSED);
    EQ(route(RTM_DELADDR, 0, &m, sizeof m, attrs), 0);
    EQ(route(RTM_DELADDR, 0, &m, sizeof m, attrs), -EADDRNOTAVAIL);
    EQ(try_bind("10.9.8.7"), EADDRNOTAVAIL);
    m.ifa_index = 99;
    EQ(route(RTM_NEWADDR, NLM_F_CREATE, &m, sizeof m, attrs), -ENODEV);
}

TEST(interfaces_are_configured)
{
    if (unshare(CLONE_NEWNET)) t_skip("no network namespace: %s", strerror(errno));
    struct ifreq r = {0};
    strcpy(r.ifr_name, "lo");
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    r.ifr_mtu = 1400;
    OK(ioctl(s, SIOCSIFMTU, &r));
    r.ifr_mtu = 0;
    OK(ioctl(s, SIOCGIFMTU, &r));
    EQ(r.ifr_mtu, 1400);
    struct sockaddr_in *a = (void *)&r.ifr_addr;
    *a = v4("10.1.2.3", 0);
    OK(ioctl(s, SIOCSIFADDR, &r));
    *a = v4("255.255.0.0", 0);
    OK(ioctl(s, SIOCSIFNETMASK, &r));
    OK(ioctl(s, SIOCGIFNETMASK, &r));
    EQ(ntohl(a->sin_addr.s_addr), 0xffff0000);
    struct ifinfomsg m = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    EQ(route(RTM_NEWLINK, 0, &m, sizeof m, NULL), 0);
    CHECK(link_flags("lo") & IFF_UP);
    EQ(try_bind("10.1.2.3"), 0);
    m.ifi_index = 77;
    EQ(route(RTM_NEWLINK, 0, &m, sizeof m, NULL), -ENODEV);
}

TEST(unprivileged_changes_are_refused)
{
    struct ifinfomsg m = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    OK(setresuid(1000, 1000, 1000));
    EQ(route(RTM_NEWLINK, 0, &m, sizeof m, NULL), -EPERM);
    struct ifreq r = {0};
    strcpy(r.ifr_name, "lo");
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    FAILS(ioctl(s, SIOCSIFFLAGS, &r), EPERM);
    FAILS(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
}

TEST(connect_without_waiting)
{
    struct sockaddr_in a = v4("127.0.0.1", 0);
    socklen_t len = sizeof a;
    int l = OK(socket(AF_INET, SOCK_STREAM, 0)), e = 0;
    OK(bind(l, (void *)&a, sizeof a));
    OK(listen(l, 4));
    OK(getsockname(l, (void *)&a, &len));
    int c = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    FAILS(connect(c, (void *)&a, sizeof a), EINPROGRESS);
    struct pollfd p = {c, POLLOUT, 0};
    EQ(poll(&p, 1, 5000), 1);
    EQ(connect(c, (void *)&a, sizeof a), 0);
    FAILS(connect(c, (void *)&a, sizeof a), EISCONN);
    close(l);
    c = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    FAILS(connect(c, (void *)&a, sizeof a), EINPROGRESS);
    p.fd = c;
    EQ(poll(&p, 1, 5000), 1);
    CHECK(p.revents & POLLERR);
    len = sizeof e;
    OK(getsockopt(c, SOL_SOCKET, SO_ERROR, &e, &len));
    EQ(e, ECONNREFUSED);
}
