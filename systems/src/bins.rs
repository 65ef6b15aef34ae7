//! Where the daemons' programs are.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Suffix of a note beside programs, saying why one of them is not there.
pub const MISSING_NOTE: &str = "missing";

/// A list of folders; the first that has a program wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinDirs(Vec<PathBuf>);

impl BinDirs {
    /// These folders, in this order.
    #[must_use]
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(dirs.into_iter().collect())
    }

    /// The folder of the running program, the `tools` folder beside it
    /// (`target/release` and `target/tools` on the host, `/bin` in the guest), then
    /// `PATH`.
    #[must_use]
    pub fn discover() -> Self {
        let mut dirs = Vec::new();
        if let Some(own) = env::current_exe()
            .ok()
            .and_then(|p| p.parent().map(Path::to_owned))
        {
            dirs.push(own.clone());
            if let Some(target) = own.parent() {
                dirs.push(target.join("tools"));
            }
        }
        let path = env::var_os("PATH");
        let path = path
            .as_deref()
            .unwrap_or(OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin"));
        dirs.extend(env::split_paths(path).filter(|p| p.is_absolute()));
        Self(dirs)
    }

    /// Puts a folder before the others.
    #[must_use]
    pub fn with_first(mut self, dir: PathBuf) -> Self {
        self.0.insert(0, dir);
        self
    }

    /// The program of this name, or of this path if it has a slash.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|p| executable(p));
        }
        self.0
            .iter()
            .map(|dir| dir.join(name))
            .find(|p| executable(p))
    }

    /// Why a program is not there, where whoever should have built it left a note
    /// (`NAME.missing` in one of the folders).
    #[must_use]
    pub fn note(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|dir| {
            let text = fs::read_to_string(dir.join(format!("{name}.{MISSING_NOTE}"))).ok()?;
            Some(text.trim().to_owned()).filter(|t| !t.is_empty())
        })
    }
}

impl Default for BinDirs {
    fn default() -> Self {
        Self::discover()
    }
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_with_an_executable_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for d in [&a, &b] {
            fs::create_dir(d).unwrap();
            fs::write(d.join("tool"), "").unwrap();
        }
        fs::set_permissions(b.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let bins = BinDirs::new([a.clone(), b.clone()]);
        assert_eq!(bins.find("tool"), Some(b.join("tool")));
        fs::set_permissions(a.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(bins.find("tool"), Some(a.join("tool")));
        assert_eq!(bins.find("other"), None);
        assert_eq!(
            bins.find(a.join("tool").to_str().unwrap()),
            Some(a.join("tool"))
        );
    }

    #[test]
    fn a_note_says_why_a_program_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let bins = BinDirs::new([dir.path().to_owned()]);
        assert_eq!(bins.note("tool"), None);
        fs::write(dir.path().join("tool.missing"), "no compiler\n").unwrap();
        assert_eq!(bins.note("tool").as_deref(), Some("no compiler"));
    }
}
