//! arch_prctl(2), personality(2).

use crate::loader::TASK_SIZE;
use crate::task::Cx;
use abi::{CallResult, Errno, UserAddr, UserPtr};

const ARCH_SET_GS: u32 = 0x1001;
const ARCH_SET_FS: u32 = 0x1002;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;
const ARCH_GET_CPUID: u32 = 0x1011;
const ARCH_SET_CPUID: u32 = 0x1012;

/// arch_prctl(2).
pub fn arch_prctl(cx: &mut Cx<'_>, code: u32, addr: UserAddr) -> CallResult<u32> {
    match code {
        ARCH_SET_FS | ARCH_SET_GS => {
            if addr.raw() >= TASK_SIZE {
                return Err(Errno::EPERM.into());
            }
            let regs = cx.context.registers();
            if code == ARCH_SET_FS {
                regs.fs_base = addr.raw();
            } else {
                regs.gs_base = addr.raw();
            }
        }
        ARCH_GET_FS | ARCH_GET_GS => {
            let regs = *cx.context.registers();
            let value = if code == ARCH_GET_FS { regs.fs_base } else { regs.gs_base };
            cx.write(UserPtr::new(addr), &value)?;
        }
        ARCH_GET_CPUID => return Ok(1),
        // As on a processor that cannot fault on it.
        ARCH_SET_CPUID => return Err(Errno::ENODEV.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// personality(2): 0xffffffff only asks.
pub fn personality(cx: &mut Cx<'_>, persona: u32) -> CallResult<u32> {
    let old = cx.owned.personal.personality;
    if persona != u32::MAX {
        cx.owned.personal.personality = persona;
        cx.shared.set_personality(persona);
    }
    Ok(old)
}
