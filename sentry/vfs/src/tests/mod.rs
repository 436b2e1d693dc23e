//! Tests of walks, mounts and locks over a tmpfs tree.

mod locks;
mod mounts;
mod speed;
mod walks;
