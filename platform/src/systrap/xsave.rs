//! UNSAFE: what the processor saves with XSAVE, and how signal frames carry it
//! (Intel SDM vol. 1, 13.4; Linux asm/sigcontext.h).

use std::sync::OnceLock;

/// Ends the image in a signal frame.
pub(super) const MAGIC2: u32 = 0x4650_5845;
const MAGIC1: u32 = 0x4650_5853;
/// Software bytes of the legacy area.
const SOFTWARE: std::ops::Range<usize> = 464..512;
const HEADER: usize = 512;
/// XTILEDATA is enabled on request only, and no stub requests it.
const DYNAMIC: u64 = 1 << 18;

#[derive(Clone, Copy)]
struct Format {
    size: u64,
    features: u64,
}

#[target_feature(enable = "xsave")]
unsafe fn enabled() -> u64 {
    // SAFETY: the caller knows that the processor has XSAVE.
    unsafe { core::arch::x86_64::_xgetbv(0) }
}

fn format() -> Format {
    static FORMAT: OnceLock<Format> = OnceLock::new();
    *FORMAT.get_or_init(|| {
        if !std::is_x86_feature_detected!("xsave") {
            return Format { size: 576, features: 3 };
        }
        // SAFETY: just checked.
        let features = unsafe { enabled() } & !DYNAMIC;
        let mut size = 576;
        for bit in 2..63_u32 {
            if features >> bit & 1 == 1 {
                let leaf = core::arch::x86_64::__cpuid_count(0xd, bit);
                size = size.max(u64::from(leaf.ebx) + u64::from(leaf.eax));
            }
        }
        Format { size, features }
    })
}

/// Bytes of the area.
pub(super) fn size() -> u64 {
    format().size
}

/// The area of a fresh program.
pub(super) fn initial() -> Vec<u8> {
    let mut area = vec![0; usize::try_from(size()).unwrap_or(HEADER + 64)];
    area[0..2].copy_from_slice(&0x37f_u16.to_le_bytes());
    area[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    area
}

/// Makes the processor accept the area, whatever a guest wrote into it.
pub(super) fn sanitize(area: &mut [u8]) {
    let Some(software) = area.get_mut(SOFTWARE) else { return };
    software.fill(0);
    if let Some(mxcsr) = area.get_mut(24..28) {
        mxcsr[2..].fill(0);
    }
    let Some(header) = area.get_mut(HEADER..HEADER + 64) else { return };
    let mut bits = [0; 8];
    bits.copy_from_slice(&header[..8]);
    let bits = u64::from_le_bytes(bits) & format().features;
    header.fill(0);
    header[..8].copy_from_slice(&bits.to_le_bytes());
}

/// Fills the software bytes that rt_sigreturn(2) wants.
pub(super) fn seal_for_frame(area: &mut [u8]) {
    let Format { size, features } = format();
    let size = u32::try_from(size).unwrap_or(0);
    let Some(software) = area.get_mut(SOFTWARE) else { return };
    software[0..4].copy_from_slice(&MAGIC1.to_le_bytes());
    software[4..8].copy_from_slice(&(size + 4).to_le_bytes());
    software[8..16].copy_from_slice(&features.to_le_bytes());
    software[16..20].copy_from_slice(&size.to_le_bytes());
}
