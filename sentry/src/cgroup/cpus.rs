//! `cpuset.cpus`: on which processors members of a group may be.
//!
//! A container's own set is the host's to enforce; it comes in the host's numbers, and guests count the processors of
//! their machine from zero. Sets that guests make for nested groups bound what their members are told and may ask for.

use super::Cgroup;
use crate::kernel::Kernel;
use abi::{Errno, SysResult};
use std::sync::Arc;

/// One bit for each processor.
pub type CpuSet = [u64; 16];
/// Processors that a set has room for.
pub const MOST: usize = 1024;

fn has(set: &CpuSet, cpu: usize) -> bool {
    set.get(cpu / 64).is_some_and(|word| word >> (cpu % 64) & 1 == 1)
}

/// No processor.
#[must_use]
pub const fn none() -> CpuSet {
    [0; 16]
}

/// Adds one; there is no room for one from [`MOST`] on.
pub fn add(set: &mut CpuSet, cpu: usize) {
    if let Some(word) = set.get_mut(cpu / 64) {
        *word |= 1 << (cpu % 64);
    }
}

fn is_empty(set: &CpuSet) -> bool {
    set.iter().all(|word| *word == 0)
}

/// What is in both.
#[must_use]
pub fn both(a: &CpuSet, b: &CpuSet) -> CpuSet {
    let mut set = *a;
    for (word, other) in set.iter_mut().zip(b) {
        *word &= other;
    }
    set
}

/// `a` where it has anything in `b`, else `b`.
#[must_use]
pub fn within(a: &CpuSet, b: &CpuSet) -> CpuSet {
    let set = both(a, b);
    if is_empty(&set) { *b } else { set }
}

/// The first `count` processors.
#[must_use]
pub fn first(count: u32) -> CpuSet {
    let mut set = [0; 16];
    (0..usize::try_from(count).unwrap_or(MOST).min(MOST)).for_each(|cpu| add(&mut set, cpu));
    set
}

/// How many there are.
#[must_use]
pub fn count(set: &CpuSet) -> u32 {
    set.iter().map(|word| word.count_ones()).sum()
}

/// The processor in the set that stands for processor `cpu` of the host.
#[must_use]
pub fn stand_in(set: &CpuSet, cpu: u32) -> u32 {
    let wanted = cpu % count(set).max(1);
    let found = (0..MOST).filter(|cpu| has(set, *cpu)).nth(usize::try_from(wanted).unwrap_or(0));
    found.and_then(|cpu| u32::try_from(cpu).ok()).unwrap_or(0)
}

/// Numbers of the host as numbers of the guest: the n-th processor of `machine` is n.
fn renumbered(machine: &CpuSet, host: &CpuSet) -> CpuSet {
    let mut set = [0; 16];
    for (number, cpu) in (0..MOST).filter(|cpu| has(machine, *cpu)).enumerate() {
        if has(host, cpu) {
            add(&mut set, number);
        }
    }
    set
}

/// `0-1,4`.
#[must_use]
pub fn list(set: &CpuSet) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cpu = 0;
    while cpu < MOST {
        if !has(set, cpu) {
            cpu += 1;
            continue;
        }
        let begin = cpu;
        while has(set, cpu) {
            cpu += 1;
        }
        parts.push(if cpu - begin > 1 { format!("{begin}-{}", cpu - 1) } else { begin.to_string() });
    }
    parts.join(",")
}

/// Reads a list; an empty one is no set. `EINVAL` for what is none, `ERANGE` for processors beyond the 1024th.
pub fn parse(text: &str) -> SysResult<Option<CpuSet>> {
    let mut set = [0; 16];
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (begin, end) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().map_err(|_| Errno::EINVAL);
        let (begin, end) = (number(begin)?, number(end)?);
        if begin > end {
            return Err(Errno::EINVAL);
        }
        if end >= MOST {
            return Err(Errno::ERANGE);
        }
        (begin..=end).for_each(|cpu| add(&mut set, cpu));
    }
    Ok(Some(set).filter(|set| !is_empty(set)))
}

impl Cgroup {
    /// Processors that members of this group may be on.
    #[must_use]
    pub fn cpus(&self, kernel: &Kernel) -> CpuSet {
        let mut chain = Vec::new();
        let mut at = self.me.upgrade();
        while let Some(group) = at {
            at = group.parent();
            chain.push(group);
        }
        let all = first(kernel.machine.cpus.max(1));
        chain.iter().rev().fold(all, |above, group| {
            let own = group.own_cpus(kernel);
            own.map_or(above, |own| within(&own, &above))
        })
    }
    /// What the group itself was given.
    pub(super) fn own_cpus(&self, kernel: &Kernel) -> Option<CpuSet> {
        if self.parent.is_some() {
            return *self.cpuset.lock();
        }
        let host = self.limits.lock().cpus?;
        Some(renumbered(&kernel.machine.cpu_ids, &host)).filter(|set| !is_empty(set))
    }
    /// `cpuset.cpus` of a nested group.
    pub(super) fn set_cpus(&self, kernel: &Kernel, text: &str) -> SysResult<()> {
        let set = parse(text)?;
        let all = first(kernel.machine.cpus.max(1));
        if set.is_some_and(|set| both(&set, &all) != set) {
            return Err(Errno::EINVAL);
        }
        *self.cpuset.lock() = set;
        Ok(())
    }
}

/// Processors that a process may be on.
#[must_use]
pub fn of_process(kernel: &Kernel, process: &Arc<crate::process::Process>) -> CpuSet {
    let group = process.cgroup.lock().clone();
    group.map_or_else(|| first(kernel.machine.cpus.max(1)), |group| group.cpus(kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        let set = parse("0-1, 4,64").unwrap().unwrap();
        assert_eq!((list(&set), count(&set)), ("0-1,4,64".to_owned(), 4));
        assert_eq!(parse("\n").unwrap(), None);
        assert_eq!(parse("1-0").err(), Some(Errno::EINVAL));
        assert_eq!(parse("x").err(), Some(Errno::EINVAL));
        assert_eq!(parse("1024").err(), Some(Errno::ERANGE));
        assert_eq!(list(&first(2)), "0-1");
    }

    #[test]
    fn the_hosts_numbers_are_not_the_guests() {
        let set = |text| parse(text).unwrap().unwrap();
        assert_eq!(list(&renumbered(&set("2-5"), &set("0,3,5"))), "1,3");
        assert_eq!(list(&within(&set("7"), &set("0-1"))), "0-1");
        assert_eq!((stand_in(&set("1,3"), 2), stand_in(&set("1,3"), 3)), (1, 3));
    }
}
