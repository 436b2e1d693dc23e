//! uname(2), sethostname(2), setdomainname(2).

use crate::task::Cx;
use abi::system::Utsname;
use abi::{CallResult, Errno, SysResult, UserAddr, UserPtr};
use vfs::Capabilities;

/// Kernel release shown to guests.
pub const RELEASE: &str = "6.12.0";
/// Kernel version shown to guests.
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC gvisor-rs";

/// UNAME26 of personality(2).
const UNAME26: u32 = 0x002_0000;
/// The execution domain within a personality.
const PER_MASK: u32 = 0xff;
/// PER_LINUX32: a machine of 32 bits is shown.
const PER_LINUX32: u32 = 8;

/// uname(2).
pub fn uname(cx: &mut Cx<'_>, buf: UserPtr<Utsname>) -> CallResult<()> {
    let names = cx.owned.ns.uts.names();
    let release = if cx.owned.personal.personality & UNAME26 != 0 { "2.6.72" } else { RELEASE };
    let machine = if cx.owned.personal.personality & PER_MASK == PER_LINUX32 { "i686" } else { "x86_64" };
    let value = Utsname::new("Linux", &names.nodename, release, VERSION, machine, &names.domainname);
    Ok(cx.write(buf, &value)?)
}

fn name(cx: &Cx<'_>, at: UserAddr, len: i32) -> SysResult<Vec<u8>> {
    if !cx.cred().has_in(Capabilities::SYS_ADMIN, &cx.owned.ns.uts.user) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(len).ok().filter(|len| *len < abi::system::UTS_LEN).ok_or(Errno::EINVAL)?;
    let mut bytes = vec![0; len];
    cx.mm().read_bytes(at, &mut bytes)?;
    Ok(bytes)
}

/// sethostname(2).
pub fn sethostname(cx: &mut Cx<'_>, at: UserAddr, len: i32) -> CallResult<()> {
    let name = name(cx, at, len)?;
    Ok(cx.owned.ns.uts.set_nodename(&name)?)
}

/// setdomainname(2).
pub fn setdomainname(cx: &mut Cx<'_>, at: UserAddr, len: i32) -> CallResult<()> {
    let name = name(cx, at, len)?;
    Ok(cx.owned.ns.uts.set_domainname(&name)?)
}
