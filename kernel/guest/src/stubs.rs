//! Stand-ins for libraries that a program is linked with and never calls in the guest.
//!
//! Debian's fio is linked with the client libraries of Ceph, GlusterFS, NBD, RDMA and
//! persistent memory for I/O engines that need hardware or servers which a guest does not
//! have. They bring 50 more libraries, and loading them all takes an emulated guest more than
//! a second at each start of fio. A stand-in has the library's name, its versions and those of
//! its functions that the program imports, each of which ends the program with a trap.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use elf::ElfBytes;
use elf::abi::{DT_NEEDED, SHN_UNDEF, STT_FUNC, STT_GNU_IFUNC};
use elf::endian::AnyEndian;

use crate::error::GuestError;
use crate::libraries::{self, Closure};
use crate::tool;
use crate::tree::stamp;

/// The libraries, without their version numbers, that fio gets a stand-in for.
const UNUSED: &[&str] = &[
    "libgfapi",
    "libibverbs",
    "libnbd",
    "libpmem",
    "libpmemblk",
    "librados",
    "librbd",
    "librdmacm",
];

/// Raised when what is made changes.
const FORMAT: &str = "1";

/// Functions by the version that they are imported with; the empty version is none.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// What `program` needs in the guest, with stand-ins (kept in `work_dir`) for [`UNUSED`]. `None`
/// where that cannot be done (static program, no C compiler, a library that exports data): then
/// the real libraries serve as well, only slower.
pub(crate) fn slim_closure(program: &Path, work_dir: &Path) -> Result<Option<Closure>, GuestError> {
    let Some(full) = libraries::closure(program)? else {
        return Ok(None);
    };
    let Ok(compiler) = tool::find("cc", "build-essential") else {
        return Ok(None);
    };
    let image = fs::read(program).map_err(GuestError::io("read", program))?;
    let needed = needed(program, &image)?;
    let mut libraries = BTreeMap::new();
    let mut stubs = Vec::new();
    for name in &needed {
        let Some((_, file)) = full.libraries.iter().find(|(library, _)| library == name) else {
            return Ok(None);
        };
        if UNUSED.contains(&name.split(".so").next().unwrap_or_default()) {
            match imports(program, &image, name, file)? {
                Some(imports) => stubs.push((name, file, imports)),
                None => return Ok(None),
            }
            continue;
        }
        libraries.insert(name.clone(), file.clone());
        for (name, file) in libraries::of_library(&full.interpreter, file)? {
            libraries.insert(name, file);
        }
    }
    let mut stamps = format!("{FORMAT}\n{}\n", stamp(program)?);
    for (_, file, _) in &stubs {
        let _ = writeln!(stamps, "{}", stamp(file)?);
    }
    let hash = blake3::hash(stamps.as_bytes()).to_hex();
    let folder = work_dir.join(format!("stubs-{}", &hash[..16]));
    if !folder.exists() {
        make(&compiler, &stubs, work_dir, &folder)?;
    }
    for (name, _, _) in stubs {
        libraries.insert(name.clone(), folder.join(name));
    }
    Ok(Some(Closure {
        interpreter: full.interpreter,
        libraries: libraries.into_iter().collect(),
    }))
}

fn parse<'a>(file: &Path, image: &'a [u8]) -> Result<ElfBytes<'a, AnyEndian>, GuestError> {
    ElfBytes::minimal_parse(image).map_err(damaged(file))
}

fn damaged(file: &Path) -> impl Fn(elf::ParseError) -> GuestError + '_ {
    |error| GuestError::Io {
        action: "read the ELF tables of",
        path: file.to_owned(),
        reason: error.to_string(),
    }
}

/// The names that the program itself asks for, in its order.
fn needed(program: &Path, image: &[u8]) -> Result<Vec<String>, GuestError> {
    let elf = parse(program, image)?;
    let (Some(dynamic), Some((_, strings))) = (
        elf.dynamic().map_err(damaged(program))?,
        elf.dynamic_symbol_table().map_err(damaged(program))?,
    ) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in dynamic.iter().filter(|entry| entry.d_tag == DT_NEEDED) {
        let at = usize::try_from(entry.d_val()).unwrap_or(usize::MAX);
        names.push(strings.get(at).map_err(damaged(program))?.to_owned());
    }
    Ok(names)
}

/// What the program imports from one library; `None` if that is more than functions.
fn imports(
    program: &Path,
    image: &[u8],
    library: &str,
    file: &Path,
) -> Result<Option<Imports>, GuestError> {
    let defined = fs::read(file).map_err(GuestError::io("read", file))?;
    let defined = parse(file, &defined)?;
    let Some((symbols, strings)) = defined.dynamic_symbol_table().map_err(damaged(file))? else {
        return Ok(None);
    };
    let mut exports = BTreeMap::new();
    for symbol in symbols.iter().filter(|s| s.st_shndx != SHN_UNDEF) {
        let at = symbol.st_name as usize;
        exports.insert(strings.get(at).map_err(damaged(file))?, symbol.st_symtype());
    }
    let elf = parse(program, image)?;
    let Some((symbols, strings)) = elf.dynamic_symbol_table().map_err(damaged(program))? else {
        return Ok(None);
    };
    let versions = elf.symbol_version_table().map_err(damaged(program))?;
    let mut imports = Imports::new();
    for (index, symbol) in symbols.iter().enumerate() {
        if symbol.st_shndx != SHN_UNDEF {
            continue;
        }
        let at = symbol.st_name as usize;
        let name = strings.get(at).map_err(damaged(program))?;
        let requirement = match &versions {
            Some(table) => table.get_requirement(index).map_err(damaged(program))?,
            None => None,
        };
        // A version names its library; a symbol without one is whoever's exports it.
        let version = match requirement {
            Some(r) if r.file == library => r.name,
            Some(_) => continue,
            None => "",
        };
        let Some(kind) = exports.get(name) else {
            continue;
        };
        if !matches!(*kind, STT_FUNC | STT_GNU_IFUNC) {
            return Ok(None);
        }
        imports
            .entry(version.to_owned())
            .or_default()
            .insert(name.to_owned());
    }
    Ok(Some(imports))
}

