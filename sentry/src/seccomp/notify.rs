//! User notification (seccomp_unotify(2)): a supervisor with a listener descriptor answers for calls.
//!
//! A call waits as a note of its listener until it is answered, its thread is interrupted, or the listener
//! is closed. Rank `FileObject`; threads are woken without it.

use super::bpf::Data;
use crate::files::OnExec;
use crate::process::freezer;
use crate::process::limits::Resource;
use crate::task::{Cx, RunMode, TaskShared, Work};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::{Errno, Fd, Restart, SysResult, UserAddr};
use lock::order::FileObject;
use lock::{Ranked, WaitEntry, WaitQueue};
use mm::GuestMemory;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use vfs::{Attr, Caller, FileOps, OpenFile};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const RECV: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const ID_VALID: u32 = 0x4008_2102;
/// ID_VALID as it was first, with the direction wrong.
const ID_VALID_OLD: u32 = 0x8008_2102;
const ADDFD: u32 = 0x4018_2103;
const SET_FLAGS: u32 = 0x4008_2104;
/// SECCOMP_USER_NOTIF_FLAG_CONTINUE.
const CONTINUE: u32 = 1;
const ADDFD_SETFD: u32 = 1;
const ADDFD_SEND: u32 = 2;

/// `struct seccomp_notif`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Notif {
    id: u64,
    pid: u32,
    flags: u32,
    number: u32,
    arch: u32,
    ip: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

/// `struct seccomp_notif_sizes`, in bytes: notification, response, data.
pub(super) const SIZES: [u16; 3] = [80, 24, 64];

/// How a call was answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// With this in the return register.
    Return(i64),
    /// It is to be made after all.
    Continue,
    /// Not: its thread is interrupted.
    Interrupted(Restart),
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    New,
    Seen,
    Answered(Answer),
}

#[derive(Debug)]
struct Note {
    stage: Stage,
    data: Data,
    task: Weak<TaskShared>,
}

#[derive(Debug, Default)]
struct State {
    notes: BTreeMap<u64, Note>,
    next: u64,
    /// No thread has the filter any more.
    unused: bool,
    /// The descriptor is closed.
    closed: bool,
}

/// What a filter and its supervisor share.
#[derive(Debug)]
pub(super) struct Listener {
    state: Ranked<FileObject, State>,
    queue: WaitQueue,
    /// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
    killable: bool,
}

/// The filter's end of a listener: tells the supervisor when it goes.
#[derive(Debug)]
pub struct FilterEnd(pub(super) Arc<Listener>);

impl Drop for FilterEnd {
    fn drop(&mut self) {
        self.0.state.lock().unused = true;
        self.0.queue.wake(Events::HUP | Events::READABLE);
    }
}

/// A listener, and the file that a supervisor reads it through.
pub(super) fn create(killable: bool) -> (FilterEnd, Arc<OpenFile>) {
    let state = Ranked::new(State { next: 1, ..State::default() });
    let listener = Arc::new(Listener { state, queue: WaitQueue::new(), killable });
    let file = OpenFile::anonymous(Arc::new(ListenerFile(Arc::clone(&listener))), OpenFlags::RDWR);
    (FilterEnd(listener), file)
}

impl Listener {
    /// Waits for the supervisor's answer to the caller's call.
    pub(super) fn ask(&self, cx: &Cx<'_>, data: &Data) -> Answer {
        let id = {
            let mut state = self.state.lock();
            if state.closed {
                return Answer::Return(errno_value(Errno::ENOSYS));
            }
            let id = state.next;
            state.next += 1;
            let task = Arc::downgrade(cx.shared);
            state.notes.insert(id, Note { stage: Stage::New, data: *data, task });
            id
        };
        self.queue.wake(Events::READABLE);
        cx.shared.set_mode(RunMode::Sleeping);
        let answer = loop {
            let patient = {
                let state = self.state.lock();
                let stage = state.notes.get(&id).map(|note| note.stage);
                match stage {
                    // The listener was closed.
                    None => break Answer::Return(errno_value(Errno::ENOSYS)),
                    Some(Stage::Answered(answer)) => break answer,
                    Some(Stage::New) => false,
                    Some(Stage::Seen) => self.killable,
                }
            };
            let work = cx.shared.work();
            if work.contains(Work::KILL) || (!patient && !work.is_empty()) {
                break Answer::Interrupted(Restart::Sys);
            }
            if patient {
                freezer::rest_while(cx.shared, || self.is_seen(id));
            } else {
                let _ = cx.shared.parker().park(None);
            }
        };
        cx.shared.set_mode(RunMode::Kernel);
        self.state.lock().notes.remove(&id);
        answer
    }

