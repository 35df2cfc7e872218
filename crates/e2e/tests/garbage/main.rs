//! Every method of the contract is sent messages that nobody would mean: made at random from the contract's own descriptors, and
//! spoiled byte by byte. The server answers every one with a status that means something, forgets nothing, and goes on.
//!
//! `LONGTAKE_GARBAGE=100000` sends that many, `LONGTAKE_GARBAGE_SEED=7` others.

mod messages;
mod raw;

use std::sync::Arc;
use std::time::Duration;

use longtake_e2e::{Client, Hand, World, definitions};
use longtake_proto::v1;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};
use serde_json::json;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use messages::Messages;

/// Messages of an ordinary test run.
const MESSAGES: u64 = 4_000;
/// Calls at a time.
const AT_ONCE: usize = 8;
/// Polls and heartbeats may be held for longer than anybody wants to wait here.
const PATIENCE: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(20);
const SINGLE: &str = "format = 1\nname = \"single\"\n[[step]]\nname = \"work\"\n";
/// Of which no message knows anything.
const LATER: &str = "format = 1\nname = \"later\"\n[[step]]\nname = \"later\"\n";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// What a status must not be: it would say that the server did not expect what it got, or was not there.
fn is_sound(status: &Status) -> bool {
    match status.code() {
        Code::Unknown | Code::DataLoss | Code::Unavailable | Code::Unauthenticated | Code::Unimplemented => {
            false
        }
        // What is no message at all is refused by the library that reads it, before any of our code.
        Code::Internal => status.message().contains("decode Protobuf message"),
        _ => true,
    }
}

/// Every call of the contract that has one answer.
fn methods() -> Vec<MethodDescriptor> {
    let pool =
        DescriptorPool::decode(longtake_proto::FILE_DESCRIPTOR_SET).expect("the descriptors are whole");
    let services: Vec<_> = pool.services().filter(|it| it.full_name().starts_with("longtake.v1.")).collect();
    services
        .iter()
        .flat_map(ServiceDescriptor::methods)
        .filter(|method| !method.is_server_streaming())
        .collect()
}

/// Sends every `AT_ONCE`-th message, beginning with the `first`.
async fn send(
    channel: Channel,
    methods: Arc<Vec<MethodDescriptor>>,
    known: Arc<Vec<String>>,
    first: u64,
) -> u64 {
    let all = number("LONGTAKE_GARBAGE").unwrap_or(MESSAGES);
    let seed = number("LONGTAKE_GARBAGE_SEED").unwrap_or(1);
    let mut answered = 0;
    for number in (first..all).step_by(AT_ONCE) {
        let method = &methods[usize::try_from(number).expect("a small number") % methods.len()];
        let message = Messages::new(seed.wrapping_mul(1 << 32) + number, &known).bytes(&method.input());
        let call = raw::call(channel.clone(), method, message.clone());
        let Ok(answer) = tokio::time::timeout(PATIENCE, call).await else { continue };
        answered += 1;
        if let Err(status) = answer {
            assert!(
                is_sound(&status),
                "message {number} to {}: {status:?}\n{message:02x?}",
                method.full_name()
            );
        }
    }
    answered
}

/// Every run that is stored can be read.
async fn everything_can_be_read(client: &Client) -> usize {
    let mut request = v1::ListRunsRequest { page_size: 100, ..v1::ListRunsRequest::default() };
    let mut read = 0;
    loop {
        let page = client.runs().list_runs(request.clone()).await.expect("runs are listed").into_inner();
        for run in &page.runs {
            client.run(&run.run_id).await;
            client.events(&run.run_id).await;
            read += 1;
        }
        if page.next_page_token.is_empty() {
            return read;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn whatever_is_sent_is_answered_and_nothing_breaks() {
    let world = World::new().await;
    let folder = definitions(world.folder("definitions"), &[("single", SINGLE), ("later", LATER)]);
    let mut server = world.server_with(&folder).await;
    let client = server.client();
    let hand = Hand::new(&client, "hand", &["work"]);
    let run_id = client.create("single", json!({})).await;
    let lease = hand.take().await;
    client.create("single", json!({})).await;
    let page = v1::ListRunsRequest { page_size: 1, ..v1::ListRunsRequest::default() };
    let page = client.runs().list_runs(page).await.expect("runs are listed").into_inner();
    // Names of what exists, so that not everything ends at the door.
    let known = vec![run_id, lease.lease_token, page.next_page_token, "single".to_owned(), "work".to_owned()];
    let known = Arc::new(known);

    let endpoint = Endpoint::from_shared(server.url()).expect("a URL");
    let methods = Arc::new(methods());
    assert!(methods.len() > 15, "{}", methods.len());
    let senders: Vec<_> = (0..AT_ONCE as u64)
        .map(|first| tokio::spawn(send(endpoint.connect_lazy(), methods.clone(), known.clone(), first)))
        .collect();
    let mut answered = 0;
    for sender in senders {
        answered += sender.await.expect("every answer was sound");
    }
    assert!(answered > number("LONGTAKE_GARBAGE").unwrap_or(MESSAGES) / 2, "{answered} were answered");

    assert_eq!(server.process().end(), None, "the server lives");
    assert!(!server.process().said().contains("panicked"), "nothing panicked");
    assert!(everything_can_be_read(&client).await >= 2);
    let fresh = Hand::new(&client, "fresh", &["later"]);
    let run_id = client.create("later", json!({})).await;
    let lease = fresh.take().await;
    fresh.complete(&lease, json!({})).await.expect("it counts");
    client.succeeded(&run_id, SOON).await;
}
