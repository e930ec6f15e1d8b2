//! What is explored, and that each broken rule is found. `IPAM_MODEL_STATES` sets how many states a scene may have; by default it is a
//! bound for every day, with some millions it is the whole of most scenes.

use super::*;

const BOUND: usize = 20_000;
const QUIET: Budget = Budget { deletions: 0, creations: 0, collections: 0, kills: 0, relists: 0, silences: 0, early_waits: 0 };
/// Two managers that begin with different claims, and room for one of them.
const RIVALS: Scene = Scene {
    managers: 2,
    claims: 2,
    values: 1,
    protected: true,
    grace: false,
    prompt: Prompt::Answers,
    budget: QUIET,
    broken: None,
    most: BOUND,
};

fn bound() -> usize {
    std::env::var("IPAM_MODEL_STATES").ok().and_then(|states| states.parse().ok()).unwrap_or(BOUND)
}

fn holds(scene: Scene) -> Explored {
    match explore(&Scene { most: bound().max(scene.most), ..scene }) {
        Ok(explored) => {
            let Explored { states, depth, rests, complete } = explored;
            let all = if complete { "all" } else { "the first" };
            println!("{all} {states} states, up to {depth} moves, {rests} of them at rest: {scene:?}");
            explored
        }
        Err(CounterExample { what, trace }) => panic!("{what}:\n{}\n{scene:?}", trace.join("\n")),
    }
}

fn fails(scene: Scene, broken: Broken) -> String {
    match explore(&Scene { broken: Some(broken), most: bound().max(300_000), ..scene }) {
        Ok(explored) => panic!("{broken:?} is not found: {explored:?}"),
        Err(CounterExample { what, trace }) => {
            println!("{what} after {} moves", trace.len());
            what
        }
    }
}

#[test]
fn two_managers_that_begin_with_different_claims_never_publish_one_value_twice() {
    let explored = holds(Scene { most: 100_000, ..RIVALS });
    assert!(explored.complete && explored.rests > 1, "{explored:?}");
    holds(Scene { values: 2, prompt: Prompt::Passes, ..RIVALS });
    holds(Scene { prompt: Prompt::Nothing, ..RIVALS });
    holds(Scene { protected: false, ..RIVALS });
}

#[test]
fn three_managers_bind_one_claim_once() {
    holds(Scene { managers: 3, claims: 1, ..RIVALS });
}

#[test]
fn a_kill_at_any_instant_loses_nothing() {
    holds(Scene { claims: 1, budget: Budget { kills: 2, ..QUIET }, ..RIVALS });
    holds(Scene { budget: Budget { kills: 1, ..QUIET }, ..RIVALS });
}

#[test]
fn a_list_that_hides_the_order_costs_no_published_address() {
    holds(Scene { budget: Budget { relists: 1, ..QUIET }, ..RIVALS });
    holds(Scene { budget: Budget { relists: 2, early_waits: 1, ..QUIET }, ..RIVALS });
}

#[test]
fn a_request_without_an_answer_may_have_been_served_or_not_or_later() {
    holds(Scene { claims: 1, budget: Budget { silences: 2, early_waits: 1, ..QUIET }, ..RIVALS });
    holds(Scene { budget: Budget { silences: 1, ..QUIET }, ..RIVALS });
}

#[test]
fn a_claim_that_is_deleted_and_made_again_takes_nothing_from_another() {
    holds(Scene { claims: 1, budget: Budget { deletions: 1, creations: 1, ..QUIET }, ..RIVALS });
    holds(Scene { budget: Budget { deletions: 1, creations: 1, ..QUIET }, ..RIVALS });
    holds(Scene { claims: 1, protected: false, budget: Budget { deletions: 1, creations: 1, ..QUIET }, ..RIVALS });
}

#[test]
fn what_was_given_up_is_undone_whenever_it_takes_effect() {
    let alone = Scene { managers: 1, claims: 1, protected: false, ..RIVALS };
    let explored = holds(Scene { budget: Budget { deletions: 1, silences: 1, ..QUIET }, ..alone });
    assert!(explored.complete, "{explored:?}");
    holds(Scene { budget: Budget { deletions: 2, creations: 1, silences: 1, ..QUIET }, ..alone });
    holds(Scene { budget: Budget { deletions: 2, creations: 1, silences: 2, ..QUIET }, ..alone });
    holds(Scene { managers: 2, budget: Budget { deletions: 1, silences: 1, ..QUIET }, ..alone });
}

#[test]
fn what_was_sent_is_known_although_its_reference_to_the_claim_was_taken_off() {
    let alone = Scene { managers: 1, claims: 1, protected: false, ..RIVALS };
    let budget = Budget { deletions: 1, collections: 1, ..QUIET };
    assert!(holds(Scene { budget, ..alone }).complete);
    holds(Scene { budget: Budget { silences: 1, ..budget }, ..alone });
    holds(Scene { budget: Budget { silences: 1, relists: 1, ..budget }, ..alone });
    holds(Scene { managers: 2, protected: true, budget, ..alone });
    holds(Scene { managers: 2, budget, ..alone });
}

#[test]
fn a_claim_does_not_go_while_a_late_view_shows_the_address_of_an_earlier_one() {
    let budget = Budget { deletions: 2, creations: 1, ..QUIET };
    let scene = Scene { claims: 1, prompt: Prompt::First, budget, ..RIVALS };
    assert!(holds(Scene { grace: true, most: 100_000, ..scene }).complete);
    holds(Scene { grace: true, budget: Budget { relists: 1, ..budget }, ..scene });
    holds(Scene { grace: true, budget: Budget { silences: 1, ..budget }, ..scene });
    holds(scene);
    holds(Scene { protected: false, ..scene });
}

#[test]
fn what_a_list_leaves_out_is_forgotten() {
    let alone = Scene { managers: 1, claims: 1, ..RIVALS };
    let budget = Budget { deletions: 1, relists: 1, ..QUIET };
    assert!(holds(Scene { budget, ..alone }).complete);
    assert!(holds(Scene { protected: false, budget: Budget { relists: 2, ..budget }, ..alone }).complete);
    holds(Scene { managers: 2, budget, ..alone });
    holds(Scene { managers: 2, protected: false, budget, ..alone });
}

#[test]
fn the_order_of_a_list_is_no_proof() {
    let scene = Scene { budget: Budget { relists: 1, ..QUIET }, ..RIVALS };
    assert!(fails(scene, Broken::ListTellsOrder).contains("published twice"));
}

#[test]
fn an_answer_is_no_proof_of_order() {
    assert!(fails(RIVALS, Broken::AnswerCountsAsSeen).contains("published twice"));
}

#[test]
fn an_address_may_have_become_a_later_claims_since_it_was_seen() {
    let scene = Scene { claims: 1, budget: Budget { deletions: 1, creations: 1, ..QUIET }, ..RIVALS };
    assert!(fails(scene, Broken::DeletesAnyVersion).contains("removed while its claim lives"));
}

#[test]
fn an_address_that_is_given_up_in_silence_may_be_published_meanwhile() {
    let scene = Scene { budget: Budget { relists: 1, ..QUIET }, ..RIVALS };
    assert!(fails(scene, Broken::GivesUpInSilence).contains("removed while its claim lives"));
}
