//! /proc/sys (proc_sys(5), sysctl(8)): a table of values, and the few that live elsewhere.
//!
//! [`Sysctl`] hangs off the kernel, so every mount of proc shows the same values. Rank: `Leaf`.

use super::status::published_reader;
use super::text::number;
use crate::files::NR_OPEN;
use crate::kernel::Kernel;
use crate::namespace::{NsProxy, UtsNs};
use crate::process::pid::PID_MAX;
use crate::syscalls::system::uname::{RELEASE, VERSION};
use ::net::NetNs;
use abi::fs::ModeBits;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Leaf;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vfs::event::pipe::PIPE_MAX_SIZE;
use vfs::synthetic::{Node, SynthInode, WriteText};
use vfs::{Caller, Capabilities};

/// What a value may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// One number in a range.
    Number(i64, i64),
    /// Several numbers, none negative.
    Numbers,
    /// A line of at most so many bytes.
    Text(usize),
    /// Fixed.
    Fixed,
}

struct Value {
    path: &'static str,
    kind: Kind,
    default: &'static str,
}

const fn n(path: &'static str, default: &'static str) -> Value {
    Value { path, kind: Kind::Number(0, i64::MAX), default }
}
const fn int(path: &'static str, low: i64, high: i64, default: &'static str) -> Value {
    Value { path, kind: Kind::Number(low, high), default }
}
const fn flag(path: &'static str, default: &'static str) -> Value {
    int(path, 0, 1, default)
}
const fn list(path: &'static str, default: &'static str) -> Value {
    Value { path, kind: Kind::Numbers, default }
}
const fn text(path: &'static str, max: usize, default: &'static str) -> Value {
    Value { path, kind: Kind::Text(max), default }
}
const fn fixed(path: &'static str, default: &'static str) -> Value {
    Value { path, kind: Kind::Fixed, default }
}

