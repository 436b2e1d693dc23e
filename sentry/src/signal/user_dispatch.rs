//! Syscall user dispatch (prctl(2), PR_SET_SYSCALL_USER_DISPATCH; the kernel's syscall-user-dispatch document):
//! a thread has its own system calls turned into SIGSYS, unless they come from one range of code or a byte in
//! its memory lets them pass. Emulators of other systems use it. Looked at before tracers and seccomp.

use super::send;
use crate::process::WaitStatus;
use crate::seccomp::Verdict;
use crate::task::Cx;
use abi::ptrace::AUDIT_ARCH_X86_64;
use abi::siginfo::{SigInfo, code};
use abi::signal::Signal;
use abi::{Errno, SysResult, UserAddr};
use platform::SyscallArgs;

/// PR_SYS_DISPATCH_OFF, _ON; SYSCALL_DISPATCH_FILTER_ALLOW, _BLOCK.
const OFF: u64 = 0;
const ON: u64 = 1;
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;

/// What a thread has asked for. Not inherited by children, gone with execve(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserDispatch {
    /// Calls from `offset..offset + len` pass.
    offset: u64,
    len: u64,
    /// The byte that decides about all others; without one all are refused.
    selector: UserAddr,
}

/// prctl(PR_SET_SYSCALL_USER_DISPATCH): `EINVAL`, `EFAULT`.
pub fn set(cx: &mut Cx<'_>, mode: u64, offset: u64, len: u64, selector: u64) -> SysResult<()> {
    let dispatch = match mode {
        OFF if offset == 0 && len == 0 && selector == 0 => None,
        ON => {
            if offset != 0 && offset.checked_add(len).is_none_or(|end| end <= offset) {
                return Err(Errno::EINVAL);
            }
            if selector >= crate::loader::TASK_SIZE {
                return Err(Errno::EFAULT);
            }
            Some(UserDispatch { offset, len, selector: UserAddr::new(selector) })
        }
        _ => return Err(Errno::EINVAL),
    };
    cx.owned.personal.user_dispatch = dispatch;
    cx.owned.look_at_calls(cx.shared);
    crate::task::local_answers(cx);
    Ok(())
}

/// What becomes of a call.
pub fn check(cx: &mut Cx<'_>, call: &SyscallArgs) -> Verdict {
    let Some(dispatch) = cx.owned.personal.user_dispatch else { return Verdict::Make };
    if call.ip.wrapping_sub(dispatch.offset) < dispatch.len {
        return Verdict::Make;
    }
    if !dispatch.selector.is_null() {
        let mut state = [0];
        if cx.mm().read_bytes(dispatch.selector, &mut state).is_err() {
            return end(cx, SigInfo::kernel(Signal::SIGSEGV));
        }
        match state {
            [ALLOW] => return Verdict::Make,
            [BLOCK] => {}
            _ => return end(cx, SigInfo::kernel(Signal::SIGSYS)),
        }
    }
    let mut info = SigInfo::seccomp(call.ip, call.number, AUDIT_ARCH_X86_64, 0);
    info.code = code::SYS_USER_DISPATCH;
    // The handler finds the registers as before the call.
    cx.context.set_return(u64::from(call.number));
    send::force(cx.shared, &cx.owned.signal.handlers, info);
    Verdict::Skip
}

/// A selector that cannot be read or makes no sense: nobody may catch that.
fn end(cx: &mut Cx<'_>, info: SigInfo) -> Verdict {
    let signal = info.signal().unwrap_or(Signal::SIGKILL);
    let dumped = crate::process::core::dump(cx, signal, &info);
    let status = if dumped { WaitStatus::dumped(signal) } else { WaitStatus::killed(signal) };
    send::begin_exit(&mut cx.shared.process.state.lock(), status);
    Verdict::Skip
}
