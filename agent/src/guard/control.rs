//! The socket on which a guard answers: `status`, `stop <grace ms>`, `kill`, one line each.
//!
//! One connection carries one request and one answer, the job's state as a line of JSON. `status`
//! is answered at once; `stop` and `kill` when nothing of the job is left. Connections, their
//! request's length and their patience are bounded. The socket lies in the job's directory, whose
//! mode keeps others out; it is reached through `/proc/self/fd`, because a socket's path may have
//! only 107 bytes and a job's directory may have more.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::guard::files;

const CONNECTIONS_MAX: usize = 8;
const REQUEST_BYTES_MAX: usize = 64;
/// How long a connection may take to say its request.
const REQUEST_MS_MAX: u64 = 5_000;
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// What a driver asks of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Status,
    Stop { grace_ms: u64 },
}

impl Request {
    /// The line on the socket.
    pub(crate) fn line(self) -> String {
        match self {
            Self::Status => "status\n".to_owned(),
            Self::Stop { grace_ms: 0 } => "kill\n".to_owned(),
            Self::Stop { grace_ms } => format!("stop {grace_ms}\n"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        match line.trim_end() {
            "status" => Some(Self::Status),
            "kill" => Some(Self::Stop { grace_ms: 0 }),
            other => {
                let grace_ms = other.strip_prefix("stop ")?.parse().ok()?;
                Some(Self::Stop { grace_ms })
            }
        }
    }
}

/// The path of a job's socket that is short enough whatever the directory's is; good as long as
/// the directory stays open.
pub(crate) fn short_path(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), files::CONTROL))
}

struct Connection {
    stream: UnixStream,
    request: Vec<u8>,
    since_ms: u64,
    /// It asked for a stop and is answered at the job's end.
    waiting: bool,
}

/// The guard's end of the socket.
pub(crate) struct Control {
    listener: UnixListener,
    connections: Vec<Connection>,
}

impl Control {
    /// Opens the socket, in place of one that a dead guard left. The caller holds the job's lock.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        match fs::remove_file(dir.join(files::CONTROL)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(short_path(&File::open(dir)?))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: Vec::new() })
    }

    /// What to poll for reading. The listener comes first, unless no more connections are taken.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let listener = (self.connections.len() < CONNECTIONS_MAX).then(|| self.listener.as_fd());
        listener.into_iter().chain(self.connections.iter().map(|c| c.stream.as_fd())).collect()
    }

    /// Takes what has arrived and gives back the requests that are complete, each with the number
    /// under which it is answered at once or kept. Nothing here blocks.
    pub(crate) fn requests(&mut self, now_ms: u64) -> Vec<(usize, Request)> {
        while self.connections.len() < CONNECTIONS_MAX
            && let Ok((stream, _)) = self.listener.accept()
        {
            if stream.set_nonblocking(true).is_ok() {
                let request = Vec::new();
                self.connections.push(Connection {
                    stream,
                    request,
                    since_ms: now_ms,
                    waiting: false,
                });
            }
        }
        self.connections.retain_mut(|connection| connection.receive(now_ms));
        let complete = self.connections.iter_mut().enumerate().filter(|(_, c)| !c.waiting);
        complete
            .filter_map(|(number, connection)| {
                let line = std::str::from_utf8(&connection.request).ok()?;
                Some((number, Request::parse(line.strip_suffix('\n')?)?))
            })
            .collect()
    }

    /// When the next silent connection is to be closed.
    pub(crate) fn wake_at_ms(&self) -> u64 {
        let silent = self.connections.iter().filter(|connection| !connection.waiting);
        silent.map(|c| c.since_ms + REQUEST_MS_MAX + 1).min().unwrap_or(u64::MAX)
    }

    /// Keeps a connection for `answer_all`.
    pub(crate) fn keep(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(number) {
            connection.waiting = true;
        }
    }

    /// Answers a connection; it is closed at the next round.
    pub(crate) fn answer(&mut self, number: usize, answer: &str) {
        if let Some(connection) = self.connections.get_mut(number) {
            connection.say(answer);
            connection.since_ms = 0;
            connection.request.clear();
        }
    }

    /// Answers everyone who waits for the job's end.
    pub(crate) fn answer_all(&mut self, answer: &str) {
        for mut connection in self.connections.drain(..) {
            connection.say(answer);
        }
    }
}

impl Connection {
    /// Whether the connection is still of use after taking in what it has sent.
    fn receive(&mut self, now_ms: u64) -> bool {
        if !self.waiting && now_ms.saturating_sub(self.since_ms) > REQUEST_MS_MAX {
            return false;
        }
        let mut buffer = [0; REQUEST_BYTES_MAX];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.request.extend_from_slice(&buffer[..count]);
                self.request.len() <= REQUEST_BYTES_MAX
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn say(&mut self, answer: &str) {
        // Whoever does not take a short line within the timeout asks again.
        let blocking = self.stream.set_nonblocking(false);
        let said = blocking
            .and_then(|()| self.stream.set_write_timeout(Some(WRITE_TIMEOUT)))
            .and_then(|()| self.stream.write_all(format!("{answer}\n").as_bytes()));
        drop(said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_their_lines_say() {
        for request in
            [Request::Status, Request::Stop { grace_ms: 0 }, Request::Stop { grace_ms: 9 }]
        {
            assert_eq!(Request::parse(&request.line()), Some(request));
        }
        assert_eq!(Request::parse("stop soon"), None);
        assert_eq!(Request::parse("stop 18446744073709551616"), None);
    }

    #[test]
    fn connections_and_their_patience_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut control = Control::open(dir.path()).unwrap();
        let open = File::open(dir.path()).unwrap();
        let clients: Vec<_> = (0..CONNECTIONS_MAX + 3)
            .map(|_| UnixStream::connect(short_path(&open)).unwrap())
            .collect();
        assert!(control.requests(1_000).is_empty());
        assert_eq!(control.connections.len(), CONNECTIONS_MAX);
        assert!(control.requests(1_001 + REQUEST_MS_MAX).is_empty());
        assert!(control.requests(1_001 + REQUEST_MS_MAX).is_empty());
        assert_eq!(control.connections.len(), 3, "the silent ones made room");
        (&clients[CONNECTIONS_MAX]).write_all(b"status\n").unwrap();
        let asked = control.requests(1_002 + REQUEST_MS_MAX);
        assert_eq!(asked.len(), 1);
        (&clients[CONNECTIONS_MAX + 1]).write_all(&[b'x'; 100]).unwrap();
        control.requests(1_003 + REQUEST_MS_MAX);
        control.requests(1_003 + REQUEST_MS_MAX);
        assert_eq!(control.connections.len(), 2, "a request that is too long is cut");
    }
}
