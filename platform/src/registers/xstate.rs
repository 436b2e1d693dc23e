//! The XSAVE area (Intel SDM vol. 1, 13.4), standard format, and its form in a signal frame
//! (`struct _fpstate` and `struct _fpx_sw_bytes` of asm/sigcontext.h).

use crate::host::cpu;
use std::ops::Range;
use std::sync::LazyLock;

/// Bytes of the legacy region (FXSAVE layout).
const LEGACY_SIZE: usize = 512;
/// Offset of the header: XSTATE_BV, XCOMP_BV, 48 reserved bytes.
const HEADER: Range<usize> = 512..576;
/// Where the signal frame keeps its software bytes.
const SOFTWARE_BYTES: Range<usize> = 464..512;
/// Offset of MXCSR, and of its mask, in the legacy region.
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
/// MXCSR of a fresh program: all exceptions masked.
const MXCSR_INITIAL: u32 = 0x1f80;
/// x87 control word of a fresh program.
const FCW_INITIAL: u16 = 0x37f;
/// AMX tiles: a guest gets them only by asking (arch_prctl(2), ARCH_REQ_XCOMP_PERM), so signal frames
/// have no room for them.
const DYNAMIC: u64 = 1 << 17 | 1 << 18;

const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

struct Sizes {
    features: u64,
    area: usize,
    frame_features: u64,
    frame_area: usize,
    mxcsr_mask: u32,
}

static SIZES: LazyLock<Sizes> = LazyLock::new(|| {
    let features = cpu::xcr0();
    let frame_features = features & !DYNAMIC;
    let ends = (2..63).filter(|n| frame_features & (1 << n) != 0).filter_map(cpu::xsave_component);
    let frame_area = ends.map(|(offset, size)| offset + size).max().unwrap_or(0).max(HEADER.end);
    let area = cpu::xsave_bytes().unwrap_or(0).max(frame_area);
    Sizes { features, area, frame_features, frame_area, mxcsr_mask: cpu::mxcsr_mask() }
});

/// Components that the host's kernel enabled (XCR0).
#[must_use]
pub fn xfeatures() -> u64 {
    SIZES.features
}

/// Bytes of the area for all enabled components, what ptrace(2) uses.
#[must_use]
pub fn xstate_size() -> usize {
    SIZES.area
}

/// The state of execve(2): every component initial.
#[must_use]
pub fn initial_xstate() -> Vec<u8> {
    let mut area = vec![0; xstate_size()];
    area[..2].copy_from_slice(&FCW_INITIAL.to_le_bytes());
    put_u32(&mut area, MXCSR, MXCSR_INITIAL);
    put_u32(&mut area, MXCSR_MASK, SIZES.mxcsr_mask);
    // x87 and SSE are taken from the area; all others have their initial state.
    area[HEADER.start] = 3;
    area
}

/// Zeroes what the host's kernel notes for itself in the legacy region.
pub fn clear_software_bytes(area: &mut [u8]) {
    if let Some(bytes) = area.get_mut(SOFTWARE_BYTES) {
        bytes.fill(0);
    }
}

/// Makes an area from an untrusted source loadable: right size, standard format, no unknown components,
/// no reserved bits.
pub fn sanitize_xstate(area: &mut Vec<u8>) {
    area.resize(xstate_size(), 0);
    let features = get_u64(area, HEADER.start) & xfeatures();
    area[HEADER].fill(0);
    area[HEADER.start..HEADER.start + 8].copy_from_slice(&features.to_le_bytes());
    let mxcsr = get_u32(area, MXCSR) & SIZES.mxcsr_mask;
    put_u32(area, MXCSR, mxcsr);
    put_u32(area, MXCSR_MASK, SIZES.mxcsr_mask);
    clear_software_bytes(area);
}

/// Bytes of the FPU state in a signal frame, to be placed at a multiple of 64. What AT_MINSIGSTKSZ
/// counts besides the frame itself.
#[must_use]
pub fn frame_xstate_size() -> usize {
    SIZES.frame_area + 4
}

