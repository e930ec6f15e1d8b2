//! What the story is told with: the running programs, kubectl, and the terminal.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use testbed::{ControlPlane, DnsServer, Manager, Sample, eventually};

use crate::binds::Binds;

const WIDTH: usize = 100;
/// Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stage {
    // Dropped in this order: the manager before the server it talks to.
    pub manager: Manager,
    pub control_plane: Arc<ControlPlane>,
    /// What the manager asks for names.
    pub names: DnsServer,
    pub binds: Binds,
    pub kubectl: PathBuf,
    coloured: bool,
}

impl Stage {
    pub fn new(control_plane: Arc<ControlPlane>, manager: Manager, names: DnsServer, binds: Binds, kubectl: PathBuf) -> Self {
        Self { manager, control_plane, names, binds, kubectl, coloured: io::stdout().is_terminal() }
    }

    /// Begins a screen and says what it is about.
    pub fn title(&self, title: &str, text: &str) {
        let rule = "─".repeat(WIDTH.saturating_sub(title.chars().count()));
        println!("\n\n{}\n{text}", self.paint("1", &format!("── {title} {rule}")));
    }

    /// Shows a command, runs it, and shows what it prints.
    pub async fn show(&self, command: &str) -> Result<()> {
        println!();
        let output = self.run(command).await?;
        for line in output.lines() {
            println!("    {}", self.paint_words(line));
        }
        Ok(())
    }

    /// Shows a command and runs it. Its words are those of kubectl, and have no blanks inside.
    pub async fn run(&self, command: &str) -> Result<String> {
        self.command(command);
        self.output(command).await
    }

    /// Runs a command that is not worth being shown.
    pub async fn output(&self, command: &str) -> Result<String> {
        let words: Vec<String> = command.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect();
        self.blocking(move |control_plane| control_plane.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>())).await
    }

    /// Runs kubectl beside the runtime, once: what has begun is waited for when the demo is to end.
    async fn blocking<T: Send + 'static>(&self, once: impl FnOnce(&ControlPlane) -> Result<T> + Send + 'static) -> Result<T> {
        let control_plane = Arc::clone(&self.control_plane);
        tokio::task::spawn_blocking(move || once(&control_plane)).await?
    }

    /// Shows a command.
    pub fn command(&self, command: &str) {
        println!("  {}", self.paint("36", &format!("$ kubectl {command}")));
    }

    /// Applies a sample and waits until it is as its comment says.
    pub async fn apply(&self, name: &str) -> Result<Sample> {
        let sample = Sample::named(name)?;
        self.run(&format!("apply -f config/samples/{name}")).await?;
        eventually(PATIENCE, async || {
            let sample = sample.clone();
            self.blocking(move |control_plane| sample.check(control_plane)).await
        })
        .await?;
        Ok(sample)
    }

    /// Says how long the claims of some samples took from creation to address.
    pub async fn tell_binds(&self, samples: &[Sample]) -> Result<()> {
        let mut took = Vec::new();
        for claim in samples.iter().flat_map(Sample::bound_claims) {
            took.push(self.binds.took(claim).await?.as_millis());
        }
        took.sort_unstable();
        let times = took.iter().map(u128::to_string).collect::<Vec<_>>().join(", ");
        say(&format!("From creation to address, in milliseconds, as another client's watch sees it: {times}."));
        Ok(())
    }

    /// The words an eye looks for.
    fn paint_words(&self, line: &str) -> String {
        const WORDS: [(&str, &str); 8] = [
            ("AddressAllocated", "32"),
            ("PoolExhausted", "33"),
            ("AllocationFailed", "31"),
            ("PoolNotReady", "33"),
            ("Assigned", "32"),
            ("AddressRefused", "31"),
            ("SourceNotFound", "31"),
            ("Warning", "33"),
        ];
        WORDS.iter().fold(line.to_owned(), |line, (word, colour)| line.replace(word, &self.paint(colour, word)))
    }

    pub fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Says what is to be seen next.
pub fn say(text: &str) {
    println!("\n{text}");
}
