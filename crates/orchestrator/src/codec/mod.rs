//! Between the engine's types and the contract's messages. No decisions here.
//!
//! History entries are stored as `longtake.v1.Event` messages, each behind its length, several to a row.

mod decode;
mod encode;
mod lease;
mod parts;
mod run;

pub use decode::{DecodeError, decode_events};
pub use encode::encode_events;
pub use lease::step_lease;
pub use parts::{
    artifact_from_proto, artifact_to_proto, error_to_proto, modality_from_proto, modality_to_proto,
    step_error,
};
pub use run::{Detail, run_state, run_to_proto, step_state};

/// Stored events, as the engine folds them.
pub mod fold {
    pub use super::decode::{event_from_proto as event, version_of};
}

pub(crate) use lease::session;
pub(crate) use parts::{directive, json, money, money_from, object, span, time, time_from};
