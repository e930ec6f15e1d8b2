//! Servers that live beside trials: each has a thread with a runtime of its own, because every trial's runtime ends with it.

use std::future::Future;
use std::thread::{self, JoinHandle};

use anyhow::Result;
use tokio::sync::oneshot;

/// Work that goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts `work` in a new runtime. It is dropped where it stands when it is to end.
    pub(crate) fn start<F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = Result<()>>,
    {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let title = name.to_owned();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    ended = work() => if let Err(error) = ended {
                        eprintln!("{title}: {error:#}");
                    },
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
