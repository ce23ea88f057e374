//! The listening half of the proxy: accepts connections, or refuses them, and owns the tasks that forward.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{watch, watch::Receiver},
    task::JoinSet,
    time::sleep,
};

use super::{
    Counts,
    connection::{Connection, reset},
    faults::Faults,
};

/// The pause after a failed accept (out of file descriptors, mostly): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts until it is aborted; its connections end with it.
pub(super) async fn run(
    listener: TcpListener,
    server: Receiver<SocketAddr>,
    faults: Receiver<Faults>,
    counts: Arc<Counts>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let now = *faults.borrow();
                    if now.refusing {
                        reset(&client);
                    } else {
                        let open = Open::count(&counts);
                        connections.spawn(forward(client, *server.borrow(), now, faults.clone(), open));
                    }
                }
                // The client has gone again, or there is nothing to accept it with: neither ends the proxy.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, from the dialling of the server to its end.
async fn forward(client: TcpStream, server: SocketAddr, born: Faults, faults: Receiver<Faults>, open: Open) {
    match dial(server).await {
        Ok(server) => Connection::new(client, server, &born, &open.counts).run(faults).await,
        // The server refuses: so do we.
        Err(_) => reset(&client),
    }
}

async fn dial(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Counts a connection for as long as it lives, however it ends.
#[derive(Debug)]
struct Open {
    counts: Arc<Counts>,
}

impl Open {
    fn count(counts: &Arc<Counts>) -> Self {
        let open: &watch::Sender<usize> = &counts.open;
        open.send_modify(|open| *open += 1);
        Self { counts: Arc::clone(counts) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts.open.send_modify(|open| *open -= 1);
    }
}
