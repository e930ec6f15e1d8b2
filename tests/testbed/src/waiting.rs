//! Waiting for a condition with a deadline, and watching that nothing happens; used by tests instead of sleeping.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const PAUSE: Duration = Duration::from_millis(50);

/// Asks again and again until the answer is `Ok`; after `deadline` fails with the last answer's error.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mut count = 0;
/// let answer = testbed::eventually(std::time::Duration::from_secs(5), async || {
///     count += 1;
///     anyhow::ensure!(count > 2, "asked only {count} times");
///     Ok(count)
/// });
/// assert_eq!(answer.await.unwrap(), 3);
/// # });
/// ```
pub async fn eventually<T>(deadline: Duration, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if begin.elapsed() >= deadline => return Err(error).context(format!("not so within {deadline:?}")),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Asks again and again for the whole `duration`; fails at the first answer that is not `Ok`.
pub async fn consistently(duration: Duration, mut ask: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < duration {
        ask().await.with_context(|| format!("not so any more after {:?} of {duration:?}", begin.elapsed()))?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// [`eventually`] for code outside an async runtime; blocks its thread.
pub fn eventually_blocking<T>(deadline: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if begin.elapsed() >= deadline => return Err(error).context(format!("not so within {deadline:?}")),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[tokio::test]
    async fn the_last_answer_is_in_the_failure() {
        let mut count = 0;
        let failed = eventually(Duration::from_millis(120), async || {
            count += 1;
            ensure!(count > 1000, "answer {count}");
            Ok(())
        });
        let text = format!("{:#}", failed.await.unwrap_err());
        assert_eq!(text, format!("not so within 120ms: answer {count}"));
        assert!(count > 1);
    }

    #[tokio::test]
    async fn a_change_during_the_watch_is_a_failure() {
        let mut count = 0;
        let watched = consistently(Duration::from_secs(5), async || {
            count += 1;
            ensure!(count < 3, "something happened");
            Ok(())
        });
        assert!(format!("{:#}", watched.await.unwrap_err()).ends_with("something happened"));
    }

    #[tokio::test]
    async fn a_quiet_watch_passes() {
        consistently(Duration::from_millis(120), async || Ok(())).await.unwrap();
    }
}
