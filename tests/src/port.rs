//! A port of loopback that stays a test's own while nobody listens at it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

/// Holds a port: the system gives it to nobody who asks for any, and whoever asks for this one can listen at it.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    // Bound, and never listening.
    _socket: OwnedFd,
}

impl Port {
    /// One that is free.
    pub(crate) fn reserve() -> Self {
        let reserve = || -> rustix::io::Result<Self> {
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
            let address = SocketAddr::V4(getsockname(&socket)?.try_into()?);
            Ok(Self { address, _socket: socket })
        };
        reserve().expect("loopback has free ports")
    }

    /// Where to listen.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_port_is_listened_at_again_and_again() {
        let port = Port::reserve();
        for _ in 0..2 {
            assert!(TcpStream::connect(port.address()).is_err(), "nobody listens");
            let listener = TcpListener::bind(port.address()).unwrap();
            let _client = TcpStream::connect(port.address()).unwrap();
            let _server = listener.accept().unwrap();
        }
    }
}
