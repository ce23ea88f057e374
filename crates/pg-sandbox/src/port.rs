//! A TCP port on the loopback interface that stays ours, also while no server listens on it.
//!
//! "Bind to port 0, look at the number, let go" has two races. Another sandbox may get the same number before the
//! server binds it. Any process may take it while the server is restarted. A client that reconnects to a dead port
//! can even get that port as its own and connect to itself. On Linux a socket that is bound but never listens closes
//! all three gaps. Connections are refused, and no other process gets the port. The server may bind it because both
//! sides set `SO_REUSEADDR`. The BSDs do not let the server bind it, too. There the port is only probed, and
//! [`Sandbox`](crate::Sandbox) tries another one when the server finds it taken.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

/// A loopback port, kept from others for as long as this value lives (on Linux).
#[derive(Debug)]
pub(crate) struct Port {
    addr: SocketAddr,
    /// Never read: holding it open is its work.
    _reservation: Option<Socket>,
}

impl Port {
    /// Takes a free port of the kernel's choosing.
    pub(crate) fn reserve() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        // Without SO_REUSEADDR at first, so that no other reservation of the same port can succeed.
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let addr = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("the kernel bound a socket to no address"))?;
        socket.set_reuse_address(true)?;
        Ok(Self { addr, _reservation: cfg!(target_os = "linux").then_some(socket) })
    }

    /// The address that a server on this port has.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn reserved_port_admits_only_its_server() {
        let port = Port::reserve().unwrap();
        let refused = TcpStream::connect(port.addr()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        let rival = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let taken = rival.bind(&port.addr().into()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);

        // The standard library sets SO_REUSEADDR before it binds, as PostgreSQL does.
        let server = TcpListener::bind(port.addr()).unwrap();
        TcpStream::connect(port.addr()).unwrap();
        drop(server);
        bind_once_more(port.addr());
    }

    /// A child that another test forks at this moment has the old server's socket, too, until its exec.
    #[cfg(target_os = "linux")]
    fn bind_once_more(addr: SocketAddr) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(error) = TcpListener::bind(addr) {
            assert!(error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
