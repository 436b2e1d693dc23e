//! How guest code runs. THE ONLY CRATE WITH `unsafe`.
//!
//! The seam: a [`Platform`] makes [`AddressSpace`]s and [`Context`]s; `Context::run` enters the guest
//! and comes back with an [`Exit`]. Control flow is never an error value.
//!
//! Guest memory is one [`memory::MemoryFile`]; address spaces map pieces of it (or of a donated host
//! file) with [`AsOp`]s.
#![deny(unsafe_op_in_unsafe_fn)]

mod errand;
pub mod fake;
pub mod host;
pub mod memory;
pub mod post;
pub mod probe;
pub mod ptrace;
pub mod registers;
mod seam;
mod shared;
pub mod spawn;
mod stub;
pub mod systrap;

pub use registers::{Registers, ThreadState};
pub use seam::{
    Access, AddressSpace, AsOp, Backing, Context, DEAD, Exit, Interrupter, LocalAnswers, OpBatch, Platform,
    Prot, SyscallArgs, TextSource,
};
