//! What /proc/pid says about a thread or process in words and numbers (proc_pid_stat(5) and its like).

use super::subject::{PtraceAccess, Scope, Subject, may_access, reader};
use super::text::{number, put, set_mask};
use crate::cgroup::cpus;
use crate::process::exit::ticks;
use crate::process::limits::{INFINITY, Limit, Resource};
use crate::process::pid::Pid;
use crate::task::{Published, RunMode, TaskShared};
use abi::{Errno, PAGE_SIZE, SysResult};
use mm::{MemoryManager, Usage};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::synthetic::WriteText;
use vfs::{Caller, Capabilities};

pub(super) fn empty(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.task().map(|_| Vec::new())
}

/// Place of a process among the others, in numbers of the mount's namespace; 0 where it cannot be seen.
struct Relations {
    parent: u32,
    group: Option<Arc<Pid>>,
    session: Option<Arc<Pid>>,
    zombie: bool,
    exit_signal: u32,
    exit_code: u32,
}

fn relations(subject: &Subject, task: &TaskShared) -> Relations {
    let tree = subject.kernel.tree.lock();
    let Some(node) = tree.node(task.process.pid.root()) else {
        return Relations {
            parent: 0,
            group: None,
            session: None,
            zombie: true,
            exit_signal: 17,
            exit_code: 0,
        };
    };
    let parent = node.parent.and_then(|parent| tree.node(parent));
    Relations {
        parent: parent.map_or(0, |parent| parent.process.pid.seen_in(&subject.view)),
        group: Some(Arc::clone(&node.pgid)),
        session: Some(Arc::clone(&node.sid)),
        zombie: node.zombie.is_some(),
        exit_signal: node.exit_signal,
        exit_code: node.zombie.map_or(0, |zombie| zombie.status.0),
    }
}

fn state_letter(task: &TaskShared, relations: &Relations) -> char {
    if relations.zombie { 'Z' } else { task.mode().letter() }
}

fn state_word(letter: char) -> &'static str {
    match letter {
        'R' => "running",
        'S' => "sleeping",
        'D' => "disk sleep",
        'T' => "stopped",
        't' => "tracing stop",
        'X' => "dead",
        _ => "zombie",
    }
}

fn usage_of(mm: Option<&Arc<MemoryManager>>) -> Usage {
    mm.map(|mm| mm.total_usage()).unwrap_or_default()
}

/// User and system time in nanoseconds: of the process, or of the one thread.
fn cpu_times(subject: &Subject, task: &TaskShared, published: &Published) -> (u64, u64) {
    let user = published.mm.as_ref().map_or(0, |mm| mm.cpu_ns());
    let threads = task.process.threads();
    if subject.scope() == Scope::Thread && threads.len() > 1 {
        // The host counts user time by address space: threads share it evenly.
        let count = u64::try_from(threads.len()).unwrap_or(1).max(1);
        return (user / count, task.times.system_ns());
    }
    if task.mode() == RunMode::Dead { task.process.times.total() } else { task.process.cpu_times() }
}

fn kb(bytes: u64) -> u64 {
    bytes / 1024
}

