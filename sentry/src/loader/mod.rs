//! Programs: from an executable file to an address space (execve(2), elf(5)).
//!
//! Everything is built in a fresh address space; the caller switches to it when nothing can fail any
//! more. Executables are hostile: every number in them is checked before it is used.

mod elf;
mod script;
mod stack;

use crate::kernel::Kernel;
use crate::process::limits::{Limits, Resource};
use abi::fs::{FileType, OpenFlags};
use abi::{Errno, SysResult};
use mm::{MemoryLimits, MemoryManager, Randomize};
use std::sync::Arc;
use vfs::inode_state::{self, InodeShared};
use vfs::perm::{self, Access};
use vfs::{Caller, Follow, FsContext, Location, MountFlags, OpenFile, Walk};

/// End of the user half of the address space.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// Longest single argument (`MAX_ARG_STRLEN`).
pub const MAX_ARG_STRLEN: usize = 131_072;
/// Scripts that name scripts that name scripts.
const MAX_DEPTH: u32 = 5;

/// What is to be run.
pub struct Program<'a> {
    /// The sandbox's kernel.
    pub kernel: &'a Arc<Kernel>,
    /// Root and working directory.
    pub fs: &'a FsContext,
    /// Who runs it.
    pub by: &'a Caller<'a>,
    /// The opened executable.
    pub file: Executable,
    /// What it was called.
    pub name: Vec<u8>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// Limits of the process.
    pub limits: Limits,
    /// ADDR_NO_RANDOMIZE is not set.
    pub randomize: Randomize,
    /// How the credentials change once the file that decides is known.
    pub credentials: &'a dyn Fn(&Executable) -> SysResult<NewCredentials>,
}

/// Credentials after an exec.
#[derive(Clone, Debug)]
pub struct NewCredentials {
    /// They.
    pub cred: Arc<vfs::Credentials>,
    /// AT_SECURE.
    pub secure: bool,
}

/// A program ready to start.
pub struct Loaded {
    /// Its memory.
    pub mm: Arc<MemoryManager>,
    /// First instruction.
    pub entry: u64,
    /// Stack pointer.
    pub stack: u64,
    /// Its credentials.
    pub credentials: NewCredentials,
    /// Last component of what was called, for the program's name.
    pub comm: [u8; 16],
    /// The executable itself (for /proc/pid/exe).
    pub file: Executable,
}

/// An executable that was opened with execute permission; nobody can open it for writing meanwhile.
pub struct Executable {
    /// The open file.
    pub file: Arc<OpenFile>,
    /// Where it is.
    pub location: Location,
    denied: Option<Arc<InodeShared>>,
}

impl std::fmt::Debug for Executable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Executable")
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        if let Some(state) = self.denied.take() {
            state.allow_write();
        }
    }
}

/// Opens a path for execution.
pub fn open(walk: &Walk<'_>, path: &[u8], follow: Follow) -> SysResult<Executable> {
    let at = walk.find(path, follow)?;
    open_location(at, walk.by)
}

