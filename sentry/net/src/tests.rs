//! Behaviour of the families through [`SocketFile`], as the system calls use it.

use crate::addr::{InetAddr, SockAddr, UnixAddr};
use crate::socket;
use crate::types::{Control, MsgFlags, SendMsg, Shutdown};
use crate::{NetNs, create, create_pair};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::signal::Signal;
use abi::{CallResult, Errno};
use mm::io::{SliceSource, VecSink};
use std::sync::Arc;
use std::time::Duration;
use vfs::OpenFile;
use vfs::testing::TestCaller;

const STREAM: i32 = 1;
const DGRAM: i32 = 2;
const SEQ: i32 = 5;

fn ns(by: &TestCaller) -> Arc<NetNs> {
    NetNs::new(7, Arc::clone(&by.cred.user_ns))
}
fn inet(ip: &str, port: u16) -> SockAddr {
    SockAddr::Inet(InetAddr { ip: ip.parse().unwrap(), port, scope: 0 })
}
fn make(ns: &Arc<NetNs>, domain: i32, kind: i32, by: &TestCaller) -> Arc<OpenFile> {
    create(ns, domain, kind, 0, OpenFlags::empty(), &by.by()).unwrap()
}
fn send(file: &Arc<OpenFile>, bytes: &[u8], by: &TestCaller) -> CallResult<usize> {
    let mut message = SendMsg { flags: MsgFlags::DONTWAIT, ..SendMsg::default() };
    socket::of(file).unwrap().send(file, &mut SliceSource::new(bytes), &mut message, &by.by())
}
fn recv(file: &Arc<OpenFile>, max: usize, flags: MsgFlags, by: &TestCaller) -> CallResult<Vec<u8>> {
    let mut sink = VecSink::new(max);
    socket::of(file).unwrap().recv(file, &mut sink, flags, &by.by())?;
    Ok(sink.bytes)
}
fn errno<T>(result: CallResult<T>) -> Option<Errno> {
    match result {
        Err(abi::Failure::Errno(error)) => Some(error),
        _ => None,
    }
}
fn sock(file: &Arc<OpenFile>) -> &dyn crate::Socket {
    &**socket::of(file).unwrap().socket()
}
fn port_of(file: &Arc<OpenFile>) -> u16 {
    match sock(file).local_addr() {
        Ok(SockAddr::Inet(addr)) => addr.port,
        other => panic!("{other:?}"),
    }
}
const NOW: MsgFlags = MsgFlags::DONTWAIT;

fn connection(ns: &Arc<NetNs>, by: &TestCaller) -> (Arc<OpenFile>, Arc<OpenFile>, Arc<OpenFile>) {
    let server = make(ns, 2, STREAM, by);
    sock(&server).bind(&inet("127.0.0.1", 0), &by.by()).unwrap();
    sock(&server).listen(4, &by.by()).unwrap();
    let client = make(ns, 2, STREAM, by);
    let to = inet("127.0.0.1", port_of(&server));
    socket::of(&client).unwrap().connect(&client, &to, &by.by()).unwrap();
    let (child, peer) = socket::of(&server).unwrap().accept(&server, OpenFlags::empty(), &by.by()).unwrap();
    assert_eq!(Ok(peer), sock(&client).local_addr());
    (server, client, child)
}

#[test]
fn tcp_talks_and_half_closes() {
    let by = TestCaller::default();
    let ns = ns(&by);
    let (server, client, child) = connection(&ns, &by);
    assert_eq!(send(&client, b"hello", &by), Ok(5));
    assert_eq!(recv(&child, 3, NOW | MsgFlags::PEEK, &by), Ok(b"hel".to_vec()));
    assert_eq!(recv(&child, 100, NOW, &by), Ok(b"hello".to_vec()));
    assert_eq!(errno(recv(&child, 100, NOW, &by)), Some(Errno::EAGAIN));
    sock(&client).shutdown(Shutdown::Write).unwrap();
    assert_eq!(recv(&child, 100, NOW, &by), Ok(Vec::new()));
    assert!(sock(&child).ready(Events::READABLE | Events::RDHUP).contains(Events::RDHUP));
    assert_eq!(errno(send(&client, b"x", &by)), Some(Errno::EPIPE));
    assert_eq!(by.task.taken(), [(0, Signal::SIGPIPE)]);
    send(&child, b"back", &by).unwrap();
    drop(child);
    assert_eq!(recv(&client, 100, NOW, &by), Ok(b"back".to_vec()));
    assert_eq!(recv(&client, 100, NOW, &by), Ok(Vec::new()));
    // Both halves are over: no connection any more.
    assert_eq!(sock(&client).peer_addr(), Err(Errno::ENOTCONN));
    let to = inet("127.0.0.1", port_of(&server));
    drop(server);
    let again = make(&ns, 2, STREAM, &by);
    let refused = socket::of(&again).unwrap().connect(&again, &to, &by.by());
    assert_eq!(errno(refused), Some(Errno::ECONNREFUSED));
}

