//! Requests and replies.

use crate::MAX_MESSAGE;
use crate::codec::{Malformed, Reader, Wire, put_list, tagged};
use crate::types::{
    Access, Attached, Attr, Bytes, DirEntry, Handle, NewNode, Node, Owner, ReaddirFlags, RenameFlags,
    SetAttr, StatFs, WalkEnd, WalkFlags, XattrFlags,
};
use abi::Errno;

tagged! {
    /// What the sentry asks. Each says which reply it gets; any may get `Reply::Failed`.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Request<'a> {
        /// The root of an export. `Attached`.
        1 Attach {
            /// Index in the order the gofer was given them.
            export: u32,
        },
        /// Follows components one by one without ever following a link. `Walked`.
        2 Walk {
            /// Where to start.
            from: Handle,
            /// Components.
            names: Vec<Bytes<'a>>,
            /// Handles to return.
            flags: WalkFlags,
        },
        /// Attributes of many names of one directory. `Stats`.
        3 StatMany {
            /// The directory.
            dir: Handle,
            /// Names in it.
            names: Vec<Bytes<'a>>,
        },
        /// A descriptor of a regular file. `Donated`.
        4 Open {
            /// The file, or the directory it is in.
            node: Handle,
            /// Name in that directory; empty where `node` is the file.
            name: Bytes<'a>,
            /// How.
            access: Access,
        },
        /// The next entries of a directory, as many as fit. `Entries`.
        5 Readdir {
            /// The directory.
            dir: Handle,
            /// 0, or the `next` of the last entry seen.
            offset: u64,
            /// What to return.
            flags: ReaddirFlags,
        },
        /// Makes a regular file that must not exist, and opens it. `Created` with a descriptor. `EOPNOTSUPP` where the
        /// host's file system has no unnamed files.
        6 Create {
            /// The directory.
            dir: Handle,
            /// New name.
            name: Bytes<'a>,
            /// Permission bits (07777), umask applied.
            mode: u32,
            /// Owner.
            owner: Owner,
            /// How to open.
            access: Access,
        },
        /// Makes a node that must not exist. `Created`.
        7 Make {
            /// The directory.
            dir: Handle,
            /// New name.
            name: Bytes<'a>,
            /// What to make.
            node: NewNode<'a>,
            /// Permission bits (07777), umask applied; ignored for links.
            mode: u32,
            /// Owner; ignored for hard links.
            owner: Owner,
        },
        /// unlink(2). `Changed`.
        8 Unlink {
            /// The directory.
            dir: Handle,
            /// Name.
            name: Bytes<'a>,
        },
        /// rmdir(2). `Changed`.
        9 Rmdir {
            /// The directory.
            dir: Handle,
            /// Name.
            name: Bytes<'a>,
        },
        /// renameat2(2) inside one export. `Changed`.
        10 Rename {
            /// Directory of the old name.
            old_dir: Handle,
            /// Old name.
            old_name: Bytes<'a>,
            /// Directory of the new name.
            new_dir: Handle,
            /// New name.
            new_name: Bytes<'a>,
            /// Flags.
            flags: RenameFlags,
        },
        /// Changes attributes, in the order size, owner, mode, times. `Attr`.
        11 SetAttr {
            /// The node.
            node: Handle,
            /// What to change.
            change: SetAttr,
        },
        /// Attributes now. `Attr`.
        12 GetAttr {
            /// The node.
            node: Handle,
        },
        /// readlink(2). `Data`.
        13 ReadLink {
            /// The symbolic link.
            node: Handle,
        },
        /// statfs(2). `StatFs`.
        14 StatFs {
            /// Any node of the file system.
            node: Handle,
        },
        /// getxattr(2). `Data`.
        15 GetXattr {
            /// The node.
            node: Handle,
            /// Attribute.
            name: Bytes<'a>,
        },
        /// setxattr(2). `Done`.
        16 SetXattr {
            /// The node.
            node: Handle,
            /// Attribute.
            name: Bytes<'a>,
            /// Value.
            value: Bytes<'a>,
            /// Flags.
            flags: XattrFlags,
        },
        /// listxattr(2): names, each with a NUL behind. `Data`.
        17 ListXattr {
            /// The node.
            node: Handle,
        },
        /// removexattr(2). `Done`.
        18 RemoveXattr {
            /// The node.
            node: Handle,
            /// Attribute.
            name: Bytes<'a>,
        },
        /// fsync(2) of a directory or file. `Done`.
        19 Fsync {
            /// The node.
            node: Handle,
        },
        /// Gives handles back; unknown ones are ignored. `Done`.
        20 Close {
            /// The handles.
            nodes: Vec<Handle>,
        },
        /// syncfs(2). `Done`.
        21 SyncFs {
            /// Any directory or regular file of the file system.
            node: Handle,
        },
        /// FS_IOC_GETFLAGS: four bytes, the least significant first. `Data`.
        22 GetFlags {
            /// A directory or regular file.
            node: Handle,
        },
        /// FS_IOC_SETFLAGS. `Done`.
        23 SetFlags {
            /// A directory or regular file.
            node: Handle,
            /// `FS_*_FL`.
            flags: u32,
        },
        /// cachestat(2): five numbers of eight bytes, the least significant first. `Data`.
        24 CacheStat {
            /// A regular file.
            node: Handle,
            /// From which byte on.
            offset: u64,
            /// How many bytes; 0 for all that follow.
            len: u64,
        },
        /// Which pages are in memory: a byte for each, 1 for those. `Data`.
        25 Cached {
            /// A regular file.
            node: Handle,
            /// From which byte on, a multiple of the page size.
            offset: u64,
            /// How many pages, 4096 at most.
            pages: u32,
        },
    }
}

