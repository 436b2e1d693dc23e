//! sendfile(2), copy_file_range(2), splice(2), tee(2), vmsplice(2).

use super::io;
use crate::task::Cx;
use abi::fs::{FileType, OpenFlags};
use abi::poll::Events;
use abi::stat::Iovec;
use abi::{CallResult, Errno, Failure, Fd, SysResult, UserPtr};
use mm::io::{SliceSource, VecSink};
use std::sync::Arc;
use vfs::event::pipe::{self, Pipe};
use vfs::{Caller, TaskView, wait_until};
use vfs::{OpenFile, RwFlags};

/// Bytes moved at a time.
const CHUNK: usize = 128 * 1024;

/// A position: the file's own, or one in the guest's memory.
struct Cursor {
    ptr: UserPtr<i64>,
    at: Option<u64>,
}

impl Cursor {
    fn load(cx: &Cx<'_>, ptr: UserPtr<i64>) -> SysResult<Cursor> {
        if ptr.is_null() {
            return Ok(Cursor { ptr, at: None });
        }
        let raw: i64 = cx.read(ptr)?;
        Ok(Cursor { ptr, at: Some(u64::try_from(raw).map_err(|_| Errno::EINVAL)?) })
    }
    fn forward(&mut self, n: usize) {
        self.at = self.at.map(|at| at.saturating_add(u64::try_from(n).unwrap_or(0)));
    }
    fn store(&self, cx: &Cx<'_>) -> SysResult<()> {
        match self.at {
            Some(at) => cx.write(self.ptr, &i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?),
            None => Ok(()),
        }
    }
}

/// What was done so far counts; an error only when nothing was.
fn settle(done: usize, error: Failure) -> CallResult<usize> {
    if done > 0 { Ok(done) } else { Err(error) }
}

