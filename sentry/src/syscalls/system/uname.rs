//! uname(2), sethostname(2), setdomainname(2).

use crate::task::Cx;
use abi::system::Utsname;
use abi::{CallResult, UserPtr};

/// Kernel release shown to guests.
pub const RELEASE: &str = "6.12.0";
/// Kernel version shown to guests.
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC gvisor-rs";

/// uname(2).
pub fn uname(cx: &mut Cx<'_>, buf: UserPtr<Utsname>) -> CallResult<()> {
    let names = cx.owned.ns.uts.names();
    let value = Utsname::new("Linux", &names.nodename, RELEASE, VERSION, "x86_64", &names.domainname);
    Ok(cx.write(buf, &value)?)
}
