//! Credentials (credentials(7), capabilities(7), user_namespaces(7)).
//!
//! Ids inside the kernel are *kernel ids* ([`Kuid`], [`Kgid`]): those of the sandbox's initial user
//! namespace. Conversion happens only at the border, with the namespace of the caller.

use abi::{Errno, SysResult};
use std::sync::Arc;

/// A user id of the initial user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct Kuid(pub u32);
/// A group id of the initial user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct Kgid(pub u32);

/// What unmapped ids read as (`/proc/sys/kernel/overflowuid`).
pub const OVERFLOW_ID: u32 = 65534;

macro_rules! capabilities {
    ($($name:ident = $bit:literal;)*) => {
        bitflags::bitflags! {
            /// A capability set.
            #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
            pub struct Capabilities: u64 {
                $(#[doc = concat!("`CAP_", stringify!($name), "`.")] const $name = 1 << $bit;)*
            }
        }
        impl Capabilities {
            /// `CAP_X` by name, with or without the prefix, any case.
            #[must_use]
            pub fn parse(name: &str) -> Option<Capabilities> {
                let upper = name.to_ascii_uppercase();
                match upper.strip_prefix("CAP_").unwrap_or(&upper) {
                    $(stringify!($name) => Some(Capabilities::$name),)*
                    _ => None,
                }
            }
        }
    };
}
capabilities! {
    CHOWN = 0; DAC_OVERRIDE = 1; DAC_READ_SEARCH = 2; FOWNER = 3; FSETID = 4; KILL = 5; SETGID = 6; SETUID = 7;
    SETPCAP = 8; LINUX_IMMUTABLE = 9; NET_BIND_SERVICE = 10; NET_BROADCAST = 11; NET_ADMIN = 12; NET_RAW = 13;
    IPC_LOCK = 14; IPC_OWNER = 15; SYS_MODULE = 16; SYS_RAWIO = 17; SYS_CHROOT = 18; SYS_PTRACE = 19; SYS_PACCT = 20;
    SYS_ADMIN = 21; SYS_BOOT = 22; SYS_NICE = 23; SYS_RESOURCE = 24; SYS_TIME = 25; SYS_TTY_CONFIG = 26; MKNOD = 27;
    LEASE = 28; AUDIT_WRITE = 29; AUDIT_CONTROL = 30; SETFCAP = 31; MAC_OVERRIDE = 32; MAC_ADMIN = 33; SYSLOG = 34;
    WAKE_ALARM = 35; BLOCK_SUSPEND = 36; AUDIT_READ = 37; PERFMON = 38; BPF = 39; CHECKPOINT_RESTORE = 40;
}

impl Capabilities {
    /// `CAP_LAST_CAP`.
    pub const LAST: u32 = 40;
}

/// One extent of an id map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdExtent {
    /// First id inside.
    pub inside: u32,
    /// First kernel id.
    pub kernel: u32,
    /// How many.
    pub count: u32,
}

/// A user namespace.
#[derive(Debug)]
pub struct UserNamespace {
    /// Number in /proc/pid/ns.
    pub ino: u64,
    /// `None` for the initial one.
    pub parent: Option<Arc<UserNamespace>>,
    /// Kernel id of the creator.
    pub owner: Kuid,
    /// Maps, written once through /proc/pid/{uid_map,gid_map}; whether setgroups(2) is denied.
    pub maps: lock::Ranked<lock::order::Namespaces, IdMaps>,
}

/// The id maps of a user namespace.
#[derive(Clone, Debug, Default)]
pub struct IdMaps {
    /// User ids.
    pub uid: Vec<IdExtent>,
    /// Group ids.
    pub gid: Vec<IdExtent>,
    /// `/proc/pid/setgroups` says deny.
    pub setgroups_denied: bool,
}

impl UserNamespace {
    /// The initial namespace: every id maps to itself.
    #[must_use]
    pub fn initial(ino: u64) -> Arc<UserNamespace> {
        let all = vec![IdExtent { inside: 0, kernel: 0, count: u32::MAX }];
        let maps = IdMaps { uid: all.clone(), gid: all, setgroups_denied: false };
        Arc::new(UserNamespace { ino, parent: None, owner: Kuid(0), maps: lock::Ranked::new(maps) })
    }
    /// An id of this namespace as a kernel id; `EINVAL` when unmapped.
    pub fn kuid(&self, uid: u32) -> SysResult<Kuid> {
        if self.parent.is_none() {
            return if uid == u32::MAX { Err(Errno::EINVAL) } else { Ok(Kuid(uid)) };
        }
        inward(&self.maps.lock().uid, uid).map(Kuid)
    }
    /// An id of this namespace as a kernel id; `EINVAL` when unmapped.
    pub fn kgid(&self, gid: u32) -> SysResult<Kgid> {
        if self.parent.is_none() {
            return if gid == u32::MAX { Err(Errno::EINVAL) } else { Ok(Kgid(gid)) };
        }
        inward(&self.maps.lock().gid, gid).map(Kgid)
    }
    /// A kernel id as this namespace shows it; unmapped ids show as 65534.
    #[must_use]
    pub fn show_uid(&self, uid: Kuid) -> u32 {
        if self.parent.is_none() { uid.0 } else { outward(&self.maps.lock().uid, uid.0) }
    }
    /// A kernel id as this namespace shows it; unmapped ids show as 65534.
    #[must_use]
    pub fn show_gid(&self, gid: Kgid) -> u32 {
        if self.parent.is_none() { gid.0 } else { outward(&self.maps.lock().gid, gid.0) }
    }
    /// Whether a kernel uid has a number here.
    #[must_use]
    pub fn maps_uid(&self, uid: Kuid) -> bool {
        self.parent.is_none() || find(&self.maps.lock().uid, uid.0).is_some()
    }
    /// Whether a kernel gid has a number here.
    #[must_use]
    pub fn maps_gid(&self, gid: Kgid) -> bool {
        self.parent.is_none() || find(&self.maps.lock().gid, gid.0).is_some()
    }
    /// Whether `self` is `other` or one of its ancestors.
    #[must_use]
    pub fn is_ancestor_of(&self, other: &UserNamespace) -> bool {
        let mut at = Some(other);
        while let Some(ns) = at {
            if std::ptr::eq(ns, self) {
                return true;
            }
            at = ns.parent.as_deref();
        }
        false
    }
}

