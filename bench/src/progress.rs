//! The bar that moves while a run goes on; on something that is no terminal, one line per run.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `length` steps, or, for a length of 0, of unknown length.
pub fn bar(what: &str, length: usize) -> ProgressBar {
    let template =
        if length == 0 { "{elapsed:>5} {msg} {spinner}" } else { "{elapsed:>5} {msg:40} {bar:40} {pos}/{len} {eta:>5}" };
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    if bar.is_hidden() {
        eprintln!("bench: {what}");
    } else {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}
