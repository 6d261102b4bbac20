//! hubd.
fn main() {}