#[test]
fn tcp_resets() {
    let by = TestCaller::default();
    let ns = ns(&by);
    let (_server, client, child) = connection(&ns, &by);
    send(&client, b"never read", &by).unwrap();
    drop(child);
    assert_eq!(errno(recv(&client, 10, NOW, &by)), Some(Errno::ECONNRESET));
    assert_eq!(recv(&client, 10, NOW, &by), Ok(Vec::new()));
    assert_eq!(errno(send(&client, b"x", &by)), Some(Errno::EPIPE));
    let (_server, client, child) = connection(&ns, &by);
    drop(child);
    assert_eq!(send(&client, b"into the void", &by), Ok(13));
    assert_eq!(errno(send(&client, b"x", &by)), Some(Errno::EPIPE));
}

#[test]
fn tcp_flow_control_and_blocking() {
    let by = TestCaller::default();
    let ns = ns(&by);
    let (_server, client, child) = connection(&ns, &by);
    let big = vec![5; 3 << 20];
    let sent = send(&client, &big, &by).unwrap();
    assert!(sent < big.len());
    assert!(sock(&client).ready(Events::WRITABLE).is_empty());
    let other = Arc::clone(&client);
    let rest = big[sent..].to_vec();
    let thread = std::thread::spawn(move || {
        let by = TestCaller::default();
        let mut message = SendMsg::default();
        let mut src = SliceSource::new(&rest);
        socket::of(&other).unwrap().send(&other, &mut src, &mut message, &by.by())
    });
    let all = recv(&child, big.len(), MsgFlags::WAITALL, &by).unwrap();
    assert_eq!(all.len(), big.len());
    assert_eq!(thread.join().unwrap(), Ok(big.len() - sent));
}

#[test]
fn tcp_full_backlog_waits() {
    let by = TestCaller::default();
    let ns = ns(&by);
    let server = make(&ns, 10, STREAM, &by);
    sock(&server).bind(&inet("::", 8080), &by.by()).unwrap();
    sock(&server).listen(0, &by.by()).unwrap();
    let to = inet("127.0.0.1", 8080);
    let nonblock = |by: &TestCaller| create(&ns, 2, STREAM, 0, OpenFlags::NONBLOCK, &by.by()).unwrap();
    let (a, b) = (nonblock(&by), nonblock(&by));
    assert_eq!(errno(socket::of(&a).unwrap().connect(&a, &to, &by.by())), Some(Errno::EINPROGRESS));
    assert!(sock(&a).ready(Events::WRITABLE).contains(Events::WRITABLE));
    assert_eq!(errno(socket::of(&b).unwrap().connect(&b, &to, &by.by())), Some(Errno::EINPROGRESS));
    assert!(sock(&b).ready(Events::WRITABLE).is_empty());
    let (_c, peer) = socket::of(&server).unwrap().accept(&server, OpenFlags::empty(), &by.by()).unwrap();
    assert!(matches!(peer, SockAddr::Inet(a) if a.ip.is_ipv6()));
    assert!(sock(&b).ready(Events::WRITABLE).contains(Events::WRITABLE));
    let twice = make(&ns, 2, STREAM, &by);
    assert_eq!(sock(&twice).bind(&inet("127.0.0.1", 8080), &by.by()), Err(Errno::EADDRINUSE));
    assert_eq!(sock(&twice).bind(&inet("10.1.2.3", 8080), &by.by()), Err(Errno::EADDRNOTAVAIL));
    let away = socket::of(&twice).unwrap().connect(&twice, &inet("10.1.2.3", 1), &by.by());
    assert_eq!(errno(away), Some(Errno::ENETUNREACH));
}

