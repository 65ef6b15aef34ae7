//! The built-in workloads, and every message about a wrong one.

use efuse_model::device::Device;
use efuse_model::test::{FioJob, Pattern, Test};
use efuse_workloads::{Workload, load, names, parse, text};
use proptest::prelude::*;

const HEAD: &str = "\
name = 'w'
description = 'd'
repetitions = 2
systems = ['ext4', 'fuse']
[device]
kind = 'brd'
size = '128MiB'
[defaults]
pattern = 'randrw'
read_percent = 70
block = '4KiB'
depth = 8
jobs = 2
files = 2
file_size = '8MiB'
runtime = '1s'
";
/// Lines in [`HEAD`]: what is appended begins on the next one.
const LINES: i32 = 16;
const TEST: &str = "[[test]]\nid = 'A'\ntitle = 'a'\n";

fn good(more: &str) -> Workload {
    parse("w.toml", &format!("{HEAD}{more}")).unwrap()
}

/// The message about `more` after the head, on its line `line`.
#[track_caller]
fn refuses(more: &str, line: i32, expected: &str) {
    let error = parse("w.toml", &format!("{HEAD}{more}")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("w.toml:{}: {expected}", LINES + line)
    );
}

#[track_caller]
fn refuses_head(from: &str, to: &str, expected: &str) {
    let text = HEAD.replacen(from, to, 1) + TEST;
    assert_ne!(text, HEAD.to_owned() + TEST, "nothing was replaced");
    assert_eq!(parse("w.toml", &text).unwrap_err().to_string(), expected);
}

/// The test's job, which is one of fio's.
fn fio(test: &Test) -> &FioJob {
    test.job.fio().expect("a job of fio's")
}

#[test]
fn every_built_in_workload_is_read_and_named_as_its_file() {
    for name in names() {
        let workload = load(name).unwrap();
        assert_eq!(workload.name, name);
        assert!(!workload.tests.is_empty());
        assert!(
            text(name).unwrap().starts_with('#'),
            "{name} has no comment"
        );
        for test in &workload.tests {
            assert!(test.verify.compare, "{name} {}", test.id);
            if test.job.metadata().is_some() {
                continue;
            }
            assert!(test.verify.read_bytes > 0, "{name} {}", test.id);
            assert!(test.verify.write_bytes > 0, "{name} {}", test.id);
            // The only one that is about the page cache, too.
            if name != "data" {
                assert!(fio(test).direct);
                // But for callers that wait, in rings.
                let engine = if test.id == "SYNC" { "psync" } else { "libaio" };
                assert_eq!(fio(test).engine, engine);
            }
        }
        assert!(matches!(workload.device, Device::NvmeModel { .. }));
    }
}

#[test]
fn paper_vm_is_what_was_published() {
    let tests = load("paper-vm").unwrap().tests;
    assert_eq!(tests.len(), 3);
    for (test, number) in tests.iter().zip(1..) {
        assert_eq!(test.published, Some(("vm".into(), number)));
        assert_eq!((fio(test).jobs, fio(test).iodepth), (4, 32));
        assert_eq!(fio(test).block_bytes, 4096);
        assert_eq!(fio(test).pattern, Pattern::RandRw);
        assert_eq!(fio(test).read_percent, 70);
    }
    assert_eq!(fio(&tests[0]).io_bytes, Some(512 << 20));
    assert_eq!(fio(&tests[0]).runtime_ms, None);
    assert_eq!(fio(&tests[1]).runtime_ms, Some(30_000));
    assert_eq!(fio(&tests[2]).runtime_ms, Some(60_000));
}

#[test]
fn paper_physical_is_the_table() {
    let tests = load("paper-physical").unwrap().tests;
    let rows: Vec<_> = tests
        .iter()
        .map(|t| {
            let j = fio(t);
            (
                j.files,
                j.file_bytes,
                j.block_bytes,
                j.jobs,
                j.iodepth,
                j.runtime_ms,
                t.published.clone(),
            )
        })
        .collect();
    let published = |n| Some(("physical".to_owned(), n));
    assert_eq!(
        rows,
        [
            (1, 1 << 30, 4096, 8, 256, Some(60_000), published(1)),
            (50, 512 << 10, 4096, 16, 256, Some(60_000), published(2)),
            (5, 2 << 30, 1 << 20, 16, 64, Some(120_000), published(3)),
        ]
    );
}

