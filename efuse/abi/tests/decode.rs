//! Decoding: everything the kernel sends is understood, nothing else does harm.

mod common;

use common::{Aligned, arguments, header, request};
use efuse_abi::wire::*;
use efuse_abi::{DecodeError, Dialect, Extension, Op, Opcode, Request};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zerocopy::IntoBytes;

const DIALECTS: [Dialect; 2] = [
    Dialect {
        setxattr_ext: false,
    },
    Dialect { setxattr_ext: true },
];

/// Whether what a request borrows lies inside the bytes that it was decoded from, and touches all of
/// it (so a tool that watches memory sees a wrong bound).
fn borrows_inside(request: &Request<'_>, bytes: &[u8]) -> bool {
    let range = bytes.as_ptr_range();
    let inside = |part: &[u8]| {
        let part_range = part.as_ptr_range();
        std::hint::black_box(part.iter().fold(0u8, |sum, byte| sum ^ byte));
        part.is_empty() || (range.start <= part_range.start && part_range.end <= range.end)
    };
    let op = match request.op {
        Op::Lookup { name }
        | Op::Unlink { name }
        | Op::Rmdir { name }
        | Op::Removexattr { name } => inside(name.to_bytes_with_nul()),
        Op::Symlink { name, target } => {
            inside(name.to_bytes_with_nul()) && inside(target.to_bytes_with_nul())
        }
        Op::Mknod { arg, name } => inside(arg.as_bytes()) && inside(name.to_bytes_with_nul()),
        Op::Mkdir { arg, name } => inside(arg.as_bytes()) && inside(name.to_bytes_with_nul()),
        Op::Create { arg, name } => inside(arg.as_bytes()) && inside(name.to_bytes_with_nul()),
        Op::Link { arg, name } => inside(arg.as_bytes()) && inside(name.to_bytes_with_nul()),
        Op::Getxattr { arg, name } => inside(arg.as_bytes()) && inside(name.to_bytes_with_nul()),
        Op::Rename { name, newname, .. } => {
            inside(name.to_bytes_with_nul()) && inside(newname.to_bytes_with_nul())
        }
        Op::Write { arg, data } => inside(arg.as_bytes()) && inside(data),
        Op::Ioctl { arg, data } => inside(arg.as_bytes()) && inside(data),
        Op::NotifyReply { arg, data } => inside(arg.as_bytes()) && inside(data),
        Op::Setxattr { name, value, .. } => inside(name.to_bytes_with_nul()) && inside(value),
        Op::BatchForget(nodes) => inside(nodes.as_bytes()),
        Op::Removemapping(mappings) => inside(mappings.as_bytes()),
        Op::Setattr(arg) => inside(arg.as_bytes()),
        Op::Read(arg) | Op::Readdir(arg) | Op::Readdirplus(arg) => inside(arg.as_bytes()),
        Op::CopyFileRange(arg) | Op::CopyFileRange64(arg) => inside(arg.as_bytes()),
        _ => true,
    };
    let extensions = request
        .extensions
        .clone()
        .all(|extension| inside(extension.body));
    inside(request.header.as_bytes()) && op && extensions
}

#[test]
fn every_opcode_decodes_and_every_truncation_is_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for round in 0..50 {
        for (&opcode, dialect) in Opcode::ALL.iter().flat_map(|op| DIALECTS.map(|d| (op, d))) {
            let bytes = request(opcode, dialect, &mut rng);
            let aligned = Aligned::new(&bytes);
            let decoded = Request::parse(aligned.bytes(), dialect)
                .unwrap_or_else(|error| panic!("{opcode:?}, round {round}: {error}"));
            assert_eq!(decoded.header.opcode, opcode as u32);
            assert!(borrows_inside(&decoded, aligned.bytes()), "{opcode:?}");

            // What is cut off is missed, except at the end of what the opcode does not look at.
            let cut = rng.random_range(0..bytes.len());
            let mut short = bytes[..cut].to_vec();
            if let Some(len) = short.get_mut(..4) {
                len.copy_from_slice(&(cut as u32).to_ne_bytes());
            }
            let short = Aligned::new(&short);
            let result = Request::parse(short.bytes(), dialect);
            let tolerant = [Opcode::Init, Opcode::Syncfs, Opcode::Tmpfile];
            if cut < size_of::<InHeader>() || !tolerant.contains(&opcode) {
                assert!(
                    result.is_err(),
                    "{opcode:?} cut to {cut} of {}",
                    bytes.len()
                );
            }
        }
    }
}

#[test]
fn a_payload_elsewhere_decodes_as_one_behind() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let size = 4096u32;
    let write = WriteIn {
        fh: 7,
        offset: 8192,
        size,
        ..WriteIn::default()
    };
    let payload: Vec<u8> = (0..size).map(|_| rng.random()).collect();
    let head = header(Opcode::Write, 0, &mut rng);
    let inline = Aligned::new(write.as_bytes());
    let request = Request::from_parts(&head, inline.bytes(), &payload, Dialect::default())
        .expect("a valid request");
    let Op::Write { arg, data } = request.op else {
        panic!("not a write: {request:?}")
    };
    assert_eq!((arg.fh, arg.offset), (7, 8192));
    assert_eq!(data.as_ptr(), payload.as_ptr());
    assert_eq!(data.len(), payload.len());

    let short = Request::from_parts(&head, inline.bytes(), &payload[1..], Dialect::default());
    assert!(matches!(
        short,
        Err(DecodeError::Count {
            announced: 4096,
            have: 4095,
            ..
        })
    ));
}

