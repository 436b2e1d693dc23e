//! /sys (sysfs(5)), over the synthetic file systems of `vfs`: processors, memory, network interfaces and
//! what programs look for elsewhere. It shows the sandbox, never the host.

mod cpu;

use crate::kernel::Kernel;
use crate::procfs::system;
use crate::procfs::text::put;
use abi::{Errno, PAGE_SIZE, SysResult};
use std::sync::Arc;
use vfs::synthetic::{Node, SynthFs, SynthInode};
use vfs::{DentryHint, FileSystem, FsType, MountRequest};

const MAGIC: u64 = 0x6265_6572;

/// A text that never changes.
fn fixed(dir: &Arc<SynthInode>, name: &str, text: impl Into<Vec<u8>>) {
    let text = text.into();
    dir.text(name, move |_| Ok(text.clone()));
}

/// A link to a fixed place.
fn link(dir: &Arc<SynthInode>, name: &str, target: &str) {
    dir.add(name, Node::link_to(target.as_bytes()));
}

/// A file that only root may write to, and whose writes change nothing.
fn refusing(dir: &Arc<SynthInode>, name: &str, text: &str) {
    let text = text.as_bytes().to_vec();
    dir.add(name, Node::text_rw(0o644, move |_| Ok(text.clone()), |_, _| Err(Errno::EINVAL)));
}

fn path(root: &Arc<SynthInode>, path: &str) -> Arc<SynthInode> {
    path.split('/').filter(|part| !part.is_empty()).fold(Arc::clone(root), |at, part| at.dir(part))
}

/// A sysfs of this kernel.
#[must_use]
pub fn new(kernel: &Arc<Kernel>) -> Arc<SynthFs> {
    let owner = Arc::clone(kernel);
    let root = Node::lazy_dir(0o555, move |root| fill(&owner, root));
    SynthFs::new("sysfs", MAGIC, DentryHint::Exclusive, root)
}

fn fill(kernel: &Arc<Kernel>, root: &Arc<SynthInode>) {
    for name in [
        "block",
        "bus",
        "class",
        "dev/block",
        "dev/char",
        "devices",
        "firmware",
        "fs",
        "hypervisor",
        "kernel",
        "module",
        "power",
    ] {
        path(root, name);
    }
    path(root, "fs/cgroup");
    for name in
        ["cpu", "clockevents", "clocksource", "event_source", "memory", "node", "pci", "platform", "usb"]
    {
        let bus = path(root, "bus").dir(name);
        bus.dir("devices");
        bus.dir("drivers");
    }
    for name in [
        "bdi",
        "block",
        "dmi",
        "drm",
        "graphics",
        "hwmon",
        "input",
        "leds",
        "mem",
        "misc",
        "net",
        "powercap",
        "power_supply",
        "rtc",
        "thermal",
        "tty",
        "vc",
    ] {
        path(root, "class").dir(name);
    }
    devices(kernel, root);
    memory_of_kernel(root);
    refusing(&path(root, "power"), "state", "");
    refusing(&path(root, "power"), "pm_async", "1\n");
    for name in ["kernel", "tcp_cubic", "fuse", "overlay"] {
        path(root, "module").dir(name);
    }
    path(root, "module/kernel/parameters");
    path(root, "fs/pstore");
    path(root, "fs/bpf");
}

fn devices(kernel: &Arc<Kernel>, root: &Arc<SynthInode>) {
    let system = path(root, "devices/system");
    cpu::fill(kernel, &system.dir("cpu"));
    node(kernel, &system.dir("node"));
    clocks(&system);
    memory_blocks(kernel, &system.dir("memory"));
    let virtual_devices = path(root, "devices/virtual");
    interface(&virtual_devices.dir("net").dir("lo"), "lo", 1);
    link(&path(root, "class/net"), "lo", "../../devices/virtual/net/lo");
    for (class, name, major, minor) in [
        ("mem", "full", 1, 7),
        ("mem", "null", 1, 3),
        ("mem", "random", 1, 8),
        ("mem", "urandom", 1, 9),
        ("mem", "zero", 1, 5),
        ("tty", "console", 5, 1),
        ("tty", "ptmx", 5, 2),
        ("tty", "tty", 5, 0),
        ("misc", "fuse", 10, 229),
        ("misc", "tun", 10, 200),
    ] {
        let dir = virtual_devices.dir(class).dir(name);
        let dev_name = if name == "tun" { "net/tun" } else { name };
        fixed(&dir, "dev", format!("{major}:{minor}\n"));
        fixed(&dir, "uevent", format!("MAJOR={major}\nMINOR={minor}\nDEVNAME={dev_name}\n"));
        link(&dir, "subsystem", &format!("../../../../class/{class}"));
        link(&path(root, "class").dir(class), name, &format!("../../devices/virtual/{class}/{name}"));
        let number = format!("{major}:{minor}");
        link(&path(root, "dev/char"), &number, &format!("../../devices/virtual/{class}/{name}"));
    }
    virtual_devices.dir("dmi").dir("id");
    virtual_devices.dir("block");
    path(root, "devices/platform");
    path(root, "devices/pci0000:00");
}

