//! Podman with conmon, and Docker, drive `runsc` as they drive runc: every scenario runs under both runtimes and
//! must say the same, with the same exit codes. Everything is private to a test: storage, sockets, daemons. Images
//! are made here.

mod docker;
mod engine;
mod podman;
