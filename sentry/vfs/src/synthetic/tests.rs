use super::{Directory, Listed, Node, SynthFs};
use crate::caller::Caller;
use crate::inode::DentryHint;
use crate::mount::{Mount, MountFlags};
use crate::ops;
use crate::tmpfs::tests::{Names, context, frames, get, list, root_of};
use crate::walk::{Follow, Walk};
use abi::fs::{FileType, OpenFlags};
use abi::{Errno, SysResult};
use mm::io::SliceSource;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Numbers;
impl Directory for Numbers {
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Node> {
        let n: u64 = std::str::from_utf8(name).ok().and_then(|s| s.parse().ok()).ok_or(Errno::ENOENT)?;
        if n >= 100 {
            return Err(Errno::ENOENT);
        }
        Ok(Node::text(0o444, move |_| Ok(format!("{}\n", n * n).into_bytes())))
    }
    fn list(&self, from: u64, _by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        let entry = |key: u64| Listed { name: key.to_string().into_bytes(), kind: FileType::Regular, key };
        Ok((from..100).map(entry).collect())
    }
}

#[test]
fn fixed_and_changing_entries() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    let synth = SynthFs::new("proc", 0x9fa0, DentryHint::Never, Node::changing_dir(0o555, Arc::new(Numbers)));
    let root = synth.root_inode().unwrap();
    let value = Arc::new(AtomicU64::new(5));
    let (reader, writer) = (Arc::clone(&value), value);
    root.dir("sys").dir("kernel").add(
        "value",
        Node::text_rw(
            0o644,
            move |_| Ok(format!("{}\n", reader.load(Ordering::Relaxed)).into_bytes()),
            move |w, _| {
                writer.store(w.number()?, Ordering::Relaxed);
                Ok(w.bytes.len())
            },
        ),
    );
    root.add("self", Node::link_to(b"7"));
    ops::mkdir(&walk, b"/proc", 0o555).unwrap();
    let mount = Mount::of_fs(synth, MountFlags::empty(), b"proc");
    let at = walk.find(b"/proc", Follow::Yes).unwrap();
    crate::mount_ops::attach(&mount, &at, &fs.ns).unwrap();
    assert_eq!(get(&walk, "/proc/sys/kernel/value").unwrap(), b"5\n");
    let file = ops::open(&walk, b"/proc/sys/kernel/value", OpenFlags::WRONLY | OpenFlags::TRUNC, 0).unwrap();
    assert_eq!(file.write(&mut SliceSource::new(b"42\n"), &by), Ok(3));
    assert_eq!(file.write(&mut SliceSource::new(b"x"), &by), Err(Errno::EINVAL.into()));
    assert_eq!(get(&walk, "/proc/sys/kernel/value").unwrap(), b"42\n");
    assert_eq!(get(&walk, "/proc/self").unwrap(), b"49\n");
    assert_eq!(get(&walk, "/proc/100"), Err(Errno::ENOENT.into()));
    assert_eq!(list(&walk, "/proc").len(), 104);
    let dir = ops::open(&walk, b"/proc", OpenFlags::DIRECTORY, 0).unwrap();
    let mut seen = 0;
    loop {
        let mut names = Names(Vec::new(), 9);
        dir.read_dir(&mut names, &by).unwrap();
        if names.0.is_empty() {
            break;
        }
        seen += names.0.len();
    }
    assert_eq!(seen, 104);
    // A mount on a name that is never cached is found again, and hides what is below it.
    crate::tmpfs::tests::put(&walk, "/cover", b"covered");
    let bind = crate::mount_ops::MountCall::BIND;
    ops::mount(&walk, b"/cover", b"/proc/sys/kernel/value", b"", bind, b"").unwrap();
    assert_eq!(get(&walk, "/proc/sys/kernel/value").unwrap(), b"covered");
    ops::umount(&walk, b"/proc/sys/kernel/value", crate::mount_ops::UmountFlags::empty()).unwrap();
    assert_eq!(get(&walk, "/proc/sys/kernel/value").unwrap(), b"42\n");
}
