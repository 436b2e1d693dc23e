//! mq_open(2), mq_unlink(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2), mq_getsetattr(2).

use crate::ipc::mqueue::{COOKIE, Cause, MQ_PRIO_MAX, MqAttr, MqFile, Notice, Queue, Registration};
use crate::process::limits::Resource;
use crate::signal::send::{self, Force};
use crate::syscalls::fs::open::install;
use crate::syscalls::time::timer::Sigevent;
use crate::task::Cx;
use crate::time::Clock;
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::time::Timespec;
use abi::{CallResult, Errno, Failure, Fd, SysResult, UserAddr, UserCStr, UserPtr};
use std::sync::Arc;
use vfs::{FsContext, Location, OpenFile, Walk};

const NAME_MAX: usize = 255;
const SI_MESGQ: i32 = -3;

/// A walk in the file system of the caller's ipc namespace.
fn in_queues<T>(cx: &Cx<'_>, act: impl FnOnce(&Walk<'_>) -> CallResult<T>) -> CallResult<T> {
    let root = Location::root_of(cx.owned.ns.ipc.mqueue_mount());
    let now = cx.fs().snapshot();
    let fs = FsContext { cwd: root.clone(), root, umask: now.umask, ns: Arc::clone(&now.ns) };
    let by = cx.caller();
    act(&Walk::new(&fs, &by))
}

fn name(cx: &Cx<'_>, name: UserCStr) -> SysResult<Vec<u8>> {
    let name = cx.path(name)?;
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name.contains(&b'/') || name == b"." || name == b".." {
        return Err(Errno::EACCES);
    }
    if name.len() > NAME_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(name) }
}

/// mq_open(2).
pub fn mq_open(
    cx: &mut Cx<'_>,
    path: UserCStr,
    flags: OpenFlags,
    mode: u32,
    attr: UserPtr<MqAttr>,
) -> CallResult<Fd> {
    let attr = if attr.is_null() { None } else { Some(cx.read(attr)?) };
    let name = name(cx, path)?;
    if flags.bits() & 3 == 3 {
        return Err(Errno::EINVAL.into());
    }
    let known =
        OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NONBLOCK;
    let limit = cx.shared.process.limits.lock().get(Resource::Msgqueue).soft;
    let queues = Arc::clone(&cx.owned.ns.ipc.mqueues);
    let tid = cx.shared.tid();
    queues.want(tid, attr, limit);
    let file = in_queues(cx, |walk| vfs::ops::open(walk, &name, flags & known, mode & 0o777));
    queues.unwant(tid);
    install(cx, file?, OpenFlags::CLOEXEC)
}

/// mq_unlink(2).
pub fn mq_unlink(cx: &mut Cx<'_>, path: UserCStr) -> CallResult<()> {
    let name = name(cx, path)?;
    in_queues(cx, |walk| Ok(vfs::ops::unlink(walk, &name)?))
}

fn queue(cx: &Cx<'_>, fd: Fd) -> SysResult<(Arc<OpenFile>, Arc<Queue>)> {
    let file = cx.files().get_io(fd)?;
    let queue = file.downcast::<MqFile>().map(|file| Arc::clone(&file.0)).ok_or(Errno::EBADF)?;
    Ok((file, queue))
}

fn deadline(cx: &Cx<'_>, timeout: UserPtr<Timespec>) -> SysResult<lock::Deadline> {
    if timeout.is_null() {
        return Ok(None);
    }
    Ok(Clock::Realtime.deadline(cx.read(timeout)?.to_duration()?))
}

fn late<T>(result: CallResult<T>) -> CallResult<T> {
    result.map_err(|failure| match failure {
        Failure::Errno(Errno::EAGAIN) => Failure::Errno(Errno::ETIMEDOUT),
        other => other,
    })
}

/// mq_timedsend(2).
pub fn mq_timedsend(
    cx: &mut Cx<'_>,
    fd: Fd,
    text: UserAddr,
    len: usize,
    prio: u32,
    timeout: UserPtr<Timespec>,
) -> CallResult<()> {
    let until = deadline(cx, timeout)?;
    if prio >= MQ_PRIO_MAX {
        return Err(Errno::EINVAL.into());
    }
    let (file, queue) = queue(cx, fd)?;
    if !file.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    if len > queue.msgsize {
        return Err(Errno::EMSGSIZE.into());
    }
    let mut bytes = vec![0; len];
    cx.mm().read_bytes(text, &mut bytes)?;
    let mut message = Some(bytes.into_boxed_slice());
    let told = if file.flags().contains(OpenFlags::NONBLOCK) {
        queue.send(prio, &mut message)?
    } else {
        let attempt = || queue.send(prio, &mut message);
        late(vfs::wait_until(&*queue, Events::WRITABLE, until, &cx.caller(), attempt))?
    };
    if let Some(told) = told {
        tell(cx, &told);
    }
    Ok(())
}

