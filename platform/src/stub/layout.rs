//! Addresses and offsets that the stub's code, its filters and the sentry share.

/// Start of the low reserved range.
pub(crate) const LOW: u64 = 0x0006_0000;
/// End of the low reserved range. Programs that are not position independent start at 4 MiB.
pub(crate) const LOW_END: u64 = 0x0020_0000;
/// Jump targets of patched call sites, one word each. The third byte of their addresses is no instruction
/// in 64-bit mode, which matters inside patched windows.
pub(crate) const TARGETS: u64 = 0x0006_0000;
/// How many there are.
pub(crate) const TARGET_COUNT: u64 = 0x1000;
/// Code of patched call sites, [`SITE_SIZE`] bytes each.
pub(crate) const SITES: u64 = TARGETS + TARGET_COUNT * 8;
/// Bytes of one site's code.
pub(crate) const SITE_SIZE: u64 = 64;
/// Bytes of targets and sites.
pub(crate) const TABLE_SIZE: u64 = TARGET_COUNT * (8 + SITE_SIZE);
/// The stub's code.
pub(crate) const TEXT: u64 = 0x0010_0000;
/// Bytes of code; constant data follows.
pub(crate) const TEXT_SIZE: u64 = 0x1000;
/// Constant data: the seccomp programs.
pub(crate) const DATA: u64 = TEXT + TEXT_SIZE;
/// Bytes of constant data.
pub(crate) const DATA_SIZE: u64 = 0x1000;
/// The control pages.
pub(crate) const CONTROL: u64 = 0x0010_4000;
/// Bytes of control pages.
pub(crate) const CONTROL_SIZE: u64 = 0x2000;
/// The scratch page.
pub(crate) const SCRATCH: u64 = 0x0010_8000;

/// First address behind what guests may map.
pub(crate) const USER_END: u64 = 0x7fff_0000_0000;
/// Lowest address that guests may map.
pub(crate) const USER_START: u64 = 0x1_0000;
/// Areas of guest threads.
pub(crate) const AREAS: u64 = 0x7fff_8000_0000;
/// Bytes of one area.
pub(crate) const AREA_SIZE: u64 = 0x8000;
/// How many guest threads the whole sandbox may have.
pub(crate) const AREA_COUNT: u64 = 0x8000;
/// Where the vdso and its data go; the second is used when the host put them at the first.
pub(crate) const VDSO: [u64; 2] = [0x7fff_f000_0000, 0x7fff_e000_0000];
/// End of the host's user addresses.
pub(crate) const TASK_END: u64 = 0x7fff_ffff_f000;

/// The number of the call with which stub code hands over to the sentry. No Linux call has it.
pub(crate) const SWITCH: u32 = 0x3fff;

/// Offset of the list in a control page.
pub(crate) const LIST: u64 = 0x40;
/// Entries of the list, the terminating one included.
pub(crate) const LIST_LEN: u64 = 100;
/// Offset of the list that a clone's child runs.
pub(crate) const CHILD_LIST: u64 = LIST + LIST_LEN * ENTRY;
/// Bytes of an entry.
pub(crate) const ENTRY: u64 = 64;
/// Offset of a `struct msghdr`, its iovec and its control message.
pub(crate) const MESSAGE: u64 = 0x1d00;
/// Offset of the `stack_t` of a new thread.
pub(crate) const STACK: u64 = 0x1f00;

/// Offset in an area: fs base, gs base, address of the frame to return through.
pub(crate) const AREA_FS: u64 = 0;
/// See [`AREA_FS`].
pub(crate) const AREA_GS: u64 = 8;
/// See [`AREA_FS`].
pub(crate) const AREA_FRAME: u64 = 16;
/// Offset in an area of the alternate signal stack, which reaches to the area's end.
pub(crate) const AREA_STACK: u64 = 0x1000;
