//! /proc/cpuinfo, from CPUID: nothing of the host's files is asked.

use super::text::put;
use crate::kernel::Kernel;
use platform::host::cpu::{Cpuid, cpuid, timestamp};
use std::sync::OnceLock;
use std::time::Instant;

/// Facts about the processor that do not change.
#[derive(Debug)]
struct Facts {
    vendor: String,
    name: String,
    level: u32,
    family: u32,
    model: u32,
    stepping: u32,
    cache_kb: u32,
    line: u32,
    physical_bits: u32,
    virtual_bits: u32,
    flags: String,
}

/// The processor as /proc/cpuinfo shows it.
#[derive(Debug)]
pub(super) struct Processor {
    facts: OnceLock<Facts>,
    /// Where the time-stamp counter stood when.
    start: (Instant, u64),
}

#[derive(Clone, Copy)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

fn pick(found: Cpuid, register: Register) -> u32 {
    match register {
        Register::Eax => found.eax,
        Register::Ebx => found.ebx,
        Register::Ecx => found.ecx,
        Register::Edx => found.edx,
    }
}

/// (leaf, sub-leaf, register, names from bit 0 on; `-` has no name that Linux shows).
static FLAGS: [(u32, u32, Register, &str); 12] = [
    (
        1,
        0,
        Register::Edx,
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx \
         fxsr sse sse2 ss ht tm ia64 pbe",
    ),
    (
        0x8000_0001,
        0,
        Register::Edx,
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
    ),
    (
        1,
        0,
        Register::Ecx,
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 \
         sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave - avx f16c rdrand hypervisor",
    ),
    (
        0x8000_0001,
        0,
        Register::Ecx,
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp \
         fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx - -",
    ),
    (
        7,
        0,
        Register::Ebx,
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed \
         adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl",
    ),
    (0xd, 1, Register::Eax, "xsaveopt xsavec xgetbv1 xsaves xfd"),
    (
        7,
        1,
        Register::Eax,
        "- - - - avx_vnni avx512_bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - - - - - amx_fp16",
    ),
    (0x8000_0008, 0, Register::Ebx, "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd"),
    (6, 0, Register::Eax, "dtherm ida arat - pln - pts hwp hwp_notify hwp_act_window hwp_epp hwp_pkg_req"),
    (
        7,
        0,
        Register::Ecx,
        "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme \
         avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd",
    ),
    (0x8000_0007, 0, Register::Ebx, "overflow_recov succor - smca"),
    (
        7,
        0,
        Register::Edx,
        "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - \
         pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 - - flush_l1d arch_capabilities",
    ),
];

fn flag_names(word: u32, names: &str, into: &mut Vec<String>) {
    for (bit, name) in names.split_ascii_whitespace().enumerate() {
        if name != "-" && u32::try_from(bit).is_ok_and(|bit| word >> bit & 1 == 1) {
            into.push(name.to_owned());
        }
    }
}

fn flags() -> String {
    let mut all = Vec::new();
    for (leaf, sub, register, names) in FLAGS {
        flag_names(pick(cpuid(leaf, sub), register), names, &mut all);
        if leaf == 0x8000_0001 && matches!(register, Register::Edx) {
            // Flags of Linux's own, which follow from others.
            if cpuid(0x8000_0007, 0).edx >> 8 & 1 == 1 {
                all.push("constant_tsc".into());
            }
            all.extend(["rep_good".into(), "nopl".into()]);
            if cpuid(0x8000_0007, 0).edx >> 8 & 1 == 1 {
                all.push("nonstop_tsc".into());
            }
            all.push("cpuid".into());
        }
    }
    // What the kernel uses and guests cannot: virtualisation.
    all.retain(|name| name != "vmx" && name != "svm");
    all.join(" ")
}

