//! One system call from decode to return value: decode, trace, call, restart.
//!
//! The only place where a [`Restart`] becomes `EINTR` is signal delivery (`signal::deliver`), which
//! reads what [`dispatch`] leaves in `TaskOwned::restart`.

use super::table::{self, Entry};
use super::trace::Line;
use crate::task::Cx;
use abi::{CallResult, Errno, Failure, Restart};
use platform::SyscallArgs;

/// What the loop does after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The return register holds this.
    Return(u64),
    /// It was interrupted: restart or EINTR, as signal delivery decides.
    Interrupted(Restart),
    /// Registers are already as the guest shall find them (execve, rt_sigreturn).
    Keep,
}

/// Runs one call.
pub fn dispatch(cx: &mut Cx<'_>, call: &SyscallArgs) -> Outcome {
    let entry = table::find(call.number);
    let tracing = cx.kernel().trace.is_on();
    let started = if tracing { entry.map(|entry| start_line(cx, entry, call)) } else { None };
    cx.owned.keep_registers = false;
    vfs::moment::begin();
    let result = match entry {
        Some(entry) => (entry.call)(cx, &call.args),
        None => {
            cx.kernel().trace.unknown(call.number, cx);
            Err(Failure::Errno(Errno::ENOSYS))
        }
    };
    vfs::moment::end();
    vfs::notify::flush();
    vfs::sigio::flush();
    if tracing {
        end_line(cx, started, call, &result);
    }
    match result {
        Ok(_) if cx.owned.keep_registers => Outcome::Keep,
        Ok(value) => Outcome::Return(value),
        Err(Failure::Errno(errno)) => Outcome::Return(errno.as_return()),
        Err(Failure::Restart(kind)) => Outcome::Interrupted(kind),
    }
}

fn start_line(cx: &Cx<'_>, entry: &Entry, call: &SyscallArgs) -> String {
    let mut line = Line { text: String::new(), memory: cx.mm() };
    line.push(format_args!("{}(", entry.name()));
    (entry.trace)(&mut line, &call.args);
    line.text
}

fn end_line(cx: &Cx<'_>, started: Option<String>, call: &SyscallArgs, result: &CallResult<u64>) {
    let mut text = started.unwrap_or_else(|| format!("syscall_{}({:#x?}", call.number, call.args));
    text.push_str(") = ");
    match result {
        Ok(value) if *value > 0xffff => text.push_str(&format!("{value:#x}")),
        Ok(value) => text.push_str(&value.to_string()),
        Err(Failure::Errno(errno)) => text.push_str(&format!("-1 {errno:?} ({})", errno.text())),
        Err(Failure::Restart(kind)) => text.push_str(&format!("? {kind:?}")),
    }
    cx.kernel().trace.line(cx.shared.tid(), &cx.owned.comm_text(), &text);
}
