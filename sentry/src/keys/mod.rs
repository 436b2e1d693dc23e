//! Keys and keyrings (keyrings(7)): the types `keyring`, `user` and `logon`, held by tasks through their
//! thread, process and session keyrings, and by users through theirs.
//!
//! A key's own state has rank `Leaf`; changes of keyrings are made one at a time, under rank `Keys`.

mod access;
mod search;

pub use access::{Need, Place, may, possesses, resolve};
pub use search::{Found, search, search_task};

use crate::task::Cx;
use abi::{Errno, SysResult};
use lock::order::{Keys as KeysRank, Leaf};
use lock::{Ranked, RankedGuard};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use vfs::{Kgid, Kuid};

/// Most links of a keyring.
const MOST_LINKS: usize = 65_536;
/// How long a request that found nothing is remembered.
const NEGATIVE_FOR: Duration = Duration::from_secs(60);
/// How deep keyrings may nest.
pub(crate) const MOST_DEPTH: usize = 6;
/// Most keys and bytes of a user other than root (`/proc/sys/kernel/keys/{maxkeys,maxbytes}`).
const QUOTA: (usize, usize) = (200, 20_000);
/// The same of root.
const ROOT_QUOTA: (usize, usize) = (1_000_000, 25_000_000);

/// What a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyType {
    /// Links to keys.
    Keyring,
    /// Bytes that user space may read back.
    User,
    /// Bytes that it may not.
    Logon,
}

impl KeyType {
    /// By name; `ENODEV` when there is none.
    pub fn named(name: &[u8]) -> SysResult<KeyType> {
        match name {
            b"keyring" => Ok(KeyType::Keyring),
            b"user" => Ok(KeyType::User),
            b"logon" => Ok(KeyType::Logon),
            _ => Err(Errno::ENODEV),
        }
    }
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KeyType::Keyring => "keyring",
            KeyType::User => "user",
            KeyType::Logon => "logon",
        }
    }
    /// Permissions of a new key: what its possessor may do with one of the type, and that its owner sees it.
    fn permissions(self) -> u32 {
        match self {
            KeyType::Keyring | KeyType::User => 0x3f01_0000,
            KeyType::Logon => 0x3d01_0000,
        }
    }
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Its number.
    pub serial: i32,
    /// What it is.
    pub kind: KeyType,
    /// Its name among those of its type.
    pub description: Vec<u8>,
    state: Ranked<Leaf, KeyState>,
}

/// What changes of a key.
#[derive(Clone, Debug)]
pub struct KeyState {
    /// Owner.
    pub uid: Kuid,
    /// Group.
    pub gid: Kgid,
    /// Possessor, user, group and other, eight bits each.
    pub perm: u32,
    /// Of `user` and `logon`.
    pub payload: Vec<u8>,
    /// Of a keyring.
    pub links: Vec<Arc<Key>>,
    /// When it expires.
    pub expires: Option<Instant>,
    /// KEYCTL_REVOKE.
    pub revoked: bool,
    /// KEYCTL_INVALIDATE: as if it were gone.
    pub invalid: bool,
    /// Remembers that it was asked for in vain.
    pub negative: bool,
    /// KEYCTL_RESTRICT_KEYRING: takes no more links.
    pub restricted: bool,
}

