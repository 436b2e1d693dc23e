//! Magic links of /proc/pid: cwd, root, exe, fd, map_files, ns; and fdinfo.

use super::nsfs::{NAMES, NsHandle};
use super::pids::{checked_like_fd, numbered, parse_number};
use super::subject::{PtraceAccess, Subject};
use crate::files::{FdTable, OnExec};
use abi::fs::{FileType, OpenFlags};
use abi::{Errno, Fd, SysResult};
use lock::Ranked;
use lock::order::Leaf;
use std::any::Any;
use std::sync::Arc;
use vfs::synthetic::{Directory, Listed, Node, Text};
use vfs::{Caller, LinkTarget, Location, OpenFile};

fn magic<T: Any + Send + Sync>(target: Arc<T>) -> LinkTarget {
    LinkTarget::Magic(target)
}

pub(super) fn cwd(subject: &Subject, by: &Caller<'_>) -> SysResult<LinkTarget> {
    subject.check(PtraceAccess::Read, by)?;
    let fs = subject.published()?.fs.ok_or(Errno::ENOENT)?.snapshot();
    Ok(magic(Arc::new(fs.cwd.clone())))
}

pub(super) fn root(subject: &Subject, by: &Caller<'_>) -> SysResult<LinkTarget> {
    subject.check(PtraceAccess::Read, by)?;
    let fs = subject.published()?.fs.ok_or(Errno::ENOENT)?.snapshot();
    Ok(magic(Arc::new(fs.root.clone())))
}

pub(super) fn exe(subject: &Subject, by: &Caller<'_>) -> SysResult<LinkTarget> {
    subject.check(PtraceAccess::Read, by)?;
    let exe = subject.published()?.mm.and_then(|mm| mm.exe()).ok_or(Errno::ENOENT)?;
    if let Some(program) = exe.downcast_ref::<crate::loader::Executable>() {
        return Ok(magic(Arc::new(program.location.clone())));
    }
    if let Some(place) = exe.downcast_ref::<Location>() {
        return Ok(magic(Arc::new(place.clone())));
    }
    Ok(magic(exe.downcast::<OpenFile>().map_err(|_| Errno::ENOENT)?))
}

fn files(subject: &Subject) -> SysResult<Arc<FdTable>> {
    subject.published().map_err(|_| Errno::ENOENT)?.files.ok_or(Errno::ENOENT)
}

fn descriptor(name: &[u8]) -> SysResult<Fd> {
    let number = parse_number(name)?;
    Fd::from_index(usize::try_from(number).map_err(|_| Errno::ENOENT)?).map_err(|_| Errno::ENOENT)
}

fn list_descriptors(subject: &Subject, from: u64, kind: FileType) -> SysResult<Vec<Listed>> {
    let entries = files(subject)?.entries();
    let numbers =
        entries.iter().filter_map(|entry| entry.fd.index().ok().and_then(|at| u32::try_from(at).ok()));
    Ok(numbers.filter(|number| u64::from(*number) >= from).map(|number| numbered(number, kind)).collect())
}

/// Permission bits of a descriptor's link.
fn link_perm(flags: OpenFlags) -> u32 {
    let mut perm = 0;
    if flags.readable() {
        perm |= 0o500;
    }
    if flags.writable() {
        perm |= 0o300;
    }
    perm
}

struct Descriptors(Subject);

impl Directory for Descriptors {
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Node> {
        let fd = descriptor(name)?;
        let file = files(&self.0)?.get(fd).map_err(|_| Errno::ENOENT)?;
        let perm = link_perm(file.flags());
        drop(file);
        let subject = self.0.clone();
        let (uid, gid) = subject.owner();
        let node = Node::link(move |by| {
            subject.check(PtraceAccess::Read, by)?;
            Ok(magic(files(&subject)?.get(fd).map_err(|_| Errno::ENOENT)?))
        });
        Ok(node.with_perm(perm).owned(uid, gid))
    }
    fn list(&self, from: u64, _by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        list_descriptors(&self.0, from, FileType::Symlink)
    }
}

pub(super) fn fd_dir(subject: &Subject) -> Node {
    checked_like_fd(Node::changing_dir(0o500, Arc::new(Descriptors(subject.clone()))), subject)
}

struct DescriptorInfo(Subject);

impl Directory for DescriptorInfo {
    fn lookup(&self, name: &[u8], by: &Caller<'_>) -> SysResult<Node> {
        self.0.check(PtraceAccess::Read, by)?;
        let fd = descriptor(name)?;
        files(&self.0)?.get(fd).map_err(|_| Errno::ENOENT)?;
        let subject = self.0.clone();
        let (uid, gid) = subject.owner();
        let text = InfoText { subject, fd, seen: Ranked::new(None) };
        Ok(Node::file(0o444, Arc::new(text)).owned(uid, gid))
    }
    fn list(&self, from: u64, by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        self.0.check(PtraceAccess::Read, by)?;
        list_descriptors(&self.0, from, FileType::Regular)
    }
}

