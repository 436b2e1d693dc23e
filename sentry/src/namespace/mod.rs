//! Namespaces of a task (namespaces(7)).

use crate::process::pid::PidNs;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Namespaces;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vfs::UserNamespace;

/// First number after the initial namespaces' of Linux.
static NEXT_INO: AtomicU64 = AtomicU64::new(0xf000_0000);

/// A fresh namespace number.
#[must_use]
pub fn next_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// Host and domain name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UtsNames {
    /// sethostname(2).
    pub nodename: Vec<u8>,
    /// setdomainname(2).
    pub domainname: Vec<u8>,
}

/// A UTS namespace.
#[derive(Debug)]
pub struct UtsNs {
    /// Number in /proc/pid/ns.
    pub ino: u64,
    /// Owner.
    pub user: Arc<UserNamespace>,
    names: Ranked<Namespaces, UtsNames>,
}

impl UtsNs {
    /// A namespace with these names.
    #[must_use]
    pub fn new(user: Arc<UserNamespace>, names: UtsNames) -> Arc<UtsNs> {
        Arc::new(UtsNs { ino: next_ino(), user, names: Ranked::new(names) })
    }
    /// The names.
    #[must_use]
    pub fn names(&self) -> UtsNames {
        self.names.lock().clone()
    }
    /// sethostname(2).
    pub fn set_nodename(&self, name: &[u8]) -> SysResult<()> {
        check_name(name)?;
        self.names.lock().nodename = name.to_vec();
        Ok(())
    }
    /// setdomainname(2).
    pub fn set_domainname(&self, name: &[u8]) -> SysResult<()> {
        check_name(name)?;
        self.names.lock().domainname = name.to_vec();
        Ok(())
    }
}

fn check_name(name: &[u8]) -> SysResult<()> {
    if name.len() >= abi::system::UTS_LEN { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The namespaces of a task beside its user namespace (which is part of its credentials).
#[derive(Clone, Debug)]
pub struct NsProxy {
    /// Host name.
    pub uts: Arc<UtsNs>,
    /// Where children are born; the task's own is in its `Pid`.
    pub pid_for_children: Arc<PidNs>,
}
