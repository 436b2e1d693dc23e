//! One stub process: an address space and its helper thread.

use super::helper::{BATCH, Call, FIRST_FD, Helper, MEMORY_FD, Mode, SHARED_FD, SOCKET_FD};
use super::slots::{Area, Control};
use super::template::Process;
use super::thread::Thread;
use super::{Inner, user_range};
use crate::registers::ThreadState;
use crate::seam::{AddressSpace, AsOp, Backing, Context, OpBatch, Prot};
use crate::stub::filter::THREAD_PROGRAM;
use crate::stub::layout::{AREA_COUNT, AREA_SIZE, AREA_STACK, AREAS, CONTROL, STACK};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult};
use lock::{Ranked, order};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MAP_POPULATE: u64 = 0x8000;
const MAP_NORESERVE: u64 = 0x4000;

/// CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
const CLONE_THREAD: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
const CLONE_PARENT: u64 = 0x8000;
/// SECCOMP_FILTER_FLAG_NEW_LISTENER and WAIT_KILLABLE_RECV.
const FILTER_FLAGS: u64 = 8 | 32;

/// One address space. See the module.
#[derive(Debug)]
pub(super) struct Space {
    // First, so that the process is gone before its areas are handed on.
    process: Process,
    helper: Ranked<order::StubHelper, Helper>,
    areas: Ranked<order::Leaf, Areas>,
    inner: Arc<Inner>,
}

/// Areas mapped in this stub. They stay mapped (and ours) until the stub is gone.
#[derive(Debug, Default)]
struct Areas {
    all: Vec<Arc<Area>>,
    idle: Vec<Arc<Area>>,
}

impl Space {
    /// Clones the process of `from`: the template, or another stub whose mappings come along.
    pub(super) fn clone_from(inner: &Arc<Inner>, from: &Helper) -> SysResult<Arc<Space>> {
        let control = Control::take(&inner.slots)?;
        let (sentry_end, stub_end) = (FIRST_FD, FIRST_FD + 1);
        from.child(&[
            Call::close(sentry_end),
            Call::new(libc::SYS_dup3, [stub_end, SOCKET_FD, 0, 0, 0, 0]),
            Call::close(stub_end),
            Call::new(libc::SYS_munmap, [AREAS, AREA_SIZE * AREA_COUNT, 0, 0, 0, 0]),
            Call::new(
                libc::SYS_mmap,
                [CONTROL, PAGE_SIZE, 1, MAP_SHARED | MAP_FIXED, SHARED_FD, control.offset()],
            ),
            Call::end(Mode::Quiet),
        ]);
        let pair = Helper::scratch_word();
        let message = from.message_with(sentry_end);
        let report = from.run_reporting(&[
            Call::new(libc::SYS_socketpair, [1, 5, 0, pair, 0, 0]),
            Call { mode: Mode::Clone, ..Call::new(libc::SYS_clone, [CLONE_PARENT, 0, 0, 0, 0, 0]) },
            Call::new(libc::SYS_sendmsg, [SOCKET_FD, message, 0x4000, 0, 0, 0]),
            Call::close(sentry_end),
            Call::close(stub_end),
        ]);
        if report.is_err() {
            from.close_strays();
        }
        let report = report?;
        let socket = report.fd.ok_or(Errno::EAGAIN)?;
        let helper = Helper::new(socket, control);
        let process = Process::new(helper.identify()?);
        let space = Arc::new(Space {
            process,
            helper: Ranked::new(helper),
            areas: Ranked::new(Areas::default()),
            inner: Arc::clone(inner),
        });
        inner.spaces.lock().insert(space.pid(), Arc::downgrade(&space));
        Ok(space)
    }

    /// Host pid of the stub.
    pub(super) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Ends the stub: it misbehaved.
    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// Another living stub of the same platform.
    pub(super) fn sibling(&self, pid: i32) -> Option<Arc<Space>> {
        self.inner.spaces.lock().get(&pid).and_then(Weak::upgrade)
    }

    /// An area that the stub has mapped, for a new thread.
    fn take_area(&self, calls: &mut Vec<Call>) -> SysResult<Arc<Area>> {
        let mut areas = self.areas.lock();
        if let Some(area) = areas.idle.pop() {
            return Ok(area);
        }
        drop(areas);
        let area = Arc::new(Area::take(&self.inner.slots)?);
        let (at, offset) = (area.address(), area.offset());
        calls.push(Call::new(libc::SYS_mmap, [at, AREA_SIZE, 3, MAP_SHARED | MAP_FIXED, SHARED_FD, offset]));
        self.areas.lock().all.push(Arc::clone(&area));
        Ok(area)
    }

    /// Gives back the area of a thread that has ended.
    pub(super) fn return_area(&self, area: &Arc<Area>) {
        self.areas.lock().idle.push(Arc::clone(area));
    }

