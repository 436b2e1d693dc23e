//! The first process of a container, and processes that exec adds.

use super::caller::KernelCaller;
use super::{failed, stdio};
use crate::control::spec::ProcessSpec;
use crate::control::{ControlError, ControlResult, ErrorKind};
use crate::files::{FdTable, OnExec};
use crate::kernel::Kernel;
use crate::keys::{KeyType, Owner, TaskKeys};
use crate::loader::{self, Executable, Program};
use crate::namespace::NsProxy;
use crate::process::freezer::{self, Freezer};
use crate::process::limits::{Limit, Limits, Resource};
use crate::process::pid::{Pid, PidNs};
use crate::process::tree::Node;
use crate::process::{Process, WaitStatus};
use crate::seccomp::{Filters, FirstExec};
use crate::signal::SignalHandlers;
use crate::task::exec::{fresh_registers, new_credentials};
use crate::task::{FsContext as TaskFs, OwnedSignal, Personal, Registered, TaskOwned, TaskShared, run};
use abi::fs::OpenFlags;
use abi::siginfo::StackT;
use abi::signal::Signal;
use abi::{Errno, SysResult};
use mm::Randomize;
use platform::{Context, ThreadState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::{Caller, CapSets, Capabilities, Credentials, Follow, FsContext, Kgid, Walk};

/// What a process is made from.
pub(super) struct Plan<'a> {
    pub(super) kernel: &'a Arc<Kernel>,
    /// The container's, which names its session keyring.
    pub(super) id: &'a str,
    pub(super) spec: &'a ProcessSpec,
    pub(super) fs: &'a FsContext,
    pub(super) ns: &'a Arc<NsProxy>,
    pub(super) pid_ns: &'a Arc<PidNs>,
    pub(super) freezer: &'a Arc<Freezer>,
    pub(super) seccomp: Option<&'a Arc<Filters>>,
    pub(super) stdio: Vec<OwnedFd>,
    pub(super) preserved: Vec<OwnedFd>,
    pub(super) missing: MissingDirectory,
}

/// What becomes of a working directory that is not there: runc makes that of a container, and refuses that
/// of an exec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MissingDirectory {
    Make,
    Refuse,
}

/// A loaded process that has not run yet. In the process tree already.
pub(super) struct Prepared {
    pub(super) process: Arc<Process>,
    shared: Arc<TaskShared>,
    owned: TaskOwned,
    context: Box<dyn Context>,
}

impl Prepared {
    /// Its one thread.
    pub(super) fn task(&self) -> &TaskShared {
        &self.shared
    }
    /// Lets it run.
    pub(super) fn start(self) -> SysResult<()> {
        self.shared.clear_frozen();
        run::start(self.shared, self.owned, self.context)
    }
    /// Lets it run, if the bundle's seccomp profile lets it execute its program: the filter is there before.
    pub(super) fn start_filtered(
        self,
        seccomp: Option<&Arc<Filters>>,
        name: &str,
    ) -> Result<(), (Option<Box<Refused>>, ControlError)> {
        let (status, why) = match seccomp.map_or(FirstExec::Allowed, |filters| filters.first_exec()) {
            FirstExec::Allowed => return self.start().map_err(|e| (None, failed("start", e))),
            FirstExec::Refused(errno) => (WaitStatus::exited(1), errno.text().to_lowercase()),
            FirstExec::Killed => {
                (WaitStatus::killed(Signal::SIGSYS), "killed by the seccomp profile".to_owned())
            }
        };
        let error = ControlError::new(ErrorKind::Failed, format!("exec {name}: {why}"));
        Err((Some(Box::new(Refused { prepared: self, status })), error))
    }
    /// Ends it without a first instruction.
    pub(super) fn cancel(self, signal: Signal) {
        self.end(WaitStatus::killed(signal));
    }
    fn end(self, status: WaitStatus) {
        let Prepared { process, shared, owned, context } = self;
        {
            let mut tree = shared.kernel.tree.lock();
            tree.remove_task(shared.tid());
            tree.remove_node(process.pid.root());
        }
        // As when a thread ends: guest memory and descriptors go before anybody hears of it.
        drop(context);
        let gone = {
            let mut published = shared.published.lock();
            (published.mm.take(), published.files.take(), published.fs.take())
        };
        drop((gone, owned));
        let notices = {
            let mut ending = process.ending.lock();
            ending.status = Some(status);
            std::mem::take(&mut ending.notices)
        };
        for notice in notices {
            notice(status);
        }
    }
}

