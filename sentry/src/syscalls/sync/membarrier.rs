//! membarrier(2).

use crate::task::Cx;
use abi::{CallResult, Errno};

const QUERY: u32 = 0;
const GLOBAL: u32 = 1;
const GLOBAL_EXPEDITED: u32 = 2;
const REGISTER_GLOBAL_EXPEDITED: u32 = 4;
const PRIVATE_EXPEDITED: u32 = 8;
const REGISTER_PRIVATE_EXPEDITED: u32 = 16;
const SUPPORTED: u32 =
    GLOBAL | GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED | PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED;

/// membarrier(2): every other thread of the process is made to enter and leave the kernel, which is a
/// full barrier on its processor.
pub fn membarrier(cx: &mut Cx<'_>, command: u32, flags: u32, _cpu: i32) -> CallResult<u32> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let marks = &cx.shared.process.marks.membarrier;
    let order = std::sync::atomic::Ordering::Relaxed;
    match command {
        QUERY => return Ok(SUPPORTED),
        REGISTER_GLOBAL_EXPEDITED => {}
        REGISTER_PRIVATE_EXPEDITED => marks.store(true, order),
        PRIVATE_EXPEDITED if !marks.load(order) => return Err(Errno::EPERM.into()),
        PRIVATE_EXPEDITED => {
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            interrupt(cx, cx.shared.process.threads());
        }
        GLOBAL | GLOBAL_EXPEDITED => {
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            let all: Vec<_> = cx.kernel().tree.lock().tasks().cloned().collect();
            interrupt(cx, all);
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn interrupt(cx: &Cx<'_>, tasks: Vec<std::sync::Arc<crate::task::TaskShared>>) {
    let others: Vec<_> = tasks.into_iter().filter(|t| !std::sync::Arc::ptr_eq(t, cx.shared)).collect();
    let before: Vec<_> = others.iter().map(|task| task.entries()).collect();
    for task in &others {
        task.interrupt_guest();
    }
    for (task, entries) in others.iter().zip(before) {
        // A thread that is in the kernel, or has been since, has passed a barrier.
        while task.mode() == crate::task::RunMode::Guest && task.entries() == entries {
            std::thread::yield_now();
        }
    }
}
