//! Decodes the samples of a scan (T.87 annexes A and B).
//!
//! ```text
//!   c  b  d      a, b, c and d are known when x is decoded
//!   a  x
//! ```

use super::DAMAGED;
use super::bits::Bits;
use super::contexts::{Context, NUM_REGULAR, RunContext};
use super::parameters::Parameters;
use crate::error::ImageError;
use crate::image::cancellation::Cancellation;
use crate::image::dicom::pixel_format::PixelFormat;

/// How the components of a scan follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interleave {
    /// The scan has one.
    None,
    /// A row of each.
    Line,
    /// A sample of each.
    Sample,
}

/// A scan's header.
pub(super) struct Scan<'a> {
    pub(super) parameters: Parameters,
    pub(super) interleave: Interleave,
    /// Positions in a pixel.
    pub(super) components: &'a [usize],
}

/// Logarithms of the lengths of runs that one bit stands for, growing while runs go on.
const RUN_BITS: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];

impl Scan<'_> {
    /// Decodes into `(rows, columns, components of the frame)`; returns how many bytes were read.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] for damage; [`ImageError::Abandoned`] between rows.
    pub(super) fn decode(
        &self,
        encoded: &[u8],
        samples: &mut [u16],
        format: &PixelFormat,
        cancellation: Cancellation<'_>,
    ) -> Result<usize, ImageError> {
        let num_lines = self.components.len();
        let mut lines = vec![Lines::new(format.columns); num_lines];
        let mut run_indexes = vec![0; num_lines];
        let mut decoder = Decoder::new(encoded, self.parameters);
        let row_len = format.columns * format.num_samples;
        for row in samples.chunks_exact_mut(row_len) {
            cancellation.check()?;
            lines.iter_mut().for_each(Lines::begin_row);
            match self.interleave {
                Interleave::None | Interleave::Line => {
                    for (lines, run_index) in lines.iter_mut().zip(&mut run_indexes) {
                        decoder.row(lines, run_index)?;
                    }
                }
                Interleave::Sample => decoder.row_of_pixels(&mut lines, &mut run_indexes[0])?,
            }
            for (lines, &component) in lines.iter().zip(self.components) {
                let places = row[component..].iter_mut().step_by(format.num_samples);
                let decoded = &lines.current[1..=format.columns];
                places
                    .zip(decoded)
                    .for_each(|(place, sample)| *place = *sample as u16);
            }
        }
        Ok(decoder.bits.end())
    }
}

/// Two rows of a component, with a sample before them and one behind them.
#[derive(Clone)]
struct Lines {
    previous: Vec<i32>,
    current: Vec<i32>,
}

impl Lines {
    fn new(columns: usize) -> Self {
        Self {
            previous: vec![0; columns + 2],
            current: vec![0; columns + 2],
        }
    }

    fn begin_row(&mut self) {
        std::mem::swap(&mut self.previous, &mut self.current);
        let last = self.previous.len() - 1;
        // To the right of a row stands its last sample; to the left of one, the first of the row
        // above.
        self.previous[last] = self.previous[last - 1];
        self.current[0] = self.previous[1];
    }

    /// Returns a, b, c and d of a sample, counted from 1.
    fn around(&self, at: usize) -> [i32; 4] {
        [
            self.current[at - 1],
            self.previous[at],
            self.previous[at - 1],
            self.previous[at + 1],
        ]
    }
}

struct Decoder<'a> {
    bits: Bits<'a>,
    parameters: Parameters,
    contexts: [Context; NUM_REGULAR],
    run_contexts: [RunContext; 2],
    /// Class of each difference of two samples, from the least on.
    classes: Vec<i8>,
}

impl<'a> Decoder<'a> {
    fn new(encoded: &'a [u8], parameters: Parameters) -> Self {
        let most = parameters.max_value;
        let class = |difference: i32| parameters.class_of(difference);
        Self {
            bits: Bits::new(encoded),
            contexts: [Context::new(&parameters); NUM_REGULAR],
            run_contexts: [0, 1].map(|kind| RunContext::new(&parameters, kind)),
            classes: (-most..=most).map(class).collect(),
            parameters,
        }
    }

    /// Decodes a row of one component.
    fn row(&mut self, lines: &mut Lines, run_index: &mut usize) -> Result<(), ImageError> {
        let end = lines.current.len() - 1;
        let mut at = 1;
        while at < end {
            let around @ [a, ..] = lines.around(at);
            let context = self.context_of(around);
            if context != 0 {
                lines.current[at] = self.regular(around, context)?;
                at += 1;
                continue;
            }
            let run = self.run(end - at, run_index)?;
            lines.current[at..at + run].fill(a);
            at += run;
            if at == end {
                break;
            }
            let b = lines.previous[at];
            let kind = usize::from((a - b).abs() <= self.parameters.near);
            let error = self.end_of_run(kind, *run_index)?;
            lines.current[at] = match kind {
                1 => self.parameters.sample(a, error),
                _ if a > b => self.parameters.sample(b, -error),
                _ => self.parameters.sample(b, error),
            };
            *run_index = run_index.saturating_sub(1);
            at += 1;
        }
        Ok(())
    }

