//! Access control lists (acl(5)), as extended attributes carry them (linux/posix_acl_xattr.h).

use crate::attr::Attr;
use crate::cred::{Credentials, Kgid};
use crate::perm::Access;
use abi::fs::ModeBits;
use abi::{Errno, SysResult};

/// The list of a file.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The list that new entries of a directory begin with.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A valid list: owner, named users, group, named groups, mask, others, in that order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acl(Vec<Entry>);

impl Acl {
    /// From an attribute's value; `None` for a list without entries, which takes the list away. `EINVAL`.
    pub fn parse(value: &[u8]) -> SysResult<Option<Acl>> {
        let (version, rest) = value.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        let (entries, left) = rest.as_chunks::<8>();
        if !left.is_empty() {
            return Err(Errno::EINVAL);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let entry = |[t0, t1, p0, p1, i0, i1, i2, i3]: &[u8; 8]| Entry {
            tag: u16::from_le_bytes([*t0, *t1]),
            perm: u16::from_le_bytes([*p0, *p1]),
            id: u32::from_le_bytes([*i0, *i1, *i2, *i3]),
        };
        let acl = Acl(entries.iter().map(entry).collect());
        if acl.is_valid() { Ok(Some(acl)) } else { Err(Errno::EINVAL) }
    }

    fn is_valid(&self) -> bool {
        let (mut next, mut named) = (USER_OBJ, false);
        for entry in &self.0 {
            if entry.perm > 7 {
                return false;
            }
            next = match (entry.tag, next) {
                (USER_OBJ, USER_OBJ) => USER,
                (USER, USER) | (GROUP, GROUP) if entry.id != NO_ID => {
                    named = true;
                    next
                }
                (GROUP_OBJ, USER) => GROUP,
                (MASK, GROUP) => OTHER,
                (OTHER, GROUP) if !named => 0,
                (OTHER, OTHER) => 0,
                _ => return false,
            };
        }
        next == 0
    }

    /// The attribute's value.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            let id = if matches!(entry.tag, USER | GROUP) { entry.id } else { NO_ID };
            out.extend_from_slice(&entry.tag.to_le_bytes());
            out.extend_from_slice(&entry.perm.to_le_bytes());
            out.extend_from_slice(&id.to_le_bytes());
        }
        out
    }

    fn entry(&self, tag: u16) -> Option<u16> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.perm)
    }

    fn entry_mut(&mut self, tag: u16) -> Option<&mut u16> {
        self.0.iter_mut().find(|entry| entry.tag == tag).map(|entry| &mut entry.perm)
    }

    /// The permission bits that say the same, or as much of it as bits can.
    #[must_use]
    pub fn mode(&self) -> ModeBits {
        let bits = |perm: Option<u16>| ModeBits::from(perm.unwrap_or(0));
        let group = self.entry(MASK).or(self.entry(GROUP_OBJ));
        (bits(self.entry(USER_OBJ)) << 6) | (bits(group) << 3) | bits(self.entry(OTHER))
    }

    /// Whether permission bits say all of it.
    #[must_use]
    pub fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// chmod(2): the group bits are the mask's.
    pub fn set_mode(&mut self, mode: ModeBits) {
        let bits = |shift: u32| u16::try_from((mode >> shift) & 7).unwrap_or(0);
        let group = if self.entry(MASK).is_some() { MASK } else { GROUP_OBJ };
        for (tag, shift) in [(USER_OBJ, 6), (group, 3), (OTHER, 0)] {
            if let Some(perm) = self.entry_mut(tag) {
                *perm = bits(shift);
            }
        }
    }

    /// What a new node gets from its directory's default list: its list, no more than `mode` asks for.
    #[must_use]
    pub fn inherited(&self, mode: ModeBits) -> Acl {
        let mut new = self.clone();
        new.set_mode(mode & self.mode());
        new
    }

    /// Whether the list gives a caller who does not own the file what it wants; capabilities aside.
    #[must_use]
    pub fn gives(&self, cred: &Credentials, attr: &Attr, want: Access) -> bool {
        let want = u16::try_from(want.bits()).unwrap_or(u16::MAX);
        let has = |perm: u16| perm & want == want;
        let masked = |perm: u16| has(perm & self.entry(MASK).unwrap_or(7));
        let mut in_a_group = false;
        for entry in &self.0 {
            match entry.tag {
                USER_OBJ if cred.fsuid == attr.uid => return has(entry.perm),
                USER if cred.fsuid.0 == entry.id => return masked(entry.perm),
                GROUP_OBJ if cred.in_group(attr.gid) => {
                    in_a_group = true;
                    if has(entry.perm) {
                        return masked(entry.perm);
                    }
                }
                GROUP if cred.in_group(Kgid(entry.id)) => {
                    in_a_group = true;
                    if has(entry.perm) {
                        return masked(entry.perm);
                    }
                }
                OTHER => return !in_a_group && has(entry.perm),
                _ => {}
            }
        }
        false
    }
}
