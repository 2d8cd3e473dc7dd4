//! GPU architectures, named as in NVIDIA's tools.

use std::fmt;
use std::str::FromStr;

/// An architecture for which machine code is compiled, such as `sm_90a`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Arch {
    major: u32,
    minor: u32,
    /// Whether it runs only on exactly this GPU (`a`), rather than also on later minor versions.
    specific: bool,
}

/// Oldest architecture that the kernels support: bf16 matmuls and asynchronous copies.
const OLDEST: (u32, u32) = (8, 0);

impl Arch {
    /// Returns the architecture of a GPU of this compute capability.
    ///
    /// # Errors
    /// Returns a message for GPUs that are too old.
    pub fn of_gpu(major: u32, minor: u32) -> Result<Self, String> {
        if (major, minor) < OLDEST {
            return Err(format!(
                "its compute capability is {major}.{minor}, but bf16 needs {}.{} (Ampere) or later",
                OLDEST.0, OLDEST.1
            ));
        }
        Ok(Self {
            major,
            minor,
            specific: matches!((major, minor), (9, 0) | (10, 0)),
        })
    }

    /// Whether a kernel may start before the previous one has ended (programmatic dependent
    /// launch).
    pub fn overlaps(&self) -> bool {
        self.major >= 9
    }

    /// Architectures whose machine code runs on this one, best first.
    pub fn runs(&self) -> Vec<Self> {
        let specific = self.specific.then(|| self.clone());
        let plain = (0..=self.minor).rev().map(|minor| Self {
            major: self.major,
            minor,
            specific: false,
        });
        specific.into_iter().chain(plain).collect()
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.specific { "a" } else { "" };
        write!(f, "sm_{}{}{suffix}", self.major, self.minor)
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("{text} is not an architecture; write sm_80, sm_90a, sm_120");
        let number = text.strip_prefix("sm_").ok_or_else(malformed)?;
        let (number, specific) = match number.strip_suffix('a') {
            Some(number) => (number, true),
            None => (number, false),
        };
        let number: u32 = number.parse().map_err(|_| malformed())?;
        let (major, minor) = (number / 10, number % 10);
        if (major, minor) < OLDEST || major > 99 {
            return Err(format!(
                "{text} cannot run the kernels: sm_{}{} is the oldest",
                OLDEST.0, OLDEST.1
            ));
        }
        Ok(Self {
            major,
            minor,
            specific,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ["sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120"] {
            assert_eq!(name.parse::<Arch>().unwrap().to_string(), name);
        }
        for name in ["", "80", "sm_", "sm_75", "sm_9x", "sm_90b", "compute_90"] {
            assert!(name.parse::<Arch>().is_err(), "{name}");
        }
    }

    #[test]
    fn code_of_the_same_major_version_runs() {
        let names = |major, minor| -> Vec<String> {
            let arch = Arch::of_gpu(major, minor).unwrap();
            arch.runs().iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(8, 6)[..2], ["sm_86", "sm_85"]);
        assert_eq!(names(8, 6).last().unwrap(), "sm_80");
        assert_eq!(names(9, 0), ["sm_90a", "sm_90"]);
        assert!(Arch::of_gpu(7, 5).unwrap_err().contains("7.5"));
    }
}
