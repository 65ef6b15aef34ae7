//! The same operations on the mount and on the plain directory give the same results.
//!
//! Each battery writes down what it did and what came of it; the two transcripts must be equal.

mod common;

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::{Mounted, can_mount};

/// What was done and what came of it.
struct Transcript<'d> {
    dir: &'d Path,
    lines: Vec<String>,
}

impl Transcript<'_> {
    fn note(&mut self, what: &str, result: std::io::Result<impl Debug>) {
        let result = match result {
            Ok(value) => format!("{value:?}"),
            Err(error) => format!("errno {:?}", error.raw_os_error()),
        };
        self.lines.push(format!("{what}: {result}"));
    }

    fn call(&mut self, what: &str, result: libc::c_long) {
        let result = if result < 0 {
            Err(std::io::Error::last_os_error())
        } else {
            Ok(result)
        };
        self.note(what, result);
    }

    fn stat(&mut self, name: &str) {
        let stat = fs::symlink_metadata(self.dir.join(name)).map(|m| {
            let size = if m.is_dir() { 0 } else { m.size() };
            (
                format!("{:o}", m.mode()),
                m.nlink(),
                m.uid(),
                m.gid(),
                size,
                m.rdev(),
                // Not how many: two files with the same content may differ by a block
                // for the tree of extents.
                m.blocks() * 512 < m.size(),
            )
        });
        self.note(&format!("stat {name}"), stat);
    }

    /// Runs a shell script in the directory and notes status and output.
    fn script(&mut self, script: &str, user: &[&str]) {
        let (program, args) = match user {
            [] => ("sh", vec!["-c", script]),
            user => ("setpriv", [user, &["sh", "-c", script]].concat()),
        };
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir).env("LC_ALL", "C");
        let output = command.output().expect("run a shell");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.lines.push(format!(
            "{script}: {:?} {:?} {:?}",
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ));
    }
}

fn c(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.to_str().expect("UTF-8")).expect("no NUL")
}

