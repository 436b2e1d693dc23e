//! SIGIO of files to their owners (fcntl(2) F_SETOWN, F_SETSIG).

use super::send::{self, Force};
use crate::kernel::Kernel;
use crate::process::Process;
use crate::task::TaskShared;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use std::sync::{Arc, Weak};
use vfs::sigio::{Sigio, SigioSender};
use vfs::{Capabilities, SignalOwner};

/// F_OWNER_TID.
pub const OWNER_TID: i32 = 0;
/// F_OWNER_PGRP.
pub const OWNER_PGRP: i32 = 2;

struct KernelSigio(Weak<Kernel>);

/// Tells open files who sends their signals.
pub fn connect(kernel: &Arc<Kernel>) {
    vfs::sigio::set_sender(Arc::new(KernelSigio(Arc::downgrade(kernel))));
}

/// Whether who set the owner may signal the process of `target` (fcntl(2), "F_SETOWN").
fn may(owner: &SignalOwner, target: &TaskShared) -> bool {
    let cred = Arc::clone(&target.published.lock().cred);
    let (uid, euid) = owner.uids;
    euid == 0 || [uid, euid].iter().any(|id| *id == cred.uid.0 || *id == cred.suid.0)
}

fn info(signal: &Sigio) -> SigInfo {
    match u32::try_from(signal.owner.signal).ok().and_then(|n| Signal::new(n).ok()) {
        None => SigInfo::kernel(Signal::SIGIO),
        Some(number) => {
            let band = u64::from(signal.reason.band().bits());
            SigInfo::poll(number, signal.reason.code(), band, signal.fd)
        }
    }
}

impl SigioSender for KernelSigio {
    fn send(&self, signal: &Sigio) {
        let Some(kernel) = self.0.upgrade() else { return };
        let owner = &signal.owner;
        if owner.kind == OWNER_TID {
            if let Some(task) = kernel.tasks.get(owner.id).filter(|task| may(owner, task)) {
                // A full queue of a real-time signal becomes a plain SIGIO.
                if send::to_task(&task, info(signal), Force::No).is_err() {
                    let _ = send::to_task(&task, SigInfo::kernel(Signal::SIGIO), Force::No);
                }
            }
            return;
        }
        let targets: Vec<Arc<Process>> = {
            let tree = kernel.tree.lock();
            if owner.kind == OWNER_PGRP {
                tree.group(owner.id).map(|node| Arc::clone(&node.process)).collect()
            } else {
                tree.node(owner.id).map(|node| Arc::clone(&node.process)).into_iter().collect()
            }
        };
        for process in targets {
            let first = process.state.lock().threads.first().cloned();
            if first.is_some_and(|task| may(owner, &task))
                && send::to_process(&process, info(signal), Force::No).is_err()
            {
                let _ = send::to_process(&process, SigInfo::kernel(Signal::SIGIO), Force::No);
            }
        }
    }
}

/// Whether `cred` may lease a file of `owner` (fcntl(2), "Leases").
#[must_use]
pub fn may_lease(cred: &vfs::Credentials, owner: vfs::Kuid) -> bool {
    cred.fsuid == owner || cred.has(Capabilities::LEASE)
}
