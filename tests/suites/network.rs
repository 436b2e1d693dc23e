//! `--network=host`: a container in a network namespace with a link to another, as a CNI bridge makes it, and
//! native peers at the other end. Needs root and `ip`.

use nix::sched::{CloneFlags, setns};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tests::bundle::Bundle;
use tests::{PLATFORMS, command, rootfs};

const LIMIT: Duration = Duration::from_secs(60);
/// The container's end of the link, and the peer's.
const GUEST: &str = "10.203.7.2";
const PEER: &str = "10.203.7.1";
const GUEST6: &str = "fd00:203:7::2";
const PEER6: &str = "fd00:203:7::1";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces with a veth pair between them.
struct Link {
    guest: String,
    peer: String,
}

fn ip(arguments: &str) {
    let done = command::run(Command::new("ip").args(arguments.split_whitespace()), LIMIT);
    done.expect_ok(&format!("ip {arguments}"));
}

impl Link {
    fn new() -> Link {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gvrs{}n{number}", std::process::id());
        let link = Link { guest: format!("{name}g"), peer: format!("{name}p") };
        ip(&format!("netns add {}", link.guest));
        ip(&format!("netns add {}", link.peer));
        ip(&format!("-n {} link add eth0 type veth peer name eth0 netns {}", link.guest, link.peer));
        let ends = [(&link.guest, GUEST, GUEST6), (&link.peer, PEER, PEER6)];
        for (namespace, v4, v6) in ends {
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} addr add {v4}/24 dev eth0"));
            ip(&format!("-n {namespace} addr add {v6}/64 dev eth0 nodad"));
            ip(&format!("-n {namespace} link set eth0 up"));
        }
        ip(&format!("-n {} route add default via {PEER}", link.guest));
        link
    }
    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.guest)
    }
    /// Runs `act` on a thread in the peer's namespace.
    fn peer<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.peer, act)
    }
    /// A container in the guest's namespace that runs `args`.
    fn bundle(&self, root: &Path, args: &[&str]) -> Bundle {
        let mut bundle = Bundle::new(root, args);
        let namespaces = bundle.config.pointer_mut("/linux/namespaces").and_then(|n| n.as_array_mut());
        let network = namespaces.and_then(|n| n.iter_mut().find(|n| n["type"] == "network"));
        network.expect("a network namespace")["path"] = json!(self.path());
        bundle
    }
    /// A shell script in a busybox container, on every platform; gives what it printed on the first.
    #[track_caller]
    fn script(&self, text: &str) -> String {
        let outputs = PLATFORMS.map(|platform| {
            let bundle = self.bundle(rootfs::busybox(), &["/bin/sh", "-euc", text]);
            command::run(&mut bundle.run(platform), LIMIT).expect_ok(platform).stdout
        });
        let [first, ..] = outputs;
        first
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in [&self.guest, &self.peer] {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    let file = File::open(Path::new("/run/netns").join(namespace)).expect("a namespace that ip made");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
            act()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A Python program in a container, spoken to in lines.
struct Python {
    // Removed last.
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _bundle: Bundle,
}

impl Python {
    fn start(link: &Link, platform: &str, program: &str) -> Python {
        let bundle = link.bundle(rootfs::debian(), &["/usr/bin/python3", "-uc", program]);
        let mut run = bundle.run(platform);
        let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runsc starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Python { child, input, output, _bundle: bundle }
    }
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the guest's output");
        line.trim().to_owned()
    }
    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("a pipe"), "{line}").expect("the guest reads");
    }
    #[track_caller]
    fn end(mut self) {
        drop(self.input.take());
        let mut rest = String::new();
        let _ = self.output.read_to_string(&mut rest);
        let status = self.child.wait().expect("runsc ends");
        assert!(status.success(), "{status}: {rest}");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn timed(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream.set_write_timeout(Some(LIMIT)).expect("a timeout");
    stream
}

/// Deterministic bytes and their sum.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

const ECHO: &str = r"
import socket, selectors, sys
family = socket.AF_INET6
sel = selectors.EpollSelector()
srv = socket.socket(family); srv.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
srv.bind(('::', 80)); srv.listen(64); srv.setblocking(False)
udp = socket.socket(family, socket.SOCK_DGRAM); udp.bind(('::', 53)); udp.setblocking(False)
sel.register(srv, selectors.EVENT_READ); sel.register(udp, selectors.EVENT_READ); sel.register(sys.stdin, selectors.EVENT_READ)
print('ready')
pending = {}
while True:
    for key, events in sel.select():
        f = key.fileobj
        if f is sys.stdin: sys.exit(0)
        if f is srv:
            c, _ = srv.accept(); c.setblocking(False); pending[c] = b''; sel.register(c, selectors.EVENT_READ); continue
        if f is udp:
            data, addr = udp.recvfrom(65536); udp.sendto(data[::-1], addr); continue
        if events & selectors.EVENT_READ:
            data = f.recv(65536)
            if not data:
                sel.unregister(f); f.close(); continue
            pending[f] += data
        try:
            n = f.send(pending[f]); pending[f] = pending[f][n:]
        except BlockingIOError: pass
        want = selectors.EVENT_READ | (selectors.EVENT_WRITE if pending[f] else 0)
        if len(pending[f]) > 4 << 20: want = selectors.EVENT_WRITE
        sel.modify(f, want)
";

#[test]
fn a_server_inside_is_reached() {
    let link = Link::new();
    for platform in PLATFORMS {
        let mut python = Python::start(&link, platform, ECHO);
        assert_eq!(python.line(), "ready", "{platform}");
        link.peer(|| {
            for host in [GUEST, GUEST6] {
                // Bulk both ways at once.
                let mut stream = timed(TcpStream::connect((host, 80)).expect("connect"));
                let sent = pattern(8 << 20);
                let mut back = vec![0; sent.len()];
                std::thread::scope(|scope| {
                    let mut writer = stream.try_clone().expect("dup");
                    let sent = &sent;
                    scope.spawn(move || writer.write_all(sent).expect("write"));
                    stream.read_exact(&mut back).expect("read");
                });
                assert!(sent == back, "{platform} {host}: other bytes came back");
                // Many connections, all open.
                let mut streams: Vec<TcpStream> =
                    (0..100).map(|_| timed(TcpStream::connect((host, 80)).expect("connect"))).collect();
                for (at, stream) in streams.iter_mut().enumerate() {
                    write!(stream, "line {at:05}").expect("write");
                }
                for (at, stream) in streams.iter_mut().enumerate() {
                    let mut line = [0; 10];
                    stream.read_exact(&mut line).expect("read");
                    assert_eq!(line, *format!("line {at:05}").as_bytes());
                }
                let any = if host == GUEST { "0.0.0.0:0" } else { "[::]:0" };
                let udp = UdpSocket::bind(any).expect("bind");
                udp.set_read_timeout(Some(LIMIT)).expect("a timeout");
                for size in [1, 1400, 9000, 60_000] {
                    let sent = pattern(size);
                    udp.send_to(&sent, (host, 53)).expect("send");
                    let mut back = vec![0; 65536];
                    let (len, _) = udp.recv_from(&mut back).expect("an answer");
                    let reversed: Vec<u8> = sent.iter().rev().copied().collect();
                    assert!(back[..len] == reversed, "{platform} {host}: UDP of {size}");
                }
            }
        });
        // The same server by the loopback of its namespace, from a process that is not the sandbox'.
        inside(&link.guest, || {
            let mut stream = timed(TcpStream::connect(("127.0.0.1", 80)).expect("connect"));
            stream.write_all(b"from beside").expect("write");
            let mut back = [0; 11];
            stream.read_exact(&mut back).expect("read");
            assert_eq!(&back, b"from beside");
        });
        python.say("end");
        python.end();
    }
}

const CLIENT: &str = r"
import socket, hashlib, sys, errno, time, struct
def lines():
    for line in sys.stdin: yield line.split()
for host, port in lines():
    port = int(port)
    s = socket.create_connection((host, port), timeout=50)
    assert s.getpeername()[1] == port
    h = hashlib.sha256(); n = 0
    while n < 4 << 20:
        data = s.recv(1 << 16); assert data; h.update(data); n += len(data)
    s.sendall(h.hexdigest().encode())
    up = bytes(range(256)) * 16384
    s.sendall(up); s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b''
    s.close()
    # Refused: connected and not, blocking and not.
    for make in (lambda: socket.create_connection((host, 1)),):
        try: make(); assert 0
        except ConnectionRefusedError: pass
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    s = socket.socket(family); s.setblocking(False)
    e = s.connect_ex((host, 1)); assert e in (errno.EINPROGRESS, errno.ECONNREFUSED), e
    import select
    if e == errno.EINPROGRESS:
        assert select.select([], [s], [], 20)[1]
        assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    s.close()
    u = socket.socket(family, socket.SOCK_DGRAM); u.connect((host, 1)); u.send(b'x'); u.settimeout(20)
    try: u.recv(1); assert 0
    except ConnectionRefusedError: pass
    # Timeouts are served inside.
    u = socket.socket(family, socket.SOCK_DGRAM); u.settimeout(None)
    u.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 0, 200000))
    t = time.monotonic()
    try: u.recv(1); assert 0
    except BlockingIOError: assert 0.15 < time.monotonic() - t < 20
    print('done')
