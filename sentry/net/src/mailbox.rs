//! What the sockets of messages share: UDP, raw and ping sockets, netlink, packet sockets. Each takes whole messages
//! out of one [`MessageInbox`] and tells about them by control messages.

use crate::base::Base;
use crate::inbox::{Message, MessageInbox};
use crate::types::{Control, MsgFlags, Received};
use abi::poll::Events;
use abi::{Errno, SysResult};
use mm::GuestSink;

/// Gives a message to a receiver, cut to its room.
fn deliver(
    base: &Base,
    message: &Message,
    dst: &mut dyn GuestSink,
    flags: MsgFlags,
    control: Vec<Control>,
) -> SysResult<Received> {
    let peek = flags.contains(MsgFlags::PEEK);
    let offset = if peek { base.with(|o| o.peek_off) } else { None };
    let bytes = message.bytes.get(offset.unwrap_or(0)..).unwrap_or_default();
    let room = dst.remaining();
    let copied = if bytes.is_empty() || room == 0 { 0 } else { dst.put(bytes)? };
    if let Some(at) = offset {
        base.change(|o| o.peek_off = Some(at.saturating_add(copied)));
    }
    let mut out = Received { len: copied, addr: message.from.clone(), control, flags: MsgFlags::empty() };
    if bytes.len() > room {
        out.flags |= MsgFlags::TRUNC;
    }
    if flags.contains(MsgFlags::TRUNC) {
        out.len = message.real_len.max(message.bytes.len());
    }
    Ok(out)
}

/// recvmsg(2): the next message, or a look at it.
pub(crate) fn receive(
    base: &Base,
    inbox: &MessageInbox,
    dst: &mut dyn GuestSink,
    flags: MsgFlags,
    control: impl Fn(&Message) -> Vec<Control>,
) -> SysResult<Received> {
    if let Some(error) = base.take_error() {
        return Err(error);
    }
    if flags.contains(MsgFlags::PEEK) {
        let seen = inbox.peek(|m| deliver(base, m, dst, flags, control(m)))?;
        return seen.unwrap_or_else(|| Ok(Received::default()));
    }
    match inbox.receive()? {
        Some(message) => {
            let told = control(&message);
            base.change(|o| {
                if let Some(at) = &mut o.peek_off {
                    *at = at.saturating_sub(message.bytes.len());
                }
            });
            deliver(base, &message, dst, flags, told)
        }
        // Who does not wait is told that nothing is there; who waits, that nothing will come.
        None if flags.contains(MsgFlags::DONTWAIT) => Err(Errno::EAGAIN),
        None => Ok(Received::default()),
    }
}

/// recvmsg(2) with MSG_ERRQUEUE: the next report.
pub(crate) fn receive_report(base: &Base, dst: &mut dyn GuestSink) -> SysResult<Received> {
    let report = base.take_report().ok_or(Errno::EAGAIN)?;
    let room = dst.remaining();
    let len = if report.bytes.is_empty() || room == 0 { 0 } else { dst.put(&report.bytes)? };
    let cut = if report.bytes.len() > room { MsgFlags::TRUNC } else { MsgFlags::empty() };
    Ok(Received { len, addr: report.to, control: report.control, flags: MsgFlags::ERRQUEUE | cut })
}

/// Events of a socket that can always send.
pub(crate) fn ready(base: &Base, inbox: &MessageInbox, interest: Events) -> Events {
    let mut events = Events::WRITABLE | Events::WRBAND;
    if inbox.has_message() {
        events |= Events::READABLE;
    }
    let status = inbox.status();
    if status.closed || status.eof {
        events |= Events::READABLE | Events::RDHUP;
    }
    if base.troubled() {
        events |= Events::ERR;
        if base.is_on(crate::types::level::SOCKET, 45) {
            events |= Events::PRI;
        }
    }
    events & (interest | Events::ALWAYS)
}
