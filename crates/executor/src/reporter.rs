//! Delivers reports: all that wait in one call, again and again until the server has judged each of them.
//!
//! A finished attempt keeps its lease (renewed) and its slot until then. Through an outage that may take as long as it takes: the
//! lease decides what still counts. Each call also asks for steps to fill the slots that it frees.

use std::sync::Arc;

use prost::Message as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use longtake_proto::v1;
use longtake_proto::v1::step_report::Report;

use crate::attempt;
use crate::batch::take_call;
use crate::client::{Answer, Failure};
use crate::link::{Link, Slot};
use crate::report::amended;
use crate::retry::Retry;
use crate::ruling::{Flaw, Ruling};

/// How often one report is changed into a form that might be taken.
const AMENDMENTS: u32 = 3;
/// How often one report is sent again because the server had a fault with it; outages do not count.
const FAULTS: u32 = 20;

/// A report on its way.
pub(crate) struct Outgoing {
    token: String,
    report: Report,
    slot: Option<Slot>,
    amendments: u32,
    faults: u32,
    /// The server would not read a call that it was in.
    alone: bool,
}

impl Outgoing {
    pub(crate) fn new(token: String, report: Report, slot: Option<Slot>) -> Outgoing {
        Outgoing { token, report, slot, amendments: 0, faults: 0, alone: false }
    }

    fn size(&self) -> usize {
        match &self.report {
            Report::Complete(complete) => complete.encoded_len(),
            Report::Fail(fail) => fail.encoded_len(),
            Report::Yield(yielded) => yielded.encoded_len(),
        }
    }
}

/// Delivers until the queue is closed.
pub(crate) async fn run(link: Arc<Link>, mut queue: UnboundedReceiver<Outgoing>) {
    let mut retry = Retry::new();
    let mut waiting: Vec<Outgoing> = Vec::new();
    // Kept until it is answered, so that steps that were granted with a lost answer are handed out again.
    let mut poll_id = Uuid::new_v4();
    loop {
        if waiting.is_empty() {
            let Some(first) = queue.recv().await else { return };
            waiting.push(first);
        }
        while let Ok(more) = queue.try_recv() {
            waiting.push(more);
        }
        let mut call = take_batch(&mut waiting);
        let faulty = match send(&link, &call, poll_id).await {
            Ok(answer) => {
                poll_id = Uuid::new_v4();
                call = settle(&link, call, answer);
                !call.is_empty()
            }
            Err(failure @ Failure::Transient(_)) => {
                tracing::warn!(%failure, reports = call.len(), "reports could not be delivered; trying again");
                retry.after(&failure).await;
                false
            }
            Err(failure @ Failure::Refused(_)) => {
                tracing::error!(%failure, reports = call.len(), "the server refused a call with reports");
                call = unread(&link, call, &failure);
                true
            }
        };
        if faulty {
            retry.wait().await;
        } else if call.is_empty() {
            retry.reset();
        }
        // In front: reports are delivered in order, as far as that goes.
        call.append(&mut waiting);
        waiting = call;
    }
}

fn take_batch(waiting: &mut Vec<Outgoing>) -> Vec<Outgoing> {
    if waiting.first().is_some_and(|first| first.alone) {
        let rest = waiting.split_off(1);
        return std::mem::replace(waiting, rest);
    }
    take_call(waiting, Outgoing::size)
}

async fn send(
    link: &Link,
    call: &[Outgoing],
    poll_id: Uuid,
) -> Result<Answer<v1::ReportStepsResponse>, Failure> {
    let freed =
        call.iter().filter(|it| it.slot.as_ref().is_some_and(|slot| Arc::strong_count(slot) == 1)).count();
    let wanted = freed > 0 && !link.drain.is_cancelled();
    let request = v1::ReportStepsRequest {
        session_id: link.session.id.clone(),
        reports: call.iter().map(|it| v1::StepReport { report: Some(it.report.clone()) }).collect(),
        next: wanted.then(|| link.next_poll(freed, poll_id)),
    };
    link.client.report(request).await
}

/// Takes in the verdicts; returns what has to be sent again.
fn settle(link: &Arc<Link>, call: Vec<Outgoing>, answer: Answer<v1::ReportStepsResponse>) -> Vec<Outgoing> {
    let mut again = Vec::new();
    let mut free: Vec<OwnedSemaphorePermit> = Vec::new();
    let mut verdicts = answer.message.verdicts.iter();
    for mut outgoing in call {
        let ruling = verdicts.next().map_or_else(not_judged, |verdict| Ruling::of(Some(verdict)));
        if judge(&mut outgoing, ruling) {
            link.session.remove(&outgoing.token);
            free.extend(outgoing.slot.and_then(Arc::into_inner));
        } else {
            again.push(outgoing);
        }
    }
    if let Some(next) = answer.message.next {
        attempt::receive(link, next, answer.sent_at, free);
    }
    again
}

fn not_judged() -> Ruling {
    Ruling::Again("the reply has no verdict for it".to_owned())
}

/// Whether the server has had its last word on a report; if not, it is in the form in which it is to be sent again.
fn judge(outgoing: &mut Outgoing, ruling: Ruling) -> bool {
    match ruling {
        Ruling::Accepted | Ruling::Ended => true,
        Ruling::Gone(why) => {
            tracing::warn!(%why, "a report came too late: its lease is gone");
            true
        }
        Ruling::Refused(flaw, why) if outgoing.amendments < AMENDMENTS => {
            tracing::warn!(%why, "a report was refused; reporting what can be reported");
            outgoing.amendments += 1;
            outgoing.report = amended(outgoing.report.clone(), flaw, &why);
            false
        }
        Ruling::Again(why) if outgoing.faults < FAULTS => {
            tracing::warn!(%why, "the server could not take a report; trying again");
            outgoing.faults += 1;
            false
        }
        Ruling::Refused(_, why) | Ruling::Again(why) => {
            tracing::error!(%why, "a report was given up: its lease will be lost");
            true
        }
    }
}

/// The server would not read the call: its reports are sent one by one, and one that is alone is changed.
fn unread(link: &Link, mut call: Vec<Outgoing>, failure: &Failure) -> Vec<Outgoing> {
    if call.len() > 1 {
        call.iter_mut().for_each(|outgoing| outgoing.alone = true);
        return call;
    }
    call.retain_mut(|outgoing| {
        let done = judge(outgoing, Ruling::Refused(Flaw::Other, failure.to_string()));
        if done {
            link.session.remove(&outgoing.token);
        }
        !done
    });
    call
}