/// Copies through the kernel until `count`, the end of the input, or an error.
fn pump(
    input: &OpenFile,
    from: &mut Cursor,
    output: &OpenFile,
    to: &mut Cursor,
    count: usize,
    by: &Caller<'_>,
) -> CallResult<usize> {
    let mut done = 0;
    while done < count {
        let mut sink = VecSink::new((count - done).min(CHUNK));
        let before = input.position();
        match input.read_with(&mut sink, from.at, RwFlags::empty(), by) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return settle(done, error),
        }
        let mut written = 0;
        let mut failed = None;
        while let Some(rest) = sink.bytes.get(written..)
            && !rest.is_empty()
        {
            match output.write_with(&mut SliceSource::new(rest), to.at, RwFlags::empty(), by) {
                Ok(0) => break,
                Ok(n) => {
                    written += n;
                    to.forward(n);
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // What was read and not written goes back: the input stands where the output ends.
        if from.at.is_none() && input.is_seekable() && written < sink.bytes.len() {
            input.set_position(before.saturating_add(u64::try_from(written).unwrap_or(0)));
        }
        from.forward(written);
        done += written;
        if let Some(error) = failed {
            return settle(done, error);
        }
        // A long copy can be interrupted.
        if written < sink.bytes.len() || crate::task::current().is_some_and(|task| !task.work().is_empty()) {
            break;
        }
    }
    Ok(done)
}

/// sendfile(2).
pub fn sendfile(
    cx: &mut Cx<'_>,
    out: Fd,
    input: Fd,
    offset: UserPtr<i64>,
    count: usize,
) -> CallResult<usize> {
    if !offset.is_null() {
        cx.read(offset)?;
    }
    let input = cx.files().get_io(input)?;
    if !input.flags().readable() {
        return Err(Errno::EBADF.into());
    }
    if !offset.is_null() && !input.is_seekable() {
        return Err(Errno::ESPIPE.into());
    }
    let mut from = Cursor::load(cx, offset)?;
    let output = cx.files().get_io(out)?;
    if !output.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    if count == 0 {
        return Ok(0);
    }
    let directory = input.location().is_some_and(|at| at.dentry.is_dir());
    if directory || (output.flags().contains(OpenFlags::APPEND) && output.is_seekable()) {
        return Err(Errno::EINVAL.into());
    }
    // As on Linux the input must be seekable: of a stream, bytes could be lost.
    if !input.is_seekable() {
        return Err(Errno::EINVAL.into());
    }
    let mut to = Cursor { ptr: offset, at: None };
    let by = cx.caller();
    let done = pump(&input, &mut from, &output, &mut to, count.min(abi::limits::MAX_RW_COUNT), &by)?;
    from.store(cx)?;
    Ok(done)
}

fn regular(file: &OpenFile, by: &Caller<'_>) -> SysResult<()> {
    match file.attr(by)?.kind {
        FileType::Regular => Ok(()),
        FileType::Directory => Err(Errno::EISDIR),
        _ => Err(Errno::EINVAL),
    }
}

/// copy_file_range(2).
pub fn copy_file_range(
    cx: &mut Cx<'_>,
    input: Fd,
    off_in: UserPtr<i64>,
    output: Fd,
    off_out: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> CallResult<usize> {
    let input = cx.files().get_io(input)?;
    let output = cx.files().get_io(output)?;
    for offset in [off_in, off_out].into_iter().filter(|offset| !offset.is_null()) {
        cx.read(offset)?;
    }
    super::only(flags, 0)?;
    let by = cx.caller();
    regular(&input, &by)?;
    regular(&output, &by)?;
    if !input.flags().readable() || !output.flags().writable() || output.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF.into());
    }
    let mut from = Cursor::load(cx, off_in)?;
    let mut to = Cursor::load(cx, off_out)?;
    let len = len.min(abi::limits::MAX_RW_COUNT);
    let a = from.at.unwrap_or_else(|| input.position());
    let b = to.at.unwrap_or_else(|| output.position());
    let span = u64::try_from(len).unwrap_or(u64::MAX);
    let same = super::base_location(&input) == super::base_location(&output);
    if same && a < b.saturating_add(span) && b < a.saturating_add(span) {
        return Err(Errno::EINVAL.into());
    }
    let done = pump(&input, &mut from, &output, &mut to, len, &by)?;
    from.store(cx)?;
    to.store(cx)?;
    Ok(done)
}

const SPLICE_NONBLOCK: u32 = 2;
const SPLICE_KNOWN: u32 = 0xf;

/// Waits as a splice does: SPLICE_F_NONBLOCK or O_NONBLOCK of the file never sleep.
fn await_file<T>(
    on: &OpenFile,
    events: Events,
    flags: u32,
    by: &Caller<'_>,
    attempt: impl FnMut() -> SysResult<T>,
) -> CallResult<T> {
    let mut attempt = attempt;
    if flags & SPLICE_NONBLOCK != 0 || on.flags().contains(OpenFlags::NONBLOCK) {
        return Ok(attempt()?);
    }
    wait_until(on, events, None, by, attempt)
}

/// splice(2).
pub fn splice(
    cx: &mut Cx<'_>,
    input: Fd,
    off_in: UserPtr<i64>,
    output: Fd,
    off_out: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> CallResult<usize> {
    super::only(flags, SPLICE_KNOWN)?;
    if len == 0 {
        return Ok(0);
    }
    let input = cx.files().get_io(input)?;
    let output = cx.files().get_io(output)?;
    for (file, offset) in [(&input, off_in), (&output, off_out)] {
        if !offset.is_null() && pipe::of(file).is_some() {
            return Err(Errno::ESPIPE.into());
        }
    }
    for offset in [off_out, off_in].into_iter().filter(|offset| !offset.is_null()) {
        cx.read(offset)?;
    }
    if !input.flags().readable() || !output.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    let len = len.min(abi::limits::MAX_RW_COUNT);
    let by = cx.caller();
    match (pipe::of(&input), pipe::of(&output)) {
        (Some(from), Some(to)) => {
            if !off_in.is_null() || !off_out.is_null() {
                return Err(Errno::ESPIPE.into());
            }
            if Arc::ptr_eq(from, to) {
                return Err(Errno::EINVAL.into());
            }
            await_file(&input, Events::READABLE, flags, &by, || pipe::splice(from, to, len))
        }
        (Some(from), None) => {
            if !off_in.is_null() {
                return Err(Errno::ESPIPE.into());
            }
            if output.flags().contains(OpenFlags::APPEND) {
                return Err(Errno::EINVAL.into());
            }
            let mut to = Cursor::load(cx, off_out)?;
            if to.at.is_some() && !output.is_seekable() {
                return Err(Errno::ESPIPE.into());
            }
            let bytes = await_file(&input, Events::READABLE, flags, &by, || from.peek(len.min(CHUNK)))?;
            let n = output.write_with(&mut SliceSource::new(&bytes), to.at, RwFlags::empty(), &by)?;
            from.consume(n);
            to.forward(n);
            to.store(cx)?;
            Ok(n)
        }
        (None, Some(to)) => {
            if !off_out.is_null() {
                return Err(Errno::ESPIPE.into());
            }
            let mut from = Cursor::load(cx, off_in)?;
            if from.at.is_some() && !input.is_seekable() {
                return Err(Errno::ESPIPE.into());
            }
            if input.location().is_some_and(|at| at.dentry.is_dir()) {
                return Err(Errno::EINVAL.into());
            }
            file_to_pipe(&input, &mut from, &output, to, len, flags, &by).and_then(|n| {
                from.store(cx)?;
                Ok(n)
            })
        }
        (None, None) => Err(Errno::EINVAL.into()),
    }
}

fn file_to_pipe(
    input: &OpenFile,
    from: &mut Cursor,
    output: &OpenFile,
    to: &Pipe,
    len: usize,
    flags: u32,
    by: &Caller<'_>,
) -> CallResult<usize> {
    let room = await_file(output, Events::WRITABLE, flags, by, || match to.room() {
        0 => Err(Errno::EAGAIN),
        room => Ok(room),
    })?;
    let mut sink = VecSink::new(len.min(room));
    let got = input.read_with(&mut sink, from.at, RwFlags::empty(), by)?;
    if got == 0 {
        return Ok(0);
    }
    let n = output.write(&mut SliceSource::new(&sink.bytes), by)?;
    from.forward(n);
    Ok(n)
}

/// tee(2).
pub fn tee(cx: &mut Cx<'_>, input: Fd, output: Fd, len: usize, flags: u32) -> CallResult<usize> {
    super::only(flags, SPLICE_KNOWN)?;
    if len == 0 {
        return Ok(0);
    }
    let input = cx.files().get_io(input)?;
    let output = cx.files().get_io(output)?;
    if !input.flags().readable() || !output.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    let (Some(from), Some(to)) = (pipe::of(&input), pipe::of(&output)) else {
        return Err(Errno::EINVAL.into());
    };
    if Arc::ptr_eq(from, to) {
        return Err(Errno::EINVAL.into());
    }
    await_file(&input, Events::READABLE, flags, &cx.caller(), || pipe::tee(from, to, len))
}

/// vmsplice(2): by copy, in both directions.
pub fn vmsplice(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<Iovec>, count: u64, flags: u32) -> CallResult<usize> {
    super::only(flags, SPLICE_KNOWN)?;
    let file = cx.files().get_io(fd)?;
    let list = io::buffers(cx, iov, count)?;
    if list.iter().all(|slice| slice.len == 0) {
        return Ok(0);
    }
    if pipe::of(&file).is_none() {
        return Err(Errno::EBADF.into());
    }
    let by = cx.caller();
    let mode = if flags & SPLICE_NONBLOCK != 0 { RwFlags::NOWAIT } else { RwFlags::empty() };
    if file.flags().writable() {
        // It waits for room, but not until everything is in.
        let mut source = cx.mm().source(&list);
        let mut attempt = || match file.write_with(&mut source, None, RwFlags::NOWAIT, &by) {
            Ok(n) => Ok(n),
            Err(Failure::Errno(errno)) => Err(errno),
            Err(Failure::Restart(_)) => Err(Errno::EINTR),
        };
        let waits = mode.is_empty() && !file.flags().contains(OpenFlags::NONBLOCK);
        let result = if waits {
            wait_until(&*file, Events::WRITABLE, None, &by, attempt)
        } else {
            attempt().map_err(Failure::from)
        };
        if result == Err(Failure::Errno(Errno::EPIPE)) {
            cx.shared.raise(abi::signal::Signal::SIGPIPE);
        }
        result
    } else {
        file.read_with(&mut cx.mm().sink(&list), None, mode, &by)
    }
}
