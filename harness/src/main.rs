//! The command `eval`.
fn main() {}
