//! runsc.
fn main() {}
