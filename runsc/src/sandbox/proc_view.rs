//! The guest's /proc as a host file system, in the monitor's mount namespace only.
//!
//! `podman top` enters the mount namespace of the container's pid and reads /proc there. The processes that
//! it asks for are the guest kernel's, which the host's procfs does not know. So this serves, over FUSE, the
//! few files of proc(5) that describe processes, read-only, as the guest's own /proc would show them. The
//! messages are those of `linux/fuse.h`, protocol 7.31. Requests are answered between the monitor's other
//! work; what the sentry says is text for the reader and nothing else.

use ::sentry::control::client::Client;
use ::sentry::control::message::{Answer, Ask};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Tables that are not about one process.
const TABLES: [&str; 4] = ["meminfo", "stat", "uptime", "version"];
/// Files of a process.
const FILES: [&str; 10] =
    ["cgroup", "cmdline", "comm", "gid_map", "limits", "loginuid", "stat", "statm", "status", "uid_map"];

/// Links in a process' `ns`.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

const ROOT: u64 = 1;
/// Node numbers: `ROOT`, then tables, then 32 for each process: itself, its files, `ns`, its links.
const FIRST_PROCESS: u64 = 32;
const PER_PROCESS: u64 = 32;
const NS_DIRECTORY: u64 = 16;
const HEADER: usize = 40;
/// Longest request: a header and the arguments of reading calls (the kernel wants room for this much).
const REQUEST_MAX: usize = 8192 + 4096;
const DIRECTORY: u32 = 0o040_555;
const FILE: u32 = 0o100_444;
const LINK: u32 = 0o120_777;
/// FOPEN_DIRECT_IO: sizes are not known before the text is.
const DIRECT_IO: u32 = 1;
/// What is said instead: sendfile(2) reads through the page cache, no further than the size, and takes a
/// short answer for the end.
const SIZE: u64 = 1 << 20;

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Root,
    Table(&'static str),
    Process(u32),
    File(u32, &'static str),
    Namespaces(u32),
    Namespace(u32, &'static str),
}

impl Node {
    fn number(self) -> u64 {
        let at = |list: &[&str], name| list.iter().position(|each| *each == name).map_or(0, |at| at as u64);
        match self {
            Node::Root => ROOT,
            Node::Table(name) => ROOT + 1 + at(&TABLES, name),
            Node::Process(pid) => FIRST_PROCESS + u64::from(pid) * PER_PROCESS,
            Node::File(pid, name) => Node::Process(pid).number() + 1 + at(&FILES, name),
            Node::Namespaces(pid) => Node::Process(pid).number() + NS_DIRECTORY,
            Node::Namespace(pid, name) => Node::Namespaces(pid).number() + 1 + at(&NAMESPACES, name),
        }
    }
    fn of(number: u64) -> Option<Node> {
        if number == ROOT {
            return Some(Node::Root);
        }
        let Some(number) = number.checked_sub(FIRST_PROCESS) else {
            return TABLES.get(usize::try_from(number).ok()?.checked_sub(2)?).map(|name| Node::Table(name));
        };
        let pid = u32::try_from(number / PER_PROCESS).ok()?;
        let at = |from: u64| usize::try_from((number % PER_PROCESS).checked_sub(from)?).ok();
        match number % PER_PROCESS {
            0 => Some(Node::Process(pid)),
            1..NS_DIRECTORY => FILES.get(at(1)?).map(|name| Node::File(pid, name)),
            NS_DIRECTORY => Some(Node::Namespaces(pid)),
            _ => NAMESPACES.get(at(NS_DIRECTORY + 1)?).map(|name| Node::Namespace(pid, name)),
        }
    }
    fn child(self, name: &str) -> Option<Node> {
        match self {
            Node::Root => {
                let table = TABLES.iter().find(|table| **table == name).map(|table| Node::Table(table));
                table.or_else(|| name.parse().ok().map(Node::Process))
            }
            Node::Process(pid) if name == "ns" => Some(Node::Namespaces(pid)),
            Node::Namespaces(pid) => {
                let known = NAMESPACES.iter().find(|known| **known == name);
                known.map(|known| Node::Namespace(pid, known))
            }
            Node::Process(pid) => FILES.iter().find(|file| **file == name).map(|file| Node::File(pid, file)),
            Node::Table(_) | Node::File(..) | Node::Namespace(..) => None,
        }
    }
    fn mode(self) -> u32 {
        match self {
            Node::Root | Node::Process(_) | Node::Namespaces(_) => DIRECTORY,
            Node::Table(_) | Node::File(..) => FILE,
            Node::Namespace(..) => LINK,
        }
    }
    /// Names below a directory, but for the processes.
    fn names(self) -> Vec<&'static str> {
        match self {
            Node::Root => TABLES.to_vec(),
            Node::Process(_) => FILES.iter().copied().chain(["ns"]).collect(),
            Node::Namespaces(_) => NAMESPACES.to_vec(),
            Node::Table(_) | Node::File(..) | Node::Namespace(..) => Vec::new(),
        }
    }
}

/// The server's end.
#[derive(Debug)]
pub(crate) struct ProcView {
    device: OwnedFd,
    container: String,
    open: BTreeMap<u64, Vec<u8>>,
    next_handle: u64,
}

/// A FUSE connection; `None` where the host has none. To be made before this process joins a cgroup, which
/// may forbid the device.
pub(crate) fn device() -> Option<OwnedFd> {
    open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()
}

impl ProcView {
    /// The file system, as a detached mount, and its server.
    pub(crate) fn new(device: OwnedFd, container: &str) -> Option<(OwnedFd, ProcView)> {
        let make = || {
            let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
            let fd = device.as_raw_fd().to_string();
            for (key, value) in
                [("fd", fd.as_str()), ("rootmode", "40555"), ("user_id", "0"), ("group_id", "0")]
            {
                fsconfig_set_string(&context, key, value)?;
            }
            rustix::mount::fsconfig_set_flag(&context, "allow_other")?;
            fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        let mount: Result<OwnedFd, Errno> = make();
        let view =
            ProcView { device, container: container.to_owned(), open: BTreeMap::new(), next_handle: 1 };
        Some((mount.ok()?, view))
    }

    /// For poll(2).
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Answers what is asked now.
    pub(crate) fn serve(&mut self, client: &mut Client) {
        let mut space = vec![0_u8; REQUEST_MAX];
        while let Ok(length) = rustix::io::read(&self.device, &mut space) {
            let Some(request) = space.get(..length).filter(|request| request.len() >= HEADER) else { return };
            let (header, body) = request.split_at(HEADER);
            let unique = word64(header, 8);
            let answer = match word32(header, 4) {
                // FORGET, BATCH_FORGET and INTERRUPT are not answered.
                2 | 42 | 36 => continue,
                code => self.answer(code, word64(header, 16), body, client),
            };
            let (error, body) = match answer {
                Ok(body) => (0, body),
                Err(errno) => (-errno.raw_os_error(), Vec::new()),
            };
            let length = u32::try_from(16 + body.len()).unwrap_or(16);
            let mut reply = Vec::with_capacity(16 + body.len());
            reply.extend_from_slice(&length.to_ne_bytes());
            reply.extend_from_slice(&error.to_ne_bytes());
            reply.extend_from_slice(&unique.to_ne_bytes());
            reply.extend_from_slice(&body);
            // A reader that was interrupted is gone.
            let _ = rustix::io::write(&self.device, &reply);
        }
    }

    fn answer(&mut self, code: u32, node: u64, body: &[u8], client: &mut Client) -> Result<Vec<u8>, Errno> {
        // INIT names no node: version 7.31, no flags.
        if code == 26 {
            let mut reply = Vec::new();
            for word in [7_u32, 31, 0, 0, 0, 4096] {
                reply.extend_from_slice(&word.to_ne_bytes());
            }
            reply.resize(64, 0);
            return Ok(reply);
        }
        let node = Node::of(node).ok_or(Errno::NOENT)?;
        match code {
            // LOOKUP
            1 => {
                let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = std::str::from_utf8(name).map_err(|_| Errno::NOENT)?;
                let child = node.child(name).ok_or(Errno::NOENT)?;
                if let Node::Process(pid) | Node::File(pid, _) | Node::Namespaces(pid) = child {
                    self.read(client, &format!("{pid}/stat"))?;
                }
                let mut entry = words(&[child.number(), 0, 0, 0, 0]);
                entry.extend(attributes(child));
                Ok(entry)
            }
            // GETATTR
            3 => {
                let mut reply = words(&[0, 0]);
                reply.extend(attributes(node));
                Ok(reply)
            }
            // OPEN, OPENDIR
            14 | 27 => {
                let text = match node {
                    Node::Root | Node::Process(_) | Node::Namespaces(_) => self.list(client, node)?,
                    Node::Namespace(..) => return Err(Errno::LOOP),
                    Node::Table(name) => self.read(client, name)?,
                    Node::File(pid, name) => self.read(client, &format!("{pid}/{name}"))?,
                };
                let handle = self.next_handle;
                self.next_handle += 1;
                self.open.insert(handle, text);
                let mut reply = words(&[handle]);
                reply.extend_from_slice(&(if code == 14 { DIRECT_IO } else { 0 }).to_ne_bytes());
                reply.extend_from_slice(&[0; 4]);
                Ok(reply)
            }
            // READ, READDIR: handle, offset, size.
            15 | 28 => {
                let text = self.open.get(&word64(body, 0)).ok_or(Errno::BADF)?;
                let offset = usize::try_from(word64(body, 8)).map_err(|_| Errno::INVAL)?;
                let size = usize::try_from(word32(body, 16)).map_err(|_| Errno::INVAL)?;
                let rest = text.get(offset..).unwrap_or_default();
                let piece = rest.get(..size.min(rest.len())).unwrap_or_default();
                Ok(if code == 28 { whole_entries(piece).to_vec() } else { piece.to_vec() })
            }
            // READLINK
            5 => match node {
                Node::Namespace(pid, name) => self.read(client, &format!("{pid}/ns/{name}")),
                _ => Err(Errno::INVAL),
            },
            // RELEASE, RELEASEDIR
            18 | 29 => {
                self.open.remove(&word64(body, 0));
                Ok(Vec::new())
            }
            // STATFS
            17 => Ok(vec![0; 80]),
            _ => Err(Errno::NOSYS),
        }
    }

    fn read(&self, client: &mut Client, path: &str) -> Result<Vec<u8>, Errno> {
        let ask = Ask::Proc { container: self.container.clone(), path: path.to_owned() };
        match client.ask(ask, &[]) {
            Ok(Answer::Text { bytes }) => Ok(bytes),
            _ => Err(Errno::NOENT),
        }
    }

    /// A directory's entries as READDIR gives them; an offset is one in this text.
    fn list(&self, client: &mut Client, node: Node) -> Result<Vec<u8>, Errno> {
        let mut names: Vec<String> = Vec::new();
        if node == Node::Root {
            let ask = Ask::Processes { container: self.container.clone() };
            let Ok(Answer::Processes { list }) = client.ask(ask, &[]) else { return Err(Errno::IO) };
            names.extend(list.iter().map(|process| process.pid.to_string()));
        }
        names.extend(node.names().into_iter().map(str::to_owned));
        let mut text = Vec::new();
        for name in &names {
            let Some(child) = node.child(name) else { continue };
            let length = (24 + name.len()).next_multiple_of(8);
            let end = text.len() + length;
            text.extend(words(&[child.number(), end as u64]));
            text.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_ne_bytes());
            text.extend_from_slice(&(child.mode() >> 12).to_ne_bytes());
            text.extend_from_slice(name.as_bytes());
            text.resize(end, 0);
        }
        Ok(text)
    }
}

/// As much of a piece of directory as holds whole entries.
fn whole_entries(piece: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some(rest) = piece.get(end..).filter(|rest| rest.len() >= 24) {
        let name = usize::try_from(word32(rest, 16)).unwrap_or(usize::MAX);
        let length = name.saturating_add(24).next_multiple_of(8);
        if length > rest.len() {
            break;
        }
        end += length;
    }
    piece.get(..end).unwrap_or_default()
}

/// `struct fuse_attr`.
fn attributes(node: Node) -> Vec<u8> {
    let size = if node.mode() == FILE { SIZE } else { 0 };
    let mut attr = words(&[node.number(), size, 0, 0, 0, 0]);
    // Three nanoseconds, mode, links, owner, group, device, block size, flags.
    for word in [0, 0, 0, node.mode(), 1, 0, 0, 0, 1024, 0] {
        attr.extend_from_slice(&word.to_ne_bytes());
    }
    attr
}

fn words(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::{FILES, NAMESPACES, Node, TABLES, words};

    #[test]
    fn nodes_and_numbers() {
        let mut nodes = vec![Node::Root, Node::Process(1), Node::Process(u32::MAX)];
        nodes.extend(TABLES.map(Node::Table));
        nodes.extend(FILES.map(|name| Node::File(77, name)));
        nodes.extend(NAMESPACES.map(|name| Node::Namespace(78, name)));
        nodes.push(Node::Namespaces(79));
        for node in nodes {
            assert_eq!(Node::of(node.number()), Some(node));
        }
        assert_eq!(Node::of(0), None);
    }

    #[test]
    fn directories_are_cut_between_entries() {
        let entry = [words(&[5, 32, 3 | 4 << 32]), b"abc\0\0\0\0\0".to_vec()].concat();
        let both = [entry.clone(), entry.clone()].concat();
        assert_eq!(super::whole_entries(&both), &both[..]);
        assert_eq!(super::whole_entries(&both[..40]), &entry[..]);
    }
}
