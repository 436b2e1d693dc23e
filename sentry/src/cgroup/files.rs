//! cgroup2 as a file system: a directory for each group, files for what it says and takes.

use super::bandwidth::PERIOD_US;
use super::{Cgroup, Controllers, NO_LIMIT, Wanted, cpus};
use crate::kernel::Kernel;
use crate::procfs::subject::{Subject, reader};
use crate::procfs::text::put;
use crate::signal::send;
use abi::fs::{FileType, ModeBits};
use abi::{Errno, SysResult};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::synthetic::{Directory, Listed, Node, SynthFs, WriteText};
use vfs::{Caller, DentryHint, FileSystem, FsType, MountRequest, OpenFile, Owner};

const MAGIC: u64 = 0x6367_7270;
/// Keys of files stand below those of groups.
const FIRST_GROUP: u64 = 1024;

/// A group as the files show it.
#[derive(Clone)]
struct View {
    kernel: Arc<Kernel>,
    group: Arc<Cgroup>,
}

type Read = fn(&View, &Caller<'_>) -> SysResult<Vec<u8>>;
type Write = fn(&View, &WriteText<'_>, &Caller<'_>) -> SysResult<()>;

struct File {
    name: &'static str,
    read: Option<Read>,
    write: Option<Write>,
    /// Only where the parent hands this out.
    controller: Option<Controllers>,
}

const fn shows(name: &'static str, read: Read) -> File {
    File { name, read: Some(read), write: None, controller: None }
}
const fn takes(name: &'static str, read: Read, write: Write) -> File {
    File { name, read: Some(read), write: Some(write), controller: None }
}

fn number(value: u64) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}
fn limit(value: Option<u64>) -> Vec<u8> {
    match value {
        Some(value) if value != NO_LIMIT => number(value),
        _ => b"max\n".to_vec(),
    }
}
fn refuse(_: &View, _: &WriteText<'_>, _: &Caller<'_>) -> SysResult<()> {
    Err(Errno::EPERM)
}
fn zero(_: &View, _: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(number(0))
}
fn unlimited(_: &View, _: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(limit(None))
}
fn pressure(_: &View, _: &Caller<'_>) -> SysResult<Vec<u8>> {
    let line = "avg10=0.00 avg60=0.00 avg300=0.00 total=0";
    Ok(format!("some {line}\nfull {line}\n").into_bytes())
}

/// A limit as it is written: `max` or a number.
fn limit_of(write: &WriteText<'_>) -> SysResult<u64> {
    match write.text()? {
        "max" => Ok(NO_LIMIT),
        text => text.parse::<u64>().map_err(|_| Errno::EINVAL),
    }
}
/// Bytes, rounded down to pages; `64M` is understood as the kernel does.
fn bytes_of(write: &WriteText<'_>) -> SysResult<u64> {
    let text = write.text()?;
    if text == "max" {
        return Ok(NO_LIMIT);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err(Errno::EINVAL),
    };
    let bytes =
        number.parse::<u64>().map_err(|_| Errno::EINVAL)?.checked_mul(1 << shift).ok_or(Errno::EINVAL)?;
    Ok(bytes - bytes % abi::PAGE_SIZE)
}
/// The limits of a container are its runtime's to change.
fn below_root(view: &View) -> SysResult<()> {
    if view.group.parent.is_none() { Err(Errno::EPERM) } else { Ok(()) }
}

const MEMORY: Option<Controllers> = Some(Controllers::MEMORY);
const PIDS: Option<Controllers> = Some(Controllers::PIDS);
const CPU: Option<Controllers> = Some(Controllers::CPU);
const CPUSET: Option<Controllers> = Some(Controllers::CPUSET);
const IO: Option<Controllers> = Some(Controllers::IO);

