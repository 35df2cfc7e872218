//! The store against a real Postgres. Every test makes a database of its own and drops it.

mod measure;
mod schema;
mod support;
mod write;
