//! What the processes of one family write to soon after a fork, so that the next fork copies it at once.
//!
//! A copy costs a fraction of a microsecond, the two faults that it saves cost tens of them. A shell's forks write to
//! the same few pages each time: its data, the allocator's, the stack. Only copies made soon after a fork are learnt,
//! and all is forgotten now and then, since what nobody writes to any more would be copied for ever.

use lock::{Ranked, order};

/// Most pages that are remembered, and so copied at a fork.
const MOST_PAGES: usize = 64;
/// Forks after which everything is forgotten.
const FORGET_AFTER: u32 = 64;

/// The memory of one family. See the module.
#[derive(Debug, Default)]
pub(crate) struct Habits(Ranked<order::Leaf, Learnt>);

#[derive(Debug, Default)]
struct Learnt {
    pages: Vec<u64>,
    forks: u32,
}

impl Habits {
    /// Notes that a write to the page at `page` had to copy it.
    pub(crate) fn note(&self, page: u64) {
        let mut learnt = self.0.lock();
        if learnt.pages.len() < MOST_PAGES && !learnt.pages.contains(&page) {
            learnt.pages.push(page);
        }
    }

    /// The pages to copy at a fork that is under way.
    pub(crate) fn at_fork(&self) -> Vec<u64> {
        let mut learnt = self.0.lock();
        learnt.forks += 1;
        if learnt.forks > FORGET_AFTER {
            *learnt = Learnt::default();
        }
        learnt.pages.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::PAGE_SIZE;

    #[test]
    fn learns_up_to_a_bound_and_forgets() {
        let habits = Habits::default();
        habits.note(0x1000);
        habits.note(0x3000);
        habits.note(0x1000);
        assert_eq!(habits.at_fork(), [0x1000, 0x3000]);
        for page in 0..1000 {
            habits.note(page * PAGE_SIZE);
        }
        assert_eq!(habits.at_fork().len(), MOST_PAGES);
        for _ in 0..FORGET_AFTER {
            habits.at_fork();
        }
        assert_eq!(habits.at_fork(), Vec::<u64>::new());
    }
}
