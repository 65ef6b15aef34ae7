use std::ffi::CStr;

use thiserror::Error;
use zerocopy::native_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::*;
use crate::{InitFlags, Opcode};

/// Why bytes are not a request.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than the header or the opcode's arguments need.
    #[error("request of {have} bytes ends before its {what}")]
    Short {
        /// What was to be read.
        what: &'static str,
        /// Bytes that were left.
        have: usize,
    },
    /// The header's length is not the number of bytes received.
    #[error("header says {header} bytes, {received} were received")]
    Length {
        /// `InHeader::len`.
        header: u32,
        /// Bytes at hand.
        received: usize,
    },
    /// No such opcode in any version this crate knows.
    #[error("unknown opcode {0}")]
    Opcode(u32),
    /// A name or string without its NUL.
    #[error("{0} is not terminated")]
    Unterminated(&'static str),
    /// An empty name, or one with a slash in it.
    #[error("bad file name")]
    BadName,
    /// A payload shorter or an array longer than announced.
    #[error("{what}: {announced} announced, {have} there")]
    Count {
        /// Which payload or array.
        what: &'static str,
        /// Bytes or elements announced.
        announced: usize,
        /// Bytes or elements there.
        have: usize,
    },
    /// The buffer does not start at a multiple of 8.
    #[error("request buffer is not aligned to 8 bytes")]
    Misaligned,
    /// Extensions that do not fit into the request.
    #[error("extension of {0} bytes does not fit")]
    Extension(usize),
}

/// What was negotiated in INIT and changes how requests look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// SETXATTR carries [`SetxattrIn`] instead of [`SetxattrInCompat`].
    pub setxattr_ext: bool,
}

impl Dialect {
    /// The dialect that the flags answered in INIT lead to.
    pub fn new(flags: InitFlags) -> Dialect {
        Dialect {
            setxattr_ext: flags.contains(InitFlags::SETXATTR_EXT),
        }
    }
}

/// One decoded request, borrowing from the transport's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks for what on which node.
    pub header: &'a InHeader,
    /// The operation with its arguments.
    pub op: Op<'a>,
    /// Extensions behind the arguments (security context, groups).
    pub extensions: Extensions<'a>,
}

