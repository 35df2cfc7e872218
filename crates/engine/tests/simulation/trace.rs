//! Short words for what happens, to read a seed that failed.

use std::fmt;

use longtake_engine::event::EventKind;
use longtake_engine::ids::RunId;
use longtake_engine::lane::work::{Fence, RunWrite, Work};
use longtake_engine::lane::{Asked, LeaseBeat, Reply};
use uuid::Uuid;

use crate::call::Body;

/// The beginning of a name.
pub fn short(id: Uuid) -> String {
    id.simple().to_string()[..4].to_owned()
}

pub struct Brief<'a, T>(pub &'a T);

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    show: impl Fn(T) -> String,
) -> fmt::Result {
    let shown: Vec<String> = items.into_iter().map(show).collect();
    write!(f, "[{}]", shown.join(", "))
}

impl fmt::Display for Brief<'_, Work> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Work::Load(load) => {
                f.write_str("load ")?;
                list(f, &load.runs, |(run, lock)| {
                    format!("{}{}", short(run.0), if *lock { " locked" } else { "" })
                })?;
                write!(f, " ready {:?}", load.ready)
            }
            Work::Write(write) => {
                f.write_str("write ")?;
                list(f, &write.runs, |run| Brief(run).to_string())?;
                f.write_str(" sessions ")?;
                list(f, &write.sessions, |session| format!("{} {}", short(session.id.0), session.lasts))
            }
            Work::EndSessions(over) => {
                write!(f, "end sessions, look {} ", over.look)?;
                list(f, &over.ids, |id| short(id.0))
            }
            Work::ForgetSessions(over) => {
                write!(f, "forget sessions, look {} ", over.look)?;
                list(f, &over.ids, |id| short(id.0))
            }
            Work::Housekeep(round) => {
                write!(f, "housekeep {:?} own {:?} watched ", round.queues, round.own)?;
                list(f, &round.watched, |(run, _, version)| format!("{}@{version}", short(run.0)))
            }
        }
    }
}

impl fmt::Display for Brief<'_, RunWrite> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.0;
        match &run.fence {
            Fence::Absent(_) => write!(f, "{} new ", short(run.id.0))?,
            Fence::Version { version, .. } => write!(f, "{}@{version} ", short(run.id.0))?,
        }
        list(f, &run.events, |event| match &event.kind {
            EventKind::StepLeased { step, session, .. } => format!("leased {step} to {}", short(session.0)),
            EventKind::StepSucceeded { step, .. } => format!("succeeded {step}"),
            EventKind::RunCreated { .. } => "created".to_owned(),
            EventKind::CheckpointCommitted { step, checkpoint } => {
                format!(
                    "checkpoint {step}: {}/{} done {}",
                    checkpoint.attempt, checkpoint.sequence, checkpoint.done
                )
            }
            kind => format!("{kind:?}").chars().take(90).collect(),
        })?;
        run.not_before.map_or(Ok(()), |due| write!(f, " not before {}", due.0 % 1_000_000_000))
    }
}

impl fmt::Display for Brief<'_, Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} grants ", self.0.answers)?;
        list(f, &self.0.grants, |grant| {
            format!("{} step {} attempt {}", short(grant.token.run.0), grant.token.step, grant.token.attempt)
        })?;
        write!(f, " {:?}", self.0.session)
    }
}

impl fmt::Display for Brief<'_, Body> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = |asked: &Asked| {
            let command: String = format!("{:?}", asked.command).chars().take(40).collect();
            format!("{} {command}", short(asked.run.0))
        };
        let lease =
            |run: RunId, step: u8, attempt: u32| format!("{} step {step} attempt {attempt}", short(run.0));
        match self.0 {
            Body::Submit(all) => list(f, all, asked),
            Body::Operate(one) => f.write_str(&asked(one)),
            Body::Poll(poll, wait) => {
                let request = poll.request.map(|request| short(request.0));
                write!(
                    f,
                    "poll {} {:?} {} {request:?} {wait}",
                    short(poll.session.0),
                    poll.queues,
                    poll.max_steps
                )
            }
            Body::Beat(beat, hold) => {
                write!(f, "beat {} complete {} hold {hold} ", short(beat.session.0), beat.complete)?;
                list(f, &beat.leases, |LeaseBeat { token, checkpoint, .. }| {
                    let sequence = checkpoint.as_ref().map(|checkpoint| checkpoint.sequence);
                    format!("{} {sequence:?}", lease(token.run, token.step, token.attempt))
                })
            }
            Body::Report(reports, next) => {
                list(f, reports, |(token, report)| {
                    format!("{:?} {}", report.kind(), lease(token.run, token.step, token.attempt))
                })?;
                write!(f, " and a poll: {}", next.is_some())
            }
        }
    }
}