static VALUES: &[Value] = &[
    n("debug/exception-trace", "1"),
    n("fs/aio-max-nr", "65536"),
    fixed("fs/dentry-state", "0\t0\t45\t0\t0\t0"),
    flag("fs/dir-notify-enable", "1"),
    n("fs/epoll/max_user_watches", "1048576"),
    n("fs/file-max", "9223372036854775807"),
    fixed("fs/inode-nr", "0\t0"),
    fixed("fs/inode-state", "0\t0\t0\t0\t0\t0\t0"),
    n("fs/inotify/max_queued_events", "16384"),
    n("fs/inotify/max_user_instances", "128"),
    n("fs/inotify/max_user_watches", "1048576"),
    flag("fs/leases-enable", "1"),
    n("fs/mount-max", "100000"),
    int("fs/mqueue/msg_default", 1, 65536, "10"),
    int("fs/mqueue/msg_max", 1, 65536, "10"),
    int("fs/mqueue/msgsize_default", 128, 16_777_216, "8192"),
    int("fs/mqueue/msgsize_max", 128, 16_777_216, "8192"),
    n("fs/mqueue/queues_max", "256"),
    n("fs/nr_open", "1048576"),
    int("fs/overflowgid", 0, 65535, "65534"),
    int("fs/overflowuid", 0, 65535, "65534"),
    n("fs/pipe-user-pages-hard", "0"),
    n("fs/pipe-user-pages-soft", "16384"),
    int("fs/suid_dumpable", 0, 2, "0"),
    fixed("kernel/arch", "x86_64"),
    int("kernel/auto_msgmni", 0, 1, "0"),
    fixed("kernel/cap_last_cap", "40"),
    text("kernel/core_pattern", 127, "core"),
    n("kernel/core_pipe_limit", "0"),
    flag("kernel/core_uses_pid", "0"),
    n("kernel/ctrl-alt-del", "0"),
    flag("kernel/dmesg_restrict", "1"),
    n("kernel/hung_task_timeout_secs", "120"),
    int("kernel/io_uring_disabled", 0, 2, "2"),
    flag("kernel/kexec_load_disabled", "1"),
    n("kernel/keys/gc_delay", "300"),
    n("kernel/keys/maxbytes", "20000"),
    n("kernel/keys/maxkeys", "200"),
    n("kernel/keys/root_maxbytes", "25000000"),
    n("kernel/keys/root_maxkeys", "1000000"),
    int("kernel/kptr_restrict", 0, 2, "1"),
    flag("kernel/modules_disabled", "1"),
    n("kernel/msgmax", "8192"),
    n("kernel/msgmnb", "16384"),
    n("kernel/msgmni", "32000"),
    fixed("kernel/ngroups_max", "65536"),
    flag("kernel/nmi_watchdog", "0"),
    flag("kernel/numa_balancing", "0"),
    int("kernel/overflowgid", 0, 65535, "65534"),
    int("kernel/overflowuid", 0, 65535, "65534"),
    int("kernel/panic", -1, i64::MAX, "0"),
    flag("kernel/panic_on_oops", "0"),
    n("kernel/perf_event_max_sample_rate", "100000"),
    n("kernel/perf_event_mlock_kb", "516"),
    int("kernel/perf_event_paranoid", -1, 4, "4"),
    list("kernel/printk", "4\t4\t1\t7"),
    n("kernel/printk_ratelimit", "5"),
    n("kernel/printk_ratelimit_burst", "10"),
    n("kernel/pty/max", "4096"),
    fixed("kernel/pty/nr", "0"),
    n("kernel/pty/reserve", "1024"),
    fixed("kernel/random/entropy_avail", "256"),
    fixed("kernel/random/poolsize", "256"),
    n("kernel/random/urandom_min_reseed_secs", "60"),
    n("kernel/random/write_wakeup_threshold", "256"),
    int("kernel/randomize_va_space", 0, 2, "2"),
    flag("kernel/sched_autogroup_enabled", "0"),
    n("kernel/sched_rr_timeslice_ms", "100"),
    n("kernel/sched_rt_period_us", "1000000"),
    int("kernel/sched_rt_runtime_us", -1, i64::MAX, "950000"),
    flag("kernel/sched_schedstats", "0"),
    fixed("kernel/seccomp/actions_avail", "kill_process kill_thread trap errno user_notif trace log allow"),
    text("kernel/seccomp/actions_logged", 128, "kill_process kill_thread trap errno user_notif trace log"),
    list("kernel/sem", "32000\t1024000000\t500\t32000"),
    n("kernel/shmall", "18446744073692774399"),
    n("kernel/shmmax", "18446744073692774399"),
    n("kernel/shmmni", "4096"),
    flag("kernel/shm_rmid_forced", "0"),
    n("kernel/sysrq", "16"),
    fixed("kernel/tainted", "0"),
    flag("kernel/timer_migration", "1"),
    int("kernel/unprivileged_bpf_disabled", 0, 2, "2"),
    flag("kernel/watchdog", "0"),
    n("net/core/busy_poll", "0"),
    n("net/core/busy_read", "0"),
    text("net/core/default_qdisc", 15, "pfifo_fast"),
    n("net/core/dev_weight", "64"),
    n("net/core/message_burst", "10"),
    n("net/core/message_cost", "5"),
    n("net/core/netdev_budget", "300"),
    n("net/core/netdev_max_backlog", "1000"),
    n("net/core/optmem_max", "131072"),
    int("net/core/rmem_default", 2304, i64::MAX, "212992"),
    int("net/core/rmem_max", 2304, i64::MAX, "4194304"),
    int("net/core/wmem_default", 4608, i64::MAX, "212992"),
    int("net/core/wmem_max", 4608, i64::MAX, "4194304"),
    flag("net/ipv4/icmp_echo_ignore_all", "0"),
    flag("net/ipv4/icmp_echo_ignore_broadcasts", "1"),
    int("net/ipv4/ip_default_ttl", 1, 255, "64"),
    flag("net/ipv4/ip_forward", "0"),
    text("net/ipv4/ip_local_reserved_ports", 4096, ""),
    flag("net/ipv4/ip_nonlocal_bind", "0"),
    n("net/ipv4/ipfrag_high_thresh", "4194304"),
    n("net/ipv4/ipfrag_low_thresh", "3145728"),
    n("net/ipv4/ipfrag_time", "30"),
    n("net/ipv4/neigh/default/gc_thresh1", "128"),
    n("net/ipv4/neigh/default/gc_thresh2", "512"),
    n("net/ipv4/neigh/default/gc_thresh3", "1024"),
    flag("net/ipv4/tcp_abort_on_overflow", "0"),
    fixed("net/ipv4/tcp_allowed_congestion_control", "reno cubic"),
    fixed("net/ipv4/tcp_available_congestion_control", "reno cubic"),
    text("net/ipv4/tcp_congestion_control", 15, "cubic"),
    int("net/ipv4/tcp_dsack", 0, 1, "1"),
    int("net/ipv4/tcp_ecn", 0, 2, "2"),
    n("net/ipv4/tcp_fastopen", "1"),
    n("net/ipv4/tcp_fin_timeout", "60"),
    n("net/ipv4/tcp_keepalive_intvl", "75"),
    int("net/ipv4/tcp_keepalive_probes", 0, 127, "9"),
    n("net/ipv4/tcp_keepalive_time", "7200"),
    n("net/ipv4/tcp_limit_output_bytes", "4194304"),
    n("net/ipv4/tcp_max_orphans", "65536"),
    n("net/ipv4/tcp_max_syn_backlog", "512"),
    n("net/ipv4/tcp_max_tw_buckets", "65536"),
    list("net/ipv4/tcp_mem", "188319\t251094\t376638"),
    flag("net/ipv4/tcp_moderate_rcvbuf", "1"),
    int("net/ipv4/tcp_mtu_probing", 0, 2, "0"),
    flag("net/ipv4/tcp_no_metrics_save", "0"),
    n("net/ipv4/tcp_notsent_lowat", "4294967295"),
    n("net/ipv4/tcp_orphan_retries", "0"),
    n("net/ipv4/tcp_reordering", "3"),
    n("net/ipv4/tcp_retries1", "3"),
    n("net/ipv4/tcp_retries2", "15"),
    flag("net/ipv4/tcp_rfc1337", "0"),
    list("net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
    flag("net/ipv4/tcp_sack", "1"),
    flag("net/ipv4/tcp_slow_start_after_idle", "1"),
    int("net/ipv4/tcp_syn_retries", 1, 127, "6"),
    n("net/ipv4/tcp_synack_retries", "5"),
    int("net/ipv4/tcp_syncookies", 0, 2, "1"),
    int("net/ipv4/tcp_timestamps", 0, 2, "1"),
    int("net/ipv4/tcp_tw_reuse", 0, 2, "2"),
    flag("net/ipv4/tcp_window_scaling", "1"),
    list("net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    list("net/ipv4/udp_mem", "376641\t502191\t753282"),
    n("net/ipv4/udp_rmem_min", "4096"),
    n("net/ipv4/udp_wmem_min", "4096"),
    flag("net/ipv6/bindv6only", "0"),
    flag("net/ipv6/ip_nonlocal_bind", "0"),
    n("vm/admin_reserve_kbytes", "8192"),
    n("vm/compaction_proactiveness", "20"),
    n("vm/dirty_background_bytes", "0"),
    int("vm/dirty_background_ratio", 0, 100, "10"),
    n("vm/dirty_bytes", "0"),
    n("vm/dirty_expire_centisecs", "3000"),
    int("vm/dirty_ratio", 0, 100, "20"),
    n("vm/dirty_writeback_centisecs", "500"),
    n("vm/extfrag_threshold", "500"),
    n("vm/hugetlb_shm_group", "0"),
    flag("vm/laptop_mode", "0"),
    n("vm/max_map_count", "65530"),
    n("vm/min_free_kbytes", "67584"),
    n("vm/mmap_min_addr", "65536"),
    int("vm/mmap_rnd_bits", 28, 32, "28"),
    int("vm/mmap_rnd_compat_bits", 8, 16, "8"),
    n("vm/nr_hugepages", "0"),
    n("vm/nr_overcommit_hugepages", "0"),
    flag("vm/oom_dump_tasks", "1"),
    flag("vm/oom_kill_allocating_task", "0"),
    n("vm/overcommit_kbytes", "0"),
    n("vm/page-cluster", "3"),
    int("vm/panic_on_oom", 0, 2, "0"),
    n("vm/stat_interval", "1"),
    int("vm/swappiness", 0, 200, "60"),
    flag("vm/unprivileged_userfaultfd", "0"),
    n("vm/user_reserve_kbytes", "131072"),
    n("vm/vfs_cache_pressure", "100"),
    n("vm/watermark_boost_factor", "15000"),
    n("vm/watermark_scale_factor", "10"),
    n("vm/zone_reclaim_mode", "0"),
];

/// Interfaces of net/ipv4/conf and net/ipv6/conf.
const INTERFACES: [&str; 3] = ["all", "default", "lo"];
const CONF4: [(&str, &str); 15] = [
    ("accept_local", "0"),
    ("accept_redirects", "1"),
    ("accept_source_route", "0"),
    ("arp_announce", "0"),
    ("arp_filter", "0"),
    ("arp_ignore", "0"),
    ("arp_notify", "0"),
    ("forwarding", "0"),
    ("log_martians", "0"),
    ("proxy_arp", "0"),
    ("route_localnet", "0"),
    ("rp_filter", "0"),
    ("secure_redirects", "1"),
    ("send_redirects", "1"),
    ("tag", "0"),
];
const CONF6: [(&str, &str); 9] = [
    ("accept_dad", "0"),
    ("accept_ra", "1"),
    ("accept_redirects", "1"),
    ("addr_gen_mode", "0"),
    ("autoconf", "1"),
    ("disable_ipv6", "0"),
    ("forwarding", "0"),
    ("hop_limit", "64"),
    ("use_tempaddr", "0"),
];
const USER_LIMITS: [&str; 10] = [
    "max_cgroup_namespaces",
    "max_fanotify_groups",
    "max_inotify_instances",
    "max_inotify_watches",
    "max_ipc_namespaces",
    "max_mnt_namespaces",
    "max_net_namespaces",
    "max_pid_namespaces",
    "max_user_namespaces",
    "max_uts_namespaces",
];

/// The values that were set.
#[derive(Debug, Default)]
pub struct Sysctl(Ranked<Leaf, BTreeMap<String, String>>);

impl Sysctl {
    /// A value as /proc/sys shows it, without the end of line; `None` when there is no such name.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<String> {
        let set = self.0.lock().get(path).cloned();
        set.or_else(|| VALUES.iter().find(|value| value.path == path).map(|value| value.default.to_owned()))
    }
    /// The numbers of a value; empty when there is no such name.
    #[must_use]
    pub fn numbers(&self, path: &str) -> Vec<u64> {
        let text = self.get(path).unwrap_or_default();
        text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
    }
    /// Sets a value, dots or slashes as separators (sysctl of an OCI bundle): `ENOENT`, `EINVAL`.
    pub fn set(&self, name: &str, text: &str) -> SysResult<()> {
        let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
        set_known(&self.0, &path, text)
    }
}

/// `ENOENT` when there is no such name.
fn set_known(values: &Values, path: &str, text: &str) -> SysResult<()> {
    let known = VALUES.iter().find(|value| value.path == path).ok_or(Errno::ENOENT)?;
    store(values, (path, known.default), known.kind, text)
}

/// The new value in the shape it is shown in.
fn check(kind: Kind, old: &str, text: &str) -> SysResult<String> {
    match kind {
        Kind::Fixed => Err(Errno::EPERM),
        Kind::Number(low, high) => {
            let value: i128 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
            // The largest sizes of shared memory are unsigned.
            let high = if high == i64::MAX { i128::from(u64::MAX) } else { i128::from(high) };
            if value < i128::from(low) || value > high { Err(Errno::EINVAL) } else { Ok(value.to_string()) }
        }
        Kind::Numbers => {
            let words: Result<Vec<u64>, _> = text.split_ascii_whitespace().map(str::parse).collect();
            let words = words.map_err(|_| Errno::EINVAL)?;
            let mut all: Vec<String> = old.split_ascii_whitespace().map(str::to_owned).collect();
            if words.is_empty() || words.len() > all.len() {
                return Err(Errno::EINVAL);
            }
            // Fewer numbers than there are change the first ones.
            for (to, from) in all.iter_mut().zip(words) {
                *to = from.to_string();
            }
            Ok(all.join("\t"))
        }
        Kind::Text(max) => {
            let line = text.split('\n').next().unwrap_or_default();
            Ok(line.chars().take(max).collect())
        }
    }
}

/// Where values lie that were set.
type Values = Ranked<Leaf, BTreeMap<String, String>>;

/// Those of the network are the caller's namespace's.
fn with_place<T>(kernel: &Kernel, path: &str, by: &Caller<'_>, act: impl FnOnce(&Values) -> T) -> T {
    if path.starts_with("net/") { act(&net_of(kernel, by).sysctl) } else { act(&kernel.sysctl.0) }
}

fn store(values: &Values, (path, default): (&str, &str), kind: Kind, text: &str) -> SysResult<()> {
    let old = values.lock().get(path).cloned().unwrap_or_else(|| default.to_owned());
    let value = check(kind, &old, text)?;
    values.lock().insert(path.to_owned(), value);
    Ok(())
}

fn perm_of(kind: Kind) -> ModeBits {
    if kind == Kind::Fixed { 0o444 } else { 0o644 }
}

/// The inode at a path below `root`, with its directories made, and the last name.
fn parent(root: &Arc<SynthInode>, path: &'static str) -> (Arc<SynthInode>, &'static str) {
    let mut at = Arc::clone(root);
    let mut name = path;
    while let Some((first, rest)) = name.split_once('/') {
        at = at.dir(first);
        name = rest;
    }
    (at, name)
}

fn stored(kernel: &Arc<Kernel>, path: String, kind: Kind, default: String) -> Node {
    let (reader, writer) = (Arc::clone(kernel), Arc::clone(kernel));
    let (shown, usual) = (path.clone(), default.clone());
    let read = move |by: &Caller<'_>| {
        let set = with_place(&reader, &shown, by, |values| values.lock().get(&shown).cloned());
        let value = set.unwrap_or_else(|| default.clone());
        Ok(format!("{value}\n").into_bytes())
    };
    if kind == Kind::Fixed {
        return Node::text(0o444, read);
    }
    let write = move |write: &WriteText<'_>, by: &Caller<'_>| {
        if write.offset != 0 {
            return Ok(write.bytes.len());
        }
        let text = write.text()?;
        with_place(&writer, &path, by, |values| store(values, (&path, &usual), kind, text))?;
        Ok(write.bytes.len())
    };
    Node::text_rw(perm_of(kind), read, write)
}

