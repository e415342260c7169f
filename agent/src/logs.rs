//! Logs that control asked for: read from the guards' files and sent beside the session's own messages.
//!
//! Each log is a task that reads, sends and pauses; the link's backpressure holds it up, never the
//! session. What is kept is the guard's business: a log begins with the oldest that is left.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::v1::{self, agent_message};
use model::{Class, Clock, Rejection, Timestamp};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::config::LogSendConfig;
use crate::driver::{Cause, Driver, DriverError, JobId, LogPosition, LogStream};
use crate::naming;
use crate::stream::message;

type Out = mpsc::Sender<v1::AgentMessage>;

/// The logs under way.
pub(crate) struct Logs {
    config: LogSendConfig,
    driver: Arc<dyn Driver>,
    clock: Arc<dyn Clock>,
    tasks: JoinSet<u64>,
    under_way: BTreeMap<u64, AbortHandle>,
}

impl Logs {
    pub(crate) fn new(
        config: LogSendConfig,
        driver: Arc<dyn Driver>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { config, driver, clock, tasks: JoinSet::new(), under_way: BTreeMap::new() }
    }

    /// Begins to send a log.
    pub(crate) fn start(&mut self, asked: v1::LogRequest, out: Out) {
        self.sweep();
        let id = asked.id;
        let refusal = if self.under_way.len() >= self.config.logs_max {
            Some(refused(Class::ResourceExhausted, "OVERLOADED", "too many logs are under way"))
        } else {
            None
        };
        let key = api::convert::job::key_from_proto("key", asked.key.clone());
        let key = match (refusal, key) {
            (Some(refusal), _) | (None, Err(refusal)) => return end(&out, id, Some(&refusal)),
            (None, Ok(key)) => key,
        };
        let Some(job) = naming::job_id(&key) else {
            return end(&out, id, Some(&unknown_job()));
        };
        let sender = Sender {
            config: self.config,
            driver: self.driver.clone(),
            clock: self.clock.clone(),
            job,
            out,
            asked,
        };
        let task = self.tasks.spawn(async move {
            let ended = sender.send().await;
            let over = agent_message::Message::LogEnd(v1::LogEnd {
                id,
                rejection: ended.err().as_ref().map(api::convert::rejection::to_proto),
            });
            // A session that is over needs no end.
            drop(sender.out.send(message(over)).await);
            id
        });
        self.under_way.insert(id, task);
    }

    /// Ends a log that nobody waits for any more.
    pub(crate) fn cancel(&mut self, id: u64) {
        if let Some(task) = self.under_way.remove(&id) {
            task.abort();
        }
    }

    /// Ends all logs: their session is over.
    pub(crate) fn clear(&mut self) {
        self.tasks.abort_all();
        self.under_way.clear();
    }

    fn sweep(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(id) = ended {
                self.under_way.remove(&id);
            }
        }
    }
}

fn end(out: &Out, id: u64, rejection: Option<&Rejection>) {
    let rejection = rejection.map(api::convert::rejection::to_proto);
    let over = agent_message::Message::LogEnd(v1::LogEnd { id, rejection });
    drop(out.try_send(message(over)));
}

fn refused(class: Class, code: &str, text: &str) -> Rejection {
    Rejection {
        class,
        code: code.to_owned(),
        message: text.to_owned(),
        field: String::new(),
        remedy: "try again later".to_owned(),
        details: BTreeMap::new(),
    }
}

fn unknown_job() -> Rejection {
    refused(Class::NotFound, "UNKNOWN_JOB", "the job has not been started on this host")
}

/// One log on its way.
struct Sender {
    config: LogSendConfig,
    driver: Arc<dyn Driver>,
    clock: Arc<dyn Clock>,
    job: JobId,
    out: Out,
    asked: v1::LogRequest,
}

/// How far a stream was read.
struct Reading {
    stream: LogStream,
    position: LogPosition,
    /// Whether the next byte begins a line.
    fresh: bool,
}

impl Sender {
    async fn send(&self) -> Result<(), Rejection> {
        let streams = match self.asked.stream() {
            v1::LogStream::Stdout => vec![LogStream::Stdout],
            v1::LogStream::Stderr => vec![LogStream::Stderr],
            v1::LogStream::Unspecified | v1::LogStream::Both => {
                vec![LogStream::Stdout, LogStream::Stderr]
            }
        };
        let start = |stream| Reading { stream, position: LogPosition::default(), fresh: true };
        let mut readings: Vec<_> = streams.into_iter().map(start).collect();
        if let Some(lines) = self.asked.tail_lines {
            for reading in &mut readings {
                let tail = self.tail(reading, lines).await?;
                self.pass_in_parts(reading, &tail).await?;
            }
        }
        loop {
            let mut quiet = true;
            for reading in &mut readings {
                let bytes = self.read(reading).await?;
                if !bytes.is_empty() {
                    quiet = false;
                    self.pass(reading, bytes).await?;
                    sleep(Duration::from_millis(self.config.pause_ms)).await;
                }
            }
            match (quiet, self.asked.follow) {
                (false, _) => {}
                (true, true) => sleep(Duration::from_millis(self.config.follow_every_ms)).await,
                (true, false) => return Ok(()),
            }
        }
    }

