//! `--log`: one line per error, as text or JSON, in the form logrus gives runc's, which callers parse.

use crate::cli::{Global, LogFormat};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// How bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    /// The verb failed.
    Error,
    /// Something was left out.
    Warning,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
        }
    }
}

/// An open log file, for a process that will leave the host's root.
#[derive(Debug)]
pub(crate) struct Log {
    file: std::fs::File,
    format: LogFormat,
}

/// The log file, if one was named.
pub(crate) fn open(global: &Global) -> Option<Log> {
    let path = global.log.as_ref()?;
    let file = OpenOptions::new().create(true).append(true).mode(0o644).open(path).ok()?;
    Some(Log { file, format: global.log_format })
}

impl Log {
    /// One line.
    pub(crate) fn write(&mut self, level: Level, message: &str) {
        let time = rfc3339(SystemTime::now());
        let line = match self.format {
            LogFormat::Json => {
                let line = serde_json::json!({ "level": level.name(), "msg": message, "time": time });
                format!("{line}\n")
            }
            LogFormat::Text => format!("time=\"{time}\" level={} msg={message:?}\n", level.name()),
        };
        let _ = self.file.write_all(line.as_bytes());
    }
}

/// Writes `message` to the log file, if one was named.
pub(crate) fn write(global: &Global, level: Level, message: &str) {
    if let Some(mut log) = open(global) {
        log.write(level, message);
    }
}

/// The same for a command line that could not be read: `--log` and `--log-format` are looked for in it.
pub(crate) fn write_early(args: impl Iterator<Item = String>, message: &str) {
    let (mut path, mut format) = (None, LogFormat::Text);
    let mut args = args.skip(1).peekable();
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        match name.trim_start_matches('-') {
            "log" => path = value.or_else(|| args.next()),
            "log-format" if value.or_else(|| args.next()).as_deref() == Some("json") => {
                format = LogFormat::Json;
            }
            _ => {}
        }
    }
    let file = path.and_then(|path| OpenOptions::new().create(true).append(true).mode(0o644).open(path).ok());
    if let Some(file) = file {
        Log { file, format }.write(Level::Error, message);
    }
}

/// A warning goes to the log, and to standard error when there is none.
pub(crate) fn warn(global: &Global, message: &str) {
    if global.log.is_some() {
        write(global, Level::Warning, message);
    } else {
        complain(&format!("warning: {message}"));
    }
}

/// One line on standard error.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "runsc: {message}");
}

/// A time as RFC 3339 in UTC, with nanoseconds as runc writes `created`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let nanos = since.subsec_nanos();
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Year, month and day of a number of days since 1970 (proleptic Gregorian; years begin in March so that
/// the leap day is the last).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::{civil, rfc3339};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(19_783), (2024, 3, 1));
        let time = UNIX_EPOCH + Duration::new(1_000_000_000, 5);
        assert_eq!(rfc3339(time), "2001-09-09T01:46:40.000000005Z");
    }
}
