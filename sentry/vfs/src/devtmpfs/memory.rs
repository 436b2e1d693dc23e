//! Character devices of major 1. They keep no state but the kernel log.

use crate::caller::Caller;
use crate::file::{FileOps, Io, OpenFile, SeekFrom, SyncScope};
use crate::inode::Inode;
use crate::vfs::{DeviceOpener, Vfs};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::{CallResult, Errno, SysResult};
use mm::{GuestMemory, GuestSink, GuestSource};
use std::any::Any;
use std::sync::Arc;

/// Bytes of randomness drawn at once.
const RANDOM_PIECE: usize = 256;
/// Longest record written to the log (`LOG_LINE_MAX`).
const LOG_LINE_MAX: usize = 1024 - 48;

/// Which device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryDevice {
    /// 1:3.
    Null,
    /// 1:5.
    Zero,
    /// 1:7.
    Full,
    /// 1:8 and 1:9.
    Random,
    /// 1:11.
    Kmsg,
}

struct MemoryFile(MemoryDevice);

const RNDGETENTCNT: u32 = 0x8004_5200;

fn random(dst: &mut dyn GuestSink) -> SysResult<usize> {
    let mut done = 0usize;
    let mut piece = [0u8; RANDOM_PIECE];
    while dst.remaining() > 0 {
        let want = dst.remaining().min(RANDOM_PIECE);
        let Some(part) = piece.get_mut(..want) else { break };
        let got = rustix::rand::getrandom(&mut *part, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| Errno::from_raw(e.raw_os_error()))?;
        match dst.put(part.get(..got).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => done = done.saturating_add(n),
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

impl FileOps for MemoryFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        match self.0 {
            MemoryDevice::Null => Ok(0),
            MemoryDevice::Zero | MemoryDevice::Full => {
                let len = dst.remaining();
                if len == 0 { Ok(0) } else { dst.put_zeros(len) }
            }
            MemoryDevice::Random => random(dst),
            // The log is empty: nothing to read yet.
            MemoryDevice::Kmsg => Err(Errno::EAGAIN),
        }
    }
    fn write(&self, io: &Io<'_>, src: &mut dyn GuestSource, _by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let len = src.remaining();
        match self.0 {
            MemoryDevice::Full if len > 0 => return Err(Errno::ENOSPC),
            MemoryDevice::Kmsg if len > LOG_LINE_MAX => return Err(Errno::EINVAL),
            _ => src.skip(len),
        }
        Ok((len, io.offset))
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        match self.0 {
            MemoryDevice::Null | MemoryDevice::Zero | MemoryDevice::Full => Ok(0),
            MemoryDevice::Kmsg => match to {
                SeekFrom::Start(0) | SeekFrom::End(0) | SeekFrom::Data(0) => Ok(0),
                SeekFrom::Start(_) | SeekFrom::End(_) => Err(Errno::ESPIPE),
                _ => Err(Errno::EINVAL),
            },
            MemoryDevice::Random => Ok(current),
        }
    }
    fn ready(&self, interest: Events) -> Events {
        match self.0 {
            MemoryDevice::Kmsg => interest & Events::WRITABLE,
            _ => interest & (Events::READABLE | Events::WRITABLE),
        }
    }
    fn can_poll(&self) -> bool {
        // Only those with a poll operation: epoll refuses the others, as Linux does.
        matches!(self.0, MemoryDevice::Random | MemoryDevice::Kmsg)
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        if self.0 == MemoryDevice::Random && request == RNDGETENTCNT {
            memory.write(abi::UserAddr::new(arg), &256i32.to_ne_bytes())?;
            return Ok(0);
        }
        Err(Errno::ENOTTY)
    }
    fn mappable(&self, _file: &OpenFile) -> SysResult<Arc<dyn mm::Mappable>> {
        // A mapping of /dev/zero is anonymous memory: the caller of mmap asks `is_zero_device` first.
        Err(Errno::ENODEV)
    }
    fn sync(&self, _scope: SyncScope) -> SysResult<()> {
        Err(Errno::EINVAL)
    }
}

/// Whether `file` is /dev/zero: mmap of it makes anonymous memory.
#[must_use]
pub fn is_zero_device(file: &OpenFile) -> bool {
    file.downcast::<MemoryFile>().is_some_and(|f| f.0 == MemoryDevice::Zero)
}

struct Opener;

impl DeviceOpener for Opener {
    fn open(
        &self,
        minor: u32,
        _inode: &Arc<dyn Inode>,
        _flags: OpenFlags,
        _by: &Caller<'_>,
    ) -> CallResult<Arc<dyn FileOps>> {
        let device = match minor {
            3 => MemoryDevice::Null,
            5 => MemoryDevice::Zero,
            7 => MemoryDevice::Full,
            8 | 9 => MemoryDevice::Random,
            11 => MemoryDevice::Kmsg,
            _ => return Err(Errno::ENXIO.into()),
        };
        Ok(Arc::new(MemoryFile(device)))
    }
}

/// Registers major 1.
pub fn register_memory_devices(vfs: &Vfs) {
    vfs.register_char(1, 0..=255, "mem", Arc::new(Opener));
}

#[cfg(test)]
mod tests {
    use crate::inode::NewNode;
    use crate::ops;
    use crate::tmpfs::tests::{context, frames, root_of};
    use crate::walk::Walk;
    use abi::fs::{OpenFlags, make_dev};
    use abi::{Errno, Failure};
    use mm::io::{SliceSource, VecSink};

    #[test]
    fn devices_answer() {
        let fs = context(&frames());
        super::register_memory_devices(&fs.ns.vfs);
        let caller = root_of(&fs);
        let by = caller.by();
        let walk = Walk::new(&fs, &by);
        let open = |name: &str, minor| {
            ops::make(&walk, name.as_bytes(), &NewNode::CharDevice(make_dev(1, minor)), 0o666).unwrap();
            ops::open(&walk, name.as_bytes(), OpenFlags::RDWR, 0)
        };
        let null = open("/null", 3).unwrap();
        let mut sink = VecSink::new(600);
        assert_eq!(null.read(&mut sink, &by), Ok(0));
        assert_eq!(null.write(&mut SliceSource::new(b"abc"), &by), Ok(3));
        assert_eq!(open("/zero", 5).unwrap().read(&mut sink, &by), Ok(600));
        let full = open("/full", 7).unwrap();
        assert_eq!(full.write(&mut SliceSource::new(b"abc"), &by), Err(Errno::ENOSPC.into()));
        let mut sink = VecSink::new(600);
        assert_eq!(open("/random", 8).unwrap().read(&mut sink, &by), Ok(600));
        assert!(sink.bytes.iter().any(|b| *b != 0));
        assert_eq!(open("/none", 99).err(), Some(Failure::from(Errno::ENXIO)));
    }
}
