//! Descriptors 0, 1, 2 and the preserved ones of a process: donated host files, or a terminal of the
//! kernel's own in front of a donated host terminal.

use super::process::{Plan, put};
use crate::control::spec::Stdio;
use crate::files::FdTable;
use abi::fs::OpenFlags;
use abi::{Errno, SysResult};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vfs::devpts::{DevPts, DevPtsOptions, SlaveFile, Tty};
use vfs::event::host;
use vfs::{Caller, Follow, FsContext, OpenFile, Walk, ops};

/// Fills the table of a new process, which leads session `sid`.
pub(super) fn install(
    plan: &Plan<'_>,
    fs: &FsContext,
    by: &Caller<'_>,
    sid: u32,
    files: &Arc<FdTable>,
) -> SysResult<()> {
    match (plan.spec.stdio, plan.stdio.first()) {
        (Stdio::Terminal, Some(fd)) => {
            let file = terminal(plan, fs, by, sid, fd.try_clone()?)?;
            for _ in 0..3 {
                put(files, Arc::clone(&file))?;
            }
        }
        _ => {
            for fd in &plan.stdio {
                put(files, host::open(fd.try_clone()?)?)?;
            }
        }
    }
    for fd in &plan.preserved {
        put(files, host::open(fd.try_clone()?)?)?;
    }
    Ok(())
}

/// A terminal in the container's devpts whose other side is `fd`.
fn terminal(
    plan: &Plan<'_>,
    fs: &FsContext,
    by: &Caller<'_>,
    sid: u32,
    fd: OwnedFd,
) -> SysResult<Arc<OpenFile>> {
    let terminals = &plan.kernel.files.terminals;
    let walk = Walk::new(fs, by);
    let mounted = walk.find(b"/dev/pts", Follow::Yes).ok().map(|at| Arc::clone(&at.mount.sb.fs));
    let own = mounted.as_ref().and_then(|fs| fs.as_any().downcast_ref::<DevPts>());
    // Without /dev/pts the terminal has no name.
    let hidden = if own.is_none() { Some(DevPts::new(terminals, DevPtsOptions::default())) } else { None };
    let instance = own.or(hidden.as_deref()).ok_or(Errno::ENXIO)?;
    let tty: Arc<Tty> = instance.add_host(fd, by.cred.fsuid)?;
    tty.give_to(sid);
    if terminals.console().is_none() {
        terminals.set_console(&tty);
    }
    let flags = OpenFlags::RDWR | OpenFlags::NOCTTY;
    if own.is_some() {
        let at = walk.find(format!("/dev/pts/{}", tty.index()).as_bytes(), Follow::Yes)?;
        if let Ok(file) = ops::open_location(&walk, at, flags) {
            return Ok(file);
        }
    }
    SlaveFile::open(&tty, flags, by).map(|ops| OpenFile::anonymous(ops, flags))
}
