//! /proc itself and the directories of processes and threads: which entries there are, with which mode,
//! and what is checked before they open.

use super::nsfs::NsHandle;
use super::subject::{PtraceAccess, Scope, Subject, reader};
use super::{ids, links, login, memory, mounts, net, pagemap, procmap, status};
use crate::kernel::Kernel;
use crate::process::pid::PidNs;
use abi::fs::{FileType, ModeBits, OpenFlags};
use abi::{Errno, SysResult};
use std::sync::Arc;
use vfs::synthetic::{Directory, Listed, Node, Text, WriteText};
use vfs::{Access, Caller, GuestMemory, LinkTarget};

/// The numbered directories of a mount.
pub(super) struct Processes {
    pub(super) kernel: Arc<Kernel>,
    pub(super) view: Arc<PidNs>,
}

/// A decimal number without leading zeros, as Linux wants names of processes and descriptors.
pub(super) fn parse_number(name: &[u8]) -> SysResult<u32> {
    if name.is_empty()
        || (name.len() > 1 && name.first() == Some(&b'0'))
        || !name.iter().all(u8::is_ascii_digit)
    {
        return Err(Errno::ENOENT);
    }
    std::str::from_utf8(name).ok().and_then(|text| text.parse().ok()).ok_or(Errno::ENOENT)
}

fn directory(subject: Subject) -> Node {
    let (uid, gid) = subject.cred().map_or((vfs::Kuid(0), vfs::Kgid(0)), |cred| (cred.euid, cred.egid));
    Node::changing_dir(0o555, Arc::new(Entries(subject))).owned(uid, gid)
}

impl Processes {
    fn numbers(&self) -> impl Iterator<Item = u32> {
        self.view.numbers().into_iter().filter(|number| {
            let Some(id) = self.view.find(*number) else { return false };
            self.kernel.tasks.get(id.root()).is_some_and(|task| task.process.pid.root() == id.root())
        })
    }
}

impl Directory for Processes {
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Node> {
        let subject = Subject::find(&self.kernel, &self.view, parse_number(name)?).ok_or(Errno::ENOENT)?;
        Ok(directory(subject))
    }
    fn list(&self, from: u64, _by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        let numbers = self.numbers().filter(|number| u64::from(*number) >= from);
        Ok(numbers.map(|number| numbered(number, FileType::Directory)).collect())
    }
    fn directories(&self) -> usize {
        self.numbers().count()
    }
}

pub(super) fn numbered(number: u32, kind: FileType) -> Listed {
    Listed { name: number.to_string().into_bytes(), kind, key: u64::from(number) }
}

/// /proc/self.
pub(super) fn self_link(kernel: &Arc<Kernel>, view: &Arc<PidNs>) -> Node {
    let (kernel, view) = (Arc::clone(kernel), Arc::clone(view));
    Node::link(move |by| {
        let task = reader(&kernel, by).ok_or(Errno::ENOENT)?;
        match task.process.pid.seen_in(&view) {
            0 => Err(Errno::ENOENT),
            number => Ok(LinkTarget::Path(number.to_string().into_bytes())),
        }
    })
}

/// /proc/thread-self.
pub(super) fn thread_link(kernel: &Arc<Kernel>, view: &Arc<PidNs>) -> Node {
    let (kernel, view) = (Arc::clone(kernel), Arc::clone(view));
    Node::link(move |by| {
        let task = reader(&kernel, by).ok_or(Errno::ENOENT)?;
        let tid = Arc::clone(&task.published.lock().pid).seen_in(&view);
        match task.process.pid.seen_in(&view) {
            0 => Err(Errno::ENOENT),
            number => Ok(LinkTarget::Path(format!("{number}/task/{tid}").into_bytes())),
        }
    })
}

/// Threads of a process: /proc/pid/task.
struct Threads(Subject);