fn names(t: &mut Transcript<'_>) {
    let dir = t.dir;
    t.note("mkdir", fs::create_dir(dir.join("d")));
    t.note("mkdir again", fs::create_dir(dir.join("d")));
    t.note("create", fs::write(dir.join("d/f"), b"hello"));
    t.note(
        "exclusive create",
        File::create_new(dir.join("d/f")).map(drop),
    );
    t.note(
        "long name",
        File::create(dir.join("n".repeat(256))).map(drop),
    );
    t.note(
        "longest name",
        File::create(dir.join("n".repeat(255))).map(drop),
    );
    t.note("symlink", symlink("d/f", dir.join("s")));
    t.note("readlink", fs::read_link(dir.join("s")));
    t.note("through symlink", fs::read(dir.join("s")));
    t.note("dangling", symlink("nowhere", dir.join("dangling")));
    t.note("open dangling", File::open(dir.join("dangling")).map(drop));
    t.note("link", fs::hard_link(dir.join("d/f"), dir.join("l")));
    t.note(
        "link to symlink",
        fs::hard_link(dir.join("s"), dir.join("s2")),
    );
    t.note(
        "link directory",
        fs::hard_link(dir.join("d"), dir.join("d2")),
    );
    for name in ["d", "d/f", "s", "s2", "l", "dangling", "missing"] {
        t.stat(name);
    }
    t.note("rmdir full", fs::remove_dir(dir.join("d")));
    t.note("unlink directory", fs::remove_file(dir.join("d")));
    t.note("rmdir file", fs::remove_dir(dir.join("l")));
    t.note("rename", fs::rename(dir.join("l"), dir.join("d/m")));
    t.note(
        "rename over itself",
        fs::rename(dir.join("d/m"), dir.join("d/f")),
    );
    t.note(
        "rename below itself",
        fs::rename(dir.join("d"), dir.join("d/below")),
    );
    t.note("other", fs::write(dir.join("other"), b"other"));
    for (what, flags) in [
        ("noreplace", libc::RENAME_NOREPLACE),
        ("exchange", libc::RENAME_EXCHANGE),
        ("both", libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE),
        ("whiteout", libc::RENAME_WHITEOUT),
    ] {
        let (from, to) = (c(&dir.join("other")), c(&dir.join("d/f")));
        // SAFETY: two terminated strings.
        let result = unsafe {
            let at = libc::AT_FDCWD;
            libc::syscall(
                libc::SYS_renameat2,
                at,
                from.as_ptr(),
                at,
                to.as_ptr(),
                flags,
            )
        };
        t.call(&format!("rename {what}"), result);
        t.stat("other");
        t.note("content", fs::read(dir.join("d/f")));
    }
    let make = [
        ("fifo", libc::S_IFIFO | 0o640, 0),
        ("socket", libc::S_IFSOCK | 0o600, 0),
        ("null", libc::S_IFCHR | 0o666, libc::makedev(1, 3)),
        ("block", libc::S_IFBLK | 0o660, libc::makedev(259, 300)),
        ("regular", libc::S_IFREG | 0o6751, 0),
    ];
    for (name, mode, dev) in make {
        let path = c(&dir.join(name));
        // SAFETY: a terminated string.
        let result = unsafe { libc::mknod(path.as_ptr(), mode, dev) };
        t.call("mknod", result.into());
        t.stat(name);
    }
    let many = dir.join("many");
    t.note("mkdir", fs::create_dir(&many));
    for n in 0..1500 {
        fs::write(many.join(format!("{n:0>40}")), vec![b'x'; n % 7]).expect("write");
    }
    let list = |t: &mut Transcript<'_>, what: &str| {
        let listed = fs::read_dir(&many).and_then(|entries| {
            let names = entries.map(|entry| {
                let entry = entry?;
                Ok((
                    entry.file_name(),
                    entry.file_type()?.is_file(),
                    entry.metadata()?.len(),
                ))
            });
            let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        });
        t.note(what, listed);
    };
    list(t, "list");
    t.note("remove while reading", {
        let removed = fs::read_dir(&many)
            .expect("readdir")
            .map(|entry| fs::remove_file(entry?.path()));
        removed
            .collect::<std::io::Result<Vec<()>>>()
            .map(|all| all.len())
    });
    list(t, "list empty");
    t.note("rmdir", fs::remove_dir(&many));
}

