//! The parts that messages are made of.

use crate::codec::{Malformed, Reader, Wire, flags, record, tagged};
use std::borrow::Cow;

/// Bytes of a name, path or value: borrowed from the message that was decoded, or owned by the one that
/// is about to be sent.
pub type Bytes<'a> = Cow<'a, [u8]>;

/// Names a node that the gofer holds for the client. Checked on every use: a stale or made-up handle is
/// `EBADF`. Zero is no node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Handle(pub u64);

impl Handle {
    /// No node.
    pub const NONE: Handle = Handle(0);

    /// Whether this names a node.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Handle::NONE
    }
}

impl<'a> Wire<'a> for Handle {
    const MIN: usize = 8;
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Handle(u64::get(from)?))
    }
}

/// What kind of file a node is, with the numbers of `DT_*` in readdir(3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The host does not say (`DT_UNKNOWN`).
    Unknown,
    /// FIFO.
    Fifo,
    /// Character device.
    Char,
    /// Directory.
    Directory,
    /// Block device.
    Block,
    /// Regular file.
    Regular,
    /// Symbolic link.
    Symlink,
    /// Socket.
    Socket,
}

impl Kind {
    /// The `DT_*` number.
    #[must_use]
    pub fn dt(self) -> u8 {
        match self {
            Kind::Unknown => 0,
            Kind::Fifo => 1,
            Kind::Char => 2,
            Kind::Directory => 4,
            Kind::Block => 6,
            Kind::Regular => 8,
            Kind::Symlink => 10,
            Kind::Socket => 12,
        }
    }

    /// From a `DT_*` number; anything else is unknown.
    #[must_use]
    pub fn from_dt(dt: u8) -> Kind {
        match dt {
            1 => Kind::Fifo,
            2 => Kind::Char,
            4 => Kind::Directory,
            6 => Kind::Block,
            8 => Kind::Regular,
            10 => Kind::Symlink,
            12 => Kind::Socket,
            _ => Kind::Unknown,
        }
    }

    /// From the `S_IFMT` bits of a mode.
    #[must_use]
    pub fn from_mode(mode: u32) -> Kind {
        Kind::from_dt(u8::try_from((mode & 0o170_000) >> 12).unwrap_or(0))
    }

    /// The `S_IFMT` bits of a mode.
    #[must_use]
    pub fn mode(self) -> u32 {
        u32::from(self.dt()) << 12
    }
}

impl<'a> Wire<'a> for Kind {
    const MIN: usize = 1;
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.dt());
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Kind::from_dt(u8::get(from)?))
    }
}

record! {
    /// A point in time, as in `struct statx_timestamp`.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
    pub struct Time {
        /// Seconds since the epoch.
        pub sec: i64,
        /// Nanoseconds, below 1,000,000,000.
        pub nsec: u32,
    }
}

record! {
    /// Attributes of a node, as statx(2) gives them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Attr {
        /// Type and permission bits.
        pub mode: u32,
        /// Hard links.
        pub nlink: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// Device number of a device node: major and minor.
        pub rdev: (u32, u32),
        /// Host device the node lives on: major and minor. With `ino` it tells nodes apart.
        pub dev: (u32, u32),
        /// Inode number on that device.
        pub ino: u64,
        /// Size in bytes.
        pub size: u64,
        /// Blocks of 512 bytes.
        pub blocks: u64,
        /// Preferred size of I/O in bytes.
        pub blksize: u32,
        /// Last access.
        pub atime: Time,
        /// Last change of content.
        pub mtime: Time,
        /// Last change of attributes.
        pub ctime: Time,
        /// Birth, or zero where the host does not know it.
        pub btime: Time,
    }
}

impl Attr {
    /// The kind that `mode` says.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_mode(self.mode)
    }
}

impl<'a> Wire<'a> for (u32, u32) {
    const MIN: usize = 8;
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok((u32::get(from)?, u32::get(from)?))
    }
}

record! {
    /// A node that a request found or made.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Node {
        /// The handle, or none where the request did not ask for one.
        pub handle: Handle,
        /// Attributes.
        pub attr: Attr,
    }
}

