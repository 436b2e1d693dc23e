//! The total order of locks, outermost first. A thread that holds a lock may take only locks further
//! down this list. Two locks of one rank are taken together only through `Ranked::lock_same_rank`
//! (ordered by address by the caller).

/// A rank: a type-level position in the order.
pub trait Rank: 'static {
    /// Position; larger is further in.
    const LEVEL: u16;
    /// The name debug builds print.
    const NAME: &'static str;
}

macro_rules! ranks {
    ($($name:ident = $level:literal, $text:literal;)*) => {
        $(#[doc = $text]
        #[derive(Debug)]
        pub enum $name {}
        impl Rank for $name {
            const LEVEL: u16 = $level;
            const NAME: &'static str = stringify!($name);
        })*
    };
}

ranks! {
    Control = 10, "Control plane of the sandbox: containers by id.";
    Containers = 20, "One container's record.";
    OpenFilePos = 50, "File position of an open file: held over one read or write of any file, procfs included.";
    OomKill = 90, "Who is killed as a cgroup's memory runs out: one choice at a time.";
    PidTable = 100, "Pids, thread groups, process groups, sessions: the shape of the process tree.";
    ProcessState = 120, "One thread group: members, children's exit states, job control.";
    PtraceState = 130, "Tracer links.";
    MountTable = 200, "One mount namespace.";
    RenameTree = 210, "Serialises directory renames of one file system.";
    TreeDir = 212, "Changes of one directory's names in the dentry tree.";
    OverlayNode = 215, "Layers of one overlay node; a nested overlay's are taken as the same rank.";
    DirInode = 220, "A directory's entries.";
    DirInodeInner = 221, "A second directory (child of the first, or of a layer below).";
    LowerInode = 225, "A layer below an overlay.";
    Dentry = 230, "Children of one dentry.";
    FsContext = 240, "Root, working directory and umask of a process.";
    FdTable = 300, "Descriptor table slots.";
    EpollTree = 320, "Interest lists of epoll instances.";
    InodeState = 325, "The side table of inode states.";
    FileLocks = 330, "POSIX, OFD and flock locks and leases.";
    Socket = 400, "One socket.";
    SocketPeer = 410, "The other end of a socket, or a socket reached through a table.";
    NetStack = 420, "Ports, routes and queues of one network stack.";
    NetHelper = 430, "The conversation with the network helper.";
    Tty = 440, "One terminal: line discipline and queues.";
    FileObject = 450, "Inner state of pipes, eventfds, timers and their like.";
    FileWrite = 460, "Serialises writes and size changes of one in-memory file.";
    RemoteAppend = 460, "Appending writes to one file behind the gofer.";
    Keys = 480, "Keyrings: one search or change at a time.";
    MmLayout = 500, "The VMAs of one address space.";
    MmPages = 510, "Resident pages of one address space.";
    FileData = 520, "Page index of a tmpfs file or other mappable.";
    Frames = 530, "The allocator of the memory file.";
    RemoteDir = 560, "What the gofer's client knows of one directory's names.";
    RemoteInode = 562, "Handle, place and descriptors of one inode behind the gofer.";
    RemoteTable = 564, "Inodes and cached descriptors of one export of the gofer.";
    RemoteWire = 566, "The conversation with one gofer.";
    InodeAttr = 600, "Attributes of one inode.";
    MountLinks = 630, "Parent, children and propagation of one mount.";
    DentryNames = 640, "Cached names below one dentry.";
    DentryLinks = 641, "Parent and name of one dentry.";
    Namespaces = 690, "Names and id maps of one namespace: permission checks ask for them anywhere.";
    SignalHandlers = 700, "sigaction table of a thread group.";
    SignalPending = 710, "Pending signals of a thread or group.";
    TaskState = 720, "Small per-task shared fields.";
    Futex = 800, "One futex bucket.";
    FutexSecond = 801, "The second bucket of a requeue.";
    Timer = 820, "Timer wheel.";
    WaitQueueInner = 900, "Registrations on a wait queue.";
    PatchedText = 945, "Patched call sites of one stub process.";
    StubHelper = 950, "The helper thread of one stub process, busy with a batch of host calls.";
    Leaf = 1000, "Anything that takes no further lock.";
}
