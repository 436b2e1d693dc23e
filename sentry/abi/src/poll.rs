//! Readiness events (poll(2)).

bitflags::bitflags! {
    /// `POLL*` bits; epoll(7) uses the same numbers.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Events: u32 {
        /// Data to read.
        const IN = 0x1;
        /// Urgent data.
        const PRI = 0x2;
        /// Room to write.
        const OUT = 0x4;
        /// An error is pending; always reported.
        const ERR = 0x8;
        /// The peer is gone; always reported.
        const HUP = 0x10;
        /// Not an open descriptor (poll only).
        const NVAL = 0x20;
        /// Same as IN on Linux.
        const RDNORM = 0x40;
        /// Priority band data.
        const RDBAND = 0x80;
        /// Same as OUT on Linux.
        const WRNORM = 0x100;
        /// Priority band may be written.
        const WRBAND = 0x200;
        /// A SIGPOLL message.
        const MSG = 0x400;
        /// The peer shut down its writing half.
        const RDHUP = 0x2000;
    }
}

impl Events {
    /// What a plain readable file reports.
    pub const READABLE: Events = Events::IN.union(Events::RDNORM);
    /// What a plain writable file reports.
    pub const WRITABLE: Events = Events::OUT.union(Events::WRNORM);
    /// Reported whether asked for or not.
    pub const ALWAYS: Events = Events::ERR.union(Events::HUP);
}
