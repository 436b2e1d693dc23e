//! UNSAFE: questions to the processor.

use std::arch::x86_64::{__cpuid_count, _fxsave, _xgetbv};

/// State components that the host's kernel enabled (XCR0); x87 and SSE alone without XSAVE.
#[must_use]
pub fn xcr0() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: register 0 exists wherever XSAVE is enabled, which the caller checked.
        unsafe { _xgetbv(0) }
    }
    if std::arch::is_x86_feature_detected!("xsave") {
        // SAFETY: the processor and the kernel have XSAVE.
        unsafe { read() }
    } else {
        3
    }
}

/// Bytes of a standard-format XSAVE area with every enabled component (CPUID.0DH.0:EBX).
#[must_use]
pub fn xsave_bytes() -> Option<usize> {
    if !std::arch::is_x86_feature_detected!("xsave") {
        return None;
    }
    usize::try_from(__cpuid_count(0xd, 0).ebx).ok()
}

/// Offset and bytes of one extended component in the standard format (CPUID.0DH.n).
#[must_use]
pub fn xsave_component(number: u32) -> Option<(usize, usize)> {
    if !std::arch::is_x86_feature_detected!("xsave") {
        return None;
    }
    let leaf = __cpuid_count(0xd, number);
    Some((usize::try_from(leaf.ebx).ok()?, usize::try_from(leaf.eax).ok()?))
}

/// Bits of MXCSR that may be set (SDM vol. 1, 11.6.6).
#[must_use]
pub fn mxcsr_mask() -> u32 {
    #[repr(C, align(16))]
    struct Area([u8; 512]);
    let mut area = Area([0; 512]);
    // SAFETY: every x86-64 processor has FXSAVE; the area is 512 bytes, aligned to 16.
    unsafe { _fxsave(area.0.as_mut_ptr()) };
    match u32::from_le_bytes([area.0[28], area.0[29], area.0[30], area.0[31]]) {
        0 => 0xffbf,
        mask => mask,
    }
}

/// Registers after CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cpuid {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// CPUID, where the leaf exists; zeroes where it does not.
#[must_use]
pub fn cpuid(leaf: u32, sub: u32) -> Cpuid {
    let highest = __cpuid_count(leaf & 0xffff_0000, 0).eax;
    if leaf > highest {
        return Cpuid::default();
    }
    let found = __cpuid_count(leaf, sub);
    Cpuid { eax: found.eax, ebx: found.ebx, ecx: found.ecx, edx: found.edx }
}

/// The time-stamp counter.
#[must_use]
pub fn timestamp() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and the kernel leaves it to user space.
    unsafe { std::arch::x86_64::_rdtsc() }
}
