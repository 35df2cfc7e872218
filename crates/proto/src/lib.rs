//! The contract in Rust: generated from `proto/`, whose comments are its manual, and the few conversions that both of its
//! sides need.

pub mod convert;

/// The package `longtake.v1`: messages, clients and servers.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::semicolon_if_nothing_returned
)]
pub mod v1 {
    tonic::include_proto!("longtake.v1");
}

/// Descriptors of the contract and of what it imports, encoded: for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("longtake_descriptor");
