//! What it costs to decode requests, by opcode, and to encode a directory.

// criterion's macro makes a function without.
#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use efuse_abi::{Dialect, DirentBuf, Opcode, Request};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;
use zerocopy::IntoBytes;

#[path = "../tests/common/mod.rs"]
#[allow(dead_code)]
mod common;

/// Requests of one kind, as they lie in a buffer: names and sizes differ.
fn requests(opcode: Opcode) -> Vec<common::Aligned> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    (0..64)
        .map(|_| {
            let args = common::arguments(opcode, Dialect::default(), &mut rng);
            let mut bytes = common::header(opcode, args.len(), &mut rng)
                .as_bytes()
                .to_vec();
            bytes.extend(args);
            common::Aligned::new(&bytes)
        })
        .collect()
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for opcode in [
        Opcode::Lookup,
        Opcode::Getattr,
        Opcode::Open,
        Opcode::Read,
        Opcode::Write,
        Opcode::Rename2,
        Opcode::Setxattr,
        Opcode::BatchForget,
    ] {
        let requests = requests(opcode);
        group.throughput(Throughput::Elements(requests.len() as u64));
        group.bench_function(format!("{opcode:?}"), |b| {
            b.iter(|| {
                for request in &requests {
                    let decoded = Request::parse(black_box(request.bytes()), Dialect::default());
                    black_box(decoded.expect("a valid request"));
                }
            });
        });
    }
    group.finish();
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(100));
    group.bench_function("READDIR of 100 names", |b| {
        b.iter_batched_ref(
            || vec![0; 8192],
            |buffer| {
                let mut entries = DirentBuf::new(buffer);
                for ino in 1..=100 {
                    let added = entries.push(ino, ino, 8, black_box(b"a-name-of-20-bytes.c"));
                    assert!(added);
                }
                entries.len()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
