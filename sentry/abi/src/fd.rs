//! Descriptor numbers.

use crate::{Errno, SysResult};

/// A descriptor number as a guest gave it; any value, also a negative one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fd(i32);

impl Fd {
    /// Wraps a number.
    #[must_use]
    pub const fn new(number: i32) -> Fd {
        Fd(number)
    }
    /// The number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
    /// The number as an index; `EBADF` when negative.
    pub fn index(self) -> SysResult<usize> {
        usize::try_from(self.0).map_err(|_| Errno::EBADF)
    }
    /// From an index into a descriptor table; `EMFILE` when it is no valid number.
    pub fn from_index(index: usize) -> SysResult<Fd> {
        i32::try_from(index).map(Fd).map_err(|_| Errno::EMFILE)
    }
}

impl std::fmt::Display for Fd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a relative path starts: the `dirfd` argument of the `*at` calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DirFd {
    /// `AT_FDCWD`: the working directory.
    Cwd,
    /// An open directory.
    At(Fd),
}

impl DirFd {
    /// `AT_FDCWD`.
    pub const AT_FDCWD: i32 = -100;

    /// From the raw argument.
    #[must_use]
    pub const fn new(raw: i32) -> DirFd {
        if raw == DirFd::AT_FDCWD { DirFd::Cwd } else { DirFd::At(Fd(raw)) }
    }
}
