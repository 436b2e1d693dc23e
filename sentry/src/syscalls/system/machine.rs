//! What belongs to the whole machine and is refused to a sandbox: swap, ports, modules, kexec, quotas; and
//! ustat(2), sysfs(2), which only tell. Each fails as on a machine whose administrator has closed it
//! (`kernel.modules_disabled`, `kernel.kexec_load_disabled`, lockdown), with Linux's order of checks.

use crate::syscalls::fs::place;
use crate::task::Cx;
use abi::{CallResult, DirFd, Errno, Fd, SysResult, UserAddr, UserCStr, UserPtr};
use vfs::{Capabilities, Follow, Location};
use zerocopy::{Immutable, IntoBytes};

fn needs(cx: &Cx<'_>, cap: Capabilities) -> SysResult<()> {
    if cx.cred().has_in(cap, &cx.kernel().root.user) { Ok(()) } else { Err(Errno::EPERM) }
}

fn find(cx: &Cx<'_>, path: UserCStr) -> CallResult<Location> {
    let path = cx.path(path)?;
    place(cx, DirFd::Cwd, &path, 0, Follow::Yes)
}

/// swapon(2): nothing in the sandbox can hold swap.
pub fn swapon(cx: &mut Cx<'_>, path: UserCStr, flags: u32) -> CallResult<()> {
    const VALID: u32 = 0x7_ffff;
    crate::syscalls::fs::only(flags, VALID)?;
    needs(cx, Capabilities::SYS_ADMIN)?;
    find(cx, path)?;
    Err(Errno::EINVAL.into())
}

/// swapoff(2).
pub fn swapoff(cx: &mut Cx<'_>, path: UserCStr) -> CallResult<()> {
    needs(cx, Capabilities::SYS_ADMIN)?;
    find(cx, path)?;
    Err(Errno::EINVAL.into())
}

/// iopl(2): no port is given to anybody.
pub fn iopl(_cx: &mut Cx<'_>, level: u32) -> CallResult<()> {
    match level {
        0 => Ok(()),
        1..=3 => Err(Errno::EPERM.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// ioperm(2).
pub fn ioperm(_cx: &mut Cx<'_>, from: u64, count: u64, on: i32) -> CallResult<()> {
    const PORTS: u64 = 65_536;
    let end = from.checked_add(count).ok_or(Errno::EINVAL)?;
    if end <= from || end > PORTS {
        return Err(Errno::EINVAL.into());
    }
    if on == 0 { Ok(()) } else { Err(Errno::EPERM.into()) }
}

/// init_module(2): modules are disabled.
pub fn init_module(_cx: &mut Cx<'_>, _image: UserAddr, _len: u64, _args: UserAddr) -> CallResult<()> {
    Err(Errno::EPERM.into())
}

/// finit_module(2).
pub fn finit_module(_cx: &mut Cx<'_>, _fd: Fd, _args: UserAddr, _flags: u32) -> CallResult<()> {
    Err(Errno::EPERM.into())
}

/// delete_module(2).
pub fn delete_module(_cx: &mut Cx<'_>, _name: UserAddr, _flags: u32) -> CallResult<()> {
    Err(Errno::EPERM.into())
}

/// kexec_load(2): loading another kernel is disabled.
pub fn kexec_load(_cx: &mut Cx<'_>) -> CallResult<()> {
    Err(Errno::EPERM.into())
}

/// kexec_file_load(2).
pub fn kexec_file_load(_cx: &mut Cx<'_>) -> CallResult<()> {
    Err(Errno::EPERM.into())
}

const QUOTA_TYPES: u32 = 3;

/// quotactl(2): no file system has quotas, and none is on a block device.
pub fn quotactl(
    cx: &mut Cx<'_>,
    command: u32,
    special: UserCStr,
    _id: u32,
    _addr: UserAddr,
) -> CallResult<()> {
    const Q_SYNC: u32 = 0x80_0001;
    if command & 0xff >= QUOTA_TYPES {
        return Err(Errno::EINVAL.into());
    }
    if special.addr().is_null() {
        return if command >> 8 == Q_SYNC { Ok(()) } else { Err(Errno::ENODEV.into()) };
    }
    let at = find(cx, special)?;
    let block = at.inode()?.attr(&cx.caller())?.kind == abi::fs::FileType::BlockDevice;
    Err(if block { Errno::ENODEV } else { Errno::ENOTBLK }.into())
}

/// quotactl_fd(2).
pub fn quotactl_fd(cx: &mut Cx<'_>, fd: Fd, command: u32, _id: u32, _addr: UserAddr) -> CallResult<()> {
    cx.files().get(fd)?;
    if command & 0xff >= QUOTA_TYPES {
        return Err(Errno::EINVAL.into());
    }
    Err(Errno::ENOSYS.into())
}

/// `struct ustat`.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub struct Ustat {
    free_blocks: i32,
    pad: i32,
    free_inodes: u64,
    names: [u8; 16],
}

/// ustat(2): of a mounted file system, by its device number.
pub fn ustat(cx: &mut Cx<'_>, dev: u32, out: UserPtr<Ustat>) -> CallResult<()> {
    let (major, minor) = ((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xf_ff00));
    let fs = cx.fs().snapshot();
    let same = |mount: &std::sync::Arc<vfs::Mount>| {
        let dev = mount.sb.fs.dev();
        vfs::vfs::major(dev) == major && vfs::vfs::minor(dev) == minor
    };
    let mount = fs.ns.mounts().into_iter().find(same).ok_or(Errno::EINVAL)?;
    let stat = mount.sb.fs.statfs(&cx.caller())?;
    let value = Ustat {
        free_blocks: i32::try_from(stat.bfree).unwrap_or(i32::MAX),
        free_inodes: stat.ffree,
        ..Ustat::default()
    };
    Ok(cx.write(out, &value)?)
}

/// sysfs(2): names and numbers of file system types.
pub fn sysfs(cx: &mut Cx<'_>, option: u32, arg1: u64, arg2: UserAddr) -> CallResult<u64> {
    let by = cx.caller();
    let names: Vec<&'static str> =
        crate::procfs::vfs_of(cx.kernel(), &by).fs_types().iter().map(|kind| kind.name()).collect();
    match option {
        1 => {
            let name = cx.path(UserCStr::new(UserAddr::new(arg1)))?;
            let at = names.iter().position(|known| known.as_bytes() == name).ok_or(Errno::EINVAL)?;
            Ok(u64::try_from(at).unwrap_or(0))
        }
        2 => {
            let at = usize::try_from(arg1 & 0xffff_ffff).map_err(|_| Errno::EINVAL)?;
            let mut text = names.get(at).ok_or(Errno::EINVAL)?.as_bytes().to_vec();
            text.push(0);
            cx.mm().write_bytes(arg2, &text)?;
            Ok(0)
        }
        3 => Ok(u64::try_from(names.len()).unwrap_or(0)),
        _ => Err(Errno::EINVAL.into()),
    }
}
