//! /dev/fuse: where the server reads requests and writes replies.

use super::connection::{Connection, MIN_READ};
use crate::caller::Caller;
use crate::file::{FileOps, Io, OpenFile};
use crate::vfs::Vfs;
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::{WaitEntry, WaitQueue};
use mm::{GuestMemory, GuestSink, GuestSource};
use std::any::Any;
use std::sync::{Arc, OnceLock};

const MISC_MAJOR: u32 = 10;
const MINOR: u32 = 229;
/// Longest message of a server: a full reply to a read.
const MESSAGE_MAX: usize = (256 << 10) + 4096;

/// One open of the device.
#[derive(Debug, Default)]
pub struct Device {
    conn: OnceLock<Arc<Connection>>,
    /// Who waits for a mount.
    unmounted: WaitQueue,
}

/// Registers the device.
pub fn register(vfs: &Vfs) {
    let open = |_minor: u32, _flags: OpenFlags, _by: &Caller<'_>| -> SysResult<Arc<dyn FileOps>> {
        Ok(Arc::new(Device::default()))
    };
    vfs.register_char(MISC_MAJOR, MINOR..=MINOR, "misc", Arc::new(open));
}

impl Device {
    /// Starts the conversation for a mount: `EINVAL` when there is one.
    pub fn connect(&self) -> SysResult<Arc<Connection>> {
        let conn = Connection::start()?;
        self.conn.set(Arc::clone(&conn)).map_err(|_| Errno::EINVAL)?;
        self.unmounted.wake(Events::READABLE | Events::WRITABLE);
        Ok(conn)
    }
    fn queue(&self) -> &WaitQueue {
        self.conn.get().map_or(&self.unmounted, |conn| conn.device_queue())
    }
}

impl FileOps for Device {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        let conn = self.conn.get().ok_or(Errno::EPERM)?;
        if dst.remaining() < MIN_READ {
            return Err(Errno::EINVAL);
        }
        let message = conn.next(dst.remaining())?;
        dst.put(&message)
    }
    fn write(&self, _io: &Io<'_>, src: &mut dyn GuestSource, _by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let conn = self.conn.get().ok_or(Errno::EPERM)?;
        let len = src.remaining();
        if len > MESSAGE_MAX {
            return Err(Errno::EINVAL);
        }
        let mut message = vec![0; len];
        let got = src.take(&mut message)?;
        conn.reply(message.get(..got).unwrap_or_default())?;
        Ok((got, 0))
    }
    fn ready(&self, interest: Events) -> Events {
        let ready = self.conn.get().map_or(Events::ERR, |conn| conn.device_ready());
        ready & (interest | Events::ERR | Events::HUP)
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.queue().register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.unmounted.unregister(entry);
        if let Some(conn) = self.conn.get() {
            conn.device_queue().unregister(entry);
        }
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        _request: u32,
        _arg: u64,
        _memory: &dyn GuestMemory,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        Err(Errno::ENOTTY)
    }
    fn released(&self) {
        if let Some(conn) = self.conn.get() {
            conn.kill();
        }
    }
}
