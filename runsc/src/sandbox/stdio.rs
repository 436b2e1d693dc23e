//! Which descriptors a process of the guest gets.

use super::console::{self, Pty};
use super::launch::Descriptors;
use crate::error::{Doing, Failure, Outcome};
use oci_spec::runtime::Process;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Descriptors and, with a terminal, the end that stays outside.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// For the guest.
    pub(crate) descriptors: Descriptors,
    /// The master, unless it went to a console socket.
    pub(crate) master: Option<OwnedFd>,
}

/// Whether the runtime stays in front of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// It relays a terminal and waits.
    Attached,
    /// It returns.
    Detached,
}

/// Duplicates what the runtime was started with, or makes a terminal.
pub(crate) fn prepare(
    process: &Process,
    console_socket: Option<&Path>,
    preserved: Vec<OwnedFd>,
    presence: Presence,
) -> Outcome<Prepared> {
    if !process.terminal().unwrap_or(false) {
        if console_socket.is_some() {
            return Err(Failure::new("--console-socket: process.terminal is false"));
        }
        let stdio = own_stdio()?;
        return Ok(Prepared {
            descriptors: Descriptors { stdio, preserved, ..Descriptors::default() },
            master: None,
        });
    }
    let size = process.console_size().as_ref().map(|size| {
        let cut = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        (cut(size.height()), cut(size.width()))
    });
    let Pty { master, slave } = console::open(size)?;
    let descriptors = Descriptors { stdio: vec![slave], preserved, ..Descriptors::default() };
    let master = match (console_socket, presence) {
        (Some(socket), _) => {
            console::send_master(socket, &master)?;
            None
        }
        (None, Presence::Attached) => Some(master),
        (None, Presence::Detached) => {
            return Err(Failure::new("process.terminal: needs --console-socket when detached"));
        }
    };
    Ok(Prepared { descriptors, master })
}

fn own_stdio() -> Outcome<Vec<OwnedFd>> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    [input.as_fd(), output.as_fd(), error.as_fd()]
        .into_iter()
        .map(|fd| fd.try_clone_to_owned().doing(|| "standard input and output"))
        .collect()
}

/// Most descriptors that can be passed on.
const MOST: u32 = 200;

/// The descriptors from 3 on that the caller passes. To be asked before anything else is opened: a file of
/// ours under such a number must not be taken for the caller's.
pub(crate) fn preserved(count: u32) -> Outcome<Vec<OwnedFd>> {
    if count > MOST {
        return Err(Failure::new(format!("--preserve-fds: {count} is more than {MOST}")));
    }
    let count = i32::try_from(count).unwrap_or(0);
    (3..count.saturating_add(3))
        .map(|number| {
            let copy = platform::spawn::inherited(number, count.saturating_add(3));
            copy.doing(|| format!("--preserve-fds: descriptor {number}"))
        })
        .collect()
}

/// Sockets that the caller opened for the container (sd_listen_fds(3)): they come before `--preserve-fds`.
pub(crate) fn listening() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i64>().ok());
    let ours = number("LISTEN_PID") == Some(i64::from(rustix::process::getpid().as_raw_pid()));
    let count = number("LISTEN_FDS").filter(|_| ours).and_then(|count| u32::try_from(count).ok());
    count.unwrap_or(0)
}