#[test]
fn init_of_older_kernels_is_padded() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for len in [8, 16, 64] {
        let init = InitIn {
            major: 7,
            minor: 31,
            max_readahead: 9,
            flags: 5,
            ..InitIn::default()
        };
        let head = header(Opcode::Init, len, &mut rng);
        let bytes = Aligned::new(&[head.as_bytes(), &init.as_bytes()[..len]].concat());
        let request = Request::parse(bytes.bytes(), Dialect::default()).expect("a valid INIT");
        let Op::Init(got) = request.op else {
            panic!("not INIT: {request:?}")
        };
        assert_eq!((got.major, got.minor), (7, 31));
        assert_eq!(got.flags, if len >= 16 { 5 } else { 0 });
    }
}

#[test]
fn names_with_slashes_and_empty_names_are_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for name in [&b"\0"[..], b"a/b\0", b"/\0", b"../etc\0"] {
        let head = header(Opcode::Lookup, name.len(), &mut rng);
        let bytes = Aligned::new(&[head.as_bytes(), name].concat());
        let error = Request::parse(bytes.bytes(), Dialect::default()).expect_err("a bad name");
        assert_eq!(error, DecodeError::BadName);
    }
    let head = header(Opcode::Lookup, 3, &mut rng);
    let bytes = Aligned::new(&[head.as_bytes(), b"abc"].concat());
    let error = Request::parse(bytes.bytes(), Dialect::default()).expect_err("no NUL");
    assert_eq!(error, DecodeError::Unterminated("file name"));
}

#[test]
fn extensions_are_split_off_and_walked() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut args = arguments(Opcode::Mkdir, Dialect::default(), &mut rng);
    // One group, padded to 8: head, count, group.
    let groups: [u32; 4] = [16, 32, 1, 4242];
    args.resize(args.len().next_multiple_of(8), 0);
    args.extend_from_slice(groups.as_bytes());
    let mut head = header(Opcode::Mkdir, args.len(), &mut rng);
    head.total_extlen = 2;
    let bytes = Aligned::new(&[head.as_bytes(), &args].concat());
    let request = Request::parse(bytes.bytes(), Dialect::default()).expect("a valid request");
    let extensions: Vec<Extension<'_>> = request.extensions.collect();
    assert_eq!(
        extensions,
        [Extension {
            kind: 32,
            body: groups[2..].as_bytes()
        }]
    );

    head.total_extlen = u16::MAX;
    let bytes = Aligned::new(&[head.as_bytes(), &args].concat());
    let error = Request::parse(bytes.bytes(), Dialect::default()).expect_err("too long");
    assert_eq!(error, DecodeError::Extension(usize::from(u16::MAX) * 8));
}

#[test]
fn a_misaligned_buffer_is_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let bytes = request(Opcode::Getattr, Dialect::default(), &mut rng);
    let shifted = Aligned::new(&[&[0], &bytes[..]].concat());
    let error = Request::parse(&shifted.bytes()[1..], Dialect::default()).expect_err("misaligned");
    assert_eq!(error, DecodeError::Misaligned);
}

/// Seeded fuzzing: valid requests with bits flipped, bytes overwritten, cut and grown.
#[test]
fn mutated_requests_never_panic_nor_borrow_outside() {
    const ROUNDS: usize = 20_000;
    let mut rng = ChaCha8Rng::seed_from_u64(0xef5e);
    let mut decoded = 0;
    for _ in 0..ROUNDS {
        let opcode = Opcode::ALL[rng.random_range(0..Opcode::ALL.len())];
        let dialect = DIALECTS[rng.random_range(0..2)];
        let mut bytes = request(opcode, dialect, &mut rng);
        for _ in 0..rng.random_range(1..8) {
            let at = rng.random_range(0..bytes.len());
            // Most of what is worth breaking stands at the front.
            let at = if rng.random_bool(0.5) {
                at.min(rng.random_range(0..128))
            } else {
                at
            };
            match rng.random_range(0..5) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes[at] = rng.random(),
                2 => bytes[at] = [0, 0xff, 0x7f, 0x80, b'/'][rng.random_range(0..5)],
                3 => bytes.truncate(at.max(1)),
                _ => bytes.extend((0..rng.random_range(0..64)).map(|_| rng.random::<u8>())),
            }
        }
        // Half of the time the length is put right, or little would get past that check.
        if rng.random_bool(0.5) && bytes.len() >= 4 {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
        }
        let aligned = Aligned::new(&bytes);
        if let Ok(request) = Request::parse(aligned.bytes(), dialect) {
            assert!(borrows_inside(&request, aligned.bytes()), "{request:?}");
            decoded += 1;
        }
    }
    // Otherwise the mutations are so coarse that the test only ever sees the first check.
    assert!(decoded > ROUNDS / 20, "only {decoded} of {ROUNDS} decoded");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512), ext: bool) {
        let dialect = Dialect { setxattr_ext: ext };
        let aligned = Aligned::new(&bytes);
        if let Ok(request) = Request::parse(aligned.bytes(), dialect) {
            prop_assert!(borrows_inside(&request, aligned.bytes()));
        }
    }

    #[test]
    fn random_arguments_of_every_opcode_never_panic(
        index in 0..Opcode::ALL.len(),
        inline in proptest::collection::vec(any::<u8>(), 0..256),
        external in proptest::collection::vec(any::<u8>(), 0..256),
        total_extlen in prop_oneof![Just(0u16), 0..64u16, any::<u16>()],
        ext: bool,
    ) {
        let head = InHeader {
            opcode: Opcode::ALL[index] as u32,
            total_extlen,
            ..InHeader::default()
        };
        let (inline, external) = (Aligned::new(&inline), Aligned::new(&external));
        let dialect = Dialect { setxattr_ext: ext };
        if let Ok(request) = Request::from_parts(&head, inline.bytes(), external.bytes(), dialect) {
            for extension in request.extensions {
                prop_assert!(extension.body.len() <= 256);
            }
        }
    }
}
