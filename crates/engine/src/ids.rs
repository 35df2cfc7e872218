//! Names of things: runs, sessions, requests, leases. Parsed at the edge, trusted behind it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Names a run; equal to the `request_id` that created it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub Uuid);

/// The run's key inside Postgres: a number from a sequence, the leading key of every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunNo(pub i64);

/// Names one life of an executor process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub Uuid);

/// Names one call of a client, so that its repetition is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub Uuid);

/// The index of a step in its workflow, in file order; below 64.
pub type StepNo = usize;

/// The unguessable part of a lease token: 128 random bits that only the executor and this process's memory know.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Secret(pub [u8; 16]);

/// What is stored of a [`Secret`]: the first half of its SHA-256, so that no reader of the database or the history can use it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretHash(pub [u8; 16]);

/// A lease as its holder names it: which attempt of which step of which run, and the proof that it was granted.
///
/// Its printed form is what executors see as `lease_token`: 74 hexadecimal digits, to be treated as opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseToken {
    /// The run that the leased step belongs to.
    pub run: RunId,
    /// The leased step.
    pub step: u8,
    /// The attempt, counted from 1.
    pub attempt: u32,
    /// The proof.
    pub secret: Secret,
}

impl Secret {
    /// What the store and the history may know of it.
    pub fn hash(&self) -> SecretHash {
        let mut half = [0; 16];
        half.copy_from_slice(&Sha256::digest(self.0)[..16]);
        SecretHash(half)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHash({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl LeaseToken {
    /// The step as an index.
    pub fn step(&self) -> StepNo {
        usize::from(self.step)
    }
}

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 37];
        bytes[..16].copy_from_slice(self.run.0.as_bytes());
        bytes[16] = self.step;
        bytes[17..21].copy_from_slice(&self.attempt.to_be_bytes());
        bytes[21..].copy_from_slice(&self.secret.0);
        write_hex(&bytes, f)
    }
}

/// Writes bytes as lower-case hexadecimal digits, in one go: every lease shows a token and a version.
pub(crate) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    let text: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    f.write_str(&text)
}

/// The text is not a lease token of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lease token: pass the lease_token of a StepLease unchanged")]
pub struct BadLeaseToken;

impl FromStr for LeaseToken {
    type Err = BadLeaseToken;

    fn from_str(text: &str) -> Result<LeaseToken, BadLeaseToken> {
        if text.len() != 74 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadLeaseToken);
        }
        let number = |range: std::ops::Range<usize>| u128::from_str_radix(&text[range], 16).unwrap_or(0);
        Ok(LeaseToken {
            run: RunId(Uuid::from_u128(number(0..32))),
            step: u8::try_from(number(32..34)).map_err(|_| BadLeaseToken)?,
            attempt: u32::try_from(number(34..42)).map_err(|_| BadLeaseToken)?,
            secret: Secret(number(42..74).to_be_bytes()),
        })
    }
}

macro_rules! shows_as_uuid {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
shows_as_uuid!(RunId, SessionId, RequestId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_token_survives_printing() {
        let token = LeaseToken {
            run: RunId(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)),
            step: 63,
            attempt: u32::MAX,
            secret: Secret([0xa5; 16]),
        };
        assert_eq!(token.to_string().len(), 74);
        assert_eq!(token.to_string().parse(), Ok(token));
        for text in ["", "x", &"g".repeat(74), &"a".repeat(75), &"é".repeat(37)] {
            assert_eq!(text.parse::<LeaseToken>(), Err(BadLeaseToken), "{text}");
        }
    }
}
