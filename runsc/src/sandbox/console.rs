//! Pseudo-terminals: the host's pair, of which the guest's own terminal holds the slave in raw mode.

use super::launch::with_short_path;
use crate::error::{Doing, Failure, Outcome};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A host pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    /// For the person.
    pub(crate) master: OwnedFd,
    /// For the sandbox, in raw mode.
    pub(crate) slave: OwnedFd,
}

/// Makes one; `size` is (rows, columns).
pub(crate) fn open(size: Option<(u16, u16)>) -> Outcome<Pty> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).doing(|| "/dev/ptmx")?;
    grantpt(&master).doing(|| "grantpt")?;
    unlockpt(&master).doing(|| "unlockpt")?;
    let slave = ioctl_tiocgptpeer(&master, flags).doing(|| "opening the terminal's slave")?;
    raw(slave.as_fd())?;
    if let Some((rows, columns)) = size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).doing(|| "process.consoleSize")?;
    }
    Ok(Pty { master, slave })
}

/// Puts a terminal into raw mode.
pub(crate) fn raw(terminal: BorrowedFd<'_>) -> Outcome<()> {
    let mut attributes = tcgetattr(terminal).doing(|| "tcgetattr")?;
    attributes.make_raw();
    tcsetattr(terminal, OptionalActions::Now, &attributes).doing(|| "tcsetattr")
}

/// Sends the master to whoever listens on `--console-socket`, with its name as payload.
pub(crate) fn send_master(socket: &Path, master: &OwnedFd) -> Outcome<()> {
    let what = || format!("--console-socket {}", socket.display());
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .doing(|| "socket")?;
    with_short_path(socket, |address| rustix::net::connect(&fd, address).doing(what))?;
    let name = ptsname(master, Vec::new()).doing(|| "ptsname")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let rights = [master.as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&rights)) {
        return Err(Failure::new(what()));
    }
    rustix::net::sendmsg(&fd, &[IoSlice::new(name.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)
        .doing(what)?;
    Ok(())
}
