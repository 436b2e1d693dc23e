//! What a stub holds besides the guest's mappings: one page of code, one page for arguments, and two
//! descriptors.

/// First reserved address: the page of code (read, execute).
pub(super) const CODE: usize = 0x20000;
/// Bytes per page.
pub(super) const PAGE: usize = 4096;
/// The page for the arguments of recvmsg. The guest can write it too: nothing in it is believed.
pub(super) const SCRATCH: usize = CODE + PAGE;
/// Both pages.
pub(super) const LEN: usize = 2 * PAGE;

/// The memory file in the stub.
pub(super) const MEMORY_FD: i32 = 0;
/// Where donated descriptors arrive.
pub(super) const SOCKET_FD: i32 = 1;
/// The number that a received descriptor gets: the lowest free one.
pub(super) const PASSED_FD: i32 = 2;

/// Offset of `syscall; int3`.
pub(super) const CALL: usize = 0;
/// Offset of the breakpoint behind `CALL`.
pub(super) const BREAKPOINT: usize = 2;
/// Offset of `syscall; test rax,rax; jz park; int3; park: mov eax,SYS_pause; syscall; jmp park`: a new
/// thread waits at `park` for its tracer.
pub(super) const CLONE: usize = 16;
/// Offset of the breakpoint in `CLONE`.
pub(super) const CLONE_BREAKPOINT: usize = CLONE + 7;

/// The code.
pub(super) const TEXT: &[u8] = &[
    0x0f, 0x05, // syscall
    0xcc, // int3
    0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, //
    0x0f, 0x05, // syscall
    0x48, 0x85, 0xc0, // test rax,rax
    0x74, 0x01, // jz park
    0xcc, // int3
    0xb8, 0x22, 0x00, 0x00, 0x00, // park: mov eax,34
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp park
];
