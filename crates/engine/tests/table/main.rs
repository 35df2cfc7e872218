//! The state machine as tables: each row starts a run somewhere, gives it commands, and says exactly what follows.
//!
//! The rows are in the `.txt` files beside this one, by topic. A row:
//!
//! ```text
//! case a lost reply is no failure
//! with a(price 0.1) b(needs a)              the workflow, in the shorthand of `flow`
//! from lease a                              how it gets there; not checked, but that nothing is refused
//! +10s undelivered a => returned a#1 DISPATCH_TIMEOUT
//! lease a            => leased a#2 -> …     a command, its events, and its answer unless that is a plain yes
//! says was given the step                   part of what the last command's events or answer say to people
//! why a DISPATCH_TIMEOUT: …                 the step's error; `why run …` is the run's reason
//! rows none                                 the rows beside the run
//! state RUNNING | a LEASED#2 used 0/1/0 | b PENDING
//! ```
//!
//! `script` lists the commands, `show` says how events, answers and states are written. Every row starts with `submit` unless
//! `from` says otherwise. `matrix.txt` crosses every state with every command.

mod flow;
mod matrix;
mod row;
mod script;
mod show;
mod stage;

use row::check;

#[test]
fn steps() {
    check("steps.txt");
}

#[test]
fn budgets() {
    check("budgets.txt");
}

#[test]
fn leases() {
    check("leases.txt");
}

#[test]
fn checkpoints() {
    check("checkpoints.txt");
}

#[test]
fn stopping() {
    check("stopping.txt");
}

#[test]
fn operators() {
    check("operators.txt");
}

#[test]
fn deadlines() {
    check("deadlines.txt");
}

#[test]
fn money() {
    check("money.txt");
}

#[test]
fn rows() {
    check("rows.txt");
}

#[test]
fn reasons() {
    check("reasons.txt");
}

#[test]
fn extremes() {
    check("extremes.txt");
}

#[test]
fn an_effect_key_is_the_same_for_every_attempt() {
    let mut stage = stage::Stage::new(flow::workflow("a(failures 1) b(needs a)"));
    let key = |stage: &stage::Stage, step: usize| {
        stage.run.as_ref().map(|run| run.effect_key(&stage.workflow.steps[step]))
    };
    stage.prepare("submit; lease a");
    assert_eq!(key(&stage, 0).as_deref(), Some("00000000-0000-0000-0000-000000000001/a"));
    assert_eq!(key(&stage, 1).as_deref(), Some("00000000-0000-0000-0000-000000000001/b"));
    let first = key(&stage, 0);
    stage.prepare("fail a; retry; lease a");
    assert_eq!(key(&stage, 0), first);
}

#[test]
fn every_command_in_every_state() {
    matrix::check("matrix.txt");
}
