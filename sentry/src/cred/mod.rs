//! Credentials of tasks: changes of identity and capabilities (credentials(7), capabilities(7)).

/// `SECBIT_NOROOT`.
pub const SECBIT_NOROOT: u32 = 1;
/// `SECBIT_NO_SETUID_FIXUP`.
pub const SECBIT_NO_SETUID_FIXUP: u32 = 4;
/// `SECBIT_KEEP_CAPS`.
pub const SECBIT_KEEP_CAPS: u32 = 0x10;
/// `SECBIT_NO_CAP_AMBIENT_RAISE`.
pub const SECBIT_NO_CAP_AMBIENT_RAISE: u32 = 0x40;
/// `SECBIT_KEEP_CAPS_LOCKED`.
pub const SECBIT_KEEP_CAPS_LOCKED: u32 = 0x20;
