//! The seam between a guard's loop and what it holds, and the small waits both need.

use std::io::{self, PipeReader, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::guard::logs::RotatedLog;

/// What a guard holds: processes or a wasm store.
pub(crate) trait Workload {
    /// Asks everything to end. `false`: there is no one who could hear it, kill at once.
    fn ask_to_stop(&mut self) -> bool;
    /// Begins to end everything by force.
    fn kill(&mut self);
    /// The job's own processes.
    fn pids(&self) -> Vec<u32>;
    /// Whether something was killed for want of memory.
    fn oom(&self) -> bool;
    /// Waits for the last remains after the news ended, and removes what was made for the job.
    fn finish(&mut self);
    /// Whether ending this process is enough to end the job.
    fn dies_with_guard(&self) -> bool;
}

/// A workload that was brought on its way.
pub(crate) struct Launched {
    pub(crate) workload: Box<dyn Workload>,
    /// JSON lines of `News`; its end means that nothing is left.
    pub(crate) news: UnixStream,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

const READ_BYTES: usize = 64 << 10;

/// Sleeps in a process that has nothing else to do.
pub(crate) fn pause(ms: u64) {
    let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
    // Cut short by a signal, it is a shorter pause.
    let _ = poll(&mut [], timeout);
}

/// Tells the driver that waits for it that the job is up, by closing standard output.
pub(crate) fn announce() {
    if let Ok(nothing) = std::fs::File::create("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&nothing);
    }
}

/// Which of the descriptors have something to read or are at their end. A signal counts as none.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], timeout: PollTimeout) -> io::Result<Vec<bool>> {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(fds.iter().map(|fd| fd.any().unwrap_or(false)).collect()),
        Err(nix::errno::Errno::EINTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

/// Copies what one read gives; a pipe that fails is at its end.
pub(crate) fn copy(from: &mut PipeReader, to: &mut RotatedLog) -> usize {
    let mut buffer = vec![0; READ_BYTES];
    let count = from.read(&mut buffer).unwrap_or(0);
    to.append(&buffer[..count]);
    count
}
