//! execve(2): a task becomes another program.

use super::{Cx, Work, file_caps};
use crate::files::FdTable;
use crate::loader::{self, Executable, NewCredentials, Program};
use crate::process::exit;
use crate::signal::SignalHandlers;
use abi::fs::ModeBits;
use abi::siginfo::StackT;
use abi::{CallResult, Errno, Failure, Restart, SysResult};
use mm::Randomize;
use platform::{Registers, ThreadState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::{Credentials, MountFlags};

/// `ADDR_NO_RANDOMIZE` of personality(2).
const ADDR_NO_RANDOMIZE: u32 = 0x004_0000;
const S_ISUID: ModeBits = 0o4000;
const S_ISGID: ModeBits = 0o2000;
const S_IXGRP: ModeBits = 0o010;

/// What execve is asked.
pub struct ExecRequest {
    /// The opened program.
    pub file: Executable,
    /// What it was called.
    pub name: Vec<u8>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
}

/// Runs the program in place of the caller's. On success the registers are the new program's.
pub fn exec(cx: &mut Cx<'_>, request: ExecRequest) -> CallResult<()> {
    let fs = cx.fs().snapshot();
    let kernel = Arc::clone(cx.kernel());
    let limits = *cx.shared.process.limits.lock();
    let no_new_privs = cx.owned.no_new_privs;
    let randomize =
        if cx.owned.personal.personality & ADDR_NO_RANDOMIZE != 0 { Randomize::No } else { Randomize::Yes };
    let loaded = {
        let by = cx.caller();
        let old = Arc::clone(cx.cred());
        let is_traced = cx.shared.is_traced();
        let credentials = |file: &Executable| new_credentials(&old, file, no_new_privs || is_traced, &by);
        loader::load(Program {
            kernel: &kernel,
            fs: &fs,
            by: &by,
            file: request.file,
            name: request.name,
            argv: request.argv,
            envp: request.envp,
            limits,
            randomize,
            credentials: &credentials,
        })?
    };
    // A tracer sees which call it was, in the new program's registers.
    let orig_rax = cx.context.registers().orig_rax;
    // From here on the old program cannot come back.
    only_thread(cx)?;
    exit::release_memory(cx);
    let group = cx.shared.process.cgroup.lock().clone();
    if let Some(group) = group {
        group.house(cx.kernel(), &loaded.mm);
    }
    if cx.context.switch(loaded.mm.space()).is_err() {
        crate::signal::send::begin_exit(
            &mut cx.shared.process.state.lock(),
            crate::process::WaitStatus::killed(abi::signal::Signal::SIGKILL),
        );
        return Err(Errno::ENOMEM.into());
    }
    cx.shared.process.times.add_space(&cx.owned.mm);
    loaded.mm.set_single_threaded(true);
    let exe: mm::ExeFile = Arc::new(loaded.file);
    loaded.mm.set_exe(Some(exe));
    loaded.mm.inherit_exec_gain(&cx.owned.mm);
    cx.owned.mm = loaded.mm;
    cx.owned.comm = loaded.comm;
    let registers = Registers { orig_rax, ..fresh_registers(loaded.entry, loaded.stack) };
    cx.context.load(&ThreadState { registers, xstate: Vec::new() });
    cx.shared.set_interrupter(cx.context.interrupter());
    let handlers = SignalHandlers::duplicate(&cx.owned.signal.handlers);
    handlers.reset_for_exec();
    cx.owned.signal.handlers = Arc::new(handlers);
    cx.owned.signal.altstack = StackT::new(0, 0, StackT::DISABLE);
    if Arc::strong_count(&cx.owned.files) > 2 {
        // Shared with another process (CLONE_FILES), beside our published copy.
        cx.owned.files = Arc::new(FdTable::fork(&cx.owned.files));
    }
    let closed = cx.owned.files.close_on_exec();
    for file in &closed {
        // execve(2) reports nothing of what closes say.
        let _ = file.descriptor_closed(cx.owned.files.id(), &cx.caller());
    }
    let NewCredentials { cred, secure } = loaded.credentials;
    let changed = secure || cred.euid != cx.cred().euid || cred.egid != cx.cred().egid;
    let marks = &cx.shared.process.marks;
    marks.undumpable.store(changed, Ordering::Relaxed);
    marks.has_executed.store(true, Ordering::Relaxed);
    marks.shares_memory.store(false, Ordering::Relaxed);
    if changed {
        cx.shared.death_signal.store(0, Ordering::Relaxed);
    }
    let timers = std::mem::take(&mut cx.shared.process.timers.lock().posix);
    drop(timers);
    cx.owned.cred = cred;
    cx.owned.personal.keys = cx.owned.personal.keys.for_process();
    cx.owned.personal.user_dispatch = None;
    cx.owned.look_at_calls(cx.shared);
    cx.owned.publish(cx.shared);
    super::local_answers(cx);
    for file in closed {
        let by = cx.caller();
        let _ = file.ops().flush(&by);
    }
    cx.owned.keep_registers = true;
    crate::ptrace::stop::executed(cx);
    Ok(())
}

/// Registers at the first instruction of a program.
#[must_use]
pub fn fresh_registers(entry: u64, stack: u64) -> Registers {
    Registers {
        rip: entry,
        rsp: stack,
        cs: 0x33,
        ss: 0x2b,
        eflags: 0x202,
        orig_rax: u64::MAX,
        ..Registers::default()
    }
}

/// Ends all other threads and takes the leader's id.
fn only_thread(cx: &mut Cx<'_>) -> CallResult<()> {
    end_others(cx)?;
    if cx.shared.tid() != cx.shared.process.pid.root() {
        take_leaders_id(cx);
    }
    Ok(())
}

/// Ends all other threads of the process and waits until they are gone. Fails when the process is ending.
pub(crate) fn end_others(cx: &Cx<'_>) -> CallResult<()> {
    let process = Arc::clone(&cx.shared.process);
    {
        let mut state = process.state.lock();
        if state.exiting.is_some() || state.exec.is_some() {
            return Err(Failure::Restart(Restart::NoIntr));
        }
        if state.live > 1 {
            state.exec = Some(cx.shared.tid());
            for task in &state.threads {
                if !Arc::ptr_eq(task, cx.shared) {
                    task.clear_work(Work::STOP);
                    task.kick(Work::KILL);
                }
            }
        }
    }
    loop {
        {
            let mut state = process.state.lock();
            if state.live <= 1 {
                state.exec = None;
                break;
            }
            if cx.shared.work().contains(Work::KILL) {
                state.exec = None;
                return Err(Failure::Restart(Restart::NoIntr));
            }
        }
        let _ = cx.shared.parker().park(None);
    }
    Ok(())
}

fn take_leaders_id(cx: &mut Cx<'_>) {
    let process = Arc::clone(&cx.shared.process);
    let mut tree = cx.kernel().tree.lock();
    let mut state = process.state.lock();
    let leader = process.pid.root();
    tree.remove_task(cx.shared.tid());
    tree.remove_task(leader);
    cx.shared.set_tid(leader);
    tree.insert_task(leader, Arc::clone(cx.shared));
    state.threads.clear();
    state.threads.push(Arc::clone(cx.shared));
    state.leader_status = None;
    drop(state);
    drop(tree);
    cx.owned.pid = Arc::clone(&process.pid);
    // The futex slot names the task, not its id: nothing else refers to the old number.
}

/// Credentials after running `file` (execve(2), capabilities(7)).
pub(crate) fn new_credentials(
    old: &Arc<Credentials>,
    file: &Executable,
    no_set_id: bool,
    by: &vfs::Caller<'_>,
) -> SysResult<NewCredentials> {
    let attr = file.location.inode()?.attr(by)?;
    let mut new = Credentials::clone(old);
    let honours = !no_set_id && !file.location.mount.flags().contains(MountFlags::NOSUID);
    let ns = &old.user_ns;
    if honours && ns.maps_uid(attr.uid) && ns.maps_gid(attr.gid) {
        if attr.perm & S_ISUID != 0 {
            new.euid = attr.uid;
        }
        if attr.perm & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP {
            new.egid = attr.gid;
        }
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    let changed = new.euid != old.euid || new.egid != old.egid;
    let nosuid = file.location.mount.flags().contains(MountFlags::NOSUID);
    let of_file = if nosuid { None } else { file_caps::of_file(file, by) };
    let gain = if no_set_id { file_caps::Gain::Refused } else { file_caps::Gain::Allowed };
    file_caps::transform(old, &mut new, of_file, gain)?;
    let secure = new.euid != new.uid || new.egid != new.gid || file_caps::is_secure(&new, of_file, changed);
    // SECBIT_KEEP_CAPS does not outlive an exec.
    new.securebits &= !crate::cred::SECBIT_KEEP_CAPS;
    Ok(NewCredentials { cred: Arc::new(new), secure })
}