const fn of(controller: Option<Controllers>, name: &'static str, read: Read, write: Option<Write>) -> File {
    File { name, read: Some(read), write, controller }
}
/// A number of bytes. Guest memory is not swapped or reclaimed, so that protections hold by themselves.
macro_rules! kept {
    ($name:literal, $field:ident) => {
        of(
            MEMORY,
            $name,
            |view, _| Ok(limit(Some(view.group.memory.$field.load(Ordering::Relaxed)))),
            Some(|view, write, _| {
                below_root(view)?;
                view.group.memory.$field.store(bytes_of(write)?, Ordering::Relaxed);
                Ok(())
            }),
        )
    };
}

static FILES: [File; 43] = [
    shows("cgroup.controllers", |view, _| Ok(controllers(view))),
    shows("cgroup.events", |view, _| {
        let populated = u8::from(!view.group.tasks(&view.kernel).is_empty());
        let frozen = u8::from(view.group.rests(&view.kernel));
        Ok(format!("populated {populated}\nfrozen {frozen}\n").into_bytes())
    }),
    takes(
        "cgroup.freeze",
        |view, _| Ok(number(u64::from(view.group.freeze.load(Ordering::SeqCst)))),
        |view, write, _| {
            below_root(view)?;
            match write.number::<u8>()? {
                0 => view.group.freeze(&view.kernel, Wanted::Thawed),
                1 => view.group.freeze(&view.kernel, Wanted::Frozen),
                _ => return Err(Errno::ERANGE),
            }
            Ok(())
        },
    ),
    File { name: "cgroup.kill", read: None, write: Some(kill), controller: None },
    takes("cgroup.max.depth", unlimited, refuse),
    takes("cgroup.max.descendants", unlimited, refuse),
    takes("cgroup.procs", procs, enter),
    shows("cgroup.stat", |view, _| {
        Ok(format!("nr_descendants {}\nnr_dying_descendants 0\n", view.group.count()).into_bytes())
    }),
    takes("cgroup.subtree_control", |view, _| Ok(handed_out(view)), hand_out),
    takes("cgroup.threads", threads, |_, _, _| Err(Errno::EOPNOTSUPP)),
    takes("cgroup.type", |_, _| Ok(b"domain\n".to_vec()), |_, _, _| Err(Errno::EOPNOTSUPP)),
    of(CPU, "cpu.idle", zero, Some(refuse)),
    of(CPU, "cpu.max", |view, _| Ok(cpu_max(view)), Some(set_cpu_max)),
    of(CPU, "cpu.max.burst", zero, Some(refuse)),
    shows("cpu.pressure", pressure),
    shows("cpu.stat", |view, _| Ok(cpu_stat(view))),
    of(CPU, "cpu.weight", |view, _| Ok(number(cpu_weight(view))), Some(set_cpu_weight)),
    of(CPUSET, "cpuset.cpus", own_cpus, Some(set_cpus)),
    of(
        CPUSET,
        "cpuset.cpus.effective",
        |view, _| Ok(format!("{}\n", cpus::list(&view.group.cpus(&view.kernel))).into_bytes()),
        None,
    ),
    of(CPUSET, "cpuset.mems", |_, _| Ok(b"\n".to_vec()), Some(set_mems)),
    of(CPUSET, "cpuset.mems.effective", |_, _| Ok(b"0\n".to_vec()), None),
    of(IO, "io.max", |_, _| Ok(Vec::new()), Some(set_io_max)),
    shows("io.pressure", pressure),
    shows("io.stat", |_, _| Ok(Vec::new())),
    of(MEMORY, "memory.current", |view, _| Ok(number(view.group.usage(&view.kernel))), None),
    of(MEMORY, "memory.events", |view, _| Ok(view.group.memory.all.show()), None),
    of(MEMORY, "memory.events.local", |view, _| Ok(view.group.memory.own.show()), None),
    kept!("memory.high", high),
    kept!("memory.low", low),
    of(
        MEMORY,
        "memory.max",
        |view, _| Ok(limit(Some(view.group.memory.max.load(Ordering::Relaxed)))),
        Some(set_memory_max),
    ),
    kept!("memory.min", min),
    of(
        MEMORY,
        "memory.oom.group",
        |view, _| Ok(number(u64::from(view.group.memory.together.load(Ordering::Relaxed)))),
        Some(|view, write, _| {
            below_root(view)?;
            match write.number::<u8>()? {
                value @ 0..=1 => view.group.memory.together.store(value == 1, Ordering::Relaxed),
                _ => return Err(Errno::EINVAL),
            }
            Ok(())
        }),
    ),
    of(
        MEMORY,
        "memory.peak",
        |view, _| {
            let now = view.group.usage(&view.kernel);
            Ok(number(view.group.memory.see(now)))
        },
        None,
    ),
    shows("memory.pressure", pressure),
    of(MEMORY, "memory.stat", |view, _| Ok(memory_stat(view)), None),
    of(MEMORY, "memory.swap.current", zero, None),
    of(MEMORY, "memory.swap.events", |_, _| Ok(b"high 0\nmax 0\nfail 0\n".to_vec()), None),
    kept!("memory.swap.max", swap_max),
    of(MEMORY, "memory.swap.peak", zero, None),
    of(PIDS, "pids.current", |view, _| Ok(number(count(view))), None),
    of(PIDS, "pids.events", pids_events, None),
    of(PIDS, "pids.max", pids_max, Some(set_pids_max)),
    of(
        PIDS,
        "pids.peak",
        |view, _| {
            let now = count(view);
            Ok(number(view.group.pids_peak.fetch_max(now, Ordering::Relaxed).max(now)))
        },
        None,
    ),
];