    fn is_seen(&self, id: u64) -> bool {
        self.state.lock().notes.get(&id).is_some_and(|note| matches!(note.stage, Stage::Seen))
    }

    fn receive(&self, arg: UserAddr, memory: &dyn GuestMemory, by: &Caller<'_>) -> SysResult<()> {
        let mut old = [0; size_of::<Notif>()];
        memory.read(arg, &mut old)?;
        if old.iter().any(|byte| *byte != 0) {
            return Err(Errno::EINVAL);
        }
        let entry = WaitEntry::new(by.blocker.target(), Events::READABLE);
        self.queue.register(&entry);
        let taken = loop {
            let (taken, unused) = self.take();
            if let Some(taken) = taken {
                break Ok(taken);
            }
            if unused {
                break Err(Errno::ENOENT);
            }
            if by.blocker.block(None).is_err() {
                break Err(Errno::EINTR);
            }
        };
        self.queue.unregister(&entry);
        let (id, data, task) = taken?;
        let reader = crate::task::current();
        let ns = reader.as_ref().and_then(|reader| reader.process.pid.ns());
        let pid = match (task.upgrade(), ns) {
            (Some(task), Some(ns)) => task.published.lock().pid.seen_in(ns),
            _ => 0,
        };
        let Data { number, arch, ip, args } = data;
        let notif = Notif { id, pid, flags: 0, number, arch, ip, args };
        let written = memory.write(arg, notif.as_bytes());
        if written.is_err() {
            // Nobody has seen it: it stays to be received.
            if let Some(note) = self.state.lock().notes.get_mut(&id) {
                note.stage = Stage::New;
            }
        } else {
            self.queue.wake(Events::WRITABLE);
        }
        written
    }

    /// The oldest call that was not seen, which is then; and whether no more can come.
    fn take(&self) -> (Option<(u64, Data, Weak<TaskShared>)>, bool) {
        let mut state = self.state.lock();
        let unused = state.unused;
        let new = state.notes.iter_mut().find(|(_, note)| matches!(note.stage, Stage::New));
        let taken = new.map(|(id, note)| {
            note.stage = Stage::Seen;
            (*id, note.data, Weak::clone(&note.task))
        });
        (taken, unused)
    }

    /// The thread of a call that was seen and not answered: `ENOENT`, `EINPROGRESS`.
    fn seen(state: &State, id: u64) -> SysResult<Weak<TaskShared>> {
        let note = state.notes.get(&id).ok_or(Errno::ENOENT)?;
        if matches!(note.stage, Stage::Seen) { Ok(Weak::clone(&note.task)) } else { Err(Errno::EINPROGRESS) }
    }

    fn answer(&self, id: u64, answer: Answer) -> SysResult<()> {
        let task = {
            let mut state = self.state.lock();
            let task = Listener::seen(&state, id)?;
            if let Some(note) = state.notes.get_mut(&id) {
                note.stage = Stage::Answered(answer);
            }
            task
        };
        if let Some(task) = task.upgrade() {
            task.parker().unpark();
        }
        Ok(())
    }

