//! Encoding: structures have the kernel's sizes, directory replies its layout.

use efuse_abi::wire::*;
use efuse_abi::{DirentBuf, DirentPlusBuf, WRITE_PAYLOAD_OFFSET};
use proptest::prelude::*;
use zerocopy::FromBytes;

#[test]
fn sizes_equal_the_kernels() {
    macro_rules! sizes {
        ($($name:ident $size:literal)*) => {
            $(assert_eq!(size_of::<$name>(), $size, stringify!($name));)*
        };
    }
    // From the structures of Linux 6.12, all without implicit padding.
    sizes! {
        Attr 88 SxTime 16 Statx 256 Kstatfs 80 FileLock 24 EntryOut 128 ForgetIn 8 ForgetOne 16
        BatchForgetIn 8 GetattrIn 16 AttrOut 104 StatxIn 24 StatxOut 288 MknodIn 16 MkdirIn 8
        RenameIn 8 Rename2In 16 LinkIn 8 SetattrIn 88 OpenIn 8 CreateIn 16 OpenOut 16 ReleaseIn 24
        FlushIn 24 ReadIn 40 WriteIn 40 WriteOut 8 StatfsOut 80 FsyncIn 16 SetxattrIn 16
        SetxattrInCompat 8 GetxattrIn 8 GetxattrOut 8 LkIn 48 LkOut 24 AccessIn 8 InitIn 64
        InitOut 64 InterruptIn 8 BmapIn 16 BmapOut 8 IoctlIn 32 IoctlOut 16 PollIn 24 PollOut 8
        FallocateIn 32 InHeader 40 OutHeader 16 Dirent 24 NotifyInvalInodeOut 24
        NotifyInvalEntryOut 16 NotifyDeleteOut 24 NotifyStoreOut 24 NotifyRetrieveOut 32
        NotifyRetrieveIn 40 BackingMap 16 LseekIn 24 LseekOut 8 CopyFileRangeIn 56
        CopyFileRangeOut 8 SetupmappingIn 40 RemovemappingOne 16 SyncfsIn 8 ExtHeader 8
    }
    assert_eq!(WRITE_PAYLOAD_OFFSET, 80);
}

type Entries = Vec<(u64, u64, u8, Vec<u8>)>;

fn entries() -> impl Strategy<Value = Entries> {
    let name = proptest::collection::vec(1..=255u8, 1..=255);
    proptest::collection::vec((any::<u64>(), any::<u64>(), 0..16u8, name), 0..40)
}

/// Reads a directory reply as `fuse_readdir` does.
fn parse(mut bytes: &[u8], plus: bool) -> Vec<(u64, u64, u64, u8, Vec<u8>)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let mut at = 0;
        let mut node = 0;
        if plus {
            let (entry, _) = EntryOut::read_from_prefix(bytes).expect("an entry");
            node = entry.nodeid;
            at = size_of::<EntryOut>();
        }
        let (dirent, _) = Dirent::read_from_prefix(&bytes[at..]).expect("a dirent");
        let name_at = at + size_of::<Dirent>();
        let end = name_at + dirent.namelen as usize;
        out.push((
            node,
            dirent.ino,
            dirent.off,
            dirent.kind as u8,
            bytes[name_at..end].to_vec(),
        ));
        assert!(
            bytes[end..end.next_multiple_of(8)]
                .iter()
                .all(|&byte| byte == 0)
        );
        bytes = &bytes[end.next_multiple_of(8)..];
    }
    out
}

proptest! {
    #[test]
    fn directories_survive(entries in entries(), room in 0..4096usize, dirty: u8) {
        let mut buf = vec![dirty; room];
        let mut builder = DirentBuf::new(&mut buf);
        let fitted = entries
            .iter()
            .take_while(|(ino, next, kind, name)| {
                builder.push(*ino, *next, u32::from(*kind), name)
            })
            .count();
        let used = builder.len();
        prop_assert!(used <= room && used.is_multiple_of(8));
        let expected: Vec<_> = entries[..fitted]
            .iter()
            .map(|(ino, next, kind, name)| (0, *ino, *next, *kind, name.clone()))
            .collect();
        prop_assert_eq!(parse(&buf[..used], false), expected);
        if let Some((.., name)) = entries.get(fitted) {
            prop_assert!(used + (24 + name.len()).next_multiple_of(8) > room);
        }
        prop_assert!(buf[used..].iter().all(|&byte| byte == dirty));
    }

    #[test]
    fn directories_with_attributes_survive(entries in entries(), room in 0..8192usize) {
        let mut buf = vec![0xaa; room];
        let mut builder = DirentPlusBuf::new(&mut buf);
        let mut expected = Vec::new();
        for (ino, next, kind, name) in entries {
            let entry = EntryOut { nodeid: !ino, ..EntryOut::default() };
            let fits = builder.fits(name.len());
            prop_assert_eq!(builder.push(&entry, ino, next, u32::from(kind), &name), fits);
            if !fits {
                break;
            }
            expected.push((!ino, ino, next, kind, name));
        }
        let used = builder.len();
        prop_assert_eq!(parse(&buf[..used], true), expected);
    }
}
