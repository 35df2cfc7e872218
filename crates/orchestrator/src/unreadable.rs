//! Messages that cannot be read are their senders' mistake. tonic answers them with INTERNAL, which sends executors into retries and
//! operators to the server's log; callers are told INVALID_ARGUMENT here, with the field.

use http::Response;
use longtake_proto::v1::Reason;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::errors::Refused;

/// What tonic says of a message that prost could not decode: this, then fields from the innermost to the outermost, then why.
const UNDECODABLE: &str = "failed to decode Protobuf message: ";

/// The answer to a call, in which a message that could not be read is refused as any other bad field.
pub fn refused(response: Response<Body>) -> Response<Body> {
    let status = Status::from_header_map(response.headers()).filter(|status| status.code() == Code::Internal);
    let why = status.as_ref().and_then(|status| status.message().strip_prefix(UNDECODABLE));
    match why {
        Some(why) => Status::from(refusal(why)).into_http(),
        None => response,
    }
}

fn refusal(why: &str) -> Refused {
    let mut parts: Vec<&str> = why.split(": ").collect();
    let why = parts.pop().unwrap_or_default();
    let why = match why {
        "recursion limit reached" => "is nested too deeply to be read",
        why => why,
    };
    let field = parts.last().and_then(|path| path.split_once('.')).map(|(_, field)| field.to_owned());
    let message = format!("{}: {why}", field.as_deref().unwrap_or("the message cannot be read"));
    let fields = field.map(|field| (field, why.to_owned()));
    Refused::new(Reason::FieldInvalid, message).with_fields(fields.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn told(status: Status) -> (Code, String, Vec<String>) {
        let response = refused(status.into_http());
        let status = Status::from_header_map(response.headers()).expect("an error");
        let fields = status.get_error_details().bad_request().map(|bad| bad.field_violations.clone());
        let fields = fields.unwrap_or_default().into_iter().map(|violation| violation.field).collect();
        (status.code(), status.message().to_owned(), fields)
    }

    #[test]
    fn the_outermost_field_is_named() {
        let deep = "failed to decode Protobuf message: Struct.fields: Value.kind: CreateRunRequest.input: recursion limit reached";
        let expected = (
            Code::InvalidArgument,
            "input: is nested too deeply to be read".to_owned(),
            vec!["input".to_owned()],
        );
        assert_eq!(told(Status::internal(deep)), expected);
        let torn = "failed to decode Protobuf message: buffer underflow";
        let expected =
            (Code::InvalidArgument, "the message cannot be read: buffer underflow".to_owned(), Vec::new());
        assert_eq!(told(Status::internal(torn)), expected);
    }

    #[test]
    fn other_answers_pass() {
        for status in
            [Status::internal("a fault of ours"), Status::not_found("failed to decode Protobuf message: x")]
        {
            let (code, message) = (status.code(), status.message().to_owned());
            assert_eq!(told(status), (code, message, Vec::new()));
        }
    }
}
