//! Guest addresses. None of these can be dereferenced: only the copies of `mm` follow them,
//! and only those copies report `EFAULT`. There is no early NULL check, as in Linux.

use crate::{Errno, SysResult};
use std::fmt;
use std::marker::PhantomData;

/// Bytes in a page of the guest and of the host (x86-64 base pages).
pub const PAGE_SIZE: u64 = 4096;

/// A virtual address in some guest address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UserAddr(u64);

impl UserAddr {
    /// Address zero.
    pub const NULL: UserAddr = UserAddr(0);

    /// Wraps a raw register value.
    #[must_use]
    pub const fn new(raw: u64) -> UserAddr {
        UserAddr(raw)
    }
    /// The raw value.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
    /// Whether this is address zero.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }
    /// `self + n`, or `EFAULT` on wrap-around.
    pub fn checked_add(self, n: u64) -> SysResult<UserAddr> {
        self.0.checked_add(n).map(UserAddr).ok_or(Errno::EFAULT)
    }
    /// `self - n`, or `EFAULT` below zero.
    pub fn checked_sub(self, n: u64) -> SysResult<UserAddr> {
        self.0.checked_sub(n).map(UserAddr).ok_or(Errno::EFAULT)
    }
    /// Rounded down to a page boundary.
    #[must_use]
    pub const fn page_floor(self) -> UserAddr {
        UserAddr(self.0 & !(PAGE_SIZE - 1))
    }
    /// Rounded up to a page boundary; `None` on wrap-around.
    #[must_use]
    pub fn page_ceil(self) -> Option<UserAddr> {
        self.0.checked_add(PAGE_SIZE - 1).map(|raw| UserAddr(raw & !(PAGE_SIZE - 1)))
    }
    /// Offset inside its page.
    #[must_use]
    pub const fn page_offset(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }
    /// Whether this is a multiple of the page size.
    #[must_use]
    pub const fn is_page_aligned(self) -> bool {
        self.page_offset() == 0
    }
}

impl fmt::Debug for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
impl fmt::Display for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range `[start, end)` of guest addresses; `start <= end` always.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AddrRange {
    start: u64,
    end: u64,
}

impl AddrRange {
    /// `[start, end)`; `None` when `end < start`.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Option<AddrRange> {
        if start <= end { Some(AddrRange { start, end }) } else { None }
    }
    /// `len` bytes from `start`; `EINVAL` on wrap-around.
    pub fn from_len(start: UserAddr, len: u64) -> SysResult<AddrRange> {
        let end = start.raw().checked_add(len).ok_or(Errno::EINVAL)?;
        Ok(AddrRange { start: start.raw(), end })
    }
    /// First address.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }
    /// One past the last address.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }
    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }
    /// Whether it holds no address.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
    /// Whether `addr` is inside.
    #[must_use]
    pub const fn contains(self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }
    /// Whether all of `other` is inside.
    #[must_use]
    pub const fn covers(self, other: AddrRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }
    /// Whether the two share an address.
    #[must_use]
    pub const fn overlaps(self, other: AddrRange) -> bool {
        self.start < other.end && other.start < self.end
    }
    /// The shared part, if not empty.
    #[must_use]
    pub fn intersect(self, other: AddrRange) -> Option<AddrRange> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(AddrRange { start, end })
    }
}

impl fmt::Debug for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start, self.end)
    }
}

/// The guest address of one `T` (a structure of the ABI).
pub struct UserPtr<T> {
    addr: UserAddr,
    kind: PhantomData<fn() -> T>,
}

impl<T> UserPtr<T> {
    /// Types an address.
    #[must_use]
    pub const fn new(addr: UserAddr) -> UserPtr<T> {
        UserPtr { addr, kind: PhantomData }
    }
    /// The address.
    #[must_use]
    pub const fn addr(self) -> UserAddr {
        self.addr
    }
    /// Whether it is NULL (only for calls whose man page gives NULL a meaning).
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.addr.is_null()
    }
    /// The `index`-th element of an array that starts here.
    pub fn index(self, index: u64) -> SysResult<UserPtr<T>> {
        let size = u64::try_from(size_of::<T>()).map_err(|_| Errno::EFAULT)?;
        let offset = index.checked_mul(size).ok_or(Errno::EFAULT)?;
        Ok(UserPtr::new(self.addr.checked_add(offset)?))
    }
}
impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for UserPtr<T> {}
impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

/// A guest buffer: address and length in bytes, not yet checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UserSlice {
    /// First byte.
    pub addr: UserAddr,
    /// Length in bytes.
    pub len: u64,
}

/// The guest address of a NUL-terminated string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserCStr(UserAddr);

impl UserCStr {
    /// Types an address.
    #[must_use]
    pub const fn new(addr: UserAddr) -> UserCStr {
        UserCStr(addr)
    }
    /// The address.
    #[must_use]
    pub const fn addr(self) -> UserAddr {
        self.0
    }
}
