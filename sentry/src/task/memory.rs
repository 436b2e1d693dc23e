//! Guest memory, as the rest of the kernel names it.

pub use mm::MemoryManager;
