//! A model of the duplicate rule, explored exhaustively: every order in which what is told below can happen.
//!
//! The decisions are the real ones: each manager is a real [`World`](super::world::World) with its ledgers, asked by the real
//! [`decide_in_turn`](super::decide_in_turn). The model supplies what lies between managers:
//!
//! - `server`: one API server, which serves one request after the other and keeps the preconditions of the real requests;
//! - `process`: a manager's two watches, each as late as it likes, and its queue;
//! - `drive`: the steps of a plan, request by request, with everything that may happen between two of them;
//! - `state`: the moves that are possible at a moment; `check`: what must never be; `explore` visits all states.
//!
//! What comes by itself (an event, a pass, a request served, an answer) comes in every order, without limit. What comes from outside
//! has a [`Budget`]: claims deleted and made again, visits of the garbage collector, kills, lists, requests without an answer, and
//! time that passes while something is still under way. Time passes for nothing only when nothing else is left to do. A request is
//! answered or given up within 30 s, and one that was given up is served within 75 s of its start or never.
//!
//! One leak is known and let pass: an address whose claim goes while its creation is on its way stays for ever if its maker is killed then.
//!
//! Not in the model: pauses, clusters, changes of the pool, foreign objects, the resync every ten minutes.

mod check;
mod drive;
mod explore;
mod process;
mod server;
mod state;

use explore::{CounterExample, Explored, explore};

/// Claims and addresses are called.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A manager that breaks a rule; the explorer must notice each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// The order of a list is taken for the order of creation.
    ListTellsOrder,
    /// An address is taken into view from the answer to its creation, ahead of the watch.
    AnswerCountsAsSeen,
    /// An address is deleted in whatever version it is.
    DeletesAnyVersion,
    /// A lost address is removed without a word on its claim.
    GivesUpInSilence,
}

/// How much may come from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Budget {
    deletions: u8,
    creations: u8,
    collections: u8,
    kills: u8,
    relists: u8,
    silences: u8,
    early_waits: u8,
}

/// What comes at once, so that more of the rest can be explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prompt {
    /// Nothing: whatever is on its way can be late.
    Nothing,
    /// A pass over a key whose turn it is.
    Passes,
    /// That, and the answer to a request that was served.
    Answers,
    /// That, and whatever the first manager does: only the others are late.
    First,
}

/// What is explored.
#[derive(Debug, Clone, Copy)]
struct Scene {
    managers: usize,
    claims: usize,
    values: u8,
    /// Claims are born with our finalizer, as with the webhook for claims.
    protected: bool,
    /// The pool has a grace, and it does not end: what was published stays, and its claim waits.
    grace: bool,
    prompt: Prompt,
    budget: Budget,
    broken: Option<Broken>,
    /// About so many states at most.
    most: usize,
}

mod tests;
