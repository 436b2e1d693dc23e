//! Giving memory back when a process of ours has nothing to do.

/// Gives back what the work so far has left in memory and the next work can do without: free pages of the
/// heap, and pages of the program, which come back from the page cache when they are run again. A process
/// that sleeps then counts for little more than what it has written.
pub fn rest() {
    unsafe extern "C" {
        // Set by the linker: the first byte of the program, the end of its code.
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    let start = (&raw const __executable_start).addr().next_multiple_of(PAGE);
    let end = (&raw const etext).addr() & !(PAGE - 1);
    // SAFETY: malloc_trim works under the allocator's own locks. The pages between the two symbols are the
    // program's headers, constants and code: a private mapping of a file that is never written, so the pages
    // that come back are the same, for every thread, also for this very code. Data that relocation wrote
    // lies behind `etext`.
    unsafe {
        libc::malloc_trim(0);
        if end > start {
            let program = (&raw const __executable_start).map_addr(|_| start).cast_mut();
            libc::madvise(program.cast(), end - start, libc::MADV_DONTNEED);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_and_constants_come_back() {
        let before = std::hint::black_box("a constant of the program").to_owned();
        super::rest();
        assert_eq!(before, std::hint::black_box("a constant of the program"));
    }
}
