//! /proc/sysvipc (sysvipc(7)): the objects of the reader's ipc namespace.

use crate::ipc::{IpcNs, PermStat};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::Caller;

/// One of the three tables.
pub(super) fn table(name: &'static str, by: &Caller<'_>) -> Vec<u8> {
    let task = crate::task::current();
    let ns = task.as_ref().map(|task| Arc::clone(&task.published.lock().ns.ipc));
    let mut out = String::from(match name {
        "msg" => {
            "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n"
        }
        "sem" => "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
        _ => {
            "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n"
        }
    });
    if let Some(ns) = ns {
        // Writing to a String cannot fail.
        let _ = match name {
            "msg" => messages(&mut out, &ns, by),
            "sem" => semaphores(&mut out, &ns, by),
            _ => memory(&mut out, &ns, by),
        };
    }
    out.into_bytes()
}

fn head(perm: &PermStat, id: i32) -> String {
    format!("{:10} {id:10}  {:4o}", perm.key, perm.mode)
}

fn owners(perm: &PermStat) -> String {
    format!("{:5} {:5} {:5} {:5}", perm.uid, perm.gid, perm.cuid, perm.cgid)
}

fn messages(out: &mut String, ns: &IpcNs, by: &Caller<'_>) -> std::fmt::Result {
    let all: Vec<_> = ns.msg.lock().iter().map(|(id, queue)| (id, Arc::clone(queue))).collect();
    for (id, queue) in all {
        let (perm, bytes, count, pids, times) = {
            let state = queue.state.lock();
            (state.perm, state.bytes, state.count(), state.pids, state.times)
        };
        let perm = perm.stat(id, 0, by.cred);
        let [sender, receiver] = pids.map(|pid| by.task.show_pid(pid));
        let [sent, received, changed] = times;
        let (head, owners) = (head(&perm, id), owners(&perm));
        writeln!(
            out,
            "{head}  {bytes:10} {count:10} {sender:5} {receiver:5} {owners} {sent:10} {received:10} {changed:10}"
        )?;
    }
    Ok(())
}

fn semaphores(out: &mut String, ns: &IpcNs, by: &Caller<'_>) -> std::fmt::Result {
    let all: Vec<_> = ns.sem.lock().iter().map(|(id, set)| (id, Arc::clone(set))).collect();
    for (id, set) in all {
        let (perm, count, otime, ctime) = {
            let state = set.state.lock();
            (state.perm, state.sems.len(), state.otime, state.ctime)
        };
        let perm = perm.stat(id, 0, by.cred);
        writeln!(out, "{} {count:10} {} {otime:10} {ctime:10}", head(&perm, id), owners(&perm))?;
    }
    Ok(())
}

fn memory(out: &mut String, ns: &IpcNs, by: &Caller<'_>) -> std::fmt::Result {
    let all: Vec<_> = ns.shm.lock().iter().map(|(id, segment)| (id, Arc::clone(segment))).collect();
    for (id, segment) in all {
        let perm = *segment.perm.lock();
        let doomed = if segment.doomed.load(Ordering::SeqCst) { 0o1000 } else { 0 };
        let perm = perm.stat(id, doomed, by.cred);
        let [creator, last] = [0, 1].map(|at: usize| {
            segment.pids.get(at).map_or(0, |pid| by.task.show_pid(pid.load(Ordering::Relaxed)))
        });
        let [attach, detach, change] =
            [0, 1, 2].map(|at: usize| segment.times.get(at).map_or(0, |time| time.load(Ordering::Relaxed)));
        let (head, owners) = (head(&perm, id), owners(&perm));
        let (size, count, resident) = (segment.size, segment.attached(), segment.pages.allocated());
        writeln!(
            out,
            "{head} {size:21} {creator:5} {last:5}  {count:5} {owners} {attach:10} {detach:10} {change:10} {resident:21} {:21}",
            0
        )?;
    }
    Ok(())
}
