//! devices/system/cpu: which processors there are, and how they hang together.

use super::{fixed, refusing};
use crate::kernel::Kernel;
use crate::procfs::text::{cpu_list, cpu_mask};
use std::sync::Arc;
use vfs::synthetic::SynthInode;

pub(super) fn fill(kernel: &Arc<Kernel>, dir: &Arc<SynthInode>) {
    let cpus = kernel.machine.cpus.max(1);
    let all = cpu_list(cpus);
    for name in ["online", "possible", "present"] {
        fixed(dir, name, format!("{all}\n"));
    }
    fixed(dir, "offline", "\n");
    fixed(dir, "isolated", "\n");
    fixed(dir, "nohz_full", "(null)\n");
    fixed(dir, "kernel_max", "8191\n");
    fixed(dir, "modalias", "cpu:type:x86\n");
    fixed(&dir.dir("smt"), "active", "0\n");
    refusing(&dir.dir("smt"), "control", "notsupported\n");
    for name in ["cpufreq", "cpuidle", "hotplug", "power"] {
        dir.dir(name);
    }
    let faults = dir.dir("vulnerabilities");
    for name in [
        "gather_data_sampling",
        "itlb_multihit",
        "l1tf",
        "mds",
        "meltdown",
        "mmio_stale_data",
        "reg_file_data_sampling",
        "retbleed",
        "spec_rstack_overflow",
        "spec_store_bypass",
        "spectre_v1",
        "spectre_v2",
        "srbds",
        "tsx_async_abort",
    ] {
        fixed(&faults, name, "Unknown: running under a sandbox\n");
    }
    for cpu in 0..cpus {
        one(&dir.dir(format!("cpu{cpu}")), cpu, cpus);
    }
}

fn one(dir: &Arc<SynthInode>, cpu: u32, cpus: u32) {
    if cpu > 0 {
        refusing(dir, "online", "1\n");
    }
    fixed(dir, "uevent", "DRIVER=processor\nMODALIAS=cpu:type:x86\n");
    let topology = dir.dir("topology");
    let bit = mask_of(cpu, cpus);
    for (name, text) in [
        ("core_id", cpu.to_string()),
        ("die_id", "0".into()),
        ("cluster_id", "65535".into()),
        ("physical_package_id", "0".into()),
        ("core_cpus", bit.clone()),
        ("core_cpus_list", cpu.to_string()),
        ("thread_siblings", bit),
        ("thread_siblings_list", cpu.to_string()),
        ("core_siblings", cpu_mask(cpus)),
        ("core_siblings_list", cpu_list(cpus)),
        ("die_cpus", cpu_mask(cpus)),
        ("die_cpus_list", cpu_list(cpus)),
        ("package_cpus", cpu_mask(cpus)),
        ("package_cpus_list", cpu_list(cpus)),
    ] {
        fixed(&topology, name, format!("{text}\n"));
    }
    super::link(dir, "node0", "../../node/node0");
    super::link(dir, "subsystem", "../../../../bus/cpu");
    caches(&dir.dir("cache"), cpu, cpus);
}

/// The mask of one processor among `cpus`, as wide as the mask of all.
fn mask_of(cpu: u32, cpus: u32) -> String {
    let groups = cpus.max(1).div_ceil(32);
    let mut text = String::new();
    for group in (0..groups).rev() {
        let bits = cpus.saturating_sub(group * 32).min(32);
        let mask = if cpu / 32 == group { 1_u32 << (cpu % 32) } else { 0 };
        let width = if text.is_empty() { usize::try_from(bits.div_ceil(4)).unwrap_or(8) } else { 8 };
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&format!("{mask:0width$x}"));
    }
    text
}

fn caches(dir: &Arc<SynthInode>, cpu: u32, cpus: u32) {
    use platform::host::cpu::cpuid;
    let leaf = if cpuid(4, 0).eax & 0x1f != 0 { 4 } else { 0x8000_001d };
    for index in 0..8 {
        let found = cpuid(leaf, index);
        let kind = match found.eax & 0x1f {
            1 => "Data",
            2 => "Instruction",
            3 => "Unified",
            _ => break,
        };
        let level = (found.eax >> 5) & 7;
        let ways = (found.ebx >> 22) + 1;
        let partitions = ((found.ebx >> 12) & 0x3ff) + 1;
        let line = (found.ebx & 0xfff) + 1;
        let sets = found.ecx.saturating_add(1);
        let bytes = ways.saturating_mul(partitions).saturating_mul(line).saturating_mul(sets);
        let (mask, list) =
            if level >= 3 { (cpu_mask(cpus), cpu_list(cpus)) } else { (mask_of(cpu, cpus), cpu.to_string()) };
        let one = dir.dir(format!("index{index}"));
        for (name, text) in [
            ("coherency_line_size", line.to_string()),
            ("id", if level >= 3 { "0".into() } else { cpu.to_string() }),
            ("level", level.to_string()),
            ("number_of_sets", sets.to_string()),
            ("physical_line_partition", partitions.to_string()),
            ("shared_cpu_list", list),
            ("shared_cpu_map", mask),
            ("size", format!("{}K", bytes >> 10)),
            ("type", kind.into()),
            ("ways_of_associativity", ways.to_string()),
        ] {
            fixed(&one, name, format!("{text}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_one_processor() {
        assert_eq!((mask_of(0, 2), mask_of(1, 2)), ("1".into(), "2".into()));
        assert_eq!(mask_of(5, 8), "20");
        assert_eq!(mask_of(33, 36), "2,00000000");
        assert_eq!(mask_of(0, 36), "0,00000001");
    }
}
