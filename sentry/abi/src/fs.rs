//! File flags, modes and types (open(2), inode(7)).

bitflags::bitflags! {
    /// `O_*` flags. `open` keeps unknown bits out of the way; `openat2` refuses them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OpenFlags: u32 {
        /// Write only (access mode bit).
        const WRONLY = 0o1;
        /// Read and write (access mode bit).
        const RDWR = 0o2;
        /// Create if missing.
        const CREAT = 0o100;
        /// Fail if it exists.
        const EXCL = 0o200;
        /// Do not become the controlling terminal.
        const NOCTTY = 0o400;
        /// Cut to length zero.
        const TRUNC = 0o1000;
        /// Every write appends.
        const APPEND = 0o2000;
        /// Never block.
        const NONBLOCK = 0o4000;
        /// Data-synchronised writes.
        const DSYNC = 0o10000;
        /// SIGIO on readiness.
        const ASYNC = 0o20000;
        /// Direct I/O.
        const DIRECT = 0o40000;
        /// Large file; no meaning on 64 bits, but shown by F_GETFL of 64-bit programs that set it.
        const LARGEFILE = 0o100000;
        /// Must be a directory.
        const DIRECTORY = 0o200000;
        /// Do not follow a final symbolic link.
        const NOFOLLOW = 0o400000;
        /// Do not update atime.
        const NOATIME = 0o1000000;
        /// Close on exec (a flag of the descriptor).
        const CLOEXEC = 0o2000000;
        /// File-synchronised writes (with DSYNC).
        const SYNC_BIT = 0o4000000;
        /// Only a reference to the place.
        const PATH = 0o10000000;
        /// Unnamed temporary file (with DIRECTORY).
        const TMPFILE_BIT = 0o20000000;
    }
}

impl OpenFlags {
    /// `O_SYNC`.
    pub const SYNC: OpenFlags = OpenFlags::SYNC_BIT.union(OpenFlags::DSYNC);
    /// `O_TMPFILE`.
    pub const TMPFILE: OpenFlags = OpenFlags::TMPFILE_BIT.union(OpenFlags::DIRECTORY);
    /// Flags that fcntl(F_SETFL) changes.
    pub const SETTABLE: OpenFlags = OpenFlags::APPEND
        .union(OpenFlags::ASYNC)
        .union(OpenFlags::DIRECT)
        .union(OpenFlags::NOATIME)
        .union(OpenFlags::NONBLOCK);

    /// Whether the access mode allows reading (`O_ACCMODE` of 3 allows neither).
    #[must_use]
    pub fn readable(self) -> bool {
        !self.contains(OpenFlags::PATH) && matches!(self.bits() & 3, 0 | 2)
    }
    /// Whether the access mode allows writing.
    #[must_use]
    pub fn writable(self) -> bool {
        !self.contains(OpenFlags::PATH) && matches!(self.bits() & 3, 1 | 2)
    }
}

/// What an inode is (`S_IFMT`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FileType {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// FIFO (named or anonymous pipe).
    Fifo,
    /// Socket.
    Socket,
    /// An anonymous inode: eventfd, epoll and their like have no type bits.
    Anonymous,
}

impl FileType {
    /// The `S_IF*` bits.
    #[must_use]
    pub const fn mode_bits(self) -> u32 {
        match self {
            FileType::Regular => 0o100_000,
            FileType::Directory => 0o040_000,
            FileType::Symlink => 0o120_000,
            FileType::CharDevice => 0o020_000,
            FileType::BlockDevice => 0o060_000,
            FileType::Fifo => 0o010_000,
            FileType::Socket => 0o140_000,
            FileType::Anonymous => 0,
        }
    }
    /// From `st_mode`; `None` for bits that name nothing.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Option<FileType> {
        Some(match mode & 0o170_000 {
            0o100_000 => FileType::Regular,
            0o040_000 => FileType::Directory,
            0o120_000 => FileType::Symlink,
            0o020_000 => FileType::CharDevice,
            0o060_000 => FileType::BlockDevice,
            0o010_000 => FileType::Fifo,
            0o140_000 => FileType::Socket,
            0 => FileType::Anonymous,
            _ => return None,
        })
    }
    /// `d_type` of getdents64(2).
    #[must_use]
    pub const fn dirent_type(self) -> u8 {
        match self {
            FileType::Fifo => 1,
            FileType::CharDevice => 2,
            FileType::Directory => 4,
            FileType::BlockDevice => 6,
            FileType::Regular => 8,
            FileType::Symlink => 10,
            FileType::Socket => 12,
            FileType::Anonymous => 0,
        }
    }
}

/// Permission bits with set-id and sticky, `0o7777` at most.
pub type ModeBits = u32;

/// `makedev(3)` in the kernel's encoding of `st_dev` and `st_rdev`.
#[must_use]
pub const fn make_dev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}
