//! A wall clock that jumps, for one program. The monotonic clock goes on as it does.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Stands before the C library's `clock_gettime`.
const SOURCE: &str = include_str!("wall_clock.c");

/// What [`ManagerCommand::wall_clock`](crate::ManagerCommand::wall_clock) gives to a manager, which has to be linked dynamically.
#[derive(Debug)]
pub struct WallClock {
    folder: TempDir,
}

impl WallClock {
    /// A clock that is right so far. Needs a C compiler.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ipam-wall-clock-").tempdir()?;
        let clock = Self { folder };
        let source = clock.folder.path().join("wall_clock.c");
        fs::write(&source, SOURCE)?;
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(clock.library()).arg(&source).output();
        let compiled = compiled.context("run cc")?;
        ensure!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
        clock.set(0)?;
        Ok(clock)
    }

    /// Has the clock differ from the true one by so many seconds from now on.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // Renamed into place: half a number is another jump.
        let next = self.folder.path().join("next");
        fs::write(&next, seconds.to_string())?;
        fs::rename(next, self.offset()).context("set a clock")
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.folder.path().join("wall_clock.so")
    }

    pub(crate) fn offset(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_the_clock_jump_there_and_back() {
        let clock = WallClock::new().unwrap();
        let seconds = || {
            let mut date = Command::new("date");
            date.arg("+%s").env("LD_PRELOAD", clock.library()).env("WALL_CLOCK_OFFSET", clock.offset());
            String::from_utf8(date.output().unwrap().stdout).unwrap().trim().parse::<i64>().unwrap()
        };
        let begin = seconds();
        clock.set(-86_400).unwrap();
        assert!((-86_400..-80_000).contains(&(seconds() - begin)));
        clock.set(0).unwrap();
        assert!((0..6_400).contains(&(seconds() - begin)));
    }
}
