//! containerd under test: a daemon with everything of its own (directories, sockets, bridge, cgroups, images), a CRI
//! client and the streams behind it.
#![forbid(unsafe_code)]

pub mod api;
pub mod client;
pub mod daemon;
pub mod image;
pub mod leftovers;
pub mod pod;
pub mod stream;
