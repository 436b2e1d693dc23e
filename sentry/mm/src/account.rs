//! Who pays for memory that is not any process' own: files in memory and buffers of the kernel.
//!
//! As on Linux, what is charged stays with the group of whoever first had it allocated, whoever uses it later and
//! wherever that process goes; a group that is gone leaves its part to the one above. Lock: `Leaf`.

use crate::pages::FilePages;
use lock::{Ranked, order};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// What one group pays for, the groups below it apart.
#[derive(Debug, Default)]
pub struct Account {
    files: Ranked<order::Leaf, Vec<Weak<FilePages>>>,
    /// Bytes of buffers.
    buffers: AtomicU64,
    /// Who took it over.
    heir: OnceLock<Arc<Account>>,
}

impl Account {
    /// Bytes in memory.
    #[must_use]
    pub fn used(&self) -> u64 {
        let files: Vec<Arc<FilePages>> = self.files.lock().iter().filter_map(Weak::upgrade).collect();
        let resident = files.iter().map(|file| file.resident()).fold(0, u64::saturating_add);
        resident.saturating_add(self.buffers.load(Ordering::Relaxed))
    }
    /// The group is gone: `heir` pays for what there is.
    pub fn bequeath(&self, heir: &Arc<Account>) {
        // A group goes once.
        let _ = self.heir.set(Arc::clone(heir));
        let files = std::mem::take(&mut *self.files.lock());
        heir.last().files.lock().extend(files);
        let buffers = self.buffers.swap(0, Ordering::Relaxed);
        heir.last().buffers.fetch_add(buffers, Ordering::Relaxed);
    }
    fn last(&self) -> &Account {
        let mut at = self;
        while let Some(heir) = at.heir.get() {
            at = heir;
        }
        at
    }
    pub(crate) fn add_file(&self, file: &Weak<FilePages>) {
        let mut files = self.last().files.lock();
        if files.len() == files.capacity() {
            files.retain(|known| known.strong_count() > 0);
        }
        files.push(Weak::clone(file));
    }
    fn add(&self, bytes: u64) {
        self.last().buffers.fetch_add(bytes, Ordering::Relaxed);
    }
    fn sub(&self, bytes: u64) {
        let take = |had: u64| Some(had.saturating_sub(bytes));
        let _ = self.last().buffers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }
}

/// What one buffer has on somebody's account.
#[derive(Debug, Default)]
pub(crate) struct Share {
    account: Option<Arc<Account>>,
    bytes: u64,
}

impl Share {
    pub(crate) const fn none() -> Share {
        Share { account: None, bytes: 0 }
    }
    /// It is `bytes` now: on the account of whoever was first, else `payer`'s.
    pub(crate) fn set(&mut self, bytes: u64, payer: impl FnOnce() -> Option<Arc<Account>>) {
        if self.account.is_none() && bytes > 0 {
            self.account = payer();
        }
        let Some(account) = &self.account else { return };
        account.add(bytes);
        account.sub(self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0, || None);
    }
}

/// Whether a file is on somebody's account.
#[derive(Debug, Default)]
pub(crate) struct Entered(AtomicBool);

impl Entered {
    /// Puts `file` on the account of `payer` unless it is on one.
    pub(crate) fn once(&self, file: &Weak<FilePages>, payer: impl FnOnce() -> Option<Arc<Account>>) {
        if self.0.load(Ordering::Relaxed) {
            return;
        }
        if let Some(account) = payer()
            && !self.0.swap(true, Ordering::Relaxed)
        {
            account.add_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, Share};
    use std::sync::Arc;

    #[test]
    fn buffers_stay_with_who_was_first_and_then_with_the_heir() {
        let (top, group) = (Arc::new(Account::default()), Arc::new(Account::default()));
        let mut share = Share::none();
        share.set(10, || Some(group.clone()));
        share.set(15, || Some(top.clone()));
        assert_eq!((group.used(), top.used()), (15, 0));
        group.bequeath(&top);
        share.set(20, || None);
        assert_eq!((group.used(), top.used()), (0, 20));
        drop(share);
        assert_eq!(top.used(), 0);
    }

    #[test]
    fn what_nobody_pays_for_is_nobodys() {
        let mut share = Share::none();
        share.set(10, || None);
        let account = Arc::new(Account::default());
        share.set(0, || Some(account.clone()));
        assert_eq!(account.used(), 0);
    }
}
