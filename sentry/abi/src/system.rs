//! Structures about the system as a whole.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of one field of [`Utsname`], NUL included.
pub const UTS_LEN: usize = 65;

/// `struct new_utsname`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Utsname {
    fields: [[u8; UTS_LEN]; 6],
}

impl Utsname {
    /// Fills the six fields: sysname, nodename, release, version, machine, domainname.
    #[must_use]
    pub fn new(
        sys: &str,
        node: &[u8],
        release: &str,
        version: &str,
        machine: &str,
        domain: &[u8],
    ) -> Utsname {
        let mut fields = [[0; UTS_LEN]; 6];
        let texts =
            [sys.as_bytes(), node, release.as_bytes(), version.as_bytes(), machine.as_bytes(), domain];
        for (field, text) in fields.iter_mut().zip(texts) {
            for (to, from) in field.iter_mut().take(UTS_LEN - 1).zip(text) {
                *to = *from;
            }
        }
        Utsname { fields }
    }
}