fn text_of(words: &[u32]) -> String {
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.to_le_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn cache_kb() -> u32 {
    // The largest cache of the deterministic parameters (Intel leaf 4, AMD leaf 8000001D).
    let leaf = if cpuid(4, 0).eax & 0x1f != 0 { 4 } else { 0x8000_001d };
    let mut best = 0;
    for sub in 0..8 {
        let found = cpuid(leaf, sub);
        if found.eax & 0x1f == 0 {
            break;
        }
        let ways = (found.ebx >> 22) + 1;
        let partitions = ((found.ebx >> 12) & 0x3ff) + 1;
        let line = (found.ebx & 0xfff) + 1;
        let sets = found.ecx.saturating_add(1);
        let bytes = ways.saturating_mul(partitions).saturating_mul(line).saturating_mul(sets);
        best = best.max(bytes >> 10);
    }
    if best == 0 { cpuid(0x8000_0006, 0).ecx >> 16 } else { best }
}

fn facts() -> Facts {
    let first = cpuid(0, 0);
    let one = cpuid(1, 0);
    let base = (one.eax >> 8) & 0xf;
    let family = if base == 0xf { base + ((one.eax >> 20) & 0xff) } else { base };
    let mut model = (one.eax >> 4) & 0xf;
    if base == 0xf || base == 6 {
        model |= ((one.eax >> 16) & 0xf) << 4;
    }
    let brand: Vec<u32> = (0x8000_0002_u32..=0x8000_0004)
        .map(|leaf| cpuid(leaf, 0))
        .flat_map(|found| [found.eax, found.ebx, found.ecx, found.edx])
        .collect();
    let name = text_of(&brand);
    let bits = cpuid(0x8000_0008, 0).eax;
    Facts {
        vendor: text_of(&[first.ebx, first.edx, first.ecx]),
        name: if name.is_empty() { "unknown".into() } else { name },
        level: first.eax,
        family,
        model,
        stepping: one.eax & 0xf,
        cache_kb: cache_kb(),
        line: ((one.ebx >> 8) & 0xff).saturating_mul(8).max(32),
        physical_bits: bits & 0xff,
        virtual_bits: (bits >> 8) & 0xff,
        flags: flags(),
    }
}

impl Processor {
    pub(super) fn new() -> Processor {
        Processor { facts: OnceLock::new(), start: (Instant::now(), timestamp()) }
    }
    /// Cycles of the time-stamp counter in a millisecond.
    fn khz(&self, kernel: &Kernel) -> u64 {
        if kernel.machine.cpu_khz > 0 {
            return kernel.machine.cpu_khz;
        }
        let passed = self.start.0.elapsed().as_micros();
        let cycles = u128::from(timestamp().wrapping_sub(self.start.1));
        let khz = cycles.saturating_mul(1000).checked_div(passed).unwrap_or(0);
        u64::try_from(khz).unwrap_or(0)
    }
    pub(super) fn cpuinfo(&self, kernel: &Kernel) -> Vec<u8> {
        let facts = self.facts.get_or_init(facts);
        let khz = self.khz(kernel);
        let cpus = kernel.machine.cpus.max(1);
        let mut out = String::new();
        for cpu in 0..cpus {
            one_processor(&mut out, facts, khz, cpu, cpus);
        }
        out.into_bytes()
    }
}

fn one_processor(out: &mut String, facts: &Facts, khz: u64, cpu: u32, cpus: u32) {
    put!(*out, "processor\t: {cpu}\nvendor_id\t: {}\ncpu family\t: {}\n", facts.vendor, facts.family);
    put!(*out, "model\t\t: {}\nmodel name\t: {}\nstepping\t: {}\n", facts.model, facts.name, facts.stepping);
    put!(*out, "microcode\t: 0xffffffff\ncpu MHz\t\t: {}.{:03}\n", khz / 1000, khz % 1000);
    put!(*out, "cache size\t: {} KB\nphysical id\t: 0\nsiblings\t: {cpus}\n", facts.cache_kb);
    put!(*out, "core id\t\t: {cpu}\ncpu cores\t: {cpus}\napicid\t\t: {cpu}\ninitial apicid\t: {cpu}\n");
    put!(*out, "fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\n", facts.level);
    put!(*out, "flags\t\t: {}\nbugs\t\t: \n", facts.flags);
    let bogomips = khz / 5;
    put!(*out, "bogomips\t: {}.{:02}\n", bogomips / 100, bogomips % 100);
    put!(*out, "clflush size\t: {0}\ncache_alignment\t: {0}\n", facts.line);
    put!(
        *out,
        "address sizes\t: {} bits physical, {} bits virtual\npower management:\n\n",
        facts.physical_bits,
        facts.virtual_bits
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_processor_as_the_host_shows_it() {
        let Ok(host) = std::fs::read_to_string("/proc/cpuinfo") else { return };
        let of = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.split('\t').next() == Some(key));
            line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.trim().to_owned())
        };
        let mut own = String::new();
        one_processor(&mut own, &facts(), 2_000_000, 0, 2);
        for key in
            ["vendor_id", "cpu family", "model", "model name", "stepping", "clflush size", "address sizes"]
        {
            assert_eq!(of(&own, key), of(&host, key), "{key}");
        }
        assert_eq!(of(&own, "bogomips").as_deref(), Some("4000.00"));
        let keys = |text: &str| -> Vec<String> {
            let lines = text.lines().take_while(|line| !line.is_empty());
            let keys = lines
                .filter_map(|line| line.split('\t').next())
                .map(|key| key.trim_end_matches(':').to_owned());
            keys.filter(|key| key != "vmx flags" && key != "TLB size").collect()
        };
        assert_eq!(keys(&own), keys(&host));
        let host_flags = of(&host, "flags").unwrap_or_default();
        let host_flags: Vec<&str> = host_flags.split(' ').collect();
        for flag in ["sse2", "avx2", "fsgsbase", "xsaveopt", "aes", "rdtscp", "lm", "nx"] {
            assert_eq!(flags().split(' ').any(|own| own == flag), host_flags.contains(&flag), "{flag}");
        }
    }
}
