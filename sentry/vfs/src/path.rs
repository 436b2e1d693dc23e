//! Paths of places: getcwd(2), /proc/pid/fd links, mountinfo.

use crate::dentry::Dentry;
use crate::mount::{Location, Mount, MountFlags};
use std::sync::Arc;

/// A path as shown to a process, and whether its root leads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The text, with " (deleted)" where Linux shows it.
    pub text: Vec<u8>,
    /// False when the place is not below the root.
    pub reachable: bool,
    /// Whether the name was removed.
    pub deleted: bool,
}

fn push_front(parts: &mut Vec<Arc<[u8]>>, name: Arc<[u8]>) {
    parts.push(name);
}

fn join(parts: &[Arc<[u8]>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(parts.iter().map(|p| p.len() + 1).sum::<usize>().max(1));
    for part in parts.iter().rev() {
        text.push(b'/');
        text.extend_from_slice(part);
    }
    if text.is_empty() {
        text.push(b'/');
    }
    text
}

/// The path of `at` as a process with `root` sees it.
#[must_use]
pub fn show(at: &Location, root: &Location) -> Shown {
    let mut parts = Vec::new();
    let mut here = at.clone();
    let mut reachable = false;
    loop {
        if here == *root {
            reachable = true;
            break;
        }
        if here.is_mount_root() {
            match here.mount.above() {
                Some((mount, dentry)) => here = Location { mount, dentry },
                None => break,
            }
            continue;
        }
        match here.dentry.parent() {
            Some(parent) => {
                push_front(&mut parts, here.dentry.name());
                here.dentry = parent;
            }
            None => break,
        }
    }
    let deleted = at.dentry.is_dead();
    // Pipes, sockets, memfds: their root dentry carries the whole name.
    let own = here.dentry.name();
    let mut text =
        if !own.is_empty() && here.dentry.parent().is_none() { own.to_vec() } else { join(&parts) };
    if deleted {
        text.extend_from_slice(b" (deleted)");
    }
    Shown { text, reachable, deleted }
}

/// getcwd(2): like [`show`], "(unreachable)" in front of places outside the root.
#[must_use]
pub fn show_cwd(at: &Location, root: &Location) -> Shown {
    let mut shown = show(at, root);
    if !shown.reachable {
        let mut text = b"(unreachable)".to_vec();
        text.append(&mut shown.text);
        shown.text = text;
    }
    shown
}

/// Whether `at` is `top` or below it, through mounts.
#[must_use]
pub fn is_below(at: &Location, top: &Location) -> bool {
    let mut here = at.clone();
    loop {
        if here == *top {
            return true;
        }
        let up = if here.is_mount_root() {
            here.mount.above().map(|(mount, dentry)| Location { mount, dentry })
        } else {
            here.dentry.parent().map(|dentry| Location { mount: Arc::clone(&here.mount), dentry })
        };
        match up {
            Some(up) => here = up,
            None => return false,
        }
    }
}

/// The path of a dentry in its file system.
#[must_use]
pub fn in_fs(dentry: &Arc<Dentry>) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut at = Arc::clone(dentry);
    while let Some(parent) = at.parent() {
        push_front(&mut parts, at.name());
        at = parent;
    }
    join(&parts)
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            _ => out.push(*byte),
        }
    }
}

fn options(flags: MountFlags) -> String {
    let mut text = String::from(if flags.contains(MountFlags::RDONLY) { "ro" } else { "rw" });
    for (flag, name) in [
        (MountFlags::NOSUID, ",nosuid"),
        (MountFlags::NODEV, ",nodev"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
        (MountFlags::NOSYMFOLLOW, ",nosymfollow"),
    ] {
        if flags.contains(flag) {
            text.push_str(name);
        }
    }
    text
}

fn super_options(mount: &Mount) -> String {
    let ro = mount.sb.read_only.load(std::sync::atomic::Ordering::Acquire);
    format!("{}{}", if ro { "ro" } else { "rw" }, mount.sb.fs.options())
}

fn point(mount: &Arc<Mount>, root: &Location) -> Option<Vec<u8>> {
    let place = Location::root_of(mount);
    let shown = show(&place, root);
    shown.reachable.then_some(shown.text)
}

/// Which part of its file system is mounted.
#[must_use]
pub fn root_field(mount: &Mount) -> Vec<u8> {
    let (place, inside) = (mount.sb.fs.place().as_bytes(), in_fs(&mount.root));
    match (place, inside.as_slice()) {
        (b"/", _) => inside,
        (_, b"/") => place.to_vec(),
        _ => [place, &inside].concat(),
    }
}

/// One line of /proc/pid/mountinfo; `None` for mounts the process cannot see.
#[must_use]
pub fn mountinfo_line(mount: &Arc<Mount>, root: &Location) -> Option<Vec<u8>> {
    let point = point(mount, root)?;
    let parent = mount.above().map_or(mount.id, |(parent, _)| parent.id);
    let dev = mount.sb.fs.dev();
    let (major, minor) = (crate::vfs::major(dev), crate::vfs::minor(dev));
    let mut line = format!("{} {parent} {major}:{minor} ", mount.id).into_bytes();
    escape(&mut line, &root_field(mount));
    line.push(b' ');
    escape(&mut line, &point);
    line.extend_from_slice(format!(" {}", options(mount.flags())).as_bytes());
    if let Some(group) = mount.group() {
        line.extend_from_slice(format!(" shared:{}", group.id).as_bytes());
    }
    if let Some(master) = mount.master() {
        line.extend_from_slice(format!(" master:{}", master.id).as_bytes());
    }
    if mount.is_unbindable() {
        line.extend_from_slice(b" unbindable");
    }
    line.extend_from_slice(format!(" - {} ", mount.sb.fs.name()).as_bytes());
    escape(&mut line, if mount.source.is_empty() { b"none" } else { &mount.source });
    line.extend_from_slice(format!(" {}\n", super_options(mount)).as_bytes());
    Some(line)
}

/// One line of /proc/pid/mounts.
#[must_use]
pub fn mounts_line(mount: &Arc<Mount>, root: &Location) -> Option<Vec<u8>> {
    let point = point(mount, root)?;
    let mut line = Vec::new();
    escape(&mut line, if mount.source.is_empty() { b"none" } else { &mount.source });
    line.push(b' ');
    escape(&mut line, &point);
    let rest = super_options(mount);
    let rest = rest.get(2..).unwrap_or_default();
    line.extend_from_slice(
        format!(" {} {}{rest} 0 0\n", mount.sb.fs.name(), options(mount.flags_in_force())).as_bytes(),
    );
    Some(line)
}