/// A process whose program may not run, and how it ends.
pub(super) struct Refused {
    prepared: Prepared,
    status: WaitStatus,
}

impl Refused {
    pub(super) fn end(self) {
        self.prepared.end(self.status);
    }
}

fn credentials(kernel: &Kernel, spec: &ProcessSpec) -> SysResult<Credentials> {
    let user_ns = Arc::clone(&kernel.root.user);
    let uid = user_ns.kuid(spec.user.uid)?;
    let gid = user_ns.kgid(spec.user.gid)?;
    let mut groups =
        spec.user.groups.iter().map(|gid| user_ns.kgid(*gid)).collect::<SysResult<Vec<Kgid>>>()?;
    groups.sort_unstable();
    let caps = spec.capabilities;
    Ok(Credentials {
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        groups: Arc::from(groups),
        caps: CapSets {
            effective: Capabilities::from_bits_truncate(caps.effective),
            permitted: Capabilities::from_bits_truncate(caps.permitted),
            inheritable: Capabilities::from_bits_truncate(caps.inheritable),
            bounding: Capabilities::from_bits_truncate(caps.bounding),
            ambient: Capabilities::from_bits_truncate(caps.ambient),
        },
        securebits: 0,
        user_ns,
        landlock: None,
    })
}

/// The processes of a container share a session keyring, as under runc.
fn session_keys(kernel: &Kernel, id: &str, cred: &Credentials) -> TaskKeys {
    let name = format!("_ses.{id}").into_bytes();
    let _changes = kernel.keys.changes();
    let there =
        kernel.keys.all().into_iter().find(|key| key.kind == KeyType::Keyring && key.description == name);
    let owner = Owner { uid: cred.fsuid, gid: cred.fsgid };
    // One that its processes may link and search: POSSESSOR all, USER view, read, search, link.
    let ring = there.unwrap_or_else(|| kernel.keys.ring(&name, owner, 0x3f1b_0000));
    TaskKeys { session: Some(ring), ..TaskKeys::default() }
}

fn limits(spec: &ProcessSpec) -> SysResult<Limits> {
    let mut limits = Limits::default();
    for limit in &spec.rlimits {
        limits.set(Resource::new(limit.resource)?, Limit { soft: limit.soft, hard: limit.hard });
    }
    Ok(limits)
}

/// Finds the program as execvp(3) does, with the PATH of the process' own environment.
fn find(walk: &Walk<'_>, spec: &ProcessSpec) -> ControlResult<(Executable, Vec<u8>)> {
    let name = spec.program.as_ref().or(spec.args.first()).map(String::as_str).unwrap_or_default();
    let missing = |name: &str| {
        ControlError::new(
            ErrorKind::ProgramNotFound,
            format!("exec: {name:?}: executable file not found in $PATH or no such file or directory"),
        )
    };
    let refused = |errno: Errno| {
        ControlError::new(
            ErrorKind::ProgramRefused,
            format!("exec: {name:?}: {}", errno.text().to_lowercase()),
        )
    };
    if name.is_empty() {
        return Err(missing(name));
    }
    if name.contains('/') {
        return match loader::open(walk, name.as_bytes(), Follow::Yes) {
            Ok(file) => Ok((file, name.as_bytes().to_vec())),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(missing(name)),
            Err(errno) => Err(refused(errno)),
        };
    }
    // Without a PATH nothing is found, as under runc.
    let path = spec.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    if path.is_empty() {
        return Err(missing(name));
    }
    let mut error = None;
    for dir in path.split(':') {
        let full = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
        match loader::open(walk, full.as_bytes(), Follow::Yes) {
            Ok(file) => return Ok((file, full.into_bytes())),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => error = Some(errno),
        }
    }
    Err(error.map_or_else(|| missing(name), refused))
}

