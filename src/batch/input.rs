//! The file of requests: read once for its ids, then line by line as they are needed, so that a
//! file of images does not have to fit into memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::error::BatchError;
use crate::config::Place;

/// Where lines come from.
#[derive(Debug)]
pub(super) struct Input {
    name: String,
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(Mutex<File>),
    /// What came through a pipe.
    Memory(Vec<u8>),
}

/// A line's position and id.
#[derive(Clone, Debug)]
pub(super) struct InputLine {
    /// From 1.
    pub(super) number: usize,
    offset: u64,
    /// In bytes, without its end.
    len: usize,
    /// `None` if there is none to be found.
    pub(super) custom_id: Option<String>,
}

#[derive(Deserialize)]
struct Head {
    custom_id: Option<String>,
}

impl Input {
    /// The lines that are not empty, in order.
    ///
    /// # Errors
    /// For a file that cannot be read, and for duplicate ids.
    pub(super) fn open(place: &Place) -> Result<(Self, Vec<InputLine>), BatchError> {
        let name = place.to_string();
        let failed = |source| BatchError::File {
            path: name.clone(),
            source,
        };
        let (source, lines) = match place {
            Place::File(path) => {
                let file = File::open(path).map_err(failed)?;
                let lines = index(BufReader::new(&file)).map_err(failed)?;
                (Source::File(Mutex::new(file)), lines)
            }
            Place::Pipe => {
                let mut bytes = Vec::new();
                io::stdin().read_to_end(&mut bytes).map_err(failed)?;
                let lines = index(bytes.as_slice()).map_err(failed)?;
                (Source::Memory(bytes), lines)
            }
        };
        check_ids(&name, &lines)?;
        Ok((Self { name, source }, lines))
    }

    /// A line's bytes.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub(super) fn read(&self, line: &InputLine) -> Result<Vec<u8>, BatchError> {
        match &self.source {
            Source::Memory(bytes) => {
                let start = line.offset as usize;
                Ok(bytes[start..start + line.len].to_vec())
            }
            Source::File(file) => {
                // Nothing that can panic is done under the lock.
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let mut bytes = vec![0; line.len];
                file.seek(SeekFrom::Start(line.offset))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(|source| BatchError::File {
                        path: self.name.clone(),
                        source,
                    })?;
                Ok(bytes)
            }
        }
    }
}

fn index(mut reader: impl BufRead) -> io::Result<Vec<InputLine>> {
    let mut lines = Vec::new();
    let mut bytes = Vec::new();
    let mut offset = 0;
    for number in 1.. {
        bytes.clear();
        let num_read = reader.read_until(b'\n', &mut bytes)?;
        if num_read == 0 {
            break;
        }
        let len = bytes.trim_ascii_end().len();
        if len > 0 {
            let head: Option<Head> = serde_json::from_slice(&bytes[..len]).ok();
            lines.push(InputLine {
                number,
                offset,
                len,
                custom_id: head.and_then(|head| head.custom_id),
            });
        }
        offset += num_read as u64;
    }
    Ok(lines)
}

fn check_ids(path: &str, lines: &[InputLine]) -> Result<(), BatchError> {
    let mut first_line: HashMap<&str, usize> = HashMap::with_capacity(lines.len());
    let mut twice = Vec::new();
    for line in lines {
        let Some(custom_id) = line.custom_id.as_deref() else {
            continue;
        };
        if let Some(first) = first_line.get(custom_id) {
            twice.push((custom_id, *first, line.number));
        } else {
            first_line.insert(custom_id, line.number);
        }
    }
    match twice.first() {
        None => Ok(()),
        Some((custom_id, first, second)) => Err(BatchError::Duplicate {
            path: path.to_owned(),
            custom_id: (*custom_id).to_owned(),
            first: *first,
            second: *second,
            num_twice: twice.len(),
        }),
    }
}
