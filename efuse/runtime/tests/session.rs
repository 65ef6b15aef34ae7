//! The session against a transport that plays the kernel's part from a script. Needs no privilege.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use efuse_abi::wire::{
    Attr, AttrOut, BatchForgetIn, ForgetOne, GetattrIn, InHeader, InitIn, InitOut, InterruptIn,
    ReadIn, WriteIn, WriteOut,
};
use efuse_abi::{Errno, InitFlags, NotifyCode, Opcode};
use efuse_runtime::{
    Attributes, Channel, Connection, Context, Entry, Exchange, FileSystem, Negotiation, RawRequest,
    ReceiveError, Session, SessionConfig, SessionError, Transport, TransportError,
};
use zerocopy::{FromBytes, IntoBytes};

/// A request as the script sends it: header, inline arguments, payload elsewhere.
struct Scripted {
    header: InHeader,
    /// Words, for the alignment of the arguments.
    inline: Vec<u64>,
    external: Vec<u8>,
}

fn request(opcode: u32, unique: u64, inline: &[u8], external: &[u8]) -> Scripted {
    let mut words = vec![0u64; inline.len().div_ceil(8)];
    words.as_mut_bytes()[..inline.len()].copy_from_slice(inline);
    Scripted {
        header: InHeader {
            opcode,
            unique,
            nodeid: 1,
            uid: 10,
            gid: 20,
            pid: 30,
            ..InHeader::default()
        },
        inline: words,
        external: external.to_vec(),
    }
}

fn init(minor: u32) -> Scripted {
    let offered = InitFlags::all().bits();
    let init = InitIn {
        major: 7,
        minor,
        max_readahead: 131_072,
        flags: offered as u32,
        flags2: (offered >> 32) as u32,
        ..InitIn::default()
    };
    request(Opcode::Init as u32, 1, init.as_bytes(), &[])
}

#[derive(Debug)]
struct Reply {
    unique: u64,
    result: Result<(), Errno>,
    body: Vec<u8>,
}

struct Script {
    requests: Mutex<VecDeque<Scripted>>,
    replies: Sender<Reply>,
}

struct ScriptChannel {
    script: Arc<Script>,
    current: Scripted,
    data: Vec<u8>,
}

struct ScriptTransport(Arc<Script>);

impl Transport for ScriptTransport {
    fn channel(&self, _: usize, max_write: usize) -> Result<Box<dyn Channel>, TransportError> {
        Ok(Box::new(ScriptChannel {
            script: Arc::clone(&self.0),
            current: request(0, 0, &[], &[]),
            data: vec![0; max_write],
        }))
    }

    fn notify(&self, _: NotifyCode, _: &[&[u8]]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
}

impl Channel for ScriptChannel {
    fn receive(&mut self) -> Result<(), ReceiveError> {
        let next = self.script.requests.lock().expect("script").pop_front();
        self.current = next.ok_or(ReceiveError::Closed)?;
        Ok(())
    }

    fn exchange(&mut self) -> Exchange<'_> {
        Exchange {
            request: RawRequest::Parts {
                header: &self.current.header,
                inline: self.current.inline.as_bytes(),
                external: &self.current.external,
            },
            data: &mut self.data,
        }
    }

    fn reply(
        &mut self,
        unique: u64,
        result: Result<(), Errno>,
        head: &[u8],
        data: usize,
    ) -> Result<(), Errno> {
        let body = [head, &self.data[..data]].concat();
        self.script
            .replies
            .send(Reply {
                unique,
                result,
                body,
            })
            .map_err(|_| Errno::ENODEV)
    }
}

#[derive(Default)]
struct Probe {
    forgotten: Mutex<Vec<(u64, u64)>>,
    written: Mutex<Vec<u8>>,
}

impl FileSystem for Probe {
    fn init(&self, negotiation: &mut Negotiation, _: &Connection) -> Result<(), Errno> {
        negotiation.wanted |= InitFlags::PASSTHROUGH;
        negotiation.max_stack_depth = 1;
        Ok(())
    }

