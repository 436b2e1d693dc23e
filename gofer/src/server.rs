//! The loop: receive, decode, serve, reply.

use crate::confine::{have_own_descriptors, host, stat_fd};
use crate::handle::{Handles, Held};
use crate::{Config, Export, Filter, GoferError, filter};
use abi::{Errno, SysResult};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use wire::{Attached, Handle, MAX_MESSAGE, Node, Reply, Request};

/// Descriptors kept free for the work of one request.
const SPARE_DESCRIPTORS: u64 = 64;

/// All that a gofer knows.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) exports: Vec<Export>,
    pub(crate) handles: Handles,
    /// Room for directory entries and extended attributes, touched as far as they need it.
    pub(crate) scratch: Vec<u8>,
}

/// A reply and the descriptor that rides on it.
pub(crate) struct Answer {
    reply: Reply<'static>,
    donated: Option<OwnedFd>,
}

impl From<Reply<'static>> for Answer {
    fn from(reply: Reply<'static>) -> Answer {
        Answer { reply, donated: None }
    }
}

impl Answer {
    pub(crate) fn with(reply: Reply<'static>, donated: OwnedFd) -> Answer {
        Answer { reply, donated: Some(donated) }
    }
}

/// Serves until the other end closes the socket.
pub fn serve(config: Config) -> Result<(), GoferError> {
    let Config { socket, exports, filter } = config;
    if !have_own_descriptors(socket.as_fd()) {
        return Err(GoferError::NoOwnDescriptors);
    }
    for (index, export) in exports.iter().enumerate() {
        stat_fd(export.root.as_fd()).map_err(|errno| GoferError::Root { index, errno })?;
    }
    // Modes arrive with the guest's umask applied.
    let _previous = rustix::process::umask(rustix::fs::Mode::empty());
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    let limit = files.saturating_sub(SPARE_DESCRIPTORS + u64::try_from(exports.len()).unwrap_or(0));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if filter == Filter::Installed {
        filter::install()?;
    }
    let mut server = Server { exports, handles: Handles::new(limit), scratch: Vec::new() };
    server.run(&socket).map_err(GoferError::Socket)
}

