//! Calls that a kernel built without them does not have: they fail with `ENOSYS`, as there (`kernel/sys_ni.c`).
//! They are listed so that the trace and the compatibility page name them.

use crate::task::Cx;
use abi::{CallResult, Errno};

macro_rules! absent {
    ($($name:ident)*) => {
        $(#[doc = concat!(stringify!($name), "(2): `ENOSYS`.")]
        pub fn $name(_cx: &mut Cx<'_>) -> CallResult<()> {
            Err(Errno::ENOSYS.into())
        })*
    };
}

absent! {
    uselib modify_ldt _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall
    tuxcall security set_thread_area get_thread_area lookup_dcookie epoll_ctl_old epoll_wait_old vserver
    fanotify_init fanotify_mark userfaultfd uretprobe io_uring_setup io_uring_enter io_uring_register
    memfd_secret
}
