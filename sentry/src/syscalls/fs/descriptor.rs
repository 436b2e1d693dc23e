//! dup(2), flock(2), ioctl(2).

use crate::files::OnExec;
use crate::procfs::NsHandle;
use crate::task::Cx;
use abi::fs::{FileType, OpenFlags};
use abi::{CallResult, Errno, Fd, UserAddr, UserPtr};
use vfs::inode_flags::InodeFlags;
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
    const FIONREAD: u32 = 0x541b;
    const FIOQSIZE: u32 = 0x5460;
    const FICLONE: u32 = 0x4004_9409;
    const FICLONERANGE: u32 = 0x4020_940d;
    const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
    const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
    const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
    const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
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
        FIONREAD if is_regular(&file) => {
            let size = file.attr(&cx.caller())?.size;
            let left = size.wrapping_sub(file.position()).to_ne_bytes();
            cx.mm().write_bytes(arg, left.get(..4).unwrap_or_default())?;
        }
        FIOQSIZE if file.location().is_some() => match file.location().and_then(vfs::Location::kind) {
            Some(FileType::Regular | FileType::Directory | FileType::Symlink) => {
                let bytes = file.attr(&cx.caller())?.blocks.saturating_mul(512);
                cx.write(UserPtr::new(arg), &bytes)?;
            }
            _ => return Err(Errno::ENOTTY.into()),
        },
        FICLONE => clone_file(cx, &file, arg.raw().cast_signed())?,
        FICLONERANGE => {
            let [source, ..]: [i64; 4] = cx.read(UserPtr::new(arg))?;
            clone_file(cx, &file, source)?;
        }
        FS_IOC_GETFLAGS => {
            let flags = place_of(&file)?.inode()?.flags(&cx.caller())?;
            cx.write(UserPtr::new(arg), &flags.bits())?;
        }
        FS_IOC_SETFLAGS => {
            let place = place_of(&file)?;
            place.inode()?.flags(&cx.caller())?;
            let flags = InodeFlags::from_bits_retain(cx.read(UserPtr::new(arg))?);
            vfs::inode_flags::set(place, flags, &cx.caller())?;
        }
        FS_IOC_FSGETXATTR => {
            let flags = place_of(&file)?.inode()?.flags(&cx.caller())?;
            cx.write(UserPtr::new(arg), &[flags.to_xflags(), 0, 0, 0, 0, 0, 0])?;
        }
        FS_IOC_FSSETXATTR => {
            let place = place_of(&file)?;
            place.inode()?.flags(&cx.caller())?;
            let [xflags, rest @ ..]: [u32; 7] = cx.read(UserPtr::new(arg))?;
            if rest.iter().take(4).any(|word| *word != 0) {
                return Err(Errno::EOPNOTSUPP.into());
            }
            vfs::inode_flags::set(place, InodeFlags::from_xflags(xflags)?, &cx.caller())?;
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

fn is_regular(file: &OpenFile) -> bool {
    file.location().and_then(vfs::Location::kind) == Some(FileType::Regular)
}

/// FICLONE, FICLONERANGE: no file system here shares blocks between files, which is said last.
fn clone_file(cx: &Cx<'_>, to: &OpenFile, source: i64) -> CallResult<()> {
    let from = cx.files().get(Fd::new(i32::try_from(source).map_err(|_| Errno::EBADF)?))?;
    let [Some(a), Some(b)] = [&*from, to].map(OpenFile::location) else { return Err(Errno::EXDEV.into()) };
    if a.mount.sb.id != b.mount.sb.id {
        return Err(Errno::EXDEV.into());
    }
    let kinds = [a.kind(), b.kind()];
    if kinds.contains(&Some(FileType::Directory)) {
        return Err(Errno::EISDIR.into());
    }
    if kinds.iter().any(|kind| *kind != Some(FileType::Regular)) {
        return Err(Errno::EINVAL.into());
    }
    if !from.flags().readable() || !to.flags().writable() || to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF.into());
    }
    Err(Errno::EOPNOTSUPP.into())
}

/// Where an open file lies; `ENOTTY` for those that lie nowhere.
fn place_of(file: &OpenFile) -> CallResult<&vfs::Location> {
    Ok(file.location().ok_or(Errno::ENOTTY)?)
}

/// Landlock's LANDLOCK_ACCESS_FS_IOCTL_DEV: only what is not the driver's is left to devices.
fn check_device_ioctl(file: &OpenFile, request: u32) -> CallResult<()> {
    const FIOQSIZE: u32 = 0x5460;
    const FIGETBSZ: u32 = 2;
    let kind = file.location().and_then(vfs::Location::kind);
    let device = matches!(kind, Some(FileType::CharDevice | FileType::BlockDevice));
    if device && !matches!(request, FIOQSIZE | FIGETBSZ) { Err(Errno::EACCES.into()) } else { Ok(()) }
}
