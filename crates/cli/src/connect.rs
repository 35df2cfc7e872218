//! The way to a server: the first of several that can be reached, with bounds on everything, and the trace context of the call.

use std::str::FromStr;
use std::time::Duration;

use longtake_proto::v1::content_service_client::ContentServiceClient;
use longtake_proto::v1::run_service_client::RunServiceClient;
use longtake_proto::v1::workflow_service_client::WorkflowServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use crate::exit::Ended;
use crate::telemetry;

/// How long one server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is tried, so that a dead one is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer to that may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a server is when nobody says otherwise.
const USUAL: &str = "127.0.0.1:50051";
/// The largest answer that is read: a page of a thousand runs or events with everything.
const ANSWER_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Where a server listens: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl(Uri);

impl ServerUrl {
    /// `http://127.0.0.1:<port>`.
    pub(crate) fn local(port: u16) -> ServerUrl {
        ServerUrl(Uri::from_str(&format!("http://127.0.0.1:{port}")).expect("a URL"))
    }

    /// What a command line that is shown needs to reach it: nothing for the usual one.
    pub(crate) fn flag(&self) -> String {
        if self.authority() == USUAL { String::new() } else { format!(" --server {}", self.authority()) }
    }

    /// `host:port`, as grpcurl wants it.
    pub(crate) fn authority(&self) -> String {
        self.0.authority().map(ToString::to_string).unwrap_or_default()
    }
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<ServerUrl, String> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri = Uri::from_str(&whole).map_err(|error| format!("{text:?} is no address: {error}"))?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) if authority.port_u16().is_some() => Ok(ServerUrl(uri)),
            (Some("http"), _) => {
                Err(format!("{text:?} names no port: write for example http://127.0.0.1:50051"))
            }
            _ => Err(format!("{text:?}: only http:// is spoken; put a proxy that speaks TLS in front of it")),
        }
    }
}

/// A channel whose calls carry the trace context.
pub(crate) type Link = InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>;

/// A server that could be reached. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    /// Where it is.
    pub(crate) url: ServerUrl,
    channel: Channel,
}

impl Server {
    /// The first of `urls` that accepts a connection.
    ///
    /// # Errors
    /// None of them does; the message says why for each.
    pub(crate) async fn connect(urls: &[ServerUrl]) -> anyhow::Result<Server> {
        let mut reasons = Vec::new();
        for url in urls {
            match Server::connect_one(url).await {
                Ok(server) => return Ok(server),
                Err(reason) => reasons.push(format!("no server at {url}: {reason}")),
            }
        }
        reasons.push("Start one with `longtake dev`, or name another one with --server".to_owned());
        Err(Ended::unavailable(reasons.join("\n  ")))
    }

    async fn connect_one(url: &ServerUrl) -> Result<Server, String> {
        let endpoint = Endpoint::from(url.0.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|error| innermost(&error))?;
        Ok(Server { url: url.clone(), channel })
    }

    /// The bare channel.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn link(&self) -> Link {
        InterceptedService::new(self.channel.clone(), telemetry::carry_context)
    }

    /// ContentService.
    pub(crate) fn content(&self) -> ContentServiceClient<Link> {
        ContentServiceClient::new(self.link()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    /// RunService.
    pub(crate) fn runs(&self) -> RunServiceClient<Link> {
        RunServiceClient::new(self.link()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    /// WorkflowService.
    pub(crate) fn workflows(&self) -> WorkflowServiceClient<Link> {
        WorkflowServiceClient::new(self.link()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("http://127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("http://127.0.0.1:50051/", "http://127.0.0.1:50051"),
            ("localhost:7", "http://localhost:7"),
            ("[::1]:7", "http://[::1]:7"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), shown);
        }
        for text in ["", "http://", "localhost", "https://a:1", "ftp://a:1", "http://a b:1", "a:99999"] {
            assert!(text.parse::<ServerUrl>().is_err(), "{text}");
        }
        assert_eq!(ServerUrl::local(7).authority(), "127.0.0.1:7");
        assert_eq!([50_051, 7].map(|port| ServerUrl::local(port).flag()), ["", " --server 127.0.0.1:7"]);
    }

    #[tokio::test]
    async fn nobody_there_is_unavailable_and_says_what_to_do() {
        let Err(error) = Server::connect(&[ServerUrl::local(1), ServerUrl::local(2)]).await else {
            panic!("connected to port 1")
        };
        assert_eq!(crate::exit::Exit::of_error(&error), crate::exit::Exit::Unavailable);
        let text = error.to_string();
        assert!(text.contains("http://127.0.0.1:2") && text.contains("longtake dev"), "{text}");
    }
}