    async fn read(&self, reading: &mut Reading) -> Result<Vec<u8>, Rejection> {
        let (from, bytes_max) = (reading.position, self.config.part_bytes.max(1));
        let chunk = self.driver.logs(&self.job, reading.stream, from, bytes_max).await;
        let chunk = chunk.map_err(|error| of_driver(&error))?;
        reading.position = chunk.next;
        Ok(chunk.bytes)
    }

    /// The last lines of what there is; the reading goes on behind them.
    async fn tail(&self, reading: &mut Reading, lines: u32) -> Result<Vec<u8>, Rejection> {
        let mut kept: VecDeque<u8> = VecDeque::new();
        loop {
            let bytes = self.read(reading).await?;
            if bytes.is_empty() {
                break;
            }
            kept.extend(bytes);
            let surplus = kept.len().saturating_sub(self.config.tail_bytes_max);
            kept.drain(..surplus);
        }
        let kept: Vec<u8> = kept.into();
        Ok(last_lines(&kept, lines).to_vec())
    }

    async fn pass_in_parts(&self, reading: &mut Reading, bytes: &[u8]) -> Result<(), Rejection> {
        for part in bytes.chunks(self.config.part_bytes.max(1)) {
            self.pass(reading, part.to_vec()).await?;
        }
        Ok(())
    }

    async fn pass(&self, reading: &mut Reading, bytes: Vec<u8>) -> Result<(), Rejection> {
        let now = self.clock.now();
        let data = match self.asked.timestamps {
            true => stamped(&bytes, now, &mut reading.fresh),
            false => bytes,
        };
        let part = v1::LogPart {
            id: self.asked.id,
            stream: match reading.stream {
                LogStream::Stdout => v1::LogStream::Stdout,
                LogStream::Stderr => v1::LogStream::Stderr,
            }
            .into(),
            data: data.into(),
            time: api::convert::time_to_proto(now),
        };
        let sent = self.out.send(message(agent_message::Message::LogPart(part))).await;
        sent.map_err(|_| refused(Class::Aborted, "STOPPED", "the session is over"))
    }
}

fn of_driver(error: &DriverError) -> Rejection {
    match error.cause() {
        Cause::Unknown => unknown_job(),
        _ => refused(Class::Aborted, "FAULT", &error.to_string()),
    }
}

/// The end of `bytes` that holds that many lines.
fn last_lines(bytes: &[u8], lines: u32) -> &[u8] {
    let mut left = lines as usize;
    if left == 0 {
        return &[];
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    for (at, byte) in body.iter().enumerate().rev() {
        if *byte == b'\n' {
            left -= 1;
            if left == 0 {
                return bytes.get(at + 1..).unwrap_or_default();
            }
        }
    }
    bytes
}

/// `bytes` with the time at the beginning of each line.
fn stamped(bytes: &[u8], now: Timestamp, fresh: &mut bool) -> Vec<u8> {
    let stamp = time_text(now);
    let mut all = Vec::with_capacity(bytes.len() + 64);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if std::mem::replace(fresh, line.ends_with(b"\n")) {
            all.extend_from_slice(stamp.as_bytes());
            all.push(b' ');
        }
        all.extend_from_slice(line);
    }
    all
}

/// A moment as RFC 3339 in UTC.
fn time_text(now: Timestamp) -> String {
    let (days, of_day_ms) = (now.0 / 86_400_000, now.0 % 86_400_000);
    // Days since 1 March of the year 0, in which leap days come last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (seconds, ms) = (of_day_ms / 1_000, of_day_ms % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a\nb\n", 9), b"a\nb\n");
        assert_eq!(last_lines(b"a\nb\n", 0), b"");
        assert_eq!(last_lines(b"", 3), b"");
    }

    #[test]
    fn each_line_gets_its_time_once_however_it_is_cut() {
        let (now, mut fresh) = (Timestamp(1_700_000_000_123), true);
        let stamp = "2023-11-14T22:13:20.123Z";
        assert_eq!(time_text(now), stamp);
        assert_eq!(time_text(Timestamp(951_782_400_000)), "2000-02-29T00:00:00.000Z");
        let one = stamped(b"ab", now, &mut fresh);
        let two = stamped(b"c\nd", now, &mut fresh);
        let all = [one, two].concat();
        assert_eq!(String::from_utf8(all).ok(), Some(format!("{stamp} abc\n{stamp} d")));
    }
}
