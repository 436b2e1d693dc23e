//! The kernel of one sandbox: what all its tasks share, and nothing else.
//!
//! Every object hangs off [`Kernel`] and is described by data, so that it can be saved and made again.

use crate::futex::FutexTable;
use crate::ipc::IpcNs;
use crate::namespace::{CgroupNs, NsProxy, UtsNames, UtsNs, next_ino};
use crate::process::pid::PidNs;
use crate::process::tree::{ProcessTree, TaskIndex};
use crate::procfs::Sysctl;
use crate::strace::SyscallTrace;
use crate::task::{FsContext, TaskShared};
use abi::SysResult;
use lock::Ranked;
use lock::order::PidTable;
use mm::Frames;
use net::host::HostNet;
use net::netns::NetNs;
use platform::Platform;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vfs::devpts::Terminals;
use vfs::tmpfs::{TmpFs, TmpfsOptions};
use vfs::{Mount, MountFlags, UserNamespace, Vfs};

/// One sandbox's kernel.
pub struct Kernel {
    /// How guest code runs.
    pub platform: Arc<dyn Platform>,
    /// Pages of guests.
    pub frames: Arc<Frames>,
    /// Files that belong to no process.
    pub files: KernelFiles,
    /// Threads, processes, groups, sessions.
    pub tree: Ranked<PidTable, ProcessTree>,
    /// The threads, for look-ups under other locks.
    pub tasks: Arc<TaskIndex>,
    /// The sandbox's first namespaces.
    pub root: RootNamespaces,
    /// When the sandbox started.
    pub boot: BootClock,
    /// `--strace`.
    pub trace: SyscallTrace,
    /// How many threads are traced.
    pub tracees: std::sync::atomic::AtomicUsize,
    /// Host threads that wait for a task.
    pub host_threads: Arc<crate::task::HostThreads>,
    /// Futexes.
    pub futexes: FutexTable,
    /// What the guest is told about the machine.
    pub machine: Machine,
    /// Values of /proc/sys.
    pub sysctl: Sysctl,
    /// Keys and keyrings.
    pub keys: crate::keys::Keys,
    /// Containers' control groups.
    pub bounds: crate::cgroup::memory::Bounds,
}

/// What the sandbox's files share.
#[derive(Debug)]
pub struct KernelFiles {
    /// Devices and file system types.
    pub vfs: Arc<Vfs>,
    /// The mount that memfds and shared memory live on; nobody sees it.
    pub shm: Arc<Mount>,
    /// Terminals and whose they are.
    pub terminals: Arc<Terminals>,
    /// Contexts of asynchronous I/O.
    pub aio: crate::files::aio::AioTable,
}

/// The namespaces that the sandbox starts with.
#[derive(Debug)]
pub struct RootNamespaces {
    /// User ids.
    pub user: Arc<UserNamespace>,
    /// Process ids.
    pub pid: Arc<PidNs>,
    /// The others.
    pub proxy: Arc<NsProxy>,
}

/// Start of the sandbox's clocks.
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    /// On the host's monotonic clock.
    pub started: Instant,
    /// On the real-time clock, since the epoch.
    pub realtime: Duration,
}

/// Facts about the machine that guests are shown.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Processors.
    pub cpus: u32,
    /// Their numbers on the host.
    pub cpu_ids: crate::cgroup::cpus::CpuSet,
    /// Bytes of memory.
    pub memory: u64,
    /// Cycles of a processor in a millisecond; 0 when unknown.
    pub cpu_khz: u64,
}

impl Kernel {
    /// A kernel without processes; its network is the loopback, or that of the host behind `network`.
    pub fn new(
        platform: Arc<dyn Platform>,
        machine: Machine,
        network: Option<HostNet>,
    ) -> SysResult<Arc<Kernel>> {
        let frames = Frames::new(Arc::clone(platform.memory()));
        if machine.memory != 0 {
            frames.policy().set_total(machine.memory);
        }
        let user = UserNamespace::initial(next_ino());
        let pid = PidNs::new(next_ino(), None, Arc::clone(&user))?;
        let names = UtsNames { nodename: b"localhost".to_vec(), domainname: b"(none)".to_vec() };
        let uts = UtsNs::new(Arc::clone(&user), names);
        let proxy = Arc::new(NsProxy {
            uts,
            ipc: IpcNs::new(next_ino(), Arc::clone(&user)),
            cgroup: CgroupNs::new(Arc::clone(&user)),
            net: NetNs::with_host(next_ino(), Arc::clone(&user), network),
            pid_for_children: Arc::clone(&pid),
        });
        let now = vfs::realtime_now();
        let realtime = now.to_duration().unwrap_or_default();
        let options = TmpfsOptions::default();
        let shm = Mount::of_fs(TmpFs::new(&frames, &options), MountFlags::empty(), b"shm");
        let files =
            KernelFiles { vfs: Vfs::new(), shm, terminals: Terminals::new(), aio: Default::default() };
        let tree = ProcessTree::default();
        let tasks = Arc::clone(tree.index());
        Ok(Arc::new(Kernel {
            platform,
            frames,
            tree: Ranked::new(tree),
            tasks,
            root: RootNamespaces { user, pid, proxy },
            boot: BootClock { started: Instant::now(), realtime },
            trace: SyscallTrace::default(),
            tracees: std::sync::atomic::AtomicUsize::new(0),
            host_threads: Arc::default(),
            futexes: FutexTable::default(),
            files,
            machine,
            sysctl: Sysctl::default(),
            keys: crate::keys::Keys::default(),
            bounds: crate::cgroup::memory::Bounds::default(),
        }))
    }
    /// The file-system context of every process, once each.
    #[must_use]
    pub fn fs_contexts(&self) -> Vec<Arc<FsContext>> {
        let tasks: Vec<Arc<TaskShared>> = self.tree.lock().tasks().cloned().collect();
        let mut found: Vec<Arc<FsContext>> = Vec::new();
        for fs in tasks.iter().filter_map(|task| task.published.lock().fs.clone()) {
            if !found.iter().any(|known| Arc::ptr_eq(known, &fs)) {
                found.push(fs);
            }
        }
        found
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({})", self.platform.name())
    }
}
