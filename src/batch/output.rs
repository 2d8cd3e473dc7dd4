//! The file of results, which is also the saved state of an interrupted run.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};

use serde::Deserialize;

use super::error::BatchError;
use super::input::InputLine;
use crate::config::Place;

/// Where results go.
#[derive(Debug)]
pub(super) struct Output {
    name: String,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    /// Locked as long as it is open.
    File(File),
    Pipe(io::Stdout),
}

/// The lines whose results are in the output file already.
#[derive(Debug, Default)]
pub(super) struct Present {
    custom_ids: HashSet<String>,
    /// Line numbers of results without a `custom_id`.
    numbers: HashSet<usize>,
}

#[derive(Deserialize)]
struct Head {
    custom_id: Option<String>,
    error: Option<ErrorHead>,
}

#[derive(Deserialize)]
struct ErrorHead {
    line: Option<usize>,
}

impl Present {
    pub(super) fn has(&self, line: &InputLine) -> bool {
        match &line.custom_id {
            Some(custom_id) => self.custom_ids.contains(custom_id),
            None => self.numbers.contains(&line.number),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.custom_ids.len() + self.numbers.len()
    }

    /// Adds a result; `None` if the line is not one.
    fn take(&mut self, line: &[u8]) -> Option<()> {
        let head: Head = serde_json::from_slice(line).ok()?;
        match (head.custom_id, head.error) {
            (Some(custom_id), _) => self.custom_ids.insert(custom_id),
            (None, Some(ErrorHead { line: Some(number) })) => self.numbers.insert(number),
            (None, _) => return None,
        };
        Some(())
    }
}

impl Output {
    /// Opens or makes the file and drops a last line that was cut off. A pipe has no results yet.
    ///
    /// # Errors
    /// A file that cannot be used, is in use, or holds something else.
    pub(super) fn open(place: &Place) -> Result<(Self, Present), BatchError> {
        let name = place.to_string();
        let Place::File(path) = place else {
            let sink = Sink::Pipe(io::stdout());
            return Ok((Self { name, sink }, Present::default()));
        };
        let failed = |source| BatchError::File {
            path: name.clone(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BatchError::Busy { path: name }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut present = Present::default();
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        let mut whole = 0;
        for number in 1.. {
            line.clear();
            let num_read = reader.read_until(b'\n', &mut line).map_err(failed)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            if present.take(&line).is_none() {
                return Err(BatchError::Foreign {
                    path: name,
                    line: number,
                });
            }
            whole += num_read as u64;
        }
        file.set_len(whole).map_err(failed)?;
        (&file).seek(SeekFrom::End(0)).map_err(failed)?;
        let sink = Sink::File(file);
        Ok((Self { name, sink }, present))
    }

    /// Writes one result as one line, in one piece.
    ///
    /// # Errors
    /// A full disk, or a closed pipe.
    pub(super) fn write(&mut self, json: &str) -> Result<(), BatchError> {
        let line = format!("{json}\n");
        let written = match &mut self.sink {
            Sink::File(file) => file.write_all(line.as_bytes()),
            Sink::Pipe(stdout) => (stdout.write_all(line.as_bytes())).and_then(|()| stdout.flush()),
        };
        written.map_err(|source| self.failed(source))
    }

    /// Waits until the results are on the disk.
    ///
    /// # Errors
    /// A disk that fails.
    pub(super) fn finish(&self) -> Result<(), BatchError> {
        match &self.sink {
            Sink::File(file) => file.sync_all().map_err(|source| self.failed(source)),
            Sink::Pipe(_) => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> BatchError {
        BatchError::File {
            path: self.name.clone(),
            source,
        }
    }
}