/// Taken when it is opened: a read holds the position of its own file, which may be the one it is about.
struct InfoText {
    subject: Subject,
    fd: Fd,
    seen: Ranked<Leaf, Option<Arc<[u8]>>>,
}

impl Text for InfoText {
    fn read(&self, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
        let seen = self.seen.lock().clone();
        seen.map(|text| text.to_vec()).ok_or(Errno::ENOENT)
    }
    fn check_open(&self, _flags: OpenFlags, by: &Caller<'_>) -> SysResult<()> {
        let text: Arc<[u8]> = Arc::from(fdinfo(&self.subject, self.fd, by)?);
        let old = self.seen.lock().replace(text);
        drop(old);
        Ok(())
    }
}

fn fdinfo(subject: &Subject, fd: Fd, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let table = files(subject)?;
    let file = table.get(fd).map_err(|_| Errno::ENOENT)?;
    let mut flags = file.flags();
    if table.on_exec(fd) == Ok(OnExec::Close) {
        flags |= OpenFlags::CLOEXEC;
    }
    let place = vfs::anon::location_of(&file);
    let ino = file.attr(by).map_or(0, |attr| attr.ino);
    let head = format!(
        "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{ino}\n",
        file.position(),
        flags.bits(),
        place.mount.id
    );
    let mut out = head.into_bytes();
    file.ops().fdinfo(&mut out);
    Ok(out)
}

pub(super) fn fdinfo_dir(subject: &Subject) -> Node {
    Node::changing_dir(0o555, Arc::new(DescriptorInfo(subject.clone())))
}

struct MapFiles(Subject);

impl MapFiles {
    fn areas(&self) -> SysResult<Vec<mm::AreaInfo>> {
        let mm = self.0.published().map_err(|_| Errno::ENOENT)?.mm.ok_or(Errno::ENOENT)?;
        let mut areas = mm.areas(0, usize::MAX);
        areas.retain(|area| super::memory::place_of(area).is_some());
        Ok(areas)
    }
}

fn map_name(area: &mm::AreaInfo) -> Vec<u8> {
    format!("{:x}-{:x}", area.range.start(), area.range.end()).into_bytes()
}

impl Directory for MapFiles {
    fn lookup(&self, name: &[u8], by: &Caller<'_>) -> SysResult<Node> {
        self.0.check(PtraceAccess::Read, by)?;
        let area = self.areas()?.into_iter().find(|area| map_name(area) == name).ok_or(Errno::ENOENT)?;
        let perm = if area.flags.contains(mm::VmaFlags::SHARED) { 0o700 } else { 0o500 };
        let place = super::memory::place_of(&area).ok_or(Errno::ENOENT)?;
        let subject = self.0.clone();
        let node = Node::link(move |by| {
            subject.check(PtraceAccess::Read, by)?;
            Ok(magic(Arc::new(place.clone())))
        });
        Ok(node.with_perm(perm))
    }
    fn list(&self, from: u64, by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        self.0.check(PtraceAccess::Read, by)?;
        let areas = self.areas()?;
        let listed = areas.iter().map(|area| Listed {
            name: map_name(area),
            kind: FileType::Symlink,
            key: area.range.start() / abi::PAGE_SIZE,
        });
        Ok(listed.filter(|entry| entry.key >= from).collect())
    }
}

pub(super) fn map_files_dir(subject: &Subject) -> Node {
    checked_like_fd(Node::changing_dir(0o500, Arc::new(MapFiles(subject.clone()))), subject)
}

struct NsLinks(Subject);

impl Directory for NsLinks {
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Node> {
        let name = NAMES.iter().find(|known| known.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let subject = self.0.clone();
        let (uid, gid) = subject.owner();
        let node = Node::link(move |by| {
            subject.check(PtraceAccess::Read, by)?;
            let handle = NsHandle::of(&subject.published()?, name).ok_or(Errno::ENOENT)?;
            Ok(magic(Arc::new(handle.location())))
        });
        Ok(node.owned(uid, gid))
    }
    fn list(&self, from: u64, by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        self.0.check(PtraceAccess::Read, by)?;
        let names = (0_u64..).zip(NAMES).filter(|(key, _)| *key >= from);
        Ok(names
            .map(|(key, name)| Listed { name: name.as_bytes().to_vec(), kind: FileType::Symlink, key })
            .collect())
    }
}

pub(super) fn ns_dir(subject: &Subject) -> Node {
    Node::changing_dir(0o511, Arc::new(NsLinks(subject.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_of_descriptor_links() {
        assert_eq!(link_perm(OpenFlags::empty()), 0o500);
        assert_eq!(link_perm(OpenFlags::WRONLY), 0o300);
        assert_eq!(link_perm(OpenFlags::RDWR), 0o700);
        assert_eq!(link_perm(OpenFlags::PATH), 0);
    }
}
