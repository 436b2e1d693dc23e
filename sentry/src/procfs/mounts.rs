//! mounts, mountinfo and mountstats of a process (proc_pid_mounts(5) and its like).

use super::subject::Subject;
use abi::{Errno, SysResult};
use std::sync::Arc;
use vfs::{Caller, FsContext, path};

fn context(subject: &Subject) -> SysResult<Arc<FsContext>> {
    // A process that has exited has no mounts to show.
    Ok(subject.published()?.fs.ok_or(Errno::EINVAL)?.snapshot())
}

pub(super) fn mounts(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let fs = context(subject)?;
    Ok(fs.ns.mounts().iter().filter_map(|mount| path::mounts_line(mount, &fs.root)).flatten().collect())
}

pub(super) fn mountinfo(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let fs = context(subject)?;
    Ok(fs.ns.mounts().iter().filter_map(|mount| path::mountinfo_line(mount, &fs.root)).flatten().collect())
}

pub(super) fn mountstats(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let fs = context(subject)?;
    let mut out = Vec::new();
    for mount in fs.ns.mounts() {
        // `source point type options 0 0`, of which mountstats says it in words.
        let Some(line) = path::mounts_line(&mount, &fs.root) else { continue };
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(source), Some(point), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        for part in [b"device ".as_slice(), source, b" mounted on ", point, b" with fstype ", kind, b" \n"] {
            out.extend_from_slice(part);
        }
    }
    Ok(out)
}
