//! Process ids and pid namespaces (pid_namespaces(7)).
//!
//! A [`Pid`] is one number per namespace level, shared by the thread, process, process group and session
//! that it names; the numbers are free again when the last of them is gone. Rank of the numbers: `Leaf`.

use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Leaf;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use vfs::UserNamespace;

/// `pid_max` of 64-bit kernels.
pub const PID_MAX: u32 = 4_194_304;
/// Deepest nesting of pid namespaces.
pub const MAX_LEVEL: usize = 32;

/// A pid namespace.
#[derive(Debug)]
pub struct PidNs {
    /// Number in /proc/pid/ns.
    pub ino: u64,
    /// `None` for the sandbox's root.
    pub parent: Option<Arc<PidNs>>,
    /// Owner.
    pub user: Arc<UserNamespace>,
    level: usize,
    numbers: Ranked<Leaf, Numbers>,
    /// Its init is dying: nothing is born here any more.
    dead: AtomicBool,
    /// Thread group (root id) of its init; 0 before there is one.
    init: AtomicU32,
}

#[derive(Debug, Default)]
struct Numbers {
    last: u32,
    used: BTreeMap<u32, Weak<Pid>>,
}

impl PidNs {
    /// A namespace below `parent`; `ENOSPC` when nested too deeply.
    pub fn new(ino: u64, parent: Option<Arc<PidNs>>, user: Arc<UserNamespace>) -> SysResult<Arc<PidNs>> {
        let level = parent.as_ref().map_or(0, |parent| parent.level + 1);
        if level >= MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        let numbers = Ranked::new(Numbers::default());
        let (dead, init) = (AtomicBool::new(false), AtomicU32::new(0));
        Ok(Arc::new(PidNs { ino, parent, user, level, numbers, dead, init }))
    }
    /// The id with this number.
    #[must_use]
    pub fn find(&self, number: u32) -> Option<Arc<Pid>> {
        self.numbers.lock().used.get(&number)?.upgrade()
    }
    /// The numbers in use, ascending.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.numbers.lock().used.keys().copied().collect()
    }
    /// Number last given out (/proc/loadavg).
    #[must_use]
    pub fn last(&self) -> u32 {
        self.numbers.lock().last
    }
    /// Sets it: the next number is the one behind. `EINVAL` beyond the largest.
    pub fn set_last(&self, last: u32) -> SysResult<()> {
        if last >= PID_MAX {
            return Err(Errno::EINVAL);
        }
        self.numbers.lock().last = last;
        Ok(())
    }
    /// Refuses further members.
    pub fn close(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }
    /// Whether its init is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
    /// Root id of its init.
    #[must_use]
    pub fn init(&self) -> Option<u32> {
        Some(self.init.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }
    /// Whether `self` is `other` or one of its ancestors.
    #[must_use]
    pub fn is_ancestor_of(self: &Arc<Self>, other: &Arc<PidNs>) -> bool {
        let mut at = Some(other);
        while let Some(ns) = at {
            if Arc::ptr_eq(ns, self) {
                return true;
            }
            at = ns.parent.as_ref();
        }
        false
    }
}

/// One id, with a number in its namespace and in each of the ancestors.
pub struct Pid {
    /// From the innermost namespace out to the root.
    levels: SmallVec<[(Arc<PidNs>, u32); 2]>,
    own: u32,
    root: u32,
}