    /// Clones a guest thread, which waits in its first switch, and fetches its listener.
    pub(super) fn start_thread(&self) -> SysResult<(Arc<Area>, OwnedFd)> {
        let mut calls = Vec::new();
        let area = self.take_area(&mut calls)?;
        let helper = self.helper.lock();
        let stack = area.address() + AREA_STACK;
        helper.control().store_words(STACK, &[stack, 0, AREA_SIZE - AREA_STACK]);
        helper.child(&[
            Call::new(libc::SYS_sigaltstack, [CONTROL + STACK, 0, 0, 0, 0, 0]),
            Call::new(libc::SYS_seccomp, [1, FILTER_FLAGS, THREAD_PROGRAM, 0, 0, 0]),
            Call { mode: Mode::Enter, ..Call::new(0, [area.address(), 0, 0, 0, 0, 0]) },
        ]);
        let message = helper.message_with(FIRST_FD);
        calls.extend([
            Call { mode: Mode::Clone, ..Call::new(libc::SYS_clone, [CLONE_THREAD, stack, 0, 0, 0, 0]) },
            Call { mode: Mode::Retry, ..Call::new(libc::SYS_sendmsg, [SOCKET_FD, message, 0x4000, 0, 0, 0]) },
            Call::close(FIRST_FD),
        ]);
        let report = helper.run_reporting(&calls);
        if report.is_err() {
            helper.close_strays();
        }
        let report = report?;
        Ok((area, report.fd.ok_or(Errno::EAGAIN)?))
    }

    fn run(&self, ops: &[AsOp]) -> SysResult<()> {
        for op in ops {
            check(op)?;
        }
        let helper = self.helper.lock();
        for part in ops.chunks(BATCH / 3) {
            let mut calls = Vec::with_capacity(BATCH);
            let mut fds = Vec::new();
            for op in part {
                calls.push(translate(op, &mut fds));
            }
            if !fds.is_empty() {
                let message = helper.message_for_files();
                let receive = Call::new(libc::SYS_recvmsg, [SOCKET_FD, message, 0, 0, 0, 0]);
                calls.insert(0, Call { mode: Mode::Ignore, ..receive });
                calls.extend((0..fds.len() as u64).map(|i| Call::close(FIRST_FD + i)));
            }
            let result = helper.run(&calls, &fds);
            if !fds.is_empty() && result.is_err() {
                // The descriptor table is not what we think it is any more.
                self.process.kill();
            }
            result?;
        }
        Ok(())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.inner.spaces.lock().remove(&self.pid());
    }
}

fn check(op: &AsOp) -> SysResult<()> {
    let (AsOp::Map { range, .. } | AsOp::Unmap { range } | AsOp::Protect { range, .. }) = op;
    let low = AddrRange::new(crate::stub::layout::LOW, crate::stub::layout::LOW_END).unwrap_or_default();
    let aligned = range.start() % PAGE_SIZE == 0 && range.end() % PAGE_SIZE == 0;
    let fits = user_range().covers(*range) && !range.overlaps(low) && !range.is_empty();
    if aligned && fits { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The host call that carries out `op`; a host file joins `fds`.
fn translate(op: &AsOp, fds: &mut Vec<i32>) -> Call {
    match op {
        AsOp::Map { range, prot, backing, shared, populate } => {
            let mut flags = MAP_FIXED | MAP_NORESERVE | if *populate { MAP_POPULATE } else { 0 };
            let mut prot = *prot;
            let (fd, offset) = match backing {
                Backing::Memory { offset } => {
                    flags |= MAP_SHARED;
                    (MEMORY_FD, *offset)
                }
                Backing::Host { fd, offset } => {
                    if *shared {
                        flags |= MAP_SHARED;
                    } else {
                        flags |= MAP_PRIVATE;
                        // Every page a guest can write lives in the memory file or a shared mapping.
                        prot.remove(Prot::WRITE);
                    }
                    let number = FIRST_FD + fds.len() as u64;
                    fds.push(fd.as_raw_fd());
                    (number, *offset)
                }
            };
            let prot = u64::from(prot.bits());
            Call::new(libc::SYS_mmap, [range.start(), range.len(), prot, flags, fd, offset])
        }
        AsOp::Unmap { range } => Call::new(libc::SYS_munmap, [range.start(), range.len(), 0, 0, 0, 0]),
        AsOp::Protect { range, prot } => {
            let prot = u64::from(prot.bits());
            let call = Call::new(libc::SYS_mprotect, [range.start(), range.len(), prot, 0, 0, 0]);
            Call { mode: Mode::OrUnmap, ..call }
        }
    }
}

impl AddressSpace for Space {
    fn apply(&self, mut batch: OpBatch) -> SysResult<()> {
        let result = self.run(&batch.ops);
        batch.complete();
        result
    }

    fn retire(&self, _range: AddrRange, then: Box<dyn FnOnce() + Send>) {
        self.process.end();
        then();
    }

    fn new_context(self: Arc<Self>, state: &ThreadState) -> SysResult<Box<dyn Context>> {
        let mut thread = Thread::start(self)?;
        thread.load(state);
        Ok(Box::new(thread))
    }

    fn fork(&self) -> SysResult<Option<Arc<dyn AddressSpace>>> {
        let helper = self.helper.lock();
        let space = Space::clone_from(&self.inner, &helper)?;
        Ok(Some(space))
    }

    fn host_pid(&self) -> Option<i32> {
        Some(self.pid())
    }
}
