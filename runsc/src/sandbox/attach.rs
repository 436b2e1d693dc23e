//! `run` and `exec` with a terminal and no console socket: the caller's terminal, raw, is joined to the
//! master of the guest's.

use super::console::raw;
use super::monitor::{Awaited, Came, Signals};
use crate::error::Outcome;
use ::sentry::control::ExitStatus;
use ::sentry::control::client::Client;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use std::os::fd::{AsFd, OwnedFd};

/// The caller's terminal, given back as it was.
struct Restored(Option<Termios>);

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Drain, before);
        }
    }
}

/// Copies the window size of the caller's terminal.
pub(crate) fn copy_size(master: &OwnedFd) {
    for fd in [std::io::stdin().as_fd(), std::io::stdout().as_fd()] {
        if let Ok(size) = tcgetwinsize(fd) {
            let _ = tcsetwinsize(master, size);
            return;
        }
    }
}

/// Relays until the process has ended and its last output is out.
pub(crate) fn relay(
    client: &mut Client,
    awaited: &mut Awaited,
    signals: &Signals,
    master: &OwnedFd,
) -> Outcome<ExitStatus> {
    let _restored = Restored(tcgetattr(std::io::stdin().as_fd()).ok());
    let _ = raw(std::io::stdin().as_fd());
    let mut pending: Vec<u8> = Vec::new();
    let mut input_open = true;
    let mut output_open = true;
    loop {
        let wants = |on: bool, flags: PollFlags| if on { flags } else { PollFlags::empty() };
        let input = std::io::stdin();
        let mut fds = [
            PollFd::from_borrowed_fd(client.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN),
            PollFd::new(
                master,
                wants(output_open, PollFlags::IN) | wants(!pending.is_empty(), PollFlags::OUT),
            ),
            PollFd::from_borrowed_fd(input.as_fd(), wants(input_open && pending.is_empty(), PollFlags::IN)),
        ];
        // A descriptor that is not asked about still reports hang-ups: leave those out.
        let count = if input_open && pending.is_empty() { 4 } else { 3 };
        let early = awaited.ended_already(client);
        if let Some(fds) = fds.get_mut(..count).filter(|_| !early) {
            let _ = poll(fds, None);
        }
        let [spoken, signalled, output, typed] = fds.map(|fd| fd.revents());
        if !signalled.is_empty() {
            while let Some(came) = signals.next() {
                if came == Came::Window {
                    copy_size(master);
                }
                awaited.signal(client, came);
            }
        }
        if output.intersects(PollFlags::OUT) {
            push(master, &mut pending);
        }
        if output.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && output_open {
            output_open = pump(master);
        }
        if count == 4 && !typed.is_empty() {
            input_open = take(&mut pending);
            if !input_open {
                // End of input: what a person types for it.
                pending.push(4);
            }
        }
        if (early || !spoken.is_empty())
            && let Some(status) = awaited.ended(client)
        {
            return Ok(status);
        }
    }
}

/// After the end: what the guest wrote last. The sandbox' slave is closed by now, so the end comes.
pub(crate) fn drain(master: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(master, PollFlags::IN)];
        let soon = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match poll(&mut fds, Some(&soon)) {
            Ok(0) => return,
            Err(Errno::INTR) => {}
            _ if pump(master) => {}
            _ => return,
        }
    }
}

fn push(master: &OwnedFd, pending: &mut Vec<u8>) {
    // A small piece never blocks once poll said there is room.
    let piece = pending.get(..pending.len().min(256)).unwrap_or_default();
    if let Ok(written) = rustix::io::write(master, piece) {
        pending.drain(..written);
    }
}

/// Moves output on; false at its end.
fn pump(master: &OwnedFd) -> bool {
    let mut buffer = [0_u8; 8192];
    match rustix::io::read(master, &mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            let mut rest = buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                match rustix::io::write(std::io::stdout().as_fd(), rest) {
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    Err(Errno::INTR) => {}
                    Err(_) => return true,
                }
            }
            true
        }
        Err(Errno::INTR | Errno::AGAIN) => true,
        Err(_) => false,
    }
}

fn take(pending: &mut Vec<u8>) -> bool {
    let mut buffer = [0_u8; 1024];
    match rustix::io::read(std::io::stdin().as_fd(), &mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            pending.extend_from_slice(buffer.get(..length).unwrap_or_default());
            true
        }
        Err(Errno::INTR | Errno::AGAIN) => true,
        Err(_) => false,
    }
}
