//! Threads of guests.
//!
//! [`TaskShared`] is what others may touch, in an `Arc`; [`TaskOwned`] belongs to the thread's own host
//! thread and is passed by `&mut`, with its own copies of memory, descriptor table, file-system context
//! and credentials, so that hot paths take no lock. [`Cx`] is both, and the platform's context, for the
//! time of one system call.

pub mod clone;
mod context;
pub mod exec;
mod file_caps;
pub mod fs_context;
mod hosts;
pub mod memory;
mod owned;
pub mod run;
mod shared;
mod times;

pub use context::Cx;
pub use fs_context::FsContext;
pub use hosts::HostThreads;
pub use owned::{MceKill, OwnedSignal, Personal, Registered, StartEvent, TaskOwned, TimerSlack};
pub use run::current;
pub use shared::{Published, PublishedMarks, RunMode, TaskShared, Work};
pub use times::TaskTimes;

/// Tells the platform which constants it may answer without the kernel.
pub fn local_answers(cx: &mut Cx<'_>) {
    let dispatches = cx.owned.personal.user_dispatch.is_some();
    let looked_at = match &cx.owned.seccomp {
        None => cx.owned.watched,
        Some(filters) => dispatches || cx.shared.is_traced() || !filters.allow_local_answers(),
    };
    let answers = (!looked_at && !cx.kernel().trace.is_on()).then(|| {
        let cred = &cx.owned.cred;
        let ns = &cred.user_ns;
        platform::LocalAnswers {
            tgid: cx.shared.process.pid.own(),
            tid: cx.owned.pid.own(),
            ids: [
                ns.show_uid(cred.uid),
                ns.show_uid(cred.euid),
                ns.show_gid(cred.gid),
                ns.show_gid(cred.egid),
            ],
        }
    });
    cx.context.local_answers(answers);
}
