//! Memory policies (numa(7)) of a machine with one node: they are kept and shown, and change nothing else.

use crate::manager::MemoryManager;
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult, UserAddr};

/// Which nodes pages come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NodePolicy {
    /// As the thread or the system says.
    #[default]
    Default,
    /// `MPOL_*`.
    Set {
        /// Mode without its flags.
        mode: u16,
        /// `MPOL_F_STATIC_NODES` and its kin.
        flags: u16,
        /// Nodes: bit 0 is node 0, the only one there is. Zero for MPOL_LOCAL.
        nodes: u64,
        /// set_mempolicy_home_node(2).
        home: Option<u32>,
    },
}

/// Where a page is (move_pages(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageState {
    /// In memory.
    Present,
    /// Mapped, never touched.
    Absent,
    /// Not mapped.
    Unmapped,
}

impl MemoryManager {
    /// mbind(2). `EFAULT` when part of the range is not mapped.
    pub fn set_policy(&self, range: AddrRange, policy: NodePolicy) -> SysResult<()> {
        let mut layout = self.layout.write();
        if !layout.covers(range) {
            return Err(Errno::EFAULT);
        }
        layout.update(range, |vma| vma.policy = policy);
        Ok(())
    }
    /// set_mempolicy_home_node(2): `EOPNOTSUPP` for areas with a policy that has no home.
    pub fn set_home_node(&self, range: AddrRange, node: u32) -> SysResult<()> {
        const BIND: u16 = 2;
        const PREFERRED_MANY: u16 = 5;
        let mut layout = self.layout.write();
        let without = |vma: &crate::vma::Vma| match vma.policy {
            NodePolicy::Default => false,
            NodePolicy::Set { mode, .. } => mode != BIND && mode != PREFERRED_MANY,
        };
        if layout.overlapping(range).next().is_none() {
            return Err(Errno::ENOENT);
        }
        if layout.overlapping(range).any(without) {
            return Err(Errno::EOPNOTSUPP);
        }
        layout.update(range, |vma| {
            if let NodePolicy::Set { home, .. } = &mut vma.policy {
                *home = Some(node);
            }
        });
        Ok(())
    }
    /// Policy of the area at `addr`; `None` when nothing is mapped there.
    #[must_use]
    pub fn policy_at(&self, addr: UserAddr) -> Option<NodePolicy> {
        self.layout.read().find(addr.raw()).map(|vma| vma.policy)
    }
    /// Where the page at `addr` is.
    #[must_use]
    pub fn page_state(&self, addr: UserAddr) -> PageState {
        match self.present(addr.page_floor(), PAGE_SIZE) {
            Err(_) => PageState::Unmapped,
            Ok(answer) if answer.first().is_some_and(|byte| *byte & 1 != 0) => PageState::Present,
            Ok(_) => PageState::Absent,
        }
    }
}
