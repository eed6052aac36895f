//! The program: allocator and entry point, nothing else.

fn main() {}