    fn lookup(&self, _: &Context<'_>, _: u64, name: &CStr) -> Result<Entry, Errno> {
        match name.to_bytes() {
            b"panic" => panic!("as asked"),
            _ => Err(Errno::ENOENT),
        }
    }

    fn getattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        assert_eq!((cx.uid, cx.gid, cx.pid, fh), (10, 20, 30, None));
        let attr = Attr {
            ino: node,
            size: 42,
            ..Attr::default()
        };
        Ok(Attributes {
            attr,
            ttl: Duration::from_millis(1500),
        })
    }

    fn read(&self, _: &Context<'_>, _: u64, arg: &ReadIn, out: &mut [u8]) -> Result<usize, Errno> {
        assert_eq!(out.len(), arg.size as usize);
        out.fill(b'r');
        // A handler that claims more than it was given must not leak the buffer.
        Ok(if arg.offset == 99 {
            out.len() + 1
        } else {
            out.len() - 1
        })
    }

    fn write(&self, _: &Context<'_>, _: u64, _: &WriteIn, data: &[u8]) -> Result<usize, Errno> {
        self.written
            .lock()
            .expect("written")
            .extend_from_slice(data);
        Ok(data.len())
    }

    fn forget(&self, node: u64, count: u64) {
        self.forgotten
            .lock()
            .expect("forgotten")
            .push((node, count));
    }
}

fn run(requests: Vec<Scripted>) -> (Result<(), SessionError>, Vec<Reply>, Arc<Probe>) {
    let (replies, received): (Sender<Reply>, Receiver<Reply>) = channel();
    let script = Script {
        requests: Mutex::new(requests.into()),
        replies,
    };
    let transport: Arc<dyn Transport> = Arc::new(ScriptTransport(Arc::new(script)));
    let fs = Arc::new(Probe::default());
    let config = SessionConfig {
        workers: 1,
        max_write: 65536,
        ..SessionConfig::default()
    };
    let result = Session::start(&transport, &fs, &config).and_then(Session::wait);
    (result, received.try_iter().collect(), fs)
}

#[test]
fn init_is_negotiated() {
    let (result, replies, _) = run(vec![init(41)]);
    result.expect("a session");
    let out = InitOut::read_from_bytes(&replies[0].body).expect("an InitOut");
    assert_eq!(
        (out.major, out.minor, out.max_write, out.max_pages),
        (7, 41, 65536, 16)
    );
    assert_eq!((out.max_background, out.congestion_threshold), (4096, 3072));
    assert_eq!((out.max_readahead, out.max_stack_depth), (131_072, 1));
    let flags = u64::from(out.flags) | u64::from(out.flags2) << 32;
    let flags = InitFlags::from_bits_retain(flags);
    assert!(flags.contains(InitFlags::PASSTHROUGH | InitFlags::ASYNC_DIO | InitFlags::MAX_PAGES));
    assert!(!flags.contains(InitFlags::WRITEBACK_CACHE) && !flags.contains(InitFlags::POSIX_LOCKS));

    // A newer kernel is answered in our newest version.
    let (result, replies, _) = run(vec![init(99)]);
    result.expect("a session");
    let out = InitOut::read_from_bytes(&replies[0].body).expect("an InitOut");
    assert_eq!(out.minor, efuse_abi::KERNEL_MINOR_VERSION);
}

#[test]
fn old_kernels_and_a_missing_init_are_errors() {
    let (result, replies, _) = run(vec![init(12)]);
    assert!(
        matches!(
            result,
            Err(SessionError::Version {
                major: 7,
                minor: 12
            })
        ),
        "{result:?}"
    );
    assert_eq!(replies[0].result, Err(Errno::EIO));
    let (result, ..) = run(vec![request(Opcode::Statfs as u32, 1, &[], &[])]);
    assert!(
        matches!(result, Err(SessionError::NotInit(_))),
        "{result:?}"
    );
    let (result, ..) = run(vec![]);
    assert!(
        matches!(result, Err(SessionError::Receive(ReceiveError::Closed))),
        "{result:?}"
    );
}

