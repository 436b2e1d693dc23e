//! The command line: runc's verbs and flags, and the few that are ours.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Runs OCI bundles, each on a Linux kernel of its own in user space.
#[derive(Debug, Parser)]
#[command(name = "runsc", disable_version_flag = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Flags before the verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// Prints the version.
    #[arg(short = 'v', long)]
    pub(crate) version: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// Flags of all verbs.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Directory of the state of containers (default /run/gvisor-rs, or below XDG_RUNTIME_DIR for a user)
    #[arg(long)]
    pub(crate) root: Option<PathBuf>,
    /// File that errors are appended to
    #[arg(long)]
    pub(crate) log: Option<PathBuf>,
    /// Form of its lines
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Log debug lines
    #[arg(long)]
    pub(crate) debug: bool,
    /// File that the sandbox logs to
    #[arg(long)]
    pub(crate) debug_log: Option<PathBuf>,
    /// Log the system calls of the sandbox to --debug-log (default: standard error)
    #[arg(long)]
    pub(crate) strace: bool,
    /// Manage cgroups through systemd
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Leave cgroups alone
    #[arg(long)]
    pub(crate) ignore_cgroups: bool,
    /// Whether to run without privileges: true, false or auto
    #[arg(long, default_value = "auto", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) rootless: String,
    /// How guest code runs
    #[arg(long, value_enum, default_value = "systrap")]
    pub(crate) platform: Platform,
    /// Network of the sandbox
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) network: Network,
    /// Where writes go: none (to the bundle's root file system), root:memory or root:self (to the sandbox's
    /// memory, gone when it ends), all:memory or all:self (those to bind mounts as well)
    #[arg(long, default_value = "none")]
    pub(crate) overlay2: Overlay,
    /// Accepted for runc's callers
    #[arg(long, hide = true)]
    pub(crate) criu: Option<PathBuf>,
}

/// Form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// logrus' text.
    Text,
    /// One object a line.
    Json,
}

/// How guest code runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Platform {
    /// Seccomp and shared memory.
    Systrap,
    /// ptrace(2).
    Ptrace,
}

/// Network of the sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Network {
    /// Loopback only.
    None,
    /// The host's sockets.
    Host,
    /// A stack of our own.
    Sandbox,
}

/// Where writes of a guest go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Overlay {
    /// To the host's directories.
    None,
    /// To the root file system: to memory.
    #[value(name = "root:memory", alias = "root:self")]
    Root,
    /// All to memory.
    #[value(name = "all:memory", alias = "all:self")]
    All,
}

/// Form of listings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// Columns.
    Table,
    /// JSON.
    Json,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a container
    Create(Create),
    /// Start a created container
    Start(Named),
    /// Create and start a container
    Run(Run),
    /// Print the state of a container
    State(Named),
    /// List containers
    List(List),
    /// Send a signal to a container
    Kill(Kill),
    /// Delete a container
    Delete(Delete),
    /// Run another process in a container
    Exec(Exec),
    /// List the processes of a container
    Ps(Ps),
    /// Write a config.json to start from
    Spec(SpecArgs),
    /// Print what this runtime supports
    Features,
    /// Run a command over the host's root, which it cannot change
    Do(Do),
    /// Say what this host allows
    Check,
    /// Wait until a container ends and print its status
    Wait(Named),
    /// Freeze a container
    Pause(Named),
    /// Thaw a container
    Resume(Named),
    /// Change the limits of a container
    Update(Update),
    /// Print what a container uses
    Events(Events),
    /// Enter this runtime into the configuration of Docker, containerd or CRI-O
    Install(Install),
    /// Take it out again
    Uninstall(Install),
    /// Save a container
    Checkpoint(Rest),
    /// Bring a saved container back
    Restore(Rest),
}

/// A container's name.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Container id
    pub(crate) id: String,
}

/// Anything; for verbs that are not there yet.
#[derive(Debug, Args)]
pub(crate) struct Rest {
    /// Ignored
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<String>,
}

/// `create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Directory with config.json
    #[arg(short, long)]
    pub(crate) bundle: Option<PathBuf>,
    /// Socket that gets the master of the container's terminal
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// File to write the container's pid to
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Accepted; the root is never a host mount of the guest's
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Accepted; keyrings are the sandbox' own
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass this many descriptors from 3 on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Container id
    pub(crate) id: String,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// As create.
    #[command(flatten)]
    pub(crate) create: Create,
    /// Return once the container runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Leave the container's state behind when it ends
    #[arg(long)]
    pub(crate) keep: bool,
    /// Accepted
    #[arg(long)]
    pub(crate) no_subreaper: bool,
}

