//! Resource limits (getrlimit(2)).

use abi::{Errno, SysResult};

/// `RLIM_INFINITY`.
pub const INFINITY: u64 = u64::MAX;
/// How many limits there are.
pub const COUNT: usize = 16;

/// A resource (`RLIMIT_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are those of getrlimit(2)")]
pub enum Resource {
    Cpu,
    Fsize,
    Data,
    Stack,
    Core,
    Rss,
    Nproc,
    Nofile,
    Memlock,
    As,
    Locks,
    Sigpending,
    Msgqueue,
    Nice,
    Rtprio,
    Rttime,
}

/// All resources, by number.
pub const RESOURCES: [Resource; COUNT] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

impl Resource {
    /// By number; `EINVAL` when there is none.
    pub fn new(number: u32) -> SysResult<Resource> {
        usize::try_from(number).ok().and_then(|n| RESOURCES.get(n)).copied().ok_or(Errno::EINVAL)
    }
}

/// Soft and hard limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// Bound of the soft limit.
    pub hard: u64,
}

/// The limits of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits([Limit; COUNT]);

impl Default for Limits {
    fn default() -> Limits {
        let none = Limit { soft: INFINITY, hard: INFINITY };
        let mut limits = Limits([none; COUNT]);
        limits.set(Resource::Stack, Limit { soft: 8 << 20, hard: INFINITY });
        limits.set(Resource::Core, Limit { soft: 0, hard: INFINITY });
        limits.set(Resource::Nofile, Limit { soft: 1024, hard: 1_048_576 });
        limits.set(Resource::Memlock, Limit { soft: 8 << 20, hard: 8 << 20 });
        limits.set(Resource::Sigpending, Limit { soft: 63_000, hard: 63_000 });
        limits.set(Resource::Msgqueue, Limit { soft: 819_200, hard: 819_200 });
        limits.set(Resource::Nice, Limit { soft: 0, hard: 0 });
        limits.set(Resource::Rtprio, Limit { soft: 0, hard: 0 });
        limits
    }
}

impl Limits {
    /// One limit.
    #[must_use]
    pub fn get(&self, resource: Resource) -> Limit {
        let none = Limit { soft: INFINITY, hard: INFINITY };
        self.0.get(resource as usize).copied().unwrap_or(none)
    }
    /// Sets one limit.
    pub fn set(&mut self, resource: Resource, limit: Limit) {
        if let Some(at) = self.0.get_mut(resource as usize) {
            *at = limit;
        }
    }
}