fn inward(map: &[IdExtent], id: u32) -> SysResult<u32> {
    map.iter()
        .find_map(|e| {
            id.checked_sub(e.inside).filter(|off| *off < e.count).and_then(|off| e.kernel.checked_add(off))
        })
        .ok_or(Errno::EINVAL)
}
fn find(map: &[IdExtent], id: u32) -> Option<u32> {
    map.iter().find_map(|e| {
        id.checked_sub(e.kernel).filter(|off| *off < e.count).and_then(|off| e.inside.checked_add(off))
    })
}
fn outward(map: &[IdExtent], id: u32) -> u32 {
    find(map, id).unwrap_or(OVERFLOW_ID)
}

/// The credentials of a task or of the opener of a file. Immutable: changes make a new value.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Real user id.
    pub uid: Kuid,
    /// Effective user id.
    pub euid: Kuid,
    /// Saved set-user-id.
    pub suid: Kuid,
    /// File-system user id.
    pub fsuid: Kuid,
    /// Real group id.
    pub gid: Kgid,
    /// Effective group id.
    pub egid: Kgid,
    /// Saved set-group-id.
    pub sgid: Kgid,
    /// File-system group id.
    pub fsgid: Kgid,
    /// Supplementary groups, sorted.
    pub groups: Arc<[Kgid]>,
    /// Capability sets.
    pub caps: CapSets,
    /// `SECBIT_*` (prctl PR_SET_SECUREBITS).
    pub securebits: u32,
    /// User namespace.
    pub user_ns: Arc<UserNamespace>,
    /// Landlock's restrictions.
    pub landlock: Option<Arc<crate::landlock::Domain>>,
}

/// The five sets of a thread (capabilities(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CapSets {
    /// In force.
    pub effective: Capabilities,
    /// May be raised.
    pub permitted: Capabilities,
    /// Kept over execve by file capabilities.
    pub inheritable: Capabilities,
    /// Upper bound of what execve gives.
    pub bounding: Capabilities,
    /// Kept over an unprivileged execve.
    pub ambient: Capabilities,
}

impl Credentials {
    /// Root with every capability in `user_ns`.
    #[must_use]
    pub fn root(user_ns: Arc<UserNamespace>) -> Credentials {
        let all = Capabilities::all();
        Credentials {
            uid: Kuid(0),
            euid: Kuid(0),
            suid: Kuid(0),
            fsuid: Kuid(0),
            gid: Kgid(0),
            egid: Kgid(0),
            sgid: Kgid(0),
            fsgid: Kgid(0),
            groups: Arc::from([]),
            caps: CapSets {
                effective: all,
                permitted: all,
                inheritable: Capabilities::empty(),
                bounding: all,
                ambient: Capabilities::empty(),
            },
            securebits: 0,
            user_ns,
            landlock: None,
        }
    }
    /// Whether `cap` is effective in the caller's own user namespace.
    #[must_use]
    pub fn has(&self, cap: Capabilities) -> bool {
        self.caps.effective.contains(cap)
    }
    /// Whether `cap` is effective over resources of `ns` (capable in it, or owner of it from its parent).
    #[must_use]
    pub fn has_in(&self, cap: Capabilities, ns: &Arc<UserNamespace>) -> bool {
        let mut at = Arc::clone(ns);
        loop {
            if Arc::ptr_eq(&at, &self.user_ns) {
                return self.has(cap);
            }
            let Some(parent) = at.parent.clone() else { return false };
            if Arc::ptr_eq(&parent, &self.user_ns) && at.owner == self.euid {
                return true;
            }
            at = parent;
        }
    }
    /// Whether `gid` is the file-system group or a supplementary group.
    #[must_use]
    pub fn in_group(&self, gid: Kgid) -> bool {
        self.fsgid == gid || self.groups.binary_search(&gid).is_ok()
    }
}
