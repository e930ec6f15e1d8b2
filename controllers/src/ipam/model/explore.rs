//! Visits every state that can be reached, breadth first: the first counter-example found is a shortest one, and where the bound ends an
//! exploration, all that takes no more moves than it says was seen.

use std::collections::{HashMap, VecDeque};

use super::Scene;
use super::state::{Known, Move, State};

/// What was seen.
#[derive(Debug)]
pub struct Explored {
    pub states: usize,
    pub depth: usize,
    /// States in which nothing more happens by itself.
    pub rests: usize,
    /// Whether these are all there are.
    pub complete: bool,
}

/// A way to a state that must not be.
#[derive(Debug)]
pub struct CounterExample {
    pub what: String,
    pub trace: Vec<String>,
}

struct Node {
    /// Where it was reached from first, by which move, and after how many.
    from: Option<(u32, Move)>,
    depth: u16,
}

/// Explores a scene; the error is the first counter-example.
pub fn explore(scene: &Scene) -> Result<Explored, CounterExample> {
    let first = State::new(scene);
    let mut numbers = HashMap::from([(first.fingerprint(scene), 0_u32)]);
    let mut nodes = vec![Node { from: None, depth: 0 }];
    let mut frontier = VecDeque::from([(0_u32, first)]);
    // Moves that come by themselves, backwards: from these the states are found that cannot come to rest any more.
    let mut back: Vec<(u32, u32)> = Vec::new();
    let mut rests = Vec::new();
    let mut known = Known::default();
    while let Some((number, state)) = frontier.pop_front() {
        let found = |what| counter_example(scene, &nodes, number, what);
        let (free, paid) = state.moves(scene);
        if free.is_empty() {
            state.check_rest(scene).map_err(found)?;
            rests.push(number);
        }
        let depth = nodes[number as usize].depth + 1;
        for (step, is_free) in free.into_iter().map(|step| (step, true)).chain(paid.into_iter().map(|step| (step, false))) {
            let next = state.after(step, scene, &mut known).map_err(|what| {
                nodes.push(Node { from: Some((number, step)), depth });
                counter_example(scene, &nodes, u32::try_from(nodes.len() - 1).unwrap(), what)
            })?;
            let fresh = u32::try_from(nodes.len()).unwrap();
            let target = *numbers.entry(next.fingerprint(scene)).or_insert(fresh);
            if target == fresh {
                nodes.push(Node { from: Some((number, step)), depth });
                frontier.push_back((fresh, next));
            }
            if is_free {
                back.push((target, number));
            }
        }
        if nodes.len() > scene.most {
            return Ok(Explored { states: nodes.len(), depth: depth.into(), rests: rests.len(), complete: false });
        }
    }
    if let Some(stuck) = never_at_rest(nodes.len(), back, &rests) {
        return Err(counter_example(scene, &nodes, stuck, "it never comes to rest from here".to_owned()));
    }
    let depth = nodes.last().map_or(0, |node| node.depth.into());
    Ok(Explored { states: nodes.len(), depth, rests: rests.len(), complete: true })
}

/// The first state from which no state of rest is reached by free moves.
fn never_at_rest(states: usize, mut back: Vec<(u32, u32)>, rests: &[u32]) -> Option<u32> {
    back.sort_unstable();
    let mut reaches = vec![false; states];
    let mut open = rests.to_vec();
    while let Some(state) = open.pop() {
        if std::mem::replace(&mut reaches[state as usize], true) {
            continue;
        }
        let start = back.partition_point(|(target, _)| *target < state);
        open.extend(back[start..].iter().take_while(|(target, _)| *target == state).map(|(_, from)| *from));
    }
    reaches.iter().position(|reaches| !reaches).and_then(|state| u32::try_from(state).ok())
}

/// Goes the way to a state once more and writes it down.
fn counter_example(scene: &Scene, nodes: &[Node], end: u32, what: String) -> CounterExample {
    let mut way = Vec::new();
    let mut at = end;
    while let Some((from, step)) = nodes[at as usize].from {
        way.push(step);
        at = from;
    }
    let (mut state, mut known) = (State::new(scene), Known::default());
    let mut trace = vec![format!("{:<28}{state}", "")];
    for step in way.into_iter().rev() {
        let asked = state.describe(step);
        let Ok(next) = state.after(step, scene, &mut known) else {
            trace.push(asked);
            break;
        };
        state = next;
        trace.push(format!("{asked:<28}{state}"));
    }
    CounterExample { what, trace }
}