impl Pid {
    /// Gives out a number in `ns` and its ancestors. `wanted` asks for certain numbers, innermost first
    /// (clone3 set_tid): `EEXIST` when taken. `ENOMEM` when the namespace's init is gone, `EAGAIN` when
    /// no number is free.
    pub fn allocate(ns: &Arc<PidNs>, wanted: &[u32]) -> SysResult<Arc<Pid>> {
        let mut levels = SmallVec::new();
        let mut at = Some(Arc::clone(ns));
        let mut wanted = wanted.iter();
        while let Some(ns) = at {
            match take_number(&ns, wanted.next().copied()) {
                Ok(number) => levels.push((Arc::clone(&ns), number)),
                Err(errno) => {
                    give_back(&levels);
                    return Err(errno);
                }
            }
            at = ns.parent.clone();
        }
        let own = levels.first().map_or(0, |(_, number)| *number);
        let root = levels.last().map_or(0, |(_, number)| *number);
        let pid = Arc::new(Pid { levels, own, root });
        for (ns, number) in &pid.levels {
            ns.numbers.lock().used.insert(*number, Arc::downgrade(&pid));
        }
        if own == 1 {
            ns.init.store(root, Ordering::Relaxed);
        }
        Ok(pid)
    }
    /// The number in its own namespace.
    #[must_use]
    pub fn own(&self) -> u32 {
        self.own
    }
    /// The number in the sandbox's root namespace: unique, and the key of the kernel's tables.
    #[must_use]
    pub fn root(&self) -> u32 {
        self.root
    }
    /// The number as seen in `ns`; 0 when it has none there.
    #[must_use]
    pub fn seen_in(&self, ns: &Arc<PidNs>) -> u32 {
        self.levels.iter().find(|(at, _)| Arc::ptr_eq(at, ns)).map_or(0, |(_, number)| *number)
    }
    /// Its own (innermost) namespace.
    #[must_use]
    pub fn ns(&self) -> Option<&Arc<PidNs>> {
        self.levels.first().map(|(ns, _)| ns)
    }
    /// Numbers from the root inwards (NSpid of /proc/pid/status), as seen from `ns` on.
    #[must_use]
    pub fn numbers_from(&self, ns: &Arc<PidNs>) -> Vec<u32> {
        let mut numbers = Vec::new();
        for (at, number) in &self.levels {
            numbers.push(*number);
            if Arc::ptr_eq(at, ns) {
                break;
            }
        }
        numbers.reverse();
        numbers
    }
    /// Whether it is the init of its namespace.
    #[must_use]
    pub fn is_init(&self) -> bool {
        self.own == 1
    }
}

impl Drop for Pid {
    fn drop(&mut self) {
        give_back(&self.levels);
    }
}

impl std::fmt::Debug for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pid({}, root {})", self.own, self.root)
    }
}

fn give_back(levels: &[(Arc<PidNs>, u32)]) {
    for (ns, number) in levels {
        ns.numbers.lock().used.remove(number);
    }
}

fn take_number(ns: &PidNs, wanted: Option<u32>) -> SysResult<u32> {
    if ns.is_closed() {
        return Err(Errno::ENOMEM);
    }
    let mut numbers = ns.numbers.lock();
    let number = match wanted {
        Some(number) if number == 0 || number >= PID_MAX => return Err(Errno::EINVAL),
        Some(number) if numbers.used.contains_key(&number) => return Err(Errno::EEXIST),
        Some(number) => number,
        None => {
            let mut at = numbers.last;
            let mut left = PID_MAX;
            loop {
                // As in Linux, numbers below 300 are not given out a second time.
                at = if at + 1 >= PID_MAX { 300 } else { at + 1 };
                if !numbers.used.contains_key(&at) {
                    break;
                }
                left -= 1;
                if left == 0 {
                    return Err(Errno::EAGAIN);
                }
            }
            numbers.last = at;
            at
        }
    };
    numbers.used.insert(number, Weak::new());
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_per_level_and_reuse() {
        let user = UserNamespace::initial(1);
        let root = PidNs::new(1, None, Arc::clone(&user)).unwrap();
        let inner = PidNs::new(2, Some(Arc::clone(&root)), user).unwrap();
        let first = Pid::allocate(&root, &[]).unwrap();
        let second = Pid::allocate(&inner, &[]).unwrap();
        assert_eq!((first.own(), second.own(), second.root()), (1, 1, 2));
        assert_eq!(second.seen_in(&root), 2);
        assert_eq!(first.seen_in(&inner), 0);
        assert_eq!(second.numbers_from(&root), vec![2, 1]);
        assert!(inner.find(1).is_some());
        drop(second);
        assert!(inner.find(1).is_none());
        assert_eq!(Pid::allocate(&inner, &[7]).unwrap().own(), 7);
        assert_eq!(Pid::allocate(&root, &[1]).err(), Some(Errno::EEXIST));
    }
}
