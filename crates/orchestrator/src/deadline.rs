//! A deadline for handling a call: a request that never ends, or a database that never answers, must not hold one for ever.
//!
//! Counted until the answer begins, so that streams may last. tonic has such a deadline too, but answers it with CANCELLED, which
//! tells clients that they gave up themselves.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Map;
use http::{Request, Response};
use longtake_proto::v1::Reason;
use tokio::time::Timeout;
use tokio::time::error::Elapsed;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::errors::Refused;

/// The layer.
#[derive(Clone)]
pub struct Deadline(pub Duration);

impl<S> Layer<S> for Deadline {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner, deadline: self.0 }
    }
}

/// A service whose calls are answered in time.
#[derive(Clone)]
pub struct Timed<S> {
    inner: S,
    deadline: Duration,
}

type Answer<E> = Result<Response<Body>, E>;

impl<S, B> Service<Request<B>> for Timed<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Map<Timeout<S::Future>, fn(Result<Answer<S::Error>, Elapsed>) -> Answer<S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        tokio::time::timeout(self.deadline, self.inner.call(request)).map(in_time)
    }
}

fn in_time<E>(answered: Result<Answer<E>, Elapsed>) -> Answer<E> {
    answered.unwrap_or_else(|_| Ok(Status::from(late()).into_http()))
}

fn late() -> Refused {
    Refused::new(
        Reason::Unavailable,
        "the call was not finished in time, and what it asked for may or may not be done: send it again, with the same request_id",
    )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    #[tokio::test]
    async fn a_call_that_is_never_answered_may_be_tried_again() {
        let silent = |_: Request<()>| std::future::pending::<Answer<Infallible>>();
        let mut service = Deadline(Duration::from_millis(1)).layer(tower::util::service_fn(silent));
        let Ok(response) = service.call(Request::new(())).await;
        let status = Status::from_header_map(response.headers()).expect("an error");
        let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
        assert_eq!((status.code(), reason.as_deref()), (Code::Unavailable, Some("UNAVAILABLE")));
        assert!(status.message().contains("request_id"));
    }

    #[tokio::test]
    async fn an_answer_in_time_passes() {
        let prompt =
            |_: Request<()>| async { Ok::<_, Infallible>(Status::not_found("gone").into_http::<Body>()) };
        let mut service = Deadline(Duration::from_secs(60)).layer(tower::util::service_fn(prompt));
        let Ok(response) = service.call(Request::new(())).await;
        assert_eq!(
            Status::from_header_map(response.headers()).map(|status| status.code()),
            Some(Code::NotFound)
        );
    }
}