#[test]
fn published_tests_exist_in_the_reference() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../results/paper/reference.toml"
    );
    let reference = std::fs::read_to_string(path).unwrap();
    for name in names() {
        for test in load(name).unwrap().tests {
            let Some((profile, number)) = test.published else {
                continue;
            };
            let cell = format!("profile = \"{profile}\"\ntest = {number}\n");
            assert!(reference.contains(&cell), "{name} {}: {cell}", test.id);
        }
    }
}

#[test]
fn a_matrix_leaves_out_what_is_excluded() {
    let sweep = load("sweep").unwrap();
    // 4 patterns x 3 blocks x 2 depths, less 2 x 1 x 2, less 2 x 1 x 1 of the rest.
    assert_eq!(sweep.tests.len(), 24 - 4 - 2);
    let ids: Vec<&str> = sweep.tests.iter().map(|t| t.id.as_str()).collect();
    assert!(ids.contains(&"read-1MiB-qd1"));
    assert!(!ids.contains(&"read-1MiB-qd32"));
    assert!(!ids.contains(&"randread-1MiB-qd1"));
    let test = sweep
        .tests
        .iter()
        .find(|t| t.id == "randwrite-64KiB-qd32")
        .unwrap();
    assert_eq!(test.title, "randwrite, 64KiB blocks, depth 32");
    assert_eq!(fio(test).block_bytes, 64 << 10);
    assert_eq!(fio(test).iodepth, 32);
    assert_eq!(fio(test).pattern, Pattern::RandWrite);
    assert_eq!(fio(test).read_percent, 0);
}

#[test]
fn tests_lie_over_defaults_and_keep_the_order_of_the_file() {
    let w = good(
        "verify = { read = '1GiB' }\noptions = { gtod_reduce = 1 }\n\
         [[matrix]]\nid = 'm{depth}'\ntitle = 't'\naxes = { depth = [2, 1] }\n\
         [[test]]\nid = 'A'\ntitle = 'a'\ndepth = 3\nverify = { write = 0 }\n\
         options = { rate = '1m' }\n",
    );
    let ids: Vec<&str> = w.tests.iter().map(|t| t.id.as_str()).collect();
    assert_eq!(ids, ["m2", "m1", "A"]);
    let test = &w.tests[2];
    assert_eq!(fio(test).iodepth, 3);
    assert_eq!(fio(test).jobs, 2);
    // No more than there is.
    assert_eq!(test.verify.read_bytes, 16 << 20);
    assert_eq!(test.verify.write_bytes, 0);
    assert!(test.verify.compare);
    assert_eq!(fio(test).options["gtod_reduce"], "1");
    assert_eq!(fio(test).options["rate"], "1m");
    assert!(!fio(&w.tests[0]).options.contains_key("rate"));
}

#[test]
fn skewed_is_deep_on_one_processor() {
    let rings = load("rings").unwrap();
    let job = |id: &str| fio(rings.tests.iter().find(|t| t.id == id).unwrap()).clone();
    let (mut skewed, deep) = (job("SKEW"), job("DEEP"));
    assert_ne!(skewed, deep);
    assert_eq!(skewed.options.remove("cpus_allowed").unwrap(), "0");
    assert_eq!(skewed, deep);
}

#[test]
fn what_a_workload_asks_of_its_repetitions() {
    let plain = good(TEST);
    assert_eq!((plain.probed, plain.precision), (0, None));
    assert!(plain.twins.is_empty());
    let head = HEAD.replacen(
        "repetitions = 2",
        "repetitions = 2\nprobed = 1\ntwins = ['fuse']\nprecision = '2.5%'\nmax_repetitions = 7",
        1,
    );
    let w = parse("w.toml", &format!("{head}{TEST}")).unwrap();
    assert_eq!((w.probed, w.max_repetitions), (1, Some(7)));
    assert_eq!(w.twins, ["fuse"]);
    assert!((w.precision.unwrap() - 0.025).abs() < 1e-12);
    for (more, message) in [
        (
            "twins = ['efuse']",
            "w.toml:4: `twins` names \"efuse\", which is not in `systems`",
        ),
        (
            "twins = ['fuse', 'fuse']",
            "w.toml:4: `twins` names \"fuse\" twice",
        ),
        (
            "precision = '0%'",
            "w.toml:4: `precision` must be a share such as \"10%\", between 0.1% and 100%, but is \"0%\"",
        ),
        (
            "max_repetitions = 4",
            "w.toml:4: `max_repetitions` means nothing without `precision`",
        ),
    ] {
        refuses_head(
            "repetitions = 2",
            &format!("repetitions = 2\n{more}"),
            message,
        );
    }
}

