//! msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use super::{INFO, RMID, SET, STAT, shown};
use crate::ipc::msg::{self, MAX_MESSAGE, MAX_QUEUE, Queue};
use crate::ipc::{NOWAIT, PermStat};
use crate::task::Cx;
use abi::poll::Events;
use abi::{CallResult, Errno, Failure, Restart, SysResult, UserAddr, UserPtr};
use std::sync::Arc;
use vfs::{Capabilities, wait_until};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// msgget(2).
pub fn msgget(cx: &mut Cx<'_>, key: i32, flags: u32) -> CallResult<i32> {
    cx.owned.ns.ipc.msg.lock().most = super::most(cx, "kernel/msgmni");
    Ok(msg::get(&cx.owned.ns.ipc, key, flags, cx.cred())?)
}

/// Sleeps until `attempt` gives something; these calls are never restarted after a handler (signal(7)).
fn wait<T>(
    cx: &Cx<'_>,
    queue: &Queue,
    flags: u32,
    empty: Errno,
    attempt: impl FnMut() -> SysResult<T>,
) -> CallResult<T> {
    let mut attempt = attempt;
    if flags & NOWAIT != 0 {
        return attempt().map_err(|errno| if errno == Errno::EAGAIN { empty } else { errno }.into());
    }
    let by = cx.caller();
    match wait_until(queue, Events::READABLE | Events::WRITABLE, None, &by, attempt) {
        Err(Failure::Restart(_)) => Err(Failure::Restart(Restart::NoHand)),
        other => other,
    }
}

/// msgsnd(2).
pub fn msgsnd(cx: &mut Cx<'_>, id: i32, message: UserAddr, len: usize, flags: u32) -> CallResult<()> {
    let kind: i64 = cx.read(UserPtr::new(message))?;
    if len > MAX_MESSAGE {
        return Err(Errno::EINVAL.into());
    }
    if kind < 1 {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; len];
    cx.mm().read_bytes(message.checked_add(8)?, &mut bytes)?;
    let ns = Arc::clone(&cx.owned.ns.ipc);
    let queue = ns.msg.lock().find(id)?;
    let who = (&**cx.cred(), cx.shared.process.pid.root());
    wait(cx, &queue, flags, Errno::EAGAIN, || queue.send(&ns, kind, &bytes, who))
}

/// msgrcv(2).
pub fn msgrcv(
    cx: &mut Cx<'_>,
    id: i32,
    message: UserAddr,
    len: usize,
    kind: i64,
    flags: u32,
) -> CallResult<usize> {
    const COPY: u32 = 0o40000;
    const EXCEPT: u32 = 0o20000;
    if i64::try_from(len).is_err() {
        return Err(Errno::EINVAL.into());
    }
    if flags & COPY != 0 && (flags & EXCEPT != 0 || flags & NOWAIT == 0) {
        return Err(Errno::EINVAL.into());
    }
    let ns = Arc::clone(&cx.owned.ns.ipc);
    let queue = ns.msg.lock().find(id)?;
    let who = (&**cx.cred(), cx.shared.process.pid.root());
    let (kind, bytes) = wait(cx, &queue, flags, Errno::ENOMSG, || queue.receive(&ns, kind, len, flags, who))?;
    cx.write(UserPtr::new(message), &kind)?;
    cx.mm().write_bytes(message.checked_add(8)?, &bytes)?;
    Ok(bytes.len())
}

/// `struct msqid64_ds`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MsgStat {
    perm: PermStat,
    times: [i64; 3],
    bytes: u64,
    count: u64,
    limit: u64,
    lspid: u32,
    lrpid: u32,
    unused: [u64; 2],
}

const MSG_STAT: u32 = 11;
const MSG_INFO: u32 = 12;
const MSG_STAT_ANY: u32 = 13;

/// msgctl(2).
pub fn msgctl(cx: &mut Cx<'_>, id: i32, command: u32, at: UserAddr) -> CallResult<i32> {
    let ns = Arc::clone(&cx.owned.ns.ipc);
    if command == INFO || command == MSG_INFO {
        let count = ns.msg.lock().iter().count();
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let max = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        let words = [count, count, 0, max(MAX_MESSAGE), max(MAX_QUEUE), 32_000, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word: &i32| word.to_le_bytes()).collect();
        cx.mm().write_bytes(at, &bytes)?;
        return Ok(count.saturating_sub(1).max(0));
    }
    let queue = if command == MSG_STAT || command == MSG_STAT_ANY {
        let index = usize::try_from(id).map_err(|_| Errno::EINVAL)?;
        let table = ns.msg.lock();
        let found = table.iter().nth(index).map(|(_, queue)| Arc::clone(queue));
        found.ok_or(Errno::EINVAL)?
    } else {
        ns.msg.lock().find(id)?
    };
    let perm = queue.state.lock().perm;
    match command {
        STAT | MSG_STAT | MSG_STAT_ANY => {
            if command != MSG_STAT_ANY {
                perm.check(4, cx.cred(), &ns)?;
            }
            let value = stat(cx, &queue);
            cx.write(UserPtr::new(at), &value)?;
            return Ok(if command == STAT { 0 } else { queue.id });
        }
        SET => {
            perm.check_owner(cx.cred(), &ns)?;
            let new: MsgStat = cx.read(UserPtr::new(at))?;
            let limit = usize::try_from(new.limit).map_err(|_| Errno::EINVAL)?;
            if limit > MAX_QUEUE && !cx.cred().has(Capabilities::SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            let mut state = queue.state.lock();
            state.perm.set(&new.perm, cx.cred())?;
            state.limit = limit;
            state.times[2] = crate::ipc::now();
            drop(state);
            queue.changed();
        }
        RMID => {
            perm.check_owner(cx.cred(), &ns)?;
            let gone = ns.msg.lock().remove(id);
            queue.state.lock().removed = true;
            queue.changed();
            drop(gone);
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn stat(cx: &Cx<'_>, queue: &Queue) -> MsgStat {
    let word = |value: usize| u64::try_from(value).unwrap_or(0);
    let state = queue.state.lock();
    let pids = state.pids;
    let value = MsgStat {
        perm: state.perm.stat(queue.id, 0, cx.cred()),
        times: state.times,
        bytes: word(state.bytes),
        count: word(state.count()),
        limit: word(state.limit),
        lspid: 0,
        lrpid: 0,
        unused: [0; 2],
    };
    drop(state);
    MsgStat { lspid: shown(cx, pids[0]), lrpid: shown(cx, pids[1]), ..value }
}
