//! Fixed sizes of the ABI.

/// Longest path with its NUL (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;
/// Longest file name without NUL (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Symbolic links followed in one walk before ELOOP (path_resolution(7)).
pub const MAX_SYMLINKS: u32 = 40;
/// Buffers in one vectored call (`UIO_MAXIOV`).
pub const IOV_MAX: usize = 1024;
/// Most bytes one read or write moves (`MAX_RW_COUNT`).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;
