//! The address of a connection's client.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A connection's client, and the kind of address it connected to. Requests from a socket carry it
/// as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The client's address. For IPv6 it is the network of one customer, within which addresses are
    /// free.
    pub(crate) network: IpAddr,
    /// Whether the server listens on a loopback address, which only programs on this machine reach,
    /// with the requests that others make them send. The address of the listening socket counts: on
    /// a socket for all addresses, a local proxy may forward the requests of others, with their
    /// host names for this server.
    pub(crate) is_local: bool,
}

impl Peer {
    /// Creates the peer `theirs` of a connection to a socket that listens at `ours`.
    pub(crate) fn new(theirs: SocketAddr, ours: SocketAddr) -> Self {
        Self {
            network: network(theirs.ip()),
            is_local: ours.ip().to_canonical().is_loopback(),
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cost_nothing_are_one() {
        for (address, expected) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(network(address).to_string(), expected);
        }
    }
}
