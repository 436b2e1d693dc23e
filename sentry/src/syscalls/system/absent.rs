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
    uselib ustat sysfs modify_ldt _sysctl swapon swapoff iopl ioperm create_module init_module
    delete_module get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security set_thread_area
    get_thread_area lookup_dcookie epoll_ctl_old
    epoll_wait_old mbind set_mempolicy get_mempolicy vserver kexec_load
    migrate_pages move_pages fanotify_init fanotify_mark finit_module kexec_file_load
    userfaultfd uretprobe io_uring_setup io_uring_enter io_uring_register quotactl_fd
    landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret set_mempolicy_home_node
    map_shadow_stack lsm_get_self_attr lsm_set_self_attr lsm_list_modules
}
