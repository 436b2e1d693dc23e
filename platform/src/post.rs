//! Requests and replies between two of our processes over shared pages, one at a time.
//!
//! A socket beside the pages wakes a sleeper and carries donated descriptors, and its end is the end of the
//! conversation. The answering side makes the pages and sends them as its first message. Each side takes the other
//! for hostile: words are read once and checked, a message is copied out before anybody looks into it, the pages
//! cannot shrink. Who lies about lengths, turns or sleep gets nonsense or silence for itself.
//!
//! A word for each side says that it sleeps; the other claims the word (swap to 0) and owes one message on the socket.
//! Whoever waits looks for a moment first, since waking a sleeper costs ten times what most requests take, and gives
//! way to whoever wants its processor, unless the other side runs on another one. Where giving way costs a turn among
//! others, it becomes exponentially rarer.

use crate::shared::SharedFile;
use crate::systrap::sys;
use abi::{Errno, SysResult};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Largest message in bytes, either way.
pub const ROOM: usize = 96 * 1024;

const ROOM_U64: u64 = 96 * 1024;
/// Number of the last request, and its length in bytes.
const ASKED: u64 = 0;
const ASKED_LEN: u64 = 4;
/// Number of the last request that was answered; the length of the answer, and whether a descriptor rides on the socket.
const ANSWERED: u64 = 64;
const ANSWER_LEN: u64 = 68;
const DONATED: u32 = 1 << 31;
/// Who sleeps, and where who does not sleep runs.
const ANSWERER_SLEEPS: u64 = 128;
const ANSWERER_CPU: u64 = 132;
const ASKER_SLEEPS: u64 = 192;
const ASKER_CPU: u64 = 196;
const NOWHERE: u32 = u32::MAX;
const REQUEST: u64 = 4096;
const REPLY: u64 = REQUEST + ROOM_U64;
const PAGES: u64 = REPLY + ROOM_U64;

/// How long to look before sleeping.
const LOOK_OUT: Duration = Duration::from_micros(40);
/// How long to look for a request where giving way is dear.
const KEEP: Duration = Duration::from_micros(10);
/// A yield that took this long gave the processor to somebody else, who kept it.
const CROWDED: Duration = Duration::from_micros(200);
/// Requests slept for after that: at first, and at most.
const LEAST_CROWDED: u32 = 64;
const MOST_CROWDED: u32 = 16 * 1024;
/// Looks between two looks at the clock.
const SPINS: u32 = 32;
/// Silence after which the answering side may give memory back, once.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// The CPU of the calling thread; nowhere on processors that do not tell it cheaply.
fn here() -> u32 {
    static TELLS: OnceLock<bool> = OnceLock::new();
    match TELLS.get_or_init(sys::has_rdpid) {
        true => u32::try_from(sys::this_cpu()).unwrap_or(NOWHERE),
        false => NOWHERE,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Asks,
    Answers,
}

/// When to look and when to sleep.
#[derive(Debug)]
struct Patience {
    side: Side,
    /// Waits to go until it gives way again.
    crowded: u32,
    /// The next value of that.
    next: u32,
}

/// Where the two sides run, as far as they say: only a hint, of which a lie costs a moment.
struct Places<'a> {
    ours: &'a AtomicU32,
    theirs: &'a AtomicU32,
}

impl Patience {
    const fn new(side: Side) -> Patience {
        Patience { side, crowded: 0, next: LEAST_CROWDED }
    }

    /// Looks until `ready` or it is time to sleep. Whether it is ready. Who waits for an answer from another CPU keeps
    /// its own, who waits for a request gives way to whoever may make one: for long, or where that is too dear hardly.
    fn look(&mut self, places: &Places<'_>, ready: impl Fn() -> bool) -> bool {
        let spin = || {
            (0..SPINS).any(|_| {
                std::hint::spin_loop();
                ready()
            })
        };
        if ready() {
            return true;
        }
        let start = Instant::now();
        loop {
            let cpu = here();
            places.ours.store(cpu, SeqCst);
            if spin() {
                return true;
            }
            let before = Instant::now();
            if before - start > LOOK_OUT {
                return false;
            }
            let there = places.theirs.load(SeqCst);
            let apart = there != NOWHERE && there != cpu;
            let keeps = match self.side {
                Side::Asks => apart,
                Side::Answers => apart && self.crowded > 0 && before - start < KEEP,
            };
            if keeps {
                continue;
            }
            if self.crowded > 0 {
                self.crowded -= 1;
                return false;
            }
            rustix::thread::sched_yield();
            if before.elapsed() > CROWDED {
                self.crowded = self.next;
                self.next = self.next.saturating_mul(2).min(MOST_CROWDED);
                return ready();
            }
            if ready() {
                self.next = (self.next - self.next / 16).max(LEAST_CROWDED);
                return true;
            }
        }
    }
}

