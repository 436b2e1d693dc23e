//! What a verb fails with: one line that names the field or the path, and an exit status.

use sentry::control::{ControlError, ErrorKind};
use std::fmt;

/// A failed verb.
#[derive(Debug)]
pub(crate) struct Failure {
    /// One line.
    pub(crate) message: String,
    /// Exit status of the runtime.
    pub(crate) code: u8,
}

/// What verbs return.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// With exit status 1, as nearly everything.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 1 }
    }

    /// The same failure, with words in front.
    pub(crate) fn within(self, what: impl fmt::Display) -> Failure {
        Failure { message: format!("{what}: {}", self.message), code: self.code }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Failure {
        let code = match error.kind {
            ErrorKind::ProgramNotFound => 127,
            ErrorKind::ProgramRefused => 126,
            _ => 1,
        };
        Failure { message: error.message, code }
    }
}

/// Says what was being done when a host call failed.
pub(crate) trait Doing<T> {
    /// Puts `what` in front of the error.
    fn doing<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Outcome<T>;
}

impl<T, E: HostError> Doing<T> for Result<T, E> {
    fn doing<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Outcome<T> {
        self.map_err(|error| Failure::new(format!("{}: {}", what(), error.words())))
    }
}

/// Errors of the host, in the words of strerror(3).
pub(crate) trait HostError {
    /// One phrase, in lower case as Go's runtimes print it.
    fn words(&self) -> String;
}

impl HostError for std::io::Error {
    fn words(&self) -> String {
        match self.raw_os_error() {
            Some(raw) => abi::Errno::from_raw(raw).text().to_lowercase(),
            None => self.to_string(),
        }
    }
}

impl HostError for rustix::io::Errno {
    fn words(&self) -> String {
        abi::Errno::from_raw(self.raw_os_error()).text().to_lowercase()
    }
}

impl HostError for nix::errno::Errno {
    fn words(&self) -> String {
        self.desc().to_lowercase()
    }
}

impl HostError for abi::Errno {
    fn words(&self) -> String {
        self.text().to_lowercase()
    }
}

impl HostError for serde_json::Error {
    fn words(&self) -> String {
        self.to_string()
    }
}

impl HostError for Failure {
    fn words(&self) -> String {
        self.message.clone()
    }
}
