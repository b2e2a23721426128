//! What is wrong with a configuration: every problem, not only the first.

use std::fmt;

/// One thing that is wrong, in words for the person who will put it right.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The key, such as `intake.max_body`; where the whole file is wrong, the file.
    pub key: String,
    /// What was found, in quotes where it is a value; `…` in place of what may be a secret.
    pub found: String,
    /// What is wanted instead.
    pub wanted: String,
    /// The file or the environment variable that it came from.
    pub whence: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, found, wanted, whence } = self;
        write!(f, "{key}: found {found}, wanted {wanted}")?;
        if key == whence { Ok(()) } else { write!(f, " (from {whence})") }
    }
}

/// All problems of a configuration, in the order of its keys; never empty where it is an error.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