impl Key {
    /// A copy of its state.
    #[must_use]
    pub fn state(&self) -> KeyState {
        self.state.lock().clone()
    }
    /// Changes its state.
    pub fn update(&self, change: impl FnOnce(&mut KeyState)) {
        let mut state = self.state.lock();
        let old = state.clone();
        change(&mut state);
        drop(state);
        // Keys that lose their last link go without the lock.
        drop(old);
    }
    /// Its links that still count; `ENOTDIR` when it is no keyring.
    pub fn links(&self) -> SysResult<Vec<Arc<Key>>> {
        if self.kind != KeyType::Keyring {
            return Err(Errno::ENOTDIR);
        }
        let links = self.state.lock().links.clone();
        Ok(links.into_iter().filter(|key| !key.state.lock().invalid).collect())
    }
    /// `EKEYREVOKED`, `EKEYEXPIRED`, or `ENOKEY` when it was invalidated.
    pub fn validate(&self) -> SysResult<()> {
        let state = self.state.lock();
        if state.invalid {
            return Err(Errno::ENOKEY);
        }
        if state.revoked {
            return Err(Errno::EKEYREVOKED);
        }
        if state.expires.is_some_and(|at| at <= Instant::now()) {
            return Err(Errno::EKEYEXPIRED);
        }
        if state.negative { Err(Errno::ENOKEY) } else { Ok(()) }
    }
    /// Puts a link to `key` in, in place of one of the same type and name. Under [`Keys::changes`].
    pub fn link(self: &Arc<Self>, key: &Arc<Key>) -> SysResult<()> {
        self.links()?;
        if self.state.lock().restricted {
            return Err(Errno::EPERM);
        }
        if key.kind == KeyType::Keyring {
            search::check_cycle(self, key, 0)?;
        }
        if self.state.lock().links.len() >= MOST_LINKS {
            return Err(Errno::ENFILE);
        }
        let key = Arc::clone(key);
        self.update(|state| {
            state.links.retain(|old| old.kind != key.kind || old.description != key.description);
            state.links.push(key);
        });
        Ok(())
    }
    /// Takes the link to `key` out; `ENOENT`.
    pub fn unlink(&self, key: &Key) -> SysResult<()> {
        if !self.links()?.iter().any(|old| old.serial == key.serial) {
            return Err(Errno::ENOENT);
        }
        self.update(|state| state.links.retain(|old| old.serial != key.serial));
        Ok(())
    }
    /// Whether its link to a key of that type and name exists.
    pub fn linked(&self, kind: KeyType, description: &[u8]) -> SysResult<Option<Arc<Key>>> {
        Ok(self.links()?.into_iter().find(|key| key.kind == kind && key.description == description))
    }
}

/// Keyrings of a user.
#[derive(Clone, Debug)]
pub struct UserKeys {
    /// KEY_SPEC_USER_KEYRING.
    pub ring: Arc<Key>,
    /// KEY_SPEC_USER_SESSION_KEYRING.
    pub session: Arc<Key>,
}

#[derive(Debug, Default)]
struct Table {
    by_serial: BTreeMap<i32, Weak<Key>>,
    users: HashMap<u32, UserKeys>,
}

/// All keys of the sandbox.
#[derive(Debug, Default)]
pub struct Keys {
    table: Ranked<Leaf, Table>,
    changes: Ranked<KeysRank, ()>,
}

/// Who a new key belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User.
    pub uid: Kuid,
    /// Group.
    pub gid: Kgid,
}

impl Owner {
    /// The caller.
    #[must_use]
    pub fn of(cx: &Cx<'_>) -> Owner {
        Owner { uid: cx.cred().fsuid, gid: cx.cred().fsgid }
    }
}