fn host(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Sends one byte, and a descriptor with it.
fn send(socket: &OwnedFd, donated: Option<BorrowedFd<'_>>) -> SysResult<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let rights = donated.map(|fd| [fd]);
    if let Some(rights) = &rights {
        control.push(SendAncillaryMessage::ScmRights(rights));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(b"!")], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map(|_| ()).map_err(host),
        }
    }
}

/// The next message on the socket, slept for: the descriptor that came with it. `EIO` at the end.
fn receive(socket: &OwnedFd) -> SysResult<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    loop {
        let mut parts = [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(message) if message.bytes > 0 => break,
            _ => return Err(Errno::EIO),
        }
    }
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

/// Copies a message in; its length.
fn put(pages: &SharedFile, at: u64, message: &mut Vec<u8>) -> SysResult<u32> {
    let len = message.len();
    if len > ROOM {
        return Err(Errno::E2BIG);
    }
    message.resize(len.next_multiple_of(8), 0);
    pages.store_bytes(at, message);
    message.truncate(len);
    u32::try_from(len).map_err(|_| Errno::E2BIG)
}

/// Copies a message of a length that the other side told out.
fn get(pages: &SharedFile, at: u64, len: u32, into: &mut Vec<u8>) -> SysResult<()> {
    let len = usize::try_from(len).ok().filter(|len| *len <= ROOM).ok_or(Errno::EBADMSG)?;
    into.resize(len.next_multiple_of(8), 0);
    pages.load_bytes(at, into);
    into.truncate(len);
    Ok(())
}

/// The side that asks.
#[derive(Debug)]
pub struct Asker {
    socket: OwnedFd,
    /// There once the other side has sent them.
    pages: Option<SharedFile>,
    asked: u32,
    /// The last request has no answer yet.
    pending: bool,
    patience: Patience,
}

impl Asker {
    /// Asks whoever is at the other end of a `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Asker {
        Asker { socket, pages: None, asked: 0, pending: false, patience: Patience::new(Side::Asks) }
    }

    /// Sends a request, behind whatever answer is still to come: that one is thrown away. `EIO` when nobody is there.
    pub fn ask(&mut self, message: &mut Vec<u8>) -> SysResult<()> {
        crate::errand::begin();
        if self.pending {
            self.wait()?;
        }
        if self.pages.is_none() {
            let fd = receive(&self.socket)?.ok_or(Errno::EIO)?;
            self.pages = Some(SharedFile::adopt(fd, PAGES)?);
        }
        let pages = self.pages.as_ref().ok_or(Errno::EIO)?;
        let len = put(pages, REQUEST, message)?;
        pages.word(ASKED_LEN).store(len, SeqCst);
        pages.word(ASKER_CPU).store(here(), SeqCst);
        self.asked = self.asked.wrapping_add(1);
        pages.word(ASKED).store(self.asked, SeqCst);
        self.pending = true;
        if pages.word(ANSWERER_SLEEPS).swap(0, SeqCst) != 0 {
            send(&self.socket, None).map_err(|_| Errno::EIO)?;
        }
        Ok(())
    }

    /// The answer, and the descriptor that came with it. `EIO` when the other side is gone or talks nonsense.
    pub fn answer(&mut self, into: &mut Vec<u8>) -> SysResult<Option<OwnedFd>> {
        let (len, donated) = self.wait()?;
        let pages = self.pages.as_ref().ok_or(Errno::EIO)?;
        get(pages, REPLY, len, into).map_err(|_| Errno::EIO)?;
        Ok(donated)
    }

    fn wait(&mut self) -> SysResult<(u32, Option<OwnedFd>)> {
        let pages = self.pages.as_ref().ok_or(Errno::EIO)?;
        let asked = self.asked;
        let ready = || pages.word(ANSWERED).load(SeqCst) == asked;
        let places = Places { ours: pages.word(ASKER_CPU), theirs: pages.word(ANSWERER_CPU) };
        let (mut flagged, mut claims, mut messages, mut donated) = (false, 0_u32, 0_u32, None);
        while !self.patience.look(&places, ready) {
            places.ours.store(NOWHERE, SeqCst);
            // Where the message with the descriptor has woken us, the word may be claimed already: it must not be
            // forgotten that a second message is owed, or the next request takes it for its own.
            claims =
                claims.saturating_add(u32::from(pages.word(ASKER_SLEEPS).swap(1, SeqCst) == 0 && flagged));
            flagged = true;
            if ready() {
                break;
            }
            donated = receive(&self.socket)?.or(donated);
            messages = messages.saturating_add(1);
        }
        self.pending = false;
        let word = pages.word(ANSWER_LEN).load(SeqCst);
        claims = claims.saturating_add(u32::from(flagged && pages.word(ASKER_SLEEPS).swap(0, SeqCst) == 0));
        // What is owed on the socket and not yet taken from it.
        let owed = u32::from(word & DONATED != 0).saturating_add(claims);
        for _ in messages..owed {
            donated = receive(&self.socket)?.or(donated);
        }
        Ok((word & !DONATED, donated))
    }
}

