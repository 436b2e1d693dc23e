//! Terminals: pseudo-terminal pairs, the N_TTY line discipline, job control, devpts, and terminals whose
//! other side is a donated host terminal.
//!
//! A [`Tty`] is the terminal itself; [`files`] are its two open ends; [`Terminals`] knows which session it
//! controls. Rank: `Tty`; the calling task is asked, and signals are sent, without it.

pub mod files;
pub mod fs;
pub mod ldisc;
pub mod terminals;
pub mod termios;
#[cfg(test)]
mod tests;
pub mod tty;

pub use files::{MasterFile, SlaveFile};
pub use fs::{DevPts, DevPtsOptions, DevPtsType, register};
pub use terminals::{Terminals, TtySignals};
pub use tty::Tty;