";

#[test]
fn a_client_inside_reaches_out() {
    let link = Link::new();
    for platform in PLATFORMS {
        let mut python = Python::start(&link, platform, CLIENT);
        for host in [PEER, PEER6] {
            let server = link.peer(|| TcpListener::bind((host, 0)).expect("bind"));
            let port = server.local_addr().expect("a port").port();
            python.say(&format!("{host} {port}"));
            let (stream, from) = server.accept().expect("accept");
            assert_eq!(from.ip().to_string(), if host == PEER { GUEST } else { GUEST6 });
            let mut stream = timed(stream);
            let sent = pattern(4 << 20);
            stream.write_all(&sent).expect("write");
            let mut digest = [0; 64];
            stream.read_exact(&mut digest).expect("read");
            assert_eq!(sha256(&sent), String::from_utf8_lossy(&digest), "{platform} {host}");
            let mut up = Vec::new();
            stream.read_to_end(&mut up).expect("read");
            assert_eq!(up.len(), 4 << 20);
            assert!(up.iter().zip((0..=255_u8).cycle()).all(|(a, b)| *a == b));
            drop(stream);
            assert_eq!(python.line(), "done", "{platform} {host}");
        }
        python.end();
    }
}

fn sha256(bytes: &[u8]) -> String {
    let done = command::run_with_input(&mut Command::new("sha256sum"), bytes, LIMIT).expect_ok("sha256sum");
    done.stdout.split_whitespace().next().unwrap_or_default().to_owned()
}