#[test]
fn requests_reach_their_handlers_and_replies_have_the_wires_form() {
    let read = |offset| ReadIn {
        offset,
        size: 5,
        ..ReadIn::default()
    };
    let write = WriteIn {
        size: 9,
        ..WriteIn::default()
    };
    let forgets = [
        ForgetOne {
            nodeid: 7,
            nlookup: 2,
        },
        ForgetOne {
            nodeid: 8,
            nlookup: 3,
        },
    ];
    let batch = BatchForgetIn { count: 2, dummy: 0 };
    let (result, replies, fs) = run(vec![
        init(41),
        request(
            Opcode::Getattr as u32,
            2,
            GetattrIn::default().as_bytes(),
            &[],
        ),
        request(Opcode::Read as u32, 3, read(0).as_bytes(), &[]),
        request(Opcode::Read as u32, 4, read(99).as_bytes(), &[]),
        request(Opcode::Write as u32, 5, write.as_bytes(), b"elsewhere"),
        request(
            Opcode::BatchForget as u32,
            6,
            batch.as_bytes(),
            forgets.as_bytes(),
        ),
        request(Opcode::Lookup as u32, 7, &[], b"panic\0"),
        request(Opcode::Lookup as u32, 8, &[], b"other\0"),
        request(Opcode::Lookup as u32, 9, &[], b"not terminated"),
        request(12_345, 10, &[], &[]),
        request(Opcode::Mkdir as u32, 11, &[0; 8], b"dir\0"),
    ]);
    result.expect("a clean end");
    let by_unique = |unique| {
        let mut found = replies.iter().filter(|reply| reply.unique == unique);
        let reply = found.next();
        assert!(
            found.next().is_none(),
            "request {unique} was answered twice"
        );
        reply
    };
    let get = |unique| by_unique(unique).unwrap_or_else(|| panic!("no reply to {unique}"));

    let attr = AttrOut::read_from_bytes(&get(2).body).expect("an AttrOut");
    assert_eq!((attr.attr_valid, attr.attr_valid_nsec), (1, 500_000_000));
    assert_eq!((attr.attr.ino, attr.attr.size), (1, 42));
    assert_eq!(get(3).body, b"rrrr");
    assert_eq!(get(4).result, Err(Errno::EIO));
    let size = WriteOut::read_from_bytes(&get(5).body)
        .expect("a WriteOut")
        .size;
    assert_eq!(
        (size, &fs.written.lock().expect("written")[..]),
        (9, &b"elsewhere"[..])
    );
    assert!(by_unique(6).is_none(), "FORGET must not be answered");
    assert_eq!(*fs.forgotten.lock().expect("forgotten"), [(7, 2), (8, 3)]);
    assert_eq!(
        get(7).result,
        Err(Errno::EIO),
        "a panic is an error of one request"
    );
    assert_eq!(get(8).result, Err(Errno::ENOENT), "and the worker goes on");
    assert_eq!(get(9).result, Err(Errno::EIO));
    assert_eq!(get(10).result, Err(Errno::ENOSYS));
    assert_eq!(get(11).result, Err(Errno::ENOSYS), "default of the trait");
}

#[test]
fn an_interrupt_of_nothing_is_sent_again() {
    let interrupt = InterruptIn { unique: 4 };
    let (result, replies, _) = run(vec![
        init(41),
        request(Opcode::Interrupt as u32, 5, interrupt.as_bytes(), &[]),
    ]);
    result.expect("a clean end");
    assert_eq!(
        (replies[1].unique, replies[1].result),
        (5, Err(Errno::EAGAIN))
    );
}
