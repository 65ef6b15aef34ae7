# Thin recipes over the Rust programs; `./x RECIPE` installs what is missing first.

set positional-arguments

export EFUSE_ROOT := justfile_directory()
bin := justfile_directory() / "target/release"

# What there is.
default:
    @just --list --unsorted

# Programs that the harness needs, optimised. `test` has built everything in one go
# before: tests unify other features, and polars would be compiled twice.
[private]
build:
    @test -n "${EFUSE_BUILT:-}" || cargo build --release --quiet --locked -p efuse-bpf -p efuse-eval -p efuse-hostile -p efuse-metaload -p efuse-stackfs -p efuse-kernel -p efuse-report

# Evaluate: `just eval quick`, `just eval all`, `just eval --help`.
eval *ARGS: build
    @"{{ bin }}/eval" "$@"

# Render the report of a run: `just report results/runs/NAME`.
report *ARGS: build
    @"{{ bin }}/report" "$@"

# Compare two runs, baselines or revisions, with a page: `just compare OLD NEW`.
compare *ARGS: build
    @"{{ bin }}/eval" compare "$@"

# Ratios to a base over the kept baselines, with a page: `just history --metric read-iops`.
history *ARGS: build
    @"{{ bin }}/eval" history "$@"

# Keep a run as a baseline: `just baseline save NAME [RUN]`, `just baseline list`.
baseline *ARGS: build
    @"{{ bin }}/eval" baseline "$@"

# Judge a run: `just gate --baseline NAME`; exits with 1 on a regression, 2 if it cannot tell.
gate *ARGS: build
    @"{{ bin }}/eval" gate "$@"

# Build efuse.ko, or `just kernel apply TREE`, `just kernel host`, `just kernel --help`.
kernel *ARGS: build
    @"{{ bin }}/kernel" "$@"

# Programs for eFUSE mounts: `just efuse attach MOUNT`, `just efuse show`, `just efuse --help`.
efuse *ARGS: build
    @"{{ bin }}/efuse" "$@"

# Third-party test suites that the checks in the guest use.
[private]
tools:
    @test -x target/tools/bin/pjdfstest || cargo install --quiet --locked --root target/tools pjdfstest
    @test -x target/tools/bin/fsx || cargo install --quiet --locked --root target/tools fsx

# Formatting and lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --release --locked -- -D warnings

# Unit and host tests.
unit: build
    @"{{ bin }}/kernel" build
    cargo test --workspace --release --locked

# What decoding and the rings' shared memory cost: `just bench`, `just bench decode`.
bench *ARGS:
    cargo bench --locked -p efuse-abi --bench wire -- "$@"
    cargo bench --locked -p efuse-runtime --bench ring -- "$@"

# Mount every system in the guest, do real I/O, compare bytes.
check *ARGS: build tools
    @"{{ bin }}/eval" check "$@"

# One small evaluation, its report, and the report in a real browser.
smoke: build
    @"{{ bin }}/eval" clean smoke-test >/dev/null 2>&1 || true
    @"{{ bin }}/eval" run smoke --name smoke-test
    EFUSE_REPORT_RUN="$EFUSE_ROOT/results/runs/smoke-test" cargo test --workspace --release --locked --test browser measured

# The regression gate of CI: eFUSE against stock FUSE, in time that counts instructions.
regression: build
    @"{{ bin }}/eval" clean regression-test >/dev/null 2>&1 || true
    @"{{ bin }}/eval" run gate --systems fuse,efuse-bare,efuse-meta --deterministic --no-report --name regression-test
    @"{{ bin }}/eval" gate regression-test --metrics read-iops,read-clat

# Everything that CI checks.
test:
    cargo build --release --locked --workspace --all-targets
    EFUSE_BUILT=1 "{{ just_executable() }}" lint unit
    EFUSE_BUILT=1 "{{ just_executable() }}" check # apart: it would take what follows for its arguments
    EFUSE_BUILT=1 "{{ just_executable() }}" smoke regression
