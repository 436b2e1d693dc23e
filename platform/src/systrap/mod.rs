//! The systrap backend: guest code runs in *stub processes*, and seccomp hands each of its system calls to
//! the sentry.
//!
//! * [`Template`]: a tiny process forked early; every stub is cloned from it.
//! * `Helper`: a stub's first thread; it maps memory and clones guest threads at the sentry's word.
//! * `Space`: one stub process. `Thread`: one guest thread in it and the sentry's end of its notifications.
//!
//! What it asks of the host at run time: [`HOST_CALLS`].

mod frame;
mod helper;
mod interrupt;
mod site;
mod slots;
mod space;
mod spin;
pub(crate) mod sys;
mod template;
mod thread;
mod xsave;

pub use template::Template;

use crate::memory::MemoryFile;
use crate::seam::{AddressSpace, Platform};
use crate::stub::layout;
use abi::{AddrRange, Errno, SysResult};
use helper::{Call, MEMORY_FD};
use lock::{Ranked, order};
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

/// Host calls that the platform makes after [`Systrap::with_template`], each with its reason, for the caller's
/// own filter. Threads, locks and the allocator are not counted here.
pub const HOST_CALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_ioctl, "SECCOMP_IOCTL_NOTIF_RECV, _SEND, _SET_FLAGS (0xc0502100, 0xc0182101, 0x40082104)"),
    (libc::SYS_ppoll, "whether a listener has lost its thread"),
    (libc::SYS_sendmsg, "wakes the helper of a stub; hands a donated file over for the length of a mapping"),
    (libc::SYS_recvmsg, "the helper's report, a new stub's socket, a new guest thread's listener"),
    (libc::SYS_tgkill, "interrupts a guest thread"),
    (libc::SYS_kill, "ends a stub process"),
    (libc::SYS_wait4, "reaps a stub process"),
    (libc::SYS_fallocate, "gives pages of the shared file back"),
    (libc::SYS_close, "listeners and sockets that are done with"),
];

/// What spaces and threads share.
#[derive(Debug)]
pub(crate) struct Inner {
    template: Ranked<order::StubHelper, Template>,
    slots: Arc<slots::Slots>,
    memory: Arc<MemoryFile>,
    /// Living stubs by pid, to tell whether an address space is ours.
    spaces: Ranked<order::Leaf, HashMap<i32, Weak<space::Space>>>,
    /// Wiped stubs.
    pool: Ranked<order::Leaf, Vec<space::Stub>>,
    lookers: spin::Lookers,
    watch: Arc<interrupt::Watch>,
    reserved: [AddrRange; 1],
    vdso: Option<AddrRange>,
    vvar: Option<AddrRange>,
}

/// The platform. See the module.
#[derive(Debug)]
pub struct Systrap {
    inner: Arc<Inner>,
}

impl Systrap {
    /// Forks the template process. To be called while the sentry is small and has one thread, before its
    /// seccomp filter goes in: it needs fork, memfd_create, socketpair and a readable `/proc/self/maps`.
    /// `ENOSYS` where the host lacks something (the FSGSBASE instructions, seccomp notifications).
    pub fn prepare() -> SysResult<Template> {
        let template = Template::start()?;
        // Asked once, before the walls go up.
        sys::receive_sees_death();
        Ok(template)
    }

    /// The platform on a template made earlier.
    pub fn with_template(template: Template, memory: Arc<MemoryFile>) -> SysResult<Systrap> {
        let fd = memory.fd().as_raw_fd();
        let message = template.helper.message_for_files();
        template.helper.run(
            &[
                Call { mode: helper::Mode::Ignore, ..Call::new(libc::SYS_recvmsg, [2, message, 0, 0, 0, 0]) },
                Call::new(libc::SYS_dup3, [helper::FIRST_FD, MEMORY_FD, 0, 0, 0, 0]),
                Call::close(helper::FIRST_FD),
            ],
            &[fd],
        )?;
        let low = AddrRange::new(layout::LOW, layout::LOW_END).ok_or(Errno::EINVAL)?;
        let inner = Inner {
            slots: Arc::clone(&template.slots),
            vdso: template.vdso,
            vvar: template.vvar,
            template: Ranked::new(template),
            memory,
            spaces: Ranked::new(HashMap::new()),
            pool: Ranked::default(),
            lookers: spin::Lookers::new(),
            watch: Arc::default(),
            reserved: [low],
        };
        let systrap = Systrap { inner: Arc::new(inner) };
        systrap.warm()?;
        Ok(systrap)
    }

    /// Makes the stub that the first program will use, thread and all: what the host lacks (a notification
    /// that only fatal signals interrupt came with Linux 5.19) shows now and not at the first container.
    fn warm(&self) -> SysResult<()> {
        let space = space::Space::new(&self.inner)?;
        let idle = space.start_thread().map_err(|_| Errno::ENOSYS)?;
        // A space without threads keeps the first one.
        let _ = space.keep_idle(idle);
        space.retire(user_range(), Box::new(|| ()));
        Ok(())
    }

    /// [`Systrap::prepare`] and [`Systrap::with_template`] in one.
    pub fn new(memory: Arc<MemoryFile>) -> SysResult<Systrap> {
        Systrap::with_template(Systrap::prepare()?, memory)
    }

    /// Host pid of the template process.
    #[must_use]
    pub fn template_pid(&self) -> i32 {
        self.inner.template.lock().pid()
    }
}

impl Platform for Systrap {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn new_address_space(&self) -> SysResult<Arc<dyn AddressSpace>> {
        Ok(space::Space::new(&self.inner)?)
    }

    fn user_range(&self) -> AddrRange {
        user_range()
    }

    fn reserved(&self) -> &[AddrRange] {
        &self.inner.reserved
    }

    fn vdso(&self) -> Option<AddrRange> {
        self.inner.vdso
    }

    fn vvar(&self) -> Option<AddrRange> {
        self.inner.vvar
    }

    fn memory(&self) -> &Arc<MemoryFile> {
        &self.inner.memory
    }
}

fn user_range() -> AddrRange {
    AddrRange::new(layout::USER_START, layout::USER_END).unwrap_or_default()
}
