//! `parking_lot` locks with a rank in the type.

use crate::order::Rank;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

#[cfg(debug_assertions)]
mod held {
    use std::cell::RefCell;
    use std::panic::Location;
    /// Level, name, and where it was taken.
    type Held = (u16, &'static str, &'static Location<'static>);
    thread_local! {
        static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
    }
    #[track_caller]
    pub(super) fn push(level: u16, name: &'static str, same_ok: bool) {
        let here = Location::caller();
        HELD.with_borrow_mut(|held| {
            if let Some(&(top, top_name, there)) = held.iter().max_by_key(|(l, ..)| *l) {
                assert!(
                    top < level || (same_ok && top == level),
                    "lock order: {name} ({level}) taken at {here} while {top_name} ({top}) of {there} is held"
                );
            }
            held.push((level, name, here));
        });
    }
    pub(super) fn pop(level: u16) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|(l, ..)| *l == level) {
                held.remove(at);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
mod held {
    pub(super) fn push(_: u16, _: &'static str, _: bool) {}
    pub(super) fn pop(_: u16) {}
}

/// Keeps the debug bookkeeping of one held lock.
#[derive(Debug)]
struct Token(u16);
impl Drop for Token {
    fn drop(&mut self) {
        held::pop(self.0);
    }
}

/// A mutex of rank `R`.
pub struct Ranked<R, T> {
    inner: Mutex<T>,
    rank: PhantomData<fn() -> R>,
}

/// Holds a `Ranked` lock.
pub struct RankedGuard<'a, T> {
    guard: MutexGuard<'a, T>,
    _token: Token,
}

impl<R: Rank, T> Ranked<R, T> {
    /// A new, unlocked lock.
    pub const fn new(value: T) -> Self {
        Ranked { inner: Mutex::new(value), rank: PhantomData }
    }
    /// Takes the lock.
    #[track_caller]
    pub fn lock(&self) -> RankedGuard<'_, T> {
        held::push(R::LEVEL, R::NAME, false);
        RankedGuard { guard: self.inner.lock(), _token: Token(R::LEVEL) }
    }
    /// Takes a second lock of the same rank; the caller orders the two by address.
    #[track_caller]
    pub fn lock_same_rank(&self) -> RankedGuard<'_, T> {
        held::push(R::LEVEL, R::NAME, true);
        RankedGuard { guard: self.inner.lock(), _token: Token(R::LEVEL) }
    }
    /// Takes the lock if it is free. Never deadlocks, so the order is not checked.
    #[track_caller]
    pub fn try_lock(&self) -> Option<RankedGuard<'_, T>> {
        let guard = self.inner.try_lock()?;
        held::push(R::LEVEL.max(u16::MAX - 1), R::NAME, true);
        Some(RankedGuard { guard, _token: Token(R::LEVEL.max(u16::MAX - 1)) })
    }
    /// The value, when nobody else can hold the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
    /// Unwraps the value.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}
impl<R: Rank, T: Default> Default for Ranked<R, T> {
    fn default() -> Self {
        Ranked::new(T::default())
    }
}
impl<R, T> std::fmt::Debug for Ranked<R, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ranked(..)")
    }
}
impl<T> Deref for RankedGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}
impl<T> DerefMut for RankedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A reader-writer lock of rank `R`.
pub struct RankedRw<R, T> {
    inner: RwLock<T>,
    rank: PhantomData<fn() -> R>,
}
/// Holds a `RankedRw` for reading.
pub struct RankedReadGuard<'a, T> {
    guard: RwLockReadGuard<'a, T>,
    _token: Token,
}
/// Holds a `RankedRw` for writing.
pub struct RankedWriteGuard<'a, T> {
    guard: RwLockWriteGuard<'a, T>,
    _token: Token,
}

impl<R: Rank, T> RankedRw<R, T> {
    /// A new, unlocked lock.
    pub const fn new(value: T) -> Self {
        RankedRw { inner: RwLock::new(value), rank: PhantomData }
    }
    /// Takes the lock, shared.
    #[track_caller]
    pub fn read(&self) -> RankedReadGuard<'_, T> {
        held::push(R::LEVEL, R::NAME, false);
        RankedReadGuard { guard: self.inner.read(), _token: Token(R::LEVEL) }
    }
    /// Takes the lock, exclusive.
    #[track_caller]
    pub fn write(&self) -> RankedWriteGuard<'_, T> {
        held::push(R::LEVEL, R::NAME, false);
        RankedWriteGuard { guard: self.inner.write(), _token: Token(R::LEVEL) }
    }
    /// Takes a second lock of the same rank, shared; the caller orders the two by address.
    #[track_caller]
    pub fn read_same_rank(&self) -> RankedReadGuard<'_, T> {
        held::push(R::LEVEL, R::NAME, true);
        RankedReadGuard { guard: self.inner.read(), _token: Token(R::LEVEL) }
    }
    /// Takes a second lock of the same rank, exclusive; the caller orders the two by address.
    #[track_caller]
    pub fn write_same_rank(&self) -> RankedWriteGuard<'_, T> {
        held::push(R::LEVEL, R::NAME, true);
        RankedWriteGuard { guard: self.inner.write(), _token: Token(R::LEVEL) }
    }
    /// The value, when nobody else can hold the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}
impl<R: Rank, T: Default> Default for RankedRw<R, T> {
    fn default() -> Self {
        RankedRw::new(T::default())
    }
}
impl<R, T> std::fmt::Debug for RankedRw<R, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RankedRw(..)")
    }
}
impl<T> Deref for RankedReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}
impl<T> Deref for RankedWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}
impl<T> DerefMut for RankedWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Frames, MmLayout};

    #[test]
    fn inner_after_outer_is_fine() {
        let outer = Ranked::<MmLayout, _>::new(1);
        let inner = Ranked::<Frames, _>::new(2);
        let a = outer.lock();
        let b = inner.lock();
        assert_eq!(*a + *b, 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock order")]
    fn outer_after_inner_is_refused() {
        let outer = Ranked::<MmLayout, _>::new(1);
        let inner = Ranked::<Frames, _>::new(2);
        let _b = inner.lock();
        let _a = outer.lock();
    }
}
