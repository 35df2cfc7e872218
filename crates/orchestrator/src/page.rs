//! Page tokens: where the page before ended, and for which list and filters that is good.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longtake_proto::v1::Reason;
use sha2::{Digest, Sha256};

use crate::errors::Refused;

/// The token of the page behind `last`.
pub fn token(last: i64, filters: &str) -> String {
    let digest = Sha256::digest(filters);
    let mut bytes = last.to_be_bytes().to_vec();
    bytes.extend_from_slice(&digest[..8]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a token says; nothing for the first page. PAGE_TOKEN_INVALID when it is not one of this list with these filters.
pub fn start(token: &str, filters: &str) -> Result<Option<i64>, Refused> {
    if token.is_empty() {
        return Ok(None);
    }
    let foreign = || invalid("is not one of this list with these filters: start again without one");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| foreign())?;
    let (last, digest) = bytes.split_first_chunk::<8>().ok_or_else(foreign)?;
    if *digest != Sha256::digest(filters)[..8] {
        return Err(foreign());
    }
    Ok(Some(i64::from_be_bytes(*last)))
}

/// PAGE_TOKEN_INVALID.
pub fn invalid(why: &str) -> Refused {
    Refused::field(Reason::PageTokenInvalid, "page_token", why)
}
