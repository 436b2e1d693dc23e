//! Steps of `spawn`, each in a child of its own. One thread, so no test harness. Needs root.
#![expect(clippy::unwrap_used, reason = "a test program")]

use platform::spawn::{
    self, Child, IdMap, SetGroups, Unshare, become_ids, check_no_directories, die_with_parent, empty_root,
    fork, keep_capabilities, new_session, reset_signals, write_id_maps,
};
use std::io::{Read, Write};
use std::os::fd::AsFd;

fn status(child: &Child) -> i32 {
    let pid = rustix::process::Pid::from_raw(child.pid);
    let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    status.unwrap().unwrap().1.exit_status().unwrap_or(-1)
}

fn expect(name: &str, unshare: Unshare, work: impl FnOnce() -> Result<(), abi::Errno>) {
    let child = fork(unshare, || match work() {
        Ok(()) => 0,
        Err(error) => u8::try_from(error.raw()).unwrap_or(255),
    });
    assert_eq!(status(&child.unwrap()), 0, "{name}");
}

fn check(ok: bool) -> Result<(), abi::Errno> {
    if ok { Ok(()) } else { Err(abi::Errno::EPROTO) }
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    expect("empty root", Unshare::MOUNT, || {
        empty_root()?;
        let names = std::fs::read_dir("/").map_err(abi::Errno::from)?.count();
        check(names == 0)?;
        check(std::fs::write("/x", "").is_err())?;
        check(std::fs::read_dir("/..").map_err(abi::Errno::from)?.count() == 0)
    });
    expect("session", Unshare::empty(), || {
        new_session(None)?;
        check(rustix::process::getsid(None) == Ok(rustix::process::getpid()))
    });
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    expect("signals", Unshare::empty(), || {
        reset_signals()?;
        die_with_parent(parent)?;
        check(die_with_parent(1) == Err(abi::Errno::ESRCH) || parent == 1)
    });
    expect("directories", Unshare::empty(), || {
        spawn::close_all_except(&[])?;
        check_no_directories(64)?;
        let root = std::fs::File::open("/").map_err(abi::Errno::from)?;
        let found = check_no_directories(64);
        drop(root);
        check(found == Err(abi::Errno::ENOTEMPTY))
    });
    ids();
}

fn ids() {
    let (mut wait, mut go) = std::io::pipe().unwrap();
    let child = fork(Unshare::USER | Unshare::MOUNT | Unshare::PID | Unshare::NET, || {
        let mut steps = || -> Result<(), abi::Errno> {
            wait.read_exact(&mut [0]).map_err(abi::Errno::from)?;
            become_ids(0, 0, SetGroups::Deny)?;
            empty_root()?;
            become_ids(65534, 65534, SetGroups::Deny)?;
            keep_capabilities(0)?;
            check(rustix::process::getuid().as_raw() == 65534)?;
            check(rustix::process::getpid().as_raw_nonzero().get() == 1)?;
            check(empty_root().is_err())
        };
        u8::from(steps().is_err())
    })
    .unwrap();
    let map = [IdMap { inside: 0, outside: 0, count: 1 }, IdMap { inside: 65534, outside: 65534, count: 1 }];
    let proc = std::fs::File::open("/proc").unwrap();
    write_id_maps(proc.as_fd(), child.pid, &map, &map, SetGroups::Deny).unwrap();
    go.write_all(b"!").unwrap();
    assert_eq!(status(&child), 0, "ids");
}
