//! How arguments are printed by `--strace`: as strace(1) does, by type.

use crate::task::memory::MemoryManager;
use abi::fs::OpenFlags;
use abi::{DirFd, Fd, UserAddr, UserCStr, UserPtr};
use std::fmt::Write;

/// Longest string that is shown whole.
const SHOWN: usize = 64;

/// One line of the trace under construction.
pub struct Line<'a> {
    /// The text so far.
    pub text: String,
    /// Where pointers lead.
    pub memory: &'a MemoryManager,
}

impl Line<'_> {
    /// Appends formatted text.
    pub fn push(&mut self, args: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(args);
    }
}

/// Bytes as a C string literal.
#[must_use]
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for &byte in bytes.iter().take(SHOWN) {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:o}");
            }
        }
    }
    out.push('"');
    if bytes.len() > SHOWN {
        out.push_str("...");
    }
    out
}

/// An argument that knows how it is shown.
pub trait Trace {
    /// Appends the argument to the line.
    fn trace(&self, line: &mut Line<'_>);
}

macro_rules! plain {
    ($($ty:ty),*) => {
        $(impl Trace for $ty {
            fn trace(&self, line: &mut Line<'_>) {
                line.push(format_args!("{self}"));
            }
        })*
    };
}
plain!(i64, usize, i32, u16, Fd);

impl Trace for u64 {
    fn trace(&self, line: &mut Line<'_>) {
        if *self < 0x1_0000 {
            line.push(format_args!("{self}"))
        } else {
            line.push(format_args!("{self:#x}"))
        }
    }
}
impl Trace for u32 {
    fn trace(&self, line: &mut Line<'_>) {
        if *self < 0x1_0000 {
            line.push(format_args!("{self}"))
        } else {
            line.push(format_args!("{self:#x}"))
        }
    }
}
impl Trace for UserAddr {
    fn trace(&self, line: &mut Line<'_>) {
        if self.is_null() { line.text.push_str("NULL") } else { line.push(format_args!("{self}")) }
    }
}
impl<T> Trace for UserPtr<T> {
    fn trace(&self, line: &mut Line<'_>) {
        self.addr().trace(line);
    }
}
impl Trace for UserCStr {
    fn trace(&self, line: &mut Line<'_>) {
        match line.memory.read_cstr(*self, 256) {
            Ok(bytes) => line.text.push_str(&quote(&bytes)),
            Err(_) => self.addr().trace(line),
        }
    }
}
impl Trace for DirFd {
    fn trace(&self, line: &mut Line<'_>) {
        match self {
            DirFd::Cwd => line.text.push_str("AT_FDCWD"),
            DirFd::At(fd) => fd.trace(line),
        }
    }
}
impl Trace for OpenFlags {
    fn trace(&self, line: &mut Line<'_>) {
        line.text.push_str(match self.bits() & 3 {
            0 => "O_RDONLY",
            1 => "O_WRONLY",
            2 => "O_RDWR",
            _ => "O_ACCMODE",
        });
        for (name, flag) in self.iter_names() {
            if flag != OpenFlags::WRONLY && flag != OpenFlags::RDWR {
                line.push(format_args!("|O_{}", name.trim_end_matches("_BIT")));
            }
        }
    }
}

/// Flag types of one call: decoded with all bits kept, shown by name.
#[macro_export]
macro_rules! call_flags {
    ($($ty:ty, $prefix:literal;)*) => {
        $(impl $crate::syscalls::args::FromReg for $ty {
            fn from_reg(raw: u64) -> abi::SysResult<Self> {
                Ok(<$ty>::from_bits_retain($crate::syscalls::args::low32(raw)))
            }
        }
        impl $crate::syscalls::trace::Trace for $ty {
            fn trace(&self, line: &mut $crate::syscalls::trace::Line<'_>) {
                let mut first = true;
                for (name, _) in self.iter_names() {
                    line.push(format_args!("{}{}{name}", if first { "" } else { "|" }, $prefix));
                    first = false;
                }
                let unknown = self.bits() & !<$ty>::all().bits();
                if first || unknown != 0 {
                    line.push(format_args!("{}{unknown:#x}", if first { "" } else { "|" }));
                }
            }
        })*
    };
}