/// An operation with its arguments. Variants follow [`Opcode`]; RENAME and RENAME2 share one.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // fields are the kernel's
pub enum Op<'a> {
    Lookup {
        name: &'a CStr,
    },
    Forget(&'a ForgetIn),
    Getattr(&'a GetattrIn),
    Setattr(&'a SetattrIn),
    Readlink,
    Symlink {
        name: &'a CStr,
        target: &'a CStr,
    },
    Mknod {
        arg: &'a MknodIn,
        name: &'a CStr,
    },
    Mkdir {
        arg: &'a MkdirIn,
        name: &'a CStr,
    },
    Unlink {
        name: &'a CStr,
    },
    Rmdir {
        name: &'a CStr,
    },
    Rename {
        newdir: u64,
        flags: u32,
        name: &'a CStr,
        newname: &'a CStr,
    },
    Link {
        arg: &'a LinkIn,
        name: &'a CStr,
    },
    Open(&'a OpenIn),
    Read(&'a ReadIn),
    Write {
        arg: &'a WriteIn,
        data: &'a [u8],
    },
    Statfs,
    Release(&'a ReleaseIn),
    Fsync(&'a FsyncIn),
    Setxattr {
        arg: SetxattrIn,
        name: &'a CStr,
        value: &'a [u8],
    },
    Getxattr {
        arg: &'a GetxattrIn,
        name: &'a CStr,
    },
    Listxattr(&'a GetxattrIn),
    Removexattr {
        name: &'a CStr,
    },
    Flush(&'a FlushIn),
    Init(InitIn),
    Opendir(&'a OpenIn),
    Readdir(&'a ReadIn),
    Releasedir(&'a ReleaseIn),
    Fsyncdir(&'a FsyncIn),
    Getlk(&'a LkIn),
    Setlk(&'a LkIn),
    Setlkw(&'a LkIn),
    Access(&'a AccessIn),
    Create {
        arg: &'a CreateIn,
        name: &'a CStr,
    },
    Interrupt(&'a InterruptIn),
    Bmap(&'a BmapIn),
    Destroy,
    Ioctl {
        arg: &'a IoctlIn,
        data: &'a [u8],
    },
    Poll(&'a PollIn),
    NotifyReply {
        arg: &'a NotifyRetrieveIn,
        data: &'a [u8],
    },
    BatchForget(&'a [ForgetOne]),
    Fallocate(&'a FallocateIn),
    Readdirplus(&'a ReadIn),
    Lseek(&'a LseekIn),
    CopyFileRange(&'a CopyFileRangeIn),
    Setupmapping(&'a SetupmappingIn),
    /// Pairs of [`RemovemappingOne`]'s offset and length; they lie at odd multiples of 4.
    Removemapping(&'a [[U64; 2]]),
    Syncfs,
    Tmpfile(&'a CreateIn),
    Statx(&'a StatxIn),
    CopyFileRange64(&'a CopyFileRangeIn),
    CuseInit(&'a CuseInitIn),
}

/// One extension of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// 0..=31: security contexts (their number); 32: supplementary groups.
    pub kind: u32,
    /// Bytes behind the extension's head.
    pub body: &'a [u8],
}

/// Extensions of a request, in order. Ends early at the first malformed one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions<'a>(&'a [u8]);

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        let (head, _) = ExtHeader::read_from_prefix(self.0).ok()?;
        let size = head.size as usize;
        if size < size_of::<ExtHeader>() || size > self.0.len() {
            self.0 = &[];
            return None;
        }
        let body = &self.0[size_of::<ExtHeader>()..size];
        self.0 = self.0.get(size.next_multiple_of(8)..).unwrap_or(&[]);
        Some(Extension {
            kind: head.kind,
            body,
        })
    }
}

/// Arguments in one or two pieces: `inline`, then what lies elsewhere.
struct Args<'a> {
    inline: &'a [u8],
    external: &'a [u8],
}

impl<'a> Args<'a> {
    fn take<T>(&mut self, what: &'static str) -> Result<&'a T, DecodeError>
    where
        T: FromBytes + KnownLayout + Immutable,
    {
        if self.inline.len() < size_of::<T>() {
            return Err(DecodeError::Short {
                what,
                have: self.inline.len(),
            });
        }
        let (value, rest) = T::ref_from_prefix(self.inline).map_err(|_| DecodeError::Misaligned)?;
        self.inline = rest;
        Ok(value)
    }

    /// What is left of the inline piece, or the other one if nothing is.
    fn piece(&mut self) -> &mut &'a [u8] {
        if self.inline.is_empty() {
            &mut self.external
        } else {
            &mut self.inline
        }
    }

    fn string(&mut self, what: &'static str) -> Result<&'a CStr, DecodeError> {
        let piece = self.piece();
        let bytes: &'a [u8] = piece;
        let string =
            CStr::from_bytes_until_nul(bytes).map_err(|_| DecodeError::Unterminated(what))?;
        *piece = &bytes[string.count_bytes() + 1..];
        Ok(string)
    }

    fn name(&mut self) -> Result<&'a CStr, DecodeError> {
        let name = self.string("file name")?;
        if name.is_empty() || name.to_bytes().contains(&b'/') {
            return Err(DecodeError::BadName);
        }
        Ok(name)
    }

    fn payload(&mut self, what: &'static str, announced: u32) -> Result<&'a [u8], DecodeError> {
        let piece = self.piece();
        let bytes: &'a [u8] = piece;
        let announced = announced as usize;
        if bytes.len() < announced {
            return Err(DecodeError::Count {
                what,
                announced,
                have: bytes.len(),
            });
        }
        let (payload, rest) = bytes.split_at(announced);
        *piece = rest;
        Ok(payload)
    }

    fn array<T>(&mut self, what: &'static str, count: u32) -> Result<&'a [T], DecodeError>
    where
        T: FromBytes + KnownLayout + Immutable,
    {
        let bytes: &'a [u8] = self.piece();
        if count == 0 {
            // An empty piece may lie at any address.
            return Ok(&[]);
        }
        let announced = count as usize;
        let have = bytes.len() / size_of::<T>();
        if have < announced {
            return Err(DecodeError::Count {
                what,
                announced,
                have,
            });
        }
        let bytes = &bytes[..announced * size_of::<T>()];
        <[T]>::ref_from_bytes(bytes).map_err(|_| DecodeError::Misaligned)
    }
}

impl<'a> Request<'a> {
    /// Decodes one request as `read(2)` of the device returns it. The buffer must start at a
    /// multiple of 8 and hold exactly one request.
    pub fn parse(bytes: &'a [u8], dialect: Dialect) -> Result<Request<'a>, DecodeError> {
        if bytes.len() < size_of::<InHeader>() {
            return Err(DecodeError::Short {
                what: "header",
                have: bytes.len(),
            });
        }
        let (header, args) =
            InHeader::ref_from_prefix(bytes).map_err(|_| DecodeError::Misaligned)?;
        if header.len as usize != bytes.len() {
            return Err(DecodeError::Length {
                header: header.len,
                received: bytes.len(),
            });
        }
        Request::from_parts(header, args, &[], dialect)
    }

    /// Decodes a request whose header, arguments and payload lie in different memory. `inline`
    /// holds the fixed arguments and whatever follows them; names, payload and arrays are taken
    /// from `external` once `inline` is used up. `InHeader::len` is not looked at.
    pub fn from_parts(
        header: &'a InHeader,
        inline: &'a [u8],
        external: &'a [u8],
        dialect: Dialect,
    ) -> Result<Request<'a>, DecodeError> {
        let opcode = Opcode::from_raw(header.opcode).ok_or(DecodeError::Opcode(header.opcode))?;
        let mut args = Args { inline, external };
        let extension_len = usize::from(header.total_extlen) * 8;
        let extensions = {
            let piece = if external.is_empty() {
                &mut args.inline
            } else {
                &mut args.external
            };
            let bytes: &'a [u8] = piece;
            let split = bytes
                .len()
                .checked_sub(extension_len)
                .ok_or(DecodeError::Extension(extension_len))?;
            *piece = &bytes[..split];
            Extensions(&bytes[split..])
        };
        let op = Op::decode(opcode, &mut args, dialect)?;
        Ok(Request {
            header,
            op,
            extensions,
        })
    }
}

impl<'a> Op<'a> {
    fn decode(
        opcode: Opcode,
        args: &mut Args<'a>,
        dialect: Dialect,
    ) -> Result<Op<'a>, DecodeError> {
        Ok(match opcode {
            Opcode::Lookup => Op::Lookup { name: args.name()? },
            Opcode::Forget => Op::Forget(args.take("ForgetIn")?),
            Opcode::Getattr => Op::Getattr(args.take("GetattrIn")?),
            Opcode::Setattr => Op::Setattr(args.take("SetattrIn")?),
            Opcode::Readlink => Op::Readlink,
            Opcode::Symlink => Op::Symlink {
                name: args.name()?,
                target: args.string("symbolic link target")?,
            },
            Opcode::Mknod => Op::Mknod {
                arg: args.take("MknodIn")?,
                name: args.name()?,
            },
            Opcode::Mkdir => Op::Mkdir {
                arg: args.take("MkdirIn")?,
                name: args.name()?,
            },
            Opcode::Unlink => Op::Unlink { name: args.name()? },
            Opcode::Rmdir => Op::Rmdir { name: args.name()? },
            Opcode::Rename => {
                let arg: &RenameIn = args.take("RenameIn")?;
                let (name, newname) = (args.name()?, args.name()?);
                Op::Rename {
                    newdir: arg.newdir,
                    flags: 0,
                    name,
                    newname,
                }
            }
            Opcode::Rename2 => {
                let arg: &Rename2In = args.take("Rename2In")?;
                let (name, newname) = (args.name()?, args.name()?);
                Op::Rename {
                    newdir: arg.newdir,
                    flags: arg.flags,
                    name,
                    newname,
                }
            }
            Opcode::Link => Op::Link {
                arg: args.take("LinkIn")?,
                name: args.name()?,
            },
            Opcode::Open => Op::Open(args.take("OpenIn")?),
            Opcode::Read => Op::Read(args.take("ReadIn")?),
            Opcode::Write => {
                let arg: &WriteIn = args.take("WriteIn")?;
                Op::Write {
                    arg,
                    data: args.payload("WRITE data", arg.size)?,
                }
            }
            Opcode::Statfs => Op::Statfs,
            Opcode::Release => Op::Release(args.take("ReleaseIn")?),
            Opcode::Fsync => Op::Fsync(args.take("FsyncIn")?),
            Opcode::Setxattr => Op::decode_setxattr(args, dialect)?,
            Opcode::Getxattr => Op::Getxattr {
                arg: args.take("GetxattrIn")?,
                name: args.string("attribute name")?,
            },
            Opcode::Listxattr => Op::Listxattr(args.take("GetxattrIn")?),
            Opcode::Removexattr => Op::Removexattr {
                name: args.string("attribute name")?,
            },
            Opcode::Flush => Op::Flush(args.take("FlushIn")?),
            Opcode::Init => Op::Init(decode_init(args.inline)?),
            Opcode::Opendir => Op::Opendir(args.take("OpenIn")?),
            Opcode::Readdir => Op::Readdir(args.take("ReadIn")?),
            Opcode::Releasedir => Op::Releasedir(args.take("ReleaseIn")?),
            Opcode::Fsyncdir => Op::Fsyncdir(args.take("FsyncIn")?),
            Opcode::Getlk => Op::Getlk(args.take("LkIn")?),
            Opcode::Setlk => Op::Setlk(args.take("LkIn")?),
            Opcode::Setlkw => Op::Setlkw(args.take("LkIn")?),
            Opcode::Access => Op::Access(args.take("AccessIn")?),
            Opcode::Create => Op::Create {
                arg: args.take("CreateIn")?,
                name: args.name()?,
            },
            Opcode::Interrupt => Op::Interrupt(args.take("InterruptIn")?),
            Opcode::Bmap => Op::Bmap(args.take("BmapIn")?),
            Opcode::Destroy => Op::Destroy,
            Opcode::Ioctl => {
                let arg: &IoctlIn = args.take("IoctlIn")?;
                Op::Ioctl {
                    arg,
                    data: args.payload("IOCTL data", arg.in_size)?,
                }
            }
            Opcode::Poll => Op::Poll(args.take("PollIn")?),
            Opcode::NotifyReply => {
                let arg: &NotifyRetrieveIn = args.take("NotifyRetrieveIn")?;
                Op::NotifyReply {
                    arg,
                    data: args.payload("retrieved data", arg.size)?,
                }
            }
            Opcode::BatchForget => {
                let arg: &BatchForgetIn = args.take("BatchForgetIn")?;
                Op::BatchForget(args.array("forgets", arg.count)?)
            }
            Opcode::Fallocate => Op::Fallocate(args.take("FallocateIn")?),
            Opcode::Readdirplus => Op::Readdirplus(args.take("ReadIn")?),
            Opcode::Lseek => Op::Lseek(args.take("LseekIn")?),
            Opcode::CopyFileRange => Op::CopyFileRange(args.take("CopyFileRangeIn")?),
            Opcode::Setupmapping => Op::Setupmapping(args.take("SetupmappingIn")?),
            Opcode::Removemapping => {
                // The count is 4 bytes and the array of 8-byte fields follows without padding.
                let arg: &RemovemappingIn = args.take("RemovemappingIn")?;
                Op::Removemapping(args.array("mappings", arg.count)?)
            }
            Opcode::Syncfs => Op::Syncfs,
            // The kernel sends a name, always "/": a temporary file has none.
            Opcode::Tmpfile => Op::Tmpfile(args.take("CreateIn")?),
            Opcode::Statx => Op::Statx(args.take("StatxIn")?),
            Opcode::CopyFileRange64 => Op::CopyFileRange64(args.take("CopyFileRangeIn")?),
            Opcode::CuseInit => Op::CuseInit(args.take("CuseInitIn")?),
        })
    }

    fn decode_setxattr(args: &mut Args<'a>, dialect: Dialect) -> Result<Op<'a>, DecodeError> {
        let arg = if dialect.setxattr_ext {
            *args.take::<SetxattrIn>("SetxattrIn")?
        } else {
            let short: &SetxattrInCompat = args.take("SetxattrInCompat")?;
            SetxattrIn {
                size: short.size,
                flags: short.flags,
                ..SetxattrIn::default()
            }
        };
        let name = args.string("attribute name")?;
        let value = args.payload("attribute value", arg.size)?;
        Ok(Op::Setxattr { arg, name, value })
    }
}

/// INIT grew from 8 bytes (before 7.6) over 16 to 64 (since 7.36); what an older kernel does not
/// send reads as zero.
fn decode_init(bytes: &[u8]) -> Result<InitIn, DecodeError> {
    const MAJOR_MINOR: usize = 8;
    if bytes.len() < MAJOR_MINOR {
        return Err(DecodeError::Short {
            what: "InitIn",
            have: bytes.len(),
        });
    }
    let mut init = InitIn::default();
    let n = bytes.len().min(size_of::<InitIn>());
    init.as_mut_bytes()[..n].copy_from_slice(&bytes[..n]);
    Ok(init)
}