fn computed(
    kernel: &Arc<Kernel>,
    read: impl Fn(&Kernel, &Caller<'_>) -> SysResult<Vec<u8>> + Send + Sync + 'static,
) -> Node {
    let kernel = Arc::clone(kernel);
    Node::text(0o444, move |by| read(&kernel, by))
}

fn uts(kernel: &Kernel, by: &Caller<'_>) -> Arc<UtsNs> {
    published_reader(kernel, by)
        .map_or_else(|| Arc::clone(&kernel.root.proxy.uts), |reader| Arc::clone(&reader.ns.uts))
}

/// The number that the next process' follows: checkpoint tools set it.
fn last_pid(kernel: &Arc<Kernel>) -> Node {
    let (reader, writer) = (Arc::clone(kernel), Arc::clone(kernel));
    let own = |kernel: &Kernel, by: &Caller<'_>| {
        published_reader(kernel, by).and_then(|reader| reader.pid.ns().cloned())
    };
    Node::text_rw(
        0o666,
        move |by| Ok(number(own(&reader, by).map_or(0, |ns| ns.last()))),
        move |write, by| {
            let ns = own(&writer, by).ok_or(Errno::EINVAL)?;
            let admin = Capabilities::SYS_ADMIN | Capabilities::CHECKPOINT_RESTORE;
            if !by.cred.user_ns.is_ancestor_of(&ns.user) || !by.cred.caps.effective.intersects(admin) {
                return Err(Errno::EPERM);
            }
            let text = std::str::from_utf8(write.bytes).map_err(|_| Errno::EINVAL)?;
            ns.set_last(text.trim().parse().map_err(|_| Errno::EINVAL)?)?;
            Ok(write.bytes.len())
        },
    )
}

