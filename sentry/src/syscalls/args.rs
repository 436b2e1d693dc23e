//! Typed at the door: how registers become arguments, and results become registers.
//!
//! `FromReg` decides what happens to bits that Linux ignores: 32-bit types look at the low half only,
//! as the kernel's own prototypes do.

use abi::fs::OpenFlags;
use abi::{DirFd, Fd, SysResult, UserAddr, UserCStr, UserPtr};

/// The low 32 bits.
#[must_use]
pub fn low32(raw: u64) -> u32 {
    u32::try_from(raw & 0xffff_ffff).unwrap_or(0)
}

/// An argument type of a system call.
pub trait FromReg: Sized {
    /// Decodes one register.
    fn from_reg(raw: u64) -> SysResult<Self>;
}

macro_rules! from_reg {
    ($($ty:ty = |$raw:ident| $value:expr;)*) => {
        $(impl FromReg for $ty {
            fn from_reg($raw: u64) -> SysResult<Self> {
                Ok($value)
            }
        })*
    };
}

from_reg! {
    u64 = |raw| raw;
    i64 = |raw| raw.cast_signed();
    usize = |raw| usize::try_from(raw).unwrap_or(usize::MAX);
    u32 = |raw| low32(raw);
    i32 = |raw| low32(raw).cast_signed();
    u16 = |raw| u16::try_from(raw & 0xffff).unwrap_or(0);
    UserAddr = |raw| UserAddr::new(raw);
    UserCStr = |raw| UserCStr::new(UserAddr::new(raw));
    Fd = |raw| Fd::new(low32(raw).cast_signed());
    DirFd = |raw| DirFd::new(low32(raw).cast_signed());
    OpenFlags = |raw| OpenFlags::from_bits_retain(low32(raw));
}

impl<T> FromReg for UserPtr<T> {
    fn from_reg(raw: u64) -> SysResult<Self> {
        Ok(UserPtr::new(UserAddr::new(raw)))
    }
}

/// A result type of a system call.
pub trait IntoReturn {
    /// The value of `rax`.
    fn into_return(self) -> u64;
}

impl IntoReturn for () {
    fn into_return(self) -> u64 {
        0
    }
}
impl IntoReturn for u64 {
    fn into_return(self) -> u64 {
        self
    }
}
impl IntoReturn for u32 {
    fn into_return(self) -> u64 {
        u64::from(self)
    }
}
impl IntoReturn for i32 {
    fn into_return(self) -> u64 {
        i64::from(self).cast_unsigned()
    }
}
impl IntoReturn for i64 {
    fn into_return(self) -> u64 {
        self.cast_unsigned()
    }
}
impl IntoReturn for usize {
    fn into_return(self) -> u64 {
        u64::try_from(self).unwrap_or(u64::MAX)
    }
}
impl IntoReturn for bool {
    fn into_return(self) -> u64 {
        u64::from(self)
    }
}
impl IntoReturn for Fd {
    fn into_return(self) -> u64 {
        i64::from(self.number()).cast_unsigned()
    }
}
impl IntoReturn for UserAddr {
    fn into_return(self) -> u64 {
        self.raw()
    }
}