    /// Decodes a row of all components, pixel after pixel.
    fn row_of_pixels(
        &mut self,
        lines: &mut [Lines],
        run_index: &mut usize,
    ) -> Result<(), ImageError> {
        let end = lines[0].current.len() - 1;
        let mut at = 1;
        while at < end {
            let is_run = lines
                .iter()
                .all(|lines| self.context_of(lines.around(at)) == 0);
            if !is_run {
                for lines in &mut *lines {
                    let around = lines.around(at);
                    let context = self.context_of(around);
                    lines.current[at] = self.regular(around, context)?;
                }
                at += 1;
                continue;
            }
            let run = self.run(end - at, run_index)?;
            for lines in &mut *lines {
                let a = lines.current[at - 1];
                lines.current[at..at + run].fill(a);
            }
            at += run;
            if at == end {
                break;
            }
            for lines in &mut *lines {
                let [a, b, ..] = lines.around(at);
                let error = self.end_of_run(0, *run_index)?;
                lines.current[at] = match a > b {
                    true => self.parameters.sample(b, -error),
                    false => self.parameters.sample(b, error),
                };
            }
            *run_index = run_index.saturating_sub(1);
            at += 1;
        }
        Ok(())
    }

    /// Returns the signed number of a context; 0 where a run begins.
    fn context_of(&self, [a, b, c, d]: [i32; 4]) -> i32 {
        let class = |difference: i32| {
            let idx = (difference + self.parameters.max_value) as usize;
            i32::from(self.classes[idx])
        };
        (class(d - b) * 9 + class(b - c)) * 9 + class(c - a)
    }

    fn regular(&mut self, [a, b, c, _]: [i32; 4], context: i32) -> Result<i32, ImageError> {
        let parameters = self.parameters;
        let (least, greatest) = (a.min(b), a.max(b));
        let predicted = if c >= greatest {
            least
        } else if c <= least {
            greatest
        } else {
            a + b - c
        };
        let is_mirrored = context < 0;
        let context = &mut self.contexts[context.unsigned_abs() as usize];
        let correction = match is_mirrored {
            true => -context.correction,
            false => context.correction,
        };
        let predicted = (predicted + correction).clamp(0, parameters.max_value);
        let low_bits = context.low_bits();
        let code = code(&mut self.bits, low_bits, parameters.limit, &parameters)?;
        let error = context.error_of(code, low_bits, parameters.near);
        context.learn(error, &parameters);
        let error = if is_mirrored { -error } else { error };
        Ok(parameters.sample(predicted, error))
    }

    /// Reads the length of a run, at most `max`, which is the rest of the row.
    fn run(&mut self, max: usize, run_index: &mut usize) -> Result<usize, ImageError> {
        let mut len = 0;
        while self.bits.take(1)? == 1 {
            let piece = 1 << RUN_BITS[*run_index];
            if piece > max - len {
                return Ok(max);
            }
            len += piece;
            *run_index = (*run_index + 1).min(RUN_BITS.len() - 1);
            if len == max {
                return Ok(max);
            }
        }
        len += self.bits.take(RUN_BITS[*run_index])? as usize;
        // A run that is ended has a sample behind it.
        match len < max {
            true => Ok(len),
            false => Err(DAMAGED),
        }
    }

    fn end_of_run(&mut self, kind: usize, run_index: usize) -> Result<i32, ImageError> {
        let parameters = self.parameters;
        let context = &mut self.run_contexts[kind];
        let low_bits = context.low_bits();
        let limit = parameters.limit - RUN_BITS[run_index] - 1;
        let code = code(&mut self.bits, low_bits, limit, &parameters)?;
        Ok(context.error_of(code, low_bits, &parameters))
    }
}

/// Reads a code of limited length (T.87 section A.5.3).
fn code(
    bits: &mut Bits<'_>,
    low_bits: u32,
    limit: u32,
    parameters: &Parameters,
) -> Result<u32, ImageError> {
    let most = limit - parameters.error_bits - 1;
    let high = bits.zeros(most)?;
    let code = match high < most {
        true => high << low_bits | bits.take(low_bits)?,
        false => bits.take(parameters.error_bits)? + 1,
    };
    // Errors are written modulo their range. With this, statistics stay small.
    match code <= parameters.range as u32 {
        true => Ok(code),
        false => Err(DAMAGED),
    }
}

impl Parameters {
    /// The class of a difference, -4 to 4.
    fn class_of(&self, difference: i32) -> i8 {
        let [low, middle, high] = self.thresholds;
        let size = difference.abs();
        let class = if size <= self.near {
            0
        } else if size < low {
            1
        } else if size < middle {
            2
        } else if size < high {
            3
        } else {
            4
        };
        if difference < 0 { -class } else { class }
    }

    /// Adds an error to a prediction, around the ends of the range.
    fn sample(&self, predicted: i32, error: i32) -> i32 {
        let mut sample = predicted + error * self.step;
        if sample < -self.near {
            sample += self.range * self.step;
        } else if sample > self.max_value + self.near {
            sample -= self.range * self.step;
        }
        sample.clamp(0, self.max_value)
    }
}
