//! dup(2), flock(2), ioctl(2).

use crate::files::OnExec;
use crate::procfs::NsHandle;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::{CallResult, Errno, Fd, UserAddr, UserPtr};
use vfs::locks::{LockKind, LockWait};
use vfs::{GuestMemory, OpenFile, Toggle};

/// dup(2).
pub fn dup(cx: &mut Cx<'_>, old: Fd) -> CallResult<Fd> {
    let file = cx.files().get(old)?;
    Ok(cx.files().install(file, OnExec::Keep, 0, cx.nofile())?)
}

/// dup2(2).
pub fn dup2(cx: &mut Cx<'_>, old: Fd, new: Fd) -> CallResult<Fd> {
    if old == new {
        cx.files().get(old)?;
        return Ok(new);
    }
    replace(cx, old, new, OnExec::Keep)
}

/// dup3(2).
pub fn dup3(cx: &mut Cx<'_>, old: Fd, new: Fd, flags: OpenFlags) -> CallResult<Fd> {
    if old == new || !OpenFlags::CLOEXEC.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    replace(cx, old, new, OnExec::from_flag(flags))
}

fn replace(cx: &mut Cx<'_>, old: Fd, new: Fd, on_exec: OnExec) -> CallResult<Fd> {
    let file = cx.files().get(old)?;
    if let Some(gone) = cx.files().replace(new, file, on_exec, cx.nofile())? {
        // dup2(2): errors of the silent close are lost.
        let _ = gone.descriptor_closed(cx.files().id(), &cx.caller());
    }
    Ok(new)
}

/// flock(2).
pub fn flock(cx: &mut Cx<'_>, fd: Fd, operation: u32) -> CallResult<()> {
    const NB: u32 = 4;
    const MAND: u32 = 32;
    if operation & MAND != 0 {
        // Mandatory locks are gone: Linux says so in its log, and does nothing.
        return Ok(());
    }
    let kind = match operation & !NB {
        1 => Some(LockKind::Shared),
        2 => Some(LockKind::Exclusive),
        8 => None,
        _ => return Err(Errno::EINVAL.into()),
    };
    let wait = if operation & NB != 0 { LockWait::No } else { LockWait::Yes };
    let file = cx.files().get_io(fd)?;
    file.flock(kind, wait, &cx.caller())
}

/// ioctl(2): the requests every file knows; the rest goes to the file.
pub fn ioctl(cx: &mut Cx<'_>, fd: Fd, request: u32, arg: UserAddr) -> CallResult<u64> {
    const FIGETBSZ: u32 = 2;
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    const FIONBIO: u32 = 0x5421;
    const FIOASYNC: u32 = 0x5452;
    let file = cx.files().get_io(fd)?;
    let toggle = |flag: OpenFlags| -> CallResult<u64> {
        let mut value = [0; 4];
        cx.mm().read_bytes(arg, &mut value)?;
        let on = if u32::from_ne_bytes(value) != 0 { Toggle::On } else { Toggle::Off };
        file.change_flag(flag, on)?;
        Ok(0)
    };
    match request {
        FIOCLEX => cx.files().set_on_exec(fd, OnExec::Close)?,
        FIONCLEX => cx.files().set_on_exec(fd, OnExec::Keep)?,
        FIONBIO => return toggle(OpenFlags::NONBLOCK),
        FIGETBSZ => {
            const BLOCK: i32 = 4096;
            cx.write(UserPtr::new(arg), &BLOCK)?;
        }
        FIOASYNC => {
            let mut value = [0; 4];
            cx.mm().read_bytes(arg, &mut value)?;
            let on = if u32::from_ne_bytes(value) != 0 { Toggle::On } else { Toggle::Off };
            file.set_async(on, fd.number())?;
        }
        _ => {
            let related = NsHandle::of_file(&file).and_then(|ns| ns.related(request, cx.cred()));
            let related = related.or_else(|| crate::process::pidfd::namespace(cx, &file, request));
            if let Some(related) = related {
                let fd = super::open::install(cx, related?, OpenFlags::CLOEXEC)?;
                return Ok(u64::try_from(fd.number()).unwrap_or(0));
            }
            if file.is_ioctl_restricted() {
                check_device_ioctl(&file, request)?;
            }
            file.ops().before_ioctl(request, &cx.caller())?;
            let memory: &dyn GuestMemory = &**cx.mm();
            return Ok(file.ops().ioctl(&file, request, arg.raw(), memory, &cx.caller())?);
        }
    }
    Ok(0)
}

/// Landlock's LANDLOCK_ACCESS_FS_IOCTL_DEV: only what is not the driver's is left to devices.
fn check_device_ioctl(file: &OpenFile, request: u32) -> CallResult<()> {
    const FIOQSIZE: u32 = 0x5460;
    const FIGETBSZ: u32 = 2;
    let kind = file.location().and_then(vfs::Location::kind);
    let device = matches!(kind, Some(abi::fs::FileType::CharDevice | abi::fs::FileType::BlockDevice));
    if device && !matches!(request, FIOQSIZE | FIGETBSZ) { Err(Errno::EACCES.into()) } else { Ok(()) }
}
