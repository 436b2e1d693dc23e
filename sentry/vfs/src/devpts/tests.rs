//! Pairs, job control, hang-up, and a host terminal, through open files.

use super::{DevPts, DevPtsOptions, MasterFile, SlaveFile, Terminals};
use crate::file::OpenFile;
use crate::testing::{FlatMemory, TestCaller};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::signal::Signal;
use abi::{Errno, Failure, Restart, ioctl};
use mm::io::{SliceSource, VecSink};
use std::sync::Arc;
use std::time::Duration;

struct Pair {
    fs: Arc<DevPts>,
    master: Arc<OpenFile>,
    slave: Arc<OpenFile>,
}

fn pair(by: &TestCaller) -> Pair {
    let terminals = Terminals::new();
    let fs = DevPts::new(&terminals, DevPtsOptions::default());
    let ops = fs.open_ptmx(&by.by()).unwrap();
    let master = OpenFile::anonymous(ops, OpenFlags::RDWR | OpenFlags::NONBLOCK);
    let tty = Arc::clone(master.downcast::<MasterFile>().unwrap().tty());
    assert!(SlaveFile::open(&tty, OpenFlags::RDWR, &by.by()).is_err());
    let memory = FlatMemory::new(64);
    master.ops().ioctl(&master, ioctl::TIOCSPTLCK, 0, &memory, &by.by()).unwrap();
    let ops = SlaveFile::open(&tty, OpenFlags::RDWR, &by.by()).unwrap();
    let slave = OpenFile::anonymous(ops, OpenFlags::RDWR | OpenFlags::NONBLOCK);
    Pair { fs, master, slave }
}
fn write(file: &OpenFile, bytes: &[u8], by: &TestCaller) -> Result<usize, Failure> {
    file.write(&mut SliceSource::new(bytes), &by.by())
}
fn read(file: &OpenFile, by: &TestCaller) -> Result<Vec<u8>, Failure> {
    let mut sink = VecSink::new(1000);
    file.read(&mut sink, &by.by())?;
    Ok(sink.bytes)
}
const AGAIN: Failure = Failure::Errno(Errno::EAGAIN);

#[test]
fn typed_lines_arrive_and_echo() {
    let by = TestCaller::default();
    let p = pair(&by);
    write(&p.master, b"ls", &by).unwrap();
    assert_eq!(read(&p.slave, &by), Err(AGAIN));
    write(&p.master, b"\r", &by).unwrap();
    assert_eq!(read(&p.slave, &by), Ok(b"ls\n".to_vec()));
    write(&p.slave, b"out\n", &by).unwrap();
    assert_eq!(read(&p.master, &by), Ok(b"ls\r\nout\r\n".to_vec()));
    write(&p.master, b"\x03", &by).unwrap();
    assert_eq!(by.task.taken(), [(1, Signal::SIGINT)]);
}

#[test]
fn background_groups_are_stopped() {
    let by = TestCaller::default();
    let p = pair(&by);
    by.task.set_pgid(2);
    assert_eq!(read(&p.slave, &by), Err(AGAIN));
    assert_eq!(by.task.taken(), [(2, Signal::SIGTTIN)]);
    assert_eq!(p.slave.ops().before_ioctl(ioctl::TCSETS, &by.by()), Err(Failure::Restart(Restart::Sys)));
    assert_eq!(by.task.taken(), [(2, Signal::SIGTTOU)]);
    assert_eq!(p.slave.ops().before_ioctl(ioctl::TCGETS, &by.by()), Ok(()));
    let memory = FlatMemory::new(64);
    memory.0.lock()[..4].copy_from_slice(&2u32.to_ne_bytes());
    p.slave.ops().ioctl(&p.slave, ioctl::TIOCSPGRP, 0, &memory, &by.by()).unwrap();
    p.slave.ops().ioctl(&p.slave, ioctl::TIOCGPGRP, 8, &memory, &by.by()).unwrap();
    assert_eq!(memory.0.lock()[8..12], 2u32.to_ne_bytes());
    assert_eq!(read(&p.slave, &by), Err(AGAIN));
    assert!(by.task.taken().is_empty());
    memory.0.lock()[..8].copy_from_slice(&[24, 0, 80, 0, 0, 0, 0, 0]);
    p.master.ops().ioctl(&p.master, ioctl::TIOCSWINSZ, 0, &memory, &by.by()).unwrap();
    assert_eq!(by.task.taken(), [(2, Signal::SIGWINCH)]);
}

#[test]
fn closing_either_side() {
    let by = TestCaller::default();
    let p = pair(&by);
    write(&p.slave, b"last", &by).unwrap();
    drop(p.slave);
    assert_eq!(read(&p.master, &by), Ok(b"last".to_vec()));
    assert_eq!(read(&p.master, &by), Err(Failure::Errno(Errno::EIO)));
    assert!(p.master.ops().ready(Events::READABLE).contains(Events::HUP));
    let p = pair(&by);
    assert!(p.fs.get(0).is_some());
    drop(p.master);
    assert_eq!(read(&p.slave, &by), Ok(Vec::new()));
    assert_eq!(write(&p.slave, b"x", &by), Err(Failure::Errno(Errno::EIO)));
    assert!(p.slave.ops().ready(Events::READABLE).contains(Events::HUP | Events::IN));
}

#[test]
fn raw_reads_time_out() {
    let by = TestCaller::default();
    let p = pair(&by);
    let tty = p.slave.downcast::<SlaveFile>().unwrap().tty();
    {
        let mut inner = tty.inner.lock();
        let mut t = inner.ldisc.termios;
        t.lflag = 0;
        t.cc[super::termios::cc::VMIN] = 0;
        t.cc[super::termios::cc::VTIME] = 1;
        inner.ldisc.set_termios(t);
    }
    let ops = SlaveFile::open(tty, OpenFlags::RDWR, &by.by()).unwrap();
    let blocking = OpenFile::anonymous(ops, OpenFlags::RDWR);
    let before = std::time::Instant::now();
    assert_eq!(read(&blocking, &by), Ok(Vec::new()));
    assert!(before.elapsed() >= Duration::from_millis(99));
    write(&p.master, b"k", &by).unwrap();
    assert_eq!(read(&blocking, &by), Ok(b"k".to_vec()));
}

#[test]
fn host_terminal() {
    let by = TestCaller::default();
    let (outside, inside) = {
        let master =
            rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        let mut raw = rustix::termios::tcgetattr(&slave).unwrap();
        raw.make_raw();
        rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &raw).unwrap();
        (master, slave)
    };
    let terminals = Terminals::new();
    let fs = DevPts::new(&terminals, DevPtsOptions::default());
    let tty = fs.add_host(inside, crate::cred::Kuid(0)).unwrap();
    let ops = SlaveFile::open(&tty, OpenFlags::RDWR, &by.by()).unwrap();
    let slave = OpenFile::anonymous(ops, OpenFlags::RDWR);
    rustix::io::write(&outside, b"hi\r").unwrap();
    assert_eq!(read(&slave, &by), Ok(b"hi\n".to_vec()));
    write(&slave, b"ok\n", &by).unwrap();
    let mut got = Vec::new();
    while got.len() < 8 {
        let mut buf = [0; 100];
        let n = rustix::io::read(&outside, &mut buf).unwrap();
        got.extend_from_slice(&buf[..n]);
    }
    assert_eq!(got, b"hi\r\nok\r\n");
    drop(outside);
    assert_eq!(read(&slave, &by), Ok(Vec::new()));
}