fn tell(cx: &Cx<'_>, told: &Registration) {
    told.notice.send_cookie(Cause::Woken);
    let (Some(owner), Notice::Signal { signal, value }) = (told.owner.upgrade(), &told.notice) else {
        return;
    };
    let pid = owner.pid.ns().map_or(0, |ns| cx.shared.process.pid.seen_in(ns));
    let uid = cx.cred().user_ns.show_uid(cx.cred().uid);
    let mut info = SigInfo::from_sender(*signal, SI_MESGQ, pid, uid);
    info.fields[1] = *value;
    // A process that is gone needs no notice.
    let _ = send::to_process(&owner, info, Force::Yes);
}

/// mq_timedreceive(2).
pub fn mq_timedreceive(
    cx: &mut Cx<'_>,
    fd: Fd,
    out: UserAddr,
    len: usize,
    prio: UserPtr<u32>,
    timeout: UserPtr<Timespec>,
) -> CallResult<usize> {
    let until = deadline(cx, timeout)?;
    let (file, queue) = queue(cx, fd)?;
    if !file.flags().readable() {
        return Err(Errno::EBADF.into());
    }
    if len < queue.msgsize {
        return Err(Errno::EMSGSIZE.into());
    }
    let (found, message) = if file.flags().contains(OpenFlags::NONBLOCK) {
        queue.receive()?
    } else {
        queue.count_reader(1);
        let result = vfs::wait_until(&*queue, Events::READABLE, until, &cx.caller(), || queue.receive());
        queue.count_reader(-1);
        late(result)?
    };
    cx.write_if(prio, &found)?;
    cx.mm().write_bytes(out, &message)?;
    Ok(message.len())
}

/// mq_notify(2).
pub fn mq_notify(cx: &mut Cx<'_>, fd: Fd, event: UserPtr<Sigevent>) -> CallResult<()> {
    const SIGNAL: i32 = 0;
    const NONE: i32 = 1;
    const THREAD: i32 = 2;
    let event = if event.is_null() { None } else { Some(cx.read(event)?) };
    let notice = match event {
        None => None,
        Some(event) if event.notify == NONE => Some(Notice::Nothing),
        Some(event) if event.notify == SIGNAL => {
            let number = u32::try_from(event.signo).map_err(|_| Errno::EINVAL)?;
            Some(Notice::Signal { signal: Signal::new(number)?, value: event.value })
        }
        Some(event) if event.notify == THREAD => {
            // The value points to the cookie, the signal's number is a netlink socket.
            let cookie: [u8; COOKIE] = cx.read(UserPtr::new(UserAddr::new(event.value)))?;
            let socket = cx.files().get(Fd::new(event.signo))?;
            net::socket::of(&socket)?;
            Some(Notice::Message { socket, cookie })
        }
        Some(_) => return Err(Errno::EINVAL.into()),
    };
    let (_, queue) = queue(cx, fd)?;
    let Some(notice) = notice else {
        queue.drop_notice(cx.shared.process.pid.root());
        return Ok(());
    };
    let owner = Arc::downgrade(&cx.shared.process);
    Ok(queue.register_notice(Registration { owner, notice })?)
}

/// mq_getsetattr(2).
pub fn mq_getsetattr(cx: &mut Cx<'_>, fd: Fd, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) -> CallResult<()> {
    let nonblock = i64::from(OpenFlags::NONBLOCK.bits());
    let new = if new.is_null() { None } else { Some(cx.read(new)?) };
    if new.is_some_and(|new| new.flags & !nonblock != 0) {
        return Err(Errno::EINVAL.into());
    }
    let (file, queue) = queue(cx, fd)?;
    let now = file.flags();
    let mut attr = queue.limits();
    attr.flags = i64::from((now & OpenFlags::NONBLOCK).bits());
    if let Some(new) = new {
        let mut flags = now & OpenFlags::SETTABLE;
        flags.set(OpenFlags::NONBLOCK, new.flags != 0);
        file.set_flags(flags, &cx.caller())?;
    }
    Ok(cx.write_if(old, &attr)?)
}