/// One network interface.
fn interface(dir: &Arc<SynthInode>, name: &str, index: u32) {
    let loopback = name == "lo";
    for (file, text) in [
        ("addr_assign_type", "0\n"),
        ("addr_len", "6\n"),
        ("carrier", "1\n"),
        ("carrier_changes", "0\n"),
        ("dev_id", "0x0\n"),
        ("dev_port", "0\n"),
        ("dormant", "0\n"),
        ("link_mode", "0\n"),
        ("name_assign_type", "0\n"),
        ("proto_down", "0\n"),
        ("testing", "0\n"),
    ] {
        fixed(dir, file, text);
    }
    fixed(dir, "address", "00:00:00:00:00:00\n");
    fixed(dir, "broadcast", if loopback { "00:00:00:00:00:00\n" } else { "ff:ff:ff:ff:ff:ff\n" });
    refusing(dir, "flags", if loopback { "0x9\n" } else { "0x1003\n" });
    refusing(dir, "gro_flush_timeout", "0\n");
    refusing(dir, "group", "0\n");
    refusing(dir, "ifalias", "");
    fixed(dir, "ifindex", format!("{index}\n"));
    fixed(dir, "iflink", format!("{index}\n"));
    refusing(dir, "mtu", if loopback { "65536\n" } else { "1500\n" });
    fixed(dir, "operstate", if loopback { "unknown\n" } else { "up\n" });
    refusing(dir, "tx_queue_len", "1000\n");
    fixed(dir, "type", if loopback { "772\n" } else { "1\n" });
    fixed(dir, "uevent", format!("INTERFACE={name}\nIFINDEX={index}\n"));
    link(dir, "subsystem", "../../../../class/net");
    let counters = dir.dir("statistics");
    for name in [
        "collisions",
        "multicast",
        "rx_bytes",
        "rx_compressed",
        "rx_crc_errors",
        "rx_dropped",
        "rx_errors",
        "rx_fifo_errors",
        "rx_frame_errors",
        "rx_length_errors",
        "rx_missed_errors",
        "rx_nohandler",
        "rx_over_errors",
        "rx_packets",
        "tx_aborted_errors",
        "tx_bytes",
        "tx_carrier_errors",
        "tx_compressed",
        "tx_dropped",
        "tx_errors",
        "tx_fifo_errors",
        "tx_heartbeat_errors",
        "tx_packets",
        "tx_window_errors",
    ] {
        fixed(&counters, name, "0\n");
    }
    dir.dir("queues").dir("rx-0");
    dir.dir("queues").dir("tx-0");
}

fn node(kernel: &Arc<Kernel>, nodes: &Arc<SynthInode>) {
    for (name, text) in [
        ("has_cpu", "0\n"),
        ("has_memory", "0\n"),
        ("has_normal_memory", "0\n"),
        ("online", "0\n"),
        ("possible", "0\n"),
    ] {
        fixed(nodes, name, text);
    }
    let zero = nodes.dir("node0");
    let cpus = kernel.machine.cpus.max(1);
    fixed(&zero, "cpulist", format!("{}\n", crate::procfs::text::cpu_list(cpus)));
    fixed(&zero, "cpumap", format!("{}\n", crate::procfs::text::cpu_mask(cpus)));
    fixed(&zero, "distance", "10\n");
    let owner = Arc::clone(kernel);
    zero.text("meminfo", move |_| Ok(node_meminfo(&owner)));
    fixed(
        &zero,
        "numastat",
        "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\nother_node 0\n",
    );
    let owner = Arc::clone(kernel);
    zero.text("vmstat", move |_| {
        Ok(format!("nr_free_pages {}\n", system::memory(&owner).1 / PAGE_SIZE).into_bytes())
    });
    for cpu in 0..cpus {
        link(&zero, &format!("cpu{cpu}"), &format!("../../cpu/cpu{cpu}"));
    }
    huge_pages(&zero.dir("hugepages"));
}