impl Directory for Threads {
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Node> {
        Ok(directory(self.0.thread(parse_number(name)?).ok_or(Errno::ENOENT)?))
    }
    fn list(&self, from: u64, _by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        let task = self.0.task().map_err(|_| Errno::ENOENT)?;
        let threads = task.process.threads();
        let number = |task: &Arc<crate::task::TaskShared>| {
            Arc::clone(&task.published.lock().pid).seen_in(&self.0.view)
        };
        let mut numbers: Vec<u32> =
            threads.iter().map(number).filter(|n| *n != 0 && u64::from(*n) >= from).collect();
        numbers.sort_unstable();
        Ok(numbers.into_iter().map(|number| numbered(number, FileType::Directory)).collect())
    }
    fn directories(&self) -> usize {
        self.0.threads()
    }
}

pub(super) type Read = fn(&Subject, &Caller<'_>) -> SysResult<Vec<u8>>;
pub(super) type Write = fn(&Subject, &WriteText<'_>, &Caller<'_>) -> SysResult<()>;

enum Make {
    Text(Read),
    Write(Read, Write),
    Link(fn(&Subject, &Caller<'_>) -> SysResult<LinkTarget>),
    Other(fn(&Subject) -> Node),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    Open,
    Look,
}

struct Entry {
    name: &'static str,
    perm: ModeBits,
    scope: Option<Scope>,
    guard: Guard,
    make: Make,
}

impl Entry {
    fn kind(&self) -> FileType {
        match self.make {
            Make::Link(_) => FileType::Symlink,
            Make::Text(_) | Make::Write(..) => FileType::Regular,
            Make::Other(_) if matches!(self.name, "mem" | "pagemap") => FileType::Regular,
            Make::Other(_) => FileType::Directory,
        }
    }
}

const fn text(name: &'static str, perm: ModeBits, read: Read) -> Entry {
    Entry { name, perm, scope: None, guard: Guard::Open, make: Make::Text(read) }
}
const fn guarded(name: &'static str, perm: ModeBits, read: Read) -> Entry {
    Entry { name, perm, scope: None, guard: Guard::Look, make: Make::Text(read) }
}
const fn writable(name: &'static str, perm: ModeBits, read: Read, write: Write) -> Entry {
    Entry { name, perm, scope: None, guard: Guard::Open, make: Make::Write(read, write) }
}
const fn link(name: &'static str, target: fn(&Subject, &Caller<'_>) -> SysResult<LinkTarget>) -> Entry {
    Entry { name, perm: 0o777, scope: None, guard: Guard::Open, make: Make::Link(target) }
}
const fn other(name: &'static str, perm: ModeBits, make: fn(&Subject) -> Node) -> Entry {
    Entry { name, perm, scope: None, guard: Guard::Open, make: Make::Other(make) }
}
const fn only(scope: Scope, entry: Entry) -> Entry {
    Entry { scope: Some(scope), ..entry }
}

/// In the order of Linux's listing.
static ENTRIES: [Entry; 55] = [
    only(Scope::Process, other("task", 0o555, |s| Node::changing_dir(0o555, Arc::new(Threads(s.clone()))))),
    other("fd", 0o500, links::fd_dir),
    only(Scope::Process, other("map_files", 0o500, links::map_files_dir)),
    other("fdinfo", 0o555, links::fdinfo_dir),
    other("ns", 0o511, links::ns_dir),
    other("net", 0o555, net::directory_of),
    guarded("environ", 0o400, memory::environ),
    guarded("auxv", 0o400, memory::auxv),
    text("status", 0o444, status::status),
    guarded("personality", 0o400, status::personality),
    text("limits", 0o444, status::limits),
    writable("sched", 0o644, status::sched, |_, _, _| Ok(())),
    only(Scope::Process, text("timens_offsets", 0o444, status::timens_offsets)),
    writable("comm", 0o644, status::comm, status::set_comm),
    guarded("syscall", 0o400, status::syscall),
    text("cmdline", 0o444, memory::cmdline),
    text("stat", 0o444, status::stat),
    text("statm", 0o444, status::statm),
    guarded("maps", 0o444, memory::maps),
    only(Scope::Thread, text("children", 0o444, status::children)),
    guarded("numa_maps", 0o444, memory::numa_maps),
    other("mem", 0o600, memory::mem),
    link("cwd", links::cwd),
    link("root", links::root),
    link("exe", links::exe),
    text("mounts", 0o444, mounts::mounts),
    text("mountinfo", 0o444, mounts::mountinfo),
    only(Scope::Process, text("mountstats", 0o400, mounts::mountstats)),
    guarded("smaps", 0o444, memory::smaps),
    guarded("smaps_rollup", 0o444, memory::smaps_rollup),
    other("pagemap", 0o400, pagemap::file),
    writable("clear_refs", 0o200, |_, _| Err(Errno::EINVAL), memory::clear_refs),
    text("wchan", 0o444, status::wchan),
    guarded("stack", 0o400, status::empty),
    text("schedstat", 0o444, status::schedstat),
    text("cpuset", 0o444, status::cpuset),
    text("cgroup", 0o444, status::cgroup),
    text("oom_score", 0o444, status::oom_score),
    writable("oom_adj", 0o644, status::oom_adj, status::set_oom_adj),
    writable("oom_score_adj", 0o644, status::oom_score_adj, status::set_oom_score_adj),
    writable("loginuid", 0o644, login::loginuid, login::set_loginuid),
    text("sessionid", 0o444, login::sessionid),
    only(
        Scope::Process,
        writable("coredump_filter", 0o644, status::coredump_filter, status::set_coredump_filter),
    ),
    guarded("io", 0o400, status::io),
    writable("uid_map", 0o644, ids::uid_map, ids::set_uid_map),
    writable("gid_map", 0o644, ids::gid_map, ids::set_gid_map),
    writable("projid_map", 0o644, ids::projid_map, |_, _, _| Err(Errno::EPERM)),
    writable("setgroups", 0o644, ids::setgroups, ids::set_setgroups),
    only(Scope::Process, guarded("timers", 0o444, status::empty)),
    only(Scope::Process, guarded("timerslack_ns", 0o666, status::timerslack)),
    text("arch_status", 0o444, status::empty),
    only(Scope::Process, writable("autogroup", 0o644, status::autogroup, |_, _, _| Ok(()))),
    guarded("patch_state", 0o400, status::patch_state),
    text("cpu_resctrl_groups", 0o444, status::empty),
    guarded("ksm_stat", 0o400, memory::ksm_stat),
];

struct Entries(Subject);

impl Entries {
    fn has(&self, entry: &Entry) -> bool {
        entry.scope.is_none_or(|scope| scope == self.0.scope())
    }
}

/// The process whose directory an open file of /proc is.
#[must_use]
pub fn process_of(file: &vfs::OpenFile) -> Option<Arc<crate::process::Process>> {
    let directory = vfs::synthetic::directory_of(file)?;
    let entries = directory.as_any()?.downcast_ref::<Entries>()?;
    if entries.0.scope() != Scope::Process {
        return None;
    }
    Some(Arc::clone(&entries.0.task().ok()?.process))
}

impl Directory for Entries {
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Node> {
        self.0.task().map_err(|_| Errno::ENOENT)?;
        let entry = ENTRIES.iter().find(|entry| entry.name.as_bytes() == name && self.has(entry));
        let entry = entry.ok_or(Errno::ENOENT)?;
        let subject = self.0.clone();
        let (uid, gid) = subject.owner();
        let node = match &entry.make {
            Make::Text(_) | Make::Write(..) => Node::file(entry.perm, Arc::new(TaskText { subject, entry })),
            Make::Link(target) => {
                let target = *target;
                Node::link(move |by| target(&subject, by))
            }
            Make::Other(make) => make(&subject),
        };
        Ok(node.with_perm(entry.perm).owned(uid, gid))
    }
    fn list(&self, from: u64, _by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        self.0.task().map_err(|_| Errno::ENOENT)?;
        let listed = (0_u64..).zip(&ENTRIES).filter(|(key, entry)| *key >= from && self.has(entry));
        let listed = listed.map(|(key, entry)| Listed {
            name: entry.name.as_bytes().to_vec(),
            kind: entry.kind(),
            key,
        });
        Ok(listed.collect())
    }
    fn directories(&self) -> usize {
        ENTRIES.iter().filter(|entry| self.has(entry) && entry.kind() == FileType::Directory).count()
    }
}

/// A text about one thread or process.
struct TaskText {
    subject: Subject,
    entry: &'static Entry,
}

impl Text for TaskText {
    fn read(&self, by: &Caller<'_>) -> SysResult<Vec<u8>> {
        match &self.entry.make {
            Make::Text(read) | Make::Write(read, _) => read(&self.subject, by),
            Make::Link(_) | Make::Other(_) => Err(Errno::EINVAL),
        }
    }
    fn write(&self, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<usize> {
        match &self.entry.make {
            Make::Write(_, store) => store(&self.subject, write, by).map(|()| write.bytes.len()),
            _ => Err(Errno::EINVAL),
        }
    }
    fn ioctl(&self, request: u32, arg: u64, memory: &dyn GuestMemory, by: &Caller<'_>) -> SysResult<u64> {
        match (self.entry.name, request) {
            ("maps", procmap::PROCMAP_QUERY) => procmap::query(&self.subject, arg, memory, by),
            _ => Err(Errno::ENOTTY),
        }
    }
    fn can_poll(&self) -> bool {
        self.changes().is_some()
    }
    fn changes(&self) -> Option<&'static vfs::synthetic::Changes> {
        self.entry.name.starts_with("mount").then_some(&vfs::mount::CHANGES)
    }
    fn check_open(&self, _flags: OpenFlags, by: &Caller<'_>) -> SysResult<()> {
        match self.entry.guard {
            Guard::Open => self.subject.task().map(drop),
            Guard::Look => self.subject.check(PtraceAccess::Read, by),
        }
    }
}

/// What a text file or a namespace link of process `number` shows, for the sandbox's own use.
pub(super) fn show(
    kernel: &Arc<Kernel>,
    view: &Arc<PidNs>,
    number: u32,
    name: &str,
    by: &Caller<'_>,
) -> SysResult<Vec<u8>> {
    let subject = Subject::find(kernel, view, number).ok_or(Errno::ENOENT)?;
    if let Some(kind) = name.strip_prefix("ns/") {
        let handle = NsHandle::of(&subject.published()?, kind).ok_or(Errno::ENOENT)?;
        return Ok(handle.text().into_bytes());
    }
    match ENTRIES.iter().find(|entry| entry.name == name).map(|entry| &entry.make) {
        Some(Make::Text(read) | Make::Write(read, _)) => read(&subject, by),
        _ => Err(Errno::ENOENT),
    }
}

/// The check of directories that only who may trace their process may enter.
pub(super) fn checked_like_fd(node: Node, subject: &Subject) -> Node {
    let subject = subject.clone();
    node.checked(move |want: Access, by: &Caller<'_>| {
        let task = subject.task().map_err(|_| Errno::ENOENT)?;
        if by.task.tgid() == task.process.pid.root() || may_override(want, by) {
            return Ok(());
        }
        let owns = by.cred.fsuid == subject.owner().0 && !want.contains(Access::WRITE);
        if owns { Ok(()) } else { Err(Errno::EACCES) }
    })
}

fn may_override(want: Access, by: &Caller<'_>) -> bool {
    let caps = vfs::Capabilities::DAC_OVERRIDE | vfs::Capabilities::DAC_READ_SEARCH;
    if want.contains(Access::WRITE) {
        by.cred.has(vfs::Capabilities::DAC_OVERRIDE)
    } else {
        by.cred.caps.effective.intersects(caps)
    }
}