/// An area in the form of a signal frame: software bytes filled in, second magic number behind it.
#[must_use]
pub fn xstate_to_frame(area: &[u8]) -> Vec<u8> {
    let size = SIZES.frame_area;
    let mut frame: Vec<u8> = area.iter().copied().take(size).collect();
    frame.resize(size, 0);
    let features = get_u64(&frame, HEADER.start) & SIZES.frame_features;
    frame[HEADER].fill(0);
    // The kernel says x87 and SSE are there even when they are initial.
    frame[HEADER.start..HEADER.start + 8].copy_from_slice(&(features | 3).to_le_bytes());
    if features & 1 == 0 {
        frame[..MXCSR].fill(0);
        frame[32..160].fill(0);
        frame[..2].copy_from_slice(&FCW_INITIAL.to_le_bytes());
    }
    if features & 2 == 0 {
        frame[160..416].fill(0);
    }
    frame[SOFTWARE_BYTES].fill(0);
    let software = SOFTWARE_BYTES.start;
    put_u32(&mut frame, software, MAGIC1);
    put_u32(&mut frame, software + 4, u32::try_from(size + 4).unwrap_or(0));
    frame[software + 8..software + 16].copy_from_slice(&SIZES.frame_features.to_le_bytes());
    put_u32(&mut frame, software + 16, u32::try_from(size).unwrap_or(0));
    frame.extend_from_slice(&MAGIC2.to_le_bytes());
    frame
}

/// How many bytes rt_sigreturn(2) reads at the frame's `fpstate` pointer, given the first 512 of them: the
/// whole of an extended frame, or those 512 when the software bytes do not announce one.
#[must_use]
pub fn frame_xstate_len(legacy: &[u8]) -> usize {
    let software = SOFTWARE_BYTES.start;
    let size = usize::try_from(get_u32(legacy, software + 16)).unwrap_or(0);
    let extended = usize::try_from(get_u32(legacy, software + 4)).unwrap_or(0);
    let announced = get_u32(legacy, software) == MAGIC1
        && (HEADER.end..=SIZES.frame_area).contains(&size)
        && size <= extended;
    if announced { size + 4 } else { LEGACY_SIZE }
}

/// The area that a signal frame asks for; `bytes` as many as [`frame_xstate_len`] said. Without the second
/// magic number only the legacy region counts, as in Linux.
#[must_use]
pub fn xstate_from_frame(bytes: &[u8]) -> Vec<u8> {
    let mut area = bytes.to_vec();
    let features = SOFTWARE_BYTES.start + 8;
    let announced = get_u64(&area, features);
    let size = bytes.len().saturating_sub(4);
    if bytes.len() > LEGACY_SIZE && get_u32(bytes, size) == MAGIC2 {
        area.truncate(size);
        area.resize(xstate_size(), 0);
        let present = get_u64(&area, HEADER.start) & announced & SIZES.frame_features;
        area[HEADER.start..HEADER.start + 8].copy_from_slice(&present.to_le_bytes());
    } else {
        area.truncate(LEGACY_SIZE);
        area.resize(xstate_size(), 0);
        area[HEADER.start] = 3;
    }
    sanitize_xstate(&mut area);
    area
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

fn put_u32(bytes: &mut [u8], at: usize, word: u32) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = word.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_and_back() {
        let mut area = initial_xstate();
        assert!(area.len() >= 576);
        area[160] = 0x5a; // xmm0
        let frame = xstate_to_frame(&area);
        assert_eq!(frame.len(), frame_xstate_size());
        assert_eq!(frame_xstate_len(&frame[..512]), frame.len());
        assert_eq!(xstate_from_frame(&frame), area);
    }

    #[test]
    fn broken_frames_fall_back_to_the_legacy_region() {
        let mut area = initial_xstate();
        area[160] = 0x5a;
        let mut frame = xstate_to_frame(&area);
        let last = frame.len() - 1;
        frame[last] ^= 1;
        frame[512] = 0xff;
        let parsed = xstate_from_frame(&frame);
        assert_eq!(parsed[160], 0x5a);
        assert_eq!(parsed[512], 3);
        frame[464] = 0;
        assert_eq!(frame_xstate_len(&frame[..512]), 512);
        // Reserved MXCSR bits would make the processor fault.
        frame[24..28].fill(0xff);
        let parsed = xstate_from_frame(&frame[..512]);
        assert_eq!(get_u32(&parsed, 24) & !SIZES.mxcsr_mask, 0);
        assert_eq!(xstate_from_frame(&[]).len(), xstate_size());
    }

    #[test]
    fn hostile_areas_become_loadable() {
        let mut area = vec![0xff; 100_000];
        sanitize_xstate(&mut area);
        assert_eq!(area.len(), xstate_size());
        assert_eq!(get_u64(&area, 512), xfeatures());
        assert!(area[520..576].iter().all(|b| *b == 0));
    }
}
