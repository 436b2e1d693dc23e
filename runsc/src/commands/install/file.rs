//! A file before and after: shown as a diff, written at once.

use crate::error::{Doing, Failure, Outcome};
use similar::TextDiff;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How scripts of ours begin.
pub(super) const SCRIPT_HEAD: &str = "#!/bin/sh\n# Written by `runsc install`.\n";

/// A file and what becomes of it.
#[derive(Debug)]
pub(super) struct Edited {
    path: PathBuf,
    before: Option<String>,
    after: Option<String>,
    mode: u32,
}

impl Edited {
    /// A configuration, as `edit` changes its text (empty when there is no file).
    pub(super) fn of(path: &Path, edit: impl FnOnce(&str) -> Outcome<String>) -> Outcome<Edited> {
        // A link stays one: what it points to is replaced.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let (before, mode) = read(&path)?;
        let after =
            edit(before.as_deref().unwrap_or("")).map_err(|failure| failure.within(path.display()))?;
        let after = if before.is_none() && after.is_empty() { None } else { Some(after) };
        Ok(Edited { path, before, after, mode: mode.unwrap_or(0o644) })
    }
    /// A script.
    pub(super) fn script(path: &Path, text: String) -> Outcome<Edited> {
        let (before, _) = read(path)?;
        if before.is_some() && !is_script_of_ours(path) {
            return Err(Failure::new(format!("{}: is there already and not ours", path.display())));
        }
        Ok(Edited { path: path.to_owned(), before, after: Some(text), mode: 0o755 })
    }
    /// A file that goes.
    pub(super) fn removed(path: &Path) -> Outcome<Edited> {
        let (before, mode) = read(path)?;
        Ok(Edited { path: path.to_owned(), before, after: None, mode: mode.unwrap_or(0o644) })
    }

    /// Where.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
    /// Whether it is as it should be.
    pub(super) fn is_unchanged(&self) -> bool {
        self.before == self.after
    }
    /// What was done, in a word.
    pub(super) fn done(&self) -> &'static str {
        match (&self.before, &self.after) {
            (_, None) => "removed",
            (None, _) => "made",
            _ => "changed",
        }
    }
    /// The change as `diff -u` shows it.
    pub(super) fn diff(&self) -> String {
        let name = self.path.display().to_string();
        let (old, new) = (self.before.as_deref().unwrap_or(""), self.after.as_deref().unwrap_or(""));
        let from = if self.before.is_some() { name.as_str() } else { "/dev/null" };
        let to = if self.after.is_some() { name.as_str() } else { "/dev/null" };
        TextDiff::from_lines(old, new).unified_diff().context_radius(3).header(from, to).to_string()
    }
    /// Writes it: a reader sees the old text or the new one.
    pub(super) fn write(&self) -> Outcome<()> {
        let what = || self.path.display().to_string();
        let Some(text) = &self.after else {
            return std::fs::remove_file(&self.path).doing(what);
        };
        let parent = self.path.parent().ok_or_else(|| Failure::new(what()))?;
        std::fs::create_dir_all(parent).doing(|| parent.display().to_string())?;
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let fresh = parent.join(format!(".{name}.{}", std::process::id()));
        let written = (|| {
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(self.mode).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            // Whatever the umask says.
            file.set_permissions(std::fs::Permissions::from_mode(self.mode))?;
            if let Ok(old) = std::fs::metadata(&self.path) {
                use std::os::unix::fs::MetadataExt;
                std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.sync_all()?;
            std::fs::rename(&fresh, &self.path)?;
            File::open(parent)?.sync_all()
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
        written.doing(what)
    }
}

fn read(path: &Path) -> Outcome<(Option<String>, Option<u32>)> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes)
                .map_err(|_| Failure::new(format!("{}: not UTF-8", path.display())))?;
            let mode = std::fs::metadata(path).map(|data| data.permissions().mode() & 0o7777).ok();
            Ok((Some(text), mode))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((None, None)),
        Err(error) => Err(error).doing(|| path.display()),
    }
}

/// Whether `install` wrote it.
pub(super) fn is_script_of_ours(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(SCRIPT_HEAD.as_bytes()))
}

/// A word for sh(1).
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