fn data(t: &mut Transcript<'_>) {
    let dir = t.dir;
    let path = dir.join("data");
    let mut options = File::options();
    options.read(true).write(true).create(true);
    let mut file = options.open(&path).expect("create");
    let pattern: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    t.note("write 3 MB", file.write_all(&pattern));
    t.note("write far", file.write_at(b"far", 10_000_000));
    let mut back = vec![0; pattern.len()];
    t.note("read back", file.read_exact_at(&mut back, 0));
    assert_eq!(back, pattern, "in {}", dir.display());
    t.note("read hole", file.read_at(&mut back[..100], 5_000_000));
    t.note(
        "hole is zero",
        Ok(back[..100].iter().all(|&byte| byte == 0)),
    );
    t.note("read past end", file.read_at(&mut back[..100], 20_000_000));
    t.note("read across end", file.read_at(&mut back[..100], 9_999_999));
    let fd = file.as_raw_fd();
    // SAFETY: no pointers in any of these.
    unsafe {
        t.call("seek hole", libc::lseek(fd, 0, libc::SEEK_HOLE));
        t.call("seek data", libc::lseek(fd, 5_000_000, libc::SEEK_DATA));
        t.call(
            "seek data past end",
            libc::lseek(fd, 20_000_000, libc::SEEK_DATA),
        );
        t.call("fallocate", libc::fallocate(fd, 0, 0, 12_000_000).into());
        t.stat("data");
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        t.call("punch", libc::fallocate(fd, punch, 0, 1 << 20).into());
        t.stat("data");
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        t.call("zero", libc::fallocate(fd, zero, 1 << 20, 4096).into());
        t.call("bad fallocate", libc::fallocate(fd, 0, -1, 5).into());
    }
    t.stat("data");
    t.note("after zero", file.read_at(&mut back[..8], 4096));
    t.note("bytes", Ok(back[..8].to_vec()));
    for len in [100, 5_000_000, 0] {
        t.note("truncate", file.set_len(len));
        t.stat("data");
    }
    t.note("truncate by name", {
        let path = c(&path);
        // SAFETY: a terminated string.
        match unsafe { libc::truncate(path.as_ptr(), 77) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    });
    t.stat("data");
    t.note("write", fs::write(&path, b"0123456789"));

    let mut append = File::options()
        .append(true)
        .read(true)
        .open(&path)
        .expect("open");
    t.note("append", append.write(b"abc"));
    t.note(
        "append after seek",
        append
            .seek(SeekFrom::Start(2))
            .and_then(|_| append.write(b"d")),
    );
    // Linux appends even when told a place.
    t.note("append at", append.write_at(b"e", 0));
    t.note("appended", fs::read(&path));
    t.note("O_TRUNC", File::create(&path).map(drop));
    t.stat("data");

    let (from, to) = (dir.join("from"), dir.join("to"));
    t.note("source", fs::write(&from, &pattern));
    let (source, target) = (
        File::open(&from).expect("open"),
        File::create(&to).expect("create"),
    );
    let (mut at, mut to_at) = (5i64, 17i64);
    // SAFETY: two writable offsets.
    let result = unsafe {
        libc::copy_file_range(
            source.as_raw_fd(),
            &raw mut at,
            target.as_raw_fd(),
            &raw mut to_at,
            1_000_000,
            0,
        )
    };
    t.call("copy_file_range", result as libc::c_long);
    t.note(
        "copied",
        fs::read(&to).map(|copy| copy[17..] == pattern[5..1_000_005]),
    );

    let unlinked = dir.join("unlinked");
    let mut file = options.open(&unlinked).expect("create");
    t.note("unlink open file", fs::remove_file(&unlinked));
    t.note("write unlinked", file.write_all(b"still"));
    t.note(
        "chmod unlinked",
        file.set_permissions(PermissionsExt::from_mode(0o600)),
    );
    t.note("truncate unlinked", file.set_len(3));
    t.note(
        "stat unlinked",
        file.metadata().map(|m| (m.nlink(), m.len(), m.mode())),
    );
    let mut text = String::new();
    file.rewind().expect("seek");
    t.note(
        "read unlinked",
        file.read_to_string(&mut text).map(|_| text),
    );

    let tmp = File::options()
        .read(true)
        .write(true)
        .mode(0o640)
        .custom_flags(libc::O_TMPFILE)
        .open(dir)
        .and_then(|mut file| {
            file.write_all(b"temporary")?;
            let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
            let name = c(&dir.join("named"));
            let at = libc::AT_FDCWD;
            let flags = libc::AT_SYMLINK_FOLLOW;
            // SAFETY: two terminated strings.
            let result =
                unsafe { libc::linkat(at, path.as_ptr().cast(), at, name.as_ptr(), flags) };
            if result < 0 {
                Err(std::io::Error::last_os_error())
            } else {
                Ok(())
            }
        });
    t.note("O_TMPFILE and link", tmp);
    t.stat("named");
    t.note("content", fs::read(dir.join("named")));
    for what in ["fsync", "fdatasync"] {
        let file = File::open(&from).expect("open");
        t.note(
            what,
            if what == "fsync" {
                file.sync_all()
            } else {
                file.sync_data()
            },
        );
    }
    t.note(
        "fsync directory",
        File::open(dir).and_then(|dir| dir.sync_all()),
    );
}

/// An open file that stops appending.
fn append_cleared(t: &mut Transcript<'_>) {
    let path = t.dir.join("data");
    t.note("write", fs::write(&path, b"0123456789"));
    let mut append = File::options().append(true).open(&path).expect("open");
    t.note("append", append.write(b"abc"));
    // SAFETY: no pointers.
    t.call(
        "no append",
        unsafe { libc::fcntl(append.as_raw_fd(), libc::F_SETFL, 0) }.into(),
    );
    t.note("write at", append.write_at(b"X", 1));
    t.note("content", fs::read(&path));
    t.stat("data");
}

fn attributes(t: &mut Transcript<'_>) {
    let file = t.dir.join("f");
    t.note("create", fs::write(&file, b"x"));
    for mode in [0o600, 0o7777, 0o644, 0] {
        t.note(
            "chmod",
            fs::set_permissions(&file, PermissionsExt::from_mode(mode)),
        );
        t.stat("f");
    }
    t.note(
        "suid",
        fs::set_permissions(&file, PermissionsExt::from_mode(0o6755)),
    );
    t.note("chown", std::os::unix::fs::chown(&file, Some(1234), None));
    t.stat("f");
    t.note("chgrp", std::os::unix::fs::chown(&file, None, Some(4321)));
    t.stat("f");
    t.note("symlink", symlink("f", t.dir.join("s")));
    t.note(
        "lchown",
        std::os::unix::fs::lchown(t.dir.join("s"), Some(5), Some(6)),
    );
    t.stat("s");
    t.stat("f");
    t.script(
        "touch -d '2001-02-03 04:05:06.789' f; stat -c '%.Y %.X' f",
        &[],
    );
    t.script("touch -h -d '1969-12-31 23:00:00Z' s; stat -c %Y s", &[]);
    t.script("touch -a -d '2500-01-01Z' f; stat -c '%Y %X' f", &[]);
    t.script(
        "stat -c %W f | grep -qv '^-*0*$' && echo has a birth time",
        &[],
    );
    t.script("python3 -c 'import os
os.setxattr(\"f\", \"user.a\", b\"value\"); os.setxattr(\"f\", \"user.b\", b\"\")
os.setxattr(\"f\", \"user.big\", b\"x\" * 3000); os.setxattr(\"f\", \"trusted.t\", b\"t\")
print(sorted(os.listxattr(\"f\")), [os.getxattr(\"f\", n) for n in sorted(os.listxattr(\"f\"))])
os.removexattr(\"f\", \"user.a\")
for call in (lambda: os.getxattr(\"f\", \"user.a\"), lambda: os.removexattr(\"f\", \"user.a\"),
    lambda: os.setxattr(\"f\", \"user.b\", b\"\", os.XATTR_CREATE),
    lambda: os.setxattr(\"f\", \"user.c\", b\"\", os.XATTR_REPLACE),
    lambda: os.setxattr(\"f\", \"nonsense\", b\"\"), lambda: os.getxattr(\"f\", \"user.\" + \"n\" * 300),
    lambda: os.setxattr(\"s\", \"user.link\", b\"\", follow_symlinks=False),
    lambda: os.setxattr(\"s\", \"trusted.link\", b\"l\", follow_symlinks=False)):
    try: print(call())
    except OSError as e: print(e.errno)
print(os.listxattr(\"s\", follow_symlinks=False))'", &[]);
    t.script("chattr +A f && lsattr f; chattr -A f && lsattr f", &[]);
    t.script("chattr +i f && rm -f f; chattr -i f && lsattr f", &[]);
    t.script("stat -f -c '%S %l %s' .", &[]);
    t.script(
        "exec 3>>f 4>>f; flock -n 3 && echo first; flock -n 4 || echo second waits; flock -u 3
         flock -n 4 && echo now",
        &[],
    );
    t.script(
        "python3 -c 'import fcntl, os
f = open(\"f\", \"r+\"); fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
if os.fork() == 0:
    g = open(\"f\", \"r+\")
    try: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
    except OSError as e: print(e.errno)
    fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 15); print(\"apart\")
else: os.wait()'",
        &[],
    );
    t.script("mkfifo p; (echo through > p &); cat p", &[]);
}

const NOBODY: &[&str] = &["--reuid=65534", "--regid=65534", "--groups=4242"];

/// What ordinary users may do, and what becomes of ownership and set-id bits.
fn users(t: &mut Transcript<'_>) {
    t.script(
        "mkdir open group; chmod 1777 open; chgrp 4242 group; chmod 2770 group; echo s > secret
         chmod 600 secret; umask 000; touch writable; chmod 6777 writable; cp writable w2
         chmod 2767 w2; cp writable w3; chmod 6777 w3; mkdir mine; chown 65534 mine",
        &[],
    );
    let ls = "stat -c '%n %A %u %g %s' open/* group/* mine/* writable w2 w3";
    for script in [
        "cat secret",
        "echo new > root-owned",
        "umask 027; echo new > open/file; mkdir open/dir; ln -s x open/link; mkfifo open/fifo",
        // By a supplementary group only, in a directory that hands its group on.
        "umask 007; echo new > group/file; mkdir group/dir; : > group/dir/deep",
        "umask 0; mkdir mine/a; touch mine/b; chmod 4711 mine/b; chgrp 4242 mine/b; chmod 2755 mine/b",
        "chgrp 1 mine/b",
        "mknod mine/dev c 1 3",
        "touch mine/c; chmod 6755 mine/c; echo x >> mine/c; stat -c %A mine/c",
        "echo change >> writable",
        "truncate -s 1 w2",
        ": > w3",
        "rm -f secret; mv secret open/stolen; chmod 777 secret; touch secret",
        "python3 -c 'import os; f = os.open(\"mine\", os.O_TMPFILE | os.O_RDWR, 0o666)
st = os.fstat(f); print(oct(st.st_mode), st.st_uid, st.st_gid)'",
    ] {
        t.script(script, NOBODY);
        t.script(ls, &[]);
    }
    t.script(
        "rm -f open/file; ls open",
        &["--reuid=1", "--regid=1", "--clear-groups"],
    );
    // Root with all its capabilities keeps set-id bits on writes.
    t.script("chmod 6777 w3; echo more >> w3; stat -c %A w3", &[]);
}

fn compare(battery: fn(&mut Transcript<'_>), options: &[&str]) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::start(options);
    let mut transcripts = Vec::new();
    for (root, name) in [(&mounted.lower, "plain"), (&mounted.mountpoint, "mounted")] {
        let dir = root.join(name);
        fs::create_dir(&dir).expect("mkdir");
        let mut transcript = Transcript {
            dir: &dir,
            lines: Vec::new(),
        };
        battery(&mut transcript);
        transcripts.push(transcript.lines);
    }
    let mounted_lines = transcripts.pop().expect("two");
    let plain = transcripts.pop().expect("two");
    assert!(plain.len() > 5, "the battery did nothing");
    let differences: Vec<String> = plain
        .iter()
        .zip(&mounted_lines)
        .filter(|(plain, mounted)| plain != mounted)
        .map(|(plain, mounted)| format!("plain   {plain:.600}\nmounted {mounted:.600}"))
        .collect();
    assert!(
        differences.is_empty(),
        "with {options:?}:\n{}",
        differences.join("\n\n")
    );
    assert_eq!(plain.len(), mounted_lines.len());
}

const SETTINGS: [&[&str]; 5] = [
    &[],
    &["--passthrough"],
    &["--entry-timeout", "0", "--attr-timeout", "0"],
    &["--posix-acl", "--workers", "1"],
    &["--no-open"],
];

#[test]
fn names_behave_as_below() {
    SETTINGS.iter().for_each(|options| compare(names, options));
}

#[test]
fn data_behave_as_below() {
    SETTINGS.iter().for_each(|options| compare(data, options));
}

#[test]
fn clearing_append_behaves_as_below() {
    // Passthrough apart: the kernel's backing file keeps the flag it was opened with.
    for options in [SETTINGS[0], SETTINGS[2], SETTINGS[3], SETTINGS[4]] {
        compare(append_cleared, options);
    }
}

#[test]
fn attributes_behave_as_below() {
    SETTINGS
        .iter()
        .for_each(|options| compare(attributes, options));
}

#[test]
fn users_are_treated_as_below() {
    // Passthrough apart: there root's writes clear set-id bits, too (docs/conformance.md).
    for options in [SETTINGS[0], SETTINGS[2], SETTINGS[3], SETTINGS[4]] {
        compare(users, options);
    }
}
