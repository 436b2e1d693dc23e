//! A ring of bytes that grows on demand up to a limit: the store of pipes and stream sockets.

use abi::SysResult;
use mm::kernel_bytes::KernelCharge;
use mm::{GuestSink, GuestSource};

const FIRST_ALLOCATION: usize = 4096;
/// A bigger store is given back when the ring runs empty.
const KEEP: usize = 256 * 1024;

/// First in, first out.
#[derive(Debug, Default)]
pub struct ByteRing {
    store: Vec<u8>,
    head: usize,
    len: usize,
    charge: KernelCharge,
}

/// Whether a ring that grows asks its group for memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asks {
    Yes,
    No,
}

impl ByteRing {
    /// An empty ring without a store.
    #[must_use]
    pub const fn new() -> ByteRing {
        ByteRing { store: Vec::new(), head: 0, len: 0, charge: KernelCharge::none() }
    }
    /// Bytes inside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn reserve(&mut self, more: usize, asks: Asks) -> SysResult<()> {
        let need = self.len.saturating_add(more);
        if need <= self.store.len() {
            return Ok(());
        }
        let size = need.next_power_of_two().max(FIRST_ALLOCATION);
        match asks {
            Asks::Yes => self.charge.resize(size as u64)?,
            Asks::No => self.charge.set(size as u64),
        }
        let mut store = Vec::with_capacity(size);
        let (a, b) = self.slices(0, self.len);
        store.extend_from_slice(a);
        store.extend_from_slice(b);
        store.resize(size, 0);
        self.store = store;
        self.head = 0;
        Ok(())
    }

    /// The two pieces that hold `[from, from + len)` of the content.
    fn slices(&self, from: usize, len: usize) -> (&[u8], &[u8]) {
        let len = len.min(self.len.saturating_sub(from));
        let cap = self.store.len();
        if len == 0 || cap == 0 {
            return (&[], &[]);
        }
        let start = (self.head + from) % cap;
        let first = len.min(cap - start);
        (
            self.store.get(start..start + first).unwrap_or_default(),
            self.store.get(..len - first).unwrap_or_default(),
        )
    }

    /// Takes up to `max` bytes from `src`.
    pub fn fill(&mut self, src: &mut dyn GuestSource, max: usize) -> SysResult<usize> {
        let want = max.min(src.remaining());
        if want == 0 {
            return Ok(0);
        }
        self.reserve(want, Asks::Yes)?;
        let mut done = 0;
        while done < want {
            let cap = self.store.len();
            let start = (self.head + self.len) % cap;
            let piece = (want - done).min(cap - start);
            let Some(room) = self.store.get_mut(start..start + piece) else { break };
            let got = match src.take(room) {
                Ok(got) => got,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            self.len += got;
            done += got;
            if got < piece {
                break;
            }
        }
        Ok(done)
    }

    /// Appends kernel bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        // Without asking it cannot fail.
        let _ = self.reserve(bytes.len(), Asks::No);
        let mut left = bytes;
        while !left.is_empty() {
            let cap = self.store.len();
            let start = (self.head + self.len) % cap;
            let piece = left.len().min(cap - start);
            let (now, later) = left.split_at(piece);
            if let Some(room) = self.store.get_mut(start..start + piece) {
                room.copy_from_slice(now);
            }
            self.len += piece;
            left = later;
        }
    }

    /// Moves up to `max` bytes to `dst`.
    pub fn drain(&mut self, dst: &mut dyn GuestSink, max: usize) -> SysResult<usize> {
        let done = self.copy_out(dst, 0, max)?;
        self.consume(done);
        Ok(done)
    }

    /// Copies up to `max` bytes from offset `from` on, and keeps them.
    pub fn copy_out(&self, dst: &mut dyn GuestSink, from: usize, max: usize) -> SysResult<usize> {
        let (a, b) = self.slices(from, max.min(dst.remaining()));
        if a.is_empty() {
            return Ok(0);
        }
        let first = dst.put(a)?;
        if first < a.len() || b.is_empty() {
            return Ok(first);
        }
        Ok(first + dst.put(b).unwrap_or(0))
    }

    /// A copy of up to `max` bytes from offset `from` on.
    #[must_use]
    pub fn peek(&self, from: usize, max: usize) -> Vec<u8> {
        let (a, b) = self.slices(from, max);
        [a, b].concat()
    }

    /// Drops bytes from the front.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        if self.len == 0 {
            self.head = 0;
            if self.store.len() > KEEP {
                self.store = Vec::new();
                self.charge.set(0);
            }
        } else {
            self.head = (self.head + count) % self.store.len();
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = ByteRing::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm::io::{SliceSource, VecSink};

    #[test]
    fn wraps_and_grows() {
        let mut ring = ByteRing::new();
        let data: Vec<u8> = (0..6000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        ring.push(&data[..4000]);
        ring.consume(3000);
        ring.push(&data[4000..]);
        let mut sink = VecSink::new(10_000);
        assert_eq!(ring.copy_out(&mut sink, 10, 100), Ok(100));
        assert_eq!(sink.bytes, data[3010..3110]);
        let mut more = SliceSource::new(&data);
        assert_eq!(ring.fill(&mut more, 5000), Ok(5000));
        let mut sink = VecSink::new(10_000);
        assert_eq!(ring.drain(&mut sink, usize::MAX), Ok(8000));
        assert_eq!(sink.bytes[..3000], data[3000..]);
        assert_eq!(sink.bytes[3000..], data[..5000]);
        assert!(ring.is_empty());
    }
}
