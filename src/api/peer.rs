//! Who is at the other end of a connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Who is at the other end, and at which of our addresses they came. A request from a socket has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Theirs; of IPv6 the network that one customer has, within which addresses cost nothing.
    pub(super) network: IpAddr,
    /// Whether we listen on a loopback address: only programs of this machine come by it, and what
    /// they are made to ask. By the socket that listens: over one for all addresses a proxy of this
    /// machine may pass others' requests on, with their names for us.
    pub(super) is_local: bool,
}

impl Peer {
    /// The end at `theirs` of a connection to a socket that listens at `ours`.
    pub(super) fn new(theirs: SocketAddr, ours: SocketAddr) -> Self {
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
