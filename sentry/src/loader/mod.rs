//! Programs: from an executable file to an address space.

/// End of the user half of the address space.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
