//! The loop: receive, decode, serve, reply.

use crate::confine::{have_own_descriptors, host, stat_fd};
use crate::handle::{Handles, Held};
use crate::{Config, Export, Filter, GoferError, filter};
use abi::{Errno, SysResult};
use platform::post::Answerer;
use std::os::fd::{AsFd, OwnedFd};
use wire::{Attached, Handle, Node, Reply, Request};

/// Descriptors kept free for the work of one request.
const SPARE_DESCRIPTORS: u64 = 64;

const _: () = assert!(wire::MAX_MESSAGE <= platform::post::ROOM);

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
    let mut post = Answerer::new(socket).map_err(GoferError::Socket)?;
    if filter == Filter::Installed {
        filter::install()?;
    }
    let mut server = Server { exports, handles: Handles::new(limit), scratch: Vec::new() };
    server.run(&mut post).map_err(GoferError::Socket)
}

impl Server {
    fn run(&mut self, post: &mut Answerer) -> SysResult<()> {
        let (mut request, mut bytes) = (Vec::new(), Vec::new());
        while post.next(&mut request, platform::host::rest)? {
            let answer = match Request::decode(&request) {
                Ok((closing, request)) => {
                    closing.into_iter().for_each(|node| self.handles.remove(node));
                    self.handle(request)
                }
                Err(_) => Err(Errno::EBADMSG),
            };
            let answer = answer.unwrap_or_else(|errno| Reply::failed(errno).into());
            bytes.clear();
            if let Err(errno) = answer.reply.encode(&mut bytes) {
                bytes.clear();
                Reply::failed(errno).encode(&mut bytes)?;
            }
            if !post.answer(&mut bytes, answer.donated.as_ref().map(AsFd::as_fd))? {
                break;
            }
        }
        Ok(())
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
            Request::CacheStat { node, offset, len } => self.cache_stat(node, offset, len),
            Request::Cached { node, offset, pages } => self.cached(node, offset, pages),
            Request::GetFlags { node } => self.get_flags(node),
            Request::SetFlags { node, flags } => self.set_flags(node, flags),
            Request::SyncFs { node } => self.sync(node, crate::attributes::Scope::FileSystem),
            Request::Close { nodes } => {
                nodes.into_iter().for_each(|node| self.handles.remove(node));
                Ok(Reply::Done {}.into())
            }
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
