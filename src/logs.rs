//! Sets the log up: lines on standard error, at a level that can be changed while the process runs.

use std::io::{IsTerminal as _, stderr};

use anyhow::Context as _;
use controllers::config::LogLevel;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::flags::LogFormat;

/// Starts logging and returns the handle that changes the level.
pub fn set_up(verbosity: u8, format: LogFormat) -> anyhow::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(directives(verbosity)));
    let lines = fmt::layer().with_writer(stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("cannot set up logging")?;
    Ok(LogLevel::new(move |level| handle.reload(EnvFilter::new(directives(level))).map_err(|error| error.to_string())))
}

/// What to log at a level: 0 warnings, 2 changes, 4 decisions, 6 everything. The libraries below us are a step quieter.
fn directives(verbosity: u8) -> &'static str {
    match verbosity {
        0 | 1 => "warn",
        2 | 3 => "info",
        4 | 5 => "info,manager=debug,controllers=debug",
        _ => "debug,manager=trace,controllers=trace,h2=info,hyper=info,hyper_util=info,rustls=info,tower=info",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_a_filter_that_can_be_read() {
        for level in 0..=10 {
            EnvFilter::try_new(directives(level)).unwrap();
        }
    }
}