#[test]
fn messages_about_the_head() {
    refuses_head(
        "repetitions",
        "repetition",
        "w.toml:1: the file has no `repetitions`; it must be given",
    );
    refuses_head(
        "repetitions = 2",
        "repetitions = 0",
        "w.toml:3: `repetitions` must be between 1 and 1000, but is 0",
    );
    refuses_head(
        "systems = ['ext4', 'fuse']",
        "systems = [\n'fuse',\n'fuse']",
        "w.toml:6: `systems` names \"fuse\" twice",
    );
    refuses_head(
        "systems = ['ext4', 'fuse']",
        "systems = 'fuse'",
        "w.toml:4: `systems` must be a list, but is a string",
    );
    refuses_head(
        "kind = 'brd'",
        "kind = 'ssd'",
        "w.toml:6: `device.kind` is the unknown device \"ssd\"; there are nvme-model, brd, virtio, loop, disk",
    );
    refuses_head(
        "size = '128MiB'",
        "size = '128MiB'\nlatency_us = 5",
        "w.toml:8: unknown key `latency_us` in `device`; the keys are: kind, size",
    );
    refuses_head(
        "size = '128MiB'",
        "size = '128MB'",
        "w.toml:7: `device.size` is not a size: \"128MB\"; write a number with B, KiB, MiB, GiB or TiB",
    );
    refuses_head(
        "size = '128MiB'",
        "size = '1MiB'",
        "w.toml:7: `device.size` must be whole MiB and at least 64MiB, but is 1MiB",
    );
    refuses_head(
        "name = 'w'",
        "name = 'a b'",
        "w.toml:1: `name` must consist of letters, digits, - _ and ., but is \"a b\"",
    );
    refuses_head(
        "read_percent = 70",
        "read_percent = 101",
        "w.toml:10: `defaults.read_percent` must be between 0 and 100, but is 101",
    );
    refuses_head(
        "depth = 8\n",
        "",
        "w.toml:16: test \"A\" has no `depth`, and neither have the defaults",
    );
    refuses_head(
        "read_percent = 70\n",
        "",
        "w.toml:16: test \"A\" has no `read_percent`, and neither have the defaults",
    );
    refuses_head(
        "runtime = '1s'\n",
        "",
        "w.toml:16: test \"A\" would never end: give it `io` (bytes), `runtime` (time), or both, for whichever comes first",
    );
    refuses_head(
        "block = '4KiB'",
        "block = 0",
        "w.toml:11: `defaults.block` must not be zero",
    );
}

