//! /proc/sys/kernel/{msg,sem,shm}_next_id: the id that the next object of the caller's namespace gets.

use super::status::published_reader;
use crate::ipc::IpcNs;
use crate::kernel::Kernel;
use abi::{Errno, SysResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use vfs::Caller;
use vfs::synthetic::{Node, SynthInode};

type Place = fn(&IpcNs) -> &AtomicI32;

fn namespace(kernel: &Kernel, by: &Caller<'_>) -> Arc<IpcNs> {
    published_reader(kernel, by)
        .map_or_else(|| Arc::clone(&kernel.root.proxy.ipc), |reader| Arc::clone(&reader.ns.ipc))
}

fn next_id(kernel: &Arc<Kernel>, place: Place) -> Node {
    let (reader, writer) = (Arc::clone(kernel), Arc::clone(kernel));
    Node::text_rw(
        0o644,
        move |by| Ok(format!("{}\n", place(&namespace(&reader, by)).load(Ordering::Relaxed)).into_bytes()),
        move |write, by| -> SysResult<usize> {
            let id: i32 = write.number()?;
            if id < 0 {
                return Err(Errno::EINVAL);
            }
            place(&namespace(&writer, by)).store(id, Ordering::Relaxed);
            Ok(write.bytes.len())
        },
    )
}

pub(super) fn build(kernel: &Arc<Kernel>, own: &Arc<SynthInode>) {
    own.add("msg_next_id", next_id(kernel, |ns| &ns.next_msg));
    own.add("sem_next_id", next_id(kernel, |ns| &ns.next_sem));
    own.add("shm_next_id", next_id(kernel, |ns| &ns.next_shm));
}
