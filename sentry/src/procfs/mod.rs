//! /proc (proc(5)), over the synthetic file systems of `vfs`.
//!
//! `pids` says which entries a process has; `status`, `memory`, `links`, `ids`, `mounts` and `net` make
//! them; `system`, `cpuinfo` and `sysctl` are about the sandbox. Everything comes from the kernel's own
//! state: no file of the host is read, ever. A mount belongs to the pid namespace of who made it.

mod cpuinfo;
mod ids;
mod links;
mod locks;
mod login;
mod memory;
mod mounts;
mod net;
pub mod nsfs;
mod pagemap;
mod pids;
mod procmap;
mod protected;
mod status;
pub mod subject;
pub mod sysctl;
mod sysctl_ipc;
pub(crate) mod system;
mod sysvipc;
pub(crate) mod text;

pub(crate) use memory::place_of;
pub use nsfs::NsHandle;
pub use pids::process_of;
pub use subject::{PtraceAccess, may_access};
pub use sysctl::Sysctl;
pub(crate) use system::vfs_of;

use crate::kernel::Kernel;
use crate::process::pid::PidNs;
use abi::fs::ModeBits;
use abi::{Errno, SysResult};
use cpuinfo::Processor;
use lock::Ranked;
use std::sync::Arc;
use vfs::synthetic::{Node, SynthFs, SynthInode};
use vfs::{Caller, DentryHint, FileSystem, FsType, MountRequest};

const MAGIC: u64 = 0x9fa0;

