//! The command line that a monitor shows: that of the process it stands for, as `docker top` and ps(1) on the
//! host would see it under runc. Its name (`comm`) says what it is.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

/// Fields of proc_pid_stat(5).
const ARG_START: usize = 48;
const ARG_END: usize = 49;

/// Puts `args` where this process' own arguments were, as far as there is room. Where the host does not let a
/// process write to its own memory file, all stays as it is.
pub(crate) fn show(args: &[String]) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    let Some((from, to)) = range(&stat) else { return };
    let Ok(room) = usize::try_from(to.saturating_sub(from)) else { return };
    let Ok(memory) = OpenOptions::new().write(true).open("/proc/self/mem") else { return };
    put(&memory, from, &text(args, room));
}

fn put(memory: &File, from: u64, text: &[u8]) {
    let _ = memory.write_all_at(text, from);
}

fn range(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some((field(ARG_START)?, field(ARG_END)?))
}

/// Arguments, each with its NUL, cut or filled up to `room` bytes, of which the last is NUL.
fn text(args: &[String], room: usize) -> Vec<u8> {
    let mut text: Vec<u8> = args.iter().flat_map(|arg| arg.bytes().chain([0])).collect();
    text.truncate(room.saturating_sub(1));
    text.resize(room, 0);
    text
}

#[cfg(test)]
mod tests {
    use super::{range, text};

    #[test]
    fn arguments_are_cut_and_filled() {
        let args = ["sleep".to_owned(), "10".to_owned()];
        assert_eq!(text(&args, 12), b"sleep\x0010\0\0\0\0");
        assert_eq!(text(&args, 4), b"sle\0");
        assert_eq!(text(&args, 0), b"");
    }

    #[test]
    fn of_this_process() {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
        let (from, to) = range(&stat).expect("a range");
        assert!(from < to);
    }
}
