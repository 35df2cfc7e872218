//! Addresses for a server that may be restarted: chosen once, so that it comes back where it was.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::exit::Ended;

/// `wanted`, checked to be free, or a free port of this machine. Between here and the server's start somebody else could take it; the
/// server then says so.
///
/// # Errors
/// The address is in use, or not this machine's.
pub(super) fn choose(wanted: Option<SocketAddr>, flag: &str) -> anyhow::Result<SocketAddr> {
    let wanted = wanted.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let listener = TcpListener::bind(wanted).map_err(|error| {
        Ended::unavailable(format!(
            "cannot listen on {wanted}: {error}. Is another one running here? Choose another address with {flag}"
        ))
    })?;
    Ok(listener.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_said_with_the_flag() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let error = choose(Some(taken.local_addr().unwrap()), "--grpc-listen").unwrap_err();
        assert!(error.to_string().contains("--grpc-listen"), "{error}");
        assert_ne!(choose(None, "--grpc-listen").unwrap().port(), 0);
    }
}
