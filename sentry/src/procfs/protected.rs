//! fs.protected_symlinks and its kin.

use super::text::number;
use abi::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vfs::protected::SETTINGS;
use vfs::synthetic::{Node, SynthInode};

/// Name, place and largest value.
static VALUES: [(&str, &AtomicU32, u32); 4] = [
    ("protected_symlinks", &SETTINGS.symlinks, 1),
    ("protected_hardlinks", &SETTINGS.hardlinks, 1),
    ("protected_fifos", &SETTINGS.fifos, 2),
    ("protected_regular", &SETTINGS.regular, 2),
];

/// Sets one by its path below /proc/sys (`linux.sysctl`); `None` when it is none of them.
pub(super) fn set(path: &str, text: &str) -> Option<abi::SysResult<()>> {
    let name = path.strip_prefix("fs/")?;
    let (_, place, most) = VALUES.iter().find(|(known, ..)| *known == name)?;
    Some(match text.trim().parse::<u32>() {
        Ok(value) if value <= *most => {
            place.store(value, Ordering::Relaxed);
            Ok(())
        }
        _ => Err(Errno::EINVAL),
    })
}

/// Hangs them below `fs`.
pub(super) fn build(fs: &Arc<SynthInode>) {
    for (name, place, most) in &VALUES {
        let node = Node::text_rw(
            0o644,
            |_| Ok(number(place.load(Ordering::Relaxed))),
            |write, _| match write.number::<u32>()? {
                value if value <= *most => {
                    place.store(value, Ordering::Relaxed);
                    Ok(write.bytes.len())
                }
                _ => Err(Errno::EINVAL),
            },
        );
        fs.add(name, node);
    }
}