/// Whether a file exists in a group: the root of a container has all, the others those of their parent's
/// controllers.
fn exists(file: &File, group: &Cgroup) -> bool {
    let Some(parent) = group.parent() else { return true };
    match file.controller {
        Some(controller) => parent.offers().contains(controller),
        None => true,
    }
}

/// In the order in which Linux names them.
const NAMES: [(Controllers, &str); 5] = [
    (Controllers::CPUSET, "cpuset"),
    (Controllers::CPU, "cpu"),
    (Controllers::IO, "io"),
    (Controllers::MEMORY, "memory"),
    (Controllers::PIDS, "pids"),
];

fn names(set: Controllers) -> Vec<u8> {
    let found: Vec<&str> =
        NAMES.iter().filter(|(one, _)| set.contains(*one)).map(|(_, name)| *name).collect();
    format!("{}\n", found.join(" ")).into_bytes()
}

fn controllers(view: &View) -> Vec<u8> {
    match view.group.parent() {
        None => names(Controllers::all()),
        Some(parent) => names(parent.offers()),
    }
}

fn handed_out(view: &View) -> Vec<u8> {
    names(view.group.offers())
}

fn hand_out(view: &View, write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<()> {
    let have = match view.group.parent() {
        None => Controllers::all(),
        Some(parent) => parent.offers(),
    };
    let mut wanted = view.group.offers();
    for word in write.text()?.split_ascii_whitespace() {
        let (on, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(Errno::EINVAL),
        };
        let one = NAMES.iter().find(|(_, known)| *known == name).map(|(one, _)| *one).ok_or(Errno::EINVAL)?;
        if on && !have.contains(one) {
            return Err(Errno::ENOENT);
        }
        wanted.set(one, on);
    }
    // Processes and controllers of children do not go together, except in the root.
    let more = wanted.difference(view.group.offers());
    if !more.is_empty() && view.group.parent.is_some() && !view.group.own_tasks(&view.kernel).is_empty() {
        return Err(Errno::EBUSY);
    }
    let less = view.group.offers().difference(wanted);
    let children: Vec<_> = view.group.children.lock().values().cloned().collect();
    if children.iter().any(|child| child.offers().intersects(less)) {
        return Err(Errno::EBUSY);
    }
    view.group.offers.store(wanted.bits(), Ordering::Relaxed);
    Ok(())
}

fn set_memory_max(view: &View, write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<()> {
    below_root(view)?;
    view.group.set_memory_max(&view.kernel, bytes_of(write)?);
    Ok(())
}

fn kill(view: &View, write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<()> {
    if write.number::<u8>()? != 1 {
        return Err(Errno::ERANGE);
    }
    for task in view.group.tasks(&view.kernel) {
        let status = crate::process::WaitStatus::killed(abi::signal::Signal::SIGKILL);
        send::begin_exit(&mut task.process.state.lock(), status);
    }
    Ok(())
}

fn numbers(
    view: &View,
    by: &Caller<'_>,
    which: fn(&crate::task::TaskShared) -> Arc<crate::process::pid::Pid>,
) -> Vec<u8> {
    let ns = reader(&view.kernel, by).and_then(|task| task.published.lock().pid.ns().cloned());
    let ns = ns.unwrap_or_else(|| Arc::clone(&view.kernel.root.pid));
    let tasks = view.group.own_tasks(&view.kernel);
    let mut found: Vec<u32> = tasks.iter().map(|task| which(task).seen_in(&ns)).collect();
    found.sort_unstable();
    found.dedup();
    let mut out = String::new();
    for number in found {
        put!(out, "{number}\n");
    }
    out.into_bytes()
}

fn procs(view: &View, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(numbers(view, by, |task| Arc::clone(&task.process.pid)))
}
fn threads(view: &View, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(numbers(view, by, |task| Arc::clone(&task.published.lock().pid)))
}

fn enter(view: &View, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<()> {
    let number: u32 = write.number()?;
    let caller = reader(&view.kernel, by).ok_or(Errno::ESRCH)?;
    if number == 0 {
        return view.group.enter(&caller);
    }
    let ns = caller.published.lock().pid.ns().cloned().ok_or(Errno::ESRCH)?;
    let task = Subject::find(&view.kernel, &ns, number).ok_or(Errno::ESRCH)?.task()?;
    // Into another container's tree, or out of it, nothing leads.
    let from = task.process.cgroup.lock().clone();
    if !from.is_none_or(|from| view.group.top().holds(&from)) {
        return Err(Errno::EACCES);
    }
    view.group.enter(&task)
}

fn count(view: &View) -> u64 {
    u64::try_from(view.group.tasks(&view.kernel).len()).unwrap_or(NO_LIMIT)
}
fn pids_events(view: &View, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(format!("max {}\n", view.group.pids_refused.load(Ordering::Relaxed)).into_bytes())
}
fn pids_max(view: &View, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(limit(Some(view.group.pids_max.load(Ordering::Relaxed))))
}
fn set_pids_max(view: &View, write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<()> {
    below_root(view)?;
    let value = limit_of(write)?;
    if value != NO_LIMIT && value >= 4_194_304 {
        return Err(Errno::EINVAL);
    }
    view.group.pids_max.store(value, Ordering::Relaxed);
    Ok(())
}

fn cpu_max(view: &View) -> Vec<u8> {
    let (quota, period) = if view.group.parent.is_none() {
        let limits = *view.group.limits.lock();
        (limits.cpu_quota_us, limits.cpu_period_us.unwrap_or(PERIOD_US))
    } else {
        let (quota, period) = view.group.quota();
        (Some(quota).filter(|quota| *quota != NO_LIMIT), period)
    };
    match quota {
        Some(quota) => format!("{quota} {period}\n"),
        None => format!("max {period}\n"),
    }
    .into_bytes()
}

/// `MAX`, or `MAX PERIOD`, in microseconds.
fn set_cpu_max(view: &View, write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<()> {
    below_root(view)?;
    let text = write.text()?;
    let mut words = text.split_ascii_whitespace();
    let number = |word: &str| word.parse::<u64>().map_err(|_| Errno::EINVAL);
    let quota = match words.next().ok_or(Errno::EINVAL)? {
        "max" => NO_LIMIT,
        word => number(word)?,
    };
    let period = words.next().map_or(Ok(view.group.quota().1), number)?;
    if quota < 1000 || !(1000..=1_000_000).contains(&period) || words.next().is_some() {
        return Err(Errno::EINVAL);
    }
    view.group.set_quota(&view.kernel, quota, period);
    Ok(())
}

fn cpu_weight(view: &View) -> u64 {
    if view.group.parent.is_none() {
        return view.group.limits.lock().cpu_weight.unwrap_or(100);
    }
    view.group.cpu.weight.load(Ordering::Relaxed)
}

/// A wish, as nice(2) is: who runs when processors are short is for the host to say.
fn set_cpu_weight(view: &View, write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<()> {
    below_root(view)?;
    match write.number::<u64>()? {
        weight @ 1..=10_000 => view.group.cpu.weight.store(weight, Ordering::Relaxed),
        _ => return Err(Errno::ERANGE),
    }
    Ok(())
}

fn own_cpus(view: &View, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let own = view.group.own_cpus(&view.kernel);
    Ok(format!("{}\n", own.map_or_else(String::new, |own| cpus::list(&own))).into_bytes())
}

fn set_cpus(view: &View, write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<()> {
    below_root(view)?;
    view.group.set_cpus(&view.kernel, write.text()?)
}

/// The machine has one memory node.
fn set_mems(view: &View, write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<()> {
    below_root(view)?;
    match cpus::parse(write.text()?)? {
        Some(set) if set != cpus::first(1) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// `MAJOR:MINOR KEY=VALUE...`: there is no block device to bound.
fn set_io_max(view: &View, write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<()> {
    below_root(view)?;
    let device = write.text()?.split_ascii_whitespace().next().and_then(|word| word.split_once(':'));
    let (major, minor) = device.ok_or(Errno::EINVAL)?;
    let is_number = |word: &str| word.parse::<u32>().is_ok();
    Err(if is_number(major) && is_number(minor) { Errno::ENODEV } else { Errno::EINVAL })
}

fn cpu_stat(view: &View) -> Vec<u8> {
    let (user, system, _) = crate::procfs::system::machine_times(&view.kernel);
    let (user, system) =
        if view.group.parent.is_none() { (user, system) } else { view.group.cpu_times(&view.kernel) };
    let (user, system) = (user / 1000, system / 1000);
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let cpu = &view.group.cpu;
    format!(
        "usage_usec {}\nuser_usec {user}\nsystem_usec {system}\nnice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods {}\nnr_throttled {}\nthrottled_usec {}\nnr_bursts 0\nburst_usec 0\n",
        user.saturating_add(system),
        of(&cpu.periods),
        of(&cpu.times_throttled),
        of(&cpu.throttled_us)
    )
    .into_bytes()
}

fn memory_stat(view: &View) -> Vec<u8> {
    let (anonymous, shared) = view.group.parts(&view.kernel);
    let total = view.group.usage(&view.kernel).max(anonymous);
    let mut out = String::new();
    for (name, value) in [
        ("anon", anonymous),
        ("file", total.saturating_sub(anonymous)),
        ("kernel", 0),
        ("kernel_stack", 0),
        ("pagetables", 0),
        ("sock", 0),
        ("shmem", shared),
        ("file_mapped", 0),
        ("file_dirty", 0),
        ("file_writeback", 0),
        ("swapcached", 0),
        ("anon_thp", 0),
        ("inactive_anon", 0),
        ("active_anon", anonymous),
        ("inactive_file", 0),
        ("active_file", total.saturating_sub(anonymous).saturating_sub(shared)),
        ("unevictable", 0),
        ("slab_reclaimable", 0),
        ("slab_unreclaimable", 0),
        ("slab", 0),
        ("pgfault", 0),
        ("pgmajfault", 0),
    ] {
        put!(out, "{name} {value}\n");
    }
    out.into_bytes()
}

impl View {
    fn node(&self) -> Node {
        Node::changing_dir(0o755, Arc::new(self.clone()))
    }
    fn file(&self, file: &'static File) -> Node {
        let (reader, writer) = (self.clone(), self.clone());
        let perm: ModeBits = match (file.read, file.write) {
            (Some(_), Some(_)) => 0o644,
            (Some(_), None) => 0o444,
            _ => 0o200,
        };
        let read = move |by: &Caller<'_>| match file.read {
            Some(read) => read(&reader, by),
            None => Err(Errno::EINVAL),
        };
        let write = move |text: &WriteText<'_>, by: &Caller<'_>| match file.write {
            Some(write) => write(&writer, text, by).map(|()| text.bytes.len()),
            None => Err(Errno::EINVAL),
        };
        Node::text_rw(perm, read, write)
    }
}

/// The group that an open directory of cgroup2 stands for (CLONE_INTO_CGROUP): `EBADF` for any other file,
/// `ENOENT` when it was removed.
/// The caller needs what writing to its `cgroup.procs` needs.
pub fn group_of(kernel: &Kernel, file: &OpenFile, by: &Caller<'_>) -> SysResult<Arc<Cgroup>> {
    let directory = vfs::synthetic::directory_of(file).ok_or(Errno::EBADF)?;
    let view = directory.as_any().and_then(|any| any.downcast_ref::<View>()).ok_or(Errno::EBADF)?;
    if view.group.dead.load(Ordering::Relaxed) {
        return Err(Errno::ENOENT);
    }
    if let Some(at) = file.location() {
        vfs::perm::check(at, vfs::Access::WRITE, by)?;
    }
    let from = reader(kernel, by).and_then(|task| task.process.cgroup.lock().clone());
    if !from.is_none_or(|from| view.group.top().holds(&from)) {
        return Err(Errno::EACCES);
    }
    Ok(Arc::clone(&view.group))
}

impl Directory for View {
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Node> {
        if let Some(file) =
            FILES.iter().find(|file| file.name.as_bytes() == name && exists(file, &self.group))
        {
            return Ok(self.file(file));
        }
        Ok(View { kernel: Arc::clone(&self.kernel), group: self.group.child(name)? }.node())
    }
    fn list(&self, from: u64, _by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        let files = (0_u64..).zip(&FILES).filter(|(_, file)| exists(file, &self.group));
        let mut listed: Vec<Listed> = files
            .map(|(key, file)| Listed { name: file.name.as_bytes().to_vec(), kind: FileType::Regular, key })
            .collect();
        let groups: Vec<Vec<u8>> = self.group.children.lock().keys().cloned().collect();
        let groups = (FIRST_GROUP..).zip(groups);
        listed.extend(groups.map(|(key, name)| Listed { name, kind: FileType::Directory, key }));
        listed.retain(|entry| entry.key >= from);
        Ok(listed)
    }
    fn create_dir(&self, name: &[u8], _perm: ModeBits, owner: Owner, _by: &Caller<'_>) -> SysResult<Node> {
        let group = self.group.make(name)?;
        let node = View { kernel: Arc::clone(&self.kernel), group }.node();
        Ok(node.owned(owner.uid, owner.gid))
    }
    fn remove_dir(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<()> {
        self.group.remove(name, &self.kernel)
    }
}

/// The hierarchy below `group` as a file system.
#[must_use]
pub fn filesystem(kernel: &Arc<Kernel>, group: &Arc<Cgroup>) -> Arc<SynthFs> {
    let view = View { kernel: Arc::clone(kernel), group: Arc::clone(group) };
    SynthFs::new("cgroup2", MAGIC, DentryHint::Never, view.node())
}

/// The type "cgroup2" of mount(2): the caller's container.
pub struct CgroupType(Arc<Kernel>);

impl CgroupType {
    /// For this kernel.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>) -> Arc<CgroupType> {
        Arc::new(CgroupType(Arc::clone(kernel)))
    }
}

impl std::fmt::Debug for CgroupType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CgroupType")
    }
}

impl FsType for CgroupType {
    fn name(&self) -> &'static str {
        "cgroup2"
    }
    fn in_user_namespace(&self) -> bool {
        true
    }
    fn mount(&self, request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>> {
        let group = reader(&self.0, request.walk.by).and_then(|task| task.process.cgroup.lock().clone());
        Ok(filesystem(&self.0, &group.ok_or(Errno::ENODEV)?.top()))
    }
}
