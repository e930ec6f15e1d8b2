//! Durations as Go writes them: `15s`, `1m30s`, `1.5h`, `0`.

use std::time::Duration;

/// Reads a duration that is not negative.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write for example 15s, 1m30s or 168h");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.contains(|letter: char| !letter.is_ascii_alphanumeric() && !".µ".contains(letter)) || text.starts_with('P') {
        return Err(wrong());
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    duration.try_into().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("168h0m0s", 604_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "15", "-1s", "1d ", "PT5S", "1 s", "s", "1x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