#[test]
fn messages_about_tests() {
    refuses(
        "",
        1 - LINES,
        "the file has no [[test]], [[matrix]] or [[metadata]]; there is nothing to measure",
    );
    refuses(
        &format!("{TEST}iodepth = 4\n"),
        4,
        "unknown key `iodepth` in `test`; the keys are: id, title, published, engine, pattern, read_percent, block, depth, jobs, direct, files, file_size, io, runtime, ramp, verify, options",
    );
    refuses(
        &format!("{TEST}verify = {{ reads = 4096 }}\n"),
        4,
        "unknown key `reads` in `test.verify`; the keys are: read, write, compare",
    );
    refuses(
        &format!("{TEST}pattern = 'random'\n"),
        4,
        "`test.pattern` is the unknown pattern \"random\"; there are read, write, randread, randwrite, rw, randrw",
    );
    refuses(
        &format!("{TEST}runtime = 30\n"),
        4,
        "`test.runtime` must be a duration such as \"30s\", but is a whole number",
    );
    refuses(
        &format!("{TEST}runtime = '0s'\n"),
        4,
        "`test.runtime` must not be zero",
    );
    refuses(
        &format!("{TEST}direct = 1\n"),
        4,
        "`test.direct` must be true or false, but is a whole number",
    );
    refuses(
        &format!("{TEST}block = '3KiB'\n"),
        4,
        "`test.block` must be 512B, 1KiB, 2KiB, or a multiple of 4KiB up to 64MiB, so that its content can be verified, but is 3KiB",
    );
    refuses(
        &format!("{TEST}\nfile_size = '10KiB'\n"),
        5,
        "test \"A\": `file_size` 10KiB is not a multiple of `block` 4KiB",
    );
    refuses(
        &format!("{TEST}io = '4KiB'\n"),
        4,
        "test \"A\": `io` 4KiB is less than one block of 4KiB for each of 2 jobs",
    );
    refuses(
        &format!("{TEST}files = 20\n"),
        1,
        "test \"A\": 20 files of 8MiB need a device of at least 206MiB, but it has 128MiB",
    );
    refuses(
        &format!("{TEST}published = {{ profile = 'vm' }}\n"),
        4,
        "`test.published` has no `test`; it must be given",
    );
    refuses(
        &format!("{TEST}{TEST}"),
        4,
        "there are two tests \"A\" (see line 17); in a matrix, the id has to name every axis",
    );
    refuses(
        "[[test]]\nid = 'A/B'\ntitle = 'a'\n",
        2,
        "`test.id` must consist of letters, digits, - _ and ., but is \"A/B\"",
    );
}

#[test]
fn messages_about_matrices() {
    let matrix = "[[matrix]]\nid = 'm{depth}{block}'\ntitle = 't'\n";
    refuses(matrix, 1, "`matrix` has no `axes`; it must be given");
    refuses(
        &format!("{matrix}axes = {{}}\n"),
        4,
        "`matrix.axes` must have at least one axis",
    );
    refuses(
        &format!("{matrix}axes = {{ dept = [1] }}\n"),
        4,
        "unknown key `dept` in `matrix.axes`; the keys are: engine, pattern, read_percent, block, depth, jobs, direct, files, file_size, io, runtime, ramp",
    );
    refuses(
        &format!("{matrix}axes = {{ depth = [1, 1] }}\n"),
        4,
        "`matrix.axes.depth` has 1 twice",
    );
    refuses(
        &format!("{matrix}axes = {{ depth = [] }}\n"),
        4,
        "`matrix.axes.depth` must have at least one value",
    );
    refuses(
        &format!("{matrix}axes = {{ jobs = [1, 2] }}\n"),
        1,
        "there are two tests \"m84KiB\" (see line 17); in a matrix, the id has to name every axis",
    );
    refuses(
        &format!("{matrix}axes = {{ depth = [1, 2] }}\nexclude = [{{ depth = 3 }}]\n"),
        5,
        "`matrix.exclude.depth` is 3, which its axis has not",
    );
    refuses(
        &format!("{matrix}axes = {{ depth = [1, 2] }}\nexclude = [\n{{ jobs = 3 }}]\n"),
        6,
        "unknown key `jobs` in `matrix.exclude`; the keys are: depth",
    );
    refuses(
        &format!("{matrix}axes = {{ depth = [1] }}\nexclude = [{{ depth = 1 }}]\n"),
        1,
        "every combination of this matrix is excluded",
    );
    refuses(
        "[[matrix]]\nid = 'm{qd}'\ntitle = 't'\naxes = { depth = [1] }\n",
        2,
        "`matrix.id` has the unknown placeholder {qd}; there are {engine}, {pattern}, {read_percent}, {block}, {depth}, {jobs}, {direct}, {files}, {file_size}, {io}, {runtime}, {ramp}",
    );
}

#[test]
fn what_cannot_be_found() {
    assert_eq!(
        load("fast").unwrap_err().to_string(),
        "there is no workload \"fast\"; the built-in ones are quick, smoke, gate, sweep, data, rings, metadata, paper-vm, paper-physical; or give the path of a .toml file"
    );
    assert_eq!(
        load("/no/such/dir/w.toml").unwrap_err().to_string(),
        "/no/such/dir/w.toml: cannot read the workload: No such file or directory (os error 2)"
    );
}

