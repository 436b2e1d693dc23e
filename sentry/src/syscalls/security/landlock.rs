//! landlock_create_ruleset(2), landlock_add_rule(2), landlock_restrict_self(2).

use crate::files::OnExec;
use crate::syscalls::fs::only;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::{CallResult, Errno, Fd, SysResult, UserAddr, UserPtr};
use std::any::Any;
use std::sync::Arc;
use vfs::landlock::{ABI_VERSION, Domain, FsRight, Handled, NetRight, Ruleset};
use vfs::{Capabilities, Credentials, FileOps, OpenFile};

/// A ruleset as an open file.
struct RulesetFile(Ruleset);

impl FileOps for RulesetFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:[landlock-ruleset]".to_vec())
    }
}

/// `struct landlock_ruleset_attr`, as much of it as there is: `E2BIG` when more of it is used.
fn attributes(cx: &Cx<'_>, attr: UserAddr, size: usize) -> SysResult<Handled> {
    const LEAST: usize = 8;
    const KNOWN: usize = 16;
    const PAGE: usize = 4096;
    if attr.is_null() {
        return Err(Errno::EFAULT);
    }
    if size < LEAST {
        return Err(Errno::EINVAL);
    }
    if size > PAGE {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; size.max(KNOWN)];
    cx.mm().read_bytes(attr, bytes.get_mut(..size).unwrap_or_default())?;
    let word = |at: usize| {
        let part = bytes.get(at..at + 8).and_then(|part| <[u8; 8]>::try_from(part).ok());
        u64::from_ne_bytes(part.unwrap_or_default())
    };
    if bytes.iter().skip(KNOWN).any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let fs = FsRight::from_bits(word(0)).ok_or(Errno::EINVAL)?;
    let net = NetRight::from_bits(word(8)).ok_or(Errno::EINVAL)?;
    Ok(Handled { fs, net })
}

/// landlock_create_ruleset(2).
pub fn landlock_create_ruleset(cx: &mut Cx<'_>, attr: UserAddr, size: usize, flags: u32) -> CallResult<i32> {
    const VERSION: u32 = 1;
    if flags != 0 {
        return if flags == VERSION && attr.is_null() && size == 0 {
            Ok(i32::try_from(ABI_VERSION).unwrap_or(0))
        } else {
            Err(Errno::EINVAL.into())
        };
    }
    let handled = attributes(cx, attr, size)?;
    if handled.fs.is_empty() && handled.net.is_empty() {
        return Err(Errno::ENOMSG.into());
    }
    let file = OpenFile::anonymous(Arc::new(RulesetFile(Ruleset::new(handled))), OpenFlags::RDWR);
    Ok(cx.files().install(file, OnExec::Close, 0, cx.nofile())?.number())
}

fn ruleset(file: &OpenFile) -> SysResult<&Ruleset> {
    file.downcast::<RulesetFile>().map(|file| &file.0).ok_or(Errno::EBADFD)
}

/// landlock_add_rule(2).
pub fn landlock_add_rule(cx: &mut Cx<'_>, fd: Fd, kind: u32, attr: UserAddr, flags: u32) -> CallResult<()> {
    const PATH_BENEATH: u32 = 1;
    const NET_PORT: u32 = 2;
    only(flags, 0)?;
    let file = cx.files().get_io(fd)?;
    let rules = ruleset(&file)?;
    let allowed = |cx: &Cx<'_>| cx.read(UserPtr::<u64>::new(attr));
    match kind {
        PATH_BENEATH => {
            let rights = allowed(cx)?;
            let parent: i32 = cx.read(UserPtr::new(attr.checked_add(8)?))?;
            if rights == 0 {
                return Err(Errno::ENOMSG.into());
            }
            let rights = FsRight::from_bits(rights).ok_or(Errno::EINVAL)?;
            if !rules.handled.fs.contains(rights) {
                return Err(Errno::EINVAL.into());
            }
            let parent = cx.files().get(Fd::new(parent))?;
            let at = parent.location().ok_or(Errno::EBADFD)?;
            if at.mount.namespace().is_none() {
                return Err(Errno::EBADFD.into());
            }
            Ok(rules.add_place(at, rights, &cx.caller())?)
        }
        NET_PORT => {
            let rights = allowed(cx)?;
            let port: u64 = cx.read(UserPtr::new(attr.checked_add(8)?))?;
            if rights == 0 {
                return Err(Errno::ENOMSG.into());
            }
            let rights = NetRight::from_bits(rights).ok_or(Errno::EINVAL)?;
            if !rules.handled.net.contains(rights) {
                return Err(Errno::EINVAL.into());
            }
            rules.add_port(u16::try_from(port).map_err(|_| Errno::EINVAL)?, rights);
            Ok(())
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// landlock_restrict_self(2).
pub fn landlock_restrict_self(cx: &mut Cx<'_>, fd: Fd, flags: u32) -> CallResult<()> {
    if !cx.owned.no_new_privs && !cx.cred().has(Capabilities::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    only(flags, 0)?;
    let file = cx.files().get_io(fd)?;
    let domain = Domain::restrict(cx.cred().landlock.as_ref(), ruleset(&file)?)?;
    let mut new = Credentials::clone(cx.cred());
    new.landlock = Some(domain);
    cx.owned.cred = Arc::new(new);
    cx.owned.publish(cx.shared);
    Ok(())
}
