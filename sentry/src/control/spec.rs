//! A container as the kernel needs it: the bundle's `config.json` after the runtime has validated it and
//! turned host paths into numbered gofer exports. No host path the guest could name is in here.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How guest code runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformKind {
    /// Seccomp notification, traps and patched call sites.
    Systrap,
    /// PTRACE_SYSEMU.
    Ptrace,
}

/// Where writes to the root filesystem go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootOverlay {
    /// To an overlay in the sandbox's memory; the bundle stays untouched.
    Memory,
    /// To the bundle's root filesystem itself, through the gofer.
    None,
}

/// What the sandbox as a whole is told at boot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BootConfig {
    /// Id of the sandbox: that of its first container.
    pub sandbox: String,
    /// How guest code runs.
    pub platform: PlatformKind,
    /// Trace system calls to the log from the start.
    pub strace: bool,
    /// Log debug lines.
    pub debug: bool,
    /// Bytes that the memory file may grow to.
    pub memory_limit: u64,
    /// Processors the guest sees, by their numbers on the host.
    pub cpu_ids: [u64; 16],
    /// Contents of host files that are gone once the walls are up.
    pub host: HostFacts,
}

/// Facts of the host that guests are shown.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HostFacts {
    /// `MemTotal`, in bytes.
    pub memory_total: u64,
    /// The host's `/proc/cpuinfo` is made again from CPUID, except for this: MHz of the first processor,
    /// in thousands.
    pub cpu_khz: u64,
}

/// One container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its id.
    pub id: String,
    /// Its first process.
    pub process: ProcessSpec,
    /// sethostname(2).
    pub hostname: Option<String>,
    /// setdomainname(2).
    pub domainname: Option<String>,
    /// The root filesystem, always gofer export 0.
    pub root: RootSpec,
    /// What is mounted over it, in order.
    pub mounts: Vec<MountSpec>,
    /// Extra device nodes.
    pub devices: Vec<DeviceSpec>,
    /// Paths that are made unreadable.
    pub masked_paths: Vec<String>,
    /// Paths that are made read-only.
    pub readonly_paths: Vec<String>,
    /// `/proc/sys` values, dots or slashes as separators.
    pub sysctl: BTreeMap<String, String>,
    /// Namespaces of its own or shared with the sandbox' first container.
    pub namespaces: Namespaces,
    /// Another container of the sandbox whose pid namespace it shares, rather than the first's.
    #[serde(default)]
    pub pid_of: Option<String>,
    /// Limits of its cgroup.
    pub limits: Limits,
    /// Path of its cgroup as the guest sees it is always `/`; this is the host's, for messages only.
    pub cgroup: Option<String>,
    /// How many descriptors of `cgroup.procs` follow the gofer's connection.
    #[serde(default)]
    pub cgroup_files: u32,
    /// Whether a connection to a network helper of its own comes with it: it has a network beside the sandbox'.
    #[serde(default)]
    pub network_helper: bool,
    /// The bundle's seccomp profile.
    pub seccomp: Option<SeccompSpec>,
    /// User namespace mappings; empty without one.
    pub uid_mappings: Vec<IdMapping>,
    /// Group mappings.
    pub gid_mappings: Vec<IdMapping>,
}

/// A seccomp profile, its names resolved to the numbers of this architecture.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeccompSpec {
    /// For calls without a rule.
    pub default: SeccompAction,
    /// Rules, in the bundle's order.
    pub rules: Vec<SeccompRule>,
    /// `SECCOMP_FILTER_FLAG_LOG`.
    pub log: bool,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompAction {
    /// SIGSYS for the process.
    KillProcess,
    /// The thread ends.
    KillThread,
    /// A SIGSYS that can be handled.
    Trap,
    /// It fails with this errno.
    Errno(u16),
    /// A tracer is asked, with this message.
    Trace(u16),
    /// It is made and logged.
    Log,
    /// It is made.
    Allow,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeccompRule {
    /// Numbers of calls.
    pub calls: Vec<u32>,
    /// What becomes of them.
    pub action: SeccompAction,
    /// When all of these hold; always when there is none.
    pub args: Vec<SeccompArg>,
}

/// A condition on an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeccompArg {
    /// Which argument, 0 to 5.
    pub index: u8,
    /// Comparison.
    pub op: SeccompOp,
    /// Compared with; the mask of `MaskedEq`.
    pub value: u64,
    /// Compared with by `MaskedEq`.
    pub value_two: u64,
}

/// Comparisons.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompOp {
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Equal.
    Eq,
    /// Greater or equal.
    Ge,
    /// Greater.
    Gt,
    /// Equal under a mask.
    MaskedEq,
}

/// What the host's mount table says of a place.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HostMount {
    /// Type of the file system.
    pub fs_type: String,
    /// What is mounted.
    pub source: String,
    /// Where in the file system the place lies.
    pub place: String,
}

