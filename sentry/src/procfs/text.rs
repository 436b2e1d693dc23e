//! Small helpers for text files.

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

/// The same as a bit mask, 32 bits a group as `%*pb` prints it.
pub(crate) fn cpu_mask(count: u32) -> String {
    let groups = count.max(1).div_ceil(32);
    let mut text = String::new();
    for group in (0..groups).rev() {
        let bits = count.saturating_sub(group * 32).min(32);
        let mask = if bits == 32 { u32::MAX } else { (1_u32 << bits) - 1 };
        if text.is_empty() {
            let width = usize::try_from(bits.div_ceil(4)).unwrap_or(8);
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
        assert_eq!(cpu_mask(32), "ffffffff");
        assert_eq!(cpu_mask(36), "f,ffffffff");
        assert_eq!(escape(b"a\nb", b"\n"), b"a\\012b");
    }
}