const RESETS: &str = r"
import socket, struct, sys, errno, select
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('0.0.0.0', 7000)); s.listen()
print('ready')
c, _ = s.accept()
sys.stdin.readline()
try: c.recv(10); assert 0
except ConnectionResetError: pass
c, _ = s.accept()
c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
assert c.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack('ii', 1, 0)
c.close()
print('closed')
c, _ = s.accept()
sys.stdin.readline()
c.send(b'x')
p = select.poll(); p.register(c, select.POLLIN | select.POLLRDHUP)
assert p.poll(20000)
try:
    while True: c.send(b'x' * 1000); select.select([], [], [], 0.01)
except (BrokenPipeError, ConnectionResetError): pass
print(c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
# Options reach the host and come back.
c = socket.socket()
for level, name, value in [(6, 1, 1), (1, 9, 1), (6, 4, 30), (6, 5, 7), (6, 6, 4), (6, 18, 9000), (0, 2, 77), (0, 1, 16)]:
    c.setsockopt(level, name, value); assert c.getsockopt(level, name) == value, (level, name)
c.setsockopt(1, 8, 100000); assert c.getsockopt(1, 8) == 200000
c.connect(('127.0.0.1', 7000))
info = c.getsockopt(6, 11, 256); assert info[0] == 1 and len(info) > 100
d, _ = s.accept()
d.send(b'12345'); import fcntl
assert select.select([c], [], [], 20)[0]
assert c.recv(3, socket.MSG_PEEK) == b'123' and c.recv(10, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b'12345'
d.send(b'abc'); d.send(b'!', socket.MSG_OOB)
assert select.select([], [], [c], 20)[2]
assert c.recv(1, socket.MSG_OOB) == b'!'
d.send(b'x' * 100)
assert c.recv(50, socket.MSG_TRUNC) > b''
try: c.setsockopt(1, 26, b'x' * 16); assert 0
except OSError as e: assert e.errno in (errno.EOPNOTSUPP, errno.EINVAL)
print('options')
";

#[test]
fn resets_and_options() {
    let link = Link::new();
    for platform in PLATFORMS {
        let mut python = Python::start(&link, platform, RESETS);
        assert_eq!(python.line(), "ready");
        let connect = || link.peer(|| timed(TcpStream::connect((GUEST, 7000)).expect("connect")));
        let stream = connect();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("SO_LINGER");
        drop(stream);
        python.say("");
        let mut stream = connect();
        assert_eq!(stream.read(&mut [0; 1]).map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
        assert_eq!(python.line(), "closed");
        drop(connect());
        python.say("");
        assert_eq!(python.line(), "0");
        assert_eq!(python.line(), "options", "{platform}");
        python.end();
    }
}

const MESSAGES: &str = r"
import socket, struct, sys, select, os
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 9000))
for name in (8, 12, 13): s.setsockopt(0, name, 1)
s.setsockopt(1, 35, 1)
t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); t.setsockopt(0, 2, 33)
t.sendto(b'hello', ('127.0.0.1', 9000))
data, anc, flags, addr = s.recvmsg(3, 1024)
assert data == b'hel' and flags & socket.MSG_TRUNC
kinds = {(l, k): v for l, k, v in anc}
assert struct.unpack('i', kinds[(0, 2)]) == (33,), anc
assert kinds[(0, 8)][8:] == bytes([127, 0, 0, 1]) and (1, 35) in kinds and (0, 1) in kinds
t.sendto(b'hello', ('127.0.0.1', 9000)); assert s.recv(3, socket.MSG_PEEK) == b'hel'
assert len(s.recv(100)) == 5
# The source address is chosen by control data.
s.sendmsg([b'from'], [(0, 8, struct.pack('i4s4s', 0, socket.inet_aton('127.0.0.9'), bytes(4)))], 0, t.getsockname() if t.getsockname()[0] != '0.0.0.0' else ('127.0.0.1', t.getsockname()[1]))
assert t.recvfrom(10)[1] == ('127.0.0.9', 9000)
# Errors come by the error queue.
e = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); e.setsockopt(0, 11, 1); e.connect(('127.0.0.1', 9)); e.send(b'x')
p = select.poll(); p.register(e, 0); assert p.poll(20000)[0][1] & select.POLLERR
data, anc, flags, addr = e.recvmsg(100, 1024, 0x2000)
assert flags & 0x2000 and anc[0][:2] == (0, 11) and struct.unpack('I', anc[0][2][:4]) == (111,)
# Multicast on the link.
m = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); m.setsockopt(1, 2, 1); m.bind(('', 9001))
m.setsockopt(0, 35, socket.inet_aton('239.1.2.3') + socket.inet_aton('10.203.7.2'))
n = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); n.setsockopt(0, 32, socket.inet_aton('10.203.7.2')); n.sendto(b'group', ('239.1.2.3', 9001))
m.settimeout(20); assert m.recv(10) == b'group'
# Files go out by sendfile and splice.
l = socket.create_server(('127.0.0.1', 9002)); c = socket.create_connection(('127.0.0.1', 9002)); d, _ = l.accept()
open('/tmp/f', 'wb').write(b'0123456789' * 10000)
f = open('/tmp/f', 'rb'); sent = 0
import threading
got = []
def read():
    n = 0
    while n < 100000: x = d.recv(65536); got.append(x); n += len(x)