#[test]
fn udp_datagrams() {
    let by = TestCaller::default();
    let ns = ns(&by);
    let (a, b) = (make(&ns, 2, DGRAM, &by), make(&ns, 2, DGRAM, &by));
    sock(&a).bind(&inet("0.0.0.0", 0), &by.by()).unwrap();
    socket::of(&a).unwrap().set_option(0, 8, &1i32.to_ne_bytes(), &by.by()).unwrap();
    let to = inet("127.0.0.1", port_of(&a));
    sock(&b).connect(&to, &by.by()).unwrap();
    assert_eq!(send(&b, b"datagram", &by), Ok(8));
    let mut sink = VecSink::new(4);
    let got = socket::of(&a).unwrap().recv(&a, &mut sink, NOW | MsgFlags::TRUNC, &by.by()).unwrap();
    assert_eq!((got.len, got.flags), (8, MsgFlags::TRUNC));
    assert_eq!(got.addr, sock(&b).local_addr().ok());
    assert!(matches!(&got.control[..], [Control::Raw(0, 8, info)] if info.len() == 12));
    drop(a);
    assert_eq!(send(&b, b"gone", &by), Ok(4));
    assert_eq!(errno(send(&b, b"gone", &by)), Some(Errno::ECONNREFUSED));
}

#[test]
fn unix_stream_passes_files_and_credentials() {
    let by = TestCaller::default();
    let ns = ns(&by);
    let (a, b) = create_pair(&ns, 1, STREAM, 0, OpenFlags::empty(), &by.by()).unwrap();
    socket::of(&b).unwrap().set_option(1, 16, &1i32.to_ne_bytes(), &by.by()).unwrap();
    send(&a, b"plain", &by).unwrap();
    let file = vfs::event::epoll::create();
    let mut message =
        SendMsg { control: vec![Control::Rights(vec![Arc::clone(&file)])], ..SendMsg::default() };
    socket::of(&a).unwrap().send(&a, &mut SliceSource::new(b"with"), &mut message, &by.by()).unwrap();
    send(&a, b"after", &by).unwrap();
    let mut sink = VecSink::new(100);
    let got = socket::of(&b).unwrap().recv(&b, &mut sink, NOW, &by.by()).unwrap();
    assert_eq!(sink.bytes, b"plainwith");
    assert!(matches!(&got.control[..], [Control::Credentials(c), Control::Rights(f)]
        if c.pid == 1 && Arc::ptr_eq(&f[0], &file)));
    assert_eq!(recv(&b, 100, NOW, &by), Ok(b"after".to_vec()));
    drop(a);
    assert!(sock(&b).ready(Events::READABLE).contains(Events::HUP | Events::IN));
    assert_eq!(recv(&b, 100, NOW, &by), Ok(Vec::new()));
    assert_eq!(errno(send(&b, b"x", &by)), Some(Errno::EPIPE));
}

#[test]
fn unix_names_and_backlog() {
    let by = TestCaller::default();
    let ns = ns(&by);
    let server = make(&ns, 1, SEQ, &by);
    let name = SockAddr::Unix(UnixAddr::Abstract(b"name".to_vec()));
    sock(&server).bind(&name, &by.by()).unwrap();
    sock(&server).listen(0, &by.by()).unwrap();
    let client = make(&ns, 1, SEQ, &by);
    socket::of(&client).unwrap().connect(&client, &name, &by.by()).unwrap();
    let late = create(&ns, 1, SEQ, 0, OpenFlags::NONBLOCK, &by.by()).unwrap();
    assert_eq!(errno(socket::of(&late).unwrap().connect(&late, &name, &by.by())), Some(Errno::EAGAIN));
    let (child, _) = socket::of(&server).unwrap().accept(&server, OpenFlags::empty(), &by.by()).unwrap();
    send(&client, b"one", &by).unwrap();
    send(&client, b"two", &by).unwrap();
    assert_eq!(recv(&child, 2, NOW, &by), Ok(b"on".to_vec()));
    assert_eq!(recv(&child, 100, NOW, &by), Ok(b"two".to_vec()));
    let wrong = make(&ns, 1, STREAM, &by);
    let refused = socket::of(&wrong).unwrap().connect(&wrong, &name, &by.by());
    assert_eq!(errno(refused), Some(Errno::EPROTOTYPE));
    drop(server);
    let again = make(&ns, 1, SEQ, &by);
    let refused = socket::of(&again).unwrap().connect(&again, &name, &by.by());
    assert_eq!(errno(refused), Some(Errno::ECONNREFUSED));
    let path = SockAddr::Unix(UnixAddr::Path { path: b"/s".to_vec(), node: None }).with_node(9, 9);
    let dgram = make(&ns, 1, DGRAM, &by);
    sock(&dgram).bind(&path, &by.by()).unwrap();
    let sender = make(&ns, 1, DGRAM, &by);
    sock(&sender).connect(&path, &by.by()).unwrap();
    let mut sent = 0;
    while send(&sender, b"m", &by).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 11);
    assert!(sock(&sender).ready(Events::WRITABLE).is_empty());
    let thread = {
        let sender = Arc::clone(&sender);
        std::thread::spawn(move || {
            let by = TestCaller::default();
            let mut message = SendMsg::default();
            socket::of(&sender).unwrap().send(&sender, &mut SliceSource::new(b"m"), &mut message, &by.by())
        })
    };
    std::thread::sleep(Duration::from_millis(5));
    recv(&dgram, 10, NOW, &by).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(1));
}

