//! `struct tcp_info` (linux/tcp.h) of a connection that never loses a segment.

use super::options::{Standing, tcp_state};
use crate::base::Base;

/// Bytes of the structure as 6.12 has it.
const SIZE: usize = 248;
const MSS: u32 = 32_741;

/// The structure.
pub(super) fn bytes(base: &Base, standing: Standing) -> Vec<u8> {
    let mut info = vec![0; SIZE];
    let mut put = |at: usize, value: u32| {
        if let Some(slot) = info.get_mut(at..at + 4) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
    };
    let linked = !matches!(standing.tcp_state, tcp_state::CLOSE | tcp_state::LISTEN | tcp_state::SYN_SENT);
    let (sent, received) = standing.bytes;
    let segments = |bytes: u64| u32::try_from(bytes.div_ceil(u64::from(MSS))).unwrap_or(u32::MAX);
    let room = u32::try_from(base.rcvbuf()).unwrap_or(u32::MAX);
    put(8, if linked { 204_000 } else { 1_000_000 }); // rto
    put(12, if linked && received > 0 { 40_000 } else { 0 }); // ato
    put(16, if linked { MSS } else { 536 }); // snd_mss
    put(
        20,
        if received > 0 { u32::try_from(received.clamp(536, u64::from(MSS))).unwrap_or(MSS) } else { 536 },
    );
    put(76, 0x7fff_ffff); // snd_ssthresh
    put(80, 10); // snd_cwnd
    put(88, 3); // reordering
    if linked {
        put(60, 65_535); // pmtu
        put(64, room / 2); // rcv_ssthresh
        put(68, 20); // rtt
        put(72, 10); // rttvar
        put(84, 65_483); // advmss
        put(96, room / 2); // rcv_space
        put(136, segments(sent).saturating_add(2)); // segs_out
        put(140, segments(received).saturating_add(2)); // segs_in
        put(148, 10); // min_rtt
        put(152, segments(received)); // data_segs_in
        put(156, segments(sent)); // data_segs_out
        put(192, segments(sent).saturating_add(1)); // delivered
        put(228, 65_536); // snd_wnd
        put(232, room / 2); // rcv_wnd
    }
    let mut put_wide = |at: usize, value: u64| {
        if let Some(slot) = info.get_mut(at..at + 8) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
    };
    put_wide(104, u64::MAX); // pacing_rate
    put_wide(112, u64::MAX); // max_pacing_rate
    if linked {
        put_wide(120, sent.saturating_add(1)); // bytes_acked, the SYN among them
        put_wide(128, received); // bytes_received
        put_wide(200, sent); // bytes_sent
    }
    if let Some(slot) = info.get_mut(0) {
        *slot = standing.tcp_state;
    }
    if let Some(slot) = info.get_mut(5..7).filter(|_| linked) {
        // Timestamps, SACK, window scaling; 7 bits both ways.
        slot.copy_from_slice(&[7, 0x77]);
    }
    info
}