/// Builds a process: credentials, descriptors, the loaded program. Nothing of it runs.
pub(super) fn prepare(plan: &Plan<'_>) -> ControlResult<Prepared> {
    let Plan { kernel, spec, .. } = *plan;
    let invalid =
        |what: &str, errno: Errno| ControlError::new(ErrorKind::Invalid, format!("{what}: {errno}"));
    let cred = credentials(kernel, spec).map_err(|e| invalid("process.user", e))?;
    let limits = limits(spec).map_err(|e| invalid("process.rlimits", e))?;
    let caller = KernelCaller::new(cred.clone());
    let given_caller = KernelCaller::new(cred.clone());
    let umask = spec.user.umask.unwrap_or(0o022) & 0o777;
    let by = caller.caller(umask);
    let mut fs = plan.fs.clone();
    fs.umask = umask;
    fs.cwd = working_directory(plan, &fs, &by)?;
    let walk = Walk::new(&fs, &by);
    let (file, name) = find(&walk, spec)?;
    let text = |list: &[String]| list.iter().map(|item| item.as_bytes().to_vec()).collect::<Vec<_>>();
    let given = Arc::new(cred);
    let after_exec =
        |file: &Executable| new_credentials(&given, file, spec.no_new_privs, &given_caller.caller(umask));
    let loaded = loader::load(Program {
        kernel,
        fs: &fs,
        by: &by,
        file,
        name,
        argv: text(&spec.args),
        envp: text(&environment(&walk, spec)),
        limits,
        randomize: Randomize::Yes,
        credentials: &after_exec,
    })
    .map_err(|errno| {
        let program = spec.args.first().map(String::as_str).unwrap_or_default();
        let kind =
            if errno == Errno::ENOENT { ErrorKind::ProgramNotFound } else { ErrorKind::ProgramRefused };
        ControlError::new(kind, format!("exec: {program:?}: {}", errno.text().to_lowercase()))
    })?;
    let pid = Pid::allocate(plan.pid_ns, &[]).map_err(|e| failed("process id", e))?;
    let process = Process::new(Arc::clone(&pid), limits);
    process.marks.has_executed.store(true, Ordering::Relaxed);
    let _ = process.freezer.set(Arc::clone(plan.freezer));
    if let Some(score) = spec.oom_score_adj {
        process.marks.oom_score_adj.store(score, Ordering::Relaxed);
        process.marks.oom_score_adj_min.store(score, Ordering::Relaxed);
    }
    let files = Arc::new(FdTable::default());
    stdio::install(plan, &fs, &by, pid.root(), &files).map_err(|e| failed("standard input and output", e))?;
    loaded.mm.set_single_threaded(true);
    let exe: mm::ExeFile = Arc::new(loaded.file);
    loaded.mm.set_exe(Some(exe));
    let registers = fresh_registers(loaded.entry, loaded.stack);
    let context = Arc::clone(loaded.mm.space())
        .new_context(&ThreadState { registers, xstate: Vec::new() })
        .map_err(|e| failed("guest thread", e))?;
    let keys = session_keys(kernel, plan.id, &loaded.credentials.cred);
    let owned = TaskOwned {
        mm: loaded.mm,
        files,
        fs: TaskFs::new(fs.clone()),
        cred: loaded.credentials.cred,
        ns: Arc::clone(plan.ns),
        pid: Arc::clone(&pid),
        comm: loaded.comm,
        signal: OwnedSignal::new(Arc::new(SignalHandlers::default()), StackT::new(0, 0, StackT::DISABLE)),
        registered: Registered::default(),
        no_new_privs: spec.no_new_privs,
        personal: Personal { keys, personality: spec.personality, ..Personal::default() },
        debug: None,
        seccomp: plan.seccomp.cloned(),
        epoll_events: Vec::new(),
        watched: plan.seccomp.is_some(),
        keep_registers: false,
        leaving: None,
        restarting: false,
        restart_deadline: None,
        start_event: None,
        vfork: None,
        futex: None,
    };
    let shared = TaskShared::new(Arc::clone(kernel), Arc::clone(&process), owned.published(), 0);
    shared.set_seccomp(owned.seccomp.clone());
    shared.set_personality(spec.personality);
    if owned.no_new_privs {
        shared.set_no_new_privs();
    }
    {
        let mut state = process.state.lock();
        state.threads.push(Arc::clone(&shared));
        state.live = 1;
    }
    let mut tree = kernel.tree.lock();
    tree.insert_task(shared.tid(), Arc::clone(&shared));
    tree.insert_node(Node {
        process: Arc::clone(&process),
        parent: None,
        parent_thread: 0,
        children: Vec::new(),
        pgid: Arc::clone(&pid),
        sid: pid,
        zombie: None,
        exit_signal: 0,
    });
    freezer::attend_birth(&shared);
    // Until it starts it rests.
    shared.set_frozen();
    drop(tree);
    Ok(Prepared { process, shared, owned, context })
}

