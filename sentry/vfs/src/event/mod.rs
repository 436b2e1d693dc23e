//! Files that are events: pipes, eventfd, timerfd, signalfd, epoll, inotify; the timer thread; donated host files.
//!
//! Constructors give open files; the descriptor flags (CLOEXEC) are the caller's business.

pub mod anon;
pub mod epoll;
pub mod eventfd;
pub mod host;
pub mod inotify;
pub mod pipe;
pub mod ring;
pub mod signalfd;
pub mod timer;
pub mod timerfd;