    fn send(&self, response: &Response) -> SysResult<()> {
        if response.flags & !CONTINUE != 0 {
            return Err(Errno::EINVAL);
        }
        let answer = if response.flags & CONTINUE != 0 {
            if response.error != 0 || response.value != 0 {
                return Err(Errno::EINVAL);
            }
            Answer::Continue
        } else if response.error != 0 {
            Answer::Return(i64::from(response.error))
        } else {
            Answer::Return(response.value)
        };
        self.answer(response.id, answer)
    }

    fn add_fd(&self, request: &AddFd) -> SysResult<u64> {
        let cloexec = OpenFlags::CLOEXEC.bits();
        let unknown =
            request.flags & !(ADDFD_SETFD | ADDFD_SEND) != 0 || request.target_flags & !cloexec != 0;
        let set = request.flags & ADDFD_SETFD != 0;
        if unknown || (!set && request.target != 0) {
            return Err(Errno::EINVAL);
        }
        let me = crate::task::current().ok_or(Errno::EINVAL)?;
        let source = i32::try_from(request.source).map(Fd::new).map_err(|_| Errno::EBADF)?;
        let own = me.published.lock().files.clone().ok_or(Errno::EBADF)?;
        let file = own.get(source)?;
        let task = Listener::seen(&self.state.lock(), request.id)?.upgrade().ok_or(Errno::ENOENT)?;
        let files = task.published.lock().files.clone().ok_or(Errno::ENOENT)?;
        let on_exec = if request.target_flags & cloexec != 0 { OnExec::Close } else { OnExec::Keep };
        let limit = task.process.limits.lock().get(Resource::Nofile).soft;
        let fd = if set {
            let fd = i32::try_from(request.target).map(Fd::new).map_err(|_| Errno::EBADF)?;
            drop(files.replace(fd, file, on_exec, limit)?);
            fd
        } else {
            files.install(file, on_exec, 0, limit)?
        };
        if request.flags & ADDFD_SEND != 0 {
            self.answer(request.id, Answer::Return(i64::from(fd.number())))?;
        }
        Ok(u64::try_from(fd.number()).unwrap_or(0))
    }
}

fn errno_value(errno: Errno) -> i64 {
    errno.as_return().cast_signed()
}

struct ListenerFile(Arc<Listener>);

fn read<T: FromBytes + IntoBytes>(memory: &dyn GuestMemory, at: UserAddr) -> SysResult<T> {
    let mut value = T::new_zeroed();
    memory.read(at, value.as_mut_bytes())?;
    Ok(value)
}

impl FileOps for ListenerFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn released(&self) {
        let gone = {
            let mut state = self.0.state.lock();
            state.closed = true;
            std::mem::take(&mut state.notes)
        };
        for task in gone.into_values().filter_map(|note| note.task.upgrade()) {
            task.parker().unpark();
        }
    }
    fn ready(&self, interest: Events) -> Events {
        let state = self.0.state.lock();
        let mut events = Events::empty();
        for note in state.notes.values() {
            match note.stage {
                Stage::New => events |= Events::READABLE,
                Stage::Seen => events |= Events::WRITABLE,
                Stage::Answered(_) => {}
            }
        }
        let ended = if state.unused { Events::HUP } else { Events::empty() };
        (events & interest) | ended
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.0.queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.0.queue.unregister(entry);
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        let at = UserAddr::new(arg);
        match request {
            RECV => self.0.receive(at, memory, by)?,
            SEND => self.0.send(&read(memory, at)?)?,
            ID_VALID | ID_VALID_OLD => {
                let id: u64 = read(memory, at)?;
                let state = self.0.state.lock();
                let note = state.notes.get(&id).ok_or(Errno::ENOENT)?;
                if !matches!(note.stage, Stage::Seen) {
                    return Err(Errno::ENOENT);
                }
            }
            ADDFD => return self.0.add_fd(&read(memory, at)?),
            // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP is a hint to a scheduler.
            SET_FLAGS if arg <= 1 => {}
            SET_FLAGS => return Err(Errno::EINVAL),
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(vfs::event::anon::shared_attr()))
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:seccomp notify".to_vec())
    }
}