fn node_meminfo(kernel: &Kernel) -> Vec<u8> {
    let (total, free) = system::memory(kernel);
    let used = total.saturating_sub(free);
    let mut out = String::new();
    for (name, bytes) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemUsed", used),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("FilePages", 0),
        ("Mapped", 0),
        ("AnonPages", used),
        ("Shmem", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("Slab", 0),
    ] {
        put!(out, "Node 0 {:<15}{:>8} kB\n", format!("{name}:"), bytes >> 10);
    }
    for name in ["HugePages_Total", "HugePages_Free", "HugePages_Surp"] {
        put!(out, "Node 0 {name}:{:>6}\n", 0);
    }
    out.into_bytes()
}

fn huge_pages(dir: &Arc<SynthInode>) {
    let size = dir.dir("hugepages-2048kB");
    for name in ["free_hugepages", "surplus_hugepages"] {
        fixed(&size, name, "0\n");
    }
    refusing(&size, "nr_hugepages", "0\n");
}

fn clocks(system: &Arc<SynthInode>) {
    let source = system.dir("clocksource").dir("clocksource0");
    fixed(&source, "available_clocksource", "tsc \n");
    fixed(&source, "current_clocksource", "tsc\n");
}

/// Memory in blocks of 128 MiB, as `lsmem` and JVMs count it.
fn memory_blocks(kernel: &Arc<Kernel>, dir: &Arc<SynthInode>) {
    fixed(dir, "block_size_bytes", "8000000\n");
    refusing(dir, "auto_online_blocks", "online\n");
    let blocks = kernel.machine.memory.div_ceil(0x800_0000).min(64);
    for block in 0..blocks {
        let one = dir.dir(format!("memory{block}"));
        for (name, text) in
            [("online", "1\n"), ("removable", "0\n"), ("state", "online\n"), ("valid_zones", "none\n")]
        {
            fixed(&one, name, text);
        }
        fixed(&one, "phys_index", format!("{block:08x}\n"));
    }
}

fn memory_of_kernel(root: &Arc<SynthInode>) {
    let own = path(root, "kernel");
    fixed(&own, "fscaps", "1\n");
    fixed(&own, "uevent_seqnum", "1\n");
    fixed(&own, "kexec_loaded", "0\n");
    fixed(&own, "kexec_crash_loaded", "0\n");
    fixed(&own, "cpu_byteorder", "little\n");
    fixed(&own, "address_bits", "64\n");
    fixed(&own, "profiling", "0\n");
    // Only mount points of file systems that are there: systemd mounts debugfs and its like where they are.
    for name in ["security", "irq", "slab", "iommu_groups"] {
        own.dir(name);
    }
    let mm = own.dir("mm");
    let huge = mm.dir("transparent_hugepage");
    // Huge pages behind guests' memory are the sandbox's own choice.
    refusing(&huge, "enabled", "always [madvise] never\n");
    refusing(&huge, "defrag", "always defer defer+madvise [madvise] never\n");
    refusing(&huge, "shmem_enabled", "always within_size advise [never] deny force\n");
    refusing(&huge, "use_zero_page", "1\n");
    fixed(&huge, "hpage_pmd_size", "2097152\n");
    let collapse = huge.dir("khugepaged");
    for (name, text) in [
        ("defrag", "1\n"),
        ("max_ptes_none", "511\n"),
        ("max_ptes_swap", "64\n"),
        ("pages_collapsed", "0\n"),
        ("pages_to_scan", "4096\n"),
        ("scan_sleep_millisecs", "10000\n"),
    ] {
        refusing(&collapse, name, text);
    }
    let merge = mm.dir("ksm");
    for name in ["run", "pages_shared", "pages_sharing", "pages_unshared", "full_scans"] {
        refusing(&merge, name, "0\n");
    }
}

/// The type "sysfs" of mount(2): one tree, whoever mounts it.
pub struct SysfsType(Arc<SynthFs>);

impl SysfsType {
    /// For this kernel.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>) -> Arc<SysfsType> {
        Arc::new(SysfsType(new(kernel)))
    }
}

impl std::fmt::Debug for SysfsType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SysfsType")
    }
}

impl FsType for SysfsType {
    fn name(&self) -> &'static str {
        "sysfs"
    }
    fn in_user_namespace(&self) -> bool {
        true
    }
    fn mount(&self, _request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>> {
        Ok(Arc::clone(&self.0) as Arc<dyn FileSystem>)
    }
}