#[test]
fn rings_in_flight_are_collected() {
    let by = TestCaller::default();
    let ns = ns(&by);
    let (a, b) = create_pair(&ns, 1, STREAM, 0, OpenFlags::empty(), &by.by()).unwrap();
    let control = vec![Control::Rights(vec![Arc::clone(&a), Arc::clone(&b)])];
    let mut message = SendMsg { control, ..SendMsg::default() };
    socket::of(&a).unwrap().send(&a, &mut SliceSource::new(b"x"), &mut message, &by.by()).unwrap();
    let (weak_a, weak_b) = (Arc::downgrade(&a), Arc::downgrade(&b));
    crate::unix::garbage::collect();
    assert!(sock(&b).ready(Events::READABLE).contains(Events::IN));
    drop((a, b));
    assert!(weak_a.upgrade().is_some());
    crate::unix::garbage::collect();
    assert!(weak_a.upgrade().is_none() && weak_b.upgrade().is_none());
}

#[test]
fn netlink_dumps_lo() {
    let by = TestCaller::default();
    let ns = ns(&by);
    let file = create(&ns, 16, 3, 0, OpenFlags::empty(), &by.by()).unwrap();
    let mut request = vec![0; 32];
    request[..4].copy_from_slice(&32u32.to_ne_bytes());
    request[4..6].copy_from_slice(&18u16.to_ne_bytes());
    request[6..8].copy_from_slice(&0x301u16.to_ne_bytes());
    assert_eq!(send(&file, &request, &by), Ok(32));
    let links = recv(&file, 8192, NOW, &by).unwrap();
    assert!(links.windows(3).any(|w| w == b"lo\0"));
    let done = recv(&file, 8192, NOW, &by).unwrap();
    assert_eq!(done[4..6], 3u16.to_ne_bytes());
    request[4..6].copy_from_slice(&20u16.to_ne_bytes());
    request[6..8].copy_from_slice(&5u16.to_ne_bytes());
    send(&file, &request, &by).unwrap();
    let refused = recv(&file, 8192, NOW, &by).unwrap();
    // An address is missing.
    assert_eq!(refused[16..20], (-22i32).to_ne_bytes());
}

#[test]
fn tables_show_open_sockets() {
    use crate::table::{Datagrams, Family, datagrams, tcp, unix};
    let by = TestCaller::default();
    let ns = ns(&by);
    let (server, client, child) = connection(&ns, &by);
    let rows = tcp(&ns, Family::V4, &by.cred.user_ns);
    assert_eq!(rows.len(), 3);
    assert!(rows[0].contains(": 0100007F:") && rows[0].contains(" 00000000:0000 0A "), "{rows:?}");
    assert!(rows[1].contains(" 01 "));
    drop((server, client, child));
    assert!(tcp(&ns, Family::V4, &by.cred.user_ns).is_empty());
    assert!(datagrams(&ns, Datagrams::Udp, Family::V6, &by.cred.user_ns).is_empty());
    let file = make(&ns, 1, DGRAM, &by);
    sock(&file).bind(&SockAddr::Unix(UnixAddr::Abstract(b"n".to_vec())), &by.by()).unwrap();
    assert!(unix(&ns)[0].ends_with(b" @n"));
}