pub(super) fn status(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let task = subject.task()?;
    let published = task.published.lock().clone();
    let relations = relations(subject, &task);
    let letter = state_letter(&task, &relations);
    let view = &subject.view;
    let cred = &published.cred;
    let ns = &by.cred.user_ns;
    let mut out = String::new();
    put!(out, "Name:\t{}\n", escaped_name(&published.comm_text()));
    put!(out, "Umask:\t{:04o}\n", published.fs.as_ref().map_or(0, |fs| fs.umask()));
    put!(out, "State:\t{letter} ({})\n", state_word(letter));
    put!(out, "Tgid:\t{}\nNgid:\t0\nPid:\t{}\n", task.process.pid.seen_in(view), published.pid.seen_in(view));
    let tracer = task.trace.lock().as_ref().map(|trace| trace.tracer);
    let tracer = tracer
        .and_then(|tracer| subject.kernel.root.pid.find(tracer))
        .map_or(0, |tracer| tracer.seen_in(view));
    put!(out, "PPid:\t{}\nTracerPid:\t{tracer}\n", relations.parent);
    let uids = [cred.uid, cred.euid, cred.suid, cred.fsuid].map(|id| ns.show_uid(id));
    let gids = [cred.gid, cred.egid, cred.sgid, cred.fsgid].map(|id| ns.show_gid(id));
    for (name, ids) in [("Uid", uids), ("Gid", gids)] {
        put!(out, "{name}:\t{}\t{}\t{}\t{}\n", ids[0], ids[1], ids[2], ids[3]);
    }
    put!(out, "FDSize:\t{}\nGroups:\t", published.files.as_ref().map_or(0, |files| files.capacity()));
    let groups: Vec<String> = cred.groups.iter().map(|gid| ns.show_gid(*gid).to_string()).collect();
    put!(out, "{} \n", groups.join(" "));
    let ids = [
        ("NStgid", Some(&task.process.pid)),
        ("NSpid", Some(&published.pid)),
        ("NSpgid", relations.group.as_ref()),
        ("NSsid", relations.session.as_ref()),
    ];
    for (name, id) in ids {
        put!(out, "{name}:");
        for seen in id.map(|id| id.numbers_from(view)).unwrap_or_default() {
            put!(out, "\t{seen}");
        }
        out.push('\n');
    }
    out.push_str("Kthread:\t0\n");
    memory_lines(&mut out, published.mm.as_ref());
    let threads = task.process.threads().len().max(1);
    put!(out, "Threads:\t{threads}\n");
    signal_lines(&mut out, &task, &published);
    let caps = &cred.caps;
    for (name, set) in [
        ("CapInh", caps.inheritable),
        ("CapPrm", caps.permitted),
        ("CapEff", caps.effective),
        ("CapBnd", caps.bounding),
        ("CapAmb", caps.ambient),
    ] {
        put!(out, "{name}:\t{:016x}\n", set.bits());
    }
    let marks = published.marks;
    put!(out, "NoNewPrivs:\t{}\n", u8::from(marks.no_new_privs));
    put!(out, "Seccomp:\t{}\nSeccomp_filters:\t{}\n", marks.seccomp_mode, marks.seccomp_filters);
    out.push_str(
        "Speculation_Store_Bypass:\tthread vulnerable\nSpeculationIndirectBranch:\tconditional enabled\n",
    );
    let affinity = task.sched.lock().affinity;
    let allowed = cpus::within(&affinity, &cpus::of_process(&subject.kernel, &task.process));
    put!(out, "Cpus_allowed:\t{}\n", set_mask(&allowed, subject.kernel.machine.cpus));
    put!(out, "Cpus_allowed_list:\t{}\n", cpus::list(&allowed));
    out.push_str("Mems_allowed:\t1\nMems_allowed_list:\t0\n");
    put!(out, "voluntary_ctxt_switches:\t{}\n", task.times.sleeps.load(Ordering::Relaxed));
    out.push_str("nonvoluntary_ctxt_switches:\t0\nx86_Thread_features:\t\nx86_Thread_features_locked:\t\n");
    Ok(out.into_bytes())
}

fn escaped_name(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\n', "\\n")
}

fn memory_lines(out: &mut String, mm: Option<&Arc<MemoryManager>>) {
    if let Some(mm) = mm {
        let totals = mm.totals();
        let usage = mm.total_usage();
        let code = mm.program().code.len();
        let lines = [
            ("VmPeak", totals.all),
            ("VmSize", totals.all),
            ("VmLck", totals.locked),
            ("VmPin", 0),
            ("VmHWM", usage.resident),
            ("VmRSS", usage.resident),
            ("RssAnon", usage.anonymous),
            ("RssFile", usage.file),
            ("RssShmem", usage.shmem),
            ("VmData", totals.data),
            ("VmStk", totals.stack),
            ("VmExe", code),
            ("VmLib", totals.exec.saturating_sub(code)),
            ("VmPTE", page_tables(totals.all)),
            ("VmSwap", 0),
        ];
        for (name, bytes) in lines {
            put!(*out, "{name}:\t{:8} kB\n", kb(bytes));
        }
        put!(*out, "HugetlbPages:\t{:8} kB\n", 0);
    }
    if mm.is_some() {
        out.push_str("CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n");
    }
}