impl Server {
    fn run(&mut self, socket: &OwnedFd) -> SysResult<()> {
        // So large that the allocator maps it: pages that no message reaches never come into being.
        let mut request = vec![0; ROOM];
        let request = request.get_mut(..MAX_MESSAGE).ok_or(Errno::ENOMEM)?;
        let mut bytes = Vec::new();
        // Requests come in bursts, and waking a sleeper costs ten times what most of them take. So after a reply
        // the thread looks for the next request for a moment, giving way to whoever wants its CPU; unless the
        // last such look was in vain. Idle, it sleeps.
        let mut look = Look::Away;
        // Requests to go until it looks again on a machine where giving way costs a turn.
        let mut crowded = 0u32;
        // Whether what start-up took has been given back; once, at the first long silence.
        let mut rested = false;
        loop {
            let found = match look {
                Look::Out if crowded == 0 => look_out(socket, request, &mut crowded)?,
                _ => None,
            };
            crowded = crowded.saturating_sub(1);
            look = if found.is_some() { Look::Out } else { Look::Away };
            let len = match found {
                Some(len) => len,
                None => {
                    let asleep = Instant::now();
                    if !rested && is_quiet(socket) {
                        platform::host::rest();
                        rested = true;
                    }
                    let len = loop {
                        if let Some(len) = receive(socket, request, RecvFlags::TRUNC)? {
                            break len;
                        }
                    };
                    if asleep.elapsed() < LOOK_OUT * 2 {
                        look = Look::Out;
                    }
                    len
                }
            };
            if len == 0 {
                return Ok(());
            }
            let answer = match request.get(..len).map(Request::decode) {
                Some(Ok(Request::Close { nodes })) => {
                    nodes.into_iter().for_each(|node| self.handles.remove(node));
                    continue;
                }
                Some(Ok(request)) => self.handle(request),
                _ => Err(Errno::EBADMSG),
            };
            let answer = answer.unwrap_or_else(|errno| Reply::failed(errno).into());
            bytes.clear();
            if let Err(errno) = answer.reply.encode(&mut bytes) {
                bytes.clear();
                Reply::failed(errno).encode(&mut bytes)?;
            }
            match send(socket, &bytes, answer.donated.as_ref()) {
                Ok(()) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    fn handle(&mut self, request: Request<'_>) -> SysResult<Answer> {
        match request {
            Request::Attach { export } => self.attach(export),
            Request::Walk { from, names, flags } => self.walk(from, &names, flags),
            Request::StatMany { dir, names } => self.stat_many(dir, &names),
            Request::Open { node, name, access } => self.open(node, &name, access),
            Request::Readdir { dir, offset, flags } => self.readdir(dir, offset, flags),
            Request::Create { dir, name, mode, owner, access } => {
                self.create(dir, &name, mode, owner, access)
            }
            Request::Make { dir, name, node, mode, owner } => self.make(dir, &name, &node, mode, owner),
            Request::Unlink { dir, name } => self.unlink(dir, &name, crate::change::Removal::File),
            Request::Rmdir { dir, name } => self.unlink(dir, &name, crate::change::Removal::Directory),
            Request::Rename { old_dir, old_name, new_dir, new_name, flags } => {
                self.rename((old_dir, &old_name), (new_dir, &new_name), flags)
            }
            Request::SetAttr { node, change } => self.set_attr(node, &change),
            Request::GetAttr { node } => {
                let attr = stat_fd(self.handles.get(node)?.fd.as_fd())?;
                Ok(Reply::Attr { attr }.into())
            }
            Request::ReadLink { node } => self.read_link(node),
            Request::StatFs { node } => self.stat_fs(node),
            Request::GetXattr { node, name } => self.get_xattr(node, &name),
            Request::SetXattr { node, name, value, flags } => self.set_xattr(node, &name, &value, flags),
            Request::ListXattr { node } => self.list_xattr(node),
            Request::RemoveXattr { node, name } => self.remove_xattr(node, &name),
            Request::Fsync { node } => self.sync(node, crate::attributes::Scope::File),
            Request::SyncFs { node } => self.sync(node, crate::attributes::Scope::FileSystem),
            // Served without a reply before.
            Request::Close { .. } => Err(Errno::EBADMSG),
        }
    }

    fn attach(&mut self, index: u32) -> SysResult<Answer> {
        let index = usize::try_from(index).map_err(|_| Errno::ENODEV)?;
        let export = self.exports.get(index).ok_or(Errno::ENODEV)?;
        let fd = rustix::io::fcntl_dupfd_cloexec(&export.root, 3).map_err(host)?;
        let (attr, flags) = (stat_fd(fd.as_fd())?, export.flags);
        let handle = self.handles.insert(Held { fd, kind: attr.kind(), export: index, listing: None })?;
        Ok(Reply::Attached { attached: Attached { root: Node { handle, attr }, flags } }.into())
    }

    /// The node, where its export may be changed.
    pub(crate) fn writable(&self, node: Handle) -> SysResult<&Held> {
        let held = self.handles.get(node)?;
        match self.exports.get(held.export) {
            Some(export) if !export.flags.contains(wire::ExportFlags::READ_ONLY) => Ok(held),
            _ => Err(Errno::EROFS),
        }
    }
}

/// How long to look for the next request before sleeping.
const LOOK_OUT: Duration = Duration::from_micros(50);

/// A yield that took this long gave the processor to somebody else, who kept it.
const CROWDED: Duration = Duration::from_micros(200);

/// Requests that are then slept for.
const CROWDED_FOR: u32 = 64;

/// Silence after which memory is given back, once.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Room for requests: more than the allocator takes from its heap.
const ROOM: usize = 256 * 1024;

/// Whether nothing comes for a long moment.
fn is_quiet(socket: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&QUIET)) == Ok(0)
}

/// Whether to look out for the next request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Out,
    Away,
}

/// Looks for the next request for a moment. Sets `crowded` when somebody else took the processor meanwhile: who gave way
/// waits for its turn, a sleeper is woken for what comes.
fn look_out(socket: &OwnedFd, request: &mut [u8], crowded: &mut u32) -> SysResult<Option<usize>> {
    let start = Instant::now();
    loop {
        if let Some(len) = receive(socket, request, RecvFlags::TRUNC | RecvFlags::DONTWAIT)? {
            return Ok(Some(len));
        }
        if start.elapsed() > LOOK_OUT {
            return Ok(None);
        }
        let before = Instant::now();
        rustix::thread::sched_yield();
        if before.elapsed() > CROWDED {
            *crowded = CROWDED_FOR;
        }
    }
}

/// The length of the next message, which may be more than there is room for; 0 at the end.
fn receive(socket: &OwnedFd, request: &mut [u8], flags: RecvFlags) -> SysResult<Option<usize>> {
    // No room for control messages: descriptors that the sentry sends are closed by the host.
    match rustix::net::recv(socket, request, flags) {
        Ok((_, len)) => Ok(Some(len)),
        // A sentry that was killed leaves a reset behind.
        Err(rustix::io::Errno::CONNRESET) => Ok(Some(0)),
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(host(error)),
    }
}

fn send(socket: &OwnedFd, bytes: &[u8], donated: Option<&OwnedFd>) -> SysResult<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let rights = donated.map(|fd| [fd.as_fd()]);
    if let Some(rights) = &rights {
        control.push(SendAncillaryMessage::ScmRights(rights));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map(|_| ()).map_err(host),
        }
    }
}