r = threading.Thread(target=read); r.start()
while sent < 100000: sent += os.sendfile(c.fileno(), f.fileno(), sent, 100000 - sent)
r.join(); assert b''.join(got) == b'0123456789' * 10000
print('ok')
";

#[test]
fn messages_with_control_data() {
    let link = Link::new();
    for platform in PLATFORMS {
        let mut python = Python::start(&link, platform, MESSAGES);
        assert_eq!(python.line(), "ok", "{platform}");
        python.end();
    }
}

const LOOPBACK: &str = r"
import socket, threading, errno, select, os, time
# Wildcard, IPv4-only and IPv6 listeners, by every loopback name.
for family, host, names in ((socket.AF_INET, '0.0.0.0', ['127.0.0.1', '127.9.9.9', '0.0.0.0', '10.203.7.2']),
                            (socket.AF_INET, '127.0.0.1', ['127.0.0.1']),
                            (socket.AF_INET6, '::', ['::1', '127.0.0.1', 'fd00:203:7::2'])):
    l = socket.socket(family); l.bind((host, 0)); l.listen(8); port = l.getsockname()[1]
    for name in names:
        c = socket.socket(socket.AF_INET6 if ':' in name else socket.AF_INET); c.connect((name, port))
        d, addr = l.accept()
        assert c.getsockname()[:2] == (addr[0].replace('::ffff:', ''), addr[1]), (name, c.getsockname(), addr)
        assert c.getpeername()[1] == port
        c.sendall(b'ping'); assert d.recv(10) == b'ping'; d.sendall(b'pong'); assert c.recv(10) == b'pong'
        c.close(); assert d.recv(1) == b''; d.close()
    l.close()
    try: c = socket.create_connection((names[0], port)); assert 0
    except ConnectionRefusedError: pass
