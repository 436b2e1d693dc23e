//! `#!` lines (execve(2), "Interpreter scripts").

use abi::{Errno, SysResult};

/// An interpreter and its one argument.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Path.
    pub(super) interpreter: Vec<u8>,
    /// Everything behind it, as one argument.
    pub(super) argument: Option<Vec<u8>>,
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_blank(*byte)).unwrap_or(text.len());
    let text = text.get(start..).unwrap_or_default();
    let end = text.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |at| at + 1);
    text.get(..end).unwrap_or_default()
}

/// The line at the start of `head`; `None` when it is no script. `ENOEXEC` without an interpreter.
pub(super) fn parse(head: &[u8]) -> SysResult<Option<Line>> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    let end = rest.iter().position(|byte| *byte == b'\n' || *byte == 0);
    let line = trim(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
    let name_end = line.iter().position(|byte| is_blank(*byte)).unwrap_or(line.len());
    // A path that was cut off by the buffer must not be run.
    if line.is_empty() || (end.is_none() && name_end == line.len() && head.len() >= 256) {
        return Err(Errno::ENOEXEC);
    }
    let (name, argument) = line.split_at(name_end);
    let argument = trim(argument);
    let argument = (!argument.is_empty()).then(|| argument.to_vec());
    Ok(Some(Line { interpreter: name.to_vec(), argument }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_argument_with_blanks() {
        let line = parse(b"#! /bin/sh  -e x \necho").unwrap().unwrap();
        assert_eq!(line.interpreter, b"/bin/sh");
        assert_eq!(line.argument.as_deref(), Some(&b"-e x"[..]));
        assert_eq!(parse(b"\x7fELF").unwrap(), None);
        assert_eq!(parse(b"#!\n").err(), Some(Errno::ENOEXEC));
        assert_eq!(parse(b"#!/bin/true").unwrap().unwrap().argument, None);
    }
}
