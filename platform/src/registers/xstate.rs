//! The XSAVE area (Intel SDM vol. 1, 13.4), standard format.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Offset of XSTATE_BV in the area.
pub(super) const HEADER: usize = 512;
/// Bytes of legacy region and header: the smallest area.
pub(super) const MIN_SIZE: usize = 576;
/// Where the kernel's signal frame keeps `struct _fpx_sw_bytes` (asm/sigcontext.h).
pub(super) const SOFTWARE_BYTES: std::ops::Range<usize> = 464..512;
/// Offset of MXCSR in the legacy region.
pub(super) const MXCSR: usize = 24;
/// MXCSR of a fresh program: all exceptions masked.
pub(super) const MXCSR_INITIAL: u32 = 0x1f80;
/// x87 control word of a fresh program.
pub(super) const FCW_INITIAL: u16 = 0x37f;

/// Components that the host's kernel enabled (XCR0), cut to those of user space.
#[must_use]
pub fn xfeatures() -> u64 {
    static FOUND: OnceLock<u64> = OnceLock::new();
    *FOUND.get_or_init(|| {
        if !std::arch::is_x86_feature_detected!("xsave") {
            return 3;
        }
        read_xcr0()
    })
}

fn read_xcr0() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: register 0 exists wherever OSXSAVE is set, which the caller checked.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: called only after `is_x86_feature_detected!("xsave")`.
    unsafe { read() }
}

/// Bytes of the area for all enabled components (CPUID.0DH:EBX), what ptrace(2) and the signal frame use.
#[must_use]
pub fn xstate_size() -> usize {
    static FOUND: OnceLock<usize> = OnceLock::new();
    *FOUND.get_or_init(|| {
        if !std::arch::is_x86_feature_detected!("xsave") {
            return MIN_SIZE;
        }
        let leaf = __cpuid_count(0xd, 0);
        usize::try_from(leaf.ebx).unwrap_or(MIN_SIZE).max(MIN_SIZE)
    })
}

/// The state of execve(2): every component initial.
#[must_use]
pub fn initial_xstate() -> Vec<u8> {
    let mut area = vec![0; xstate_size()];
    area[..2].copy_from_slice(&FCW_INITIAL.to_le_bytes());
    area[MXCSR..MXCSR + 4].copy_from_slice(&MXCSR_INITIAL.to_le_bytes());
    // x87 and SSE are taken from the area; all others have their initial state.
    area[HEADER] = 3;
    area
}

/// Zeroes what the host's kernel notes for itself in the legacy region.
pub fn clear_software_bytes(area: &mut [u8]) {
    if let Some(bytes) = area.get_mut(SOFTWARE_BYTES) {
        bytes.fill(0);
    }
}