/// An estimate: eight bytes a page, and the directories of one small program.
fn page_tables(mapped: u64) -> u64 {
    (mapped / PAGE_SIZE)
        .saturating_mul(8)
        .next_multiple_of(PAGE_SIZE)
        .saturating_add(3 * PAGE_SIZE)
        .min(1 << 30)
}

fn signal_lines(out: &mut String, task: &TaskShared, published: &Published) {
    let limit = task.process.limits.lock().get(Resource::Sigpending).soft;
    put!(
        *out,
        "SigQ:\t{}/{}\n",
        task.process.queued_signals.load(Ordering::Relaxed),
        limit.min(u64::from(u32::MAX))
    );
    let own = task.pending.lock().set().0;
    let shared = task.process.pending.lock().set().0;
    let (ignored, caught) = published.handlers.sets();
    for (name, set) in [
        ("SigPnd", own),
        ("ShdPnd", shared),
        ("SigBlk", task.mask().0),
        ("SigIgn", ignored.0),
        ("SigCgt", caught.0),
    ] {
        put!(*out, "{name}:\t{set:016x}\n");
    }
}

fn milliseconds_since_boot(subject: &Subject, task: &TaskShared) -> u64 {
    let since = task.process.started.saturating_duration_since(subject.kernel.boot.started);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Device number of the controlling terminal and its foreground group; 0 and -1 without one.
fn terminal(subject: &Subject, session: Option<&Pid>) -> (u64, i64) {
    let tty = session.and_then(|session| subject.kernel.files.terminals.controlling(session.root()));
    let Some(tty) = tty else { return (0, -1) };
    let group = tty.owners().1.and_then(|group| subject.kernel.root.pid.find(group));
    (tty.rdev(), group.map_or(-1, |group| i64::from(group.seen_in(&subject.view))))
}

pub(super) fn stat(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let task = subject.task()?;
    let published = task.published.lock().clone();
    let relations = relations(subject, &task);
    let view = &subject.view;
    let seen = |id: Option<&Arc<Pid>>| id.map_or(0, |id| id.seen_in(view));
    let shown = may_access(by, &task, PtraceAccess::Read).is_ok();
    let mm = published.mm.as_ref();
    let totals = mm.map(|mm| mm.totals()).unwrap_or_default();
    let usage = usage_of(mm);
    let program = mm.map(|mm| mm.program()).unwrap_or_default();
    let brk = mm.map_or(0, |mm| mm.brk_range().start());
    let (user, system) = cpu_times(subject, &task, &published);
    let (children_user, children_system) =
        if subject.scope() == Scope::Process { task.process.times.children() } else { (0, 0) };
    let faults = task.times.faults.load(Ordering::Relaxed);
    let rss_limit = task.process.limits.lock().get(Resource::Rss).soft;
    let (ignored, caught) = published.handlers.sets();
    let pending = task.pending.lock().set().0;
    let letter = state_letter(&task, &relations);
    let hide = |value: u64| if shown { value } else { 0 };
    let low = |set: u64| set & 0x7fff_ffff;
    let number = published.pid.seen_in(view);
    let mut out = String::new();
    put!(out, "{number} ({}) {letter} {}", published.comm_text(), relations.parent);
    let (group, session) = (seen(relations.group.as_ref()), seen(relations.session.as_ref()));
    let (terminal, foreground) = terminal(subject, relations.session.as_deref());
    // PF_RANDOMIZE.
    put!(out, " {group} {session} {terminal} {foreground} {} {faults} 0 0 0", 0x40_0000);
    put!(out, " {} {} {} {}", ticks(user), ticks(system), ticks(children_user), ticks(children_system));
    let threads = task.process.threads().len().max(1);
    let started = ticks(milliseconds_since_boot(subject, &task));
    put!(out, " 20 0 {threads} 0 {started} {} {} {rss_limit}", totals.all, usage.resident / PAGE_SIZE);
    let (code, end) = match (mm, shown) {
        (Some(_), true) => (program.code.start(), program.code.end()),
        (Some(_), false) => (1, 1),
        (None, _) => (0, 0),
    };
    put!(out, " {code} {end} {} 0 0", hide(program.stack_start));
    put!(out, " {} {} {} {}", low(pending), low(task.mask().0), low(ignored.0), low(caught.0));
    let waits = u8::from(letter == 'S' && shown);
    let signal = if subject.scope() == Scope::Process { i64::from(relations.exit_signal) } else { -1 };
    put!(out, " {waits} 0 0 {signal} 0 0 0 0 0 0");
    put!(out, " {} {} {}", hide(program.data.start()), hide(program.data.end()), hide(brk));
    put!(out, " {} {}", hide(program.args.start()), hide(program.args.end()));
    put!(out, " {} {}", hide(program.env.start()), hide(program.env.end()));
    put!(out, " {}\n", if shown { relations.exit_code } else { 0 });
    Ok(out.into_bytes())
}

pub(super) fn statm(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let published = subject.published()?;
    let Some(mm) = published.mm.as_ref() else { return Ok(b"0 0 0 0 0 0 0\n".to_vec()) };
    let totals = mm.totals();
    let usage = mm.total_usage();
    let pages = |bytes: u64| bytes.div_ceil(PAGE_SIZE);
    let text = format!(
        "{} {} {} {} 0 {} 0\n",
        pages(totals.all),
        pages(usage.resident),
        pages(usage.file.saturating_add(usage.shmem)),
        pages(mm.program().code.len()),
        pages(totals.data.saturating_add(totals.stack)),
    );
    Ok(text.into_bytes())
}

pub(super) fn comm(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let text = subject.published()?.comm_text();
    Ok(format!("{text}\n").into_bytes())
}

pub(super) fn set_comm(subject: &Subject, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<()> {
    let task = subject.task()?;
    if by.task.tgid() != task.process.pid.root() {
        return Err(Errno::EINVAL);
    }
    let mut name = [0; 16];
    // As `strncpy_from_user` of a name: the line's end counts, unlike a NUL.
    for (to, from) in name.iter_mut().take(15).zip(write.bytes.iter().take_while(|byte| **byte != 0)) {
        *to = *from;
    }
    if let Some(end) = name.iter_mut().find(|byte| **byte == b'\n')
        && write.bytes.len() <= 16
    {
        *end = 0;
    }
    task.rename(name);
    Ok(())
}

pub(super) fn personality(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let marks = subject.published()?.marks;
    Ok(format!("{:08x}\n", marks.personality).into_bytes())
}

const LIMITS: [(&str, Resource, &str); 16] = [
    ("Max cpu time", Resource::Cpu, "seconds"),
    ("Max file size", Resource::Fsize, "bytes"),
    ("Max data size", Resource::Data, "bytes"),
    ("Max stack size", Resource::Stack, "bytes"),
    ("Max core file size", Resource::Core, "bytes"),
    ("Max resident set", Resource::Rss, "bytes"),
    ("Max processes", Resource::Nproc, "processes"),
    ("Max open files", Resource::Nofile, "files"),
    ("Max locked memory", Resource::Memlock, "bytes"),
    ("Max address space", Resource::As, "bytes"),
    ("Max file locks", Resource::Locks, "locks"),
    ("Max pending signals", Resource::Sigpending, "signals"),
    ("Max msgqueue size", Resource::Msgqueue, "bytes"),
    ("Max nice priority", Resource::Nice, ""),
    ("Max realtime priority", Resource::Rtprio, ""),
    ("Max realtime timeout", Resource::Rttime, "us"),
];

pub(super) fn limits(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let limits = *subject.task()?.process.limits.lock();
    let mut out =
        String::from("Limit                     Soft Limit           Hard Limit           Units     \n");
    for (name, resource, unit) in LIMITS {
        out.push_str(&limit_line(name, limits.get(resource), unit));
    }
    Ok(out.into_bytes())
}

fn limit_line(name: &str, limit: Limit, unit: &str) -> String {
    let show = |value: u64| if value == INFINITY { "unlimited".to_owned() } else { value.to_string() };
    let mut line = format!("{name:<25} {:<20} {:<20} ", show(limit.soft), show(limit.hard));
    if !unit.is_empty() {
        put!(line, "{unit:<10}");
    }
    line.push('\n');
    line
}

pub(super) fn sched(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let task = subject.task()?;
    let published = task.published.lock().clone();
    let threads = task.process.threads().len().max(1);
    let (user, system) = cpu_times(subject, &task, &published);
    let ns = user.saturating_add(system);
    let sleeps = task.times.sleeps.load(Ordering::Relaxed);
    let number = published.pid.seen_in(&subject.view);
    let mut out = format!("{} ({number}, #threads: {threads})\n{}\n", published.comm_text(), "-".repeat(67));
    put!(out, "{:<45}:{:>21}\n", "se.sum_exec_runtime", format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000));
    for (name, value) in
        [("nr_switches", sleeps), ("nr_voluntary_switches", sleeps), ("nr_involuntary_switches", 0)]
    {
        put!(out, "{name:<45}:{value:>21}\n");
    }
    put!(out, "{:<45}:{:>21}\n{:<45}:{:>21}\n", "policy", 0, "prio", 120);
    Ok(out.into_bytes())
}

pub(super) fn schedstat(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let task = subject.task()?;
    let published = task.published.lock().clone();
    let (user, system) = cpu_times(subject, &task, &published);
    let sleeps = task.times.sleeps.load(Ordering::Relaxed);
    Ok(format!("{} 0 {}\n", user.saturating_add(system), sleeps.saturating_add(1)).into_bytes())
}

pub(super) fn timens_offsets(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.task()?;
    Ok(b"monotonic           0         0\nboottime            0         0\n".to_vec())
}

pub(super) fn syscall(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.task()?;
    Ok(b"running\n".to_vec())
}

pub(super) fn children(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let task = subject.task()?;
    let tree = subject.kernel.tree.lock();
    let Some(node) = tree.node(task.process.pid.root()) else { return Ok(Vec::new()) };
    let mut out = String::new();
    for child in node.children.iter().filter_map(|child| tree.node(*child)) {
        if child.parent_thread == task.tid() {
            put!(out, "{} ", child.process.pid.seen_in(&subject.view));
        }
    }
    Ok(out.into_bytes())
}

pub(super) fn wchan(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.task()?;
    Ok(b"0".to_vec())
}
pub(super) fn cpuset(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.task()?;
    Ok(b"/\n".to_vec())
}
pub(super) fn cgroup(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let group = subject.task()?.process.cgroup.lock().clone();
    let path = group.map_or_else(|| "/".to_owned(), |group| group.path());
    Ok(format!("0::{path}\n").into_bytes())
}
pub(super) fn coredump_filter(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let task = subject.task()?;
    Ok(format!("{:08x}\n", task.process.marks.coredump_filter.load(Ordering::Relaxed) ^ DEFAULT_DUMP)
        .into_bytes())
}
/// Anonymous memory, ELF headers, huge pages.
const DEFAULT_DUMP: u32 = 0x33;
pub(super) fn set_coredump_filter(
    subject: &Subject,
    write: &WriteText<'_>,
    _by: &Caller<'_>,
) -> SysResult<()> {
    let text = write.text()?;
    let value = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let value = value.map_err(|_| Errno::EINVAL)?;
    subject.task()?.process.marks.coredump_filter.store((value & 0x1ff) ^ DEFAULT_DUMP, Ordering::Relaxed);
    Ok(())
}
pub(super) fn autogroup(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.task()?;
    Ok(b"/autogroup-1 nice 0\n".to_vec())
}
pub(super) fn patch_state(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.task()?;
    Ok(b"-1\n".to_vec())
}
pub(super) fn timerslack(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(number(subject.published()?.marks.timer_slack_ns))
}

pub(super) fn io(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let task = subject.task()?;
    let io = &task.process.times.io;
    let load = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
    let mut out = String::new();
    for (name, value) in [
        ("rchar", load(&io.read.bytes)),
        ("wchar", load(&io.written.bytes)),
        ("syscr", load(&io.read.calls)),
        ("syscw", load(&io.written.calls)),
        // What reaches a disk is the host's business.
        ("read_bytes", 0),
        ("write_bytes", 0),
        ("cancelled_write_bytes", 0),
    ] {
        put!(out, "{name}: {value}\n");
    }
    Ok(out.into_bytes())
}

fn adjustment(task: &TaskShared) -> i32 {
    task.process.marks.oom_score_adj.load(Ordering::Relaxed)
}

pub(super) fn oom_score(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let task = subject.task()?;
    let mm = task.published.lock().mm.clone();
    let adjustment = i64::from(adjustment(&task));
    let memory = subject.kernel.machine.memory.max(1);
    let share = usage_of(mm.as_ref()).resident.saturating_mul(1000) / memory;
    let points = if adjustment <= -1000 || mm.is_none() {
        0
    } else {
        let share = i64::try_from(share).unwrap_or(1000);
        (1000_i64.saturating_add(adjustment).saturating_add(share)).saturating_mul(2) / 3
    };
    Ok(number(points.max(0)))
}

pub(super) fn oom_score_adj(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(number(adjustment(&*subject.task()?)))
}

pub(super) fn set_oom_score_adj(subject: &Subject, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<()> {
    set_adjustment(subject, write.number()?, by)
}

fn set_adjustment(subject: &Subject, value: i32, by: &Caller<'_>) -> SysResult<()> {
    if !(-1000..=1000).contains(&value) {
        return Err(Errno::EINVAL);
    }
    let task = subject.task()?;
    let marks = &task.process.marks;
    if value < marks.oom_score_adj_min.load(Ordering::Relaxed) && !by.cred.has(Capabilities::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    marks.oom_score_adj.store(value, Ordering::Relaxed);
    if by.cred.has(Capabilities::SYS_RESOURCE) {
        marks.oom_score_adj_min.store(value, Ordering::Relaxed);
    }
    Ok(())
}

pub(super) fn oom_adj(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let value = adjustment(&*subject.task()?);
    Ok(number(if value == 1000 { 15 } else { (value * 17) / 1000 }))
}

pub(super) fn set_oom_adj(subject: &Subject, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<()> {
    let value: i32 = write.number()?;
    if !(-17..=15).contains(&value) {
        return Err(Errno::EINVAL);
    }
    set_adjustment(subject, if value == 15 { 1000 } else { (value * 1000) / 17 }, by)
}

/// The process that reads, as a subject of `view`-less questions (its namespaces, its root).
pub(super) fn published_reader(kernel: &crate::kernel::Kernel, by: &Caller<'_>) -> Option<Published> {
    let task = reader(kernel, by)?;
    let published = task.published.lock().clone();
    Some(published)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_line_up_as_in_linux() {
        let limit = Limit { soft: 1024, hard: INFINITY };
        assert_eq!(
            limit_line("Max open files", limit, "files"),
            "Max open files            1024                 unlimited            files     \n"
        );
        assert_eq!(
            limit_line("Max nice priority", Limit { soft: 0, hard: 0 }, ""),
            "Max nice priority         0                    0                    \n"
        );
    }
}
