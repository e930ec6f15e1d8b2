//! How the process is asked to stop: `main` triggers it, every long-running loop waits on it.

use std::sync::Arc;

use tokio::sync::watch;

/// A request to stop, shared by everything that runs. It is made once and never taken back.
#[derive(Clone, Debug)]
pub struct Shutdown {
    asked: Arc<watch::Sender<bool>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A process that nobody has asked to stop yet.
    pub fn new() -> Self {
        Self { asked: Arc::new(watch::Sender::new(false)) }
    }

    /// Asks everything to stop. Asking again changes nothing.
    pub fn trigger(&self) {
        self.asked.send_replace(true);
    }

    /// Whether somebody has asked.
    pub fn is_requested(&self) -> bool {
        *self.asked.borrow()
    }

    /// Returns when somebody has asked, at once if that was before the call.
    pub async fn requested(&self) {
        // The sender lives in `self`, so the channel cannot be closed while we wait.
        let _ = self.asked.subscribe().wait_for(|asked| *asked).await;
    }
}

/// Why the manager came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExitReason {
    /// It was asked to.
    Stopped,
    /// It could not renew its lease, so another manager may be active now.
    LeadershipLost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_reaches_those_who_waited_and_those_who_come_later() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_requested());
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        shutdown.trigger();
        waiting.await.unwrap();
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
