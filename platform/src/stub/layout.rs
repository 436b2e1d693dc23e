//! Addresses and offsets that the stub's code, its filters and the sentry share.

/// Start of the low reserved range. Code has to be reached with 31 bits from anywhere; the range lies near the
/// end of those, where neither programs that are not position independent (from 4 MiB, with their heap) nor
/// valgrind's guests (from 0x10_8000) nor the shadow of the address sanitizer (from 0x7fff_8000) come.
pub(crate) const LOW: u64 = 0x7f06_0000;
/// End of the low reserved range.
pub(crate) const LOW_END: u64 = 0x7f40_0000;
/// Jump targets of patched call sites, one word each. The third byte of their addresses is no instruction
/// in 64-bit mode, which matters inside patched windows.
pub(crate) const TARGETS: u64 = LOW;
/// How many sites a table holds.
pub(crate) const SITE_COUNT: u64 = 0x1000;
/// Code of patched call sites, [`SITE_SIZE`] bytes each.
pub(crate) const SITES: u64 = TARGETS + SITE_COUNT * 8;
/// Bytes of one site's code.
pub(crate) const SITE_SIZE: u64 = 64;
/// Bytes of targets and sites.
pub(crate) const TABLE_SIZE: u64 = SITE_COUNT * (8 + SITE_SIZE);
/// Entries of sites that jump with an address in a register: only addresses whose second byte is 6 are used,
/// for the same reason.
pub(crate) const ENTRIES: u64 = 0x7f20_0000;
/// Bytes of entries.
pub(crate) const ENTRIES_SIZE: u64 = 0x0020_0000;
/// Usable bytes in each 64 KiB of entries, and where they start.
pub(crate) const ENTRY_RUN: u64 = 0x100;
/// See [`ENTRY_RUN`].
pub(crate) const ENTRY_START: u64 = 0x600;
/// Bytes of one entry.
pub(crate) const ENTRY_SIZE: u64 = 8;

/// The stub's code.
pub(crate) const TEXT: u64 = 0x7f10_0000;
/// Bytes of code; constant data follows.
pub(crate) const TEXT_SIZE: u64 = 0x1000;
/// Constant data: the seccomp programs.
pub(crate) const DATA: u64 = TEXT + TEXT_SIZE;
/// Bytes of constant data.
pub(crate) const DATA_SIZE: u64 = 0x1000;
/// The control pages.
pub(crate) const CONTROL: u64 = 0x7f10_4000;
/// Bytes of control pages.
pub(crate) const CONTROL_SIZE: u64 = 0x3000;
/// The scratch page.
pub(crate) const SCRATCH: u64 = 0x7f10_8000;

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

/// Offset of the first list in a control page. There are two, used in turn: a helper may still be busy with
/// the tail of one when the sentry writes the next.
pub(crate) const LIST: u64 = 0x40;
/// Entries of a list, the terminating one included.
pub(crate) const LIST_LEN: u64 = 50;
/// Offset of the second list.
pub(crate) const SECOND_LIST: u64 = LIST + LIST_LEN * ENTRY;
/// Offset of the list that a clone's child runs.
pub(crate) const CHILD_LIST: u64 = SECOND_LIST + LIST_LEN * ENTRY;
/// Bytes of an entry.
pub(crate) const ENTRY: u64 = 64;
/// Offset of a `struct msghdr`, its iovec and its control message.
pub(crate) const MESSAGE: u64 = 0x1d00;
/// Offset of the mapper's list. One is enough: the mapper is parked whenever the sentry writes it.
pub(crate) const MAP_LIST: u64 = 0x2000;
/// Offset of the `struct msghdr` with which files are received, and its iovec.
pub(crate) const FILES_MESSAGE: u64 = 0x2d00;
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

/// Offset in an area of the word with which trampoline and sentry hand over to each other.
pub(crate) const AREA_STATE: u64 = 0x40;
/// Offset in an area of a patched call's number (later its result), rdi, rsi, rdx, r10, r8, r9, the site's
/// record, and the number of the CPU.
pub(crate) const AREA_CALL: u64 = 0x80;
/// Words from there to the record.
pub(crate) const AREA_CALL_WORDS: usize = 9;

/// Values of the state word: the guest runs and the sentry looks at the word.
pub(crate) const RUN: u32 = 0;
/// The guest runs and the sentry sleeps in its listener.
pub(crate) const RUN_ASLEEP: u32 = 1;
/// The guest has posted a call.
pub(crate) const CALL: u32 = 2;
/// How often a trampoline looks for its answer before it sleeps, some 50 microseconds.
pub(crate) const SPINS: u32 = 1500;
/// Offset of a site's return address in its code; the plain call follows.
pub(crate) const SITE_RETURN: u64 = 0x18;
/// Offset of the plain call, for threads whose gs is the guest's.
pub(crate) const SITE_PLAIN: u64 = 0x20;
/// Offset in an area of a word that says whether calls are answered on the spot, and of the answers, a word
/// each in the order of [`LOCAL_CALLS`].
pub(crate) const AREA_LOCAL: u64 = 0xe0;
/// getpid, gettid, getuid, geteuid, getgid, getegid.
pub(crate) const LOCAL_CALLS: [u32; 6] = [39, 186, 102, 107, 104, 108];
/// Bytes of code for each.
pub(crate) const LOCAL_SIZE: u64 = 64;