tagged! {
    /// What the gofer answers.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Reply<'a> {
        /// The request failed and changed nothing.
        1 Failed {
            /// The errno.
            errno: u16,
        },
        /// It is done.
        2 Done {},
        /// An export's root.
        3 Attached {
            /// Root and flags.
            attached: Attached,
        },
        /// Nodes found, in the order of the names.
        4 Walked {
            /// The nodes; handles only where the flags asked for them.
            nodes: Vec<Node>,
            /// Why there are no more.
            end: WalkEnd<'a>,
        },
        /// For each name its attributes, or none where it does not exist or cannot be looked at.
        5 Stats {
            /// In the order of the names.
            attrs: Vec<Option<Attr>>,
        },
        /// The descriptor rides on this message.
        6 Donated {
            /// Attributes as of the opening.
            attr: Attr,
        },
        /// Entries of a directory.
        7 Entries {
            /// The entries.
            entries: Vec<DirEntry<'a>>,
            /// 1 when there are no more.
            end: u8,
        },
        /// A new node.
        8 Created {
            /// The node.
            node: Node,
            /// Its directory, after the change.
            dir: Attr,
        },
        /// Attributes.
        9 Attr {
            /// The attributes.
            attr: Attr,
        },
        /// Bytes.
        10 Data {
            /// The bytes.
            data: Bytes<'a>,
        },
        /// File system.
        11 StatFs {
            /// Its state.
            stat: StatFs,
        },
        /// Directories after a change.
        12 Changed {
            /// The directory, or that of the old name.
            dir: Attr,
            /// The directory of the new name of a rename; else the same.
            other: Attr,
        },
    }
}

impl<'a> Request<'a> {
    /// Appends the message to `out`: handles that are given back with it, and the request. `E2BIG` when it is longer
    /// than [`MAX_MESSAGE`].
    pub fn encode(&self, closing: &[Handle], out: &mut Vec<u8>) -> Result<(), Errno> {
        put_list(closing, out);
        self.put(out);
        if out.len() > MAX_MESSAGE { Err(Errno::E2BIG) } else { Ok(()) }
    }

    /// Reads a whole message: the handles given back (before the request, unknown ones are ignored), and the request.
    pub fn decode(bytes: &'a [u8]) -> Result<(Vec<Handle>, Request<'a>), Malformed> {
        let mut reader = Reader::new(bytes);
        let closing = Vec::get(&mut reader)?;
        let request = Request::get(&mut reader)?;
        reader.finish()?;
        Ok((closing, request))
    }
}

impl<'a> Reply<'a> {
    /// Appends the message to `out`. `E2BIG` when it is longer than [`MAX_MESSAGE`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Errno> {
        self.put(out);
        if out.len() > MAX_MESSAGE { Err(Errno::E2BIG) } else { Ok(()) }
    }

    /// Reads a whole message.
    pub fn decode(bytes: &'a [u8]) -> Result<Reply<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        let reply = Reply::get(&mut reader)?;
        reader.finish()?;
        Ok(reply)
    }

    /// The reply that carries an errno.
    #[must_use]
    pub fn failed(errno: Errno) -> Reply<'static> {
        Reply::Failed { errno: errno.raw() }
    }
}