bitflags::bitflags! {
    /// What an export is.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ExportFlags: u32 {
        /// Every change is `EROFS`.
        const READ_ONLY = 1;
        /// Others may change the files while the sandbox runs (a bind mount): nothing may be cached unchecked.
        const SHARED = 2;
        /// FIFOs may be opened.
        const OPEN_FIFO = 4;
    }

    /// What a walk should return.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct WalkFlags: u32 {
        /// A handle for the last node returned.
        const HANDLE_LAST = 1;
        /// A handle for every directory, the last node included.
        const HANDLE_DIRS = 2;
    }

    /// What a readdir should return.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ReaddirFlags: u32 {
        /// Attributes of every entry (one statx on the host each).
        const ATTRS = 1;
        /// Start over, whatever the offset says.
        const REWIND = 2;
    }

    /// How to open.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Access: u32 {
        /// For reading.
        const READ = 1;
        /// For writing.
        const WRITE = 2;
        /// Past the page cache (`O_DIRECT`).
        const DIRECT = 4;
        /// Cut to zero length, with `WRITE` only.
        const TRUNCATE = 8;
        /// `Create` only, with an empty name: in no directory until a hard link is made to it (`O_TMPFILE`).
        const UNNAMED = 16;
    }

    /// `RENAME_*` of renameat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RenameFlags: u32 {
        /// The new name must not exist.
        const NOREPLACE = 1;
        /// The two names change places.
        const EXCHANGE = 2;
        /// The old name becomes overlayfs's whiteout.
        const WHITEOUT = 4;
    }

    /// `XATTR_*` of setxattr(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct XattrFlags: u32 {
        /// The attribute must not exist.
        const CREATE = 1;
        /// The attribute must exist.
        const REPLACE = 2;
    }
}

flags!(ExportFlags(u32), WalkFlags(u32), ReaddirFlags(u32), Access(u32), RenameFlags(u32), XattrFlags(u32));

record! {
    /// An export's root.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Attached {
        /// The root directory (or the file, where a bind mount is one).
        pub root: Node,
        /// What the export is.
        pub flags: ExportFlags,
    }
}

tagged! {
    /// Why a walk ended.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum WalkEnd<'a> {
        /// All components were found.
        1 Complete {},
        /// The last node returned is a symbolic link and stands before the end, or at it.
        2 Symlink {
            /// Where it leads.
            target: Bytes<'a>,
        },
        /// The component after the last node returned does not exist.
        3 Missing {
            /// Attributes of the directory that it is missing from.
            dir: Attr,
            /// 1 where that directory has a default access control list, and the export is shared.
            default_acl: u8,
        },
        /// The last node returned is not a directory, and components are left.
        4 NotDirectory {},
        /// The component after the last node returned could not be looked at.
        5 Failed {
            /// The errno.
            errno: u16,
        },
    }
}

record! {
    /// Owner of a new node.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Owner {
        /// Owner.
        pub uid: u32,
        /// Group; the sentry has applied the parent's set-group-id bit already.
        pub gid: u32,
    }
}

tagged! {
    /// What to make.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum NewNode<'a> {
        /// A directory.
        1 Directory {},
        /// A FIFO, socket, regular file, or the 0:0 character device that overlayfs uses as a whiteout.
        2 Special {
            /// Which.
            kind: Kind,
        },
        /// A symbolic link.
        3 Symlink {
            /// Where it leads: any bytes but NUL.
            target: Bytes<'a>,
        },
        /// Another name of a node.
        4 Link {
            /// The node.
            node: Handle,
        },
    }
}

record! {
    /// One entry of a directory. `.` and `..` are left out.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct DirEntry<'a> {
        /// Its name.
        pub name: Bytes<'a>,
        /// Inode number.
        pub ino: u64,
        /// Kind.
        pub kind: Kind,
        /// Where the next entry starts; opaque, given back in the next request.
        pub next: u64,
        /// Attributes, where asked for and to be had.
        pub attr: Option<Attr>,
    }
}

/// A new time for a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeChange {
    /// The host's clock now.
    Now,
    /// This time.
    To(Time),
}

impl<'a> Wire<'a> for TimeChange {
    const MIN: usize = 1;
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            TimeChange::Now => None,
            TimeChange::To(time) => Some(*time),
        }
        .put(out);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Option::<Time>::get(from)?.map_or(TimeChange::Now, TimeChange::To))
    }
}

record! {
    /// What to change; `None` stays.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SetAttr {
        /// Permission bits (07777).
        pub mode: Option<u32>,
        /// Owner.
        pub uid: Option<u32>,
        /// Group.
        pub gid: Option<u32>,
        /// Size in bytes.
        pub size: Option<u64>,
        /// Last access.
        pub atime: Option<TimeChange>,
        /// Last change of content.
        pub mtime: Option<TimeChange>,
    }
}

record! {
    /// statfs(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct StatFs {
        /// Type of file system.
        pub kind: u64,
        /// Block size in bytes.
        pub bsize: u64,
        /// Blocks in all.
        pub blocks: u64,
        /// Free blocks.
        pub bfree: u64,
        /// Free blocks for users without privilege.
        pub bavail: u64,
        /// Inodes in all.
        pub files: u64,
        /// Free inodes.
        pub ffree: u64,
        /// Longest name.
        pub namelen: u64,
        /// Fragment size in bytes.
        pub frsize: u64,
    }
}
