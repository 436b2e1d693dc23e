//! mprotect, mremap, madvise and what /proc shows.

use super::*;