/// The environment, with HOME as the container's /etc/passwd has it where the bundle has none (as runc).
fn environment(walk: &Walk<'_>, spec: &ProcessSpec) -> Vec<String> {
    let mut env = spec.env.clone();
    env.retain(|entry| entry != "HOME=");
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = home(walk, spec.user.uid).unwrap_or_else(|| "/".to_owned());
        env.push(format!("HOME={home}"));
    }
    env
}

/// Most bytes of /etc/passwd that are looked at.
const PASSWD: usize = 1 << 20;

fn home(walk: &Walk<'_>, uid: u32) -> Option<String> {
    // A FIFO there must not be waited for.
    let flags = OpenFlags::NONBLOCK;
    let file = vfs::ops::open(walk, b"/etc/passwd", flags, 0).ok()?;
    let mut text = vec![0; PASSWD];
    let length = file.read(&mut mm::io::SliceSink::new(&mut text), walk.by).ok()?;
    let text = String::from_utf8_lossy(text.get(..length)?).into_owned();
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let found = fields.get(2)?.parse() == Ok(uid);
        found.then(|| fields.get(5).map(|home| (*home).to_owned())).flatten()
    })
}

fn working_directory(plan: &Plan<'_>, fs: &FsContext, by: &Caller<'_>) -> ControlResult<vfs::Location> {
    let cwd = if plan.spec.cwd.is_empty() { "/" } else { &plan.spec.cwd };
    // As root, and where that is not enough (id maps) as the user: so runc goes there.
    let root = KernelCaller::new(Credentials::root(Arc::clone(&plan.kernel.root.user)));
    let as_root = root.caller(0o022);
    let walk = Walk::new(fs, &as_root);
    let walk_user = Walk::new(fs, by);
    let found = match walk.find(cwd.as_bytes(), Follow::Yes) {
        Err(Errno::EACCES | Errno::EPERM) => walk_user.find(cwd.as_bytes(), Follow::Yes),
        Err(Errno::ENOENT) if plan.missing == MissingDirectory::Make => {
            make_directory(plan, fs, cwd).and_then(|()| walk.find(cwd.as_bytes(), Follow::Yes))
        }
        other => other,
    };
    let refused = |errno: Errno| {
        // A missing one is a program that was not found, as callers of runc are told.
        let kind = if errno == Errno::ENOENT { ErrorKind::ProgramNotFound } else { ErrorKind::Invalid };
        let text = errno.text().to_lowercase();
        ControlError::new(
            kind,
            format!("process.cwd: chdir to cwd ({cwd:?}) set in config.json failed: {text}"),
        )
    };
    let at = found.map_err(refused)?;
    vfs::ops::check_chdir(&at, &as_root).or_else(|_| vfs::ops::check_chdir(&at, by)).map_err(refused)?;
    Ok(at)
}

/// runc makes a missing working directory, as root.
fn make_directory(plan: &Plan<'_>, fs: &FsContext, path: &str) -> SysResult<()> {
    let root = KernelCaller::new(Credentials::root(Arc::clone(&plan.kernel.root.user)));
    let by = root.caller(0o022);
    let walk = Walk::new(fs, &by);
    let mut so_far = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        so_far.push('/');
        so_far.push_str(part);
        match vfs::ops::mkdir(&walk, so_far.as_bytes(), 0o755) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(super) fn put(files: &FdTable, file: Arc<vfs::OpenFile>) -> SysResult<()> {
    files.install(file, OnExec::Keep, 0, u64::MAX).map(drop)
}