/// The root filesystem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RootSpec {
    /// Mounted read-only.
    pub readonly: bool,
    /// Where writes go.
    pub overlay: RootOverlay,
    /// The host's file system, as shown.
    pub shown: HostMount,
    /// `linux.rootfsPropagation`, as in [`MountFlags`].
    pub propagation: u64,
}

/// One mount over the root.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute path inside the container; made when missing.
    pub destination: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Shown as the source.
    pub source: String,
    /// Flags.
    pub flags: MountFlags,
    /// Options that are not flags, `key=value` or `key`, for the file system (`size=64m`, `mode=755`).
    pub data: Vec<String>,
    /// The host looks at this tmpfs over a connection that comes with the container.
    #[serde(default)]
    pub viewed: bool,
}

/// What is mounted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountKind {
    /// A host directory or file behind the gofer.
    Bind {
        /// Number of the gofer's export.
        export: u32,
        /// A file rather than a directory.
        file: bool,
        /// Where writes go.
        overlay: RootOverlay,
        /// Type of the host's file system, where it is one worth showing.
        fs_type: String,
        /// Where in that file system the source lies.
        place: String,
    },
    /// A file system of the kernel's own.
    Tmpfs,
    /// procfs.
    Proc,
    /// sysfs.
    Sysfs,
    /// devpts.
    Devpts,
    /// POSIX message queues.
    Mqueue,
    /// cgroup v2.
    Cgroup,
}

/// Flags of a mount, and what to do when propagation is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MountFlags {
    /// `ro`.
    pub readonly: bool,
    /// `nosuid`.
    pub nosuid: bool,
    /// `nodev`.
    pub nodev: bool,
    /// `noexec`.
    pub noexec: bool,
    /// `noatime`.
    pub noatime: bool,
    /// `nodiratime`.
    pub nodiratime: bool,
    /// `relatime`.
    pub relatime: bool,
    /// `strictatime`.
    pub strictatime: bool,
    /// `sync`.
    pub sync: bool,
    /// `tmpcopyup`: begins with what it covers.
    pub copy_up: bool,
    /// Propagation: `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` (with `MS_REC`), or 0.
    pub propagation: u64,
}

/// A device node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Absolute path inside the container.
    pub path: String,
    /// Character, block or fifo.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kind of a device node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// `c` and `u`.
    Char,
    /// `b`.
    Block,
    /// `p`.
    Fifo,
}

/// A namespace of the container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// One of its own.
    #[default]
    Private,
    /// That of the sandbox' first container.
    Sandbox,
}

/// Namespaces of a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Namespaces {
    /// Process ids.
    pub pid: NamespaceKind,
    /// Network.
    pub net: NamespaceKind,
    /// System V IPC and message queues.
    pub ipc: NamespaceKind,
    /// Host name.
    pub uts: NamespaceKind,
    /// Whether it has a user namespace of its own.
    pub user: bool,
}

/// One line of an id map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Limits of a cgroup; `None` is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes.
    pub memory_max: Option<u64>,
    /// memory.oom.group: all processes are killed together.
    pub oom_group: bool,
    /// Tasks.
    pub pids_max: Option<u64>,
    /// CPU time per period, in microseconds.
    pub cpu_quota_us: Option<u64>,
    /// The period, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// cpu.weight, 1 to 10000.
    pub cpu_weight: Option<u64>,
    /// Processors that the host lets it have, by their numbers there.
    pub cpus: Option<[u64; 16]>,
}

/// A process: the first one of a container, or one that `exec` adds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Of an exec: a group below the container's, as its guests see them.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// Path of the program, where it is not the first argument. Such a process is a hook: it runs before the
    /// container's own.
    pub program: Option<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// Credentials.
    pub user: UserSpec,
    /// Resource limits.
    pub rlimits: Vec<RlimitSpec>,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// personality(2).
    pub personality: u32,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// What descriptors 0 to 2 are.
    pub stdio: Stdio,
    /// How many descriptors follow from 3.
    pub preserved: u32,
}

/// Credentials of a process.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct UserSpec {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// umask(2); 022 when absent.
    pub umask: Option<u32>,
}

/// One resource limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RlimitSpec {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is infinity.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Capability sets, bit n is capability n.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// CapEff.
    pub effective: u64,
    /// CapPrm.
    pub permitted: u64,
    /// CapInh.
    pub inheritable: u64,
    /// CapBnd.
    pub bounding: u64,
    /// CapAmb.
    pub ambient: u64,
}

/// What a process has as descriptors 0, 1 and 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stdio {
    /// Three donated host files.
    Files,
    /// One donated descriptor: the slave of a host pseudo-terminal in raw mode. The kernel puts a terminal
    /// of its own in front of it (line discipline, job control), shows it as `/dev/console` (container) or
    /// `/dev/pts/N` (exec), makes it the controlling terminal, and takes the window size from the slave.
    Terminal,
}
