//! The results of a benchmark, as a table or as JSON.

use std::fmt;

use serde::Serialize;

use super::Percentiles;

/// Rows under a heading.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was measured, with its settings.
    pub what: String,
    /// In the order in which they are printed.
    pub rows: Vec<Row>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Unit of everything in `value`.
    pub unit: &'static str,
    /// A single value, or a distribution.
    pub value: Value,
    /// Fraction of the hardware limit that was reached, if the limit is known: 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_of_bound: Option<f64>,
}

/// A row's figures.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A single figure.
    One(f64),
    /// A distribution.
    Many(Percentiles),
}

impl Row {
    /// A single figure.
    pub fn one(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            unit,
            value: Value::One(value),
            share_of_bound: None,
        }
    }

    /// A distribution; `None` when nothing was measured.
    pub fn many(name: impl Into<String>, values: Vec<f64>, unit: &'static str) -> Option<Self> {
        Some(Self {
            name: name.into(),
            unit,
            value: Value::Many(Percentiles::of(values)?),
            share_of_bound: None,
        })
    }

    /// Sets the fraction of the hardware limit that was reached.
    #[must_use]
    pub fn of_bound(mut self, share: f64) -> Self {
        self.share_of_bound = Some(share);
        self
    }
}

impl Report {
    /// One object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain numbers and names")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        for row in &self.rows {
            write!(f, "  {:<34}", row.name)?;
            match row.value {
                Value::One(value) => write!(f, "{value:>12.2} {}", row.unit)?,
                Value::Many(many) => write!(
                    f,
                    "{:>12.2} {}  (mean {:.2}, p90 {:.2}, p99 {:.2}, max {:.2})",
                    many.p50, row.unit, many.mean, many.p90, many.p99, many.max
                )?,
            }
            if let Some(share) = row.share_of_bound {
                write!(f, "  {:.0} % of the bound", share * 100.0)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
