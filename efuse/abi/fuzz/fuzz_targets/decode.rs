//! Any bytes, decoded whole and in parts: no panic, no read outside (the sanitizer watches).
#![no_main]

use efuse_abi::wire::InHeader;
use efuse_abi::{Dialect, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, u8, Vec<u64>)| {
    let (setxattr_ext, split, words) = input;
    let dialect = Dialect { setxattr_ext };
    // Words, so that the bytes are aligned as a transport's are.
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    // SAFETY: any bytes are valid u8s, and the vector of words lives on.
    let aligned: &[u8] =
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), bytes.len()) };
    if let Ok(request) = Request::parse(aligned, dialect) {
        std::hint::black_box(format!("{request:?}"));
        request.extensions.for_each(drop);
    }
    if aligned.len() > size_of::<InHeader>() {
        let args = &aligned[size_of::<InHeader>()..];
        let header = InHeader {
            opcode: u32::from(split) & 0x3f,
            total_extlen: u16::from(split >> 6),
            ..InHeader::default()
        };
        let (inline, external) = args.split_at(args.len().min(usize::from(split)));
        if let Ok(request) = Request::from_parts(&header, inline, external, dialect) {
            std::hint::black_box(format!("{request:?}"));
        }
    }
});