/// The side that answers.
#[derive(Debug)]
pub struct Answerer {
    socket: OwnedFd,
    pages: SharedFile,
    /// Number of the request served last.
    seen: u32,
    patience: Patience,
    /// The last look for a request was worth it, or would have been.
    looks: bool,
    rested: bool,
}

impl Answerer {
    /// Answers whoever is at the other end of a `SOCK_SEQPACKET` socket: sends it the pages.
    pub fn new(socket: OwnedFd) -> SysResult<Answerer> {
        let pages = SharedFile::create(c"post", PAGES)?;
        send(&socket, Some(pages.fd()))?;
        Ok(Answerer {
            socket,
            pages,
            seen: 0,
            patience: Patience::new(Side::Answers),
            looks: false,
            rested: false,
        })
    }

    /// The next request; `false` when the other side is gone. `quiet` runs once, in the first long silence.
    pub fn next(&mut self, into: &mut Vec<u8>, quiet: impl Fn()) -> SysResult<bool> {
        let (pages, seen) = (&self.pages, self.seen);
        let ready = || pages.word(ASKED).load(SeqCst) != seen;
        let places = Places { ours: pages.word(ANSWERER_CPU), theirs: pages.word(ASKER_CPU) };
        if !(ready() || (self.looks && self.patience.look(&places, ready))) {
            let asleep = Instant::now();
            places.ours.store(NOWHERE, SeqCst);
            loop {
                pages.word(ANSWERER_SLEEPS).store(1, SeqCst);
                if ready() && pages.word(ANSWERER_SLEEPS).swap(0, SeqCst) != 0 {
                    break;
                }
                if !self.rested
                    && poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&QUIET)) == Ok(0)
                {
                    self.rested = true;
                    quiet();
                }
                // A claimed word owes a message; one too many only wakes for nothing.
                match rustix::net::recv(&self.socket, &mut [0_u8; 1][..], RecvFlags::empty()) {
                    // A peer that was killed leaves a reset behind.
                    Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return Ok(false),
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(host(error)),
                }
                if ready() {
                    pages.word(ANSWERER_SLEEPS).store(0, SeqCst);
                    break;
                }
            }
            self.looks = asleep.elapsed() < LOOK_OUT * 2;
            places.ours.store(here(), SeqCst);
        } else {
            self.looks = true;
        }
        self.seen = self.pages.word(ASKED).load(SeqCst);
        let len = self.pages.word(ASKED_LEN).load(SeqCst);
        // A length that cannot be is a message that says nothing.
        if get(&self.pages, REQUEST, len, into).is_err() {
            into.clear();
        }
        Ok(true)
    }

    /// Answers it; `false` when the other side is gone.
    pub fn answer(&mut self, message: &mut Vec<u8>, donated: Option<BorrowedFd<'_>>) -> SysResult<bool> {
        let len = put(&self.pages, REPLY, message)?;
        let gone = |result: SysResult<()>| match result {
            Ok(()) => Ok(true),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(false),
            Err(errno) => Err(errno),
        };
        let mark = if donated.is_some() { DONATED } else { 0 };
        if donated.is_some() && !gone(send(&self.socket, donated))? {
            return Ok(false);
        }
        self.pages.word(ANSWER_LEN).store(len | mark, SeqCst);
        self.pages.word(ANSWERED).store(self.seen, SeqCst);
        if self.pages.word(ASKER_SLEEPS).swap(0, SeqCst) != 0 {
            return gone(send(&self.socket, None));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::{ASKED, ASKED_LEN, Answerer, Asker, ROOM};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::Duration;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    /// Answers with the request turned round, with a descriptor where its first byte is odd, slowly where its second is.
    fn serve(socket: OwnedFd) -> std::thread::JoinHandle<u32> {
        std::thread::spawn(move || {
            let mut post = Answerer::new(socket).unwrap();
            let (mut message, mut served) = (Vec::new(), 0);
            while post.next(&mut message, || ()).unwrap() {
                served += 1;
                message.reverse();
                let slow = message.iter().rev().nth(1).is_some_and(|byte| byte % 2 == 1);
                if slow {
                    std::thread::sleep(Duration::from_micros(300));
                }
                let give = message.last().is_some_and(|byte| byte % 2 == 1);
                let null = std::fs::File::open("/dev/null").unwrap();
                if !post.answer(&mut message, give.then(|| null.as_fd())).unwrap() {
                    break;
                }
            }
            served
        })
    }

    #[test]
    fn every_request_has_its_answer() {
        let (ours, theirs) = pair();
        let server = serve(theirs);
        let (mut post, mut answer) = (Asker::new(ours), Vec::new());
        let mut asked = 0;
        for round in 0..4000_u32 {
            let [first, second, ..] = (round.wrapping_mul(2_654_435_761) >> 7).to_le_bytes();
            let slow = if round % 64 == 0 { second } else { second & !1 };
            let mut message = vec![first, slow, 3, 4, 5];
            message.resize(5 + usize::try_from(round % 700).unwrap(), 9);
            let mut expected = message.clone();
            expected.reverse();
            post.ask(&mut message).unwrap();
            asked += 1;
            if round % 5 == 0 {
                // An answer that nobody takes does not get in the way of the next.
                continue;
            }
            if round % 128 == 1 {
                std::thread::sleep(Duration::from_micros(400));
            }
            let fd = post.answer(&mut answer).unwrap();
            assert_eq!(answer, expected);
            assert_eq!(fd.is_some(), first % 2 == 1, "round {round}");
        }
        assert!(post.ask(&mut vec![0; ROOM + 1]).is_err());
        drop(post);
        assert_eq!(server.join().unwrap(), asked);
    }

    #[test]
    fn lies_about_lengths_say_nothing() {
        let (ours, theirs) = pair();
        let server = serve(theirs);
        let (mut post, mut answer) = (Asker::new(ours), Vec::new());
        post.ask(&mut vec![2, 2]).unwrap();
        post.answer(&mut answer).unwrap();
        for len in [u32::MAX, u32::try_from(ROOM).unwrap() + 1] {
            let pages = post.pages.as_ref().unwrap();
            post.asked += 1;
            pages.word(ASKED_LEN).store(len, SeqCst);
            pages.word(ASKED).store(post.asked, SeqCst);
            if pages.word(super::ANSWERER_SLEEPS).swap(0, SeqCst) != 0 {
                super::send(&post.socket, None).unwrap();
            }
            post.pending = true;
            post.answer(&mut answer).unwrap();
            assert_eq!(answer, b"");
        }
        drop(post);
        assert_eq!(server.join().unwrap(), 3);
    }

    /// Woken by the descriptor itself, the asking side goes to sleep again just as the answer appears.
    #[test]
    fn sleepers_get_the_descriptor_of_their_own_request() {
        let (ours, theirs) = pair();
        let server = std::thread::spawn(move || {
            let mut post = Answerer::new(theirs).unwrap();
            let mut message = Vec::new();
            let files = ["/dev/null", "/dev/zero"].map(|name| std::fs::File::open(name).unwrap());
            while post.next(&mut message, || ()).unwrap() {
                let which = usize::from(message.first().is_some_and(|byte| byte % 2 == 1));
                if !post.answer(&mut message, Some(files[which].as_fd())).unwrap() {
                    break;
                }
            }
        });
        let devices = ["/dev/null", "/dev/zero"].map(|name| rustix::fs::stat(name).unwrap().st_rdev);
        let (mut post, mut answer) = (Asker::new(ours), Vec::new());
        for round in 0..20_000_u32 {
            // It sleeps after the shortest look.
            post.patience.crowded = u32::MAX;
            let [first, ..] = round.to_le_bytes();
            post.ask(&mut vec![first]).unwrap();
            let fd = post.answer(&mut answer).unwrap().expect("a descriptor");
            let device = rustix::fs::fstat(&fd).unwrap().st_rdev;
            assert_eq!(device, devices[usize::from(first % 2 == 1)], "round {round}");
        }
        drop(post);
        server.join().unwrap();
    }

    #[test]
    fn nobody_there_is_an_error() {
        let (ours, theirs) = pair();
        drop(theirs);
        assert!(Asker::new(ours).ask(&mut vec![1]).is_err());
    }
}
