//! Encoding: little-endian integers, length-prefixed strings and lists, one tag byte per enum.

use crate::types::Bytes;
use std::borrow::Cow;

/// The bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed message")
    }
}

impl std::error::Error for Malformed {}

/// What is left of a message.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A message ends where its last field ends.
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// A value that can be part of a message.
pub(crate) trait Wire<'a>: Sized {
    /// Fewest bytes a value takes: bounds what a list may reserve before its elements were seen.
    const MIN: usize;
    fn put(&self, out: &mut Vec<u8>);
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed>;
}

macro_rules! integers {
    ($($t:ty)*) => { $(impl<'a> Wire<'a> for $t {
        const MIN: usize = size_of::<$t>();
        fn put(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.to_le_bytes());
        }
        fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
            Ok(<$t>::from_le_bytes(from.array()?))
        }
    })* };
}
integers!(u8 u16 u32 u64 i64);

impl<'a> Wire<'a> for Bytes<'a> {
    const MIN: usize = 4;
    fn put(&self, out: &mut Vec<u8>) {
        put_len(self.len(), out);
        out.extend_from_slice(self);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let len = get_len(from)?;
        Ok(Cow::Borrowed(from.take(len)?))
    }
}

/// As a `Vec` is sent.
pub(crate) fn put_list<'a, T: Wire<'a>>(items: &[T], out: &mut Vec<u8>) {
    put_len(items.len(), out);
    for item in items {
        item.put(out);
    }
}

impl<'a, T: Wire<'a>> Wire<'a> for Vec<T> {
    const MIN: usize = 4;
    fn put(&self, out: &mut Vec<u8>) {
        put_list(self, out);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let len = get_len(from)?;
        if len > from.rest.len() / T::MIN.max(1) {
            return Err(Malformed);
        }
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(T::get(from)?);
        }
        Ok(items)
    }
}

impl<'a, T: Wire<'a>> Wire<'a> for Option<T> {
    const MIN: usize = 1;
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        match u8::get(from)? {
            0 => Ok(None),
            1 => Ok(Some(T::get(from)?)),
            _ => Err(Malformed),
        }
    }
}

/// Lengths past `u32` cannot be sent; such a message is longer than `MAX_MESSAGE` and refused there.
fn put_len(len: usize, out: &mut Vec<u8>) {
    u32::try_from(len).unwrap_or(u32::MAX).put(out);
}

fn get_len(from: &mut Reader<'_>) -> Result<usize, Malformed> {
    usize::try_from(u32::get(from)?).map_err(|_| Malformed)
}

/// A struct whose fields are sent in order.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident $(<$life:lifetime>)? {
        $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)*
    }) => {
        $(#[$meta])*
        pub struct $name $(<$life>)? { $($(#[$fmeta])* pub $field: $ty,)* }
        $crate::codec::record!(@impl [$($life)?] $name { $($field: $ty,)* });
    };
    (@impl [] $name:ident { $($field:ident: $ty:ty,)* }) => {
        impl<'a> $crate::codec::Wire<'a> for $name {
            $crate::codec::record!(@body 'a { $($field: $ty,)* });
        }
    };
    (@impl [$life:lifetime] $name:ident { $($field:ident: $ty:ty,)* }) => {
        impl<$life> $crate::codec::Wire<$life> for $name<$life> {
            $crate::codec::record!(@body $life { $($field: $ty,)* });
        }
    };
    (@body $life:lifetime { $($field:ident: $ty:ty,)* }) => {
        const MIN: usize = 0 $(+ <$ty as $crate::codec::Wire<$life>>::MIN)*;
        fn put(&self, out: &mut Vec<u8>) {
            $($crate::codec::Wire::put(&self.$field, out);)*
        }
        fn get(from: &mut $crate::codec::Reader<$life>) -> Result<Self, $crate::codec::Malformed> {
            $(let $field = <$ty as $crate::codec::Wire<$life>>::get(from)?;)*
            Ok(Self { $($field,)* })
        }
    };
}
pub(crate) use record;

/// An enum sent as its tag byte and the fields of its variant, which are always named.
macro_rules! tagged {
    ($(#[$meta:meta])* pub enum $name:ident<'a> {
        $($(#[$vmeta:meta])* $tag:literal $variant:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty),* $(,)? },)*
    }) => {
        $(#[$meta])*
        pub enum $name<'a> { $($(#[$vmeta])* $variant { $($(#[$fmeta])* $field: $ty,)* },)* }
        impl<'a> $crate::codec::Wire<'a> for $name<'a> {
            const MIN: usize = 1;
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($name::$variant { $($field,)* } => {
                        out.push($tag);
                        $($crate::codec::Wire::put($field, out);)*
                    })*
                }
            }
            fn get(from: &mut $crate::codec::Reader<'a>) -> Result<Self, $crate::codec::Malformed> {
                match <u8 as $crate::codec::Wire>::get(from)? {
                    $($tag => {
                        $(let $field = <$ty as $crate::codec::Wire<'a>>::get(from)?;)*
                        Ok($name::$variant { $($field,)* })
                    })*
                    _ => Err($crate::codec::Malformed),
                }
            }
        }
    };
}
pub(crate) use tagged;

/// A flags type of which unknown bits are refused.
macro_rules! flags {
    ($($name:ident($bits:ty)),*) => { $(impl<'a> $crate::codec::Wire<'a> for $name {
        const MIN: usize = size_of::<$bits>();
        fn put(&self, out: &mut Vec<u8>) {
            $crate::codec::Wire::put(&self.bits(), out);
        }
        fn get(from: &mut $crate::codec::Reader<'a>) -> Result<Self, $crate::codec::Malformed> {
            $name::from_bits(<$bits as $crate::codec::Wire>::get(from)?).ok_or($crate::codec::Malformed)
        }
    })* };
}
pub(crate) use flags;
