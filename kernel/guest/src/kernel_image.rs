//! The kernel in the form that starts soonest.
//!
//! A `bzImage` decompresses itself when it starts, which takes an emulated processor more than a
//! second. The same kernel can be started uncompressed through its PVH entry (`CONFIG_PVH`), so
//! it is unpacked here, once. The code that runs is the same; only the random placement of the
//! kernel's text, which is the decompressor's work, does not happen.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use elf::ElfBytes;
use elf::endian::LittleEndian;
use elf::note::Note;

use crate::error::GuestError;
use crate::tool;
use crate::tree::stamp;

/// Type of the Xen note that holds the PVH entry (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PHYS32_ENTRY: u64 = 18;

/// The kernel to give to QEMU: unpacked under `work_dir`, or `vmlinuz` itself where that cannot
/// be done (another compression, no program for it, no PVH entry).
pub(crate) fn prepare(vmlinuz: &Path, work_dir: &Path) -> Result<PathBuf, GuestError> {
    let key = blake3::hash(stamp(vmlinuz)?.as_bytes()).to_hex();
    let path = work_dir.join(format!("vmlinux-{}", &key[..16]));
    if path.exists() {
        return Ok(path);
    }
    let image = fs::read(vmlinuz).map_err(GuestError::io("read", vmlinuz))?;
    let Some(vmlinux) = unpack(&image).filter(|vmlinux| has_pvh_entry(vmlinux)) else {
        return Ok(vmlinuz.to_owned());
    };
    let mut file =
        tempfile::NamedTempFile::new_in(work_dir).map_err(GuestError::io("write to", work_dir))?;
    file.write_all(&vmlinux)
        .map_err(GuestError::io("write", &path))?;
    for old in fs::read_dir(work_dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        if old.file_name().to_string_lossy().starts_with("vmlinux-") {
            let _ = fs::remove_file(old.path());
        }
    }
    file.persist(&path).map_err(|error| GuestError::Io {
        action: "write",
        path: path.clone(),
        reason: error.error.to_string(),
    })?;
    Ok(path)
}

/// The compressed kernel inside a `bzImage` (Documentation/arch/x86/boot.rst: `setup_sects`,
/// `payload_offset`, `payload_length`).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS".as_slice() {
        return None;
    }
    let setup_sectors = match image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    image.get(start..start.checked_add(word(0x24c)?)?)
}

fn unpack(image: &[u8]) -> Option<Vec<u8>> {
    let payload = payload(image)?;
    let (program, package) = match payload.get(..4)? {
        [0x28, 0xb5, 0x2f, 0xfd] => ("zstd", "zstd"),
        [0xfd, b'7', b'z', b'X'] => ("xz", "xz-utils"),
        [0x1f, 0x8b, ..] => ("gzip", "gzip"),
        _ => return None,
    };
    let program = tool::find(program, package).ok()?;
    // The payload ends with its unpacked size, which the programs take for rubbish after the
    // end: they complain and have written everything.
    let size = payload.last_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = stdin.write_all(&payload[..payload.len() - 4]);
        });
        child.wait_with_output()
    })
    .ok()?;
    (output.stdout.len() == size).then_some(output.stdout)
}

fn has_pvh_entry(vmlinux: &[u8]) -> bool {
    let Ok(elf) = ElfBytes::<LittleEndian>::minimal_parse(vmlinux) else {
        return false;
    };
    elf.segments()
        .into_iter()
        .flatten()
        .filter(|segment| segment.p_type == elf::abi::PT_NOTE)
        .filter_map(|segment| elf.segment_data_as_notes(&segment).ok())
        .flatten()
        .any(|note| match note {
            Note::Unknown(note) => {
                note.name_str().is_ok_and(|name| name == "Xen") && note.n_type == PHYS32_ENTRY
            }
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rubbish_is_no_kernel() {
        assert!(payload(&[0; 100]).is_none());
        assert!(payload(&[0; 4096]).is_none());
        assert!(!has_pvh_entry(b"\x7fELF"));
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&u32::MAX.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(payload(&image).is_none());
    }

    #[test]
    fn payload_is_found_behind_the_setup() {
        let mut image = vec![0; 2048];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 1;
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&3_u32.to_le_bytes());
        image[1024 + 16..1024 + 19].copy_from_slice(b"abc");
        assert_eq!(payload(&image), Some(b"abc".as_slice()));
    }

    #[test]
    fn unpacks_what_zstd_packed() {
        let Ok(zstd) = tool::find("zstd", "zstd") else {
            println!("skipped: zstd is not installed");
            return;
        };
        let dir = tempfile::tempdir().expect("a folder");
        let plain = dir.path().join("plain");
        fs::write(&plain, [7_u8; 9000]).expect("written");
        let mut packed = tool::output(Command::new(zstd).arg("-c").arg(&plain)).expect("packed");
        packed.extend(9000_u32.to_le_bytes());
        let mut image = vec![0; 1024];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 1;
        let length = u32::try_from(packed.len()).expect("small");
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image.extend(packed);
        assert_eq!(unpack(&image), Some(vec![7_u8; 9000]));
    }
}