type Table = fn(&Arc<Kernel>, &Caller<'_>) -> SysResult<Vec<u8>>;

static TABLES: [(&str, ModeBits, Table); 26] = [
    ("buddyinfo", 0o400, system::buddyinfo),
    ("cgroups", 0o444, system::cgroups),
    ("cmdline", 0o444, system::cmdline),
    ("consoles", 0o400, system::consoles),
    ("crypto", 0o444, system::nothing),
    ("devices", 0o444, system::devices),
    ("diskstats", 0o444, system::nothing),
    ("dma", 0o444, system::nothing),
    ("filesystems", 0o444, system::filesystems),
    ("interrupts", 0o444, system::interrupts),
    ("iomem", 0o400, system::nothing),
    ("ioports", 0o400, system::nothing),
    ("kallsyms", 0o444, system::nothing),
    ("key-users", 0o444, system::key_users),
    ("keys", 0o444, system::keys),
    ("locks", 0o444, locks::locks),
    ("meminfo", 0o444, system::meminfo),
    ("misc", 0o444, system::misc),
    ("modules", 0o444, system::nothing),
    ("partitions", 0o444, system::partitions),
    ("slabinfo", 0o400, system::slabinfo),
    ("softirqs", 0o444, system::softirqs),
    ("stat", 0o444, system::stat),
    ("swaps", 0o444, system::swaps),
    ("uptime", 0o444, system::uptime),
    ("version", 0o444, system::version),
];

static MORE_TABLES: [(&str, ModeBits, Table); 4] = [
    ("version_signature", 0o444, system::version_signature),
    ("vmallocinfo", 0o400, system::nothing),
    ("vmstat", 0o444, system::vmstat),
    ("zoneinfo", 0o400, system::zoneinfo),
];

/// A proc that shows the processes of `view`.
#[must_use]
pub fn new(kernel: &Arc<Kernel>, view: &Arc<PidNs>) -> Arc<SynthFs> {
    let processes = pids::Processes { kernel: Arc::clone(kernel), view: Arc::clone(view) };
    let root = Node::changing_dir(0o555, Arc::new(processes));
    let fs = SynthFs::new("proc", MAGIC, DentryHint::Never, root);
    if let Some(root) = fs.root_inode() {
        fill(kernel, view, root);
    }
    fs
}

/// What a file of /proc shows, for the sandbox's own use: a table (`uptime`), or a text of one process
/// (`7/stat`) as `view` numbers them. `ENOENT` for anything else.
pub fn show(kernel: &Arc<Kernel>, view: &Arc<PidNs>, path: &str, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    if let Some((number, name)) = path.split_once('/') {
        return pids::show(kernel, view, pids::parse_number(number.as_bytes())?, name, by);
    }
    let table = TABLES.iter().chain(&MORE_TABLES).find(|(name, ..)| *name == path);
    table.map_or(Err(Errno::ENOENT), |(_, _, table)| table(kernel, by))
}

fn fill(kernel: &Arc<Kernel>, view: &Arc<PidNs>, root: &Arc<SynthInode>) {
    for (name, perm, table) in TABLES.iter().chain(&MORE_TABLES) {
        let (kernel, table) = (Arc::clone(kernel), *table);
        root.add(name, Node::text(*perm, move |by| table(&kernel, by)));
    }
    root.add("self", pids::self_link(kernel, view));
    root.add("thread-self", pids::thread_link(kernel, view));
    root.add("mounts", Node::link_to(b"self/mounts"));
    root.add("net", Node::link_to(b"self/net"));
    let processor = Processor::new();
    let owner = Arc::clone(kernel);
    root.text("cpuinfo", move |_| Ok(processor.cpuinfo(&owner)));
    let load: Ranked<lock::order::Leaf, system::Load> = Ranked::new(system::Load::new(kernel.boot.started));
    let (owner, ns) = (Arc::clone(kernel), Arc::clone(view));
    root.text("loadavg", move |_| Ok(system::loadavg(&owner, &load, ns.last())));
    for name in ["cpu", "io", "irq", "memory"] {
        root.dir("pressure").text(name, move |_| Ok(system::pressure(name)));
    }
    for name in ["msg", "sem", "shm"] {
        root.dir("sysvipc").text(name, move |by| Ok(sysvipc::table(name, by)));
    }
    for name in ["acpi", "bus", "driver", "fs", "irq", "scsi", "tty"] {
        root.dir(name);
    }
    root.dir("tty").text("drivers", |_| {
        Ok(b"/dev/tty             /dev/tty        5       0 system:/dev/tty\n/dev/console         /dev/console    5       1 system:console\n/dev/ptmx            /dev/ptmx       5       2 system\npty_slave            /dev/pts      136 0-1048575 pty:slave\npty_master           /dev/ptm      128 0-1048575 pty:master\n".to_vec())
    });
    let refuse = |_: &Caller<'_>| -> SysResult<Vec<u8>> { Err(Errno::EIO) };
    root.add("sysrq-trigger", Node::text_rw(0o200, refuse, |_, _| Err(Errno::EPERM)));
    root.add("kcore", Node::text(0o400, |_| Err(Errno::EPERM)));
    root.add("kmsg", Node::text(0o400, |_| Err(Errno::EPERM)));
    root.add("timer_list", Node::text(0o400, |_| Ok(Vec::new())));
    let owner = Arc::clone(kernel);
    root.add("sys", Node::lazy_dir(0o555, move |sys| sysctl::build(&owner, sys)));
}

/// The type "proc" of mount(2).
pub struct ProcType(Arc<Kernel>);

impl ProcType {
    /// For this kernel.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>) -> Arc<ProcType> {
        Arc::new(ProcType(Arc::clone(kernel)))
    }
}

impl std::fmt::Debug for ProcType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProcType")
    }
}

impl FsType for ProcType {
    fn name(&self) -> &'static str {
        "proc"
    }
    fn in_user_namespace(&self) -> bool {
        true
    }
    fn mount(&self, request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>> {
        check_options(request.data)?;
        let caller = subject::reader(&self.0, request.walk.by);
        let ns = caller.and_then(|task| task.published.lock().pid.ns().cloned());
        let ns = ns.unwrap_or_else(|| Arc::clone(&self.0.root.pid));
        Ok(new(&self.0, &ns))
    }
}

/// `hidepid=0`, `gid=N` and `subset=` of proc(5); hiding is not there, and says so.
fn check_options(data: &[u8]) -> SysResult<()> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("hidepid", "0" | "off")) => {}
            Some(("gid", gid)) if gid.parse::<u32>().is_ok() => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(())
}