/// `list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Form
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `kill`.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// To all processes of the container
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Container id
    pub(crate) id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Kill it first; no error when it does not exist
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Container ids
    #[arg(required = true)]
    pub(crate) ids: Vec<String>,
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Socket that gets the master of the terminal
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// NAME=VALUE
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// UID[:GID]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Supplementary groups
    #[arg(short = 'g', long)]
    pub(crate) additional_gids: Vec<u32>,
    /// File with the process, as JSON
    #[arg(short, long)]
    pub(crate) process: Option<PathBuf>,
    /// Return once it runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File to write the pid to
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Accepted
    #[arg(long)]
    pub(crate) process_label: Option<String>,
    /// Accepted
    #[arg(long)]
    pub(crate) apparmor: Option<String>,
    /// Set PR_SET_NO_NEW_PRIVS
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Add a capability
    #[arg(short, long)]
    pub(crate) cap: Vec<String>,
    /// Pass this many descriptors from 3 on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Accepted
    #[arg(long)]
    pub(crate) cgroup: Vec<String>,
    /// Also when the container is paused
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Container id
    pub(crate) id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// `ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Form
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Container id
    pub(crate) id: String,
    /// Accepted
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

/// `spec`.
#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// Directory to write to
    #[arg(short, long)]
    pub(crate) bundle: Option<PathBuf>,
    /// For a user without privileges
    #[arg(long)]
    pub(crate) rootless: bool,
}

/// `do`.
#[derive(Debug, Args)]
pub(crate) struct Do {
    /// Working directory (default: the caller's)
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// NAME=VALUE, added to the caller's
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Another directory as the root
    #[arg(long, default_value = "/")]
    pub(crate) rootfs: PathBuf,
    /// Bind a host directory, writable: SOURCE or SOURCE:DESTINATION
    #[arg(long)]
    pub(crate) volume: Vec<String>,
    /// UID[:GID] (default 0:0)
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// `update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// File with linux.resources as JSON, or - for standard input; other flags are ignored then
    #[arg(short, long)]
    pub(crate) resources: Option<PathBuf>,
    /// Bytes of memory, or 64M; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Bytes that the container is left when the host is short of them
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    /// Bytes of memory and swap together; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Accepted; kernels have no such limit any more
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) kernel_memory: Option<String>,
    /// Bytes for TCP buffers
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// Weight, 10 to 1000
    #[arg(long)]
    pub(crate) blkio_weight: Option<u16>,
    /// Microseconds a period; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Microseconds
    #[arg(long)]
    pub(crate) cpu_period: Option<u64>,
    /// Microseconds of quota that may be saved up
    #[arg(long)]
    pub(crate) cpu_burst: Option<u64>,
    /// Microseconds of realtime
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// Microseconds
    #[arg(long)]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Shares, 2 to 262144
    #[arg(long, alias = "cpu-shares")]
    pub(crate) cpu_share: Option<u64>,
    /// 1: only when nobody else wants the processor
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_idle: Option<i64>,
    /// Processors, like 0-2,4
    #[arg(long)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    pub(crate) cpuset_mems: Option<String>,
    /// Tasks; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Not available
    #[arg(long, hide = true)]
    pub(crate) l3_cache_schema: Option<String>,
    /// Not available
    #[arg(long, hide = true)]
    pub(crate) mem_bw_schema: Option<String>,
    /// Container id
    pub(crate) id: String,
}

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Once
    #[arg(long)]
    pub(crate) stats: bool,
    /// Every so often
    #[arg(long, default_value = "5s")]
    pub(crate) interval: String,
    /// Container id
    pub(crate) id: String,
}

/// Whose configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Target {
    /// daemon.json.
    Docker,
    /// config.toml.
    Containerd,
    /// A drop-in.
    #[value(alias = "cri-o")]
    Crio,
}

/// `install` and `uninstall`.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Whose configuration (default: all that are here)
    #[arg(value_enum)]
    pub(crate) targets: Vec<Target>,
    /// Name of the runtime or handler
    #[arg(long, alias = "runtime", default_value = "gvisor-rs")]
    pub(crate) name: String,
    /// The program (default: this one)
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Docker's configuration (default /etc/docker/daemon.json)
    #[arg(long, alias = "config-file", alias = "config_file")]
    pub(crate) docker_config: Option<PathBuf>,
    /// containerd's configuration (default /etc/containerd/config.toml)
    #[arg(long)]
    pub(crate) containerd_config: Option<PathBuf>,
    /// CRI-O's drop-in (default /etc/crio/crio.conf.d/99-NAME.conf)
    #[arg(long)]
    pub(crate) crio_config: Option<PathBuf>,
    /// A flag that the runtime is always called with; may be repeated
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) runtime_args: Vec<String>,
    /// Show what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// More flags for the runtime
    #[arg(last = true, allow_hyphen_values = true)]
    pub(crate) rest: Vec<String>,
}
