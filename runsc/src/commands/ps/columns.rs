//! Columns of ps(1), as procps names, heads and aligns them.

use crate::container::state::owner_name;
use crate::error::{Failure, Outcome};
use crate::log::rfc3339;
use ::sentry::control::message::ProcessInfo;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PAGE_KIB: u64 = 4;

/// What is known of a process.
pub(super) struct Facts {
    info: ProcessInfo,
    /// Fields of proc_pid_stat(5) from the third on: the state is the first here.
    stat: Vec<String>,
    comm: String,
    /// Real, effective, saved, file system.
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Facts {
    /// From the texts of /proc/PID/stat and status; `None` when they are not such.
    pub(super) fn new(info: ProcessInfo, stat: &str, status: &str) -> Option<Facts> {
        let (left, right) = stat.rsplit_once(") ")?;
        let comm = left.split_once('(')?.1.to_owned();
        let line = |name: &str| {
            let values = status.lines().find_map(|line| line.strip_prefix(name));
            values.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let stat = right.split_whitespace().map(str::to_owned).collect();
        Some(Facts { info, stat, comm, uids: line("Uid:"), gids: line("Gid:") })
    }

    /// A field by its number in proc_pid_stat(5).
    fn field(&self, number: usize) -> &str {
        number.checked_sub(3).and_then(|at| self.stat.get(at)).map_or("0", String::as_str)
    }
    fn number(&self, number: usize) -> i64 {
        self.field(number).parse().unwrap_or(0)
    }
    fn uid(&self, which: usize) -> u32 {
        self.uids.get(which).copied().unwrap_or(self.info.uid)
    }
    fn gid(&self, which: usize) -> u32 {
        self.gids.get(which).copied().unwrap_or(0)
    }
    fn elapsed(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        now.saturating_sub(self.info.start_time)
    }
    fn rss_kib(&self) -> u64 {
        u64::try_from(self.number(24)).unwrap_or(0).saturating_mul(PAGE_KIB)
    }
    /// Tenths of a per cent of one processor since the start.
    fn cpu(&self) -> u64 {
        self.info.cpu_ms.checked_div(self.elapsed()).unwrap_or(0)
    }
    fn started(&self) -> String {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(self.info.start_time)).unwrap_or(UNIX_EPOCH);
        let text = rfc3339(time);
        let part = if self.elapsed() < 86_400 { text.get(11..16) } else { text.get(5..10) };
        part.unwrap_or("?").to_owned()
    }
    /// The state and what procps adds to it.
    fn state(&self) -> String {
        let mut text = self.field(3).to_owned();
        match self.number(19) {
            ..0 => text.push('<'),
            0 => {}
            _ => text.push('N'),
        }
        if self.number(6) == i64::from(self.info.pid) {
            text.push('s');
        }
        if self.info.threads > 1 {
            text.push('l');
        }
        if self.number(8) > 0 && self.number(8) == self.number(5) {
            text.push('+');
        }
        text
    }
}

/// A user's name, or number where it has none.
fn user(uid: u32) -> String {
    owner_name(uid).trim_start_matches('#').to_owned()
}

fn group(gid: u32) -> String {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| gid.to_string())
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn tenths(value: u64) -> String {
    format!("{}.{}", value / 10, value % 10)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// One column.
pub(super) struct Column {
    head: String,
    align: Align,
    width: usize,
    show: fn(&Facts) -> String,
}

/// What procps calls it, its head, least width and content.
fn column(name: &str) -> Option<Column> {
    use Align::{Left, Right};
    type Show = fn(&Facts) -> String;
    let (head, align, width, show): (&str, Align, usize, Show) = match name {
        "pid" | "tgid" => ("PID", Right, 7, |f| f.info.pid.to_string()),
        "ppid" => ("PPID", Right, 7, |f| f.info.ppid.to_string()),
        "pgid" | "pgrp" => ("PGID", Right, 7, |f| f.field(5).to_owned()),
        "sid" | "sess" | "session" => ("SID", Right, 7, |f| f.field(6).to_owned()),
        "uid" | "euid" => ("UID", Right, 5, |f| f.uid(1).to_string()),
        "ruid" => ("RUID", Right, 5, |f| f.uid(0).to_string()),
        "gid" | "egid" => ("GID", Right, 5, |f| f.gid(1).to_string()),
        "rgid" => ("RGID", Right, 5, |f| f.gid(0).to_string()),
        "user" | "euser" | "uname" => ("USER", Left, 8, |f| user(f.uid(1))),
        "ruser" => ("RUSER", Left, 8, |f| user(f.uid(0))),
        "group" | "egroup" => ("GROUP", Left, 8, |f| group(f.gid(1))),
        "rgroup" => ("RGROUP", Left, 8, |f| group(f.gid(0))),
        "c" => ("C", Right, 2, |f| (f.cpu() / 10).min(99).to_string()),
        "pcpu" | "%cpu" => ("%CPU", Right, 4, |f| tenths(f.cpu())),
        "pmem" | "%mem" => ("%MEM", Right, 4, |f| {
            let info = rustix::system::sysinfo();
            let total = info.totalram.saturating_mul(info.mem_unit.into()) / 1024;
            tenths(f.rss_kib().saturating_mul(1000).checked_div(total).unwrap_or(0))
        }),
        "vsz" | "vsize" => ("VSZ", Right, 6, |f| (f.number(23) / 1024).to_string()),
        "rss" | "rssize" | "rsz" => ("RSS", Right, 5, |f| f.rss_kib().to_string()),
        "tty" | "tt" | "tname" => ("TTY", Left, 8, |f| f.info.tty.clone()),
        "s" | "state" => ("S", Left, 1, |f| f.field(3).to_owned()),
        "stat" => ("STAT", Left, 4, Facts::state),
        "stime" | "start" | "start_time" | "bsdstart" => ("STIME", Left, 5, Facts::started),
        "time" | "cputime" => ("TIME", Right, 8, |f| clock(f.info.cpu_ms / 1000)),
        "etime" => ("ELAPSED", Right, 11, |f| {
            let text = clock(f.elapsed());
            text.strip_prefix("00:").unwrap_or(&text).to_owned()
        }),
        "etimes" => ("ELAPSED", Right, 7, |f| f.elapsed().to_string()),
        "ni" | "nice" => ("NI", Right, 3, |f| f.field(19).to_owned()),
        "pri" => ("PRI", Right, 3, |f| (39 - f.number(18)).to_string()),
        "nlwp" | "thcount" => ("NLWP", Right, 4, |f| f.info.threads.to_string()),
        "comm" | "ucmd" | "ucomm" => ("COMMAND", Left, 1, |f| f.comm.clone()),
        "args" | "command" => ("COMMAND", Left, 1, |f| f.info.command.clone()),
        "cmd" => ("CMD", Left, 1, |f| f.info.command.clone()),
        _ => return None,
    };
    Some(Column { head: head.to_owned(), align, width, show })
}

/// Columns by name, one of them perhaps under another head (`pid=NUMBER`).
fn listed(names: &str, columns: &mut Vec<Column>) -> Outcome<()> {
    for name in names.split([',', ' ']).filter(|name| !name.is_empty()) {
        let (name, head) = match name.split_once('=') {
            Some((name, head)) => (name, Some(head)),
            None => (name, None),
        };
        let known = column(name);
        let mut found = known.ok_or_else(|| {
            Failure::new(format!("ps: error: unknown user-defined format specifier {name:?}"))
        })?;
        if let Some(head) = head {
            found.head = head.to_owned();
        }
        columns.push(found);
    }
    Ok(())
}

/// `ps -ef`, runc's default.
const FULL: &str = "user=UID,pid,ppid,c,stime,tty,time,cmd";
/// `ps u`.
const BSD: &str = "user,pid,%cpu,%mem,vsz,rss,tty,stat,start=START,time,args";

/// What the options of ps(1) ask for.
pub(super) fn chosen(options: &[String]) -> Outcome<Vec<Column>> {
    let mut columns = Vec::new();
    let mut default = if options.is_empty() { FULL } else { "pid,tty,time,cmd" };
    let mut options = options.iter().map(String::as_str).filter(|option| *option != "--");
    while let Some(option) = options.next() {
        if let Some(names) = option.strip_prefix("--format=") {
            listed(names, &mut columns)?;
        } else if option == "--format" {
            listed(options.next().unwrap_or_default(), &mut columns)?;
        } else if let Some((flags, names)) =
            option.strip_prefix("--").map_or_else(|| option.split_once('o'), |_| None)
        {
            // -o NAMES, -oNAMES, -eo NAMES
            default = style(flags).unwrap_or(default);
            let names = if names.is_empty() { options.next().unwrap_or_default() } else { names };
            listed(names, &mut columns)?;
        } else {
            default = style(option).unwrap_or(default);
        }
    }
    if columns.is_empty() {
        listed(default, &mut columns)?;
    }
    Ok(columns)
}

/// `-f` and `u` among the flags.
fn style(flags: &str) -> Option<&'static str> {
    match flags.strip_prefix('-') {
        Some(flags) => flags.contains(['f', 'F']).then_some(FULL),
        None => flags.contains('u').then_some(BSD),
    }
}

/// The table.
pub(super) fn sheet(columns: &[Column], rows: &[Facts]) -> String {
    let cells: Vec<Vec<String>> =
        rows.iter().map(|facts| columns.iter().map(|column| (column.show)(facts)).collect()).collect();
    let heads: Vec<String> = columns.iter().map(|column| column.head.clone()).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let longest = cells.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
            column.width.max(column.head.len()).max(longest.unwrap_or(0))
        })
        .collect();
    let has_heads = heads.iter().any(|head| !head.is_empty());
    let mut text = String::new();
    for row in has_heads.then_some(&heads).into_iter().chain(&cells) {
        let padded = row.iter().zip(columns).zip(&widths).map(|((cell, column), width)| match column.align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        text.push_str(padded.collect::<Vec<_>>().join(" ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Facts, chosen, sheet};
    use sentry::control::message::ProcessInfo;

    fn one() -> Facts {
        let info = ProcessInfo {
            pid: 1,
            ppid: 0,
            uid: 0,
            threads: 1,
            start_time: 0,
            cpu_ms: 0,
            tty: "?".to_owned(),
            command: "/bin/a b".to_owned(),
        };
        let stat = "1 (a) b) S 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 8192 3 0\n";
        Facts::new(info, stat, "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n").expect("facts")
    }

    #[test]
    fn columns_by_name_and_style() {
        let of = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
            chosen(&options).map(|columns| sheet(&columns, &[one()])).unwrap_or_default()
        };
        assert_eq!(of(&["-o", "pid,comm"]), "    PID COMMAND\n      1 a) b\n");
        assert_eq!(of(&["-eo", "args="]), "/bin/a b\n");
        assert!(of(&[]).starts_with("UID          PID    PPID  C STIME TTY          TIME CMD\nroot "));
        assert!(of(&["aux"]).starts_with("USER         PID %CPU %MEM"));
        assert!(of(&["-o", "nonsense"]).is_empty());
    }
}
