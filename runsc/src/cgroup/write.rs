//! Values on their way into cgroup files: what must be there, what may be missing, and how to take it back.

use crate::error::{Doing, Failure, HostError, Outcome};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// One value for one file.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Write {
    /// Absolute path.
    file: PathBuf,
    /// Without a newline.
    value: String,
    /// What a missing file means.
    missing: Missing,
}

/// What a missing file or a refusal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Missing {
    /// The host cannot do what was asked for.
    Fails,
    /// It is enforced elsewhere, or is not worth an error.
    Passes,
}

/// Values in the order they go out.
#[derive(Debug, Default)]
pub(super) struct Writes {
    list: Vec<Write>,
}

impl Writes {
    /// A value that must arrive.
    pub(super) fn must(&mut self, dir: &Path, name: &str, value: impl ToString) {
        let write = Write { file: dir.join(name), value: value.to_string(), missing: Missing::Fails };
        self.list.push(write);
    }
    /// A value that may be refused.
    pub(super) fn may(&mut self, dir: &Path, name: &str, value: impl ToString) {
        let write = Write { file: dir.join(name), value: value.to_string(), missing: Missing::Passes };
        self.list.push(write);
    }
    /// Writes all; when one fails, those before it get their former values back, last first.
    pub(super) fn carry_out(self) -> Outcome<()> {
        let mut done: Vec<(PathBuf, String)> = Vec::new();
        for write in self.list {
            let before = std::fs::read_to_string(&write.file).ok();
            match put(&write.file, &write.value) {
                Ok(()) => done.extend(before.and_then(|text| restorable(&write.file, &text))),
                Err(_) if write.missing == Missing::Passes => {}
                Err(error) => {
                    for (file, value) in done.iter().rev() {
                        let _ = put(file, value);
                    }
                    return Err(explain(&write, &error));
                }
            }
        }
        Ok(())
    }
}

/// What has to be written to a file to make it read as `text` again; `None` for files that are lists of
/// commands.
fn restorable(file: &Path, text: &str) -> Option<(PathBuf, String)> {
    let name = file.file_name()?.to_str()?;
    let text = text.trim_end_matches('\n');
    let one_line = !text.contains('\n');
    let command = name.starts_with("devices.") || name.contains("throttle") || name == "io.max";
    (one_line && !command && !text.is_empty()).then(|| (file.to_owned(), text.to_owned()))
}

/// Writes a value to a file that is there: a cgroup file is never made.
pub(super) fn put(file: &Path, value: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Writes and says what failed.
pub(super) fn put_or_say(file: &Path, value: &str) -> Outcome<()> {
    put(file, value).doing(|| format!("{}: writing {value:?}", file.display()))
}

fn explain(write: &Write, error: &std::io::Error) -> Failure {
    let name = write.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = format!("{}: writing {:?}: {}", write.file.display(), write.value, error.words());
    if error.raw_os_error() == Some(libc::EBUSY) && name == "memory.limit_in_bytes" {
        let dir = write.file.parent().unwrap_or(Path::new("/"));
        let number = |file: &str| {
            let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
            text.trim().to_owned()
        };
        return Failure::new(format!(
            "unable to set memory limit to {} (current usage: {}, peak usage: {})",
            write.value,
            number("memory.usage_in_bytes"),
            number("memory.max_usage_in_bytes")
        ));
    }
    Failure::new(plain)
}
