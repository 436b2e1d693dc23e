//! How an interrupted call goes on. Not errnos: only the kernel's dispatch turns one into `EINTR`.

use crate::Errno;

/// The kinds of restart (signal(7), "Interruption of system calls"; the kernel's ERESTART* codes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Restart if the handler has SA_RESTART or there is no handler (ERESTARTSYS).
    Sys,
    /// Restart always, with or without a handler (ERESTARTNOINTR).
    NoIntr,
    /// Restart only if no handler ran (ERESTARTNOHAND).
    NoHand,
    /// Restart through restart_syscall(2) with the time that is left, only if no handler ran
    /// (ERESTART_RESTARTBLOCK). The call left its state with the task.
    Block,
}

/// Why a call that may block did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It failed.
    Errno(Errno),
    /// It was interrupted before it had an effect.
    Restart(Restart),
}

/// What calls that may block return.
pub type CallResult<T> = Result<T, Failure>;

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Errno(errno)
    }
}
impl From<Restart> for Failure {
    fn from(restart: Restart) -> Failure {
        Failure::Restart(restart)
    }
}