/// Compiles all stand-ins into a new folder, which appears whole or not at all.
fn make(
    compiler: &Path,
    stubs: &[(&String, &PathBuf, Imports)],
    work_dir: &Path,
    folder: &Path,
) -> Result<(), GuestError> {
    let temporary = tempfile::tempdir_in(work_dir).map_err(GuestError::io("write to", work_dir))?;
    let out = temporary.path().join("out");
    fs::create_dir(&out).map_err(GuestError::io("make the folder", &out))?;
    for (name, _, imports) in stubs {
        let (code, script) = sources(imports);
        let source = temporary.path().join("stub.c");
        let map = temporary.path().join("stub.map");
        fs::write(&source, code).map_err(GuestError::io("write", &source))?;
        fs::write(&map, script).map_err(GuestError::io("write", &map))?;
        let mut command = Command::new(compiler);
        command
            .args(["-shared", "-fPIC", "-O1", "-nostdlib", "-fno-builtin", "-o"])
            .arg(out.join(name))
            .arg(&source)
            .arg(format!("-Wl,-soname,{name}"));
        if imports.keys().any(|version| !version.is_empty()) {
            command.arg(format!("-Wl,--version-script={}", map.display()));
        }
        tool::output(&mut command)?;
    }
    match fs::rename(&out, folder) {
        // Another boot was faster; what it made is the same.
        Err(_) if folder.exists() => Ok(()),
        other => other.map_err(GuestError::io("make the folder", folder)),
    }
}

/// C source and version script of one stand-in.
fn sources(imports: &Imports) -> (String, String) {
    let (mut code, mut script) = (String::new(), String::new());
    for (version, names) in imports {
        if !version.is_empty() {
            let _ = writeln!(script, "{version} {{ global:");
        }
        for name in names {
            let _ = writeln!(code, "void {name}(void) {{ __builtin_trap(); }}");
            if !version.is_empty() {
                let _ = writeln!(script, "  {name};");
            }
        }
        if !version.is_empty() {
            let _ = writeln!(script, "}};");
        }
    }
    (code, script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slim_fio_starts_and_needs_few_libraries() {
        let fio = tool::find("fio", "fio").expect("fio is a build package");
        let dir = tempfile::tempdir().expect("a folder");
        let full = libraries::closure(&fio).expect("listed").expect("dynamic");
        let Some(slim) = slim_closure(&fio, dir.path()).expect("made") else {
            // A fio built without those engines needs no stand-ins; a list with one of
            // them must have been replaced.
            let left = full
                .libraries
                .iter()
                .any(|(name, _)| name.starts_with("librados"));
            assert!(!left, "no stand-in was made");
            return;
        };
        assert!(slim.libraries.len() <= full.libraries.len());
        let stub = |(_, file): &&(String, PathBuf)| file.starts_with(dir.path());
        let made = slim.libraries.iter().filter(stub).count();
        let wanted = needed(&fio, &fs::read(&fio).expect("read")).expect("parsed");
        let unused = |name: &&String| UNUSED.contains(&name.split(".so").next().unwrap_or(""));
        assert_eq!(made, wanted.iter().filter(unused).count());
        // The loader takes nothing but the slim list, and fio really runs with it.
        let folder = tempfile::tempdir().expect("a folder");
        for (name, file) in &slim.libraries {
            std::os::unix::fs::symlink(file, folder.path().join(name)).expect("linked");
        }
        let output = Command::new(&slim.interpreter)
            .arg("--library-path")
            .arg(folder.path())
            .arg(&fio)
            .args([
                "--name=x",
                "--ioengine=libaio",
                "--rw=read",
                "--size=64k",
                "--output-format=json",
            ])
            .arg(format!("--directory={}", dir.path().display()))
            .env("LD_BIND_NOW", "1")
            .output()
            .expect("run");
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("\"io_bytes\" : 65536"));
        // A second time nothing is compiled.
        let again = slim_closure(&fio, dir.path()).expect("kept").expect("slim");
        assert_eq!(again, slim);
    }

    #[test]
    fn the_source_of_a_stand_in() {
        let imports = Imports::from([
            (String::new(), BTreeSet::from(["plain".to_owned()])),
            (
                "V_1.0".to_owned(),
                BTreeSet::from(["a".to_owned(), "b".to_owned()]),
            ),
        ]);
        let (code, script) = sources(&imports);
        assert_eq!(code.lines().count(), 3);
        assert_eq!(script, "V_1.0 { global:\n  a;\n  b;\n};\n");
    }
}