/// Opens a place for execution: a regular file with an x bit on a mount that allows it.
pub fn open_location(at: Location, by: &Caller<'_>) -> SysResult<Executable> {
    match at.kind() {
        Some(FileType::Regular) => {}
        Some(FileType::Symlink) => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    if at.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    perm::check(&at, Access::EXEC, by)?;
    vfs::landlock::check(&at, vfs::landlock::FsRight::EXECUTE, by)?;
    let inode = Arc::clone(at.inode()?);
    let state = inode_state::state_of(&inode, by)?;
    state.deny_write()?;
    let denied = Some(state);
    let mut made =
        Executable { file: OpenFile::anonymous(Arc::new(Nothing), OpenFlags::empty()), location: at, denied };
    let ops = inode.open(OpenFlags::empty(), by)?;
    made.file = OpenFile::at(made.location.clone(), ops, OpenFlags::empty());
    Ok(made)
}

/// Stands in until the file is open.
struct Nothing;
impl vfs::FileOps for Nothing {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Reads at `offset` until `buf` is full or the file ends; returns the count.
pub(crate) fn read_at(file: &OpenFile, offset: u64, buf: &mut [u8], by: &Caller<'_>) -> SysResult<usize> {
    let mut done = 0;
    while done < buf.len() {
        let mut sink = mm::io::VecSink::new(buf.len() - done);
        let at = offset.checked_add(u64::try_from(done).unwrap_or(u64::MAX)).ok_or(Errno::EINVAL)?;
        let count = match file.read_at(&mut sink, at, by) {
            Ok(count) => count,
            Err(abi::Failure::Errno(errno)) => return Err(errno),
            Err(abi::Failure::Restart(_)) => return Err(Errno::EINTR),
        };
        if count == 0 {
            break;
        }
        for (to, from) in buf.iter_mut().skip(done).zip(&sink.bytes) {
            *to = *from;
        }
        done += sink.bytes.len().max(1).min(buf.len() - done);
    }
    Ok(done)
}

/// Loads a program into memory of its own.
pub fn load(mut program: Program<'_>) -> SysResult<Loaded> {
    check_strings(&program)?;
    if program.argv.is_empty() {
        // As Linux since 5.18.
        program.argv.push(Vec::new());
    }
    let mut depth = 0;
    let head = loop {
        let mut head = vec![0; 256];
        let count = read_at(&program.file.file, 0, &mut head, program.by)?;
        head.truncate(count);
        let Some(line) = script::parse(&head)? else { break head };
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        let walk = Walk::new(program.fs, program.by);
        let file = open(&walk, &line.interpreter, Follow::Yes)?;
        let rest = program.argv.drain(..).skip(1);
        let mut argv = vec![line.interpreter];
        argv.extend(line.argument);
        argv.push(program.name.clone());
        argv.extend(rest);
        program.argv = argv;
        program.file = file;
    };
    let credentials = (program.credentials)(&program.file)?;
    let mm = MemoryManager::new(&program.kernel.platform, &program.kernel.frames)?;
    mm.set_limits(memory_limits(&program.limits, &credentials.cred));
    let arrangement = mm.arrange(program.randomize);
    let image = elf::map(&mm, &program, &head, &arrangement)?;
    let vdso = mm.map_vdso();
    let stack = stack::build(&mm, &program, &image, &arrangement, &credentials, vdso)?;
    let comm = comm_of(&program.name);
    Ok(Loaded { mm, entry: image.start, stack, credentials, comm, file: program.file })
}

/// The limits as the memory manager wants them.
#[must_use]
pub fn memory_limits(limits: &Limits, cred: &vfs::Credentials) -> MemoryLimits {
    let locked =
        if cred.has(vfs::Capabilities::IPC_LOCK) { u64::MAX } else { limits.get(Resource::Memlock).soft };
    MemoryLimits {
        address_space: limits.get(Resource::As).soft,
        data: limits.get(Resource::Data).soft,
        stack: limits.get(Resource::Stack).soft,
        locked,
    }
}

/// The program name of a path: its last component, cut to 15 bytes.
#[must_use]
pub fn comm_of(path: &[u8]) -> [u8; 16] {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    comm
}

/// `E2BIG`: a quarter of the stack limit, three quarters of 8 MiB at most, 128 KiB at least.
fn check_strings(program: &Program<'_>) -> SysResult<()> {
    let limit = (program.limits.get(Resource::Stack).soft / 4).clamp(131_072, 6 << 20);
    let mut total = 0_u64;
    for text in program.argv.iter().chain(&program.envp) {
        if text.len() >= MAX_ARG_STRLEN {
            return Err(Errno::E2BIG);
        }
        total = total.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX)).saturating_add(1 + 8);
    }
    if total > limit { Err(Errno::E2BIG) } else { Ok(()) }
}