#[test]
fn metadata_spans_its_kinds_and_cache_settings() {
    let head = |rest: &str| {
        format!(
            "name = 'm'\ndescription = 'd'\nrepetitions = 1\nsystems = ['fuse']\n\
             [device]\nkind = 'brd'\nsize = '64MiB'\n[[metadata]]\n{rest}"
        )
    };
    let job = "dirs = 2\nfiles = 3\nthreads = 1\nruntime = '1s'\n";
    let text = head(&format!(
        "id = '{{kind}}-{{kernel_cache}}'\ntitle = 't'\nkind = ['stat', 'find']\nkernel_cache = ['none', '1s']\n{job}"
    ));
    let w = parse("m.toml", &text).unwrap();
    let ids: Vec<_> = w.tests.iter().map(|t| t.id.as_str()).collect();
    assert_eq!(ids, ["stat-none", "stat-1s", "find-none", "find-1s"]);
    let error = |rest: &str| parse("m.toml", &head(rest)).unwrap_err().to_string();
    assert_eq!(
        error(&format!(
            "id = 'x'\ntitle = 't'\nkind = 'stats'\nkernel_cache = 'none'\n{job}"
        )),
        "m.toml:11: `metadata.kind` has the unknown value \"stats\"; there are stat, missing, find, create-unlink, rename, xattr, open-close, unpack"
    );
    assert!(
        error(&format!(
            "id = 'x'\ntitle = 't'\nkind = ['stat', 'find']\nkernel_cache = 'none'\n{job}"
        ))
        .contains("there are two tests \"x\"")
    );
    assert!(
        error(&format!(
            "id = '{{x}}'\ntitle = 't'\nkind = 'stat'\nkernel_cache = 'none'\n{job}"
        ))
        .contains("unknown placeholder {x}")
    );
}

#[test]
fn scaling_has_minimums() {
    let w = load("paper-vm").unwrap();
    let tiny = w.scaled(1e-9);
    for test in &tiny.tests {
        assert_eq!(fio(test).file_bytes, 4096);
        assert!(test.verify.read_bytes >= 4096);
    }
    // One block for each request that can be in flight.
    assert_eq!(fio(&tiny.tests[0]).io_bytes, Some(4096 * 4 * 32));
    assert_eq!(fio(&tiny.tests[1]).runtime_ms, Some(250));
    assert_eq!(tiny.device, w.device);
    let large = w.scaled(10.0);
    assert_eq!(fio(&large.tests[2]).file_bytes, 1280 << 20);
    assert_eq!(fio(&large.tests[2]).runtime_ms, Some(600_000));
    assert!(large.device.size_bytes().unwrap() > 5 * (1280 << 20));
    assert_eq!(w.scaled(1.0), w);
}

proptest! {
    /// Whatever the factor, the result is a workload that could have been read.
    #[test]
    fn scaled_workloads_stay_sound(exponent in -9.0..1.5f64, index in 0..names().len()) {
        let factor = 10f64.powf(exponent);
        let before = load(names()[index]).unwrap();
        let after = before.scaled(factor);
        prop_assert_eq!(before.tests.len(), after.tests.len());
        for (old, new) in before.tests.iter().zip(&after.tests) {
            let Some(job) = new.job.fio() else {
                let ms = new.job.metadata().map(|job| job.runtime_ms);
                prop_assert!(ms.is_some_and(|ms| ms >= 250));
                continue;
            };
            prop_assert_eq!(job.block_bytes, fio(old).block_bytes);
            prop_assert_eq!(job.iodepth, fio(old).iodepth);
            prop_assert!(job.file_bytes >= job.block_bytes);
            prop_assert!(job.file_bytes.is_multiple_of(job.block_bytes));
            prop_assert!(job.io_bytes.is_some() || job.runtime_ms.is_some());
            prop_assert!(job.io_bytes.is_none_or(|b| b > 0 && b.is_multiple_of(job.block_bytes)));
            prop_assert!(job.runtime_ms.is_none_or(|ms| ms >= 250));
            let total = job.file_bytes * u64::from(job.files);
            prop_assert!(new.verify.read_bytes > 0 && new.verify.read_bytes <= total);
            prop_assert!(new.verify.write_bytes > 0 && new.verify.write_bytes <= total);
            prop_assert!(after.device.size_bytes().unwrap() > total);
        }
    }
}
