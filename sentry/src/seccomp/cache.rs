//! Which calls a filter allows whatever their arguments are, worked out once, as Linux does
//! (`seccomp_cache_prepare`): those cost a look at one bit.

/// Calls above this are asked about each time.
const CALLS: u32 = 512;

/// One bit for each call.
#[derive(Clone, Copy, Debug)]
pub struct Allowed([u64; 8]);

impl Allowed {
    /// Those of `older` for which `allows` holds too.
    pub(super) fn new(older: Option<&Allowed>, allows: impl Fn(u32) -> bool) -> Allowed {
        let mut bits = [0; 8];
        for call in 0..CALLS {
            let (word, bit) = place(call);
            if older.is_none_or(|older| older.has(call))
                && allows(call)
                && let Some(word) = bits.get_mut(word)
            {
                *word |= bit;
            }
        }
        Allowed(bits)
    }
    /// Nothing.
    pub(super) const NONE: Allowed = Allowed([0; 8]);

    /// Whether a call needs no further look.
    pub(super) fn has(&self, call: u32) -> bool {
        let (word, bit) = place(call);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

fn place(call: u32) -> (usize, u64) {
    (usize::try_from(call / 64).unwrap_or(usize::MAX), 1 << (call % 64))
}
