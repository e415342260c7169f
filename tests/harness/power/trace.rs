//! Reads what the recorder wrote: one event after the other, in the order in which they happened.

use std::{fs, path::Path};

const HEAD: usize = 40;

/// All that one process did below the recorded folder.
#[derive(Debug, Default)]
pub struct Trace {
    bytes: Vec<u8>,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The length of the trace with this event: a position at which the power can be cut.
    pub position: u64,
    /// CLOCK_MONOTONIC; the same clock for all processes of the machine.
    pub time_ns: u64,
    /// What happened.
    pub change: Change<'a>,
}

/// What happened. Names are absolute paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A file or directory was opened, and perhaps made or emptied.
    Open {
        /// By which number it is known from now on.
        fd: i32,
        /// Its name.
        name: &'a str,
        /// It was made.
        created: bool,
        /// It was emptied.
        truncated: bool,
    },
    /// Bytes were written.
    Write {
        /// The file.
        fd: i32,
        /// Where.
        at: u64,
        /// What.
        data: &'a [u8],
    },
    /// A file was cut or extended.
    Length {
        /// The file.
        fd: i32,
        /// Its new length.
        bytes: u64,
        /// It only ever grows by this.
        grow: bool,
    },
    /// A sync began; it covers what happened before.
    SyncBegin {
        /// The file or directory.
        fd: i32,
        /// Which sync.
        number: u64,
    },
    /// A sync is done.
    SyncEnd {
        /// Which sync.
        number: u64,
    },
    /// A file or directory got another name, or (`link`) one more.
    Rename {
        /// The old name.
        from: &'a str,
        /// The new name.
        to: &'a str,
        /// The old name stays.
        link: bool,
    },
    /// A name of a file or an empty directory is gone.
    Remove {
        /// The name.
        name: &'a str,
    },
    /// A directory was made.
    MakeDir {
        /// Its name.
        name: &'a str,
    },
    /// A number means nothing any more.
    Close {
        /// The number.
        fd: i32,
    },
    /// A number means what another means.
    Duplicate {
        /// The new number.
        fd: i32,
        /// The other one.
        of: i32,
    },
    /// Bytes are about to go to a socket.
    Sent {
        /// The port of the other side.
        port: u16,
    },
    /// `sync_file_range`, which makes nothing durable.
    RangeSync,
    /// A call was made to fail.
    Fault {
        /// The error number.
        error: i32,
    },
}

impl Trace {
    /// Reads a trace. One whose process was killed may end in half an event, which is left out.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { bytes }
    }

    /// The events in order.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let event = event(&self.bytes, at)?;
            at = event.position as usize;
            Some(event)
        })
    }
}

fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn event(bytes: &[u8], at: usize) -> Option<Event<'_>> {
    let head = bytes.get(at..at + HEAD)?;
    let kind = number(head, 0, 4);
    let fd = number(head, 4, 4) as u32 as i32;
    let value = number(head, 16, 8);
    let names = [number(head, 24, 4), number(head, 28, 4)].map(|bytes| bytes as usize);
    let mut from = at + HEAD;
    let mut take = |count: usize| {
        let taken = bytes.get(from..from + count);
        from += count;
        taken
    };
    let name = std::str::from_utf8(take(names[0])?).expect("names of the tests are UTF-8");
    let to = std::str::from_utf8(take(names[1])?).expect("names of the tests are UTF-8");
    let data = take(number(head, 32, 8) as usize)?;
    let change = match kind {
        1 => Change::Open { fd, name, created: value & 1 != 0, truncated: value & 2 != 0 },
        2 => Change::Write { fd, at: value, data },
        3 => Change::Length { fd, bytes: value, grow: false },
        4 => Change::SyncBegin { fd, number: value },
        5 => Change::SyncEnd { number: value },
        6 => Change::Rename { from: name, to, link: false },
        7 | 11 => Change::Remove { name },
        8 => Change::MakeDir { name },
        9 => Change::Close { fd },
        10 => Change::Sent { port: value as u16 },
        12 => Change::Length { fd, bytes: value, grow: true },
        13 => Change::RangeSync,
        14 => Change::Duplicate { fd, of: value as i32 },
        15 => Change::Fault { error: value as i32 },
        16 => Change::Rename { from: name, to, link: true },
        other => panic!("the recorder wrote a record of kind {other}"),
    };
    Some(Event { position: from as u64, time_ns: number(head, 8, 8), change })
}
