//! The running kernel: building against its headers and loading the module.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cache::Layout;
use crate::command;
use crate::error::KernelError;
use crate::fetch;
use crate::module::{self, Job};
use crate::series::Series;

/// What [`load`] did.
#[derive(Debug)]
pub struct Loaded {
    /// `uname -r`.
    pub release: String,
    /// The version the module presents itself with.
    pub version: String,
    /// The module's file, unless the same version was loaded already.
    pub module: Option<PathBuf>,
}

/// Builds the module for the running kernel and loads it. Needs the lock.
///
/// # Errors
/// [`KernelError::Host`] with the reason when the running kernel cannot take it; else as a build.
pub fn load(layout: &Layout, progress: &mut dyn FnMut(&str)) -> Result<Loaded, KernelError> {
    let host = Host::running(Path::new("/"))?;
    let headers = host.headers()?;
    host.must_be_root()?;
    let series = Series::load(&layout.patches(), &layout.ours())?;
    let version = series.version();
    let release = host.release.clone();
    let present = host.loaded_version();
    if present.as_ref() == Some(&version) {
        progress(&format!("efuse.ko {version} is loaded already"));
        return Ok(Loaded {
            release,
            version,
            module: None,
        });
    }
    // Built before the old one goes, so that a failed build takes nothing away.
    let module = build(layout, &host, &headers, &series, progress)?;
    if let Some(present) = present {
        progress(&format!("unloading efuse.ko {present}"));
        let rmmod = command::find("rmmod", "kmod")?;
        command::output(command::new(rmmod).arg("efuse")).map_err(|error| {
            host.refuse(format!(
                "version {present} is loaded and cannot be unloaded (unmount what is mounted \
                 on it): {error}"
            ))
        })?;
    }
    let insmod = command::find("insmod", "kmod")?;
    command::output(command::new(insmod).arg(&module)).map_err(|error| {
        host.refuse(format!(
            "it was built and then refused ({error}); dmesg has the details"
        ))
    })?;
    Ok(Loaded {
        release,
        version,
        module: Some(module),
    })
}

fn build(
    layout: &Layout,
    host: &Host,
    headers: &Path,
    series: &Series,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, KernelError> {
    // Where the headers are a whole source tree, its own fs/fuse fits best.
    let own = headers.join(crate::series::FOLDER);
    let source = if own.join("dev.c").is_file() {
        own
    } else {
        fetch::ensure(layout, progress)?.fuse_source()
    };
    let files = series.compose(&source)?;
    let btf = headers.join("vmlinux").is_file();
    if !btf {
        progress("its headers have no vmlinux: the module will have no BTF and take no programs");
    }
    let folder = layout.base().join(format!("host-{}", host.release));
    let job = Job {
        release: &host.release,
        headers,
        sources: &files,
        own_files: series.own_files().collect(),
        folder: &folder,
        btf,
    };
    let hash = module::hash(&host.release, "host", &files);
    job.ensure(&hash, progress).map_err(|error| match error {
        KernelError::Compile {
            release, messages, ..
        } if host.version != host.wanted() => KernelError::Compile {
            hint: format!(
                "the series is written for {}; {release} has changed what it builds on\n",
                crate::SERIES
            ),
            release,
            messages,
        },
        error => error,
    })
}

struct Host {
    /// The file system's root; another one only in tests.
    root: PathBuf,
    release: String,
    version: (u32, u32),
}

impl Host {
    fn running(root: &Path) -> Result<Self, KernelError> {
        let path = root.join("proc/sys/kernel/osrelease");
        let text = fs::read_to_string(&path).map_err(KernelError::io("read", &path))?;
        let release = text.trim().to_owned();
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map_while(|number| number.parse().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Ok(Self {
            root: root.to_owned(),
            release,
            version,
        })
    }

    fn wanted(&self) -> (u32, u32) {
        let (major, minor) = crate::SERIES.split_once('.').unwrap_or(("0", "0"));
        (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
    }

    fn refuse(&self, why: impl Into<String>) -> KernelError {
        KernelError::Host {
            release: self.release.clone(),
            why: why.into(),
        }
    }

    /// The folder to build against, or why there can be none.
    fn headers(&self) -> Result<PathBuf, KernelError> {
        if self.version < self.wanted() {
            return Err(self.refuse(format!("it is older than {}", crate::SERIES)));
        }
        if !self.root.join("proc/modules").exists() {
            return Err(self.refuse(
                "it was built without loadable modules; the virtual machine of the evaluation \
                 runs a kernel that has them",
            ));
        }
        let headers = self
            .root
            .join("lib/modules")
            .join(&self.release)
            .join("build");
        if !headers.join("Makefile").is_file() {
            return Err(self.refuse(format!(
                "its headers are not installed ({} is missing): apt-get install linux-headers-{}",
                headers.display(),
                self.release
            )));
        }
        Ok(headers)
    }

    fn must_be_root(&self) -> Result<(), KernelError> {
        let path = self.root.join("proc/self");
        let owner = fs::metadata(&path)
            .map_err(KernelError::io("read", &path))?
            .uid();
        if owner == 0 {
            Ok(())
        } else {
            Err(self.refuse("loading a module needs root"))
        }
    }

    fn loaded_version(&self) -> Option<String> {
        let module = self.root.join("sys/module/efuse");
        module.is_dir().then(|| {
            fs::read_to_string(module.join("version"))
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(release: &str) -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("proc/sys/kernel");
        fs::create_dir_all(&kernel).unwrap();
        fs::write(kernel.join("osrelease"), format!("{release}\n")).unwrap();
        let host = Host::running(folder.path()).unwrap();
        (folder, host)
    }

    #[test]
    fn each_obstacle_is_named_with_its_way_out() {
        let (_folder, old) = host("6.1.0-50-amd64");
        assert_eq!(
            old.headers().unwrap_err().to_string(),
            "efuse.ko cannot be built for or loaded into the running kernel 6.1.0-50-amd64: it is \
             older than 6.12"
        );
        let (folder, host) = host("6.12.48+deb13-amd64");
        let told = |host: &Host| host.headers().unwrap_err().to_string();
        assert!(told(&host).contains("without loadable modules"));
        fs::write(folder.path().join("proc/modules"), "").unwrap();
        assert!(told(&host).ends_with("apt-get install linux-headers-6.12.48+deb13-amd64"));
        let build = folder.path().join("lib/modules/6.12.48+deb13-amd64/build");
        fs::create_dir_all(&build).unwrap();
        fs::write(build.join("Makefile"), "").unwrap();
        assert_eq!(host.headers().unwrap(), build);
        assert_eq!(host.loaded_version(), None);
    }

    #[test]
    fn newer_series_are_not_refused_by_their_number() {
        for (release, version) in [
            ("6.18.44-fc", (6, 18)),
            ("7.0.0", (7, 0)),
            ("6.12", (6, 12)),
        ] {
            let (_folder, host) = host(release);
            assert_eq!(host.version, version);
            assert!(!host.headers().unwrap_err().to_string().contains("older"));
        }
    }
}
