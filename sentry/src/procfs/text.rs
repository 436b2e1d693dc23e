//! Small helpers for text files.

use crate::cgroup::cpus::{CpuSet, first};
use std::fmt::Write;

/// Appends formatted text; a `String` takes all of it.
pub(crate) fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = out.write_fmt(text);
}

/// `put` with a format.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {
        $crate::procfs::text::append(&mut $out, format_args!($($arg)*))
    };
}
pub(crate) use put;

/// One line with a number.
pub(crate) fn number(value: impl std::fmt::Display) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

/// A name as paths in /proc show it: control characters and back-slashes in octal.
pub(crate) fn escape(text: &[u8], which: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        if which.contains(byte) {
            out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
    out
}

/// `0-3` for the first `count` processors, `0` for one.
pub(crate) fn cpu_list(count: u32) -> String {
    if count > 1 { format!("0-{}", count - 1) } else { "0".to_owned() }
}

/// The same as a bit mask.
pub(crate) fn cpu_mask(count: u32) -> String {
    set_mask(&first(count.max(1)), count)
}

/// A set as a bit mask, 32 bits a group as `%*pb` prints it, as wide as `count` processors.
pub(crate) fn set_mask(set: &CpuSet, count: u32) -> String {
    let groups = usize::try_from(count.max(1).div_ceil(32)).unwrap_or(1);
    let mut text = String::new();
    for group in (0..groups).rev() {
        let word = set.get(group / 2).copied().unwrap_or(0);
        let mask = word >> (group % 2 * 32) & u64::from(u32::MAX);
        if text.is_empty() {
            let bits = usize::try_from(count).unwrap_or(32).saturating_sub(group * 32).min(32);
            let width = bits.div_ceil(4);
            put!(text, "{mask:0width$x}");
        } else {
            put!(text, ",{mask:08x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_as_lists_and_masks() {
        assert_eq!((cpu_list(1), cpu_list(2)), ("0".into(), "0-1".into()));
        assert_eq!((cpu_mask(1), cpu_mask(2), cpu_mask(8)), ("1".into(), "3".into(), "ff".into()));
        assert_eq!((cpu_mask(32), cpu_mask(36)), ("ffffffff".into(), "f,ffffffff".into()));
        assert_eq!(set_mask(&first(1), 2), "1");
        assert_eq!(escape(b"a\nb", b"\n"), b"a\\012b");
    }
}
