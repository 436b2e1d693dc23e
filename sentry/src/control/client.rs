//! The runtime's end of the control socket.

use super::message::{Answer, Ask, ControlError, ErrorKind, Reply, Request, receive, send};
use super::{ControlResult, ExitStatus};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a monitor is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Its process has ended.
    Ended(ExitStatus),
    /// The memory limit of its container has cost a process.
    OutOfMemory {
        /// How often by now.
        times: u64,
    },
    /// The answer to something else.
    Other,
}

/// One connection to a sandbox.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    next: u64,
    early: Vec<Reply>,
    gone: bool,
}

impl Client {
    /// Over a connected socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Client {
        Client { socket, next: 1, early: Vec::new(), gone: false }
    }

    /// For poll(2): readable when an answer has come or the sandbox is gone.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a request and does not wait; returns its number.
    pub fn post(&mut self, body: Ask, fds: &[BorrowedFd<'_>]) -> ControlResult<u64> {
        let number = self.next;
        self.next += 1;
        send(self.socket.as_fd(), &Request { number, body }, fds).map_err(lost)?;
        Ok(number)
    }

    /// Waits for the answer to request `number`.
    pub fn answer(&mut self, number: u64) -> ControlResult<Answer> {
        if let Some(at) = self.early.iter().position(|reply| reply.number == number) {
            return open(self.early.swap_remove(at).body);
        }
        loop {
            let reply = self.take()?;
            if reply.number == number {
                return open(reply.body);
            }
            self.early.push(reply);
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, body: Ask, fds: &[BorrowedFd<'_>]) -> ControlResult<Answer> {
        let number = self.post(body, fds)?;
        self.answer(number)
    }

    /// A request whose answer is only that it was done.
    pub fn order(&mut self, body: Ask) -> ControlResult<()> {
        match self.ask(body, &[])? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether the sandbox was found gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    fn take(&mut self) -> ControlResult<Reply> {
        match receive::<Reply>(self.socket.as_fd()) {
            Ok(Some((reply, _))) => Ok(reply),
            Ok(None) => {
                self.gone = true;
                Err(gone())
            }
            Err(error) => {
                self.gone = true;
                Err(lost(error))
            }
        }
    }

    /// Whether the answer to `number` has come while another was waited for.
    #[must_use]
    pub fn came_early(&self, number: u64) -> bool {
        self.early.iter().any(|reply| reply.number == number)
    }

    /// Takes one message, which must be there: what it says of the posted `Wait` of number `end` and the posted
    /// `AwaitOom` of number `oom`. Answers to anything else are dropped.
    pub fn next_event(&mut self, end: u64, oom: Option<u64>) -> ControlResult<Event> {
        let known = |reply: &Reply| reply.number == end || Some(reply.number) == oom;
        let reply = match self.early.iter().position(known) {
            Some(at) => self.early.remove(at),
            None => self.take()?,
        };
        if !known(&reply) {
            return Ok(Event::Other);
        }
        match reply.body {
            Answer::Ended { status } if reply.number == end => Ok(Event::Ended(status)),
            Answer::OutOfMemory { times } => Ok(Event::OutOfMemory { times }),
            // Whoever cannot be told of memory is told of the end.
            _ if reply.number != end => Ok(Event::Other),
            other => Err(open(other).map_or_else(|error| error, |answer| unexpected(&answer))),
        }
    }

    /// An order that may end the sandbox before it can answer.
    pub fn last_order(&mut self, body: Ask) -> ControlResult<()> {
        let number = self.post(body, &[])?;
        match self.answer(number) {
            Err(error) if error.kind == ErrorKind::Gone => Ok(()),
            Err(error) => Err(error),
            Ok(Answer::Done) => Ok(()),
            Ok(other) => Err(unexpected(&other)),
        }
    }

    /// Waits until the posted `Wait` of that number is answered.
    pub fn ended(&mut self, number: u64) -> ControlResult<ExitStatus> {
        match self.answer(number)? {
            Answer::Ended { status } => Ok(status),
            other => Err(unexpected(&other)),
        }
    }
}

/// What an answer of the wrong kind becomes.
#[must_use]
pub fn unexpected(answer: &Answer) -> ControlError {
    ControlError::new(ErrorKind::Failed, format!("sandbox gave an unexpected answer: {answer:?}"))
}

fn open(answer: Answer) -> ControlResult<Answer> {
    match answer {
        Answer::Failed { error } => Err(error),
        answer => Ok(answer),
    }
}

fn lost(error: std::io::Error) -> ControlError {
    ControlError::new(ErrorKind::Gone, format!("sandbox process is gone: {error}"))
}

fn gone() -> ControlError {
    ControlError::new(ErrorKind::Gone, "sandbox process is gone: container not running")
}
