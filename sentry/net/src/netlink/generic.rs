//! NETLINK_GENERIC (linux/genetlink.h): the family that lists families, which is the only one.

use super::out::{NLM_F_MULTI, Out, Reply, attribute};
use abi::{Errno, SysResult};

/// GENL_ID_CTRL, and its name.
const CONTROL: u16 = 16;
const NAME: &str = "nlctrl";
const GETFAMILY: u8 = 3;

/// Answers a request.
pub(super) fn answer(kind: u16, body: &[u8], dump: bool, reply: Reply) -> SysResult<Vec<Vec<u8>>> {
    if kind != CONTROL {
        return Err(Errno::ENOENT);
    }
    let attributes = body.get(4..).ok_or(Errno::EINVAL)?;
    if body.first() != Some(&GETFAMILY) {
        return Err(Errno::EOPNOTSUPP);
    }
    if !dump {
        let number =
            attribute(attributes, 1).map(|id| id.first_chunk().map_or(0, |b| u16::from_ne_bytes(*b)));
        let name = attribute(attributes, 2).map(|name| name.strip_suffix(&[0]).unwrap_or(name));
        match (number, name) {
            (None, None) => return Err(Errno::EINVAL),
            (Some(CONTROL), _) => {}
            (_, Some(name)) if name == NAME.as_bytes() => {}
            _ => return Err(Errno::ENOENT),
        }
    }
    let mut out = Out::default();
    out.begin(CONTROL, Reply { flags: if dump { NLM_F_MULTI } else { 0 }, ..reply });
    out.put(&[1, 2, 0, 0]);
    out.text(2, NAME);
    out.attr(1, &CONTROL.to_ne_bytes());
    out.word(3, 2);
    out.word(4, 0);
    out.word(5, 10);
    out.end();
    Ok(vec![out.bytes])
}
