macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        #[allow(missing_docs)] // the variants carry the names of the kernel's header
        pub enum $name { $($variant = $value,)* }

        impl $name {
            /// All of them, in numeric order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The one with this number, if there is one.
            pub const fn from_raw(raw: u32) -> Option<$name> {
                match raw {
                    $($value => Some($name::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// What a request asks for.
    Opcode {
        Lookup = 1,
        Forget = 2,
        Getattr = 3,
        Setattr = 4,
        Readlink = 5,
        Symlink = 6,
        Mknod = 8,
        Mkdir = 9,
        Unlink = 10,
        Rmdir = 11,
        Rename = 12,
        Link = 13,
        Open = 14,
        Read = 15,
        Write = 16,
        Statfs = 17,
        Release = 18,
        Fsync = 20,
        Setxattr = 21,
        Getxattr = 22,
        Listxattr = 23,
        Removexattr = 24,
        Flush = 25,
        Init = 26,
        Opendir = 27,
        Readdir = 28,
        Releasedir = 29,
        Fsyncdir = 30,
        Getlk = 31,
        Setlk = 32,
        Setlkw = 33,
        Access = 34,
        Create = 35,
        Interrupt = 36,
        Bmap = 37,
        Destroy = 38,
        Ioctl = 39,
        Poll = 40,
        NotifyReply = 41,
        BatchForget = 42,
        Fallocate = 43,
        Readdirplus = 44,
        Rename2 = 45,
        Lseek = 46,
        CopyFileRange = 47,
        Setupmapping = 48,
        Removemapping = 49,
        Syncfs = 50,
        Tmpfile = 51,
        Statx = 52,
        CopyFileRange64 = 53,
        CuseInit = 4096,
    }
}

codes! {
    /// What an unsolicited message to the kernel says (in `OutHeader::error`, unique 0).
    NotifyCode {
        Poll = 1,
        InvalInode = 2,
        InvalEntry = 3,
        Store = 4,
        Retrieve = 5,
        Delete = 6,
        Resend = 7,
        IncEpoch = 8,
        Prune = 9,
    }
}

impl Opcode {
    /// Whether the kernel waits for an answer. FORGET, BATCH_FORGET and NOTIFY_REPLY must never be
    /// answered, INTERRUPT only to have it sent again.
    pub const fn wants_reply(self) -> bool {
        !matches!(
            self,
            Opcode::Forget | Opcode::BatchForget | Opcode::NotifyReply | Opcode::Interrupt
        )
    }
}
