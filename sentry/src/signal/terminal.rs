//! Signals of terminals: to foreground groups and session leaders, without a task that sends them.

use super::send::{self, Force};
use crate::kernel::Kernel;
use crate::process::Process;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use std::sync::{Arc, Weak};
use vfs::devpts::TtySignals;

struct KernelSignals(Weak<Kernel>);

/// Tells the kernel's terminals who sends their signals.
pub fn connect(kernel: &Arc<Kernel>) {
    kernel.files.terminals.set_signals(Arc::new(KernelSignals(Arc::downgrade(kernel))));
}

/// Sends to every process of a group, as the kernel.
pub fn to_group(kernel: &Kernel, pgid: u32, signal: Signal) {
    let members: Vec<Arc<Process>> =
        kernel.tree.lock().group(pgid).map(|node| Arc::clone(&node.process)).collect();
    for process in members {
        // One that has just ended needs no signal.
        let _ = send::to_process(&process, SigInfo::kernel(signal), Force::Yes);
    }
}

impl TtySignals for KernelSignals {
    fn signal_pgrp(&self, pgid: u32, signal: Signal) {
        if let Some(kernel) = self.0.upgrade() {
            to_group(&kernel, pgid, signal);
        }
    }
    fn signal_leader(&self, sid: u32, signal: Signal) {
        let Some(kernel) = self.0.upgrade() else { return };
        let leader = kernel.tree.lock().node(sid).map(|node| Arc::clone(&node.process));
        if let Some(leader) = leader {
            let _ = send::to_process(&leader, SigInfo::kernel(signal), Force::Yes);
        }
    }
}