# A listener that is waited for in epoll, with connections from both sides of the wall.
l = socket.create_server(('0.0.0.0', 6000)); l.setblocking(False)
e = select.epoll(); e.register(l, select.EPOLLIN | select.EPOLLET)
def serve(n):
    while n:
        assert e.poll(30)
        while True:
            try: c, _ = l.accept()
            except BlockingIOError: break
            c.setblocking(True); c.sendall(c.recv(5)); c.close(); n -= 1
t = threading.Thread(target=serve, args=(40,)); t.start()
for name in ['127.0.0.1', '10.203.7.2'] * 20:
    c = socket.create_connection((name, 6000)); c.sendall(b'hello'); assert c.recv(5) == b'hello'; c.close()
t.join()
# Non-blocking: in progress, then done, then there already.
c = socket.socket(); c.setblocking(False)
l.setblocking(True)
assert c.connect_ex(('127.0.0.1', 6000)) == errno.EINPROGRESS
assert select.select([], [c], [], 20)[1] and c.getsockopt(1, 4) == 0
assert c.connect_ex(('127.0.0.1', 6000)) in (0, errno.EISCONN)
assert c.connect_ex(('127.0.0.1', 6000)) == errno.EISCONN
print('ok')
";

#[test]
fn loopback_inside_a_namespace_with_links() {
    let link = Link::new();
    for platform in PLATFORMS {
        let mut python = Python::start(&link, platform, LOOPBACK);
        assert_eq!(python.line(), "ok", "{platform}");
        python.end();
    }
}

#[test]
fn the_namespace_is_seen() {
    let link = Link::new();
    let out = link.script(
        "ip addr; ip route; cat /proc/net/route /proc/net/dev /proc/net/if_inet6; ifconfig eth0; \
         nc -l -p 8080 & while ! grep -q :1F90 /proc/net/tcp6 /proc/net/tcp; do :; done; netstat -ltn; kill %1",
    );
    for want in [
        "inet 10.203.7.2/24",
        "inet6 fd00:203:7::2/64",
        "default via 10.203.7.1 dev eth0",
        "eth0\t00000000\t0107CB0A",
        "fd000203000700000000000000000002",
        "inet addr:10.203.7.2",
        ":8080",
    ] {
        assert!(out.contains(want), "{want:?} is not in:\n{out}");
    }
}

