//! Bad input gets a clear error and loses nothing: every bound of the contract, each field by its name, and nothing is stored.
//!
//! Each table is a list of mistakes: the field that has to be named, and how a good request becomes a bad one.

mod content;
mod executors;
mod operators;
mod runs;
mod workflows;

use longtake_e2e::{Client, Refusal, Server, World};
use longtake_proto::v1::{SubmitContentRequest, Verdict};
use prost_types::{Duration, Struct, Timestamp, Value, value::Kind};
use tonic::{Code, Response, Status};

/// A server with the definitions that ship, and what its database holds.
struct Scene {
    world: World,
    client: Client,
    _server: Server,
}

impl Scene {
    async fn new() -> Scene {
        let world = World::new().await;
        let (server, client) = world.served().await;
        Scene { world, client, _server: server }
    }

    /// What is stored; taken before and after bad calls.
    async fn rows(&self) -> Vec<(String, i64)> {
        self.world.database().rows().await
    }
}

/// A mistake: the field that has to be named, and how to make it.
type Mistake<R> = (&'static str, fn(&mut R));

/// Makes each mistake in a copy of `good` and checks that `call` names its field and a bound.
async fn each<R: Clone + std::fmt::Debug, T>(
    good: &R,
    mistakes: &[Mistake<R>],
    call: impl AsyncFn(R) -> Result<Response<T>, Status>,
) {
    for (number, (field, spoil)) in mistakes.iter().enumerate() {
        let mut bad = good.clone();
        spoil(&mut bad);
        let what = format!("mistake {number}, in {field}");
        let Err(status) = call(bad).await else { panic!("{what}: it was accepted") };
        names(&Refusal::of(&status), field, &what);
    }
}

/// It is INVALID_ARGUMENT, FIELD_INVALID, and says of the field what is wrong.
fn names(refusal: &Refusal, field: &str, what: &str) {
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::InvalidArgument, "FIELD_INVALID"),
        "{what}: {refusal:?}"
    );
    let named = refusal.fields.iter().find(|(name, _)| name.starts_with(field));
    let (_, bound) = named.unwrap_or_else(|| panic!("{what}: {field} is not named by {refusal:?}"));
    assert!(!bound.is_empty(), "{what}: it does not say what is wrong: {refusal:?}");
}

/// Refused for this reason, with this code.
fn refused<T: std::fmt::Debug>(answer: Result<Response<T>, Status>, code: Code, reason: &str) -> Refusal {
    let refusal = Refusal::of(&answer.expect_err("it is refused"));
    assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{refusal:?}");
    assert!(!refusal.message.is_empty());
    // Whatever is wrong with a request is wrong with a field of it, and that is named.
    let named = refusal.code != Code::InvalidArgument || !refusal.fields.is_empty();
    assert!(named && refusal.fields.values().all(|bound| !bound.is_empty()), "{refusal:?}");
    refusal
}

/// Refused because its page token is none of this list.
fn no_such_page<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) {
    let refusal = refused(answer, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    assert!(refusal.fields.keys().eq(["page_token"]), "{refusal:?}");
}

/// Text of so many characters, each of which has several bytes.
fn text(characters: usize) -> String {
    "ä".repeat(characters)
}

/// A Struct of this nesting: 1 is an object that holds no other object or list.
fn nested(depth: usize) -> Option<Struct> {
    let mut inner = object("leaf", Kind::BoolValue(true));
    for _ in 1..depth {
        inner = object("in", Kind::StructValue(inner));
    }
    Some(inner)
}

fn object(key: &str, kind: Kind) -> Struct {
    Struct { fields: [(key.to_owned(), Value { kind: Some(kind) })].into() }
}

/// Objects that cannot be stored, and why.
fn unfit() -> Vec<(&'static str, Option<Struct>)> {
    vec![
        ("nested too deep", nested(33)),
        ("a NUL in a text", Some(object("a", Kind::StringValue("a\0b".to_owned())))),
        ("a NUL in a key", Some(object("a\0b", Kind::BoolValue(true)))),
        ("no number", Some(object("a", Kind::NumberValue(f64::NAN)))),
        ("an infinite number", Some(object("a", Kind::NumberValue(f64::INFINITY)))),
        ("too large", Some(object("a", Kind::StringValue("x".repeat(300 * 1024))))),
    ]
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

/// Spans that no call can want.
const ABSURD: [Duration; 6] = [
    Duration { seconds: -1, nanos: 0 },
    Duration { seconds: 0, nanos: -1_000 },
    Duration { seconds: i64::MAX, nanos: 0 },
    Duration { seconds: i64::MIN, nanos: 0 },
    Duration { seconds: 1, nanos: -1 },
    Duration { seconds: 0, nanos: 1_000_000_000 },
];

/// Times that no deadline can have.
const IMPOSSIBLE: [Timestamp; 6] = [
    Timestamp { seconds: 0, nanos: 0 },
    Timestamp { seconds: i64::MAX, nanos: 0 },
    Timestamp { seconds: i64::MIN, nanos: 0 },
    Timestamp { seconds: 4_000_000_000, nanos: -1 },
    Timestamp { seconds: 4_000_000_000, nanos: 1_000_000_000 },
    Timestamp { seconds: 253_402_300_799, nanos: 0 },
];

/// A verdict's words are as discreet as an error's.
fn verdict(verdict: Option<&Verdict>) -> Refusal {
    let verdict = verdict.cloned().unwrap_or_default();
    let reason = verdict.reason().as_str_name().trim_start_matches("REASON_").to_owned();
    let refusal = Refusal::of(&Status::new(Code::from(verdict.code), verdict.message));
    Refusal { reason, ..refusal }
}

fn good() -> SubmitContentRequest {
    longtake_e2e::content_request(&[], 2)
}
