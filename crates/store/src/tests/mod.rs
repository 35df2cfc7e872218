//! The store against a real Postgres. Every test makes a database of its own and drops it.

mod fold;
mod housekeep;
mod measure;
mod outage;
mod plans;
mod races;
mod reads;
mod retention;
mod schema;
mod sessions;
mod support;
mod unknown;
mod write;