impl Keys {
    /// Held while keyrings are searched and then changed.
    pub fn changes(&self) -> RankedGuard<'_, ()> {
        self.changes.lock()
    }
    /// By number; `ENOKEY`.
    pub fn find(&self, serial: i32) -> SysResult<Arc<Key>> {
        let key = self.table.lock().by_serial.get(&serial).and_then(Weak::upgrade);
        key.filter(|key| !key.state.lock().invalid).ok_or(Errno::ENOKEY)
    }
    /// Every key, by number.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Key>> {
        self.table.lock().by_serial.values().filter_map(Weak::upgrade).collect()
    }
    /// A new key with the permissions of its type; `EDQUOT`.
    pub fn create(
        &self,
        kind: KeyType,
        description: &[u8],
        owner: Owner,
        payload: Vec<u8>,
    ) -> SysResult<Arc<Key>> {
        self.check_quota(owner.uid, description.len() + 1 + payload.len())?;
        Ok(self.add(kind, description, owner, kind.permissions(), payload))
    }
    /// A key that says for a while that there is none (request_key(2)).
    pub fn negative(&self, kind: KeyType, description: &[u8], owner: Owner) -> SysResult<Arc<Key>> {
        let key = self.create(kind, description, owner, Vec::new())?;
        key.update(|state| {
            state.negative = true;
            state.expires = Instant::now().checked_add(NEGATIVE_FOR);
        });
        Ok(key)
    }
    /// A keyring that the kernel makes.
    pub fn ring(&self, description: &[u8], owner: Owner, perm: u32) -> Arc<Key> {
        self.add(KeyType::Keyring, description, owner, perm, Vec::new())
    }
    /// `EDQUOT` when a user would have too many bytes or keys with this one.
    pub fn check_quota(&self, uid: Kuid, bytes: usize) -> SysResult<()> {
        let (most_keys, most_bytes) = Keys::quota(uid);
        let (keys, used) = self.used(uid);
        if keys >= most_keys || used + bytes > most_bytes { Err(Errno::EDQUOT) } else { Ok(()) }
    }
    /// Most keys and bytes of a user.
    #[must_use]
    pub fn quota(uid: Kuid) -> (usize, usize) {
        if uid.0 == 0 { ROOT_QUOTA } else { QUOTA }
    }
    /// How many keys a user has, and bytes.
    #[must_use]
    pub fn used(&self, uid: Kuid) -> (usize, usize) {
        let (mut keys, mut used) = (0_usize, 0_usize);
        for key in self.all() {
            let state = key.state.lock();
            if state.uid == uid && !state.invalid {
                keys += 1;
                used += key.description.len() + 1 + state.payload.len();
            }
        }
        (keys, used)
    }
    fn add(&self, kind: KeyType, description: &[u8], owner: Owner, perm: u32, payload: Vec<u8>) -> Arc<Key> {
        let state = KeyState {
            uid: owner.uid,
            gid: owner.gid,
            perm,
            payload,
            links: Vec::new(),
            expires: None,
            revoked: false,
            invalid: false,
            negative: false,
            restricted: false,
        };
        let mut table = self.table.lock();
        table.by_serial.retain(|_, key| key.strong_count() > 0);
        let mut serial = random_serial();
        while table.by_serial.contains_key(&serial) {
            serial = if serial == i32::MAX { 3 } else { serial + 1 };
        }
        let key =
            Arc::new(Key { serial, kind, description: description.to_vec(), state: Ranked::new(state) });
        table.by_serial.insert(serial, Arc::downgrade(&key));
        key
    }
    /// The keyrings of a user, made when they are first asked for. Under [`Keys::changes`].
    pub fn user(&self, uid: Kuid, shown: u32) -> UserKeys {
        if let Some(keys) = self.table.lock().users.get(&uid.0) {
            return keys.clone();
        }
        let owner = Owner { uid, gid: Kgid(u32::MAX) };
        const PERM: u32 = 0x1f3f_0000;
        let ring = self.ring(format!("_uid.{shown}").as_bytes(), owner, PERM);
        let session = self.ring(format!("_uid_ses.{shown}").as_bytes(), owner, PERM);
        let mine = Arc::clone(&ring);
        session.update(|state| state.links.push(mine));
        let keys = UserKeys { ring, session };
        self.table.lock().users.insert(uid.0, keys.clone());
        keys
    }
}

fn random_serial() -> i32 {
    let mut bytes = [0; 4];
    // Numbers only have to differ, which the caller sees to.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    (i32::from_ne_bytes(bytes) & i32::MAX).max(3)
}

/// The keyrings of a task.
#[derive(Clone, Debug, Default)]
pub struct TaskKeys {
    /// KEY_SPEC_THREAD_KEYRING.
    pub thread: Option<Arc<Key>>,
    /// KEY_SPEC_PROCESS_KEYRING.
    pub process: Option<Arc<Key>>,
    /// KEY_SPEC_SESSION_KEYRING; the user's when there is none.
    pub session: Option<Arc<Key>>,
    /// KEYCTL_SET_REQKEY_KEYRING.
    pub default_ring: u8,
}

/// Permissions of a thread's or process' keyring.
pub const OWN_RING: u32 = 0x3f01_0000;
/// Permissions of a session keyring.
pub const SESSION_RING: u32 = 0x3f03_0000;

impl TaskKeys {
    /// Of a new thread of the process.
    #[must_use]
    pub fn for_thread(&self) -> TaskKeys {
        TaskKeys { thread: None, ..self.clone() }
    }
    /// Of a new process, or of a new program.
    #[must_use]
    pub fn for_process(&self) -> TaskKeys {
        TaskKeys { thread: None, process: None, ..self.clone() }
    }
}