#[test]
fn names_are_looked_up_by_udp() {
    let link = Link::new();
    let server = link.peer(|| UdpSocket::bind((PEER, 53)).expect("bind"));
    server.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let etc = std::env::temp_dir().join(format!("gvisor-rs-resolv-{}", std::process::id()));
    std::fs::write(&etc, format!("nameserver {PEER}\n")).expect("a temporary file");
    for platform in PLATFORMS {
        let program = "import socket; print(socket.gethostbyname('name.test'))";
        let bundle = link.bundle(rootfs::debian(), &["/usr/bin/python3", "-c", program]);
        let bundle = bundle.bind(&etc, "/etc/resolv.conf", "ro");
        let done = std::thread::scope(|scope| {
            let run = scope.spawn(|| command::run(&mut bundle.run(platform), LIMIT));
            let mut question = [0; 512];
            let (len, from) = server.recv_from(&mut question).expect("a question");
            // The same with one answer, A 192.0.2.7.
            let mut answer = question[..len].to_vec();
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[6..8].copy_from_slice(&[0, 1]);
            answer[10..12].copy_from_slice(&[0, 0]);
            let end = 12 + question[12..].iter().position(|b| *b == 0).expect("a name") + 5;
            answer.truncate(end);
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            server.send_to(&answer, from).expect("send");
            run.join().expect("runsc")
        });
        assert_eq!(done.expect_ok(platform).stdout.trim(), "192.0.2.7");
    }
    let _ = std::fs::remove_file(etc);
}

#[test]
fn privileges_over_the_network() {
    let link = Link::new();
    let ports = "
import socket, errno
def tried(f):
    try: f(); return 0
    except OSError as e: return e.errno
print(tried(lambda: socket.socket().bind(('', 80))), tried(lambda: socket.socket().bind(('', 8080))),
      tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
      tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)),
      tried(lambda: socket.socket(17, socket.SOCK_RAW)), tried(lambda: socket.socket(40, socket.SOCK_STREAM)))
";
    let run = |change: &dyn Fn(&mut Bundle), flags: &[&str]| {
        let mut bundle = link.bundle(rootfs::debian(), &["/usr/bin/python3", "-c", ports]);
        change(&mut bundle);
        let mut command = bundle.runsc("systrap", flags.first().unwrap_or(&"run"));
        if !flags.is_empty() {
            command.arg("run");
        }
        command.arg("--bundle").arg(bundle.dir()).arg(bundle.id());
        command::run(&mut command, LIMIT).expect_ok("run").stdout.trim().to_owned()
    };
    assert_eq!(run(&|_| {}, &[]), "0 0 1 13 97 97");
    let unprivileged = |bundle: &mut Bundle| {
        bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        bundle.config["process"]["capabilities"] = json!({});
    };
    assert_eq!(run(&unprivileged, &[]), "13 0 1 13 97 97");
    let sysctl = |bundle: &mut Bundle| {
        unprivileged(bundle);
        bundle.config["linux"]["sysctl"] =
            json!({"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"});
    };
    assert_eq!(run(&sysctl, &[]), "0 0 1 0 97 97");
    assert_eq!(run(&|_| {}, &["--net-raw"]).split(' ').nth(2), Some("0"));
}

#[test]
fn nothing_but_loopback_without_a_network() {
    let link = Link::new();
    let bundle = link.bundle(rootfs::busybox(), &["/bin/ip", "-o", "link"]);
    let mut command = bundle.runsc("systrap", "--network=none");
    command.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    let out = command::run(&mut command, LIMIT).expect_ok("--network=none").stdout;
    assert!(out.contains("lo") && !out.contains("eth0"), "{out}");
    // A namespace of one's own inside the container is empty as well.
    let out = link.script("unshare -n ip -o link");
    assert!(out.contains("lo") && !out.contains("eth0"), "{out}");
}

#[test]
fn a_bundle_without_a_namespace_has_the_callers() {
    let link = Link::new();
    let mut bundle = Bundle::new(rootfs::busybox(), &["/bin/ip", "-o", "addr"]);
    bundle.config["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts"}]);
    let mut run = Command::new("ip");
    let inner = bundle.run("systrap");
    run.args(["netns", "exec", &link.guest]).arg(inner.get_program()).args(inner.get_args());
    let out = command::run(&mut run, LIMIT).expect_ok("ip netns exec").stdout;
    assert!(out.contains(GUEST), "{out}");
}
