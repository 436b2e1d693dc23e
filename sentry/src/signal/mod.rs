//! Signals (signal(7)): actions, pending queues, sending, delivery.
//!
//! Ranks: `SignalHandlers`, then `SignalPending`. Who sends never waits for who receives.

pub mod altstack;
pub mod deliver;
pub mod frame;
pub mod handlers;
pub mod pending;
pub mod send;
pub mod sigio;
mod source;
pub mod terminal;
pub mod user_dispatch;

pub use handlers::{Disposition, SignalHandlers};
pub use pending::Pending;
pub use source::signal_source;
