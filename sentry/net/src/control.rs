//! Control messages (cmsg(3)) between guest bytes and [`Control`].

use crate::types::{Control, MsgFlags, Ucred, level};
use abi::{Errno, SysResult};
use std::sync::Arc;
use vfs::{Caller, Capabilities, Kgid, Kuid, OpenFile};

const HEADER: usize = 16;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
const SCM_PIDFD: i32 = 4;
/// Most descriptors in one message (`SCM_MAX_FD`).
pub const MAX_RIGHTS: usize = 253;
/// Most control bytes of one message (`optmem_max`).
pub const MAX_CONTROL: usize = 131_072;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|c| u32::from_ne_bytes(*c))
}

/// Parses the control buffer of sendmsg(2). `find` looks a descriptor up (`EBADF`).
pub fn parse(
    bytes: &[u8],
    unix: bool,
    by: &Caller<'_>,
    find: &mut dyn FnMut(i32) -> SysResult<Arc<OpenFile>>,
) -> SysResult<Vec<Control>> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let len = rest.first_chunk::<8>().map(|c| u64::from_ne_bytes(*c)).unwrap_or_default();
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        if len < HEADER || len > rest.len() {
            return Err(Errno::EINVAL);
        }
        let at_level = word(rest, 8).unwrap_or_default().cast_signed();
        let kind = word(rest, 12).unwrap_or_default().cast_signed();
        let data = rest.get(HEADER..len).unwrap_or_default();
        match (at_level, kind) {
            (level::SOCKET, SCM_RIGHTS) => {
                if !unix {
                    rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
                    continue;
                }
                let count = data.len() / 4;
                if count > MAX_RIGHTS {
                    return Err(Errno::EINVAL);
                }
                let mut files = Vec::with_capacity(count);
                for fd in data.chunks_exact(4) {
                    files.push(find(word(fd, 0).unwrap_or_default().cast_signed())?);
                }
                if !files.is_empty() {
                    out.push(Control::Rights(files));
                }
            }
            (level::SOCKET, SCM_CREDENTIALS) => {
                if !unix {
                    rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
                    continue;
                }
                if data.len() != 12 {
                    return Err(Errno::EINVAL);
                }
                out.push(Control::Credentials(check_cred(data, by)?));
            }
            (level::SOCKET, _) if unix => return Err(Errno::EINVAL),
            // AF_UNIX looks at SOL_SOCKET only.
            _ if unix => {}
            _ => out.push(Control::Raw(at_level, kind, data.to_vec())),
        }
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(out)
}

/// Credentials a sender claims must be its own, or it is capable (unix(7)).
fn check_cred(data: &[u8], by: &Caller<'_>) -> SysResult<Ucred> {
    let ids = [0, 4, 8].map(|at| word(data, at).unwrap_or_default());
    let pid = by.task.find_pid(ids[0]).ok_or(Errno::ESRCH)?;
    let cred = by.cred;
    let uid: Kuid = cred.user_ns.kuid(ids[1])?;
    let gid: Kgid = cred.user_ns.kgid(ids[2])?;
    let pid_fine = pid == by.task.tgid() || cred.has(Capabilities::SYS_ADMIN);
    let uid_fine = [cred.uid, cred.euid, cred.suid].contains(&uid) || cred.has(Capabilities::SETUID);
    let gid_fine = [cred.gid, cred.egid, cred.sgid].contains(&gid) || cred.has(Capabilities::SETGID);
    if pid_fine && uid_fine && gid_fine {
        Ok(Ucred { pid, uid: Some(uid), gid: Some(gid) })
    } else {
        Err(Errno::EPERM)
    }
}

/// What becomes a descriptor of the receiver.
#[derive(Debug)]
pub enum Installed {
    /// A file that was sent.
    File(Arc<OpenFile>),
    /// A process, by its id of the initial namespace.
    Process(u32),
}

/// Lays control messages out for recvmsg(2) in at most `limit` bytes. `install` makes a descriptor.
/// Adds CTRUNC to `flags` when something did not fit.
pub fn encode(
    control: Vec<Control>,
    limit: usize,
    flags: &mut MsgFlags,
    by: &Caller<'_>,
    install: &mut dyn FnMut(Installed) -> SysResult<i32>,
) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for message in control {
        let room = limit.saturating_sub(out.len());
        let (at_level, kind, data) = match message {
            Control::Credentials(cred) => (level::SOCKET, SCM_CREDENTIALS, cred.to_bytes(by).to_vec()),
            Control::Raw(at_level, kind, data) => (at_level, kind, data),
            Control::PidFd(pid) => {
                if room < HEADER + 4 {
                    *flags |= MsgFlags::CTRUNC;
                    continue;
                }
                // A process that has gone is told by the errno in the place of a descriptor.
                let fd = install(Installed::Process(pid)).unwrap_or_else(|error| -i32::from(error.raw()));
                (level::SOCKET, SCM_PIDFD, fd.to_ne_bytes().to_vec())
            }
            Control::Rights(files) => {
                let fits = room.saturating_sub(HEADER) / 4;
                if fits < files.len() {
                    *flags |= MsgFlags::CTRUNC;
                }
                let mut data = Vec::new();
                for file in files.into_iter().take(fits) {
                    match install(Installed::File(file)) {
                        Ok(fd) => data.extend_from_slice(&fd.to_ne_bytes()),
                        Err(_) => {
                            *flags |= MsgFlags::CTRUNC;
                            break;
                        }
                    }
                }
                if data.is_empty() {
                    continue;
                }
                (level::SOCKET, SCM_RIGHTS, data)
            }
        };
        if room < HEADER {
            *flags |= MsgFlags::CTRUNC;
            continue;
        }
        let mut len = HEADER + data.len();
        if len > room {
            *flags |= MsgFlags::CTRUNC;
            len = room;
        }
        let start = out.len();
        out.extend_from_slice(&u64::try_from(len).unwrap_or_default().to_ne_bytes());
        out.extend_from_slice(&at_level.to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(data.get(..len - HEADER).unwrap_or(&data));
        // The last message needs no padding beyond the buffer.
        out.resize((start + len.next_multiple_of(8)).min(limit), 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfs::testing::TestCaller;

    #[test]
    fn rights_there_and_back() {
        let test = TestCaller::default();
        let by = test.by();
        let file = vfs::event::epoll::create();
        let mut bytes = 20u64.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&1i32.to_ne_bytes());
        bytes.extend_from_slice(&1i32.to_ne_bytes());
        bytes.extend_from_slice(&7i32.to_ne_bytes());
        let got = parse(&bytes, true, &by, &mut |fd| {
            if fd == 7 { Ok(Arc::clone(&file)) } else { Err(Errno::EBADF) }
        });
        let mut flags = MsgFlags::default();
        let back = encode(got.unwrap(), 64, &mut flags, &by, &mut |_| Ok(7));
        assert_eq!(back[..20], bytes[..20]);
        assert!(flags.is_empty());
        bytes[0] = 200;
        assert_eq!(parse(&bytes, true, &by, &mut |_| Err(Errno::EBADF)).err(), Some(Errno::EINVAL));
    }
}