fn uts_name(
    kernel: &Arc<Kernel>,
    get: fn(&UtsNs) -> Vec<u8>,
    set: fn(&UtsNs, &[u8]) -> SysResult<()>,
) -> Node {
    let (reader, writer) = (Arc::clone(kernel), Arc::clone(kernel));
    Node::text_rw(
        0o644,
        move |by| {
            let mut name = get(&uts(&reader, by));
            name.push(b'\n');
            Ok(name)
        },
        move |write, by| {
            let ns = uts(&writer, by);
            if !by.cred.has_in(Capabilities::SYS_ADMIN, &ns.user) {
                return Err(Errno::EPERM);
            }
            let line = write.bytes.split(|byte| *byte == b'\n' || *byte == 0).next().unwrap_or_default();
            set(&ns, line.get(..line.len().min(64)).unwrap_or_default())?;
            Ok(write.bytes.len())
        },
    )
}

/// A version 4 UUID of these random bytes.
fn uuid(random: [u8; 16]) -> String {
    let mut out = String::new();
    for (at, byte) in random.iter().enumerate() {
        let byte = match at {
            6 => (byte & 0x0f) | 0x40,
            8 => (byte & 0x3f) | 0x80,
            _ => *byte,
        };
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}

fn random_uuid() -> SysResult<String> {
    let mut bytes = [0; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(platform::host::errno)?;
    if got == bytes.len() { Ok(uuid(bytes)) } else { Err(Errno::EIO) }
}

/// A number of the memory policy, read and written in place.
fn policy(kernel: &Arc<Kernel>, get: fn(&Kernel) -> u32, set: fn(&Kernel, u32) -> SysResult<()>) -> Node {
    let (reader, writer) = (Arc::clone(kernel), Arc::clone(kernel));
    Node::text_rw(
        0o644,
        move |_| Ok(number(get(&reader))),
        move |write, _| {
            set(&writer, write.number()?)?;
            Ok(write.bytes.len())
        },
    )
}

/// Sets a value for a container that is being made (`linux.sysctl` of its specification), dots or slashes
/// as separators: `ENOENT` when there is no such name, `EINVAL` for a value that cannot be.
pub fn apply(kernel: &Kernel, ns: &NsProxy, name: &str, text: &str) -> SysResult<()> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let number = || text.trim().parse::<u32>().map_err(|_| Errno::EINVAL);
    let net = &ns.net;
    match path.as_str() {
        "kernel/hostname" => ns.uts.set_nodename(text.trim().as_bytes()),
        "kernel/domainname" => ns.uts.set_domainname(text.trim().as_bytes()),
        "net/core/somaxconn"
        | "net/core/rmem_max"
        | "net/core/wmem_max"
        | "net/ipv4/ip_forward"
        | "net/ipv4/ip_unprivileged_port_start"
        | "net/unix/max_dgram_qlen" => {
            let [receive, send] = &net.buffer_max;
            let place = match path.as_str() {
                "net/core/somaxconn" => &net.somaxconn,
                "net/core/rmem_max" => receive,
                "net/core/wmem_max" => send,
                "net/ipv4/ip_forward" => &net.forwarding,
                "net/unix/max_dgram_qlen" => &net.unix_queue,
                _ => &net.unprivileged_port,
            };
            place.store(number()?, Ordering::Relaxed);
            Ok(())
        }
        "net/ipv4/ip_local_port_range" | "net/ipv4/ping_group_range" => {
            let (places, most) = match path.as_str() {
                "net/ipv4/ip_local_port_range" => (&net.port_range, 65535),
                _ => (&net.ping_groups, i32::MAX.cast_unsigned()),
            };
            let words: Vec<u32> =
                text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
            let &[low, high] = words.as_slice() else { return Err(Errno::EINVAL) };
            if low > high || high > most {
                return Err(Errno::EINVAL);
            }
            for (place, word) in places.iter().zip([low, high]) {
                place.store(word, Ordering::Relaxed);
            }
            Ok(())
        }
        _ if path.starts_with("net/ipv4/conf/") || path.starts_with("net/ipv6/conf/") => {
            store(&net.sysctl, (&path, "0"), Kind::Number(-1, 255), text)
        }
        _ if path.starts_with("net/") => set_known(&net.sysctl, &path, text),
        _ => super::protected::set(&path, text).unwrap_or_else(|| kernel.sysctl.set(&path, text)),
    }
}

fn net_of(kernel: &Kernel, by: &Caller<'_>) -> Arc<NetNs> {
    published_reader(kernel, by)
        .map_or_else(|| Arc::clone(&kernel.root.proxy.net), |reader| Arc::clone(&reader.ns.net))
}

/// Values of the caller's network namespace.
fn net_numbers(kernel: &Arc<Kernel>, max: u32, values: fn(&NetNs) -> Vec<&AtomicU32>) -> Node {
    let (reader, writer) = (Arc::clone(kernel), Arc::clone(kernel));
    Node::text_rw(
        0o644,
        move |by| {
            let ns = net_of(&reader, by);
            let shown: Vec<String> =
                values(&ns).iter().map(|v| v.load(Ordering::Relaxed).to_string()).collect();
            Ok(format!("{}\n", shown.join("\t")).into_bytes())
        },
        move |write, by| {
            let ns = net_of(&writer, by);
            let places = values(&ns);
            let words: Result<Vec<u32>, _> = write.text()?.split_ascii_whitespace().map(str::parse).collect();
            let words = words.map_err(|_| Errno::EINVAL)?;
            let ascending = words.windows(2).all(|pair| pair.first() <= pair.get(1));
            if words.len() != places.len() || !ascending || words.iter().any(|word| *word > max) {
                return Err(Errno::EINVAL);
            }
            for (place, word) in places.iter().zip(words) {
                place.store(word, Ordering::Relaxed);
            }
            Ok(write.bytes.len())
        },
    )
}

/// Hangs the tree under /proc/sys.
pub(super) fn build(kernel: &Arc<Kernel>, root: &Arc<SynthInode>) {
    for value in VALUES {
        let (dir, name) = parent(root, value.path);
        dir.add(name, stored(kernel, value.path.to_owned(), value.kind, value.default.to_owned()));
    }
    for (family, values) in [("ipv4", CONF4.as_slice()), ("ipv6", CONF6.as_slice())] {
        let conf = root.dir("net").dir(family).dir("conf");
        for interface in INTERFACES {
            for (name, default) in values {
                let path = format!("net/{family}/conf/{interface}/{name}");
                let kind = Kind::Number(-1, 255);
                conf.dir(interface).add(name, stored(kernel, path, kind, (*default).to_owned()));
            }
        }
    }
    let threads = (kernel.machine.memory / (64 << 10)).clamp(1024, u64::from(PID_MAX));
    for name in USER_LIMITS {
        let path = format!("user/{name}");
        root.dir("user")
            .add(name, stored(kernel, path, Kind::Number(0, i64::MAX), (threads / 2).to_string()));
    }
    let own = root.dir("kernel");
    let most = Kind::Number(1, i64::from(PID_MAX));
    own.add("threads-max", stored(kernel, "kernel/threads-max".into(), most, threads.to_string()));
    own.add(
        "pid_max",
        stored(kernel, "kernel/pid_max".into(), Kind::Number(301, i64::from(PID_MAX)), PID_MAX.to_string()),
    );
    own.add("ostype", computed(kernel, |_, _| Ok(b"Linux\n".to_vec())));
    own.add("osrelease", computed(kernel, |_, _| Ok(format!("{RELEASE}\n").into_bytes())));
    own.add("version", computed(kernel, |_, _| Ok(format!("{VERSION}\n").into_bytes())));
    own.add("hostname", uts_name(kernel, |ns| ns.names().nodename, UtsNs::set_nodename));
    own.add("domainname", uts_name(kernel, |ns| ns.names().domainname, UtsNs::set_domainname));
    own.add("ns_last_pid", last_pid(kernel));
    super::sysctl_ipc::build(kernel, &own);
    let random = own.dir("random");
    random.add("uuid", computed(kernel, |_, _| Ok(format!("{}\n", random_uuid()?).into_bytes())));
    random.add(
        "boot_id",
        computed(kernel, |kernel, _| {
            let known = kernel.sysctl.0.lock().get("boot_id").cloned();
            let id = match known {
                Some(id) => id,
                None => {
                    let fresh = random_uuid()?;
                    kernel.sysctl.0.lock().entry("boot_id".into()).or_insert(fresh).clone()
                }
            };
            Ok(format!("{id}\n").into_bytes())
        }),
    );
    let net = root.dir("net");
    net.dir("core").add("somaxconn", net_numbers(kernel, i32::MAX.cast_unsigned(), |ns| vec![&ns.somaxconn]));
    net.dir("core")
        .add("rmem_max", net_numbers(kernel, i32::MAX.cast_unsigned(), |ns| vec![&ns.buffer_max[0]]));
    net.dir("core")
        .add("wmem_max", net_numbers(kernel, i32::MAX.cast_unsigned(), |ns| vec![&ns.buffer_max[1]]));
    net.dir("ipv4").add("ip_forward", net_numbers(kernel, 1, |ns| vec![&ns.forwarding]));
    net.dir("ipv4")
        .add("ip_local_port_range", net_numbers(kernel, 65535, |ns| ns.port_range.iter().collect()));
    net.dir("ipv4")
        .add("ip_unprivileged_port_start", net_numbers(kernel, 65535, |ns| vec![&ns.unprivileged_port]));
    net.dir("ipv4").add(
        "ping_group_range",
        net_numbers(kernel, i32::MAX.cast_unsigned(), |ns| ns.ping_groups.iter().collect()),
    );
    net.dir("unix")
        .add("max_dgram_qlen", net_numbers(kernel, i32::MAX.cast_unsigned(), |ns| vec![&ns.unix_queue]));
    let memory = root.dir("vm");
    memory.add(
        "overcommit_memory",
        policy(kernel, |k| k.frames.policy().mode(), |k, mode| k.frames.policy().set_mode(mode)),
    );
    memory.add(
        "overcommit_ratio",
        policy(
            kernel,
            |k| k.frames.policy().ratio(),
            |k, percent| {
                k.frames.policy().set_ratio(percent);
                Ok(())
            },
        ),
    );
    memory.add(
        "drop_caches",
        Node::text_rw(
            0o200,
            |_| Err(Errno::EINVAL),
            |write, _| match write.number::<u32>()? {
                1..=4 => {
                    vfs::dentry::trim(None);
                    Ok(write.bytes.len())
                }
                _ => Err(Errno::EINVAL),
            },
        ),
    );
    root.dir("fs").add(
        "file-nr",
        computed(kernel, |kernel, _| {
            let tables: Vec<_> = kernel.tree.lock().tasks().cloned().collect();
            let mut seen: Vec<Arc<crate::files::FdTable>> = Vec::new();
            for files in tables.iter().filter_map(|task| task.published.lock().files.clone()) {
                if !seen.iter().any(|known| Arc::ptr_eq(known, &files)) {
                    seen.push(files);
                }
            }
            let open: usize = seen.iter().map(|files| files.entries().len()).sum();
            let max = kernel.sysctl.get("fs/file-max").unwrap_or_default();
            Ok(format!("{open}\t0\t{max}\n").into_bytes())
        }),
    );
    super::protected::build(&root.dir("fs"));
    root.dir("fs").dir("binfmt_misc");
    root.dir("fs").add("aio-nr", computed(kernel, |kernel, _| Ok(number(kernel.files.aio.count()))));
    root.dir("fs").add(
        "lease-break-time",
        policy(
            kernel,
            |_| vfs::lease::break_time_s().load(Ordering::Relaxed),
            |_, seconds| {
                vfs::lease::break_time_s().store(seconds, Ordering::Relaxed);
                Ok(())
            },
        ),
    );
    root.dir("fs").add(
        "pipe-max-size",
        policy(
            kernel,
            |_| PIPE_MAX_SIZE.load(Ordering::Relaxed),
            |_, size| {
                let size =
                    size.checked_next_power_of_two().filter(|size| *size <= 1 << 31).ok_or(Errno::EINVAL)?;
                PIPE_MAX_SIZE.store(size.max(4096), Ordering::Relaxed);
                Ok(())
            },
        ),
    );
}

const _: () = assert!(NR_OPEN == 1_048_576, "fs/nr_open");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_kept() {
        let sysctl = Sysctl::default();
        assert_eq!(sysctl.set("net.core.rmem_max", "8192\n"), Ok(()));
        assert_eq!(sysctl.numbers("net/core/rmem_max"), [8192]);
        assert_eq!(sysctl.set("net.ipv4.tcp_rmem", "1 2"), Ok(()));
        assert_eq!(sysctl.get("net/ipv4/tcp_rmem").unwrap(), "1\t2\t6291456");
        assert_eq!(sysctl.set("net.ipv4.tcp_rmem", "1 2 3 4"), Err(Errno::EINVAL));
        assert_eq!(sysctl.set("vm.swappiness", "201"), Err(Errno::EINVAL));
        assert_eq!(sysctl.set("kernel.tainted", "1"), Err(Errno::EPERM));
        assert_eq!(sysctl.set("kernel.nothing", "1"), Err(Errno::ENOENT));
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        for value in VALUES {
            if value.kind != Kind::Fixed {
                let shown = check(value.kind, value.default, value.default);
                assert_eq!(shown.as_deref(), Ok(value.default), "{}", value.path);
            }
        }
    }
}
