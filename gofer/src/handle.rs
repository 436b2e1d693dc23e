//! The nodes that the client holds. A handle is a slot and a generation: both are checked on every use.

use abi::{Errno, SysResult};
use std::os::fd::OwnedFd;
use wire::{Handle, Kind};

/// A directory opened for reading, and where it stands.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) fd: OwnedFd,
    pub(crate) position: u64,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Held {
    /// `O_PATH`.
    pub(crate) fd: OwnedFd,
    pub(crate) kind: Kind,
    /// Index of the export it belongs to.
    pub(crate) export: usize,
    pub(crate) listing: Option<Box<Listing>>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    held: Option<Held>,
}

/// All nodes of one gofer.
#[derive(Debug)]
pub(crate) struct Handles {
    slots: Vec<Slot>,
    free: Vec<u32>,
    limit: usize,
}

impl Handles {
    /// At most `limit` nodes.
    pub(crate) fn new(limit: usize) -> Handles {
        Handles { slots: Vec::new(), free: Vec::new(), limit }
    }

    /// How many more nodes fit.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.slots.len() - self.free.len())
    }

    /// `EMFILE` when the table is full: the client gives some back and tries again.
    pub(crate) fn insert(&mut self, held: Held) -> SysResult<Handle> {
        if self.room() == 0 {
            return Err(Errno::EMFILE);
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).map_err(|_| Errno::EMFILE)?;
                self.slots.push(Slot { generation: 1, held: None });
                index
            }
        };
        let slot = self.slot_mut(index).ok_or(Errno::EMFILE)?;
        slot.held = Some(held);
        Ok(Handle(u64::from(slot.generation) << 32 | u64::from(index)))
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    pub(crate) fn get(&self, handle: Handle) -> SysResult<&Held> {
        let (generation, index) = split(handle);
        let slot = usize::try_from(index).ok().and_then(|index| self.slots.get(index));
        slot.filter(|slot| slot.generation == generation)
            .and_then(|slot| slot.held.as_ref())
            .ok_or(Errno::EBADF)
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> SysResult<&mut Held> {
        let (generation, index) = split(handle);
        self.slot_mut(index)
            .filter(|slot| slot.generation == generation)
            .and_then(|slot| slot.held.as_mut())
            .ok_or(Errno::EBADF)
    }

    /// Gives a node back; an unknown handle is ignored.
    pub(crate) fn remove(&mut self, handle: Handle) {
        let (generation, index) = split(handle);
        if let Some(slot) = self.slot_mut(index)
            && slot.generation == generation
            && slot.held.take().is_some()
        {
            // Generation 0 would make handle 0 valid.
            slot.generation = slot.generation.checked_add(1).unwrap_or(1);
            self.free.push(index);
        }
    }
}

fn split(handle: Handle) -> (u32, u32) {
    let [g0, g1, g2, g3, i0, i1, i2, i3] = handle.0.to_be_bytes();
    (u32::from_be_bytes([g0, g1, g2, g3]), u32::from_be_bytes([i0, i1, i2, i3]))
}
